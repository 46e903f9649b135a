//! Reads large tables before the backup, to know which are the same as in an earlier archive: their text cannot be kept
//! in memory until that is known. A table that is the same is read once, and not stored; one that is not is read twice.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;

use super::Streams;
use super::plan::ReadPlan;
use crate::dataflow::pipeline::{EarlierBlock, EarlierBlocks};
use crate::dataflow::throttle::Throttle;
use crate::error::{Error, Result};
use crate::format::archive::{BlockKind, ContentDigest, END_OF_COPY};
use crate::postgres::{Rows, StallClock, Wire};
use crate::run::progress::Observer;

/// A table to compare.
struct Comparison {
    block: usize,
    oid: u32,
    name: String,
    /// Its COPYs, in order.
    statements: Vec<Vec<u8>>,
    earlier: EarlierBlock,
}

/// What all sessions need.
#[derive(Clone)]
struct Pace {
    clock: StallClock,
    throttle: Throttle,
    observer: Arc<dyn Observer>,
}

impl Streams {
    /// Reads the tables that are too long to be held, and leaves those out of the plan that are the same as the
    /// earlier block: `earlier` knows them then. It reads the snapshot that the backup reads, under the same locks. If
    /// it is dropped early, the streams cannot be used any more.
    pub async fn compare(
        &mut self,
        earlier: &mut EarlierBlocks,
        clock: &StallClock,
        throttle: &Throttle,
        observer: &Arc<dyn Observer>,
    ) -> Result<()> {
        let waiting = Arc::new(Mutex::new(self.comparisons(earlier)));
        let pace = Pace {
            clock: clock.clone(),
            throttle: throttle.clone(),
            observer: Arc::clone(observer),
        };
        let mut sessions = JoinSet::new();
        for wire in std::mem::take(&mut self.workers) {
            sessions.spawn(session(wire, Arc::clone(&waiting), pace.clone()));
        }
        clock.begin();
        let mut same = HashSet::new();
        while let Some(ended) = sessions.join_next().await {
            let ended = ended.map_err(|error| Error::internal("a session that compares died").source(error));
            let (wire, found) = ended.flatten()?;
            self.workers.push(wire);
            for (block, oid) in found {
                earlier.prove(oid);
                same.insert(block);
            }
        }
        clock.end();
        self.plan.leave_out(&same);
        Ok(())
    }

    fn comparisons(&self, earlier: &EarlierBlocks) -> VecDeque<Comparison> {
        let long = |(block, entry)| {
            let found = earlier.of(entry).filter(|earlier| !earlier.is_held())?;
            Some(Comparison {
                block,
                oid: entry.oid,
                name: entry.to_string(),
                statements: self.plan.statements_of(block),
                earlier: found.clone(),
            })
        };
        self.head.data.iter().enumerate().filter_map(long).collect()
    }
}

/// Compares tables until none is left. Returns those that are the same: block and OID.
async fn session(
    mut wire: Wire,
    waiting: Arc<Mutex<VecDeque<Comparison>>>,
    pace: Pace,
) -> Result<(Wire, Vec<(usize, u32)>)> {
    let mut same = Vec::new();
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    while let Some(comparison) = next() {
        pace.observer.table(&comparison.name);
        if is_same(&mut wire, &comparison, &pace).await? {
            same.push((comparison.block, comparison.oid));
        }
    }
    Ok((wire, same))
}

async fn is_same(wire: &mut Wire, comparison: &Comparison, pace: &Pace) -> Result<bool> {
    let most = comparison.earlier.digest.bytes;
    let mut reading = Digesting {
        digest: ContentDigest::of(BlockKind::Table),
        bytes: 0,
        since_turn: 0,
        pace,
    };
    for statement in &comparison.statements {
        let text = [
            b"SAVEPOINT task; ",
            &statement[..],
            b"; ROLLBACK TO SAVEPOINT task; RELEASE SAVEPOINT task",
        ];
        match wire.copy(&text.concat(), &mut reading).await {
            Ok(()) => {}
            // Another session waits for the table: its rows are read once, by the session that holds the lock.
            Err(refusal) if refusal.is(&SqlState::LOCK_NOT_AVAILABLE) => {
                wire.execute(b"ROLLBACK TO SAVEPOINT task; RELEASE SAVEPOINT task")
                    .await
                    .map_err(|refusal| refusal.of_reading("cannot continue after a lock was not available"))?;
                return Ok(false);
            }
            Err(refusal) => return Err(refusal.of_reading(&format!("cannot read {}", comparison.name))),
        }
        if reading.bytes > most {
            return Ok(false);
        }
    }
    reading.digest.update(END_OF_COPY);
    let digest = reading.digest.finish();
    Ok(digest.is_some_and(|digest| comparison.earlier.is(&digest)))
}

struct Digesting<'a> {
    digest: ContentDigest,
    bytes: u64,
    since_turn: usize,
    pace: &'a Pace,
}

impl Rows for Digesting<'_> {
    fn text(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.since_turn += bytes.len();
    }

    fn end(&mut self, _rows: u64) {}

    async fn turn(&mut self) -> Result<()> {
        let Pace {
            clock,
            throttle,
            observer,
        } = self.pace;
        let bytes = std::mem::take(&mut self.since_turn);
        observer.bytes_read(bytes as u64);
        throttle.took(bytes);
        clock.touch();
        while let Some(wait) = throttle.wait() {
            tokio::time::sleep(wait).await;
            // A pause is no stall.
            clock.touch();
        }
        Ok(())
    }
}

impl ReadPlan {
    /// The COPYs of a block, in order.
    fn statements_of(&self, block: usize) -> Vec<Vec<u8>> {
        let reads = self.reads.iter().enumerate().filter(|(_, read)| read.block == block);
        let statement = |(read, _)| {
            let mut text = Vec::new();
            self.statement(read, &mut text);
            text
        };
        reads.map(statement).collect()
    }
}
