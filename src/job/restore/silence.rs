//! Rows of extensions' own tables. The extension has already made their triggers, which would change the rows that
//! are loaded. In a replica session these triggers do not fire.

use std::collections::HashSet;

use super::loading::Loader;
use super::prepared::PreparedArchive;
use super::ready::Target;
use super::rows::{self, refused};
use crate::error::Result;
use crate::postgres::{Session, Wire};

pub(super) const REPLICA: &str = "SET LOCAL session_replication_role = replica";
pub(super) const ORIGIN: &str = "SET LOCAL session_replication_role = origin";

/// The rows, by dump ids, that are loaded in a replica session. The definitions must exist already.
pub(super) async fn of(archive: &PreparedArchive, target: &Target, loader: &Loader<'_>) -> Result<HashSet<i64>> {
    if archive.plan.order.of_extensions.is_empty() || !target.session.may_replicate().await {
        return Ok(HashSet::new());
    }
    let session = Session::connect(loader.info, loader.settings).await?;
    let mut wire = session.open_loading_wire().await?;
    rows::execute(&mut wire, "SET client_encoding = 'UTF8'").await?;
    let found = within(archive, &mut wire).await;
    wire.close().await;
    session.close().await;
    found
}

/// The same in the transaction that has made the definitions.
pub(super) async fn in_transaction(
    archive: &PreparedArchive,
    target: &Target,
    wire: &mut Wire,
) -> Result<HashSet<i64>> {
    if archive.plan.order.of_extensions.is_empty() || !target.session.may_replicate().await {
        return Ok(HashSet::new());
    }
    within(archive, wire).await
}

async fn within(archive: &PreparedArchive, wire: &mut Wire) -> Result<HashSet<i64>> {
    let mut found = HashSet::new();
    for index in archive.plan.blocks() {
        let id = archive.stored.head.data[index].dump_id;
        let Some(table) = &archive.stored.tables[index] else {
            continue;
        };
        if !archive.plan.order.of_extensions.contains(&id) {
            continue;
        }
        let silent = wire.falls_silent(table).await;
        if silent.map_err(|refusal| refused("cannot look at an extension's triggers", refusal))? {
            found.insert(id);
        }
    }
    Ok(found)
}
