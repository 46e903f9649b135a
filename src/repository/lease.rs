//! The lease that a run holds on its database, so that two runs never work at the same time: an object, replaced by
//! conditional puts, never deleted.
//!
//! The store alone decides who holds it, by [`Condition`]: a put that depends on the version that was read fails if
//! another run was faster. The clocks only decide when a silent holder counts as dead, and a holder stops a while
//! before that.
//!
//! The object also records the newest id that any run has taken in the store, even a run that does not hold the lease:
//! runs with other primaries put copies there, and two of them must not take the same id.

mod claim;
mod renewal;
mod state;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::error::{Code, Error, Result};
use crate::repository::backup_id::{BackupId, BackupKind, SKEW, lease_key_of};
use crate::run::clock::Clock;
use crate::run::progress::Observer;
use crate::store::{Condition, ObjectInfo, ObjectVersion, Put, Store, conditions};

pub use claim::Announced;
use claim::Claim;
use renewal::{Held, NotRenewed, Shared};
pub use state::{LeaseHold, LeaseState, look, look_for};

/// How often a lost race is repeated. Each loss means that another run has won, so the second look normally finds a
/// holder.
const ATTEMPTS: usize = 5;

/// The process that holds a lease, shown to people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub host: String,
    pub pid: u32,
}

/// The object's content. Fields that a later version adds are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Body {
    holder: Holder,
    /// Random: distinguishes this run's put from another run's if the answer was lost.
    run: String,
    /// The backup in progress; unknown until the holder has read the store.
    #[serde(default)]
    backup: Option<String>,
    acquired_at: Timestamp,
    expires_at: Timestamp,
    #[serde(default)]
    released: bool,
    /// Every run that replaces the other fields keeps this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claimed: Option<Claim>,
    /// How far the run was at the last renewal: a [`Progress`](crate::run::progress::Progress), which another version
    /// may write in another shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    progress: Option<Value>,
}

/// A run that died while it held the lease.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Previous {
    pub holder: Holder,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    pub acquired_at: Timestamp,
    pub expired_at: Timestamp,
}

impl Previous {
    /// The backup that it never finished, if it had chosen an id.
    pub fn backup_id(&self) -> Option<BackupId> {
        self.backup.as_ref()?.parse().ok()
    }
}

#[derive(Debug)]
pub struct Acquired {
    pub lease: Lease,
    /// The holder of the expired lease that was taken over: that run has left files behind.
    pub took_over: Option<Previous>,
}

/// A lease that this run holds. It is renewed in the background until it is released or dropped. If it is dropped
/// without a release, it expires.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    renewal: JoinHandle<()>,
}

impl Lease {
    /// Takes the lease of a database's full backups, or fails with `BUSY` and names the holder. The run chooses its id
    /// after this, from a listing that no other run can make out of date, and writes it by [`Lease::announce`].
    pub async fn acquire(
        store: Arc<dyn Store>,
        database: &str,
        holder: Holder,
        ttl: Duration,
        clock: Clock,
    ) -> Result<Acquired> {
        Self::acquire_for(store, (database, BackupKind::Full), holder, ttl, clock).await
    }

