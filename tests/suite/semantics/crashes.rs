//! A run dies at every call that it makes of its store, or meets a fault there.

use std::collections::BTreeSet;

use pgstow::error::{Code, Signal};
use pgstow::repository::backup_id::BackupId;
use pgstow::repository::leftovers::LeftOverOutcome;
use pgstow::run::stop::{Reason, Stop};

use super::crashing::{Fate, Script};
use super::place::{Place, State};
use super::world::*;

/// So that no run asks for more manifests than another: call number n is the same in all of them.
const ONE_TIER: (&str, &str) = ("BACKUP_RETENTION", "30d");

/// What a matrix is tried on. All of its calls are tried where pg_dump's output is a recorded one, and every
/// sixth where a real pg_dump reads the database each time.
#[derive(Clone, Copy)]
struct Trial {
    bucket: bool,
    real: bool,
    shard: usize,
    of: usize,
}

const FOLDER: Trial = Trial {
    bucket: false,
    real: false,
    shard: 0,
    of: 1,
};
const S3: Trial = Trial { bucket: true, ..FOLDER };

impl Trial {
    const fn real(self) -> Self {
        Self {
            real: true,
            of: 6,
            ..self
        }
    }

    const fn shard(self, shard: usize, of: usize) -> Self {
        Self { shard, of, ..self }
    }

    fn place(self) -> Place {
        if self.bucket {
            block_on(Place::prefix())
        } else {
            Place::folder()
        }
    }

    fn world(self) -> World {
        self.recorded(World::with(vec![self.place()], &[ONE_TIER]))
    }

    /// The parts of S3's store are 5 MiB here, and the database is larger than one: so there are
    /// uploads in progress to be left behind.
    fn world_of_parts(self) -> World {
        if !self.bucket {
            return self.world();
        }
        let settings = [ONE_TIER, ("BACKUP_COMPRESSION", "none")];
        let mut world = World::with(vec![self.place()], &settings);
        world.settings.s3.part_size = 5 << 20;
        world
            .database
            .sql("CREATE TABLE bulk AS SELECT n, repeat(md5(n::text), 32) AS text FROM generate_series(1, 6500) n");
        self.recorded(world)
    }

    fn recorded(self, mut world: World) -> World {
        if !self.real {
            world.record();
        }
        world
    }

    /// Those of an undisturbed run's calls that are this trial's.
    fn calls(self, world: &World, of_each: usize) -> Vec<(usize, String)> {
        let calls = calls_with_effect(world, of_each);
        calls.into_iter().skip(self.shard).step_by(self.of).collect()
    }
}

/// What the bucket's lifecycle will do, and what keeps the store from growing with the test.
fn tidy(world: &World) {
    let state = world.state();
    let mut gone = orphans(&state);
    let kept: BTreeSet<BackupId> = backups(&state).into_keys().rev().take(2).collect();
    gone.extend(
        state
            .objects
            .keys()
            .filter(|key| {
                BackupId::of_key(key).is_some_and(|(id, _)| backups(&state).contains_key(&id) && !kept.contains(&id))
            })
            .cloned(),
    );
    world.remove(gone);
}

/// What is true of a store at every moment, whatever became of the run after `before`.
fn assert_nothing_was_lost(before: &State, after: &State) {
    assert_backups_are_whole(after);
    let (was, is) = (backups(before), backups(after));
    let newest = was.keys().next_back().unwrap();
    for (id, manifest) in &was {
        assert_eq!(is.get(id), Some(manifest), "{id} is as it was");
    }
    if is.len() == was.len() {
        // Until the next one is committed, the last good one is as safe as it was.
        for (key, found) in &before.objects {
            if BackupId::of_key(key).is_some_and(|(id, _)| id == *newest) {
                assert_eq!(after.objects.get(key), Some(found), "{key}");
            }
        }
    }
    for id in is.keys() {
        assert!(!tiers(after, id).contains("pending"), "{id}");
    }
    let last = is.keys().next_back().unwrap();
    let expected = before.objects[&newest.manifest_key()].tier.clone().unwrap_or_default();
    assert_eq!(
        tiers(after, last),
        BTreeSet::from([expected]),
        "the last good backup never expires"
    );
}

