//! What is known when a run has its id: who asked for what, of which server, and what dead runs left.

use jiff::Timestamp;

use super::notes::Notes;
use super::viewed::Viewed;
use crate::command::BackupRequest;
use crate::dataflow::compress::Codec;
use crate::error::Error;
use crate::format::Format;
use crate::job::backup::view::{Opened, View};
use crate::job::backup::{Job, Prepared, Source, codec};
use crate::repository::backup_id::BackupId;
use crate::repository::catalog::object_info;
use crate::repository::lease::Previous;
use crate::repository::leftovers::LeftOver;
use crate::repository::manifest::{Algorithm, LeftOut, role};
use crate::repository::retention::Tier;
use crate::repository::trigger::Trigger;
use crate::store::ObjectInfo;

/// Tables whose rows were left out, as of every other kind: what is more is counted.
const NAMED_TABLES: usize = 100;

pub(in crate::job::backup) struct Begun<'a> {
    pub id: BackupId,
    pub codec: Codec,
    pub(super) source: &'a Source,
    pub(super) host: &'a str,
    pub(super) threads: usize,
    pub(super) format: Format,
    pub(super) md5: bool,
    pub(super) trigger: Trigger,
    pub(super) event_id: Option<String>,
    pub(super) tier: Tier,
    pub(super) started: Timestamp,
    pub(super) database_bytes: Option<u64>,
    pub(super) took_over: Option<Previous>,
    pub(super) leftovers: Vec<LeftOver>,
    pub(super) notes: Notes,
}

impl<'a> Begun<'a> {
    pub(in crate::job::backup) fn of(
        job: &Job<'a>,
        request: &BackupRequest,
        source: &'a Source,
        prepared: Prepared,
        took_over: Option<Previous>,
    ) -> Self {
        let Prepared {
            id,
            tier,
            started,
            database_bytes,
            cleared,
        } = prepared;
        let mut warnings = [&job.settings.notes[..], job.credentials.unused_settings().as_slice()].concat();
        warnings.extend(cleared.warnings.iter().map(Error::message));
        Self {
            id,
            codec: codec(job.settings, source.programs.major),
            source,
            host: job.host,
            threads: job.settings.threads,
            format: job.settings.format,
            md5: job.settings.md5,
            trigger: request.trigger,
            event_id: request.event_id.clone(),
            tier,
            started,
            database_bytes,
            took_over,
            leftovers: cleared.left_overs,
            notes: Notes {
                warnings,
                left_out: Vec::new(),
            },
        }
    }

    /// Gives back who reads, and about how much.
    pub(in crate::job::backup) fn viewed(mut self, view: View) -> (Viewed<'a>, Opened, u64) {
        let notes = &mut self.notes;
        notes.warnings.extend(view.notes);
        let mut streams = 1;
        if let Opened::Streams(reading) = &view.reader {
            streams = reading.streams();
            notes.complaints(reading.complaints.clone());
        }
        let why = "emptied or rewritten after the backup's snapshot and before its lock: the backup may have none of its rows";
        let more = view.emptied.len().saturating_sub(NAMED_TABLES);
        let more = (more > 0).then(|| format!("{more} more"));
        let emptied = view.emptied.into_iter().take(NAMED_TABLES).chain(more);
        notes.left_out(emptied.map(|name| LeftOut {
            kind: "rows".into(),
            name,
            why: why.into(),
        }));
        notes.left_out(view.left_out);
        let viewed = Viewed {
            begun: self,
            snapshot: view.snapshot,
            names: view.names,
            tables_of_script: view.tables_of_script,
            streams,
            extensions: view.extensions,
            collations: view.collations,
        };
        (viewed, view.reader, view.table_bytes)
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        match self.codec {
            Codec::None => Algorithm::None,
            Codec::Zstd(_) | Codec::AutoZstd => Algorithm::Zstd,
            Codec::Gzip(_) | Codec::AutoGzip => Algorithm::Gzip,
        }
    }

    /// Of the file with the data.
    pub(super) fn data_role(&self) -> &'static str {
        match self.format {
            Format::Custom => role::DUMP,
            Format::Plain => role::SQL,
        }
    }

    pub(super) fn data_name(&self) -> String {
        match self.format {
            Format::Custom => self.id.dump_name(),
            Format::Plain => self.id.sql_name(self.algorithm().extension()),
        }
    }

    pub(super) fn info(&self, content_type: &'static str) -> ObjectInfo {
        object_info(&self.id, &self.source.session.server().version, content_type)
    }
}
