//! The rows of a table, as a session of ours loads them and reads them again. A sum over the text does not depend on
//! the order of rows and columns, so that a table can be compared with the backup.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{self, Sender};
use tokio_postgres::error::SqlState;

use super::Job;
use super::plan::Plan;
use crate::error::{Code, Error, Result};
use crate::format::archive::{ArchiveError, BlockContent, BlockDigest, BlockSink, Item, Loading};
use crate::format::script::{RowSum, Sum};
use crate::postgres::quoting::literal;
use crate::postgres::{Piece, Refusal, Rows, StallClock, Wire};
use crate::repository::stored_archive::StoredArchive;
use crate::run::threads::apart;
use crate::store::Store;
use crate::store::reading::our_error;

/// Rows are sent to the server in pieces of about this size.
const PIECE: usize = 128 << 10;
/// How many pieces may wait for the server.
const AHEAD: usize = 8;
/// How long a server may take to say that it has no lock, after the wait for it has ended.
const LOCK_ERROR: Duration = Duration::from_secs(10);
/// How long a server may take to roll back.
const ROLLING_BACK: Duration = Duration::from_secs(30);

/// What is needed from the backup.
#[derive(Clone, Copy)]
pub(super) struct Backup<'a> {
    pub store: &'a Arc<dyn Store>,
    pub stored: &'a Arc<StoredArchive>,
    pub items: &'a [Item],
    pub plan: &'a Plan,
}

/// One COPY of a block, and how its rows are read again.
#[derive(Debug)]
pub(super) struct BlockCopy {
    pub index: usize,
    pub statement: Vec<u8>,
    /// The table to read the rows from. Several blocks may be loaded through one root.
    pub place: Vec<u8>,
    /// The columns of the rows, quoted as in the archive.
    pub columns: Vec<u8>,
    pub names: Vec<Vec<u8>>,
}

/// What a table holds.
#[derive(Debug)]
pub(super) struct RowDigests {
    /// In the order in which the rows came.
    pub digest: BlockDigest,
    /// Independent of the order.
    pub sum: Sum,
}

/// Why rows could not be loaded.
pub(super) struct Unloaded {
    /// The server's code, if the server refused them.
    pub state: Option<SqlState>,
    pub error: Error,
}

impl From<Error> for Unloaded {
    fn from(error: Error) -> Self {
        Self { state: None, error }
    }
}

impl Unloaded {
    /// Whether the table may load after others are loaded: a check or a function may have looked for their rows.
    pub fn may_wait(&self) -> bool {
        let state = self.state.as_ref().map_or("", |state| state.code());
        state == SqlState::CHECK_VIOLATION.code()
            || ["P0", "38", "39", "2F"].iter().any(|class| state.starts_with(class))
    }

    pub fn refused(what: &str, refusal: Refusal) -> Self {
        let state = match &refusal {
            Refusal::Server { state, .. } => Some(state.clone()),
            Refusal::Broken(_) => None,
        };
        let error = refused(what, refusal);
        Self { state, error }
    }
}

pub(super) async fn execute(wire: &mut Wire, statement: &str) -> Result<()> {
    wire.execute(statement.as_bytes())
        .await
        .map_err(|refusal| refused(statement, refusal))
}

/// After an error that is already reported. If the server does not answer, it rolls back when the session ends.
pub(super) async fn roll_back(wire: &mut Wire) {
    let _ = tokio::time::timeout(ROLLING_BACK, wire.execute(b"ROLLBACK")).await;
}

