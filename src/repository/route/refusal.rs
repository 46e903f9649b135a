//! Why a moment cannot be restored exactly, with the nearest moments that can.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;

use super::{RecoveryTarget, around};
use crate::error::{Code, Error};
use crate::repository::backup_id::BackupId;
use crate::repository::chain::{History, Moment, NotABase, Run};
use crate::repository::window::Window;

/// A refusal of a target.
#[derive(Debug, Clone, PartialEq)]
pub struct NotCovered {
    pub target: RecoveryTarget,
    pub why: Why,
    pub nearest: Nearest,
}

/// The nearest moments that can be restored exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Nearest {
    pub before: Option<Moment>,
    pub after: Option<Moment>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Why {
    /// The database has no increments.
    NoIncrements,
    Future {
        now: Timestamp,
    },
    BeforeTheFirst,
    AfterTheLast,
    /// It lies in a gap between two runs.
    Gap(String),
    /// Increments hold the moment, but none of the full backups can be their base. With the newest full backup and its
    /// reason, if there is one.
    NoBase(Option<(BackupId, NotABase)>),
    /// The caller cannot use any of the bases that lead there.
    Unfit,
    /// Two servers, or two lives of one server, have this moment.
    TwoSources {
        one: BackupId,
        other: BackupId,
    },
}

impl NotCovered {
    pub(super) fn new(why: Why, target: RecoveryTarget, history: &History) -> Self {
        Self {
            target,
            why,
            nearest: around(history, target),
        }
    }

    pub fn into_error(self, database: &str) -> Error {
        let error = Error::new(Code::NotCovered, format!("{database}: {self}"));
        match self.hint() {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    fn hint(&self) -> Option<String> {
        match &self.why {
            Why::NoIncrements => {
                Some("`pgstow incremental start` begins them; until then, restore a full backup".to_owned())
            }
            Why::AfterTheLast => Some("`pgstow backup --kind incremental` takes the changes up to now".to_owned()),
            Why::NoBase(_) => {
                Some("`pgstow backup` makes a full backup, which later moments can begin with".to_owned())
            }
            Why::TwoSources { .. } => Some("give the moment as the other kind, --to-time or --to-lsn".to_owned()),
            Why::Future { .. } | Why::BeforeTheFirst | Why::Gap(_) | Why::Unfit => None,
        }
    }
}

impl fmt::Display for NotCovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = &self.target;
        match &self.why {
            Why::NoIncrements => f.write_str("there are no increments in the store"),
            Why::Future { now } => write!(f, "{target} is in the future; it is {now:.0}"),
            Why::BeforeTheFirst => write!(f, "{target} is before the first moment that can be restored exactly"),
            Why::AfterTheLast => write!(f, "{target} is after the last moment that can be restored exactly"),
            Why::Gap(gap) => write!(f, "{target} lies in a gap {gap}"),
            Why::NoBase(None) => write!(
                f,
                "{target} cannot be restored: the increments have no full backup as their base"
            ),
            Why::NoBase(Some((id, why))) => {
                write!(
                    f,
                    "{target} cannot be restored: {id} cannot be the base of the increments: {why}"
                )
            }
            Why::Unfit => write!(f, "no full backup that holds what is wanted leads to {target}"),
            Why::TwoSources { one, other } => write!(
                f,
                "{target} is in the increments of two servers, or of two timelines of one: those up to {one} and those up \
                 to {other}"
            ),
        }?;
        match (self.nearest.before, self.nearest.after) {
            (Some(before), Some(after)) => write!(f, "; the nearest exact moments are {before} and {after}"),
            (Some(only), None) | (None, Some(only)) => write!(f, "; the nearest exact moment is {only}"),
            (None, None) => Ok(()),
        }
    }
}

/// Why no run leads to the target.
pub(super) fn reason(history: &History, target: RecoveryTarget, unfit: &BTreeSet<BackupId>) -> Why {
    let none = BTreeSet::new();
    if !unfit.is_empty()
        && super::ways(history, target, &none)
            .iter()
            .any(|way| unfit.contains(&way.base.id))
    {
        return Why::Unfit;
    }
    let windows: Vec<Window> = crate::repository::window::windows(history);
    let no_base = || {
        let newest = history.newest().and_then(Run::no_base);
        Why::NoBase(newest.cloned())
    };
    if windows.is_empty() || (target == RecoveryTarget::Latest) {
        return no_base();
    }
    let is_before = |moment: &Moment| match target {
        RecoveryTarget::Latest => false,
        RecoveryTarget::Time(time) => time < moment.time,
        RecoveryTarget::Lsn(lsn) => lsn < moment.lsn,
    };
    if windows.iter().all(|window| is_before(&window.earliest)) {
        return Why::BeforeTheFirst;
    }
    let begins_after = |run: &Run| Window::of(run).is_some_and(|window| is_before(&window.earliest));
    if let Some(later) = history.runs().iter().position(begins_after) {
        let gap = later
            .checked_sub(1)
            .and_then(|at| history.gaps().get(at).map(ToString::to_string));
        return gap.map_or(Why::BeforeTheFirst, Why::Gap);
    }
    match history.runs().iter().any(|run| holds(run, target)) {
        true => no_base(),
        false => Why::AfterTheLast,
    }
}

/// Whether the run has the changes up to the target, with a base or without.
fn holds(run: &Run, target: RecoveryTarget) -> bool {
    match target {
        RecoveryTarget::Latest => true,
        RecoveryTarget::Lsn(lsn) => run.first().stream.from <= lsn && run.reaching(lsn).is_some(),
        RecoveryTarget::Time(time) => run.covering(time).is_some_and(|at| at > 0),
    }
}
