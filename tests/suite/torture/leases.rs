//! A lease that is lost at any moment of a backup.

use std::thread::sleep;
use std::time::Duration;

use super::arena::{Arena, Shape};
use super::campaign::Campaign;

const ROUNDS: usize = 8;

/// Another run's, which has just begun.
const THEIRS: &str = r#"{"holder": {"host": "elsewhere", "pid": 1}, "run": "another", "backup": null,
    "acquired_at": "2026-01-01T00:00:00Z", "expires_at": "2199-01-01T00:00:00Z", "released": false}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_lost_at_any_moment_ends_the_run_and_shows_nothing() {
    let mut held: Option<(usize, Arena)> = None;
    tokio::task::block_in_place(|| {
        Campaign::of("lost lease", 5).run(|_, dice| {
            if held.as_ref().is_none_or(|(used, _)| *used == ROUNDS) {
                held = Some((0, Arena::new(dice.pick(&[Shape::TwoFolders, Shape::Bucket]))));
            }
            let (used, arena) = held.as_mut().unwrap();
            *used += 1;
            let before = arena.manifests();
            let stolen = dice.below(2) == 0;
            let mut command = arena.backup(dice.pick(&["1", "2"]));
            let mut running = arena.site.start(&mut command);
            let moment = dice.moment(arena.usual);
            sleep(moment);
            // While it is still to be put for the first time there is nothing to lose.
            running.until("the lease is there", || arena.lease_is_there());
            arena.set_lease(stolen.then_some(THEIRS));
            let run = running.end(Duration::from_secs(20));
            let what = if stolen { "stolen" } else { "removed" };
            let how = format!("{:?}: {what}", arena.shape);
            let came_to = if arena.note(&run).is_some() {
                format!("{how}: too late")
            } else {
                let code = Arena::code(&run);
                assert_eq!(code, "BUSY", "{}", run.stderr);
                assert_eq!(arena.manifests(), before, "{}", run.stderr);
                format!("{how}: BUSY")
            };
            arena.set_lease(None);
            arena.assert_all_good();
            arena.assert_goes_on();
            came_to
        });
    });
}
