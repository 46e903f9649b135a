//! Keeps a lease while its run lives: it is renewed in the background, and the run learns when it is lost.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::claim::Claim;
use super::{ATTEMPTS, Body, later, pause, recognise, write};
use crate::error::{Code, Error, Result};
use crate::repository::backup_id::{BackupKind, lease_key_of};
use crate::run::clock::Clock;
use crate::run::progress::{Observer, Progress};
use crate::store::{Condition, ObjectVersion, Put, Store};

pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) database: String,
    pub(super) kind: BackupKind,
    pub(super) ttl: Duration,
    pub(super) clock: Clock,
    pub(super) held: Mutex<Held>,
    /// Reports how far the run is.
    pub(super) observer: OnceLock<Arc<dyn Observer>>,
    pub(super) lost: watch::Sender<Option<Loss>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("database", &self.database)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

pub(super) struct Held {
    pub(super) body: Body,
    pub(super) version: ObjectVersion,
    /// From this moment another run may count this one as dead, unless a renewal succeeds.
    until: Instant,
}

/// Why this run no longer holds the lease.
#[derive(Debug, Clone)]
pub(super) struct Loss {
    code: Code,
    what: String,
}

impl Loss {
    pub(super) fn error(&self) -> Error {
        Error::new(self.code, self.what.clone())
    }
}

pub(super) enum NotRenewed {
    Lost(Loss),
    /// The store failed; this run still holds the lease until it expires.
    Failed(Error),
}

impl Held {
    /// `since` is the time when the put was sent, so that the wait for its answer does not count.
    pub(super) fn new(body: Body, version: ObjectVersion, since: Instant, ttl: Duration) -> Self {
        Self {
            body,
            version,
            until: since + ttl - margin(ttl),
        }
    }
}

/// How long before the expiry a holder stops: this is how much the clocks of two hosts may differ.
fn margin(ttl: Duration) -> Duration {
    ttl / 6
}

impl Shared {
    pub(super) async fn keep_renewing(self: Arc<Self>) {
        let mut pause = self.ttl / 3;
        loop {
            sleep(pause).await;
            match self.renew(|body| body.progress = self.progress()).await {
                Ok(()) => pause = self.ttl / 3,
                Err(NotRenewed::Lost(_)) => return,
                Err(NotRenewed::Failed(_)) => pause = self.ttl / 12,
            }
        }
    }

    fn progress(&self) -> Option<Value> {
        let progress: Progress = self.observer.get()?.progress()?;
        serde_json::to_value(progress).ok()
    }

    /// One renewal. An expired lease that no other run has taken is still this run's: a host that was suspended
    /// continues. But if it has expired and the store does not answer, it counts as lost.
    pub(super) async fn renew(&self, change: impl FnOnce(&mut Body)) -> Result<(), NotRenewed> {
        let mut held = self.held.lock().await;
        if let Some(loss) = &*self.lost.borrow() {
            return Err(NotRenewed::Lost(loss.clone()));
        }
        let sent = Instant::now();
        let mut body = held.body.clone();
        body.expires_at = later((self.clock)(), self.ttl);
        change(&mut body);
        let patience = held.until.max(sent + margin(self.ttl));
        let name = &self.database;
        let loss = match timeout_at(patience, self.replace(&body, &held.version)).await {
            Ok(Ok(Some((body, version)))) => {
                *held = Held::new(body, version, sent, self.ttl);
                return Ok(());
            }
            Ok(Ok(None)) => self.why_lost().await,
            Ok(Err(error)) if Instant::now() < held.until => return Err(NotRenewed::Failed(error)),
            Ok(Err(error)) => Loss {
                code: Code::Store,
                what: format!("the lease of database {name:?} could not be renewed before it ended: {error}"),
            },
            Err(_) => Loss {
                code: Code::Store,
                what: format!("the lease of database {name:?} could not be renewed before it ended: no answer"),
            },
        };
        self.lost.send_replace(Some(loss.clone()));
        Err(NotRenewed::Lost(loss))
    }

    /// The store itself may have disappeared as well: the folder was removed, or the disk is no longer mounted.
    async fn why_lost(&self) -> Loss {
        match timeout(margin(self.ttl), self.store.is_there()).await {
            Ok(Err(error)) if error.code() == Code::Enoent => Loss {
                code: error.code(),
                what: error.message(),
            },
            _ => Loss {
                code: Code::Busy,
                what: format!(
                    "the lease of database {:?} was lost: another run has taken it, or a person has removed it",
                    self.database
                ),
            },
        }
    }

    /// Replaces this run's lease; `None` if it is no longer this run's. A removed lease counts as lost too: a person
    /// removed it on purpose.
    pub(super) async fn replace(&self, body: &Body, version: &ObjectVersion) -> Result<Option<(Body, ObjectVersion)>> {
        let key = lease_key_of(&self.database, self.kind);
        let mut body = body.clone();
        let mut version = version.clone();
        for tries in 0..ATTEMPTS {
            if tries > 0 {
                sleep(pause(tries)).await;
            }
            let condition = Condition::Unchanged(version);
            if let Put::Done(version) = write(&*self.store, &key, &body, condition).await? {
                return Ok(Some((body, version)));
            }
            // This may be an earlier put of this run, whose answer was lost; or a run that puts its copy here has
            // taken an id.
            match recognise(&*self.store, &key, &body.run).await? {
                Some((ours, there)) => {
                    body.claimed = Claim::later(there, body.claimed, &self.database, (self.clock)());
                    version = ours;
                }
                None => return Ok(None),
            }
        }
        Ok(None)
    }
}
