//! Loads the rows: some tables at once, the others one after the other.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Mutex;

use tokio_util::sync::CancellationToken;

use super::{Halt, Hands, Pace, Refill, Work, entry_of, settle};
use crate::error::Error;
use crate::format::archive::Item;
use crate::job::drill::evidence::Says;
use crate::job::drill::exclusion::DrillExclusion;
use crate::job::drill::makers::Maker;
use crate::job::restore::{Load, Plan};

impl Refill<'_> {
    /// First loads all tables whose order does not matter; then, in the archive's order, those whose checks call
    /// functions, which may look at other tables. A table that fails is tried again after others were loaded, until no
    /// further one succeeds: it counts as wrong only if it fails after all others. Last come the positions of
    /// sequences, because rows may have moved them.
    pub(super) async fn data(
        &self,
        hands: &Hands<'_>,
        jobs: usize,
        exclusion: &mut DrillExclusion<'_>,
    ) -> Result<(), Halt> {
        let (with_rows, positions): (Vec<&Load>, Vec<&Load>) =
            self.plan.loads.iter().partition(|load| !load.blocks.is_empty());
        let (early, mut late) = self.in_two(with_rows, exclusion);
        let at_once = Plan {
            loads: early,
            ..Plan::default()
        };
        let since = self.witness.mark();
        if let Err(error) = hands.by_loader.data(&at_once, jobs, &Mutex::default()).await {
            let id = entry_of(&error);
            return Err(match self.weigh(since, &error, id, exclusion).await {
                Some(_) => self.doubt(error),
                None => Halt::Place(error),
            });
        }
        let mut number = at_once.loads.len();
        loop {
            let tried = late.len();
            let failed = self.one_after_the_other(hands, late, &mut number, exclusion).await?;
            if failed.is_empty() {
                break;
            }
            if failed.len() < tried {
                late = failed.into_iter().map(|failure| failure.load).collect();
                continue;
            }
            for Failure { id, says, error, .. } in failed {
                match self.pace {
                    Pace::Careful => settle(id, says, error, exclusion)?,
                    Pace::Quick => return Err(self.doubt(error)),
                }
            }
            break;
        }
        for load in positions {
            self.step(hands, Maker::Loader, Work::of("positions", &load.list, 1), exclusion)
                .await?;
        }
        Ok(())
    }

    /// The loads whose order does not matter, and those that come one after the other, in that order.
    fn in_two(&self, with_rows: Vec<&Load>, exclusion: &DrillExclusion<'_>) -> (Vec<Load>, Vec<Load>) {
        let looking = looking_around(self.items);
        let looks = |load: &Load| load.list.iter().any(|id| looking.contains(id));
        let (mut early, mut late) = (Vec::new(), Vec::new());
        for load in with_rows {
            if self.pace == Pace::Quick && !looks(load) && exclusion.remaining(&load.list).len() == load.list.len() {
                early.push(load.clone());
                continue;
            }
            for one in self.alone(load) {
                let to_do = exclusion.remaining(&one.list).len() == one.list.len();
                let list = match looks(&one) || self.pace == Pace::Careful {
                    true => &mut late,
                    false => &mut early,
                };
                list.extend(to_do.then_some(one));
            }
        }
        let items = self.items.iter().enumerate();
        let order: HashMap<i64, usize> = items.map(|(at, item)| (item.entry.dump_id, at)).collect();
        let place = |load: &Load| load.list.first().and_then(|id| order.get(id)).copied();
        late.sort_by_key(|load| (looks(load), place(load)));
        (early, late)
    }

    /// Uses one process more than there are failures: pg_restore loads the tables in the order of the list, each by
    /// itself, and ends at the first that fails. The tables before that one are loaded.
    async fn one_after_the_other(
        &self,
        hands: &Hands<'_>,
        loads: Vec<Load>,
        number: &mut usize,
        exclusion: &DrillExclusion<'_>,
    ) -> Result<Vec<Failure>, Halt> {
        let mut failed = Vec::new();
        for group in in_order(loads) {
            let mut rest: VecDeque<Load> = group.into();
            while !rest.is_empty() {
                let together = together(rest.make_contiguous());
                let since = self.witness.mark();
                *number += 1;
                let never = CancellationToken::new();
                let loaded = hands.by_loader.load(*number, &together, &never).await;
                let Err(error) = loaded else { break };
                let id = entry_of(&error).filter(|id| together.list.contains(id));
                let Some(says) = self.weigh(since, &error, id, exclusion).await else {
                    return Err(Halt::Place(error));
                };
                let Some(id) = id else {
                    return Err(self.doubt(error));
                };
                while let Some(load) = rest.pop_front() {
                    if load.list.contains(&id) {
                        failed.push(Failure { load, id, says, error });
                        break;
                    }
                }
            }
        }
        Ok(failed)
    }

    /// Divides a load into single entries, so that each fails alone and can be tried again.
    fn alone(&self, load: &Load) -> Vec<Load> {
        let mut blocks = load.blocks.iter();
        let mut block = blocks.next();
        let mut loads = Vec::new();
        let mut list = Vec::new();
        for &id in &load.list {
            list.push(id);
            if let Some(&index) = block
                && self.stored.head.data[index].dump_id == id
            {
                loads.push(Load {
                    blocks: vec![index],
                    list: std::mem::take(&mut list),
                    part: None,
                    stored_bytes: 0,
                });
                block = blocks.next();
            }
        }
        loads
    }
}

