//! Two runs of one database never interleave.

use std::time::Duration;

use pgstow::error::Code;
use pgstow::repository::lease::{Holder, Lease};

use super::crashing::{Fate, Script};
use super::place::{Place, State};
use super::world::*;

fn places() -> [Place; 2] {
    [Place::folder(), block_on(Place::prefix())]
}

fn lease(state: &State) -> serde_json::Value {
    let (_, found) = state.objects.iter().find(|(key, _)| key.ends_with("/.lease")).unwrap();
    serde_json::from_slice(&found.body).unwrap()
}

#[test]
fn of_two_runs_at_once_one_is_busy_and_names_the_other() {
    for place in places() {
        let mut world = World::new(vec![place]);
        world.host = "the-first-host".to_owned();
        let script = Script::first(&["upload "], Fate::Hold);
        let (first, second) = block_on(async {
            let second = async {
                script.held().await;
                let second = world.backup(None, None).await;
                script.resume();
                second
            };
            tokio::join!(world.backup(Some(&script), None), second)
        });
        let busy = second.unwrap_err();
        assert_eq!(busy.code(), Code::Busy);
        let holder = format!("process {} on the-first-host", std::process::id());
        let id = first.unwrap().id;
        assert!(
            busy.message().contains(&holder) && busy.message().contains(&id.to_string()),
            "{busy}"
        );
        let state = world.state();
        assert_eq!(backups(&state).into_keys().collect::<Vec<_>>(), [id]);
        assert_clean(&state);
    }
}

#[test]
fn a_dead_runs_lease_keeps_others_out_until_it_expires_and_no_longer() {
    for place in places() {
        let world = World::new(vec![place]);
        assert!(matches!(
            world.run_by(&Script::first(&["upload "], Fate::Die)),
            End::Died
        ));
        advance(LEASE - 1);
        assert_eq!(world.run().unwrap_err().code(), Code::Busy);
        advance(1);
        let previous = world.run().unwrap().took_over.unwrap();
        assert_eq!(previous.holder.host, "here");
        assert!(previous.backup.is_some());
    }
}

#[test]
fn the_lease_is_given_back_after_success_and_after_failure() {
    for place in places() {
        let world = World::new(vec![place]);
        world.run().unwrap();
        assert_eq!(lease(&world.state())["released"], true);
        advance(1);
        block_on(world.backup(Some(&Script::first(&["complete "], Fate::Reject)), None)).unwrap_err();
        assert_eq!(lease(&world.state())["released"], true);
        assert!(world.run().unwrap().took_over.is_none());
    }
}

#[test]
fn a_run_that_lost_its_lease_before_the_commit_publishes_nothing() {
    for place in places() {
        let world = World::new(vec![place]);
        let script = Script::first(&["SHA256SUMS if absent"], Fate::Hold);
        let (slow, quick) = block_on(async {
            let quick = async {
                script.held().await;
                world.let_the_lease_expire();
                let quick = world.backup(None, None).await;
                script.resume();
                quick
            };
            tokio::join!(world.backup(Some(&script), None), quick)
        });
        let quick = quick.unwrap();
        assert!(quick.took_over.is_some());
        let error = slow.unwrap_err();
        assert_eq!(error.code(), Code::Busy, "{error}");
        let state = world.state();
        assert_eq!(backups(&state).into_keys().collect::<Vec<_>>(), [quick.id]);
        assert_backups_are_whole(&state);
        assert_clean(&state);
    }
}

#[test]
fn a_lease_that_is_lost_while_the_database_is_read_stops_the_run() {
    for place in places() {
        let mut world = World::new(vec![place]);
        // Short, since its renewals take real time; not so short that a busy machine misses one.
        world.settings.lease = Duration::from_secs(6);
        // Held in the middle of an upload; the renewals go on beside it, and meet the other's lease.
        let script = Script::first(&["write "], Fate::Hold);
        let (error, _other) = block_on(async {
            let other = async {
                script.held().await;
                let store = world.places[0].store(&world.settings).await;
                let database = &world.database.name;
                loop {
                    // Often in vain: the run renews its lease in between.
                    advance(7);
                    let holder = Holder {
                        host: "another".to_owned(),
                        pid: 1,
                    };
                    let ttl = Duration::from_secs(60);
                    if let Ok(acquired) = Lease::acquire(store.clone(), database, holder, ttl, clock).await {
                        return acquired;
                    }
                }
            };
            let (run, other) = tokio::join!(world.backup(Some(&script), None), other);
            (run.unwrap_err(), other.lease)
        });
        assert_eq!(error.code(), Code::Busy, "{error}");
        let state = world.state();
        assert!(backups(&state).is_empty());
        assert_clean(&state);
        world.assert_nothing_left_here();
    }
}

#[test]
fn a_dead_runs_id_is_not_used_again_even_if_it_stored_nothing() {
    for place in places() {
        let world = World::new(vec![place]);
        let script = Script::first(&["upload "], Fate::Die);
        assert!(matches!(world.run_by(&script), End::Died));
        let died = script.calls().pop().unwrap();
        world.let_the_lease_expire();
        // The clock is set right by just as much.
        block_on(world.places[0].expire_lease());
        advance(-LEASE - 1);
        let id = world.run().unwrap().id.to_string();
        assert!(!died.contains(&id), "{id} and {died}");
        assert_clean(&world.state());
    }
}

#[test]
fn a_clock_that_steps_back_makes_no_id_twice_and_no_backup_older_than_the_last() {
    for place in places() {
        let world = World::new(vec![place]);
        let first = world.run().unwrap().id;
        // By as much as clocks may differ: the next one is later all the same.
        advance(-280);
        let second = world.run().unwrap().id;
        assert!(second > first);
        let state = world.state();
        if world.places[0].has_lifecycle() {
            assert_tagged(&state, 1);
        }
        // By more: what was made then is dated in the future, and no id is built from that.
        advance(-7200);
        let third = world.run().unwrap().id;
        assert!(third < first);
        // When its second has come, it is not given away again.
        advance(7200 + 280);
        let fourth = world.run().unwrap().id;
        assert!(fourth > second);
        assert_eq!(backups(&world.state()).len(), 4);
    }
}
