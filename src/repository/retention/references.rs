//! What `prune` keeps for others: a backup to which another one refers.

use std::collections::HashMap;

use super::plan::{Decision, Stays};
use crate::repository::backup_id::BackupId;

/// Keeps every backup to which another one refers, as long as that one is in the store, even if it goes now: an
/// interruption must not leave it without the other. `refers` is in the order of the decisions: each backup, with the one
/// that it refers to.
pub fn keep_referred(refers: &[(&BackupId, Option<&BackupId>)], decisions: &mut [Decision]) {
    let places: HashMap<&BackupId, usize> = refers.iter().enumerate().map(|(at, (id, _))| (*id, at)).collect();
    for (_, from) in refers {
        let at = from.and_then(|from| places.get(from));
        if let Some(decision) = at.and_then(|at| decisions.get_mut(*at))
            && matches!(decision, Decision::Remove(_))
        {
            *decision = Decision::Keep(Stays::Referred);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::repository::retention::{Goes, Tier};

    const GOES: Decision = Decision::Remove(Goes::Expired {
        tier: Tier::Daily,
        days: 7,
    });

    proptest! {
        #[test]
        fn no_plan_leaves_a_backup_without_the_one_that_it_refers_to(
            backups in prop::collection::vec((any::<bool>(), prop::option::of(0_usize..20)), 1..20)
        ) {
            let id = |day: usize| format!("shop/202501{:02}T040500Z-full", day + 1).parse::<BackupId>().unwrap();
            let ids: Vec<BackupId> = (0..backups.len()).map(id).collect();
            // One level: what refers is never referred to.
            let from = |at: usize| {
                let from = backups[at].1.filter(|from| *from < at)?;
                backups[from].1.filter(|other| *other < from).is_none().then_some(from)
            };
            let refers: Vec<_> = (0..ids.len()).map(|at| (&ids[at], from(at).map(|from| &ids[from]))).collect();
            let planned = |goes: bool| if goes { GOES } else { Decision::Keep(Stays::Newest) };
            let before: Vec<Decision> = backups.iter().map(|(goes, _)| planned(*goes)).collect();
            let mut after = before.clone();
            keep_referred(&refers, &mut after);
            // In any order, and wherever the removal stops.
            for at in 0..ids.len() {
                if let Some(from) = from(at) {
                    prop_assert!(matches!(after[from], Decision::Keep(_)));
                }
                if matches!(before[at], Decision::Keep(_)) {
                    prop_assert_eq!(after[at], before[at]);
                }
            }
            // Once it has gone, the other may go.
            let gone = |at: usize| after[at] == GOES;
            let left: Vec<_> = (0..ids.len()).filter(|at| !gone(*at)).map(|at| refers[at]).collect();
            let mut again = vec![GOES; left.len()];
            keep_referred(&left, &mut again);
            for (at, (id, _)) in left.iter().enumerate() {
                let is_needed = left.iter().any(|(_, from)| *from == Some(*id));
                prop_assert_eq!(again[at] == Decision::Keep(Stays::Referred), is_needed);
            }
        }
    }
}
