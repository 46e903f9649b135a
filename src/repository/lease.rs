//! The lease that a run holds on its database, so that two runs never interleave: an object,
//! replaced by conditional puts, never deleted.
//!
//! Who holds it is decided by the store alone, in [`Condition`]: a put that depends on the version
//! that was read fails if anybody was faster. Clocks only decide when a silent holder may be taken
//! for dead, and a holder gives up a while before that.
//!
//! The object also remembers the newest id that any run has taken in the store, whoever holds the lease:
//! runs with other primaries put copies there, and two of them must not take the same id.

mod claim;
mod seen;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::error::{Code, Error, Result};
use crate::repository::backup_id::{BackupId, SKEW, lease_key};
use crate::run::clock::Clock;
use crate::store::{Condition, ObjectInfo, Put, Store, Version};

pub use claim::Announced;
use claim::Claim;
pub use seen::{Hold, Seen, look};

/// Times that a lost race is run again. Each loss means that somebody else has won, so the second
/// look normally finds a holder.
const ATTEMPTS: usize = 5;

/// The process that holds a lease: for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub host: String,
    pub pid: u32,
}

/// The object's content. Fields that a later version adds are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Body {
    holder: Holder,
    /// Random: tells our own put from another's when its answer was lost.
    run: String,
    /// The backup being made; unknown until the holder has looked at the store.
    #[serde(default)]
    backup: Option<String>,
    acquired_at: Timestamp,
    expires_at: Timestamp,
    #[serde(default)]
    released: bool,
    /// Kept by whoever replaces the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claimed: Option<Claim>,
}

/// A run that died while it held the lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Previous {
    pub holder: Holder,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    pub acquired_at: Timestamp,
    pub expired_at: Timestamp,
}

impl Previous {
    /// The backup that it never finished, where it came as far as choosing one.
    pub fn backup_id(&self) -> Option<BackupId> {
        self.backup.as_ref()?.parse().ok()
    }
}

#[derive(Debug)]
pub struct Acquired {
    pub lease: Lease,
    /// Whose expired lease was taken over: that run has left things behind.
    pub took_over: Option<Previous>,
}

/// A lease that is ours. It is renewed in the background until it is released or dropped; dropped
/// without a release, it expires by itself.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    renewal: JoinHandle<()>,
}

struct Shared {
    store: Arc<dyn Store>,
    database: String,
    ttl: Duration,
    clock: Clock,
    held: Mutex<Held>,
    lost: watch::Sender<Option<Loss>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("database", &self.database)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

struct Held {
    body: Body,
    version: Version,
    /// From here on another run may take us for dead, unless a renewal proves the opposite.
    until: Instant,
}

/// Why the lease is no longer ours.
#[derive(Debug, Clone)]
struct Loss {
    code: Code,
    what: String,
}

impl Loss {
    fn error(&self) -> Error {
        Error::new(self.code, self.what.clone())
    }
}

enum NotRenewed {
    Lost(Loss),
    /// The store failed; the lease is still ours until it expires.
    Failed(Error),
}

impl Lease {
    /// Takes the lease of a database, or says by `BUSY` who holds it. The run's id is chosen after
    /// this, from a listing that nobody else can make stale, and told by [`Lease::announce`].
    pub async fn acquire(
        store: Arc<dyn Store>,
        database: &str,
        holder: Holder,
        ttl: Duration,
        clock: Clock,
    ) -> Result<Acquired> {
        let key = lease_key(database);
        let run = random_run();
        for tries in 0..ATTEMPTS {
            if tries > 0 {
                sleep(pause(tries)).await;
            }
            let there = store
                .get(&key)
                .await
                .map_err(|error| in_its_place(&key, store.url(), error))?;
            let (condition, previous) = match there {
                None => (Condition::Absent, None::<Body>),
                Some(object) => {
                    let body: Body =
                        serde_json::from_slice(&object.body).map_err(|error| not_a_lease(&key, store.url(), error))?;
                    // Our own put of the round before, whose answer was lost.
                    if body.run == run {
                        let held = Held::new(body, object.version, Instant::now(), ttl);
                        return Ok(Acquired {
                            lease: Self::hold(store, database, ttl, clock, held),
                            took_over: None,
                        });
                    }
                    if !body.released && clock() < body.expires_at {
                        return Err(busy(database, &body, clock()));
                    }
                    (Condition::Unchanged(object.version), Some(body))
                }
            };
            let now = clock();
            let body = Body {
                holder: holder.clone(),
                run: run.clone(),
                backup: None,
                acquired_at: now,
                expires_at: later(now, ttl),
                released: false,
                claimed: previous.as_ref().and_then(|body| body.claimed.clone()),
            };
            let sent = Instant::now();
            let version = match write(&*store, &key, &body, condition).await {
                Ok(Put::Done(version)) => version,
                Ok(Put::Refused) => continue,
                // Perhaps written, and only the answer lost: if so, the run's id tells.
                Err(error) => match recognise(&*store, &key, &run).await {
                    Ok(Some((version, _))) => version,
                    Ok(None) => return Err(error),
                    Err(second) => return Err(error.also(second)),
                },
            };
            let held = Held::new(body, version, sent, ttl);
            return Ok(Acquired {
                lease: Self::hold(store, database, ttl, clock, held),
                took_over: previous.filter(|body| !body.released).map(Previous::from),
            });
        }
        Err(Error::new(
            Code::Busy,
            format!("cannot take the lease of database {database:?}: other runs were faster {ATTEMPTS} times"),
        )
        .hint(format!(
            "try again when they have ended; if there are none, see what lies at {key} in {}, which should be a file",
            store.url()
        )))
    }

