//! The recovery windows of a database: from which moment to which one every moment can be restored exactly.

mod needed;

use serde::{Deserialize, Serialize};

pub use needed::{Need, needed};

use super::chain::{History, Moment, Run};

/// The moments of one run. Every one from the earliest to the latest can be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub earliest: Moment,
    pub latest: Moment,
}

impl Window {
    /// The window of a run. `None`: it has no base that it reaches.
    pub fn of(run: &Run) -> Option<Self> {
        let latest = run.end();
        let ends = run.bases().iter().map(|base| base.end);
        // A run with bases of which one has the first position and another the first time keeps to what both allow.
        let lsn = ends.clone().map(|end| end.lsn).min()?;
        let time = ends.map(|end| end.time).min()?;
        let earliest = Moment { lsn, time };
        (earliest.lsn <= latest.lsn && earliest.time <= latest.time).then_some(Self { earliest, latest })
    }
}

/// The windows of all runs, in the order of their last moments. Between two of them lies a gap.
pub fn windows(history: &History) -> Vec<Window> {
    history.runs().iter().filter_map(Window::of).collect()
}

/// The window of the newest run: the one that the next increment makes longer.
pub fn current(history: &History) -> Option<Window> {
    Window::of(history.newest()?)
}

#[cfg(test)]
mod tests;
