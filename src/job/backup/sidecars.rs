//! The small files beside the data: facts about the server, and roles and settings that are outside of the database but
//! belong to it.

use std::time::Duration;

use super::{Job, SourceDatabase, answered};
use crate::error::{Error, Result};
use crate::postgres;

/// Roles are a few kilobytes. If the server takes longer than this, it will not give them.
const GLOBALS_LIMIT: Duration = Duration::from_secs(60);

pub(super) struct Sidecars {
    /// `globals.sql`, or why there is none: many managed services let no customer read the roles.
    pub globals: std::result::Result<postgres::Globals, String>,
    pub system_info: Vec<u8>,
}

pub(super) async fn gather(job: &Job<'_>, source: &SourceDatabase) -> Result<Sidecars> {
    let globals = postgres::globals(
        &source.programs,
        source.session.info(),
        source.passfile.as_deref(),
        &job.settings.postgres,
        GLOBALS_LIMIT,
    );
    let (globals, system_info) = futures::future::try_join(
        job.stop.or_stop(async { Ok(globals.await) }),
        answered(job, async { Ok(source.session.system_info().await) }),
    )
    .await?;
    let mut system_info =
        serde_json::to_vec_pretty(&system_info).map_err(|error| Error::internal("system_info.json").source(error))?;
    system_info.push(b'\n');
    Ok(Sidecars {
        globals: globals.map_err(|error| error.message()),
        system_info,
    })
}
