//! The increments of one database, joined: each begins at the position where its predecessor ended. What is joined
//! without a hole is a run, and every full backup whose snapshot lies in a run can be the base of a restore to any
//! moment after it. All of it follows from the manifests.

mod base;
mod broken;
mod fit;
mod gap;
mod link;
mod run;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::format::Lsn;
use crate::repository::backup_id::{BackupId, BackupKind};
use crate::repository::manifest::Figures;

pub use base::{Base, Full, Moment, NotABase};
pub use broken::Break;
pub use gap::Gap;
pub use link::Link;
pub use run::Run;

/// One backup of the database.
#[derive(Debug, Clone, PartialEq)]
pub enum Member {
    Full(Box<Full>),
    Increment(Box<Link>),
    /// Its manifest or its files cannot be used, and why.
    Unusable(BackupId, String),
}

impl Member {
    /// `bytes` is the size of all its files; `flaw` says why it cannot be used although its manifest was read.
    pub fn of(figures: &Figures, bytes: u64, flaw: Option<String>) -> Self {
        match (&figures.stream, figures.kind, flaw) {
            (_, _, Some(why)) => Member::Unusable(figures.id.clone(), why),
            (Some(stream), BackupKind::Incremental, None) => {
                Member::Increment(Box::new(Link::new(figures.id.clone(), stream.clone(), bytes)))
            }
            _ => Member::Full(Box::new(Full::of(figures, bytes))),
        }
    }
}

/// What a store holds of one database, as far as a restore to a point in time is concerned.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// The runs, in the order of their last moments. Each has its bases.
    runs: Vec<Run>,
}

impl History {
    /// Joins a database's backups, given in any order.
    pub fn of(members: impl IntoIterator<Item = Member>) -> Self {
        let (mut fulls, mut links, mut unusable) = (Vec::new(), Vec::new(), BTreeMap::new());
        for member in members {
            match member {
                Member::Full(full) => fulls.push(*full),
                Member::Increment(link) => links.push(*link),
                Member::Unusable(id, why) => {
                    unusable.insert(id, why);
                }
            }
        }
        let mut runs = joined(links, &unusable);
        fulls.sort_by(|one, other| one.id.cmp(&other.id));
        let unusable = unusable.into_iter().filter(|(id, _)| id.kind() == BackupKind::Full);
        let unusable: Vec<(BackupId, NotABase)> = unusable.map(|(id, why)| (id, NotABase::Unusable(why))).collect();
        for run in &mut runs {
            for full in &fulls {
                match fit::base(full, run) {
                    Ok(base) => run.bases.push(base),
                    Err(why) => run.refused.push((full.id.clone(), why)),
                }
            }
            run.bases.sort_by_key(|base| base.end.lsn);
            run.refused.extend(unusable.iter().cloned());
            run.refused.sort_by(|one, other| one.0.cmp(&other.0));
        }
        Self { runs }
    }

    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The run that ends last: the one that the next increment continues.
    pub fn newest(&self) -> Option<&Run> {
        self.runs.last()
    }

    /// Why no increments join this full backup, which ends at the position, to the one before it; and that one. An
    /// increment from before `since` may have expired, which breaks nothing.
    pub fn hole_before(&self, id: &BackupId, position: Lsn, since: Timestamp) -> Option<(BackupId, String)> {
        let behind = self.runs.iter().position(|run| position <= run.last().stream.to)?;
        let (run, earlier) = (&self.runs[behind], &self.runs[..behind]);
        if run.hole()?.timestamp() < since {
            return None;
        }
        let mut of_stream = earlier.iter().rev().filter(|before| before.has_stream_of(run));
        let base = of_stream.find_map(|before| before.bases.last()).map(|base| &base.id);
        // Without any increment before the hole, the full that was the stream's first base is no base of it either.
        let mut refused = run.refused().iter().rev().map(|(id, _)| id);
        let before = base.or_else(|| refused.find(|refused| *refused < id))?;
        Some((before.clone(), run.begins().to_string()))
    }

    /// What separates each run from the one before it.
    pub fn gaps(&self) -> Vec<Gap> {
        let pairs = self.runs.windows(2);
        pairs.map(|pair| Gap::between(&pair[0], &pair[1])).collect()
    }
}

/// Joins increments to runs. From the newest increment pgstow goes back, predecessor by predecessor; increments that
/// this does not meet begin runs of their own.
fn joined(links: Vec<Link>, unusable: &BTreeMap<BackupId, String>) -> Vec<Run> {
    let by_id: BTreeMap<BackupId, Link> = links.into_iter().map(|link| (link.id.clone(), link)).collect();
    let mut newest_first: Vec<&Link> = by_id.values().collect();
    newest_first.sort_by_key(|link| std::cmp::Reverse((link.stream.to, &link.id)));
    let mut taken: BTreeSet<&BackupId> = BTreeSet::new();
    let mut runs = Vec::new();
    for last in newest_first {
        if taken.contains(&last.id) {
            continue;
        }
        let mut backwards = vec![last];
        taken.insert(&last.id);
        let mut first = last;
        let begins = loop {
            let before = match broken::predecessor(first, &by_id, unusable) {
                Ok(before) => before,
                Err(why) => break why,
            };
            if !taken.insert(&before.id) {
                break Break::Forked(before.id.clone());
            }
            backwards.push(before);
            first = before;
        };
        runs.push(Run::new(backwards.into_iter().rev().cloned().collect(), begins));
    }
    runs.sort_by(|one, other| one.order().cmp(&other.order()));
    runs
}

#[cfg(test)]
pub(crate) mod tests;
