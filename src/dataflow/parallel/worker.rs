//! A reading session: it takes the next task, and reads its rows.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_postgres::error::SqlState;

use super::portion::{Portion, PortionEvent};
use super::{Queue, Shared};
use crate::dataflow::compress::PIECE;
use crate::error::{Error, Result};
use crate::postgres::{READ, Rows, Wire};

/// How long a worker waits for a table's lock. The holder has it already in the same mode, so a wait shows that
/// another session waits for the holder's lock.
pub const LOCK_WAIT_MS: u32 = 200;

/// A task; tasks are written in the order in which they are taken.
pub struct Turn {
    pub task: usize,
    pub reads: Range<usize>,
    pub events: mpsc::UnboundedSender<PortionEvent>,
}

/// Reads until no task is left. The session's transaction only reads, so it may end with the connection.
pub async fn work(mut wire: Wire, shared: &Arc<Shared>, queue: &Queue) -> Result<()> {
    while let Some(turn) = queue.take_turn(&shared.plan).await {
        copy(&mut wire, shared, &turn).await?;
    }
    Ok(())
}

async fn copy(wire: &mut Wire, shared: &Shared, turn: &Turn) -> Result<()> {
    let mut filling = Filling {
        shared,
        turn,
        portion: Portion::default(),
        ended: 0,
        since_end: 0,
        since_turn: 0,
    };
    filling.make_room().await?;
    while filling.ended < turn.reads.len() {
        let rest = turn.reads.start + filling.ended..turn.reads.end;
        match wire.copy(&statements(shared, rest), &mut filling).await {
            Ok(()) if filling.ended == turn.reads.len() => {}
            Ok(()) => return Err(Error::internal("the server gave fewer tables than it was asked for")),
            Err(refusal) if refusal.is(&SqlState::LOCK_NOT_AVAILABLE) && filling.since_end == 0 => {
                filling.leave_to_the_holder().await?;
                wire.execute(b"ROLLBACK TO SAVEPOINT task; RELEASE SAVEPOINT task")
                    .await
                    .map_err(|refusal| refusal.of_reading("cannot continue after a lock was not available"))?;
            }
            Err(refusal) => {
                let read = turn.reads.start + filling.ended;
                return Err(refusal.of_reading(&format!("cannot read {}", shared.name(read))));
            }
        }
    }
    filling.flush();
    Ok(())
}

/// Sends everything in one message: a round trip per table would cost more than an empty table. The session returns
/// to the savepoint after each table, so it keeps no lock, and the first lock that it cannot get does no harm.
fn statements(shared: &Shared, reads: Range<usize>) -> Vec<u8> {
    let mut text = b"SAVEPOINT task; ".to_vec();
    for read in reads {
        shared.plan.statement(read, &mut text);
        text.extend_from_slice(b"; ROLLBACK TO SAVEPOINT task; ");
    }
    text.extend_from_slice(b"RELEASE SAVEPOINT task");
    text
}

struct Filling<'a> {
    shared: &'a Shared,
    turn: &'a Turn,
    portion: Portion,
    /// The reads of this turn that are finished.
    ended: usize,
    /// The bytes of the read that is not finished.
    since_end: usize,
    /// Bytes since the last turn.
    since_turn: usize,
}

impl Filling<'_> {
    async fn make_room(&mut self) -> Result<()> {
        let room = self.shared.ahead.room(self.turn.task).await;
        self.portion.room = Some(room.ok_or_else(|| Error::internal("reading ahead has ended"))?);
        Ok(())
    }

    fn flush(&mut self) {
        let mut portion = std::mem::take(&mut self.portion);
        if portion.text.is_empty() && portion.ends.is_empty() {
            return;
        }
        portion.text.shrink_to_fit();
        if let Some(room) = &mut portion.room {
            room.trim(portion.text.len());
        }
        // If the backup has failed elsewhere, the writer has ended.
        let _ = self.turn.events.send(PortionEvent::Portion(portion));
    }

    async fn leave_to_the_holder(&mut self) -> Result<()> {
        self.flush();
        let _ = self.turn.events.send(PortionEvent::Locked);
        self.ended += 1;
        self.make_room().await
    }
}

impl Rows for Filling<'_> {
    fn text(&mut self, bytes: &[u8]) {
        self.portion.text.extend_from_slice(bytes);
        self.since_end += bytes.len();
        self.since_turn += bytes.len();
    }

    fn end(&mut self, rows: u64) {
        self.portion.end(rows);
        self.ended += 1;
        self.since_end = 0;
    }

    async fn turn(&mut self) -> Result<()> {
        self.shared.turn(std::mem::take(&mut self.since_turn)).await;
        if self.portion.text.len() > PIECE - READ {
            self.flush();
            self.make_room().await?;
            // If a read filled one portion, it will probably fill the next.
            self.portion.text = Vec::with_capacity(PIECE);
        }
        Ok(())
    }
}
