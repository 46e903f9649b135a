//! The roles of the backup's cluster, made before anything that they own.

use bytes::Bytes;

use super::LeftOut;
use crate::error::{Error, Result};
use crate::manifest::{Manifest, role};
use crate::postgres::{GlobalsPlan, Powers, Session, statements};
use crate::store::Store;
use crate::stored_archive::{file_of, read_file};

/// `globals.sql`, or why the backup has none.
pub(crate) async fn read(store: &dyn Store, manifest: &Manifest) -> Result<Bytes> {
    if let Some(why) = manifest.missing.get(role::GLOBALS) {
        return Err(
            Error::config(format!("--globals: the backup holds no roles: {why}")).hint("make the roles by hand first")
        );
    }
    read_file(store, &manifest.id, file_of(manifest, role::GLOBALS)?).await
}

/// What would be done with it on this server: nothing is changed yet.
pub(crate) async fn plan(session: &Session, sql: &[u8], powers: Powers) -> Result<GlobalsPlan> {
    session.plan_globals(&statements(sql), powers).await
}

/// Makes the roles. What could not be done is told, and so is what was done and gives power.
pub(super) async fn apply(session: &Session, plan: &GlobalsPlan) -> Result<Vec<String>> {
    let applied = session.apply_globals(plan).await?;
    let powers = applied.privileged.iter();
    let powers = powers.map(|sql| format!("as --globals-privileged asked: {sql}"));
    Ok(applied.notes.into_iter().chain(powers).collect())
}

/// Statements that are not run, for the report.
pub(super) fn left_out(plan: &GlobalsPlan) -> impl Iterator<Item = LeftOut> {
    plan.left_out.iter().chain(&plan.kept).map(|one| LeftOut {
        what: format!("globals.sql: {}", one.what),
        why: one.why.clone(),
    })
}
