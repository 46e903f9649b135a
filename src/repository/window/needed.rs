//! Which backups a restore to a moment needs: nothing may remove them.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Window;
use crate::repository::backup_id::BackupId;
use crate::repository::chain::{Base, History, Run};

/// What a backup is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Moments since the beginning of the span cannot be restored without it.
    Window,
    /// It follows one of the newest full backups, which never expire.
    Newest,
}

/// The increments and full backups that must stay, so that every moment since `since` that can be restored now can
/// still be restored, and every moment after one of the `newest` full backups too.
///
/// Of each run these are the last links: from the first that the base for the earliest of those moments needs. So the
/// ones that are not needed are the first of their run, and their removal makes no hole in it.
pub fn needed(history: &History, since: Timestamp, newest: impl Fn(&BackupId) -> bool) -> BTreeMap<BackupId, Need> {
    let mut needed = BTreeMap::new();
    for run in history.runs() {
        let first_newest = run.bases().iter().find(|base| newest(&base.id));
        // The need of the window is the stronger reason, so it comes last.
        for (base, need) in [(first_newest, Need::Newest), (base_for(run, since), Need::Window)] {
            let Some(base) = base else { continue };
            needed.insert(base.id.clone(), need);
            let links = &run.links()[first_of(run, base)..];
            needed.extend(links.iter().map(|link| (link.id.clone(), need)));
        }
    }
    needed
}

/// The base from which the run's earliest moment since `since` is restored. `None`: it has no such moment.
fn base_for(run: &Run, since: Timestamp) -> Option<&Base> {
    let window = Window::of(run)?;
    if window.latest.time < since {
        return None;
    }
    let earliest = window.earliest.time.max(since);
    let bases = run.bases().iter();
    bases
        .filter(|base| base.end.time <= earliest)
        .max_by_key(|base| base.end.lsn)
}

/// The first link that must stay for this base: also the one before those that a restore reads, since it proves that
/// the base holds everything before it.
fn first_of(run: &Run, base: &Base) -> usize {
    let reaching = run.reaching(base.begun).unwrap_or_default();
    base.first_needed.saturating_sub(1).min(reaching)
}
