//! Waits for the transactions that are older than something that pgstow has just done.

use std::time::Duration;

use tokio::time::Instant;

use super::Session;
use crate::error::{Error, Result};

const PAUSE: Duration = Duration::from_millis(50);

impl Session {
    /// Waits until all transactions have ended that are in progress now. `false`: some have not ended within `limit`.
    ///
    /// A transaction that began before a table was published may change it unseen. Also one whose commit waits for a
    /// synchronous standby counts as in progress, although its commit is in the log already.
    pub async fn older_transactions_end(&self, limit: Duration) -> Result<bool> {
        let until = Instant::now() + limit;
        let (_, newest) = self.transactions_in_progress().await?;
        loop {
            let (oldest, _) = self.transactions_in_progress().await?;
            if oldest >= newest {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The oldest that may be in progress, and the next that will begin.
    async fn transactions_in_progress(&self) -> Result<(u64, u64)> {
        let failed = |error| self.error("cannot read which transactions are in progress", &error);
        let question = "SELECT pg_catalog.pg_snapshot_xmin(now.snapshot)::pg_catalog.text,
                               pg_catalog.pg_snapshot_xmax(now.snapshot)::pg_catalog.text
                        FROM pg_catalog.pg_current_snapshot() AS now (snapshot)";
        let row = self.client.query_one(question, &[]).await.map_err(failed)?;
        let number = |column| -> Result<u64> {
            let text: String = row.try_get(column).map_err(failed)?;
            let unclear = |_| Error::internal(format!("the transaction {text:?} is not understood"));
            text.parse().map_err(unclear)
        };
        Ok((number(0)?, number(1)?))
    }
}
