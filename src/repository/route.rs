//! The way to a moment: the full backup that a restore begins with, the increments that follow it, and where it stops.
//! A pure choice from a database's history.

mod refusal;

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;

use super::backup_id::BackupId;
use super::chain::{Base, History, Moment, Run};
use super::window::Window;
use crate::format::Lsn;

pub use refusal::{Nearest, NotCovered, Why};

/// The moment that a restore is to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryTarget {
    /// The end of the newest increment.
    Latest,
    /// Before the first commit that is later than this on the source's clock.
    Time(Timestamp),
    /// After all commits up to this position.
    Lsn(Lsn),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    pub base: BackupId,
    /// The first moment that the base allows: a stop is never before it.
    pub base_end: Moment,
    /// In the order of the stream, without a hole. The first ones may hold changes that the base has already.
    pub increments: Vec<BackupId>,
    pub stop: StopPoint,
    /// The sizes of all these backups together.
    pub bytes: u64,
}

/// Where the changes stop being applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopPoint {
    /// After the last commit at or before this position.
    Lsn(Lsn),
    /// Before the first commit later than this; if there is none, after the last increment.
    Time(Timestamp),
}

impl fmt::Display for RecoveryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoveryTarget::Latest => f.write_str("the end of the newest increment"),
            RecoveryTarget::Time(time) => write!(f, "{time}"),
            RecoveryTarget::Lsn(lsn) => write!(f, "the position {lsn}"),
        }
    }
}

/// Finds the way to the target. Of several suitable bases the newest is chosen: the fewest increments follow it.
/// `unfit` are bases that the caller cannot use, since they lack a wanted table, for example.
pub fn route(
    history: &History,
    target: RecoveryTarget,
    unfit: &BTreeSet<BackupId>,
    now: Timestamp,
) -> Result<Route, Box<NotCovered>> {
    let refuse = |why| Err(Box::new(NotCovered::new(why, target, history)));
    let Some(newest) = history.newest() else {
        return refuse(Why::NoIncrements);
    };
    if let RecoveryTarget::Time(time) = target
        && time > now
    {
        return refuse(Why::Future { now });
    }
    let ways = match target {
        RecoveryTarget::Latest => way(newest, RecoveryTarget::Lsn(newest.last().stream.to), unfit)
            .into_iter()
            .collect(),
        _ => ways(history, target, unfit),
    };
    let Some((last, earlier)) = ways.split_last() else {
        return refuse(refusal::reason(history, target, unfit));
    };
    if let Some(other) = earlier.iter().find(|way| !way.run.has_source_of(last.run)) {
        return refuse(Why::TwoSources {
            one: other.run.last().id.clone(),
            other: last.run.last().id.clone(),
        });
    }
    Ok(last.route())
}

/// A base, and the last link that is needed.
struct Way<'a> {
    run: &'a Run,
    base: &'a Base,
    last: usize,
    stop: StopPoint,
}

impl Way<'_> {
    fn route(&self) -> Route {
        let reaching = self.run.reaching(self.base.end.lsn).unwrap_or(self.last);
        let first = self.base.first_needed.min(reaching).min(self.last);
        let links = &self.run.links()[first..=self.last];
        Route {
            base: self.base.id.clone(),
            base_end: self.base.end,
            increments: links.iter().map(|link| link.id.clone()).collect(),
            stop: self.stop,
            bytes: links
                .iter()
                .map(|link| link.bytes)
                .sum::<u64>()
                .saturating_add(self.base.bytes),
        }
    }
}

/// The ways to the target in all runs, in the order of the runs' last moments.
fn ways<'a>(history: &'a History, target: RecoveryTarget, unfit: &BTreeSet<BackupId>) -> Vec<Way<'a>> {
    let runs = history.runs().iter();
    runs.filter_map(|run| way(run, target, unfit)).collect()
}

fn way<'a>(run: &'a Run, target: RecoveryTarget, unfit: &BTreeSet<BackupId>) -> Option<Way<'a>> {
    let (last, stop) = match target {
        RecoveryTarget::Lsn(lsn) => (run.reaching(lsn)?, StopPoint::Lsn(lsn)),
        RecoveryTarget::Time(time) => (run.covering(time)?, StopPoint::Time(time)),
        RecoveryTarget::Latest => (run.links().len() - 1, StopPoint::Lsn(run.last().stream.to)),
    };
    let to = run.links()[last].stream.to;
    let suits = |base: &&Base| {
        let is_early = match target {
            RecoveryTarget::Lsn(lsn) => base.end.lsn <= lsn,
            RecoveryTarget::Time(time) => base.end.time <= time && base.end.lsn <= to,
            RecoveryTarget::Latest => true,
        };
        is_early && !unfit.contains(&base.id)
    };
    let base = run.bases().iter().rev().find(suits)?;
    Some(Way { run, base, last, stop })
}

/// The windows around a target: the last moment before it and the first one after it.
fn around(history: &History, target: RecoveryTarget) -> Nearest {
    let is_before = |moment: &Moment| match target {
        RecoveryTarget::Latest => true,
        RecoveryTarget::Time(time) => moment.time < time,
        RecoveryTarget::Lsn(lsn) => moment.lsn < lsn,
    };
    let windows: Vec<Window> = super::window::windows(history);
    let latest = windows.iter().map(|window| window.latest).filter(is_before);
    let earliest = windows.iter().map(|window| window.earliest);
    Nearest {
        before: latest.max_by_key(|moment| moment.time),
        after: earliest
            .filter(|moment| !is_before(moment))
            .min_by_key(|moment| moment.time),
    }
}

#[cfg(test)]
mod tests;
