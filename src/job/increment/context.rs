//! What all steps of an increment's coverage work with.

use crate::format::Lsn;
use crate::job::backup::{Job, SourceDatabase};
use crate::postgres::SlotName;
use crate::repository::backup_id::BackupId;
use crate::repository::lease::Lease;

#[derive(Clone, Copy)]
pub(in crate::job) struct Context<'a> {
    pub job: &'a Job<'a>,
    pub source: &'a SourceDatabase,
    pub lease: &'a Lease,
    /// The increment's id.
    pub id: &'a BackupId,
    /// Where the increment begins.
    pub from: Lsn,
    pub slot: &'a SlotName,
}
