//! The application: it makes clients and stores from the settings, once; then it turns commands into jobs. It reads the
//! clock and the host name, and passes them on.

mod aftermath;
mod backups;
mod clients;
mod permission;
mod proofs;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::command::{
    ChangesRequest, Command, DownloadRequest, FileChoice, RestoreRequest, VerifyRequest, VerifySelection,
};
use crate::error::{Error, ErrorReport, Result};
use crate::job::changes;
use crate::job::compare;
use crate::job::doctor::{self, Checkup};
use crate::job::download;
use crate::job::list;
use crate::job::prune;
use crate::job::restore;
use crate::job::retention;
use crate::job::status::{self, Inquiry};
use crate::job::verify::{self, VerifyReport};
use crate::outside::handover::Handover;
use crate::outside::notify::Notifier;
use crate::outside::secrets::Credentials;
use crate::report::{Comparison, Offered, Report};
use crate::repository::backup_id::BackupId;
use crate::repository::catalog::{self, Demand, Located};
use crate::repository::manifest::Manifest;
use crate::repository::signature::{Keyring, Signer, Trust, keygen};
use crate::run::clock::Clock;
use crate::run::progress::{Event, Observer};
use crate::run::stop::Stop;
use crate::settings::Settings;
use crate::store::Store;
use aftermath::Aftermath;
use clients::Clients;

/// The limit for reading keys from KMS that are needed only to compare a run with earlier backups.
const TRUST_AT_THE_END: Duration = Duration::from_millis(500);

/// The clients and stores of a process, made once from its settings, and all that it can do with them.
pub struct App {
    settings: Settings,
    /// The first is the primary.
    stores: Vec<Arc<dyn Store>>,
    credentials: Option<Credentials>,
    /// For the database that a restore fills.
    target: Option<Credentials>,
    notifiers: Vec<Box<dyn Notifier>>,
    handover: Option<Handover>,
    keyring: Keyring,
    clock: Clock,
    host: String,
}

impl App {
    /// Makes every client that the settings need. It sends nothing yet.
    pub async fn new(mut settings: Settings) -> Result<App> {
        let clients = Clients::load(&settings).await?;
        for warning in clients.open_endpoints(&settings) {
            // Logged once, although a function makes a second `App` for drills.
            if !settings.notes.contains(&warning) {
                tracing::warn!("{warning}");
                settings.notes.push(warning);
            }
        }
        let stores = clients.stores(&settings)?;
        let target = clients.credentials(&settings, settings.targets.first())?;
        let credentials = clients.credentials(&settings, settings.sources.first())?;
        let notifiers = clients.notifiers(&settings)?;
        let handover = clients.handover(&settings)?;
        let keyring = clients.keyring(&settings);
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(App {
            settings,
            stores,
            credentials,
            target,
            notifiers,
            handover,
            keyring,
            clock: now,
            host,
        })
    }

    /// The same, without the passwords, which a drill does not need: it evaluates functions of the database.
    pub async fn without_passwords(&self) -> Result<App> {
        let mut settings = self.settings.clone();
        settings.forget_passwords();
        App::new(settings).await
    }

    /// Carries a command out, and reports progress to the observer. The last event of a run that fails is its error.
    pub async fn run(&self, command: Command, stop: Stop, observer: Arc<dyn Observer>) -> Result<Report> {
        let result = self.carry_out(command, &stop, &observer).await;
        if let Err(error) = &result {
            let error = ErrorReport::from(error);
            observer.event(&Event::Failed { error });
        }
        result
    }

