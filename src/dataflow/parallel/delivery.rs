//! The writer: takes the tasks in their order, whichever worker has read them, and writes their rows as the blocks
//! that pg_dump would have written.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::holder::Request;
use super::large_objects::{self, Running};
use super::plan::TableRead;
use super::portion::{Portion, PortionEvent};
use super::statement::Statement;
use super::{Dumping, Shared};
use crate::dataflow::pipeline::{BlockSource, Delivered, Undelivered};
use crate::dataflow::read_by::ReadBy;
use crate::error::{Error, Result};
use crate::format::archive::{BlockSink, END_OF_COPY, Head};
use crate::run::progress::Observer;

/// How many portions of the holder may wait: enough for a hand-off, not a buffer.
const HANDED: usize = 2;

pub struct Delivery {
    pub(super) shared: Arc<Shared>,
    pub(super) turns: mpsc::Receiver<mpsc::UnboundedReceiver<PortionEvent>>,
    pub(super) holder: mpsc::Sender<Request>,
    pub(super) dumping: Dumping,
    pub(super) running: Running,
    pub(super) runtime: Handle,
}

impl BlockSource for Delivery {
    fn deliver(
        &mut self,
        head: &Head,
        observer: &dyn Observer,
        sink: &mut dyn BlockSink,
    ) -> Result<Delivered, Undelivered> {
        let _entered = self.runtime.clone().enter();
        let mut writing = Writing {
            sink,
            observer,
            delivered: Delivered {
                bytes: head.len() as u64,
                rows: vec![None; head.data.len()],
                read_by: self.shared.plan.statements.iter().map(read_by).collect(),
            },
            open: None,
        };
        let shared = Arc::clone(&self.shared);
        for (task, reads) in shared.plan.tasks.iter().enumerate() {
            shared.ahead.turn(task);
            let mut events = self.waiting(|this| this.turns.blocking_recv()).ok_or(gone())?;
            let mut next = reads.start;
            while next < reads.end {
                match self.waiting(|_| events.blocking_recv()).ok_or(gone())? {
                    PortionEvent::Portion(portion) => writing.portion(&shared, &mut next, portion)?,
                    PortionEvent::Locked => {
                        writing.begin(&shared, next)?;
                        writing.read_by(shared.plan.reads[next].block, ReadBy::Coordinator);
                        self.by_the_holder(&mut writing, &mut next)?;
                    }
                }
            }
        }
        if large_objects::blocks(head).next().is_some() {
            // pg_dump's order: all large objects follow the tables.
            large_objects::deliver(&self.dumping.order(), head, &shared.clock, &self.running, writing.sink)?;
        }
        self.let_go()?;
        Ok(writing.delivered)
    }
}

/// pg_dump itself reads what no COPY reads: the large objects.
fn read_by(statement: &Option<Statement>) -> ReadBy {
    match statement {
        Some(_) => ReadBy::Copy,
        None => ReadBy::PgDump,
    }
}

impl Delivery {
    /// Counts the wait for the server, for the stall clock.
    fn waiting<T>(&mut self, wait: impl FnOnce(&mut Self) -> T) -> T {
        let clock = self.shared.clock.clone();
        clock.begin();
        let got = wait(self);
        clock.end();
        got
    }

    fn by_the_holder(&mut self, writing: &mut Writing<'_>, next: &mut usize) -> Result<(), Undelivered> {
        let (sender, mut events) = mpsc::channel(HANDED);
        let read = *next;
        let request = Request::Read { read, events: sender };
        self.holder.blocking_send(request).map_err(|_| gone())?;
        let shared = Arc::clone(&self.shared);
        while *next == read {
            match self.waiting(|_| events.blocking_recv()) {
                Some(PortionEvent::Portion(portion)) => writing.portion(&shared, next, portion)?,
                _ => return Err(gone().into()),
            }
        }
        Ok(())
    }

    /// Proves that the tables were locked until the last row was read: the holder's session still exists.
    fn let_go(&mut self) -> Result<(), Undelivered> {
        let (done, mut answer) = mpsc::channel(1);
        self.holder.blocking_send(Request::LetGo { done }).map_err(|_| gone())?;
        self.waiting(|_| answer.blocking_recv()).ok_or(gone())?;
        Ok(())
    }
}

/// A session has failed, and so the backup has; the session's error is in [`Shared::failure`].
fn gone() -> Error {
    Error::internal("a session that reads the tables has ended")
}

struct Writing<'a> {
    sink: &'a mut dyn BlockSink,
    observer: &'a dyn Observer,
    delivered: Delivered,
    /// The block that has begun but not ended.
    open: Option<usize>,
}

impl Writing<'_> {
    /// The rows of the read `next` and of the following reads, up to the end of the portion.
    fn portion(&mut self, shared: &Shared, next: &mut usize, portion: Portion) -> Result<(), Undelivered> {
        let Portion {
            text,
            ends,
            room: _room,
        } = portion;
        self.delivered.bytes += text.len() as u64;
        self.observer.bytes_read(text.len() as u64);
        if ends.is_empty() {
            self.begin(shared, *next)?;
            return Ok(self.sink.owned(text)?);
        }
        let mut from = 0;
        for end in &ends {
            self.begin(shared, *next)?;
            self.text(&text[from..end.at])?;
            self.end(shared, *next, end.rows)?;
            *next += 1;
            from = end.at;
        }
        if from < text.len() {
            self.begin(shared, *next)?;
            self.text(&text[from..])?;
        }
        Ok(())
    }

    fn begin(&mut self, shared: &Shared, read: usize) -> Result<(), Undelivered> {
        let Some(&TableRead { block, stretch }) = shared.plan.reads.get(read) else {
            return Err(Error::internal("the server gave more tables than it was asked for").into());
        };
        if self.open != Some(block) {
            self.open = Some(block);
            self.delivered.rows[block] = Some(0);
            self.read_by(
                block,
                if stretch.is_some() {
                    ReadBy::Ranges
                } else {
                    ReadBy::Copy
                },
            );
            self.sink.begin(block)?;
        }
        Ok(())
    }

    fn text(&mut self, text: &[u8]) -> Result<(), Undelivered> {
        if text.is_empty() {
            Ok(())
        } else {
            Ok(self.sink.data(text)?)
        }
    }

    fn end(&mut self, shared: &Shared, read: usize, rows: u64) -> Result<(), Undelivered> {
        let reads = &shared.plan.reads;
        let block = reads[read].block;
        if let Some(sum) = &mut self.delivered.rows[block] {
            *sum += rows;
        }
        if reads.get(read + 1).is_none_or(|next| next.block != block) {
            self.open = None;
            self.sink.data(END_OF_COPY)?;
            self.sink.end(self.delivered.bytes)?;
        }
        Ok(())
    }

    /// If the coordinator read a part of a table, the report says so for the whole table.
    fn read_by(&mut self, block: usize, read_by: ReadBy) {
        let known = &mut self.delivered.read_by[block];
        if *known != ReadBy::Coordinator {
            *known = read_by;
        }
    }
}