pub(super) fn refused(what: &str, refusal: Refusal) -> Error {
    let hint = refusal.hint_of_rows();
    if refusal.is(&SqlState::LOCK_NOT_AVAILABLE) {
        return Error::new(Code::RestoreErr, format!("{what}: the lock was not granted in time"))
            .hint("end the transactions of other sessions, or wait longer: set BACKUP_LOCK_WAIT_SECONDS");
    }
    let (code, message) = match refusal {
        Refusal::Broken(error) => (error.code(), error.message()),
        Refusal::Server { state, error, .. } => match error.code() {
            Code::Permission => (Code::Permission, error.message()),
            // What is wrong with a value is at the end of the message.
            _ if state.code().starts_with("22") => {
                let message = error.message();
                let told = message.rfind(": \"").map_or(&*message, |at| &message[..at]);
                (Code::RestoreErr, told.to_owned())
            }
            _ => (Code::RestoreErr, error.message()),
        },
    };
    let error = Error::new(code, format!("{what}: {message}"));
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// The encoding of the archive's text.
pub(super) fn encoding(items: &[Item]) -> String {
    let set = items.iter().find(|item| item.entry.desc == "ENCODING");
    let quoted = set.and_then(|item| item.details.definition.split('\'').nth(1));
    quoted.unwrap_or("UTF8").to_owned()
}

/// Sets the session up as pg_dump and pg_restore do, so that text is as in the archive. It waits at most `wait` for a
/// lock.
pub(super) async fn settle(wire: &mut Wire, encoding: &str, wait: Duration) -> Result<()> {
    let settings = format!(
        "SET client_min_messages = error; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
         SET row_security = off; SET xmloption = content; SET lock_timeout = {}; SET client_encoding = {}",
        wait.as_millis(),
        literal(encoding)
    );
    execute(wire, &settings).await
}

/// The order in which one session loads them: first an extension's own tables; tables that look at others after
/// these, and last of all those that would silently compute other values.
pub(super) fn in_turn(mut copies: Vec<BlockCopy>, backup: Backup<'_>) -> Vec<BlockCopy> {
    let order = &backup.plan.order;
    copies.sort_by_key(|copy| {
        let id = backup.stored.head.data[copy.index].dump_id;
        let first = !order.of_extensions.contains(&id);
        (
            order.computed.contains(&id),
            order.late.contains(&id),
            first,
            copy.index,
        )
    });
    copies
}

/// The copies of the tables that are loaded, in the archive's order.
pub(super) fn copies(backup: Backup<'_>) -> Result<Vec<BlockCopy>> {
    let stored = backup.stored;
    let statements = stored.head.copy_statements()?;
    let mut blocks: Vec<usize> = backup.plan.blocks().collect();
    blocks.retain(|index| matches!(stored.promises[*index].content, BlockContent::Table { .. }));
    blocks.sort_unstable();
    let copy = |index: usize| {
        // The statement is written anew from its parts: nothing else that the archive contains there is run.
        let loading = Loading::parse(&statements[index]).ok_or_else(|| {
            Error::new(
                Code::Integrity,
                format!(
                    "{}: its COPY statement is not one that pg_dump writes",
                    stored.name(index)
                ),
            )
        })?;
        let only: &[u8] = if loading.is_through_another(&stored.head.data[index]) {
            b""
        } else {
            b"ONLY "
        };
        Ok(BlockCopy {
            index,
            statement: loading.statement(),
            place: [only, loading.table].concat(),
            columns: loading.columns.to_vec(),
            names: loading.column_names(),
        })
    };
    blocks.into_iter().map(copy).collect()
}

/// Digests rows as they come from the server.
struct Summed {
    sum: RowSum,
    sha256: Sha256,
    bytes: u64,
    rows: u64,
    /// Runs while the server is asked for more rows.
    clock: StallClock,
}

impl Rows for Summed {
    fn text(&mut self, bytes: &[u8]) {
        self.sum.update(bytes);
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
    }
    fn end(&mut self, rows: u64) {
        self.rows += rows;
    }
    async fn turn(&mut self) -> Result<()> {
        self.clock.begin();
        Ok(())
    }
}

/// Counts rows.
struct Counted {
    rows: u64,
    clock: StallClock,
}

impl Rows for Counted {
    fn text(&mut self, _: &[u8]) {}
    fn end(&mut self, rows: u64) {
        self.rows += rows;
    }
    async fn turn(&mut self) -> Result<()> {
        self.clock.begin();
        Ok(())
    }
}

/// The plain tables that a place stands for, quoted. `None` if this role may read only the place itself. That needs a
/// COPY of a query, which the server plans: a planner evaluates code of the table's owner in index expressions. So it
/// is used only then.
async fn plain_tables(wire: &mut Wire, place: &[u8]) -> std::result::Result<Option<Vec<Vec<u8>>>, Refusal> {
    if let Some(table) = place.strip_prefix(b"ONLY ") {
        return Ok(Some(vec![table.to_vec()]));
    }
    let question = [
        b"SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), t.isleaf, \
          pg_catalog.has_table_privilege(t.relid, 'SELECT') FROM pg_catalog.pg_partition_tree(",
        &*regclass(place),
        b") t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.relid \
          JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace ORDER BY 1",
    ]
    .concat();
    let tree = wire.query(&question).await?;
    if tree.is_empty() {
        return Ok(Some(vec![place.to_vec()]));
    }
    let leaves = tree.iter().filter(|row| row.text(1) == Some("t"));
    let readable = leaves.clone().all(|row| row.text(2) == Some("t"));
    let names = leaves.filter_map(|row| row.bytes(0)).map(<[u8]>::to_vec);
    Ok(readable.then(|| names.collect()))
}

/// A table by its quoted name. It does not depend on how the server reads a backslash, which is a setting of the
/// database.
pub(super) fn regclass(table: &[u8]) -> Vec<u8> {
    let escaped = table.iter().flat_map(|byte| match byte {
        b'\'' | b'\\' => vec![*byte; 2],
        byte => vec![*byte],
    });
    [b"E'", &*escaped.collect::<Vec<u8>>(), b"'::pg_catalog.regclass"].concat()
}

/// What the table holds now, in the columns that the backup has. If the server sends no byte for `stall`, reading
/// fails.
pub(super) async fn read_again(
    wire: &mut Wire,
    copy: &BlockCopy,
    stall: Duration,
) -> std::result::Result<RowDigests, Refusal> {
    let clock = StallClock::default();
    let mut rows = Summed {
        sum: RowSum::of(&copy.names),
        sha256: Sha256::new(),
        bytes: 0,
        rows: 0,
        clock: clock.clone(),
    };
    copy_out(wire, &copy.place, &copy.columns, (&clock, stall), &mut rows).await?;
    Ok(RowDigests {
        digest: BlockDigest {
            content: BlockContent::Table { rows: rows.rows },
            bytes: rows.bytes,
            sha256: rows.sha256.finalize().into(),
        },
        sum: rows.sum.finish(),
    })
}

/// Sets the output formats that pg_dump used for the backup's rows, and resets them to those of the database.
const PRINTING: [&str; 2] = [
    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 3; \
     SET bytea_output = 'hex'",
    "RESET TimeZone; RESET DateStyle; RESET IntervalStyle; RESET extra_float_digits; RESET bytea_output",
];

/// The same in a session that loads rows, with the settings restored afterwards. After a refusal they are not
/// restored here: ending the transaction or the savepoint does it.
pub(super) async fn read_between(
    wire: &mut Wire,
    copy: &BlockCopy,
    stall: Duration,
) -> std::result::Result<RowDigests, Refusal> {
    let [printed, own] = PRINTING;
    wire.execute(printed.as_bytes()).await?;
    let seen = read_again(wire, copy, stall).await?;
    wire.execute(own.as_bytes()).await?;
    Ok(seen)
}

/// The number of rows, read by their first column.
pub(super) async fn count(wire: &mut Wire, copy: &BlockCopy, stall: Duration) -> std::result::Result<u64, Refusal> {
    let clock = StallClock::default();
    let mut rows = Counted {
        rows: 0,
        clock: clock.clone(),
    };
    let column = copy.names.first().map_or_else(Vec::new, |name| {
        let doubled = name.iter().flat_map(|byte| match byte {
            b'"' => vec![b'"'; 2],
            byte => vec![*byte],
        });
        [b"\"", &*doubled.collect::<Vec<u8>>(), b"\""].concat()
    });
    copy_out(wire, &copy.place, &column, (&clock, stall), &mut rows).await?;
    Ok(rows.rows)
}

async fn copy_out(
    wire: &mut Wire,
    place: &[u8],
    columns: &[u8],
    (clock, stall): (&StallClock, Duration),
    rows: &mut impl Rows,
) -> std::result::Result<(), Refusal> {
    let mut statements = Vec::new();
    match plain_tables(wire, place).await? {
        Some(tables) => {
            let columns = match columns {
                [] => Vec::new(),
                columns => [b" (", columns, b")"].concat(),
            };
            statements.extend(
                tables
                    .iter()
                    .map(|table| [b"COPY ", &**table, &columns, b" TO STDOUT"].concat()),
            );
        }
        None => statements.push([b"COPY (SELECT ", columns, b" FROM ", place, b") TO STDOUT"].concat()),
    }
    for statement in statements {
        clock.begin();
        tokio::select! {
            biased;
            copied = wire.copy(&statement, rows) => copied?,
            () = clock.watch(stall) => {
                let what = format!("the server has given no byte of the rows for {} s", stall.as_secs());
                return Err(Error::new(Code::Stalled, what).into());
            }
        }
    }
    Ok(())
}

/// Reads a block into a sink, in a thread of its own, and compares it with the manifest; `finish` returns the result.
pub(super) async fn read_into<S, T>(
    job: &Job<'_>,
    backup: Backup<'_>,
    index: usize,
    sink: S,
    finish: fn(&mut S) -> std::result::Result<T, ArchiveError>,
) -> Result<std::result::Result<T, ArchiveError>>
where
    S: BlockSink + Send + 'static,
    T: Send + 'static,
{
    let stored = Arc::clone(backup.stored);
    let observer = Arc::clone(job.observer);
    let store = Arc::clone(backup.store);
    let read = apart("read", move || {
        let mut sink = sink;
        stored.read_block(&store, index, &mut sink, &|count| observer.bytes_read(count))?;
        finish(&mut sink)
    });
    read.await
}

async fn read(job: &Job<'_>, backup: Backup<'_>, copy: &BlockCopy, pieces: Option<Sender<Piece>>) -> Read {
    let sink = Passing {
        pieces,
        batch: Vec::with_capacity(PIECE),
        sum: Some(RowSum::of(&copy.names)),
    };
    read_into(job, backup, copy.index, sink, Passing::finish).await
}

type Read = Result<std::result::Result<Sum, ArchiveError>>;

/// The sum of the backup's own rows.
pub(super) async fn sum(job: &Job<'_>, backup: Backup<'_>, copy: &BlockCopy) -> Result<Sum> {
    let sum = read(job, backup, copy, None).await?;
    sum.map_err(|error| unread(backup.stored, copy.index, error))
}

/// Loads one block with one COPY. When the COPY is complete, its digest was found right.
pub(super) async fn load(
    job: &Job<'_>,
    backup: Backup<'_>,
    wire: &mut Wire,
    copy: &BlockCopy,
) -> std::result::Result<Sum, Unloaded> {
    let name = backup.stored.name(copy.index);
    job.observer.table(&name);
    let (pieces, mut received) = mpsc::channel(AHEAD);
    let clock = StallClock::default();
    // A lock that the server waits for has a limit of its own, with a better error.
    let settings = &job.settings.postgres;
    let limit = settings.stall.max(settings.lock_wait.saturating_add(LOCK_ERROR));
    let copying = async move {
        let copied = tokio::select! {
            biased;
            copied = wire.copy_in(&copy.statement, &mut received, &clock) => copied,
            () = clock.watch(limit) => {
                let what = format!("the server has taken no byte of the rows for {} s", limit.as_secs());
                Err(Error::new(Code::Stalled, what).into())
            }
        };
        // Dropped, so that the reader stops.
        drop(received);
        copied
    };
    let (fed, copied) = tokio::join!(read(job, backup, copy, Some(pieces)), copying);
    let what = format!("cannot load {name}");
    match (fed?, copied) {
        (Ok(sum), Ok(rows)) if backup.stored.rows(copy.index) == Some(rows) => Ok(sum),
        (Ok(_), Ok(rows)) => Err(Error::new(
            Code::RestoreErr,
            format!("the server loaded {rows} rows of {name}, but the backup has another number"),
        )
        .into()),
        (_, Err(refusal @ Refusal::Server { .. })) if !received_less(&refusal) => {
            Err(Unloaded::refused(&what, refusal))
        }
        // The reader ended because the copying did.
        (Err(ArchiveError::Stopped), Err(refusal)) => Err(Unloaded::refused(&what, refusal)),
        (Err(error), _) => {
            let told = unread(backup.stored, copy.index, error);
            // Read it again without loading it.
            let is_stored_so = told.code() != Code::Integrity || read(job, backup, copy, None).await?.is_err();
            Err(if is_stored_so { told } else { changed_on_the_way(&told) }.into())
        }
        (Ok(_), Err(refusal)) => Err(Unloaded::refused(&what, refusal)),
    }
}

/// Whether the server says that we ended the COPY: then the reason is our own error.
fn received_less(refusal: &Refusal) -> bool {
    refusal.is(&SqlState::QUERY_CANCELED)
}

/// A bit that changed on the way says nothing about the stored bytes, which were right when they were read again.
pub(super) fn changed_on_the_way(told: &Error) -> Error {
    let what = format!("{}; it was right when it was read again", told.message());
    Error::new(Code::Store, what).hint(crate::outside::aws::BYTES_CHANGE)
}

pub(super) fn unread(stored: &StoredArchive, index: usize, error: ArchiveError) -> Error {
    match error {
        ArchiveError::Io(error) => match our_error(error) {
            Ok(ours) => ours,
            Err(error) => Error::new(Code::Store, format!("cannot read {}", stored.key)).source(error),
        },
        other => Error::new(
            Code::Integrity,
            format!("{}: {}: {other}", stored.key, stored.name(index)),
        ),
    }
}

/// A block's content on its way to the server, or only to be checked.
struct Passing {
    pieces: Option<Sender<Piece>>,
    batch: Vec<u8>,
    /// `None` after its end.
    sum: Option<RowSum>,
}

impl Passing {
    fn send(&mut self) -> Result<(), ArchiveError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(PIECE));
        if let Some(sum) = &mut self.sum {
            sum.update(&batch);
        }
        self.hand_on(Piece::Rows(Bytes::from(batch)))
    }

    fn hand_on(&self, piece: Piece) -> Result<(), ArchiveError> {
        let Some(pieces) = &self.pieces else { return Ok(()) };
        pieces.blocking_send(piece).map_err(|_| ArchiveError::Stopped)
    }

    /// Called after everything has come and matches the manifest.
    fn finish(&mut self) -> Result<Sum, ArchiveError> {
        self.send()?;
        self.hand_on(Piece::End)?;
        Ok(self.sum.take().map(RowSum::finish).unwrap_or_default())
    }
}

impl BlockSink for Passing {
    fn begin(&mut self, _index: usize) -> Result<(), ArchiveError> {
        Ok(())
    }
    fn begin_object(&mut self, _oid: i64) -> Result<(), ArchiveError> {
        Err(ArchiveError::Content(
            "it contains large objects instead of rows".into(),
        ))
    }
    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.batch.extend_from_slice(bytes);
        if self.batch.len() >= PIECE {
            self.send()?;
        }
        Ok(())
    }
    fn end_object(&mut self) -> Result<(), ArchiveError> {
        Ok(())
    }
    fn end(&mut self, _at: u64) -> Result<(), ArchiveError> {
        Ok(())
    }
}