/// The run after a dead one: whatever that left is found, reported and given up.
fn assert_the_next_run_cleans(world: &World, wreck: &State, lease_was_held: bool) {
    let mut expected: BTreeSet<String> = wreck.unfinished.iter().cloned().collect();
    expected.extend(
        orphans(wreck)
            .into_iter()
            .filter(|key| wreck.objects[key].tier.as_deref() != Some("pending")),
    );
    let report = world.run().unwrap();
    let reported: BTreeSet<String> = report.leftovers.iter().map(|one| one.key.clone()).collect();
    assert_eq!(reported, expected);
    assert!(
        report
            .leftovers
            .iter()
            .all(|one| !matches!(one.outcome, LeftOverOutcome::Failed(_)))
    );
    assert_eq!(report.took_over.is_some(), lease_was_held);
    assert_eq!(report.warnings, [""; 0]);

    let state = world.state();
    assert_backups_are_whole(&state);
    assert_clean(&state);
    let (was, is) = (backups(wreck), backups(&state));
    assert_eq!(is.len(), was.len() + 1);
    assert!(was.keys().all(|id| is.contains_key(id)), "a backup was lost");
    assert_eq!(is.keys().next_back(), Some(&report.id));
    if world.places[0].has_lifecycle() {
        assert_tagged(&state, 1);
    }
}

fn lease_is_held(state: &State) -> bool {
    let lease = state.objects.iter().find(|(key, _)| key.ends_with("/.lease"));
    lease.is_some_and(|(_, found)| {
        let body: serde_json::Value = serde_json::from_slice(&found.body).unwrap();
        body["released"] != true
    })
}

/// The calls of an undisturbed run that change something, by number and verb. Reads do not: a
/// death right after one leaves what a death right after the call before it leaves. Of the writes
/// into an upload, the first, the last and one between are enough; for faults, where `of_each` says
/// so, the first and the last of the taggings too.
fn calls_with_effect(world: &World, of_each: usize) -> Vec<(usize, String)> {
    // As many backups as `tidy` keeps, so that the runs to come make the same calls.
    for _ in 0..2 {
        world.run().unwrap();
        advance(1);
    }
    let script = Script::watch();
    let End::Returned(result) = world.run_by(&script) else {
        panic!("nobody died")
    };
    result.unwrap();
    advance(1);
    tidy(world);
    let calls: Vec<(usize, String)> = (1..)
        .zip(script.calls())
        .map(|(number, call)| (number, call.split(' ').next().unwrap().to_owned()))
        .collect();
    let mut chosen = Vec::new();
    for (verb, most) in [
        ("upload", 9),
        ("complete", 9),
        ("put", 99),
        ("write", 3),
        ("set_tags", of_each),
    ] {
        let these: Vec<_> = calls.iter().filter(|(_, this)| this == verb).cloned().collect();
        let step = these.len().div_ceil(most).max(1);
        chosen.extend(these.iter().step_by(step).cloned());
        chosen.extend(these.last().cloned());
    }
    chosen.sort();
    chosen.dedup();
    assert_eq!(chosen.last().unwrap().1, "put", "the lease is given back last");
    chosen
}

fn dies_everywhere(trial: Trial) {
    let world = trial.world_of_parts();
    for (number, verb) in trial.calls(&world, 99) {
        advance(1);
        let before = world.state();
        let script = Script::at(number, Fate::Die);
        let End::Died = world.run_by(&script) else {
            panic!("call {number} did not come")
        };
        let call = &script.calls()[number - 1];
        println!("dies at call {number}: {call}");
        assert!(call.starts_with(&verb));
        let wreck = world.state();
        assert_nothing_was_lost(&before, &wreck);
        world.assert_nothing_left_here();
        world.let_the_lease_expire();
        assert_the_next_run_cleans(&world, &wreck, lease_is_held(&wreck));
        tidy(&world);
    }
}

/// The call fails and, where `down`, so do all that follow.
fn fails_everywhere(trial: Trial, fate: Fate, down: bool) {
    let world = trial.world();
    let bucket = trial.bucket;
    for (number, verb) in trial.calls(&world, 2) {
        advance(1);
        let before = world.state();
        let script = Script::new(move |this, call| match this {
            // An upload that could not be begun was not begun: its answer does not travel alone.
            // A file's completion tells the truth: it is a system call here.
            _ if this == number && call.starts_with("upload ") => Fate::Reject,
            _ if this == number && call.starts_with("complete ") && !bucket && !down => Fate::Reject,
            _ if this == number => fate,
            _ if down && this > number => Fate::Unreachable,
            _ => Fate::Pass,
        });
        let End::Returned(result) = world.run_by(&script) else {
            panic!("nobody died")
        };
        let call = script.calls()[number - 1].clone();
        let outcome = match &*result {
            Ok(report) => format!("a backup, {} warnings", report.warnings.len()),
            Err(error) => error.code().to_string(),
        };
        println!("fails at call {number}: {call}: {outcome}");
        assert!(call.starts_with(&verb));
        let after = world.state();
        assert_nothing_was_lost(&before, &after);
        world.assert_nothing_left_here();
        let made = backups(&after).len() - backups(&before).len();
        match &*result {
            Ok(report) => {
                assert_eq!(backups(&after).keys().next_back(), Some(&report.id));
                assert!(report.stores[0].holds_backup);
            }
            Err(error) => {
                assert!(error.message().contains("scripted fault"), "{error}");
                let is_commit = call.ends_with("/manifest.json if absent");
                if is_commit && fate == Fate::LoseAnswer && down {
                    // The run cannot know that; the backup was committed.
                    assert_eq!(made, 1);
                    assert!(error.hint_text().contains("may exist"), "{}", error.hint_text());
                } else {
                    assert_eq!(made, 0);
                }
            }
        }
        if !down {
            assert_clean(&after);
        }
        // After a refusal the store is clean: only what is half done is left to the next run.
        if down || lease_is_held(&after) || result.is_ok_and(|report| !report.warnings.is_empty()) {
            world.let_the_lease_expire();
            assert_the_next_run_cleans(&world, &after, lease_is_held(&after));
        }
        tidy(&world);
    }
}

