//! The newest id that any run has taken in a store. The lease's object holds it and is replaced under the same
//! condition, so two runs never take the same id, even if their primaries differ.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{Body, in_its_place, not_a_lease, pause};
use crate::error::{Code, Error, Result};
use crate::repository::backup_id::{BackupId, lease_key_of};
use crate::store::conditions::put_where;
use crate::store::{Condition, Put, Store};

/// Each refused put means that another run has taken an id or renewed its lease, so many attempts are allowed.
const ATTEMPTS: usize = 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    backup: String,
    /// Distinguishes this run's put from another run's.
    run: String,
}

/// Whether the run got the id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announced {
    Done,
    /// Another run has taken this id: the new one must be later.
    Taken(BackupId),
}

impl Claim {
    pub(super) fn new(id: &BackupId, run: &str) -> Self {
        Self {
            backup: id.to_string(),
            run: run.to_owned(),
        }
    }

    /// The id of this database that the claim takes. `None` if the id is in the future: other runs will not need it
    /// for a long time.
    fn id(&self, database: &str, now: Timestamp) -> Option<BackupId> {
        let id: BackupId = self.backup.parse().ok()?;
        (id.database() == database && !id.is_ahead(now)).then_some(id)
    }

    /// The claim with the later id; the first one if both have the same id.
    pub(super) fn later(first: Option<Self>, second: Option<Self>, database: &str, now: Timestamp) -> Option<Self> {
        let id = |claim: &Option<Self>| claim.as_ref().and_then(|claim| claim.id(database, now));
        if id(&second) > id(&first) {
            second
        } else {
            first.or(second)
        }
    }
}

impl Announced {
    /// The answer to the claim of `id` that was wanted, if the store now holds `there`.
    pub(super) fn of(there: Option<&Claim>, wanted: &Claim, id: &BackupId) -> Self {
        let others = there.filter(|claim| *claim != wanted);
        let taken = others.and_then(|claim| claim.backup.parse::<BackupId>().ok());
        match taken.filter(|taken| taken.database() == id.database()) {
            Some(taken) => Announced::Taken(taken),
            None => Announced::Done,
        }
    }
}

/// Takes an id in a store without changing the lease there, which another run may hold. `ours` is this run's lease in
/// its own primary.
pub(super) async fn claim(store: &dyn Store, id: &BackupId, ours: Body, now: Timestamp) -> Result<Announced> {
    let key = lease_key_of(id.database(), id.kind());
    let wanted = Claim::new(id, &ours.run);
    for tries in 0..ATTEMPTS {
        if tries > 0 {
            sleep(pause(tries)).await;
        }
        let there = store
            .get(&key)
            .await
            .map_err(|error| in_its_place(&key, store.url(), error))?;
        let (condition, body) = match there {
            // As if the lease had been held and released.
            None => {
                let body = Body {
                    backup: None,
                    acquired_at: now,
                    expires_at: now,
                    released: true,
                    claimed: None,
                    progress: None,
                    ..ours.clone()
                };
                (Condition::Absent, body)
            }
            Some(object) => {
                let body: Body =
                    serde_json::from_slice(&object.body).map_err(|error| not_a_lease(&key, store.url(), error))?;
                (Condition::Unchanged(object.version), body)
            }
        };
        if let Some(claim) = &body.claimed
            && let Some(taken) = claim.id(id.database(), now)
            && taken >= *id
        {
            return Ok(Announced::of(Some(claim), &wanted, id));
        }
        let body = Body {
            claimed: Some(wanted.clone()),
            ..body
        };
        // If the store has no conditional writes, no run can hold a lease there that this put could replace.
        let (bytes, object) = body.written()?;
        if let Put::Done(_) = put_where(store, &key, bytes, &object, condition).await? {
            return Ok(Announced::Done);
        }
    }
    let what = format!(
        "cannot take the id {id} in {}: other runs were faster {ATTEMPTS} times",
        store.url()
    );
    Err(Error::new(Code::Busy, what))
}