    fn hold(store: Arc<dyn Store>, database: &str, ttl: Duration, clock: Clock, held: Held) -> Self {
        let shared = Arc::new(Shared {
            store,
            database: database.to_owned(),
            ttl,
            clock,
            held: Mutex::new(held),
            lost: watch::Sender::new(None),
        });
        let renewal = tokio::spawn(Arc::clone(&shared).keep_renewing());
        Self { shared, renewal }
    }

    /// Takes an id for the run's backup, unless another run has taken it, or a later one, in this store;
    /// and writes it into the lease for whoever meets it. Renews it as well.
    pub async fn announce(&self, id: &BackupId) -> Result<Announced> {
        let now = (self.shared.clock)();
        let claim = {
            let held = self.shared.held.lock().await;
            Claim::new(id, &held.body.run)
        };
        let (wanted, backup) = (claim.clone(), id.to_string());
        self.confirm(move |body| {
            body.backup = Some(backup);
            body.claimed = Claim::later(body.claimed.take(), Some(wanted), id.database(), now);
        })
        .await?;
        let held = self.shared.held.lock().await;
        Ok(Announced::of(held.body.claimed.as_ref(), &claim, id))
    }

    /// The same in a store that gets a copy, whose lease is not held and stays as it is.
    pub async fn claim_in(&self, store: &dyn Store, id: &BackupId) -> Result<Announced> {
        let body = self.shared.held.lock().await.body.clone();
        claim::claim(store, id, body, (self.shared.clock)()).await
    }

    /// Proves that the lease is ours at this moment, by a renewal that fails if anybody else had
    /// it since. To be called right before publishing.
    pub async fn still_held(&self) -> Result<()> {
        self.confirm(|_| {}).await
    }

    async fn confirm(&self, change: impl FnOnce(&mut Body)) -> Result<()> {
        self.shared
            .renew(change)
            .await
            .map_err(|not_renewed| match not_renewed {
                NotRenewed::Lost(loss) => loss.error(),
                NotRenewed::Failed(error) => Error::new(
                    error.code(),
                    format!("cannot renew the lease of database {:?}", self.shared.database),
                )
                .hint(error.hint_text())
                .source(error),
            })
    }

    /// Waits until the lease is lost and says why: another run took it (`BUSY`), or it could not
    /// be renewed in time (`STORE`). A run that holds it selects on this and stops.
    pub async fn lost(&self) -> Error {
        let mut lost = self.shared.lost.subscribe();
        let loss = match lost.wait_for(Option::is_some).await {
            Ok(loss) => loss.clone(),
            Err(_) => None,
        };
        match loss {
            Some(loss) => loss.error(),
            // The sender lives as long as we do.
            None => std::future::pending().await,
        }
    }

    /// Gives the lease back, after success and after failure. Where it is lost already there is
    /// nothing to give back. After an error it expires by itself.
    pub async fn release(self) -> Result<()> {
        // A put that this cuts short may yet arrive: then ours is refused, read back, and repeated.
        self.renewal.abort();
        let held = self.shared.held.lock().await;
        if self.shared.lost.borrow().is_some() {
            return Ok(());
        }
        let body = Body {
            expires_at: (self.shared.clock)(),
            released: true,
            ..held.body.clone()
        };
        match self.shared.replace(&body, &held.version).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::new(
                error.code(),
                format!(
                    "cannot release the lease of database {:?}, which now ends at {:.0}",
                    self.shared.database, held.body.expires_at
                ),
            )
            .hint("until then another run is refused as BUSY")
            .source(error)),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

impl Held {
    /// `since` is when the put that set it was sent, so that the time of its answer is not counted.
    fn new(body: Body, version: Version, since: Instant, ttl: Duration) -> Self {
        Self {
            body,
            version,
            until: since + ttl - margin(ttl),
        }
    }
}

/// By how much a holder gives up early: what two hosts' clocks may differ by.
fn margin(ttl: Duration) -> Duration {
    ttl / 6
}

impl Shared {
    async fn keep_renewing(self: Arc<Self>) {
        let mut pause = self.ttl / 3;
        loop {
            sleep(pause).await;
            match self.renew(|_| {}).await {
                Ok(()) => pause = self.ttl / 3,
                Err(NotRenewed::Lost(_)) => return,
                Err(NotRenewed::Failed(_)) => pause = self.ttl / 12,
            }
        }
    }

