//! A lease as a command sees it that does not take it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Body, Holder, in_its_place, not_a_lease};
use crate::error::Result;
use crate::repository::backup_id::{BackupKind, lease_key_of};
use crate::store::Store;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LeaseState {
    /// Released, or never taken.
    Free,
    Held(LeaseHold),
    /// Never released, and expired: that run has died.
    Expired(LeaseHold),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct LeaseHold {
    pub holder: Holder,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    pub since: Timestamp,
    /// The expiry, if the run does not renew it.
    pub until: Timestamp,
}

/// The lease of a database's full backups at this moment. `BUSY` if the object is no lease: no run can take it then.
pub async fn look(store: &dyn Store, database: &str, now: Timestamp) -> Result<LeaseState> {
    look_for(store, database, BackupKind::Full, now).await
}

/// The same for backups of this kind.
pub async fn look_for(store: &dyn Store, database: &str, kind: BackupKind, now: Timestamp) -> Result<LeaseState> {
    let key = lease_key_of(database, kind);
    let found = store
        .get(&key)
        .await
        .map_err(|error| in_its_place(&key, store.url(), error))?;
    let Some(object) = found else {
        return Ok(LeaseState::Free);
    };
    let body: Body = serde_json::from_slice(&object.body).map_err(|error| not_a_lease(&key, store.url(), error))?;
    let free = body.released;
    let hold = LeaseHold {
        holder: body.holder,
        backup: body.backup,
        since: body.acquired_at,
        until: body.expires_at,
    };
    Ok(match hold {
        _ if free => LeaseState::Free,
        hold if now < hold.until => LeaseState::Held(hold),
        hold => LeaseState::Expired(hold),
    })
}
