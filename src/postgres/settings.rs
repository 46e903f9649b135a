//! The user's settings for PostgreSQL's programs and pgstow's sessions.

use std::path::PathBuf;
use std::time::Duration;

use crate::run::confinement::Walls;

/// How PostgreSQL's programs are found and run.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// `BACKUP_PG_BIN`: if set, pgstow searches only these folders.
    pub bin: Option<Vec<PathBuf>>,
    /// `PATH`, for the search when `bin` is not set.
    pub path: Vec<PathBuf>,
    pub dump_major: Option<u32>,
    pub lock_wait: Duration,
    pub stall: Duration,
    pub connect_timeout: Duration,
    /// Where private folders (passfile) are made.
    pub temp: PathBuf,
    /// The variables that PostgreSQL's programs inherit from pgstow's environment: `PATH`, `HOME`, `LD_LIBRARY_PATH`,
    /// `TZ`; never a credential.
    pub child_env: Vec<(String, String)>,
    /// The walls around `psql`, `pg_restore` and `pg_dump` in a drill, where they talk only to the drill's own
    /// server.
    pub client_walls: Option<Walls>,
}
