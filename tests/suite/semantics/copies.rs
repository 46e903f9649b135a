//! Further stores get copies: they may fail, the primary may not.

use super::crashing::{Fate, Script};
use super::place::Place;
use super::world::*;

/// With the copy in S3, or the primary.
fn world(copy_in_s3: bool) -> World {
    let mut places = vec![Place::folder(), block_on(Place::prefix())];
    if !copy_in_s3 {
        places.reverse();
    }
    World::with(places, &[("BACKUP_RETENTION", "30d")])
}

/// One in which no run reads the database anew.
fn recorded(copy_in_s3: bool) -> World {
    let mut world = world(copy_in_s3);
    world.record();
    world
}

fn worlds() -> [World; 2] {
    [world(true), world(false)]
}

/// The numbers of the calls to one of the two stores that change something.
fn calls_to(world: &World, place: usize) -> Vec<usize> {
    world.run().unwrap();
    advance(1);
    let script = Script::watch();
    let mut scripts = [None, None];
    scripts[place] = Some(script.clone());
    block_on(world.backup_by(&scripts, None)).unwrap();
    advance(1);
    // One of each kind; crashes.rs tries them all.
    let changes = |(_, call): &(usize, String)| {
        let ends = [
            ".dump",
            "SHA256SUMS if absent",
            "manifest.json if absent",
            "manifest.json",
        ];
        ["upload ", "write ", "complete ", "put ", "set_tags "]
            .iter()
            .any(|verb| call.starts_with(verb))
            && ends.iter().any(|end| call.ends_with(end))
    };
    let calls = script.calls().into_iter().enumerate();
    calls.filter(changes).map(|(number, _)| number + 1).collect()
}

fn by(place: usize, script: &std::sync::Arc<Script>) -> [Option<std::sync::Arc<Script>>; 2] {
    let mut scripts = [None, None];
    scripts[place] = Some(script.clone());
    scripts
}

fn copy_fails(world: &World) {
    for number in calls_to(world, 1) {
        advance(1);
        let script = Script::at(number, Fate::Reject);
        let report = block_on(world.backup_by(&by(1, &script), None)).unwrap();
        let (primary, copy) = (world.state(), world.state_of(1));
        assert!(report.stores[0].holds_backup && report.stores[0].error.is_none());
        assert!(backups(&primary).contains_key(&report.id));
        let held = backups(&copy).contains_key(&report.id);
        assert_eq!(report.stores[1].holds_backup, held, "{}", script.calls()[number - 1]);
        // What fails after the commit is a warning: the next run tags again.
        let told = if held {
            !report.warnings.is_empty()
        } else {
            report.stores[1].error.is_some()
        };
        assert!(told, "{}", script.calls()[number - 1]);
        for state in [&primary, &copy] {
            assert_backups_are_whole(state);
            assert_clean(state);
        }
    }
}

#[test]
fn a_copy_that_cannot_be_reached_is_reported_and_left_out() {
    for world in worlds() {
        let script = Script::first(&["reach"], Fate::Reject);
        let report = block_on(world.backup_by(&by(1, &script), None)).unwrap();
        let holders: Vec<bool> = report.stores.iter().map(|store| store.holds_backup).collect();
        assert_eq!(holders, [true, false]);
        assert_eq!(report.stores[1].url, world.places[1].url());
        assert!(world.state_of(1).objects.is_empty());
        assert_eq!(script.calls(), ["reach"]);
    }
}

fn primary_fails(world: &World) {
    for number in calls_to(world, 0) {
        advance(1);
        let before = backups(&world.state_of(1)).len();
        let script = Script::at(number, Fate::Reject);
        let result = block_on(world.backup_by(&by(0, &script), None));
        let (primary, copy) = (world.state(), world.state_of(1));
        for state in [&primary, &copy] {
            assert_backups_are_whole(state);
            assert_clean(state);
        }
        assert_eq!(backups(&copy).len(), before + usize::from(result.is_ok()));
        // The lease of a run that could not give it back.
        world.let_the_lease_expire();
    }
}

/// Of the calls to each store it tries one in `every`.
fn dies(world: &World, every: usize) {
    for place in [1, 0] {
        for number in calls_to(world, place).into_iter().step_by(every) {
            advance(1);
            let script = Script::at(number, Fate::Die);
            if let End::Returned(result) = world.run_all_by(&by(place, &script)) {
                panic!("call {number} did not come: {:?}", result.map(|report| report.id));
            }
            for state in [world.state(), world.state_of(1)] {
                assert_backups_are_whole(&state);
            }
            world.let_the_lease_expire();
            let left = world.state_of(1);
            let expected = left.unfinished.len()
                + orphans(&left)
                    .iter()
                    .filter(|key| left.objects[*key].tier.as_deref() != Some("pending"))
                    .count();
            let report = world.run().unwrap();
            let in_the_copy = report.leftovers.iter().filter(|one| one.store.is_some());
            assert_eq!(in_the_copy.count(), expected, "{}", script.calls()[number - 1]);
            assert!(report.stores.iter().all(|store| store.holds_backup));
            for state in [world.state(), world.state_of(1)] {
                assert_backups_are_whole(&state);
                assert_clean(&state);
            }
        }
    }
}

#[test]
fn a_copy_in_s3_that_fails_anywhere_costs_only_itself_and_the_report_says_so() {
    copy_fails(&recorded(true));
}

#[test]
fn a_copy_in_a_folder_that_fails_anywhere_costs_only_itself_and_the_report_says_so() {
    copy_fails(&recorded(false));
}

#[test]
fn a_primary_in_a_folder_that_fails_anywhere_leaves_nothing_in_the_copies() {
    primary_fails(&recorded(true));
}

#[test]
fn a_primary_in_s3_that_fails_anywhere_leaves_nothing_in_the_copies() {
    primary_fails(&recorded(false));
}

#[test]
fn what_a_dead_run_left_in_a_copy_in_s3_is_cleared_by_the_next_run() {
    dies(&recorded(true), 1);
}

#[test]
fn what_a_dead_run_left_in_a_copy_in_a_folder_is_cleared_by_the_next_run() {
    dies(&recorded(false), 1);
}

#[test]
fn what_a_dead_real_run_left_in_a_copy_is_cleared_by_the_next_run() {
    for world in worlds() {
        dies(&world, 4);
    }
}
