//! After a run: the message that reports how it ended, and the metrics. Neither changes how the run ended.

mod observed;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;

use crate::command::{BackupRequest, VerifyRequest, VerifySelection};
use crate::error::{Code, Error, ErrorReport, Result};
use crate::job::backup::{BackupReport, Notification};
use crate::job::increment::Followed;
use crate::job::verify::{ChainProof, VerifyReport};
use crate::outside::metrics::{self, History, Observation};
use crate::outside::notify::{About, Notice, Notifier, RunStatus};
use crate::report::{self, Report};
use crate::repository::backup_id::{BackupId, BackupKind};
use crate::repository::signature::Trust;
use crate::repository::verification;
use crate::run::clock::Clock;
use crate::run::progress::Observer;
use crate::run::stop::Stop;
use crate::run::telemetry;
use crate::settings::Metrics;
use crate::store::Store;

/// How long the store may take to list the backups from before the run.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same, if the run was stopped: a task that has reached its deadline has no time left.
const LITTLE_PATIENCE: Duration = Duration::from_millis(500);
/// How long increments fail one after another before people get a message.
const LASTING: SignedDuration = SignedDuration::from_mins(5);

pub(super) struct Aftermath<'a> {
    pub metrics: &'a Metrics,
    pub stores: &'a [Arc<dyn Store>],
    pub notifiers: &'a [Box<dyn Notifier>],
    /// The keys whose signatures count. `None`: they could not be read, so nothing in the store counts.
    pub trust: Option<Trust>,
    /// The database that the settings or, by now, the secret names.
    pub source: Option<String>,
    pub clock: Clock,
    pub begun: Timestamp,
    pub stop: &'a Stop,
    pub observer: &'a Arc<dyn Observer>,
}

