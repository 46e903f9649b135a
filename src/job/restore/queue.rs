//! Chooses what is loaded next: with one job in the archive's order; with several the largest first, unless it needs
//! others that are not loaded yet.

use std::collections::{HashMap, HashSet};

use super::load::Load;
use super::order::LoadOrder;

pub struct Queue<'a> {
    loads: &'a [Load],
    order: &'a LoadOrder,
    in_order: bool,
    /// For each load, the numbers of the loads that must end before it.
    waits: Vec<Vec<usize>>,
    open: Vec<usize>,
    running: HashSet<usize>,
    ended: HashSet<usize>,
}

impl<'a> Queue<'a> {
    pub fn new(loads: &'a [Load], order: &'a LoadOrder, jobs: usize) -> Self {
        let mut holding: HashMap<i64, Vec<usize>> = HashMap::new();
        for (number, load) in loads.iter().enumerate() {
            for id in &load.list {
                holding.entry(*id).or_default().push(number);
            }
        }
        let waits = |(number, load): (usize, &Load)| {
            let needed = load.list.iter().filter_map(|id| order.behind.get(id)).flatten();
            let needed = needed.filter_map(|id| holding.get(id)).flatten().copied();
            // Within a load the archive's order holds, and nothing waits for a load after it.
            let needed = needed.filter(|other| *other < number);
            needed.collect::<HashSet<_>>().into_iter().collect()
        };
        Self {
            loads,
            order,
            in_order: jobs == 1,
            waits: loads.iter().enumerate().map(waits).collect(),
            open: (0..loads.len()).collect(),
            running: HashSet::new(),
            ended: HashSet::new(),
        }
    }

    /// The number of the load that may start now.
    pub fn next(&mut self) -> Option<usize> {
        let at = if self.in_order {
            self.running.is_empty().then_some(0)
        } else {
            self.early().or_else(|| self.after_all_others())
        };
        let number = *self.open.get(at?)?;
        self.open.remove(at?);
        self.running.insert(number);
        Some(number)
    }

    /// Called also for a load of which a table is tried again later.
    pub fn ended(&mut self, number: usize) {
        self.running.remove(&number);
        self.ended.insert(number);
    }

    fn early(&self) -> Option<usize> {
        let ready = self.open.iter().enumerate().filter(|(_, number)| {
            !self.comes_last(**number) && self.waits[**number].iter().all(|other| self.ended.contains(other))
        });
        // The largest first, so that the last to end is small. Of equal ones the first.
        ready
            .max_by_key(|(at, number)| (self.loads[**number].stored_bytes, std::cmp::Reverse(*at)))
            .map(|(at, _)| at)
    }

    /// Sequences are set last: one by one, in the archive's order.
    fn after_all_others(&self) -> Option<usize> {
        let any_early = self.open.iter().any(|number| !self.comes_last(*number));
        (self.running.is_empty() && !any_early && !self.open.is_empty()).then_some(0)
    }

    fn comes_last(&self, number: usize) -> bool {
        let load = &self.loads[number];
        load.blocks.is_empty() || self.order.is_late(load)
    }
}

/// The tables of a load that the server may refuse until others are loaded, by the dump ids of their rows: their
/// functions may look at these others. `entry` gives a block's dump id.
pub fn may_wait(load: &Load, order: &LoadOrder, entry: impl Fn(usize) -> i64) -> HashSet<i64> {
    let minds = |id: &i64| order.late.contains(id) || order.behind.contains_key(id);
    load.blocks.iter().map(|block| entry(*block)).filter(minds).collect()
}

/// One of the tables of a load, as a load of its own. Large objects also have entries without a block.
pub fn alone(load: &Load, table: i64, entry: impl Fn(usize) -> i64) -> Option<Load> {
    let block = load.blocks.iter().find(|block| entry(**block) == table)?;
    Some(Load {
        blocks: vec![*block],
        list: vec![table],
        part: load.part.clone(),
        stored_bytes: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(ids: &[i64], stored_bytes: u64) -> Load {
        Load {
            blocks: ids.iter().map(|id| usize::try_from(*id).unwrap()).collect(),
            list: ids.to_vec(),
            part: None,
            stored_bytes,
        }
    }

    fn loads() -> Vec<Load> {
        let positions = Load {
            list: vec![9],
            ..Load::default()
        };
        vec![
            load(&[1], 5),
            load(&[2, 3], 1),
            load(&[4], 7),
            load(&[5], 9),
            load(&[6], 100),
            positions,
        ]
    }

    fn order() -> LoadOrder {
        LoadOrder {
            late: HashSet::from([6]),
            behind: HashMap::from([(5, vec![2]), (4, vec![4])]),
            ..LoadOrder::default()
        }
    }

    #[test]
    fn one_job_keeps_the_archives_order() {
        let (loads, order) = (loads(), order());
        let mut queue = Queue::new(&loads, &order, 1);
        let mut seen = Vec::new();
        while let Some(number) = queue.next() {
            assert_eq!(queue.next(), None);
            queue.ended(number);
            seen.push(number);
        }
        assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn several_take_the_largest_that_waits_for_nothing_and_the_late_alone() {
        let (loads, order) = (loads(), order());
        let mut queue = Queue::new(&loads, &order, 3);
        assert_eq!(queue.next(), Some(2));
        assert_eq!(queue.next(), Some(0));
        assert_eq!(queue.next(), Some(1));
        // The loads that the largest one waits for are still running.
        assert_eq!(queue.next(), None);
        queue.ended(2);
        queue.ended(1);
        assert_eq!(queue.next(), Some(3));
        queue.ended(3);
        assert_eq!(queue.next(), None);
        queue.ended(0);
        assert_eq!(queue.next(), Some(4));
        assert_eq!(queue.next(), None);
        queue.ended(4);
        assert_eq!(queue.next(), Some(5));
        queue.ended(5);
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn the_tables_that_may_wait_for_others_are_those_that_look_at_others() {
        let order = LoadOrder {
            late: HashSet::from([1, 2]),
            behind: HashMap::from([(3, vec![4])]),
            ..LoadOrder::default()
        };
        let entry = |block: usize| i64::try_from(block).unwrap();
        // Large objects, with entries of their own that make them.
        let mixed = Load {
            list: vec![20, 21, 9, 2, 22, 3, 4],
            ..load(&[9, 2, 3, 4], 7)
        };
        assert_eq!(may_wait(&mixed, &order, entry), HashSet::from([2, 3]));
        assert_eq!(alone(&mixed, 2, entry), Some(load(&[2], 0)));
        assert_eq!(alone(&mixed, 22, entry), None);
        assert_eq!(may_wait(&mixed, &LoadOrder::default(), entry), HashSet::new());
    }
}
