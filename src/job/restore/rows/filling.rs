//! The backup's rows on their way into a table: read, checked, and sent with one COPY.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{self, Sender};
use tokio_postgres::error::SqlState;

use super::session::refused;
use super::{BackupRows, BlockCopy, changed_on_the_way, read_into, unread};
use crate::error::{Code, Error, Result};
use crate::format::archive::{ArchiveError, BlockSink};
use crate::format::script::{RowSum, Sum};
use crate::job::restore::Job;
use crate::postgres::{Piece, Refusal, StallClock, Wire};

/// Rows are sent to the server in pieces of about this size.
const PIECE: usize = 128 << 10;
/// How many pieces may wait for the server.
const AHEAD: usize = 8;
/// How long a server may take to say that it has no lock, after the wait for it has ended.
const LOCK_ERROR: Duration = Duration::from_secs(10);

/// Why rows could not be loaded.
pub(in crate::job::restore) struct Unloaded {
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

async fn read(job: &Job<'_>, backup: BackupRows<'_>, copy: &BlockCopy, pieces: Option<Sender<Piece>>) -> Read {
    let sink = Passing {
        pieces,
        batch: Vec::with_capacity(PIECE),
        sum: Some(RowSum::of(&copy.names)),
    };
    read_into(job, backup, copy.index, sink, Passing::finish).await
}

type Read = Result<std::result::Result<Sum, ArchiveError>>;

/// The sum of the backup's own rows.
pub(in crate::job::restore) async fn sum(job: &Job<'_>, backup: BackupRows<'_>, copy: &BlockCopy) -> Result<Sum> {
    let sum = read(job, backup, copy, None).await?;
    sum.map_err(|error| unread(backup.stored, copy.index, error))
}

/// Loads one block with one COPY. When the COPY is complete, its digest was found right.
pub(in crate::job::restore) async fn load(
    job: &Job<'_>,
    backup: BackupRows<'_>,
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
