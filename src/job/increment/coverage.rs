//! What an increment covers, table by table, and the files that say so.
//!
//! A round calls three steps, and reads its stream between them:
//!
//! 1. [`look`] reads the catalog. The round then reads the stream at least to [`Looked::at`], with the [`StreamFacts`]
//!    hearing every message.
//! 2. [`settle`] decides what the differences from the previous catalog mean for each table, joins new tables to the
//!    publications, and reads the baselines into the store. The round then reads the stream on, at least to
//!    [`Settled::at`], because the baselines are later than its end.
//! 3. [`finish`] looks once more, and says what is covered.
//!
//! If the stream ends before `Looked::at` (the deadline), the round calls [`settle`] with a catalog that is ahead of
//! the stream. It then reads no baselines, and leaves the differences to the next increment.

use bytes::Bytes;

use super::facts::StreamFacts;
use crate::dataflow::pipeline::Passed;
use crate::error::{Error, Result};
use crate::format::Lsn;
use crate::job::backup::{Job, Replicas, SourceDatabase};
use crate::postgres::{Snapshot, TableCatalog};
use crate::repository::backup_id::BackupId;
use crate::repository::lease::Lease;
use crate::repository::manifest::{
    Baseline, DataFile, FileRecord, LargeObjectsRecord, ObjectsCoverage, SequenceState, TableCoverage, TableRecord,
};
use crate::repository::seen_catalog::SeenCatalog;
use crate::store::Stored;

/// What the steps work with.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub job: &'a Job<'a>,
    pub source: &'a SourceDatabase,
    pub lease: &'a Lease,
    /// The increment's id.
    pub id: &'a BackupId,
    /// The increment's `from`.
    pub from: Lsn,
}

/// The catalog as it is before the stream is read.
pub(super) struct Looked {
    pub catalog: TableCatalog,
    /// The server's log reached this position after the catalog was read: read the stream at least to here.
    pub at: Lsn,
}

/// What is to be done next.
pub(super) enum Decision {
    /// Why a new full is better than this increment.
    NewFull(String),
    Settled(Box<Settled>),
}

pub(super) struct Settled {
    /// `Some`: baselines were read. Read the stream on, at least to here.
    pub at: Option<Lsn>,
    // … private
}

/// What goes into the manifest, and the files beside the changes.
pub(super) struct Coverage {
    pub tables: Vec<TableCoverage>,
    pub baselines: Vec<Baseline>,
    pub sequences: Vec<SequenceState>,
    pub large_objects: Option<ObjectsCoverage>,
    /// The archive of the baselines, whose `.dump` is in the stores already.
    pub archive: Option<StoredBaselines>,
    /// To be put and recorded: `<db>.toc`, `<db>.schema`, `catalog.json`.
    pub files: Vec<CoverageFile>,
    pub warnings: Vec<String>,
}

/// The places of [`TableRecord`]s have the [`FileIndex`] 0: it is the increment's only data file.
///
/// [`FileIndex`]: crate::repository::manifest::FileIndex
pub(super) struct StoredBaselines {
    pub file: FileRecord,
    pub tables: Vec<TableRecord>,
    pub large_objects: Vec<LargeObjectsRecord>,
    pub snapshot: Snapshot,
    /// In the order of the stores.
    pub receipts: Vec<Option<Stored>>,
    pub archive_version: String,
}

pub(super) struct CoverageFile {
    pub role: &'static str,
    pub name: String,
    pub bytes: Bytes,
    pub content_type: &'static str,
}

pub(super) async fn look(context: &Context<'_>) -> Result<Looked>;

/// `previous`: the `catalog.json` of the increment before, or of the full with which the stream began. Without it no
/// table of this increment is exact.
pub(super) async fn settle(
    context: &Context<'_>,
    replicas: &mut Replicas,
    previous: Option<SeenCatalog>,
    looked: Looked,
    facts: &StreamFacts,
) -> Result<Decision>;

/// `facts` and `to` are of the whole increment.
pub(super) async fn finish(context: &Context<'_>, settled: Settled, facts: &StreamFacts, to: Lsn) -> Result<Coverage>;

// facts.rs:
//   StreamFacts::new(previous: Option<&SeenCatalog>, from: Lsn) -> Self
//   facts.message(&pgoutput::Message)   // every message, in order
//   facts.changes() -> Vec<TableChanges> for the manifest, with names from the catalog
//
// repository/seen_catalog.rs: SeenCatalog::parse(&[u8]) -> Result<Self, _>, to_bytes(); SeenCatalog::first(catalog,
// at, …) for the full with which a stream begins (role CATALOG, name CATALOG).
