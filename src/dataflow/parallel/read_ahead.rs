//! How far the workers may read ahead of the writing: a limit in bytes for all of them together, and one lane that is
//! always open for the task whose turn it is, since all others wait for that task.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::dataflow::compress::PIECE;

const KIB: usize = 1 << 10;
const PORTION: u32 = (PIECE / KIB) as u32;
/// How many portions the task whose turn it is may have in the lane.
const LANE: usize = 2;

pub struct ReadAhead {
    shared: Arc<Semaphore>,
    lane: Arc<Semaphore>,
    turn: watch::Sender<usize>,
}

/// Room for one portion, kept until the portion has been passed on.
#[derive(Debug)]
pub struct Room {
    permit: OwnedSemaphorePermit,
}

impl Room {
    /// The portion will not grow any more: releases the rest of the room. The lane has one permit for a portion, so
    /// it has no rest.
    pub fn trim(&mut self, bytes: usize) {
        let needed = bytes.div_ceil(KIB).max(1);
        let spare = self.permit.num_permits().saturating_sub(needed);
        drop(self.permit.split(spare));
    }
}

impl ReadAhead {
    /// The memory in the worst case: `bytes`, the lane's portions included; at least one more portion than the lane.
    pub fn new(bytes: u64) -> Self {
        let shared = bytes.saturating_sub((LANE * PIECE) as u64).max(PIECE as u64);
        let permits = usize::try_from(shared / KIB as u64).unwrap_or(usize::MAX);
        Self {
            shared: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            lane: Arc::new(Semaphore::new(LANE)),
            turn: watch::Sender::new(0),
        }
    }

    /// This task's turn to be written has come.
    pub fn turn(&self, task: usize) {
        self.turn.send_replace(task);
    }

    /// Waits for the room for a portion of this task.
    pub async fn room(&self, task: usize) -> Option<Room> {
        let shared = Arc::clone(&self.shared).acquire_many_owned(PORTION);
        let lane = async {
            self.turn.subscribe().wait_for(|turn| *turn >= task).await.ok()?;
            Arc::clone(&self.lane).acquire_owned().await.ok()
        };
        tokio::select! {
            biased;
            room = shared => room.ok().map(|permit| Room { permit }),
            room = lane => room.map(|permit| Room { permit }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn waits(room: impl Future<Output = Option<Room>>) -> bool {
        tokio::time::timeout(Duration::from_millis(30), room).await.is_err()
    }

    #[tokio::test]
    async fn whose_turn_it_is_finds_room_when_nobody_else_does() {
        let ahead = ReadAhead::new((LANE + 2) as u64 * PIECE as u64);
        let mut first = ahead.room(5).await.unwrap();
        let second = ahead.room(6).await.unwrap();
        assert!(waits(ahead.room(1)).await, "full");
        ahead.turn(1);
        let lane = ahead.room(1).await.unwrap();
        let _other = ahead.room(1).await.unwrap();
        assert!(waits(ahead.room(1)).await, "the lane is full too");
        drop(lane);
        ahead.room(1).await.unwrap();
        assert!(waits(ahead.room(2)).await);
        // A short portion leaves room, but not for a whole portion until the next one ends.
        first.trim(10);
        assert!(waits(ahead.room(2)).await);
        drop(second);
        ahead.room(2).await.unwrap();
    }
}
