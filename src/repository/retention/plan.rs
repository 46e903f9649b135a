//! What `prune` keeps and what it removes, in stores that have no lifecycle rules: by the same
//! times as the rules, and with the same promise, that the last good backup never goes.

use std::collections::HashMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::rules::{PENDING_DAYS, days_kept};
use super::{Policy, Tier};
use crate::repository::backup_id::{BackupId, SKEW};
use crate::repository::verification::Verdict;
use crate::units::count;

/// One folder of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub id: BackupId,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has a manifest that cannot be read, or that a newer pgstow wrote.
    Unreadable,
    /// It has no manifest: a run's left-over, or a run at work.
    LeftOver {
        /// Whether the database's lease is held, or may be.
        run_at_work: bool,
    },
    Backup {
        /// What its manifest names.
        tier: Tier,
        /// Whether all its files are there.
        whole: bool,
        verdict: Verdict,
    },
}

/// What the plan goes by, beside the backups.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    pub policy: &'a Policy,
    /// So many of the newest good backups stay, and at least one.
    pub keep_last: usize,
    /// So many of the newest proved ones stay as well.
    pub verified_only: bool,
    pub now: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Keep(Stays),
    Remove(Goes),
}

/// Why a folder stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stays {
    /// Among the newest good ones.
    Newest,
    /// Among the newest that were verified, where those alone count.
    NewestVerified,
    /// The newest of its database, good or not: only a newer one may ever take its place.
    NewestOfAll,
    /// Found damaged, and would stay if it had not been: a check can be wrong.
    Doubted,
    /// Good, and the one before a backup that was found damaged and stays.
    StandIn,
    /// Its tier's time is not up.
    Young {
        tier: Tier,
        days: u32,
    },
    Unreadable,
    /// Dated in the future: it stands for no time that was, and displaces no backup that does.
    Ahead,
    /// A left-over that may yet become a backup.
    RunAtWork,
    /// A left-over of which nobody can be sure yet.
    YoungLeftOver,
}

/// Why a folder goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goes {
    Expired { tier: Tier, days: u32 },
    LeftOver,
}

/// What becomes of each folder, in the order in which they are given. Databases do not concern
/// each other.
///
/// A good backup has all its files and was not found damaged. The newest `keep_last` of them stay
/// whatever their age, and where `verified_only` is set, the newest `keep_last` that were verified
/// as well: it never removes what would stay without it. The newest of all stays in any case.
///
/// **That a backup is found damaged removes nothing.** It does not count, so an older one stays in
/// its place; it stays itself where it would have stayed otherwise; and while it stays, so does the
/// nearest good one before it, which holds what it was to hold.
///
/// What is dated in the future counts for nothing in this, and stays.
pub fn plan(candidates: &[Candidate], terms: &Terms<'_>) -> Vec<Decision> {
    let floor = floor(candidates, terms);
    candidates
        .iter()
        .map(|one| match floor.get(&one.id) {
            Some(stays) => Decision::Keep(*stays),
            None => by_age(one, terms),
        })
        .collect()
}

/// What stays whatever its age.
fn floor<'a>(candidates: &'a [Candidate], terms: &Terms<'_>) -> HashMap<&'a BackupId, Stays> {
    let mut newest_first: Vec<&Candidate> = candidates.iter().filter(|one| !one.id.is_ahead(terms.now)).collect();
    newest_first.sort_by(|one, other| other.id.cmp(&one.id));
    let mut floor = HashMap::new();
    for database in newest_first.chunk_by(|one, other| one.id.database() == other.id.database()) {
        walk(database, terms, &mut floor);
    }
    floor
}

/// One database's folders, newest first. Each place that is to be taken by a good one keeps what is met
/// before it is taken.
fn walk<'a>(database: &[&'a Candidate], terms: &Terms<'_>, floor: &mut HashMap<&'a BackupId, Stays>) {
    let keep_last = terms.keep_last.max(1);
    let (mut good, mut proved) = (0, 0);
    // A damaged one stays, and no good one came before it since.
    let mut doubted = false;
    let mut newest = true;
    for one in database {
        let State::Backup { whole, verdict, .. } = one.state else {
            continue;
        };
        let among_newest = good < keep_last;
        let among_proved = terms.verified_only && proved < keep_last;
        let stays = match verdict {
            _ if !whole => None,
            Verdict::Damaged if among_newest || among_proved || doubted => Some(Stays::Doubted),
            Verdict::Damaged => None,
            _ if among_newest => Some(Stays::Newest),
            Verdict::Proved if among_proved => Some(Stays::NewestVerified),
            _ if doubted => Some(Stays::StandIn),
            _ => None,
        };
        let stays = stays.or(newest.then_some(Stays::NewestOfAll));
        newest = false;
        if let Some(stays) = stays {
            floor.insert(&one.id, stays);
        }
        if whole && verdict == Verdict::Damaged {
            doubted |= stays.is_some() || matches!(by_age(one, terms), Decision::Keep(_));
        } else if whole {
            doubted = false;
            good += 1;
            proved += usize::from(verdict == Verdict::Proved);
        }
    }
}

fn by_age(one: &Candidate, terms: &Terms<'_>) -> Decision {
    let older_than =
        |days: u32| terms.now.duration_since(one.id.timestamp()) > SignedDuration::from_hours(24 * i64::from(days));
    match one.state {
        State::Backup { .. } | State::LeftOver { run_at_work: false } if one.id.is_ahead(terms.now) => {
            Decision::Keep(Stays::Ahead)
        }
        State::Unreadable => Decision::Keep(Stays::Unreadable),
        State::LeftOver { run_at_work: true } => Decision::Keep(Stays::RunAtWork),
        State::LeftOver { run_at_work: false } if older_than(PENDING_DAYS) => Decision::Remove(Goes::LeftOver),
        State::LeftOver { run_at_work: false } => Decision::Keep(Stays::YoungLeftOver),
        State::Backup { tier, .. } => {
            let days = days_kept(terms.policy, tier);
            if older_than(days) {
                Decision::Remove(Goes::Expired { tier, days })
            } else {
                Decision::Keep(Stays::Young { tier, days })
            }
        }
    }
}

impl fmt::Display for Stays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stays::Newest => f.write_str("one of the newest good backups, which never expire"),
            Stays::NewestVerified => f.write_str("one of the newest verified backups, which never expire"),
            Stays::NewestOfAll => f.write_str("not a good one, but the newest of its database, which never expires"),
            Stays::Doubted => {
                f.write_str("found damaged, which removes nothing: it would be one of the newest, which never expire")
            }
            Stays::StandIn => f.write_str("the nearest good one before a backup that was found damaged"),
            Stays::Young { tier, days } => write!(f, "{tier}, kept for {}", count(*days, "day")),
            Stays::Unreadable => f.write_str("its manifest cannot be used, so nobody knows what it is"),
            Stays::Ahead => write!(
                f,
                "dated more than {} minutes in the future: a clock was wrong, or somebody made it up",
                SKEW.as_mins()
            ),
            Stays::RunAtWork => f.write_str("no manifest, but the database's lease is held: a run may be at work"),
            Stays::YoungLeftOver => write!(f, "no manifest, and less than {PENDING_DAYS} days old"),
        }
    }
}

impl fmt::Display for Goes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goes::Expired { tier, days } => write!(f, "{tier}, older than {}", count(*days, "day")),
            Goes::LeftOver => write!(f, "left over by a run, older than {PENDING_DAYS} days"),
        }
    }
}

#[cfg(test)]
mod tests;
