//! What the steps of a restore work with.

use super::Job;
use super::loading::Loader;
use super::prepared::Archive;
use super::ready::Target;
use super::state::State;
use crate::job::restore::RestoreRequest;

/// One restore: the request, the target, and how far it came.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub job: &'a Job<'a>,
    pub request: &'a RestoreRequest,
    pub target: &'a Target,
    pub state: &'a State,
}

/// The restore of an archive by pg_restore.
#[derive(Clone, Copy)]
pub(super) struct ArchiveRun<'a> {
    pub run: Run<'a>,
    pub archive: &'a Archive,
    pub loader: &'a Loader<'a>,
}
