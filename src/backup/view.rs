//! What the backup will read: the snapshot and, for more than one stream, every table held as the
//! snapshot sees it.

use std::collections::HashMap;

use super::{Job, Source, answered};
use crate::error::{Code, Result};
use crate::postgres::{Snapshot, TableName};
use crate::settings::Format;
use crate::streams::{self, Opening, Streams};

/// How often tables may change between a snapshot and their locks before one stream must do. On a
/// database in which they always do, pg_dump has the same chances as everybody.
const ATTEMPTS: usize = 3;

pub(super) struct View {
    pub snapshot: Snapshot,
    /// Of tables whose names are not UTF-8 in the archive, by OID.
    pub names: HashMap<u32, TableName>,
    /// None: pg_dump reads, in one stream.
    pub streams: Option<Box<Streams>>,
    /// An estimate: about what COPY will send.
    pub table_bytes: u64,
    /// What the report should say of it.
    pub notes: Vec<String>,
}

pub(super) async fn open(job: &Job<'_>, source: &Source) -> Result<View> {
    let session = &source.session;
    let mut snapshot = answered(job, session.export_snapshot()).await?;
    let mut streams = None;
    let mut notes = Vec::new();
    if job.settings.jobs > 1 && job.settings.format == Format::Custom {
        let mut attempt = 1;
        let why = loop {
            let order = streams::Order {
                session,
                programs: &source.programs,
                passfile: source.passfile.as_ref(),
                snapshot: &snapshot.id,
                jobs: job.settings.jobs,
                read_ahead: job.settings.memory.read_ahead,
                settings: &job.settings.postgres,
            };
            let why = match job.stop.or_stop(streams::open(&order)).await? {
                Opening::Streams(opened) => {
                    notes.extend(opened.note.clone());
                    streams = Some(opened);
                    break None;
                }
                Opening::OneStream(why) => break Some(why),
                Opening::Changed(why) => why,
            };
            // This snapshot sees tables that are no more, and would show them empty.
            answered(job, session.release_snapshot()).await?;
            snapshot = answered(job, session.export_snapshot()).await?;
            if attempt == ATTEMPTS {
                break Some(format!(
                    "tables changed while they were being locked, {ATTEMPTS} times: {why}"
                ));
            }
            attempt += 1;
        };
        notes.extend(why.map(|why| format!("read with one stream, not {}: {why}", job.settings.jobs)));
    }
    let table_bytes = match &streams {
        Some(streams) => streams.bytes(),
        None => match answered(job, session.table_bytes()).await {
            // Whoever reads next says what has become of the session, and of the snapshot with it.
            Err(error) if error.code() == Code::ConnErr => 0,
            bytes => bytes?,
        },
    };
    let names = answered(job, async { Ok(session.names_in_other_encoding().await) }).await?;
    Ok(View {
        snapshot,
        names,
        streams,
        table_bytes,
        notes,
    })
}
