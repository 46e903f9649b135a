//! Settings that the command usually uses, but does not need with these other settings. A wrong value of one of them
//! must not stop the command.

use super::Reader;
use super::database::shows_password;
use crate::postgres::ConnectionInfo;
use crate::settings::{Auth, CredentialSource, Database, Settings, StoreUrl, Uses};

impl Reader<'_> {
    /// The starts of their names.
    pub(super) fn unneeded(&self, settings: &Settings) -> Vec<&'static str> {
        let login = match self.input.uses {
            Uses::All | Uses::Doctor => return Vec::new(),
            Uses::Backup | Uses::Slot => Some(first_of(&settings.sources)),
            Uses::Restore => Some(first_of(&settings.targets)),
            _ => None,
        };
        let mut unneeded = self.unneeded_of_aws(settings, login);
        if let Some((source, auth)) = login {
            unneeded.extend(self.unneeded_passwords(source, auth));
        }
        unneeded
    }

    /// Settings of AWS services to which the command sends no request. A folder store needs no region.
    fn unneeded_of_aws(&self, settings: &Settings, login: Option<(&CredentialSource, Auth)>) -> Vec<&'static str> {
        let uses = self.input.uses;
        let tells = uses.go_by("BACKUP_SNS_TOPIC_ARN");
        let in_bucket = |store: &StoreUrl| matches!(store, StoreUrl::S3 { .. });
        let s3 = uses.asks_stores() && settings.stores.iter().any(in_bucket);
        let secrets = login.is_some_and(|(source, _)| matches!(source, CredentialSource::Secret { .. }));
        let sns = tells && !settings.channels.is_empty();
        let signing = &settings.signing;
        let kms = (uses.go_by("BACKUP_SIGN_KEY") && signing.signs_by_kms())
            || (uses.go_by("BACKUP_VERIFY_KEYS") && signing.trusts_kms());
        let tokens = login.is_some_and(|(_, auth)| auth == Auth::Iam);
        let services: [(bool, &[&'static str]); 5] = [
            (
                s3,
                &[
                    "AWS_ENDPOINT_URL_S3",
                    "AWS_REQUEST_CHECKSUM_CALCULATION",
                    "BACKUP_S3_",
                    "MINIO_",
                ],
            ),
            (secrets, &["AWS_ENDPOINT_URL_SECRETS_MANAGER"]),
            (sns, &["AWS_ENDPOINT_URL_SNS"]),
            (kms, &["AWS_ENDPOINT_URL_KMS"]),
            (s3 || secrets || sns || kms || tokens, &["AWS_"]),
        ];
        let idle = services.into_iter().filter(|(asked, _)| !asked);
        idle.flat_map(|(_, settings)| settings.iter().copied()).collect()
    }

    /// Settings of passwords that the login does not use, because it has another one.
    fn unneeded_passwords(&self, source: &CredentialSource, auth: Auth) -> Vec<&'static str> {
        let (own, given) = match self.input.uses {
            Uses::Restore => {
                let url = self.values.get("BACKUP_TARGET_URL");
                let info = url.and_then(|url| ConnectionInfo::parse_url(url.text()).ok());
                (
                    "BACKUP_TARGET_PASSWORD",
                    info.is_some_and(|info| info.password.is_some()),
                )
            }
            // `DB_PASSWORD` of the URL's layer must be equal to the URL's password, and of a stronger layer replaces
            // it.
            _ => (
                "DB_PASSWORD",
                self.values.get("DATABASE_URL").is_some_and(shows_password),
            ),
        };
        let (direct, has_password) = match source {
            CredentialSource::Direct(info) => (true, info.password.is_some()),
            CredentialSource::Secret { .. } => (false, true),
            CredentialSource::None => return Vec::new(),
        };
        let mut unneeded = Vec::new();
        if auth == Auth::Iam || (direct && given) {
            unneeded.push(own);
        }
        if auth == Auth::Iam || has_password {
            unneeded.push("PGPASSWORD");
        }
        unneeded
    }
}

fn first_of(databases: &[Database]) -> (&CredentialSource, Auth) {
    let first = databases.first();
    first.map_or((&CredentialSource::None, Auth::Password), |one| (&one.login, one.auth))
}
