//! Settings that this command would go by, but has no need of, by what the others say: what is wrong with one of
//! them must not stop it.

use super::{Reader, shows_password};
use crate::postgres::ConnectionInfo;
use crate::settings::{Auth, Settings, Source, StoreUrl, Uses};

impl Reader<'_> {
    /// How their names start.
    pub(super) fn unneeded(&self, settings: &Settings) -> Vec<&'static str> {
        let login = match self.input.uses {
            Uses::All | Uses::Doctor => return Vec::new(),
            Uses::Backup => Some((&settings.source, settings.auth)),
            Uses::Restore => Some((&settings.target, settings.target_auth)),
            _ => None,
        };
        let mut unneeded = self.unneeded_of_aws(settings, login);
        if let Some((source, auth)) = login {
            unneeded.extend(self.unneeded_passwords(source, auth));
        }
        unneeded
    }

    /// Services that are not asked. A folder has no region.
    fn unneeded_of_aws(&self, settings: &Settings, login: Option<(&Source, Auth)>) -> Vec<&'static str> {
        let uses = self.input.uses;
        let tells = uses.go_by("BACKUP_SNS_TOPIC_ARN");
        let in_bucket = |store: &StoreUrl| matches!(store, StoreUrl::S3 { .. });
        let s3 = uses.asks_stores() && settings.stores.iter().any(in_bucket);
        let secrets = login.is_some_and(|(source, _)| matches!(source, Source::Secret { .. }));
        let sns = tells && settings.sns_topic_arn.is_some();
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

    /// Of passwords that something else takes the place of, whatever they are.
    fn unneeded_passwords(&self, source: &Source, auth: Auth) -> Vec<&'static str> {
        let (own, given) = match self.input.uses {
            Uses::Restore => {
                let url = self.values.get("BACKUP_TARGET_URL");
                let info = url.and_then(|url| ConnectionInfo::parse_url(url.text()).ok());
                (
                    "BACKUP_TARGET_PASSWORD",
                    info.is_some_and(|info| info.password.is_some()),
                )
            }
            // One beside a URL of the same layer must be the same, and of a stronger one replaces it.
            _ => (
                "DB_PASSWORD",
                self.values.get("DATABASE_URL").is_some_and(shows_password),
            ),
        };
        let (direct, has_password) = match source {
            Source::Direct(info) => (true, info.password.is_some()),
            Source::Secret { .. } => (false, true),
            Source::None => return Vec::new(),
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
