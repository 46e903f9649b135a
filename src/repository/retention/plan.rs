//! What `prune` keeps and removes in stores without lifecycle rules. It uses the same times as the rules, and makes
//! the same promise: the last good backup stays.

use std::collections::HashMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::rules::{PENDING_DAYS, days_kept};
use super::{Retention, Tier};
use crate::repository::backup_id::{BackupId, BackupKind, SKEW};
use crate::repository::verification::Verdict;
use crate::units::count;

/// One folder of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub id: BackupId,
    pub state: BackupState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupState {
    /// It has a manifest that cannot be read, or that a newer pgstow wrote.
    Unreadable,
    /// It has no manifest: it is a left-over, or its run is still in progress.
    LeftOver {
        /// Whether a run holds the database's lease, or may hold it.
        run_at_work: bool,
    },
    Backup {
        /// The tier in its manifest.
        tier: Tier,
        /// Whether all its files are there.
        whole: bool,
        verdict: Verdict,
    },
}

/// What the plan depends on, besides the backups.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Of the newest good backups `keep_last` stay, and at least one.
    pub retention: &'a Retention,
    /// Whether as many of the newest verified ones stay as well.
    pub verified_only: bool,
    pub now: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Keep(Stays),
    Remove(Goes),
}

impl Decision {
    /// Whether it is a backup that stays at any age.
    pub fn never_expires(self) -> bool {
        use Stays::{Doubted, Newest, NewestOfAll, NewestVerified, StandIn};
        matches!(
            self,
            Decision::Keep(Newest | NewestVerified | NewestOfAll | Doubted | StandIn)
        )
    }
}

/// Why a folder stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stays {
    /// It is one of the newest good ones.
    Newest,
    /// It is one of the newest verified ones, if `verified_only` is set.
    NewestVerified,
    /// It is the newest of its database, good or not: only a newer one may replace it.
    NewestOfAll,
    /// It was found damaged, and would stay otherwise: a check can be wrong.
    Doubted,
    /// It is good, and the one before a backup that was found damaged and stays.
    StandIn,
    /// An increment, or the full backup that increments follow: moments of the span can be restored only with it.
    InWindow {
        days: u32,
    },
    /// An increment that follows one of the newest full backups.
    FollowsNewest,
    /// An increment between others that stay.
    Joins,
    /// Its tier's time is not over.
    Young {
        tier: Tier,
        days: u32,
    },
    Unreadable,
    /// It is dated in the future: it does not count for any period, and replaces no other backup.
    Ahead,
    /// A left-over that may still become a backup.
    RunAtWork,
    /// A left-over that is too young to be sure about.
    YoungLeftOver,
}

/// Why a folder goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goes {
    Expired { tier: Tier, days: u32 },
    LeftOver,
}

/// What happens to each folder, in the order of the input. Databases do not affect each other.
///
/// A good backup has all its files and was not found damaged. The newest `keep_last` good ones stay at any age. If
/// `verified_only` is set, the newest `keep_last` verified ones stay as well: this setting never removes a backup
/// that would stay without it. The newest backup of all always stays.
///
/// **A backup that is found damaged causes no removal.** It does not count as good, so an older one stays instead. It
/// stays itself if it would have stayed otherwise. While it stays, the nearest good one before it stays too, since
/// that one has the content that the damaged one should have.
///
/// A backup dated in the future does not count, and stays.
///
/// Increments go by their age alone here: what a restore to a moment needs of them, `window::needed` knows.
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

/// The backups that stay at any age.
fn floor<'a>(candidates: &'a [Candidate], terms: &Terms<'_>) -> HashMap<&'a BackupId, Stays> {
    // An increment alone restores nothing: it takes no place of a full backup.
    let counts = |one: &&Candidate| one.id.kind() == BackupKind::Full && !one.id.is_ahead(terms.now);
    let mut newest_first: Vec<&Candidate> = candidates.iter().filter(counts).collect();
    newest_first.sort_by(|one, other| other.id.cmp(&one.id));
    let mut floor = HashMap::new();
    for database in newest_first.chunk_by(|one, other| one.id.database() == other.id.database()) {
        walk(database, terms, &mut floor);
    }
    floor
}

/// One database's folders, newest first. Until a place for a good backup is filled, every backup on the way to it
/// stays.
fn walk<'a>(database: &[&'a Candidate], terms: &Terms<'_>, floor: &mut HashMap<&'a BackupId, Stays>) {
    let keep_last = terms.retention.keep_last.max(1);
    let (mut good, mut proved) = (0, 0);
    // A damaged one stays, and no good one has followed yet.
    let mut doubted = false;
    let mut newest = true;
    for one in database {
        let BackupState::Backup { whole, verdict, .. } = one.state else {
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
        BackupState::Backup { .. } | BackupState::LeftOver { run_at_work: false } if one.id.is_ahead(terms.now) => {
            Decision::Keep(Stays::Ahead)
        }
        BackupState::Unreadable => Decision::Keep(Stays::Unreadable),
        BackupState::LeftOver { run_at_work: true } => Decision::Keep(Stays::RunAtWork),
        BackupState::LeftOver { run_at_work: false } if older_than(PENDING_DAYS) => Decision::Remove(Goes::LeftOver),
        BackupState::LeftOver { run_at_work: false } => Decision::Keep(Stays::YoungLeftOver),
        BackupState::Backup { tier, .. } => {
            let tier = match one.id.kind() {
                BackupKind::Full => tier,
                BackupKind::Incremental => Tier::Increment,
            };
            let days = days_kept(terms.retention, tier);
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
            Stays::InWindow { days } => write!(f, "needed to restore moments of the last {}", count(*days, "day")),
            Stays::FollowsNewest => f.write_str("follows one of the newest good full backups, which never expire"),
            Stays::Joins => f.write_str("joins increments that stay: without it, their chain has a hole"),
            Stays::Young { tier, days } => write!(f, "{tier}, kept for {}", count(*days, "day")),
            Stays::Unreadable => f.write_str("its manifest cannot be used, so its tier and content are unknown"),
            Stays::Ahead => write!(
                f,
                "dated more than {} minutes in the future: a clock was wrong, or a person forged the date",
                SKEW.as_mins()
            ),
            Stays::RunAtWork => f.write_str("no manifest, but the database's lease is held: a run may be in progress"),
            Stays::YoungLeftOver => write!(f, "no manifest, and less than {PENDING_DAYS} days old"),
        }
    }
}

impl fmt::Display for Goes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goes::Expired { tier, days } => write!(f, "{tier}, older than {}", count(*days, "day")),
            Goes::LeftOver => write!(f, "a left-over of a run, older than {PENDING_DAYS} days"),
        }
    }
}

#[cfg(test)]
mod tests;