    async fn carry_out(&self, command: Command, stop: &Stop, observer: &Arc<dyn Observer>) -> Result<Report> {
        match command {
            Command::Backup(request) if request.every.is_some() => {
                let begun = (self.clock)();
                self.follow(&request, begun, stop, observer).await
            }
            Command::Backup(request) => {
                let begun = (self.clock)();
                let result = self.backup(&request, stop, observer).await;
                let aftermath = self.aftermath(begun, stop, observer).await;
                aftermath.of_backup(&request, result).await
            }
            Command::Changes(request) => self.changes(&request, stop, observer).await,
            Command::Download(request) => self.download(&request, stop, observer).await,
            Command::Verify(request) => {
                let begun = (self.clock)();
                let result = self.verify(&request, stop, observer).await;
                let aftermath = self.aftermath(begun, stop, observer).await;
                aftermath.of_verification(&request, result).await.map(Report::Verify)
            }
            Command::Restore(request) => self.restore(&request, stop, observer).await,
            Command::Doctor => self.doctor(stop).await,
            Command::RetentionShow => retention::show(&self.settings, &self.stores).map(Report::Rules),
            Command::RetentionApply => {
                let applied = retention::apply(&self.settings, &self.stores);
                stop.or_stop(applied).await.map(Report::Rules)
            }
            Command::List { database } => {
                let trust = self.trust(stop).await?;
                let listed = list::run(&self.stores, database.as_deref(), trust, (self.clock)());
                stop.or_stop(listed).await.map(Report::List)
            }
            Command::Status { database } => self.status(database, stop).await,
            Command::Prune(request) => {
                let job = prune::Job {
                    stores: &self.stores,
                    retention: &self.settings.retention,
                    trust: self.trust(stop).await?,
                    now: (self.clock)(),
                    stop,
                };
                prune::run(&job, &request).await.map(Report::Prune)
            }
            Command::Incremental(request) => self.incremental(&request, stop, observer).await,
            Command::Keygen { file } => {
                let made = keygen::run(&self.settings.signing, &file);
                made.await.map(Report::Keygen)
            }
        }
    }

    async fn changes(&self, request: &ChangesRequest, stop: &Stop, observer: &Arc<dyn Observer>) -> Result<Report> {
        let source = self.source_database();
        let job = changes::Job {
            stores: &self.stores,
            database: request.database.as_deref().or(source.as_deref()),
            trust: self.trust(stop).await?,
            now: (self.clock)(),
            stop,
            observer,
        };
        let report = changes::run(&job, request).await?;
        Ok(Report::Changes(Box::new(report)))
    }

    async fn download(&self, request: &DownloadRequest, stop: &Stop, observer: &Arc<dyn Observer>) -> Result<Report> {
        let job = download::Job {
            stores: &self.stores,
            database: self.source_database(),
            trust: self.trust(stop).await?,
            clock: self.clock,
            stop,
            observer,
        };
        download::run(&job, request).await.map(Report::Download)
    }

    async fn doctor(&self, stop: &Stop) -> Result<Report> {
        let checkup = Checkup {
            settings: &self.settings,
            credentials: self.credentials.as_ref(),
            stores: &self.stores,
            notifiers: &self.notifiers,
            keyring: &self.keyring,
            clock: self.clock,
        };
        let found = async { Ok(doctor::run(&checkup).await) };
        stop.or_stop(found).await.map(Report::Doctor)
    }

    async fn status(&self, database: Option<String>, stop: &Stop) -> Result<Report> {
        let inquiry = Inquiry {
            settings: &self.settings,
            stores: &self.stores,
            trust: self.trust(stop).await?,
            source: self.source_database(),
            database,
            now: (self.clock)(),
        };
        let found = async { Ok(status::run(&inquiry).await) };
        stop.or_stop(found).await.map(|report| Report::Status(Box::new(report)))
    }

    async fn verify(&self, request: &VerifyRequest, stop: &Stop, observer: &Arc<dyn Observer>) -> Result<VerifyReport> {
        // For `latest`, the source may name the database. `--all` means every database, unless the request names one.
        let source = match request.selection {
            VerifySelection::One(_) => self.source_database(),
            VerifySelection::All { .. } => None,
        };
        let database = request.database.clone().or(source);
        let job = verify::Job {
            settings: &self.settings,
            stores: &self.stores,
            database: database.as_deref(),
            trust: self.trust(stop).await?,
            signer: stop.or_stop(self.keyring.signer()).await?,
            clock: self.clock,
            stop,
            observer,
        };
        verify::run(&job, request).await
    }

    async fn restore(&self, request: &RestoreRequest, stop: &Stop, observer: &Arc<dyn Observer>) -> Result<Report> {
        let Some(target) = &self.target else {
            return Err(
                Error::config("no target is named: --target, BACKUP_TARGET_URL or BACKUP_TARGET_SECRET_ID")
                    .hint("give --target postgres://user@host:5432/database"),
            );
        };
        let database = request.database.clone().or_else(|| self.source_database());
        let job = restore::Job {
            settings: &self.settings,
            target,
            stores: &self.stores,
            database: database.as_deref(),
            trust: self.trust(stop).await?,
            clock: self.clock,
            stop,
            observer,
        };
        restore::run(&job, request)
            .await
            .map(|report| Report::Restore(Box::new(report)))
    }