    /// One renewal. Past its time a lease that nobody has touched is still ours: a host that was
    /// suspended goes on. But once it is past its time and the store does not answer, it counts
    /// as lost.
    async fn renew(&self, change: impl FnOnce(&mut Body)) -> Result<(), NotRenewed> {
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

    /// The store itself may be gone with it: a folder that was removed, a disk that is mounted no more.
    async fn why_lost(&self) -> Loss {
        match timeout(margin(self.ttl), self.store.is_there()).await {
            Ok(Err(error)) if error.code() == Code::Enoent => Loss {
                code: error.code(),
                what: error.message(),
            },
            _ => Loss {
                code: Code::Busy,
                what: format!(
                    "the lease of database {:?} was lost: another run has taken it, or somebody has removed it",
                    self.database
                ),
            },
        }
    }

    /// Replaces our own lease; `None` when it is ours no longer. Removed counts as that too:
    /// somebody has broken it on purpose.
    async fn replace(&self, body: &Body, version: &Version) -> Result<Option<(Body, Version)>> {
        let key = lease_key(&self.database);
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
            // Perhaps an earlier put of ours, whose answer was lost; or a run that puts its copy here
            // has taken an id.
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

/// The version of the lease, if it is this run's, and the newest id that was taken.
async fn recognise(store: &dyn Store, key: &str, run: &str) -> Result<Option<(Version, Option<Claim>)>> {
    let object = store.get(key).await?;
    Ok(object.and_then(|object| {
        let body: Body = serde_json::from_slice(&object.body).ok()?;
        (body.run == run).then_some((object.version, body.claimed))
    }))
}

/// Before a put that was refused is tried again: longer each time, and never twice the same, so that those
/// who race for it do not meet again.
fn pause(tries: usize) -> Duration {
    let most = 50_u64 << tries.min(5);
    Duration::from_millis(most / 2 + RandomState::new().build_hasher().finish() % (most / 2 + 1))
}

async fn write(store: &dyn Store, key: &str, body: &Body, condition: Condition) -> Result<Put> {
    let bytes = serde_json::to_vec_pretty(body)
        .map_err(|error| Error::internal("cannot write the lease as JSON").source(error))?;
    // No tag: no lifecycle rule may match it.
    let object = ObjectInfo {
        content_type: "application/json",
        ..ObjectInfo::default()
    };
    store.put(key, Bytes::from(bytes), &object, condition).await
}

fn later(now: Timestamp, ttl: Duration) -> Timestamp {
    SignedDuration::try_from(ttl)
        .ok()
        .and_then(|ttl| now.checked_add(ttl).ok())
        .unwrap_or(Timestamp::MAX)
}

/// Unlikely to be met twice, which is all that it is for: the standard library seeds its hash
/// tables from the system's random source.
fn random_run() -> String {
    let half = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", half(), half())
}

impl From<Body> for Previous {
    fn from(body: Body) -> Self {
        Self {
            holder: body.holder,
            backup: body.backup,
            acquired_at: body.acquired_at,
            expired_at: body.expires_at,
        }
    }
}

fn busy(database: &str, body: &Body, now: Timestamp) -> Error {
    let Body {
        holder: Holder { host, pid },
        acquired_at,
        expires_at,
        ..
    } = body;
    let making = match &body.backup {
        Some(id) => format!(", making {id}"),
        None => String::new(),
    };
    let hint = if acquired_at.duration_since(now) > SKEW {
        format!(
            "that host's clock was wrong, or is ours: set them right; when no backup of this database is running, \
             remove {}",
            lease_key(database)
        )
    } else {
        format!("wait until that run has ended; if it died, its lease ends by itself at {expires_at:.0}")
    };
    Error::new(
        Code::Busy,
        format!(
            "cannot back up database {database:?}: another run holds its lease: process {pid} on {host}{making}, \
             since {acquired_at:.0}, until {expires_at:.0} if not renewed"
        ),
    )
    .hint(hint)
}

/// What lies where the lease should be is no file, or absurdly long.
fn in_its_place(key: &str, store: &str, error: Error) -> Error {
    match error.code() {
        Code::Integrity => not_a_lease(key, store, error),
        _ => error,
    }
}

fn not_a_lease(key: &str, store: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(Code::Busy, format!("{key} in {store} is not a lease of pgstow's"))
        .hint("make sure that no backup of this database is running, then remove that object")
        .source(error)
}

#[cfg(test)]
mod tests;
