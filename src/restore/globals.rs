//! The roles of the backup's cluster, made before anything that they own.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::manifest::{Manifest, role};
use crate::postgres::{Scope, Session, statements};
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

/// Runs its statements one by one. What exists already stays as it is; what could not be done is
/// told.
pub(crate) async fn apply(session: &Session, sql: &[u8], scope: Scope) -> Result<Vec<String>> {
    Ok(session.apply_globals(&statements(sql), scope).await?.notes)
}
