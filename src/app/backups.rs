//! The commands that make backups, or what increments need: all that uses the source database.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::App;
use super::proofs::{self, Proofs};
use crate::command::{BackupRequest, IncrementalRequest};
use crate::error::{Code, Error, Result};
use crate::job::{backup, increment, incremental, verify};
use crate::outside::handover::Asked;
use crate::outside::secrets::Credentials;
use crate::report::Report;
use crate::repository::backup_id::BackupKind;
use crate::repository::signature::{Signer, Trust};
use crate::run::progress::{Event, Observer};
use crate::run::stop::Stop;
use crate::settings::Incremental;

/// The limit for handing over a run whose time is up: if the handover fails, time must be left to report that.
const HANDOVER_AT_THE_END: Duration = Duration::from_secs(3);

/// How many rounds of a run that follows its source may wait until they are told. If messages and metrics take longer
/// than the rounds, the next round waits for them.
const ROUNDS: usize = 64;

impl App {
    pub(super) async fn backup(
        &self,
        request: &BackupRequest,
        stop: &Stop,
        observer: &Arc<dyn Observer>,
    ) -> Result<Report> {
        let Some(credentials) = &self.credentials else {
            return Err(no_database());
        };
        let signer = stop.or_stop(self.keyring.signer()).await?;
        let trust = self.trust(stop).await?.and(signer.map(Signer::public));
        let job = self.backup_job(credentials, (signer, &trust), stop, observer);
        let made = match (request.kind, self.settings.incremental) {
            (BackupKind::Incremental, Incremental::Slot) => increment::run(&job, request).await,
            (BackupKind::Full, _) | (_, Incremental::Reference) => backup::run(&job, request).await,
        };
        match made {
            Ok(mut report) => {
                self.proofs((signer, &trust), stop, observer).after(&mut report).await;
                for message in report.warnings.iter().cloned() {
                    observer.event(&Event::Warned { message });
                }
                Ok(Report::Backup(Box::new(report)))
            }
            Err(error) => self.hand_over(request, error, stop).await,
        }
    }

    fn proofs<'a>(
        &'a self,
        (signer, trust): (Option<&'a Signer>, &'a Trust),
        stop: &'a Stop,
        observer: &'a Arc<dyn Observer>,
    ) -> Proofs<'a> {
        let job = verify::Job {
            settings: &self.settings,
            stores: &self.stores,
            database: None,
            trust,
            signer,
            clock: self.clock,
            stop,
            observer,
        };
        let is_wanted = self.settings.prove_chain;
        Proofs { job, is_wanted }
    }

    /// Makes increments until the run is stopped. Each increment goes into the metrics at once. People get a message
    /// when a chain was renewed, when increments keep failing, and when they succeed again.
    pub(super) async fn follow(
        &self,
        request: &BackupRequest,
        begun: Timestamp,
        stop: &Stop,
        observer: &Arc<dyn Observer>,
    ) -> Result<Report> {
        let Some((credentials, every)) = self.credentials.as_ref().zip(request.every) else {
            return Err(no_database());
        };
        let signer = stop.or_stop(self.keyring.signer()).await?;
        let trust = self.trust(stop).await?.and(signer.map(Signer::public));
        let job = self.backup_job(credentials, (signer, &trust), stop, observer);
        if self.settings.incremental == Incremental::Reference {
            // It reads tables, and so has no stream to follow: the job says that.
            return backup::run(&job, request)
                .await
                .map(|report| Report::Backup(Box::new(report)));
        }
        let aftermath = self.aftermath(begun, stop, observer).await;
        let (told, mut heard) = mpsc::channel(ROUNDS);
        let (reached, reaching) = watch::channel(None);
        let following = async {
            let followed = increment::follow(&job, request, every, &told).await;
            drop(told);
            followed
        };
        let telling = async {
            let made = |report: &backup::BackupReport| drop(reached.send(Some(proofs::reached(report))));
            aftermath.of_following(request, &mut heard, made).await;
            drop(reached);
        };
        let proofs = self.proofs((signer, &trust), stop, observer);
        let proving = proofs.beside(reaching, &aftermath);
        let (followed, (), ()) = tokio::join!(following, telling, proving);
        match followed {
            Ok(report) => Ok(Report::Backup(Box::new(report))),
            Err(error) => aftermath.of_backup(request, Err(error)).await,
        }
    }

    fn backup_job<'a>(
        &'a self,
        credentials: &'a Credentials,
        (signer, trust): (Option<&'a Signer>, &'a Trust),
        stop: &'a Stop,
        observer: &'a Arc<dyn Observer>,
    ) -> backup::Job<'a> {
        backup::Job {
            settings: &self.settings,
            credentials,
            stores: &self.stores,
            signer,
            trust,
            clock: self.clock,
            host: &self.host,
            stop,
            observer,
        }
    }

    pub(super) async fn incremental(
        &self,
        request: &IncrementalRequest,
        stop: &Stop,
        observer: &Arc<dyn Observer>,
    ) -> Result<Report> {
        let Some(credentials) = &self.credentials else {
            return Err(no_database());
        };
        // A stop needs neither keys nor stores.
        let trust = match request {
            IncrementalRequest::Stop { .. } => None,
            _ => Some(self.trust(stop).await?),
        };
        let signer = match request {
            IncrementalRequest::Start { print_sql: false, .. } => stop.or_stop(self.keyring.signer()).await?,
            _ => None,
        };
        let trust_of_backup = trust.map(|trust| trust.and(signer.map(Signer::public)));
        let backup = trust_of_backup.as_ref();
        let backup = backup.map(|trust| self.backup_job(credentials, (signer, trust), stop, observer));
        let job = incremental::Job {
            settings: &self.settings,
            credentials,
            stores: &self.stores,
            trust,
            backup: backup.as_ref(),
            clock: self.clock,
            stop,
            observer,
        };
        let done = incremental::run(&job, request).await;
        done.map(|report| Report::Incremental(Box::new(report)))
    }

    /// If the time is too short for a backup and the settings say so, a container task makes it. That task reports how
    /// it ended, so this run sends no message.
    async fn hand_over(&self, request: &BackupRequest, error: Error, stop: &Stop) -> Result<Report> {
        let Some(handover) = self.handover.as_ref().filter(|_| error.code() == Code::Deadline) else {
            return Err(error);
        };
        let asked = Asked {
            kind: request.kind,
            trigger: request.trigger,
            event_id: request.event_id.clone(),
            database: request.database.clone(),
        };
        let start = handover.start(&asked, &error);
        let started = match stop.reason() {
            None => start.await,
            Some(_) => tokio::time::timeout(HANDOVER_AT_THE_END, start)
                .await
                .unwrap_or_else(|_| {
                    Err(Error::new(
                        Code::Deadline,
                        "ECS did not answer in the time that was left",
                    ))
                }),
        };
        match started {
            Ok(report) => Ok(Report::HandedOver(report)),
            Err(second) => Err(error.hint(second.hint_text().to_owned()).also(second)),
        }
    }
}

fn no_database() -> Error {
    Error::config("no database is set: DATABASE_URL, DB_HOST and the like, or BACKUP_SECRET_ID")
        .hint("give --database-url postgresql://user@host/database, or --secret-id")
}
