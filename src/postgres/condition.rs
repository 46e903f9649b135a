//! What the server reports about its state and the connection's encryption: for a preflight.

use super::Session;
use super::tls::{self, TlsVerification};
use crate::error::Result;

/// How the session's own connection is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionEncryption {
    /// `TLSv1.3`
    pub protocol: String,
    /// Unknown behind a pooler.
    pub cipher: Option<String>,
    pub verified: TlsVerification,
}

/// About the server's write-ahead log and its readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replication {
    pub wal_level: String,
    pub archive_mode: String,
    pub standbys: i64,
    pub slots: i64,
    pub most_slots: i64,
    /// Slots without a reader, for which the server keeps its log: name and bytes.
    pub idle_slots: Vec<(String, u64)>,
}

impl Session {
    /// `None`: the connection is in clear text.
    pub async fn encryption(&self) -> Result<Option<ConnectionEncryption>> {
        if !self.encrypted {
            return Ok(None);
        }
        let failed = |error| self.error("cannot ask about the connection's encryption", &error);
        let row = self
            .client
            .query_opt(
                "SELECT version::pg_catalog.text, cipher::pg_catalog.text FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid() AND ssl",
                &[],
            )
            .await
            .map_err(failed)?;
        // Behind a pooler the server describes the pooler's connection, not this one.
        let seen = row.filter(|_| self.is_direct);
        let (protocol, cipher) = match seen {
            Some(row) => (row.try_get(0).map_err(failed)?, Some(row.try_get(1).map_err(failed)?)),
            None => ("TLS".to_owned(), None),
        };
        Ok(Some(ConnectionEncryption {
            protocol,
            cipher,
            verified: tls::verified(self.info(), self.home()),
        }))
    }

    /// The server's clock, in seconds since 1970.
    pub async fn clock(&self) -> Result<f64> {
        let row = self
            .client
            .query_one(
                "SELECT extract(epoch FROM pg_catalog.clock_timestamp())::pg_catalog.float8",
                &[],
            )
            .await;
        row.and_then(|row| row.try_get(0))
            .map_err(|error| self.error("cannot ask for the server's time", &error))
    }

    /// As far as this role may see it.
    pub async fn replication(&self) -> Result<Replication> {
        let failed = |error| self.error("cannot look at the server's log", &error);
        let row = self
            .client
            .query_one(
                "SELECT pg_catalog.current_setting('wal_level'), pg_catalog.current_setting('archive_mode'),
                        (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_replication),
                        (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots),
                        pg_catalog.current_setting('max_replication_slots')::pg_catalog.int8",
                &[],
            )
            .await
            .map_err(failed)?;
        // On a standby another function gives the end of the log, and the result is not needed.
        let idle = self
            .client
            .query(
                "SELECT slot_name::pg_catalog.text, pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn)::pg_catalog.int8
                 FROM pg_catalog.pg_replication_slots
                 WHERE NOT pg_catalog.pg_is_in_recovery() AND NOT active AND restart_lsn IS NOT NULL ORDER BY 2 DESC",
                &[],
            )
            .await
            .unwrap_or_default();
        let idle = idle.iter().map(|row| {
            let bytes: i64 = row.try_get(1)?;
            Ok((row.try_get(0)?, bytes.max(0).unsigned_abs()))
        });
        Ok(Replication {
            wal_level: row.try_get(0).map_err(failed)?,
            archive_mode: row.try_get(1).map_err(failed)?,
            standbys: row.try_get(2).map_err(failed)?,
            slots: row.try_get(3).map_err(failed)?,
            most_slots: row.try_get(4).map_err(failed)?,
            idle_slots: idle.collect::<Result<_, _>>().map_err(failed)?,
        })
    }
}