fn is_stopped_everywhere(trial: Trial) {
    let mut world = trial.world();
    for (number, _) in trial.calls(&world, 2) {
        advance(1);
        let before = world.state();
        let stop = world.stop.clone();
        let script = Script::new(move |this, _| {
            if this == number {
                stop.request(Reason::Signal(Signal::Terminate));
            }
            Fate::Pass
        });
        let End::Returned(result) = world.run_by(&script) else {
            panic!("nobody died")
        };
        let after = world.state();
        assert_nothing_was_lost(&before, &after);
        assert_clean(&after);
        assert!(!lease_is_held(&after));
        world.assert_nothing_left_here();
        let made = backups(&after).len() - backups(&before).len();
        match *result {
            Ok(_) => assert_eq!(made, 1),
            Err(error) => assert_eq!((made, error.code()), (0, Code::Interrupted(Signal::Terminate))),
        }
        world.stop = Stop::new();
        tidy(&world);
    }
}

macro_rules! tests {
    ($($name:ident: $work:expr;)*) => {$(
        #[test]
        fn $name() {
            $work;
        }
    )*};
}

tests! {
    a_run_that_dies_anywhere_in_a_folder_costs_nothing: dies_everywhere(FOLDER);
    a_run_that_dies_anywhere_in_s3_costs_nothing_1: dies_everywhere(S3.shard(0, 3));
    a_run_that_dies_anywhere_in_s3_costs_nothing_2: dies_everywhere(S3.shard(1, 3));
    a_run_that_dies_anywhere_in_s3_costs_nothing_3: dies_everywhere(S3.shard(2, 3));
    a_real_run_that_dies_in_a_folder_costs_nothing: dies_everywhere(FOLDER.real());
    a_real_run_that_dies_in_s3_costs_nothing: dies_everywhere(S3.real());

    whatever_a_folder_refuses_nothing_half_made_is_left: fails_everywhere(FOLDER, Fate::Reject, false);
    whatever_s3_refuses_nothing_half_made_is_left: fails_everywhere(S3, Fate::Reject, false);
    whichever_answer_of_a_folder_is_lost_nothing_half_made_is_left: fails_everywhere(FOLDER, Fate::LoseAnswer, false);
    whichever_answer_of_s3_is_lost_nothing_half_made_is_left: fails_everywhere(S3, Fate::LoseAnswer, false);
    a_folder_that_goes_away_at_any_call_keeps_its_backups: fails_everywhere(FOLDER, Fate::LoseAnswer, true);
    an_s3_that_goes_away_at_any_call_keeps_its_backups: fails_everywhere(S3, Fate::LoseAnswer, true);
    what_a_folder_refuses_a_real_run_leaves_nothing_half_made: fails_everywhere(FOLDER.real(), Fate::Reject, false);
    what_s3_refuses_a_real_run_leaves_nothing_half_made: fails_everywhere(S3.real().shard(1, 6), Fate::Reject, false);
    a_folder_that_goes_away_from_a_real_run_keeps_its_backups:
        fails_everywhere(FOLDER.real().shard(2, 6), Fate::LoseAnswer, true);
    an_s3_that_goes_away_from_a_real_run_keeps_its_backups:
        fails_everywhere(S3.real().shard(3, 6), Fate::LoseAnswer, true);

    a_run_that_is_stopped_anywhere_in_a_folder_leaves_nothing: is_stopped_everywhere(FOLDER);
    a_run_that_is_stopped_anywhere_in_s3_leaves_nothing: is_stopped_everywhere(S3);
    a_real_run_that_is_stopped_in_a_folder_leaves_nothing: is_stopped_everywhere(FOLDER.real().shard(4, 6));
    a_real_run_that_is_stopped_in_s3_leaves_nothing: is_stopped_everywhere(S3.real().shard(5, 6));
}
