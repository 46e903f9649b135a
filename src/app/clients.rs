//! The clients of a process, made from its settings. Making them sends nothing.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::outside::aws::{self, Config, Patience};
use crate::outside::handover::Handover;
use crate::outside::notify::{Notifier, Sns};
use crate::outside::secrets::{Credentials, IamLogin, SecretSource};
use crate::repository::signature::Keyring;
use crate::settings::{Auth, Channel, CredentialSource, Database, Settings, StoreUrl};
use crate::store::Store;
use crate::store::local::Local;
use crate::store::s3::S3;

/// Makes clients. It holds the AWS configuration, if the settings need one.
pub(super) struct Clients {
    config: Option<Config>,
}

fn uses_s3(settings: &Settings) -> bool {
    settings.stores.iter().any(|store| matches!(store, StoreUrl::S3 { .. }))
}

fn databases(settings: &Settings) -> impl Iterator<Item = &Database> {
    settings.sources.iter().chain(&settings.targets)
}

fn uses_secrets(settings: &Settings) -> bool {
    databases(settings).any(Database::is_in_a_secret)
}

impl Clients {
    pub async fn load(settings: &Settings) -> Result<Self> {
        let needs_aws = !settings.channels.is_empty()
            || settings.handover.is_some()
            || uses_secrets(settings)
            || uses_s3(settings)
            || settings.signing.uses_kms()
            || databases(settings).any(|database| database.auth == Auth::Iam);
        let config = if needs_aws {
            Some(aws::load(&settings.aws).await?)
        } else {
            None
        };
        Ok(Self { config })
    }

    fn aws(&self) -> Result<&Config> {
        self.config
            .as_ref()
            .ok_or_else(|| Error::internal("no AWS configuration was made"))
    }

    /// Warnings about endpoints that are used without TLS.
    pub fn open_endpoints(&self, settings: &Settings) -> Vec<String> {
        let Some(config) = &self.config else {
            return Vec::new();
        };
        let used = aws::InUse {
            s3: uses_s3(settings),
            secrets: uses_secrets(settings),
            sns: !settings.channels.is_empty(),
            kms: settings.signing.uses_kms(),
        };
        aws::open_endpoints(config, &settings.aws, used)
    }

    /// The first is the primary.
    pub fn stores(&self, settings: &Settings) -> Result<Vec<Arc<dyn Store>>> {
        let patience = Patience::lasting(settings.s3.retry);
        let mut stores: Vec<Arc<dyn Store>> = Vec::new();
        for url in &settings.stores {
            stores.push(match url {
                StoreUrl::Folder(path) => {
                    let state = settings.state_dir.as_deref();
                    Arc::new(Local::new(path.clone()).created(settings.store_create, state))
                }
                StoreUrl::S3 { bucket, prefix } => {
                    let client = aws::s3_client(
                        self.aws()?,
                        &settings.aws,
                        settings.s3.checksums,
                        settings.s3.path_style,
                        &patience,
                    );
                    Arc::new(S3::new(client, bucket, prefix, settings.s3.clone(), patience))
                }
            });
        }
        Ok(stores)
    }

    pub fn credentials(&self, settings: &Settings, database: Option<&Database>) -> Result<Option<Credentials>> {
        let Some(Database { login: source, auth }) = database else {
            return Ok(None);
        };
        Ok(match source {
            CredentialSource::Direct(info) => Some(Credentials::direct(info.clone(), self.iam_login(*auth)?)),
            CredentialSource::Secret {
                id,
                overrides,
                defaults,
                beside,
                unusable,
            } => {
                let client = aws::secrets_client(self.aws()?, &settings.aws, id);
                let source = SecretSource::new(client, id, overrides.clone())
                    .completed_by((**defaults).clone(), beside.clone())
                    .lacking(unusable.clone());
                Some(Credentials::Secret(source.proved_by(self.iam_login(*auth)?)))
            }
            CredentialSource::None => None,
        })
    }

    fn iam_login(&self, auth: Auth) -> Result<Option<Arc<IamLogin>>> {
        if auth == Auth::Password {
            return Ok(None);
        }
        let config = self.aws()?;
        let signer = config
            .credentials()
            .ok_or_else(|| Error::internal("no AWS credentials were set up"))?;
        Ok(Some(Arc::new(IamLogin::new(signer, config.region().cloned()))))
    }

    pub fn notifiers(&self, settings: &Settings) -> Result<Vec<Box<dyn Notifier>>> {
        let mut notifiers: Vec<Box<dyn Notifier>> = Vec::new();
        for channel in &settings.channels {
            notifiers.push(match channel {
                Channel::Sns { arn } => Box::new(Sns::new(aws::sns_client(self.aws()?, &settings.aws, arn), arn)),
            });
        }
        Ok(notifiers)
    }

    pub fn handover(&self, settings: &Settings) -> Result<Option<Handover>> {
        Ok(match &settings.handover {
            Some(task) => Some(Handover::new(
                aws::ecs_client(self.aws()?, &settings.aws, &task.cluster),
                task.clone(),
            )),
            None => None,
        })
    }

    /// Its client for KMS is made when a key of KMS is used.
    pub fn keyring(&self, settings: &Settings) -> Keyring {
        let (for_kms, aws_settings) = (self.config.clone(), settings.aws.clone());
        Keyring::new(settings.signing.clone(), move |region| {
            let config = for_kms
                .as_ref()
                .ok_or_else(|| Error::internal("no AWS configuration was made"))?;
            Ok(aws::kms_client(config, &aws_settings, region))
        })
    }
}
