//! How busy the server is with other work, for a backup that must not slow it down.

use std::time::Duration;

use tokio_postgres::Row;

use super::Session;
use crate::error::Result;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ServerLoad {
    /// How far the slowest replica is behind; `None` if there is no replica, if nothing is on its way to it, and on a
    /// standby.
    pub lag: Option<Duration>,
    /// There are replicas, but this role may not see how far they are behind.
    pub lag_is_hidden: bool,
    /// Active sessions other than pgstow's.
    pub sessions: u64,
}

impl Session {
    /// Another session with the same server, for questions during a backup.
    pub async fn beside(&self) -> Result<Session> {
        self.connect_again().await
    }

    pub async fn load(&self) -> Result<ServerLoad> {
        let failed = |error| self.error("cannot read the server's load", &error);
        let row: Row = self
            .client
            .query_one(
                "SELECT (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity
                         WHERE state = 'active' AND backend_type = 'client backend'
                           AND application_name <> pg_catalog.current_setting('application_name')),
                        (SELECT extract(epoch FROM pg_catalog.max(replay_lag))::pg_catalog.float8 FROM pg_catalog.pg_stat_replication),
                        (SELECT pg_catalog.count(*) > 0 AND pg_catalog.bool_and(state IS NULL) FROM pg_catalog.pg_stat_replication)",
                &[],
            )
            .await
            .map_err(failed)?;
        let sessions: i64 = row.try_get(0).map_err(failed)?;
        let lag: Option<f64> = row.try_get(1).map_err(failed)?;
        Ok(ServerLoad {
            lag: lag.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            lag_is_hidden: row.try_get::<_, Option<bool>>(2).map_err(failed)?.unwrap_or(false),
            sessions: sessions.unsigned_abs(),
        })
    }
}
