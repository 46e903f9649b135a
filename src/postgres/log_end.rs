//! The end of the server's log, and a moment that lies before it.

use std::time::Duration;

use jiff::Timestamp;

use super::Session;
use super::snapshot::parse_snapshot;
use crate::error::{Error, Result};
use crate::format::Lsn;

/// The end of the log on the server's disk at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEnd {
    /// Every transaction whose commit has an earlier time is in the log before `flushed`. See [`Session::log_end`].
    pub seen: Timestamp,
    pub flushed: Lsn,
    /// The transactions in progress then: the oldest, the next that will begin, and those between that have not ended.
    pub xmin: u64,
    pub xmax: u64,
    pub xip: Vec<u64>,
    /// How long the server waits for a sign of life from a reader of its log. `None`: for ever.
    pub sender_timeout: Option<Duration>,
}

impl Session {
    /// The time on the server's clock.
    pub async fn time(&self) -> Result<Timestamp> {
        let failed = |error| self.error("cannot read the server's clock", &error);
        let question = "SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::pg_catalog.int8";
        let row = self.client.query_one(question, &[]).await.map_err(failed)?;
        moment(row.try_get(0).map_err(failed)?)
    }

    /// The end of the log now.
    ///
    /// The server gives a commit its time before it writes the commit into the log, and with `synchronous_commit=off`
    /// it flushes the log up to three times `wal_writer_delay` later. So `seen` is the server's clock, read before the
    /// position, minus this time and one second. It is wrong only if a commit takes longer than that second between its
    /// time and the log, or if the server's clock was set back.
    pub async fn log_end(&self) -> Result<LogEnd> {
        let failed = |error| self.error("cannot read the position of the server's log", &error);
        // In a statement of its own: the clock comes first.
        let clock = "SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::pg_catalog.int8,
                (SELECT setting::pg_catalog.int8 FROM pg_catalog.pg_settings WHERE name = 'wal_writer_delay'),
                (SELECT setting::pg_catalog.int8 FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout')";
        let row = self.client.query_one(clock, &[]).await.map_err(failed)?;
        let micros: i64 = row.try_get(0).map_err(failed)?;
        let delay: Option<i64> = row.try_get(1).map_err(failed)?;
        let timeout: Option<i64> = row.try_get(2).map_err(failed)?;
        let position = "SELECT pg_catalog.pg_current_wal_flush_lsn()::pg_catalog.text,
                               pg_catalog.pg_current_snapshot()::pg_catalog.text";
        let row = self.client.query_one(position, &[]).await.map_err(failed)?;
        let flushed: String = row.try_get(0).map_err(failed)?;
        let snapshot: String = row.try_get(1).map_err(failed)?;
        let (xmin, xmax, xip) = parse_snapshot(&snapshot)
            .ok_or_else(|| Error::internal(format!("the server's snapshot `{snapshot}` is not understood")))?;
        let margin = 1_000_000 + delay.unwrap_or(200).saturating_mul(3_000);
        Ok(LogEnd {
            seen: moment(micros.saturating_sub(margin))?,
            flushed: flushed
                .parse()
                .map_err(|_| Error::internal(format!("the position {flushed:?} of the log is not understood")))?,
            xmin,
            xmax,
            xip,
            sender_timeout: timeout
                .and_then(|millis| u64::try_from(millis).ok())
                .filter(|millis| *millis > 0)
                .map(Duration::from_millis),
        })
    }
}

fn moment(micros: i64) -> Result<Timestamp> {
    Timestamp::from_microsecond(micros)
        .map_err(|error| Error::internal("the server's clock is out of range").source(error))
}
