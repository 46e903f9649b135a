//! Letting schedules rest, and go on.

use super::Control;
use super::journal::Entry;
use super::live::Happening;
use super::pauses::Pause;
use super::scheduler::Kind;
use crate::error::Result;

impl Control {
    /// The schedules that rest now.
    pub fn pauses(&self) -> Vec<Pause> {
        let now = (self.clock)();
        self.state().pauses.at(now)
    }

    /// Lets a schedule rest.
    ///
    /// # Errors
    /// If the journal cannot be written: after a restart the schedule would go on.
    pub async fn pause(&self, pause: Pause) -> Result<()> {
        self.write(Entry::Paused(pause.clone())).await?;
        self.state().pauses.add(pause);
        self.live.tell((self.clock)(), Happening::StatusChanged);
        Ok(())
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub async fn resume(&self, schedule: Kind, by: &str) -> Result<()> {
        let by = by.to_owned();
        self.write(Entry::Resumed { schedule, by }).await?;
        self.state().pauses.end(schedule);
        self.live.tell((self.clock)(), Happening::StatusChanged);
        Ok(())
    }
}
