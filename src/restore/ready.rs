//! The target, looked at before anything is changed.

use super::Job;
use crate::command::RestoreRequest;
use crate::error::Result;
use crate::postgres::{ConnectionInfo, Session};

/// A session with the server, and how to reach the database that is to be filled.
pub(super) struct Target {
    pub session: Session,
    pub info: ConnectionInfo,
}

pub(super) async fn reach(job: &Job<'_>, _request: &RestoreRequest) -> Result<Target> {
    let (_, session) = job.target.connect(&job.settings.postgres).await?;
    let info = session.info().clone();
    Ok(Target { session, info })
}
