//! An S3 store that fails at any request, while it is written to and while it is read.

use std::time::Duration;

use super::arena::{Arena, MAJOR, Shape};
use super::campaign::{Campaign, Dice};
use crate::support::database::Database;
use crate::support::fault_proxy::{Fault, FaultProxy, On};
use crate::support::program::run;
use crate::support::services::s3;

const ROUNDS: usize = 6;
const RESTORE: &[&str] = &["restore", "latest", "--jobs", "2", "--create", "--clean"];
/// A backup makes about so many requests.
const REQUESTS: usize = 40;

fn any_fault(dice: &mut Dice) -> Fault {
    match dice.below(11) {
        0 => Fault::Reject(503),
        1 => Fault::Reject(500),
        2 => Fault::Reject(429),
        3 => Fault::Reject(403),
        4 => Fault::Reset {
            after: dice.below(4000),
        },
        5 => Fault::LoseAnswer,
        6 => Fault::Lie(500),
        7 => Fault::Delay(Duration::from_millis(300)),
        8 => Fault::CorruptBody,
        9 => Fault::CutAnswer { after: dice.below(300) },
        _ => Fault::WrongChecksum,
    }
}

/// Of one shape.
struct Held {
    used: usize,
    arena: Arena,
    proxy: FaultProxy,
}

fn held(held: &mut Option<Held>, shape: Shape) -> &mut Held {
    if held
        .as_ref()
        .is_none_or(|held| held.used == ROUNDS || held.arena.shape != shape)
    {
        *held = Some(Held {
            used: 0,
            arena: Arena::new(shape),
            proxy: super::arena::wait(FaultProxy::start(&s3().endpoint)),
        });
    }
    let held = held.as_mut().unwrap();
    held.used += 1;
    held.proxy.heal();
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_at_any_request_costs_a_backup_at_most() {
    let (mut primary, mut copy) = (None, None);
    tokio::task::block_in_place(|| {
        Campaign::of("S3 write faults", 8).run(|_, dice| {
            // The store that fails is the only one, or has the copies.
            let Held { arena, proxy, .. } = match dice.below(3) {
                0 => held(&mut copy, Shape::FolderAndBucket),
                _ => held(&mut primary, Shape::Bucket),
            };
            for _ in 0..=dice.below(3) {
                let first = 1 + dice.below(REQUESTS);
                // Some fail again and again.
                let last = first + dice.pick(&[0, 0, 0, 4, 40]);
                proxy.fault(On::any().calls(first..=last), any_fault(dice));
            }
            let mut command = arena.backup(dice.pick(&["1", "2"]));
            let run = run(command.env("AWS_ENDPOINT_URL_S3", proxy.url()));
            let hit = proxy.faults() > 0;
            proxy.heal();
            let came_to = match arena.note(&run) {
                Some(_) if run.status.code() == Some(3) => "made, and a copy failed".to_owned(),
                Some(_) if hit => "made all the same".to_owned(),
                Some(_) => "not hit".to_owned(),
                None => Arena::code(&run),
            };
            arena.assert_all_good();
            arena.assert_goes_on();
            came_to
        });
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_while_it_is_read_never_makes_a_good_backup_a_bad_one() {
    let mut place = None;
    let target = Database::fresh(MAJOR);
    tokio::task::block_in_place(|| {
        Campaign::of("S3 read faults", 8).run(|_, dice| {
            let Held { arena, proxy, .. } = held(&mut place, Shape::Bucket);
            let first = 1 + dice.below(12);
            let fault = match dice.below(6) {
                0 => Fault::CorruptAnswer,
                1 => Fault::CutAnswer {
                    after: dice.below(20_000),
                },
                2 => Fault::Reject(503),
                3 => Fault::Reject(429),
                4 => Fault::Reset { after: 0 },
                _ => Fault::LoseAnswer,
            };
            proxy.fault(On::any().calls(first..=first), fault.clone());
            let words = dice.pick(&[
                &["verify", "--all"][..],
                &["verify", "latest"],
                &["download", "latest", "-o", "got"],
                &["verify", "latest", "--drill"],
                RESTORE,
            ]);
            let mut command = arena.command(words);
            if words == RESTORE {
                command.args(["--target", &target.url()]);
            }
            let run = run(command.env("AWS_ENDPOINT_URL_S3", proxy.url()));
            proxy.heal();
            drop(std::fs::remove_file(arena.site.path().join("got")));
            let came_to = match run.status.code() {
                Some(0) => "right".to_owned(),
                _ => Arena::code(&run),
            };
            // A list has no checksum, so a flipped bit may hide what is there: but not make it a bad one.
            let hidden = fault == Fault::CorruptAnswer && came_to == "NOT_FOUND";
            assert!(
                hidden || ["right", "STORE"].contains(&came_to.as_str()),
                "{words:?} under {fault:?}: {}\n{}",
                run.stderr,
                run.text()
            );
            arena.assert_all_good();
            if words == RESTORE {
                arena.assert_restores(&target, words);
            }
            format!("{}: {came_to}", words[..words.len().min(3)].join(" "))
        });
    });
}
