//! What a user can say of PostgreSQL's programs and of our sessions.

use std::path::PathBuf;
use std::time::Duration;

use crate::run::confinement::Walls;

/// How PostgreSQL's programs are found and run.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// `BACKUP_PG_BIN`: where set, these folders alone count.
    pub bin: Option<Vec<PathBuf>>,
    /// `PATH`, for the search when `bin` is not set.
    pub path: Vec<PathBuf>,
    pub dump_major: Option<u32>,
    pub lock_wait: Duration,
    pub stall: Duration,
    pub connect_timeout: Duration,
    /// Where private folders (passfile) are made.
    pub temp: PathBuf,
    /// What PostgreSQL's programs inherit of our environment: `PATH`, `HOME`,
    /// `LD_LIBRARY_PATH`, `TZ`; never a credential.
    pub child_env: Vec<(String, String)>,
    /// Around `psql`, `pg_restore` and `pg_dump`: a drill's, which talk to its own server alone.
    pub client_walls: Option<Walls>,
}