    /// The same for backups of this kind.
    pub async fn acquire_for(
        store: Arc<dyn Store>,
        (database, kind): (&str, BackupKind),
        holder: Holder,
        ttl: Duration,
        clock: Clock,
    ) -> Result<Acquired> {
        let key = lease_key_of(database, kind);
        let run = random_run();
        for tries in 0..ATTEMPTS {
            if tries > 0 {
                sleep(pause(tries)).await;
            }
            let (condition, previous) = match find(&*store, (database, kind), &run, clock).await? {
                Found::Free(condition, previous) => (condition, previous),
                Found::Ours(body, version) => {
                    let held = Held::new(body, version, Instant::now(), ttl);
                    return Ok(Acquired {
                        lease: Self::hold(store, (database, kind), ttl, clock, held),
                        took_over: None,
                    });
                }
            };
            let body = Body::new(holder.clone(), &run, (clock(), ttl), previous.as_ref());
            let sent = Instant::now();
            let version = match write(&*store, &key, &body, condition).await {
                Ok(Put::Done(version)) => version,
                Ok(Put::Refused) => continue,
                // The store may have written it, and only the answer was lost: the run's random number decides.
                Err(error) => match recognise(&*store, &key, &run).await {
                    Ok(Some((version, _))) => version,
                    Ok(None) => return Err(error),
                    Err(second) => return Err(error.also(second)),
                },
            };
            let held = Held::new(body, version, sent, ttl);
            return Ok(Acquired {
                lease: Self::hold(store, (database, kind), ttl, clock, held),
                took_over: previous.filter(|body| !body.released).map(Previous::from),
            });
        }
        Err(Error::new(
            Code::Busy,
            format!("cannot take the lease of database {database:?}: other runs were faster {ATTEMPTS} times"),
        )
        .hint(format!(
            "try again when they have ended; if there are none, check {key} in {}: it should be a file",
            store.url()
        )))
    }

    fn hold(
        store: Arc<dyn Store>,
        (database, kind): (&str, BackupKind),
        ttl: Duration,
        clock: Clock,
        held: Held,
    ) -> Self {
        let shared = Arc::new(Shared {
            store,
            database: database.to_owned(),
            kind,
            ttl,
            clock,
            held: Mutex::new(held),
            observer: OnceLock::new(),
            lost: watch::Sender::new(None),
        });
        let renewal = tokio::spawn(Arc::clone(&shared).keep_renewing());
        Self { shared, renewal }
    }

    /// From the next renewal on, the lease says how far the run is, as this observer reports it.
    pub fn tell_progress(&self, observer: &Arc<dyn Observer>) {
        // A run has one observer, so a second call changes nothing.
        let _ = self.shared.observer.set(Arc::clone(observer));
    }

    /// Takes an id for the run's backup and writes it into the lease, unless another run has taken this id or a later
    /// one in this store. Renews the lease as well.
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

    /// The same in a store that gets a copy. The lease there is not held, and stays as it is.
    pub async fn claim_in(&self, store: &dyn Store, id: &BackupId) -> Result<Announced> {
        let body = self.shared.held.lock().await.body.clone();
        claim::claim(store, id, body, (self.shared.clock)()).await
    }

    /// Proves that this run holds the lease at this moment, by a renewal that fails if another run had it since. Call
    /// this right before publishing.
    pub async fn still_held(&self) -> Result<()> {
        self.confirm(|_| {}).await
    }

    async fn confirm(&self, change: impl FnOnce(&mut Body)) -> Result<()> {
        self.shared
            .renew(change)
            .await
            .map_err(|not_renewed| match not_renewed {
                NotRenewed::Lost(loss) => loss.error(),
                NotRenewed::Failed(error) => {
                    error.context(format!("cannot renew the lease of database {:?}", self.shared.database))
                }
            })
    }

    /// Waits until the lease is lost and returns the reason: another run took it (`BUSY`), or it could not be renewed
    /// in time (`STORE`). A run that holds the lease selects on this and stops.
    pub async fn lost(&self) -> Error {
        let mut lost = self.shared.lost.subscribe();
        let loss = match lost.wait_for(Option::is_some).await {
            Ok(loss) => loss.clone(),
            Err(_) => None,
        };
        match loss {
            Some(loss) => loss.error(),
            // The sender lives as long as `self`.
            None => std::future::pending().await,
        }
    }