    /// The keys of which one must have signed every backup that is used.
    async fn trust(&self, stop: &Stop) -> Result<&Trust> {
        stop.or_stop(self.keyring.trust()).await
    }

    /// The manifest of a backup, from the first store that has it, if a trusted key signed it or none is required.
    ///
    /// # Errors
    /// `NOT_FOUND`, `INTEGRITY`, `SIGNATURE`, and those of the stores.
    pub async fn manifest(&self, id: &BackupId) -> Result<Manifest> {
        self.located(id).await.map(|found| found.manifest)
    }

    /// A file of a backup, to be read piece by piece.
    ///
    /// # Errors
    /// Those of [`App::manifest`], and `CONFIG` for a form that this backup does not have.
    pub async fn offer(&self, id: &BackupId, choice: &FileChoice) -> Result<Offered> {
        download::offer(self.located(id).await?, choice).await
    }

    /// What two full backups have in different tables.
    ///
    /// # Errors
    /// Those of [`App::manifest`], and `CONFIG` for backups whose tables are not known.
    pub async fn compare(&self, now: &BackupId, before: &BackupId) -> Result<Comparison> {
        compare::compare(&self.manifest(now).await?, &self.manifest(before).await?)
    }

    async fn located(&self, id: &BackupId) -> Result<Located> {
        let stop = Stop::new();
        let demand = Demand {
            trust: self.trust(&stop).await?,
            manifest: None,
            now: (self.clock)(),
            altered: false,
        };
        catalog::find(&self.stores, &id.to_string(), None, &demand).await
    }

    /// Whether an event may ask for this command. The command line may ask for every command.
    pub fn check_event(&self, command: &Command) -> Result<()> {
        permission::of_event(command, &self.settings)
    }

    /// The database that the settings name, if the secret is not needed to know it.
    pub fn source_database(&self) -> Option<String> {
        self.credentials.as_ref().and_then(Credentials::database)
    }

    /// Whether the settings name a database that may be restored into.
    pub fn has_target(&self) -> bool {
        self.target.is_some()
    }

    /// The name of that database, if the secret is not needed to know it, or was read already.
    pub fn target_database(&self) -> Option<String> {
        self.target.as_ref().and_then(Credentials::database)
    }

    /// Made after a run, because the run may have been the first to learn the database's name.
    async fn aftermath<'a>(
        &'a self,
        begun: Timestamp,
        stop: &'a Stop,
        observer: &'a Arc<dyn Observer>,
    ) -> Aftermath<'a> {
        // The trust is known by now, unless the run failed because of it: then it is not awaited again.
        let keys = async { futures::try_join!(self.keyring.trust(), self.keyring.signer()) };
        let keys = tokio::time::timeout(TRUST_AT_THE_END, keys).await;
        let trust = keys
            .ok()
            .and_then(Result::ok)
            .map(|(trust, signer)| trust.and(signer.map(Signer::public)));
        Aftermath {
            metrics: &self.settings.metrics,
            stores: &self.stores,
            notifiers: &self.notifiers,
            trust,
            source: self.source_database(),
            clock: self.clock,
            begun,
            stop,
            observer,
        }
    }
}

/// In milliseconds: people do not need more, and some readers of JSON do not accept more.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Input;

    #[tokio::test]
    async fn what_drills_holds_no_password_and_still_knows_the_databases_name() {
        let settings = Settings::load(&Input {
            env: [
                ("DATABASE_URL", "postgresql://backup:hunter2@db.example/shop"),
                ("BACKUP_TARGET_URL", "postgresql://owner:hunter3@db.example/copy"),
                ("BACKUP_STORE", "/srv/backups"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            cpus: 1,
            ..Input::default()
        });
        let app = App::new(settings.unwrap()).await.unwrap();
        let drilling = app.without_passwords().await.unwrap();
        let Some(Credentials::Direct(info)) = &drilling.credentials else {
            panic!("no database")
        };
        assert!(info.password.is_none() && drilling.target.is_none());
        assert_eq!(drilling.source_database().as_deref(), Some("shop"));
    }
}
