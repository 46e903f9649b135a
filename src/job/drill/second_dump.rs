//! Dumps the database of the throwaway server again.

use std::fs::File;

use super::Job;
use super::cluster::ClusterLogin;
use crate::error::Result;
use crate::format::Format;
use crate::postgres::{Contents, Dump, DumpOrder, Programs, Session};
use crate::run::threads::apart;

/// Runs `read` on the dump in a thread of its own. Returns its result and pg_dump's version.
pub(super) async fn read<T: Send + 'static>(
    job: &Job<'_>,
    reader: ClusterLogin<'_>,
    format: Format,
    read: impl FnOnce(File) -> Result<T> + Send + 'static,
) -> Result<(T, String)> {
    let settings = &job.settings.postgres;
    let session = Session::connect_to_our_own(&reader.info, settings).await?;
    let programs = Programs::find(session.server().major, settings).await?;
    let snapshot = session.export_snapshot().await?;
    let mut dump = Dump::start(&DumpOrder {
        programs: &programs,
        info: session.info(),
        passfile: Some(reader.passfile),
        snapshot: &snapshot.id,
        contents: Contents::Whole(format),
        lock_wait: settings.lock_wait,
        settings,
    })
    .await?;
    let output = dump.take_stdout()?;
    let again = apart("read", move || read(output)).await?;
    // pg_dump's own error is better than the one from its stream.
    dump.wait().await?;
    Ok((again?, programs.version))
}
