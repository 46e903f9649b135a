//! The chains of a store, from the manifests that were read.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Overview;
use crate::repository::chain::{History, Member};
use crate::repository::verification::Verdict;

/// Which backups count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// Those that can be restored, as far as is known.
    Good,
    /// All with a readable manifest: for decisions that must remove nothing because a check has failed.
    Readable,
}

/// The history of each database, by its name.
pub fn histories(backups: &[Overview], counting: Counting, now: Timestamp) -> BTreeMap<String, History> {
    let mut members: BTreeMap<String, Vec<Member>> = BTreeMap::new();
    for overview in backups {
        let database = overview.id().database().to_owned();
        members
            .entry(database)
            .or_default()
            .push(member(overview, counting, now));
    }
    let joined = members.into_iter();
    joined
        .map(|(database, members)| (database, History::of(members)))
        .collect()
}

fn member(overview: &Overview, counting: Counting, now: Timestamp) -> Member {
    let Some(figures) = overview.figures() else {
        let why = overview
            .flaw()
            .unwrap_or_else(|| "its manifest cannot be used".to_owned());
        return Member::Unusable(overview.id().clone(), why);
    };
    let flaw = match counting {
        Counting::Good => flaw(overview, now),
        Counting::Readable => None,
    };
    Member::of(figures, overview.listed.bytes(), flaw)
}

/// Why a backup whose manifest was read cannot be used.
fn flaw(overview: &Overview, now: Timestamp) -> Option<String> {
    if overview.is_good() && !overview.is_ahead(now) && !overview.contradicts_itself() {
        return None;
    }
    let lacks = (!overview.lacks.is_empty()).then(|| format!("it lacks {}", overview.lacks.join(", ")));
    let damaged = (overview.verdict() == Verdict::Damaged).then(|| "it was found damaged".to_owned());
    let unsigned = (!overview.is_trusted()).then(|| "no trusted key has signed it".to_owned());
    let why = overview
        .flaw()
        .or_else(|| overview.forgery())
        .or(lacks)
        .or(damaged)
        .or(unsigned);
    Some(why.unwrap_or_else(|| "its times are impossible".to_owned()))
}
