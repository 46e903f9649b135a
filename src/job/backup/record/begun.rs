//! The record of a run that has its id: the request, the server, and the left-overs of dead runs.

use bytes::Bytes;
use jiff::Timestamp;

use super::notes::Notes;
use super::sidecar::Sidecar;
use crate::dataflow::compress::Codec;
use crate::error::Error;
use crate::format::Format;
use crate::job::backup::BackupRequest;
use crate::job::backup::{Intent, Job, SourceDatabase, codec};
use crate::repository::backup_id::BackupId;
use crate::repository::catalog::object_info;
use crate::repository::lease::Previous;
use crate::repository::leftovers::LeftOver;
use crate::repository::manifest::{CompressionAlgorithm, StreamBeginning, role};
use crate::repository::references::Referent;
use crate::repository::retention::Tier;
use crate::repository::trigger::Trigger;
use crate::store::ObjectInfo;

pub(in crate::job::backup) struct Begun<'a> {
    pub id: BackupId,
    pub codec: Codec,
    pub(super) source: &'a SourceDatabase,
    pub(super) host: &'a str,
    pub(super) threads: usize,
    pub(super) format: Format,
    pub(super) md5: bool,
    pub(super) trigger: Trigger,
    pub(super) event_id: Option<String>,
    pub(super) beginning: Option<StreamBeginning>,
    pub(super) tier: Tier,
    pub(super) started: Timestamp,
    pub(super) database_bytes: Option<u64>,
    pub(super) took_over: Option<Previous>,
    pub(super) leftovers: Vec<LeftOver>,
    pub(super) notes: Notes,
    /// The backup to refer to.
    pub(super) base: Option<Referent>,
}

impl<'a> Begun<'a> {
    pub(in crate::job::backup) fn of(
        job: &Job<'a>,
        request: &BackupRequest,
        source: &'a SourceDatabase,
        prepared: Intent,
        took_over: Option<Previous>,
    ) -> Self {
        let Intent {
            id,
            tier,
            started,
            database_bytes,
            cleared,
            base,
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
            beginning: request.beginning.clone(),
            tier,
            started,
            database_bytes,
            took_over,
            leftovers: cleared.left_overs,
            notes: Notes {
                warnings,
                left_out: Vec::new(),
            },
            base,
        }
    }

    /// Whether it may refer to another backup.
    pub(in crate::job::backup) fn refers(&self) -> bool {
        self.base.is_some()
    }

    pub(super) fn algorithm(&self) -> CompressionAlgorithm {
        algorithm(self.codec)
    }

    /// The role of the file with the data.
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

    pub(super) fn sidecar(&self, name: &str, bytes: impl Into<Bytes>, content_type: &'static str) -> Sidecar {
        Sidecar::of(&self.id, |media| self.info(media), name, bytes, content_type)
    }

    pub(super) fn info(&self, content_type: &'static str) -> ObjectInfo {
        object_info(&self.id, &self.source.session.server().version, content_type)
    }
}

pub(in crate::job::backup) fn algorithm(codec: Codec) -> CompressionAlgorithm {
    match codec {
        Codec::None => CompressionAlgorithm::None,
        Codec::Zstd(_) | Codec::AutoZstd => CompressionAlgorithm::Zstd,
        Codec::Gzip(_) | Codec::AutoGzip => CompressionAlgorithm::Gzip,
    }
}
