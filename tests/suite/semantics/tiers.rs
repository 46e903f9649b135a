//! What expires, and what never does.

use pgstow::repository::retention::{self, Tier};
use pgstow::settings::{Policy, Retention};

use super::crashing::{Fate, Script};
use super::place::Place;
use super::world::*;

fn bucket(env: &[(&str, &str)]) -> World {
    World::with(vec![block_on(Place::prefix())], env)
}

#[test]
fn the_newest_bear_latest_and_their_predecessors_their_tier() {
    let world = bucket(&[("BACKUP_KEEP_LAST", "2")]);
    set_clock("2026-03-30T04:00:00Z");
    let mut made = Vec::new();
    for day in 0..4 {
        made.push(world.run().unwrap());
        assert_tagged(&world.state(), 2);
        advance(86_400 * i64::from(day != 3));
    }
    let tier_of: Vec<Tier> = made.iter().map(|report| report.tier).collect();
    // The first backup of all, and the first of April.
    assert_eq!(tier_of, [Tier::Monthly, Tier::Daily, Tier::Monthly, Tier::Daily]);
}

#[test]
fn a_failed_run_on_the_first_of_the_month_does_not_lose_the_monthly() {
    for place in [Place::folder(), block_on(Place::prefix())] {
        let world = World::new(vec![place]);
        set_clock("2026-03-31T04:00:00Z");
        world.run().unwrap();
        set_clock("2026-04-01T04:00:00Z");
        block_on(world.backup(Some(&Script::first(&["complete "], Fate::Reject)), None)).unwrap_err();
        set_clock("2026-04-02T04:00:00Z");
        // Died after its files were stored: not a good one either.
        assert!(matches!(
            world.run_by(&Script::first(&["SHA256SUMS if absent"], Fate::Die)),
            End::Died
        ));
        set_clock("2026-04-03T04:00:00Z");
        assert_eq!(world.run().unwrap().tier, Tier::Monthly);
        advance(86_400);
        assert_eq!(world.run().unwrap().tier, Tier::Daily);
    }
}

#[test]
fn when_backups_stop_no_rule_matches_the_last_good_one() {
    let world = bucket(&[]);
    world.run().unwrap();
    advance(86_400);
    let last = world.run().unwrap().id;
    // All that comes after it fails or dies.
    for fate in [Fate::Reject, Fate::Die] {
        advance(86_400);
        let _ = world.run_by(&Script::first(&["/manifest.json if absent"], fate));
        if fate == Fate::Die {
            // Committed: then it is the last good one, until its manifest is removed.
            let newest = backups(&world.state()).into_keys().next_back().unwrap();
            assert!(newest > last);
            world.remove([newest.manifest_key()]);
        }
    }
    let state = world.state();
    assert_eq!(tiers(&state, &last), ["latest".to_owned()].into());
    let tiered = vec![
        (Tier::Daily, 1),
        (Tier::Weekly, 1),
        (Tier::Monthly, 1),
        (Tier::Yearly, 1),
    ];
    for policy in [Policy::Days(1), Policy::Tiers(tiered)] {
        for rule in retention::rules(&Retention::of(policy), "") {
            match rule.tag {
                Some((_, tier)) => assert!(tier != "latest"),
                None => assert_eq!(rule.expire_days, None),
            }
        }
    }
}
