//! Where a process is put together: settings into clients and stores, once; then commands into
//! jobs. Clock and host name enter here and are handed down.

use std::sync::Arc;

use jiff::Timestamp;

use crate::aws::{self, Patience};
use crate::backup::{self, Job};
use crate::command::{BackupRequest, Command};
use crate::error::{Error, Result};
use crate::lifecycle;
use crate::progress::Observer;
use crate::report::Report;
use crate::secrets::{Credentials, SecretSource};
use crate::settings::{Clock, Settings, Source, StoreUrl};
use crate::stop::Stop;
use crate::store::Store;
use crate::store::local::Local;
use crate::store::s3::S3;

pub struct App {
    settings: Settings,
    /// The first is the primary.
    stores: Vec<Arc<dyn Store>>,
    credentials: Option<Credentials>,
    clock: Clock,
    host: String,
}

impl App {
    /// Makes every client that the settings call for. Nothing is sent yet.
    pub async fn new(settings: Settings) -> Result<App> {
        let needs_aws = settings.sns_topic_arn.is_some()
            || matches!(settings.source, Source::Secret { .. })
            || settings.stores.iter().any(|store| matches!(store, StoreUrl::S3 { .. }));
        let config = if needs_aws {
            Some(aws::load(&settings.aws).await)
        } else {
            None
        };
        let aws = || {
            config
                .as_ref()
                .ok_or_else(|| Error::internal("no AWS configuration was made"))
        };

        let patience = Patience::default();
        let mut stores: Vec<Arc<dyn Store>> = Vec::new();
        for url in &settings.stores {
            stores.push(match url {
                StoreUrl::Folder(path) => Arc::new(Local::new(path.clone())),
                StoreUrl::S3 { bucket, prefix } => {
                    let client = aws::s3_client(aws()?, &settings.aws, &settings.s3, &patience);
                    Arc::new(S3::new(client, bucket, prefix, settings.s3.clone(), patience))
                }
            });
        }
        let credentials = match &settings.source {
            Source::Direct(info) => Some(Credentials::Direct(info.clone())),
            Source::Secret { id, overrides } => {
                let client = aws::secrets_client(aws()?, &settings.aws);
                Some(Credentials::Secret(SecretSource::new(client, id, overrides.clone())))
            }
            Source::None => None,
        };
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(App {
            settings,
            stores,
            credentials,
            clock: Timestamp::now,
            host,
        })
    }

    pub async fn run(&self, command: Command, stop: Stop, observer: Arc<dyn Observer>) -> Result<Report> {
        match command {
            Command::Backup(request) => self.backup(&request, &stop, &observer).await,
            Command::RetentionShow => lifecycle::show(&self.settings, &self.stores).map(Report::Rules),
            Command::RetentionApply => {
                let applied = lifecycle::apply(&self.settings, &self.stores);
                stop.or_stop(applied).await.map(Report::Rules)
            }
        }
    }

    async fn backup(&self, request: &BackupRequest, stop: &Stop, observer: &Arc<dyn Observer>) -> Result<Report> {
        let Some(credentials) = &self.credentials else {
            return Err(
                Error::config("no database is set: DATABASE_URL, DB_HOST and the like, or BACKUP_SECRET_ID")
                    .hint("give --database-url postgresql://user@host/database, or --secret-id"),
            );
        };
        let job = Job {
            settings: &self.settings,
            credentials,
            stores: &self.stores,
            clock: self.clock,
            host: &self.host,
            stop,
            observer,
        };
        let outcome = backup::run(&job, request).await;
        outcome.map(|report| Report::Backup(Box::new(report)))
    }
}
