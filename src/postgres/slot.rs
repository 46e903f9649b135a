//! The replication slot of a stream: the server keeps its log from the slot's position on.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::quoting::literal;
use super::{Session, SlotName};
use crate::error::{Code, Error, Result};
use crate::format::Lsn;
use crate::run::stop::Stop;

/// The output plugin of pgstow's slots.
const PLUGIN: &str = "pgoutput";
/// How long the server may take to cancel a statement.
const CANCELLING: Duration = Duration::from_secs(2);
/// The first server that copies a slot to its standbys if the slot asks for it.
const FAILOVER_SINCE: u32 = 17;

/// A slot of a stream, as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    pub name: String,
    /// The server's process that reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<i32>,
    /// What was confirmed as stored: the next stream begins here.
    pub confirmed: Option<Lsn>,
    /// The oldest position from which the server keeps its log for this slot. `None`: the slot is lost.
    pub restart: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// How many bytes of log the server keeps for it.
    pub retained_bytes: Option<u64>,
    /// How many more bytes of log can be written before the slot may be lost. `None`: no limit is set, or the slot is
    /// lost.
    pub safe_bytes: Option<u64>,
    /// How many transactions VACUUM is held back in the system's catalogs.
    pub catalog_age: Option<u64>,
    /// Servers before 17 do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactive_since: Option<Timestamp>,
    /// Why the server has given it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalidation: Option<String>,
    /// Whether standbys get it too. Servers before 17 do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fails_over: Option<bool>,
}

impl Slot {
    /// Whether its stream can no longer be continued.
    pub fn is_lost(&self) -> bool {
        self.restart.is_none() || self.wal_status.as_deref() == Some("lost") || self.invalidation.is_some()
    }
}

/// Versions differ in their columns, so most are read by name from one document.
const SLOTS: &str = "SELECT s.slot_name::pg_catalog.text, s.plugin::pg_catalog.text, s.database::pg_catalog.text,
        s.database = pg_catalog.current_database(), s.active_pid, s.confirmed_flush_lsn::pg_catalog.text,
        s.restart_lsn::pg_catalog.text, s.wal_status,
        pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_receive_lsn()
          ELSE pg_catalog.pg_current_wal_lsn() END, s.restart_lsn)::pg_catalog.int8,
        s.safe_wal_size, pg_catalog.age(s.catalog_xmin),
        extract(epoch FROM (pg_catalog.to_jsonb(s) ->> 'inactive_since')::pg_catalog.timestamptz)::pg_catalog.float8,
        pg_catalog.to_jsonb(s) ->> 'invalidation_reason', (pg_catalog.to_jsonb(s) ->> 'failover')::pg_catalog.bool
    FROM pg_catalog.pg_replication_slots s WHERE NOT s.temporary";

impl Session {
    /// The slot with this name, if there is one.
    ///
    /// `SLOT` if it is another program's: it belongs to another database, or has another plugin.
    pub async fn slot(&self, name: &SlotName) -> Result<Option<Slot>> {
        let question = format!("{SLOTS} AND s.slot_name = {}", literal(name.slot()));
        let row = self.attempt(&question).await.map_err(|error| self.slots_hidden(&error))?;
        let Some(row) = row else { return Ok(None) };
        if !self.is_of_streams(&row)? {
            let (plugin, database): (Option<String>, Option<String>) =
                (self.slot_field(&row, 1)?, self.slot_field(&row, 2)?);
            let text = format!(
                "the replication slot {name} is not pgstow's: its plugin is {}, and its database {}",
                plugin.as_deref().unwrap_or("none"),
                database.as_deref().unwrap_or("none")
            );
            return Err(Error::new(Code::Slot, text).hint(
                "pgstow does not touch it: find out which program needs it, and drop it only if none does \
                 (pg_drop_replication_slot)",
            ));
        }
        self.read_slot(&row).map(Some)
    }

    /// All slots of this database with names of pgstow's form and pgstow's plugin: those of all its stores.
    pub async fn slots_of_streams(&self) -> Result<Vec<(SlotName, Slot)>> {
        let question = format!("{SLOTS} ORDER BY 1");
        let rows = self.client.query(&question, &[]).await;
        let rows = rows.map_err(|error| self.slots_hidden(&error))?;
        let mut found = Vec::new();
        for row in &rows {
            let name: String = self.slot_field(row, 0)?;
            if let Some(name) = SlotName::parse(&name)
                && self.is_of_streams(row)?
            {
                found.push((name, self.read_slot(row)?));
            }
        }
        Ok(found)
    }

