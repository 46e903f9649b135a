//! What all rounds of a run share.

use crate::job::backup::{BackupRequest, Job, SourceDatabase};
use crate::postgres::SlotName;
use crate::repository::lease::{Lease, Previous};

pub(super) struct Run<'a> {
    pub job: &'a Job<'a>,
    pub request: &'a BackupRequest,
    pub source: SourceDatabase,
    pub lease: Lease,
    pub took_over: Option<Previous>,
    pub slot: SlotName,
    /// The names of the stream's publications.
    pub publications: Vec<String>,
}
