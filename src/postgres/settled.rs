//! A position in the log that lies behind everything that a snapshot can see.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Session;
use crate::error::{Error, Result};
use crate::format::Lsn;

/// How long the server may take to flush its log up to the position: with `synchronous_commit=off` it may be up to
/// three times `wal_writer_delay` late, which is 10 s at most.
const FLUSHING: Duration = Duration::from_secs(35);
const PAUSE: Duration = Duration::from_millis(50);
/// The size of a page of the log, and of the longest header of one.
const PAGE: u64 = 8192;
const HEADER: u64 = 40;

impl Session {
    /// Every transaction that a snapshot taken before this call can see has its commit before this position, and the
    /// server has flushed its log up to it. `None`: it did not flush it in time.
    pub async fn settled_position(&self) -> Result<Option<Lsn>> {
        let inserted = before_header(self.position("pg_catalog.pg_current_wal_insert_lsn()").await?);
        let flushing = async {
            loop {
                let flushed = self.position("pg_catalog.pg_current_wal_flush_lsn()").await?;
                if flushed >= inserted {
                    return Ok(flushed);
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(FLUSHING, flushing).await.ok().transpose()
    }

    /// A position of the log, with the transactions that have not ended yet. If they have, whoever looks sees everything
    /// that was committed before the position: a commit is in the log before others can see it.
    pub async fn unsettled_position(&self) -> Result<(Lsn, BTreeSet<u32>)> {
        let position = self.position("pg_catalog.pg_current_wal_insert_lsn()").await?;
        Ok((position, self.running().await?))
    }

    /// The transactions of this database that have not ended. A snapshot would not name one that is newer than all that
    /// have ended.
    pub async fn running(&self) -> Result<BTreeSet<u32>> {
        let failed = |error| self.error("cannot read the transactions that are running", &error);
        let question = "SELECT a.backend_xid::pg_catalog.text FROM pg_catalog.pg_stat_activity a
              JOIN pg_catalog.pg_database d ON d.oid = a.datid AND d.datname = pg_catalog.current_database()
              WHERE a.backend_xid IS NOT NULL
            UNION ALL
            SELECT p.transaction::pg_catalog.text FROM pg_catalog.pg_prepared_xacts p
              WHERE p.database = pg_catalog.current_database()";
        let rows = self.client.query(question, &[]).await.map_err(failed)?;
        let xid = |row: &tokio_postgres::Row| {
            let text: String = row.try_get(0).map_err(failed)?;
            text.parse()
                .map_err(|_| Error::internal(format!("the transaction {text:?} is not understood")))
        };
        rows.iter().map(xid).collect()
    }

    async fn position(&self, function: &str) -> Result<Lsn> {
        let failed = |error| self.error("cannot read the position of the server's log", &error);
        let question = format!("SELECT {function}::pg_catalog.text");
        let row = self.client.query_one(&question, &[]).await.map_err(failed)?;
        let text: String = row.try_get(0).map_err(failed)?;
        text.parse()
            .map_err(|_| Error::internal(format!("the position {text:?} of the log is not understood")))
    }
}

/// At the beginning of a page the next record goes behind the page's header, and the position already says so. But the
/// log is flushed only up to the page until there is such a record, which may take for ever.
fn before_header(Lsn(inserted): Lsn) -> Lsn {
    let within = inserted % PAGE;
    Lsn(if within <= HEADER { inserted - within } else { inserted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_behind_a_pages_header_is_the_pages_own() {
        assert_eq!(before_header(Lsn(0x0100_0028)), Lsn(0x0100_0000));
        assert_eq!(before_header(Lsn(0x0100_2018)), Lsn(0x0100_2000));
        assert_eq!(before_header(Lsn(0x0100_2000)), Lsn(0x0100_2000));
        assert_eq!(before_header(Lsn(0x0100_2058)), Lsn(0x0100_2058));
    }
}
