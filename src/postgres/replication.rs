//! A session for logical replication (documentation: "Streaming Replication Protocol"): it identifies the server, and
//! reads the changes that the server decodes for a slot.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::Session;
use super::quoting::identifier;
use super::refusal::Refusal;
use super::server::{EMPTY_SEARCH_PATH, SETTINGS};
use super::startup::{Greeting, Purpose};
use super::stream::unexpected;
use super::wire::{Partial, Wire};
use crate::error::{Code, Error, Result};
use crate::format::Lsn;

/// PostgreSQL counts time from 2000-01-01.
const EPOCH: Duration = Duration::from_secs(946_684_800);

/// A session that takes simple queries and replication commands, with the same server and database throughout.
pub struct ReplicationSession {
    wire: Wire,
    greeting: Greeting,
    partial: Partial,
    has_streamed: bool,
}

/// The server that a stream comes from. A position is valid only on its own server and timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSource {
    pub system_identifier: String,
    pub timeline: u32,
    /// The end of the server's log on its disk.
    pub flushed: Lsn,
    pub database: Option<String>,
}

/// A message of the server while it streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Streamed {
    /// One message of the output plugin.
    Change { start: Lsn, end: Lsn, bytes: Vec<u8> },
    /// There are no more changes up to this position. If the server wants an answer and gets none, it ends the
    /// session.
    Alive { end: Lsn, wants_answer: bool },
    /// The server ends the stream: call [`finish`](ReplicationSession::finish).
    End,
}

impl Session {
    /// Opens another session with this server and database, for logical replication. Values have the same form as in
    /// the other sessions, in the database's own encoding.
    ///
    /// `PERMISSION` if the role may not replicate; `CONN_ERR` if a pooler is in between.
    pub async fn open_replication(&self) -> Result<ReplicationSession> {
        let (started, redactor) = self.start_again(Purpose::Replication).await?;
        let mut wire = Wire::new(started.stream, redactor);
        let settings = format!(
            "SET bytea_output = 'hex'; SET TimeZone = 'UTC'; SET client_encoding = '{}'",
            self.server.encoding
        );
        // The timeouts count here too: the session waits for the store before its stream begins, and the server decodes
        // a large transaction in a transaction of its own.
        for statement in [EMPTY_SEARCH_PATH, SETTINGS, &settings] {
            wire.execute(statement.as_bytes()).await.map_err(Refusal::into_error)?;
        }
        Ok(ReplicationSession {
            wire,
            greeting: started.greeting,
            partial: Partial::default(),
            has_streamed: false,
        })
    }
}

impl ReplicationSession {
    /// A setting that the server reported at the login, such as `server_version` or `server_encoding`, with its value
    /// then.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.greeting.parameters.get(name).map(String::as_str)
    }

    /// The server's process that serves this session, as `pg_stat_activity` and `pg_stat_replication` name it.
    pub fn process(&self) -> Option<u32> {
        self.greeting.key.map(|key| key.process)
    }

    /// Identifies the server (`IDENTIFY_SYSTEM`).
    pub async fn identify(&mut self) -> Result<StreamSource> {
        let rows = self.wire.query(b"IDENTIFY_SYSTEM").await;
        let rows = rows.map_err(Refusal::into_error)?;
        let source = rows.first().and_then(|row| {
            Some(StreamSource {
                system_identifier: row.text(0)?.to_owned(),
                timeline: row.number(1)?,
                flushed: row.text(2)?.parse().ok()?,
                database: row.text(3).map(str::to_owned),
            })
        });
        source.ok_or_else(|| unexpected("an incomplete answer to IDENTIFY_SYSTEM"))
    }

    /// Runs a statement or a replication command, and ignores its rows.
    pub async fn execute(&mut self, statement: &str) -> Result<()> {
        let done = self.wire.execute(statement.as_bytes()).await;
        done.map_err(Refusal::into_error)
    }

    /// Starts the stream of a slot's changes, from this position or the slot's own, whichever is later. The options
    /// are the output plugin's. A session can stream only once: PostgreSQL ends a second stream at once, without an
    /// error.
    pub async fn start(&mut self, slot: &str, from: Lsn, options: &[(&str, &str)]) -> Result<()> {
        if self.has_streamed {
            return Err(Error::internal("a second stream needs another session"));
        }
        self.has_streamed = true;
        let statement = start_replication(slot, from, options)?;
        let begun = self.wire.begin_both(statement.as_bytes()).await;
        begun.map_err(|refusal| not_started(slot, refusal))
    }

    /// The server's next message. Cancelling this call loses nothing.
    pub async fn next(&mut self) -> Result<Streamed> {
        let heard = self.wire.hear_both(&mut self.partial).await;
        match heard.map_err(broken_off)? {
            Some(body) => streamed(body).ok_or_else(|| unexpected("an invalid message of replication")),
            None => Ok(Streamed::End),
        }
    }

    /// Tells the server that everything before this position is stored, so the server may remove it. `now` is for its
    /// statistics.
    pub async fn confirm(&mut self, kept: Lsn, now: SystemTime) -> Result<()> {
        let told = self.wire.say_both(&status(kept, now, false)).await;
        told.map_err(Refusal::into_error)
    }

    /// The same, and the server answers at once with [`Streamed::Alive`].
    pub async fn ask(&mut self, kept: Lsn, now: SystemTime) -> Result<()> {
        let told = self.wire.say_both(&status(kept, now, true)).await;
        told.map_err(Refusal::into_error)
    }

    /// Ends the stream; the session then takes statements again. By then the server has read all that it was sent
    /// before.
    pub async fn finish(&mut self) -> Result<()> {
        let ended = self.wire.end_both(&mut self.partial).await;
        ended.map_err(Refusal::into_error)
    }

    /// Ends the session, and returns when the server has closed it.
    pub async fn close(self) {
        self.wire.close().await;
    }
}