    /// Creates the slot, in a session of its own. The server waits for the transactions that run now, at most this
    /// long. The slot's stream begins at the returned position. If the run is stopped, the slot may be there or not.
    ///
    /// `SLOT` if the slot exists already, or the server has no free one; `PERMISSION` if the role may not replicate;
    /// `STALLED` if the limit passes.
    pub async fn create_slot(&self, name: &SlotName, limit: Duration, stop: &Stop) -> Result<Lsn> {
        let other = stop.or_stop(self.connect_again()).await?;
        let process = other.client.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await;
        let process: i32 = self.slot_field(&process.map_err(|error| self.slots_hidden(&error))?, 0)?;
        let created = {
            let creating = other.create_slot_here(name, limit);
            tokio::pin!(creating);
            tokio::select! {
                created = &mut creating => created,
                reason = stop.requested() => {
                    // Otherwise the server would go on, and make a slot that no program knows of.
                    self.cancel(process).await;
                    let _ = tokio::time::timeout(CANCELLING, creating).await;
                    Err(reason.into())
                }
            }
        };
        other.close().await;
        created
    }

    /// Tries to create a slot that ends with its session. It waits at most this long for transactions that run now.
    pub async fn try_slot(&self, limit: Duration) -> Result<()> {
        let other = self.connect_again().await?;
        let tried = other.try_slot_here(limit).await;
        other.close().await;
        tried
    }