impl Aftermath<'_> {
    pub(super) async fn of_backup(&self, request: &BackupRequest, result: Result<Report>) -> Result<Report> {
        match result {
            Ok(Report::Backup(report)) => Ok(Report::Backup(self.of_made_backup(report).await)),
            Ok(report) => Ok(report),
            Err(error) => Err(self.of_failed_backup(request, error).await),
        }
    }

    async fn of_made_backup(&self, mut report: Box<BackupReport>) -> Box<BackupReport> {
        let telling = async {
            // There may be an increment every few minutes: those that end well send no message.
            match report.kind == BackupKind::Incremental && !report.is_degraded() {
                true => None,
                false => self.tell_success(&report).await,
            }
        };
        let (told, history) = tokio::join!(telling, self.history(Some(&report.database), Some(&report.id)));
        report.notification = told;
        let observations = observed::of_backup(&report, &history, (self.clock)());
        let warnings = self.publish(observations).await;
        report.warnings.extend(warnings);
        report
    }

    async fn of_failed_backup(&self, request: &BackupRequest, error: Error) -> Error {
        // A failed run may not have reached the server.
        let database = self.source.clone().or_else(|| request.database.clone());
        let notice = failure(About::Backup(request.kind), database.clone(), &error);
        let (told, history) = tokio::join!(self.tell(&notice), self.history(database.as_deref(), None));
        let now = (self.clock)();
        let mut observation = match request.kind {
            BackupKind::Full => Observation::of_failed_backup(database, error.code(), self.begun, &history, now),
            BackupKind::Incremental => Observation::of_failed_increment(database, error.code(), self.begun, now),
        };
        observation.notifications_failed = u64::from(told.is_err());
        self.publish(vec![observation]).await;
        error.with_clean_up(told)
    }

    /// While a run follows its source: the metrics of each increment; a message about a chain that was renewed, and one
    /// about failures that have lasted for [`LASTING`], with another when they have ended.
    pub(super) async fn of_following(
        &self,
        request: &BackupRequest,
        heard: &mut Receiver<Followed>,
        made: impl Fn(&BackupReport),
    ) {
        let mut failing: Option<Timestamp> = None;
        let mut is_told = false;
        while let Some(followed) = heard.recv().await {
            match followed {
                Followed::Made(report) => {
                    made(&report);
                    if is_told || report.renewed.is_some() {
                        let told = self.tell_success(&report).await;
                        if let Some(error) = told.and_then(|told| told.error) {
                            tracing::warn!("the notification was not sent: {error}");
                        }
                    }
                    (failing, is_told) = (None, false);
                    let history = self.history(Some(&report.database), Some(&report.id)).await;
                    let observations = observed::of_backup(&report, &history, (self.clock)());
                    self.publish(observations).await;
                }
                Followed::Idle => failing = None,
                Followed::Failing(error) => {
                    let now = (self.clock)();
                    let since = *failing.get_or_insert(now);
                    if !is_told && now.duration_since(since) >= LASTING {
                        is_told = true;
                        let database = self.source.clone().or_else(|| request.database.clone());
                        if let Err(error) = self.tell(&failure(About::Backup(request.kind), database, &error)).await {
                            warn_of(&error);
                        }
                    }
                }
            }
        }
    }

    /// A proof that was made while a run follows its source. Only a failed one sends a message.
    pub(super) async fn of_proof(&self, database: &str, proof: &ChainProof) {
        let mut observation = observed::of_proof(database, proof, (self.clock)());
        match proof.error() {
            None => tracing::info!("{}", proof.to_string().trim()),
            Some(error) => {
                tracing::error!("{error}");
                let mut notice = failure(About::Verify, Some(database.to_owned()), &error);
                notice.summary = format!("{}\n{proof}", notice.summary);
                if let Err(error) = self.tell(&notice).await {
                    warn_of(&error);
                    observation.notifications_failed = 1;
                }
            }
        }
        self.publish(vec![observation]).await;
    }

    /// Only a verification or drill that fails sends a message. `status` shows a success.
    pub(super) async fn of_verification(
        &self,
        request: &VerifyRequest,
        result: Result<VerifyReport>,
    ) -> Result<VerifyReport> {
        let about = match request.drill {
            true => About::Drill,
            false => About::Verify,
        };
        match result {
            Ok(report) => {
                let told = match difference(about, &report) {
                    Some(notice) => self.tell(&notice).await,
                    None => Ok(()),
                };
                let mut observations = observed::of_verification(&report, request.drill, (self.clock)());
                if let Err(error) = told {
                    warn_of(&error);
                    // It is one message, even if it reports several databases.
                    if let Some(first) = observations.first_mut() {
                        first.notifications_failed = 1;
                    }
                }
                self.publish(observations).await;
                Ok(report)
            }
            Err(error) => {
                let database = named(request).or_else(|| self.source.clone());
                let told = self.tell(&failure(about, database.clone(), &error)).await;
                let (drill, now) = (request.drill, (self.clock)());
                let mut observation =
                    Observation::of_failed_verification(database, drill, error.code(), self.begun, now);
                observation.notifications_failed = u64::from(told.is_err());
                self.publish(vec![observation]).await;
                Err(error.with_clean_up(told))
            }
        }
    }

    /// If the message cannot be sent, the backup is still good.
    async fn tell_success(&self, report: &BackupReport) -> Option<Notification> {
        // The message was sent when this event was delivered for the first time.
        if report.repeated {
            return None;
        }
        if self.notifiers.is_empty() {
            return None;
        }
        let notice = Notice {
            status: match report.is_degraded() {
                true => RunStatus::Degraded,
                false => RunStatus::Succeeded,
            },
            about: About::Backup(report.kind),
            database: Some(report.database.clone()),
            summary: report::text(report),
            report: serde_json::to_value(report).unwrap_or_default(),
        };
        let told = self.tell(&notice).await;
        Some(Notification {
            sent: told.is_ok(),
            error: told.err().map(|error| {
                warn_of(&error);
                error.message()
            }),
        })
    }

    /// Returns at once if no topic is set.
    async fn tell(&self, notice: &Notice) -> Result<()> {
        let sent = self.notifiers.iter().map(|notifier| notifier.send(notice));
        let sent = async { Ok(join_all(sent).await) };
        let failed = match self.stop.or_leave("the notification", sent).await {
            Ok(sent) => sent.into_iter().filter_map(Result::err).reduce(Error::also),
            Err(error) => Some(error),
        };
        failed.map_or(Ok(()), Err)
    }

    /// The backups from before this run, if the store lists them in time.
    async fn history(&self, database: Option<&str>, but: Option<&BackupId>) -> History {
        let (Some(database), Some(trust)) = (database.filter(|_| metrics::wanted(self.metrics)), &self.trust) else {
            return History::unknown();
        };
        let patience = match self.stop.reason() {
            Some(_) => LITTLE_PATIENCE,
            None => PATIENCE,
        };
        let looked = History::look(self.stores, database, but, trust);
        tokio::time::timeout(patience, looked)
            .await
            .unwrap_or_else(|_| History::unknown())
    }

    async fn publish(&self, observations: Vec<Observation>) -> Vec<String> {
        // The progress line must not mix with a line of the metrics.
        self.observer.finish();
        metrics::publish(self.metrics, observations, telemetry::stderr()).await
    }
}

fn warn_of(error: &Error) {
    tracing::warn!("the notification was not sent: {error}");
}

fn failure(about: About, database: Option<String>, error: &Error) -> Notice {
    let told = ErrorReport::from(error);
    Notice {
        status: RunStatus::Failed(error.code()),
        about,
        database,
        summary: summary(&told),
        report: json!({ "status": "failed", "error": told }),
    }
}

/// The message for a verification that found a failure.
fn difference(about: About, report: &VerifyReport) -> Option<Notice> {
    let error = report.error.as_ref()?;
    let code = report.code().unwrap_or(Code::Integrity);
    let failed = report
        .backups()
        .iter()
        .filter(|one| one.status != verification::VerificationStatus::Ok);
    let mut databases: Vec<&str> = failed.map(|one| one.id.database()).collect();
    databases.dedup();
    let database = match databases[..] {
        [one] => Some(one.to_owned()),
        _ => None,
    };
    Some(Notice {
        status: RunStatus::Failed(code),
        about,
        database,
        summary: format!("{}\n{}", summary(error), report::text(report)),
        report: serde_json::to_value(report).unwrap_or(Value::Null),
    })
}

fn summary(error: &ErrorReport) -> String {
    format!("error[{}]: {}\nhint: {}", error.code, error.message, error.hint)
}

/// The database that a request names, directly or in a backup's id.
fn named(request: &VerifyRequest) -> Option<String> {
    let of_id = match &request.selection {
        VerifySelection::One(wanted) => wanted.parse().ok().map(|id: BackupId| id.database().to_owned()),
        VerifySelection::All { .. } => None,
    };
    of_id.or_else(|| request.database.clone())
}
