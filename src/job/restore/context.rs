//! What the steps of a restore work with.

use super::Job;
use super::loading::Loader;
use super::prepared::PreparedArchive;
use super::ready::Target;
use super::state::State;
use crate::job::restore::RestoreRequest;

/// One restore: the request, the target, and how far it came.
#[derive(Clone, Copy)]
pub(super) struct RestoreRun<'a> {
    pub job: &'a Job<'a>,
    pub request: &'a RestoreRequest,
    pub target: &'a Target,
    pub state: &'a State,
}

/// The restore of an archive by pg_restore.
#[derive(Clone, Copy)]
pub(super) struct ArchiveRun<'a> {
    pub run: RestoreRun<'a>,
    pub archive: &'a PreparedArchive,
    pub loader: &'a Loader<'a>,
}