/// A load that failed at one of its entries.
struct Failure {
    load: Load,
    id: i64,
    says: Says,
    error: Error,
}

/// Groups loads whose blocks follow each other in the archive, because pg_restore reads forward.
fn in_order(loads: Vec<Load>) -> Vec<Vec<Load>> {
    let mut runs: Vec<Vec<Load>> = Vec::new();
    for load in loads {
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|last| last.blocks.last() < load.blocks.first()) => run.push(load),
            _ => runs.push(vec![load]),
        }
    }
    runs
}

fn together(loads: &[Load]) -> Load {
    Load {
        blocks: loads.iter().flat_map(|load| load.blocks.iter().copied()).collect(),
        list: loads.iter().flat_map(|load| load.list.iter().copied()).collect(),
        part: None,
        stored_bytes: loads.iter().map(|load| load.stored_bytes).sum(),
    }
}

/// The rows of tables whose checks or generated columns, or the checks of their types, call functions of the database:
/// such a function may look at other tables, which must then be loaded before.
fn looking_around(items: &[Item]) -> HashSet<i64> {
    let kinds: HashMap<i64, &Item> = items.iter().map(|item| (item.entry.dump_id, item)).collect();
    let computes = |item: &Item| {
        matches!(item.entry.desc.as_str(), "TABLE" | "DOMAIN" | "TYPE")
            && ["CHECK (", "GENERATED ALWAYS AS ("]
                .iter()
                .any(|word| item.details.definition.contains(word))
    };
    let needs = |item: &Item, found: &HashSet<i64>| item.details.dependencies.iter().any(|id| found.contains(id));
    let functions = items
        .iter()
        .filter(|item| matches!(item.entry.desc.as_str(), "FUNCTION" | "OPERATOR" | "AGGREGATE"));
    let functions: HashSet<i64> = functions.map(|item| item.entry.dump_id).collect();
    let calls = items.iter().filter(|item| computes(item) && needs(item, &functions));
    let mut found: HashSet<i64> = calls.map(|item| item.entry.dump_id).collect();
    loop {
        // A table with a column of such a domain, or a child table.
        let passes_on = |item: &&Item| matches!(item.entry.desc.as_str(), "TABLE" | "DOMAIN" | "TYPE");
        let more = items.iter().filter(passes_on).filter(|item| needs(item, &found));
        let more: Vec<i64> = more
            .map(|item| item.entry.dump_id)
            .filter(|id| !found.contains(id))
            .collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    found.retain(|id| kinds.get(id).is_some_and(|item| item.entry.desc == "TABLE"));
    let rows = items
        .iter()
        .filter(|item| item.entry.desc == "TABLE DATA" && needs(item, &found));
    rows.map(|item| item.entry.dump_id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_whose_checks_may_look_at_others_are_known_through_their_types_and_parents() {
        let item = |id, desc: &str, definition: &str, dependencies: &[i64]| {
            Item::sample(id, desc, "").defined(definition).needing(dependencies)
        };
        let items = [
            item(1, "FUNCTION", "", &[]),
            item(2, "TABLE", "CREATE TABLE a (b int DEFAULT s.f());", &[1]),
            item(3, "TABLE", "CREATE TABLE b (CONSTRAINT c CHECK (s.f(a)));", &[1]),
            item(
                4,
                "DOMAIN",
                "CREATE DOMAIN d AS int CONSTRAINT c CHECK (s.f(VALUE));",
                &[1],
            ),
            item(5, "TABLE", "CREATE TABLE c (a s.d);", &[4]),
            item(6, "TABLE", "CREATE TABLE d (CONSTRAINT c CHECK ((a > 0)));", &[]),
            item(7, "TABLE", "CREATE TABLE e () INHERITS (b);", &[3]),
            item(12, "TABLE DATA", "", &[2]),
            item(13, "TABLE DATA", "", &[3]),
            item(15, "TABLE DATA", "", &[5]),
            item(16, "TABLE DATA", "", &[6]),
            item(17, "TABLE DATA", "", &[7]),
        ];
        assert_eq!(looking_around(&items), HashSet::from([13, 15, 17]));
    }

    #[test]
    fn what_goes_together_keeps_the_order_of_its_blocks() {
        let load = |block: usize| Load {
            blocks: vec![block],
            list: vec![block as i64 + 100],
            part: None,
            stored_bytes: 1,
        };
        let runs = in_order([2, 5, 7, 1, 6].map(load).into());
        let blocks: Vec<Vec<usize>> = runs.iter().map(|run| together(run).blocks).collect();
        assert_eq!(blocks, [vec![2, 5, 7], vec![1, 6]]);
        assert_eq!(together(&runs[1]).list, [101, 106]);
    }
}
