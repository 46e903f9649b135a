//! The definitions of a database, stored when they have changed: an archive without rows, by pg_dump.
//!
//! pg_dump does not read all definitions in its snapshot. So a fingerprint is taken before and after it: only if the two
//! are the same, the archive is as the database was at one moment.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;

use super::context::Context;
use crate::error::{Code, Error, Result};
use crate::format::Lsn;
use crate::format::archive::{Head, Input};
use crate::job::backup::{answered, view};
use crate::postgres::{Contents, PublicationKind, Snapshot, TableCatalog, Unbegun};
use crate::repository::seen_catalog::SeenDefinitions;
use crate::run::threads::apart;
use crate::store::limits;

/// How often the definitions are read, if they change meanwhile.
const ATTEMPTS: usize = 3;
/// How long pg_dump may wait for a lock. The next increment can store the definitions too.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The definitions that are in force at the end of an increment.
pub(super) struct Definitions {
    pub seen: SeenDefinitions,
    /// The archive, if they have changed.
    pub archive: Option<Bytes>,
    /// The tables as the archive describes them.
    pub catalog: Option<TableCatalog>,
    /// Why they could not be stored, although they have changed.
    pub warning: Option<String>,
}

impl Definitions {
    /// From where on the changed definitions are known, if any changed. `to` is the increment's end.
    pub fn changed_from(&self, to: Lsn) -> Option<Lsn> {
        match (&self.archive, &self.warning) {
            (Some(_), _) => Some(self.seen.from),
            // The next increment stores them.
            (None, Some(_)) => Some(Lsn(to.0 + 1)),
            (None, None) => None,
        }
    }
}

/// The fingerprint without the publications of increments.
pub(super) async fn fingerprint(context: &Context<'_>) -> Result<String> {
    let session = &context.source.session;
    let own = [PublicationKind::All, PublicationKind::Inserts].map(|kind| context.slot.publication(kind));
    answered(context.job, session.definitions_fingerprint(&own)).await
}

/// `at_beginning` is the fingerprint from before the stream was read, at the position `looked_at`. `previous` are the
/// definitions of which the store has an archive.
pub(super) async fn take(
    context: &Context<'_>,
    previous: Option<&SeenDefinitions>,
    at_beginning: &str,
    looked_at: Lsn,
) -> Result<Definitions> {
    let mut before = fingerprint(context).await?;
    if let Some(previous) = previous.filter(|previous| previous.fingerprint == before && at_beginning == before) {
        return Ok(Definitions {
            seen: previous.clone(),
            archive: None,
            catalog: None,
            warning: None,
        });
    }
    let mut why = "they changed every time while pg_dump read them".to_owned();
    for _ in 0..ATTEMPTS {
        let Some(position) = context
            .job
            .stop
            .or_stop(context.source.session.settled_position())
            .await?
        else {
            why = "the server does not flush its log".into();
            break;
        };
        let archive = match dump(context).await? {
            Ok(archive) => archive,
            Err(refused) => {
                why = refused;
                before = fingerprint(context).await?;
                continue;
            }
        };
        let catalog = answered(context.job, context.source.session.table_catalog()).await?;
        let after = fingerprint(context).await?;
        if after == before {
            let is_from_beginning = at_beginning == after;
            return Ok(Definitions {
                seen: SeenDefinitions {
                    fingerprint: after,
                    from: if is_from_beginning { looked_at } else { position },
                },
                archive: Some(archive),
                catalog: Some(catalog),
                warning: None,
            });
        }
        before = after;
    }
    Ok(Definitions {
        // So that the next increment sees that they have changed.
        seen: previous.cloned().unwrap_or(SeenDefinitions {
            fingerprint: String::new(),
            from: looked_at,
        }),
        archive: None,
        catalog: None,
        warning: Some(format!(
            "the definitions changed, but could not be stored; the next increment tries again: {why}"
        )),
    })
}

/// The archive, or why pg_dump could not make it now.
async fn dump(context: &Context<'_>) -> Result<Result<Bytes, String>> {
    let session = &context.source.session;
    let snapshot = answered(context.job, session.export_snapshot()).await?;
    let dumped = dump_in(context, &snapshot).await;
    answered(context.job, session.release_snapshot()).await?;
    dumped
}

async fn dump_in(context: &Context<'_>, snapshot: &Snapshot) -> Result<Result<Bytes, String>> {
    let (job, source) = (context.job, context.source);
    let begun = match view::begin(job, source, snapshot, Contents::Definitions, LOCK_WAIT).await {
        Ok(begun) => begun,
        // The role may not read a new table.
        Err(Unbegun::Failed(error)) if error.code() == Code::Permission => return Ok(Err(error.message())),
        Err(Unbegun::Failed(error)) => return Err(error),
        Err(unbegun) => return Ok(Err(Error::from(unbegun).message())),
    };
    let view::Begun { dump, first, output } = begun;
    let key = context.id.key(&context.id.schema_name());
    let most = limits::most(&key);
    let reading = apart("definitions", move || {
        let mut archive = first;
        let left = (most + 1).saturating_sub(archive.len() as u64);
        output.take(left).read_to_end(&mut archive)?;
        Ok::<_, std::io::Error>(archive)
    });
    let read = tokio::select! {
        biased;
        reason = job.stop.requested() => Err(reason.into()),
        read = reading => read?.map_err(|error| Error::new(Code::PgDumpErr, "pg_dump's output cannot be read").source(error)),
        () = tokio::time::sleep(job.settings.postgres.stall) => Err(dump.stalled(job.settings.postgres.stall).await),
    };
    let archive = match read {
        Ok(archive) => archive,
        Err(error) => {
            dump.stop().await;
            return Err(error);
        }
    };
    if archive.len() as u64 > most {
        dump.stop().await;
    } else if let Err(error) = dump.wait().await {
        return match Unbegun::from(error) {
            Unbegun::Failed(error) => Err(error),
            unbegun => Ok(Err(Error::from(unbegun).message())),
        };
    }
    limits::fits(&key, archive.len() as u64)?;
    Head::read(&mut Input::new(&archive[..])).map_err(Error::from)?;
    Ok(Ok(archive.into()))
}