impl fmt::Debug for ReplicationSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicationSession")
            .field("process", &self.process())
            .finish_non_exhaustive()
    }
}

/// `BUSY` if another session reads the slot, `SLOT` if the server no longer has what the slot needs.
fn not_started(slot: &str, refusal: Refusal) -> Error {
    let state = match &refusal {
        Refusal::Server { state, .. } => state.code().to_owned(),
        Refusal::Broken(_) => String::new(),
    };
    let error = refusal.into_error();
    match state.as_str() {
        // object_in_use
        "55006" => Error::new(Code::Busy, format!("another session reads the slot {slot:?}"))
            .hint(
                "wait until that session has ended (pg_stat_replication shows it): the server notices a reader that \
                 died after wal_sender_timeout",
            )
            .source(error),
        // undefined_object, object_not_in_prerequisite_state, undefined_file
        "42704" | "55000" | "58P01" => Error::new(Code::Slot, format!("the slot {slot:?} cannot be read"))
            .hint("the next run makes a new slot and a full backup, which begin a new chain of increments")
            .source(error),
        _ => error,
    }
}

/// `SLOT` if the server cannot decode a change of the log: what publishes it did not exist at that time, or the server
/// has failed inside (class XX). A new session comes to the same change, so only another slot helps.
fn broken_off(refusal: Refusal) -> Error {
    // undefined_object
    let is_undecodable = |state: &str| state == "42704" || state.starts_with("XX");
    let stays = matches!(&refusal, Refusal::Server { state, .. } if is_undecodable(state.code()));
    let error = refusal.into_error();
    match stays {
        true => Error::new(Code::Slot, format!("the stream cannot be read on: {}", error.message())).hint(
            "if another run comes to the same, it makes a new slot and a full backup, which begin a new chain of \
             increments",
        ),
        false => error,
    }
}

fn start_replication(slot: &str, from: Lsn, options: &[(&str, &str)]) -> Result<String> {
    let options: Vec<String> = options
        .iter()
        .map(|(name, value)| format!("{} '{}'", identifier(name), value.replace('\'', "''")))
        .collect();
    let statement = format!(
        "START_REPLICATION SLOT {} LOGICAL {from} ({})",
        identifier(slot),
        options.join(", ")
    );
    if statement.contains('\0') {
        return Err(Error::internal("a slot's name or option holds a NUL byte"));
    }
    Ok(statement)
}

/// Documentation: `XLogData` and "Primary keepalive message".
fn streamed(mut body: Vec<u8>) -> Option<Streamed> {
    let lsn = |at: usize| {
        let bytes = body.get(at..)?.first_chunk::<8>()?;
        Some(Lsn(u64::from_be_bytes(*bytes)))
    };
    match body.first()? {
        b'w' => {
            let (start, end) = (lsn(1)?, lsn(9)?);
            // The third number is the server's clock.
            if body.len() < 25 {
                return None;
            }
            body.drain(..25);
            Some(Streamed::Change {
                start,
                end,
                bytes: body,
            })
        }
        b'k' if body.len() == 18 => Some(Streamed::Alive {
            end: lsn(1)?,
            wants_answer: body[17] == 1,
        }),
        _ => None,
    }
}

/// Documentation: "Standby status update". pgstow reports one position as written, flushed and applied.
fn status(kept: Lsn, now: SystemTime, asks: bool) -> Vec<u8> {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let micros = i64::try_from(since.saturating_sub(EPOCH).as_micros()).unwrap_or(i64::MAX);
    let mut body = vec![b'r'];
    for _ in 0..3 {
        body.extend_from_slice(&kept.0.to_be_bytes());
    }
    body.extend_from_slice(&micros.to_be_bytes());
    body.push(asks.into());
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_of_replication_are_read_and_written() {
        let numbers = [&[0, 0, 0, 1, 0, 0, 0, 2][..], &[0, 0, 0, 1, 0, 0, 0, 3], &[0; 8]].concat();
        let change = [b"w", &numbers[..], b"B..."].concat();
        let expected = Streamed::Change {
            start: Lsn(0x1_0000_0002),
            end: Lsn(0x1_0000_0003),
            bytes: b"B...".to_vec(),
        };
        assert_eq!(streamed(change.clone()), Some(expected));
        assert_eq!(streamed(change[..24].to_vec()), None);
        let alive = [b"k", &numbers[..16], &[1]].concat();
        let expected = Streamed::Alive {
            end: Lsn(0x1_0000_0002),
            wants_answer: true,
        };
        assert_eq!(streamed(alive.clone()), Some(expected));
        for odd in [&alive[..17], b"", b"x", b"k", b"w"] {
            assert_eq!(streamed(odd.to_vec()), None);
        }
        let told = status(
            Lsn(0x1_0000_0002),
            SystemTime::UNIX_EPOCH + EPOCH + Duration::from_micros(5),
            false,
        );
        assert_eq!(told.len(), 34);
        assert_eq!(told[1..9], told[17..25]);
        assert_eq!(told[25..], [0, 0, 0, 0, 0, 0, 0, 5, 0]);
    }

    #[test]
    fn a_slots_name_and_options_are_quoted_for_replications_own_grammar() {
        let options = [("proto_version", "1"), ("publication_names", "\"it's\",b")];
        assert_eq!(
            start_replication("pgstow_1", Lsn(0x1_0000_00A0), &options).unwrap(),
            "START_REPLICATION SLOT \"pgstow_1\" LOGICAL 1/A0 (\"proto_version\" '1', \"publication_names\" '\"it''s\",b')"
        );
        assert!(start_replication("a\0b", Lsn(0), &[]).is_err());
    }
}