    /// Releases the lease, after success and after failure. If it is already lost, there is nothing to release. After
    /// an error it expires.
    pub async fn release(self) -> Result<()> {
        // A put that this interrupts may still arrive: then the put below is refused, reads the lease, and is
        // repeated.
        self.renewal.abort();
        let held = self.shared.held.lock().await;
        if self.shared.lost.borrow().is_some() {
            return Ok(());
        }
        let body = Body {
            expires_at: (self.shared.clock)(),
            released: true,
            progress: None,
            ..held.body.clone()
        };
        match self.shared.replace(&body, &held.version).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error
                .context(format!(
                    "cannot release the lease of database {:?}, which now ends at {:.0}",
                    self.shared.database, held.body.expires_at
                ))
                .hint("wait until then: before that, another run ends with BUSY")),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// What a run finds when it wants the lease.
enum Found {
    /// The condition under which the run can take it, and who had it before.
    Free(Condition, Option<Body>),
    /// This run's own put of the attempt before, whose answer was lost.
    Ours(Body, ObjectVersion),
}

/// Fails with `BUSY` if another run holds the lease.
async fn find(store: &dyn Store, (database, kind): (&str, BackupKind), run: &str, clock: Clock) -> Result<Found> {
    let key = lease_key_of(database, kind);
    let there = store
        .get(&key)
        .await
        .map_err(|error| in_its_place(&key, store.url(), error))?;
    let Some(object) = there else {
        return Ok(Found::Free(Condition::Absent, None));
    };
    let body: Body = serde_json::from_slice(&object.body).map_err(|error| not_a_lease(&key, store.url(), error))?;
    if body.run == run {
        return Ok(Found::Ours(body, object.version));
    }
    if !body.released && clock() < body.expires_at {
        return Err(busy(database, &key, &body, clock()));
    }
    Ok(Found::Free(Condition::Unchanged(object.version), Some(body)))
}

/// The version of the lease, if it is this run's, and the newest id that was taken.
async fn recognise(store: &dyn Store, key: &str, run: &str) -> Result<Option<(ObjectVersion, Option<Claim>)>> {
    let object = store.get(key).await?;
    Ok(object.and_then(|object| {
        let body: Body = serde_json::from_slice(&object.body).ok()?;
        (body.run == run).then_some((object.version, body.claimed))
    }))
}

/// The wait before a refused put is repeated. It grows each time and is random, so that runs that race for the lease do
/// not collide again.
fn pause(tries: usize) -> Duration {
    let most = 50_u64 << tries.min(5);
    Duration::from_millis(most / 2 + RandomState::new().build_hasher().finish() % (most / 2 + 1))
}

async fn write(store: &dyn Store, key: &str, body: &Body, condition: Condition) -> Result<Put> {
    let (bytes, object) = body.written()?;
    conditions::of(store)?.put_if(key, bytes, &object, condition).await
}

impl Body {
    /// The content of a lease that was taken now, for this time.
    fn new(holder: Holder, run: &str, (now, ttl): (Timestamp, Duration), previous: Option<&Body>) -> Self {
        Self {
            holder,
            run: run.to_owned(),
            backup: None,
            acquired_at: now,
            expires_at: later(now, ttl),
            released: false,
            claimed: previous.and_then(|body| body.claimed.clone()),
            progress: None,
        }
    }

    fn written(&self) -> Result<(Bytes, ObjectInfo)> {
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::internal("cannot write the lease as JSON").source(error))?;
        // No tag: no lifecycle rule may match the lease.
        let object = ObjectInfo {
            content_type: "application/json",
            ..ObjectInfo::default()
        };
        Ok((Bytes::from(bytes), object))
    }
}

fn later(now: Timestamp, ttl: Duration) -> Timestamp {
    SignedDuration::try_from(ttl)
        .ok()
        .and_then(|ttl| now.checked_add(ttl).ok())
        .unwrap_or(Timestamp::MAX)
}

/// Unlikely to occur twice; nothing more is needed. The standard library seeds its hash tables from the system's
/// random source.
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

fn busy(database: &str, key: &str, body: &Body, now: Timestamp) -> Error {
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
            "correct the clock of that host or of this one; then, when no backup of this database is running, \
             remove {key}"
        )
    } else {
        format!("wait until that run has ended; if it died, its lease expires at {expires_at:.0}")
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

/// The object under the lease's key is no file, or is too long for a lease.
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