    async fn try_slot_here(&self, limit: Duration) -> Result<()> {
        let wait = format!("SET statement_timeout = {}", limit.as_millis().max(1));
        let limited = self.client.batch_execute(&wait).await;
        limited.map_err(|error| self.error("cannot limit the wait for a slot", &error))?;
        let question = format!(
            "SELECT c.lsn::pg_catalog.text FROM pg_catalog.pg_create_logical_replication_slot(
               pg_catalog.concat('pgstow_doctor_', pg_catalog.pg_backend_pid()), {}, true) AS c",
            literal(PLUGIN)
        );
        let tried = self.client.query_one(&question, &[]).await;
        tried.map(drop).map_err(|error| self.slot_refused("of the trial", limit, &error))
    }

    /// Cancels the statement of another session.
    async fn cancel(&self, process: i32) {
        let question = format!("SELECT pg_catalog.pg_cancel_backend({process})");
        let _ = tokio::time::timeout(CANCELLING, self.client.batch_execute(&question)).await;
    }

    async fn create_slot_here(&self, name: &SlotName, limit: Duration) -> Result<Lsn> {
        // If pgstow is killed while the server waits, the server notices, and then drops what it has begun.
        let _ = self.client.batch_execute("SET client_connection_check_interval = 500").await;
        let wait = format!("SET statement_timeout = {}", limit.as_millis().max(1));
        let limited = self.client.batch_execute(&wait).await;
        limited.map_err(|error| self.error("cannot limit the wait for a slot", &error))?;
        let failover = if self.server.major >= FAILOVER_SINCE { ", failover => true" } else { "" };
        let question = format!(
            "SELECT c.lsn::pg_catalog.text FROM pg_catalog.pg_create_logical_replication_slot({}, {}{failover}) AS c",
            literal(name.slot()),
            literal(PLUGIN)
        );
        let row = match self.client.query_one(&question, &[]).await {
            Ok(row) => row,
            Err(error) => return Err(self.slot_refused(name.slot(), limit, &error)),
        };
        let position: String = self.slot_field(&row, 0)?;
        position
            .parse()
            .map_err(|error| Error::internal("the position of a new slot is not understood").source(error))
    }

    /// Drops the slot if it is pgstow's. Returns whether there was one.
    ///
    /// `BUSY` if another process reads it; `SLOT` if it is another program's.
    pub async fn drop_slot(&self, name: &SlotName) -> Result<bool> {
        let Some(slot) = self.slot(name).await? else { return Ok(false) };
        let question = format!("SELECT pg_catalog.pg_drop_replication_slot({})", literal(name.slot()));
        match self.client.query_one(&question, &[]).await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Ok(false),
            Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) => Err(self.slot_in_use(&slot).await),
            Err(error) => Err(self.error(&format!("cannot drop the replication slot {name}"), &error)),
        }
    }

    /// `BUSY`, with the process that reads the slot, as far as this role may see it.
    pub async fn slot_in_use(&self, slot: &Slot) -> Error {
        let question = format!(
            "SELECT pg_catalog.concat('process ', a.pid, ', role ', a.usename, ', since ',
                    pg_catalog.date_trunc('second', a.backend_start), ' (', a.application_name, ')')
             FROM pg_catalog.pg_replication_slots s JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid
             WHERE s.slot_name = {}",
            literal(&slot.name)
        );
        let row = self.attempt(&question).await.ok().flatten();
        let reader: Option<String> = row.and_then(|row| row.try_get(0).ok());
        let reader = reader.unwrap_or_else(|| "a process that has just ended".into());
        let text = format!("the replication slot {} is being read: {reader}", slot.name);
        Error::new(Code::Busy, text).hint(
            "another pgstow makes an increment: stop its --follow, or wait until it has ended; if its machine is gone, \
             the server ends it after wal_sender_timeout (60 s)",
        )
    }

    fn slot_refused(&self, name: &str, limit: Duration, error: &tokio_postgres::Error) -> Error {
        let failed = self.error(&format!("cannot create the replication slot {name}"), error);
        let is = |state: &SqlState| error.code() == Some(state);
        if is(&SqlState::DUPLICATE_OBJECT) {
            failed.with_code(Code::Slot)
        } else if is(&SqlState::CONFIGURATION_LIMIT_EXCEEDED) {
            failed
                .with_code(Code::Slot)
                .hint("all slots of the server are in use: raise max_replication_slots and restart it, or drop unused slots")
        } else if is(&SqlState::QUERY_CANCELED) {
            let text = format!(
                "cannot create the replication slot {name}: transactions of other sessions did not end within {limit:?}"
            );
            Error::new(Code::Stalled, text).hint(
                "end the oldest transactions (pg_stat_activity, ordered by xact_start; pg_prepared_xacts), then try again",
            )
        } else if is(&SqlState::INSUFFICIENT_PRIVILEGE) {
            failed.hint(self.info().naming_the_role(
                "the role needs the attribute REPLICATION (ALTER ROLE <role> REPLICATION), or the role that the service has \
                 for it (RDS and Aurora: GRANT rds_replication TO <role>)",
            ))
        } else {
            failed
        }
    }

    fn is_of_streams(&self, row: &Row) -> Result<bool> {
        let plugin: Option<String> = self.slot_field(row, 1)?;
        let is_here: Option<bool> = self.slot_field(row, 3)?;
        Ok(plugin.as_deref() == Some(PLUGIN) && is_here == Some(true))
    }

    fn read_slot(&self, row: &Row) -> Result<Slot> {
        let position = |column| -> Result<Option<Lsn>> {
            let text: Option<String> = self.slot_field(row, column)?;
            Ok(text.and_then(|text| text.parse().ok()))
        };
        let size = |column| -> Result<Option<u64>> {
            let bytes: Option<i64> = self.slot_field(row, column)?;
            Ok(bytes.map(|bytes| bytes.max(0).unsigned_abs()))
        };
        let age: Option<i32> = self.slot_field(row, 10)?;
        let inactive: Option<f64> = self.slot_field(row, 11)?;
        Ok(Slot {
            name: self.slot_field(row, 0)?,
            reader: self.slot_field(row, 4)?,
            confirmed: position(5)?,
            restart: position(6)?,
            wal_status: self.slot_field(row, 7)?,
            retained_bytes: size(8)?,
            safe_bytes: size(9)?,
            catalog_age: age.map(|age| age.max(0).unsigned_abs().into()),
            inactive_since: inactive.and_then(moment),
            invalidation: self.slot_field(row, 12)?,
            fails_over: self.slot_field(row, 13)?,
        })
    }

    fn slot_field<'a, T: tokio_postgres::types::FromSql<'a>>(&self, row: &'a Row, column: usize) -> Result<T> {
        row.try_get(column).map_err(|error| self.slots_hidden(&error))
    }

    fn slots_hidden(&self, error: &tokio_postgres::Error) -> Error {
        self.error("cannot look at the replication slots", error)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the range is checked by jiff, and microseconds are enough")]
fn moment(seconds: f64) -> Option<Timestamp> {
    Timestamp::from_microsecond((seconds * 1e6) as i64).ok()
}
