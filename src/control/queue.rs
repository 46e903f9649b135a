//! Which run is next: a bounded queue with one run per database at a time. Pure; [`super::begun`] carries the runs out.

use std::collections::VecDeque;

use super::run::RunId;

/// What the queue must know of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub id: RunId,
    /// Runs of the same lane run one after another: the database, or the target that a restore fills.
    pub lane: String,
    /// Runs that would do exactly the same have the same likeness. Two of them never wait at once.
    pub likeness: String,
    /// A schedule asks for it. There are few of these, and they go before those that people and programs ask for: else
    /// whoever fills the queue would put the backups off.
    pub is_due: bool,
}

/// What became of a run that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Admission {
    Queued,
    /// This run waits already, and does the same.
    Same(RunId),
    Full,
}

#[derive(Debug)]
pub(super) struct Queue {
    waiting: VecDeque<Place>,
    running: Vec<Place>,
    max_waiting: usize,
    max_running: usize,
}

impl Queue {
    pub fn new(max_waiting: usize, max_running: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            running: Vec::new(),
            max_waiting,
            max_running,
        }
    }

    pub fn admit(&mut self, place: Place) -> Admission {
        if let Some(same) = self.waiting.iter().find(|other| other.likeness == place.likeness) {
            return Admission::Same(same.id.clone());
        }
        let due = self.waiting.iter().filter(|other| other.is_due).count();
        if place.is_due {
            self.waiting.insert(due, place);
            return Admission::Queued;
        }
        if self.waiting.len() - due >= self.max_waiting {
            return Admission::Full;
        }
        self.waiting.push_back(place);
        Admission::Queued
    }

    /// Takes the run that may start now, if one may: the oldest whose lane is free.
    pub fn start(&mut self) -> Option<RunId> {
        if self.running.len() >= self.max_running {
            return None;
        }
        let is_free = |place: &Place| self.running.iter().all(|other| other.lane != place.lane);
        let at = self.waiting.iter().position(is_free)?;
        let place = self.waiting.remove(at)?;
        let id = place.id.clone();
        self.running.push(place);
        Some(id)
    }

    /// Takes a run out of the queue; returns whether it waited there.
    pub fn withdraw(&mut self, id: &RunId) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|place| place.id != *id);
        self.waiting.len() < before
    }

    /// The run has ended, and its lane is free.
    pub fn end(&mut self, id: &RunId) {
        self.running.retain(|place| place.id != *id);
    }

    /// Whether a run of this likeness runs or waits.
    pub fn has_like(&self, likeness: &str) -> Option<&RunId> {
        let places = self.running.iter().chain(&self.waiting);
        places
            .filter(|place| place.likeness == likeness)
            .map(|place| &place.id)
            .next()
    }

    /// Empties the queue, and names what waited.
    pub fn drain(&mut self) -> Vec<RunId> {
        self.waiting.drain(..).map(|place| place.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> RunId {
        format!("20260131T040500Z-{number:016x}").parse().unwrap()
    }

    fn place(number: u8, lane: &str, likeness: &str) -> Place {
        Place {
            id: id(number),
            lane: lane.to_owned(),
            likeness: likeness.to_owned(),
            is_due: false,
        }
    }

    #[test]
    fn one_run_per_lane_runs_and_others_overtake_what_waits_for_it() {
        let mut queue = Queue::new(10, 2);
        for (number, lane) in [(1, "shop"), (2, "shop"), (3, "crm"), (4, "wiki")] {
            assert_eq!(queue.admit(place(number, lane, &number.to_string())), Admission::Queued);
        }
        assert_eq!(
            (queue.start(), queue.start(), queue.start()),
            (Some(id(1)), Some(id(3)), None)
        );
        queue.end(&id(3));
        assert_eq!((queue.start(), queue.start()), (Some(id(4)), None));
        queue.end(&id(1));
        assert_eq!((queue.start(), queue.start()), (Some(id(2)), None));
    }

    #[test]
    fn what_waits_already_is_not_queued_twice_but_what_runs_may_wait_again() {
        let mut queue = Queue::new(10, 1);
        assert_eq!(queue.admit(place(1, "shop", "full")), Admission::Queued);
        assert_eq!(queue.admit(place(2, "shop", "full")), Admission::Same(id(1)));
        assert_eq!(queue.start(), Some(id(1)));
        assert_eq!(queue.has_like("full"), Some(&id(1)));
        assert_eq!(queue.admit(place(3, "shop", "full")), Admission::Queued);
        assert_eq!(queue.admit(place(4, "shop", "full")), Admission::Same(id(3)));
        assert!(queue.withdraw(&id(3)) && !queue.withdraw(&id(3)) && !queue.withdraw(&id(1)));
    }

    #[test]
    fn what_a_schedule_asks_for_finds_a_place_in_a_full_queue_and_goes_first() {
        let mut queue = Queue::new(2, 1);
        for number in 1..=2 {
            queue.admit(place(number, "shop", &number.to_string()));
        }
        for number in 3..=4 {
            let due = Place {
                is_due: true,
                ..place(number, "shop", &number.to_string())
            };
            assert_eq!(queue.admit(due), Admission::Queued);
        }
        assert_eq!(queue.admit(place(5, "shop", "5")), Admission::Full);
        assert_eq!(queue.drain(), [id(3), id(4), id(1), id(2)]);
    }

    #[test]
    fn a_full_queue_refuses_and_a_drained_one_names_what_waited() {
        let mut queue = Queue::new(2, 1);
        for number in 1..=2 {
            assert_eq!(
                queue.admit(place(number, "shop", &number.to_string())),
                Admission::Queued
            );
        }
        assert_eq!(queue.admit(place(3, "crm", "3")), Admission::Full);
        assert_eq!(queue.drain(), [id(1), id(2)]);
        assert_eq!(queue.start(), None);
    }
}
