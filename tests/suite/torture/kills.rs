//! SIGKILL and SIGTERM at any moment of any command.

use std::collections::HashMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::arena::{Arena, MAJOR, SHAPES, Shape};
use super::campaign::{Campaign, Dice};
use crate::support::database::Database;
use crate::support::program::{Run, run};

/// Of one arena, so that looking through all its backups stays quick.
const ROUNDS: usize = 6;

const CREATE: &[&str] = &["restore", "latest", "--jobs", "2", "--create", "--clean"];
const IN_PLACE: &[&str] = &[
    "restore",
    "latest",
    "--data-only",
    "--clean",
    "--table",
    "public.facts",
    "--table",
    "public.few",
];
const RULES: &[&str] = &["retention", "apply"];
const WORDS: [&[&str]; 17] = [
    &["backup", "--jobs", "1"],
    &["backup", "--jobs", "2"],
    &["backup", "--jobs", "1", "--format", "plain"],
    &["verify", "--all"],
    &["verify", "latest", "--drill"],
    &["prune", "--retention", "30d"],
    &["restore", "latest", "--jobs", "2", "--clean"],
    &["restore", "latest", "--jobs", "1", "--clean"],
    &["restore", "latest", "--clean", "--keep-going", "--check"],
    &["restore", "latest", "--table", "public.facts", "--clean"],
    CREATE,
    IN_PLACE,
    &["download", "latest", "-o", "downloaded", "--force"],
    &["doctor"],
    &["list"],
    &["status"],
    RULES,
];

/// Arenas by shape, each for some rounds.
#[derive(Default)]
struct Arenas(HashMap<u8, (usize, Arena)>);

impl Arenas {
    fn of(&mut self, shape: Shape) -> &mut Arena {
        if self.0.get(&(shape as u8)).is_some_and(|(used, _)| *used == ROUNDS) {
            self.0.remove(&(shape as u8));
        }
        let (used, arena) = self.0.entry(shape as u8).or_insert_with(|| (0, Arena::new(shape)));
        *used += 1;
        arena
    }
}

/// How long each command takes if it is not killed, as far as that is known: most signals are to hit.
#[derive(Default)]
struct Times(HashMap<(&'static [&'static str], Shape), Duration>);

impl Times {
    fn of(&mut self, words: &'static [&'static str], arena: &Arena) -> &mut Duration {
        self.0.entry((words, arena.shape)).or_insert_with(|| match words {
            // Both start a server first.
            [.., "--drill"] | ["doctor"] => Duration::from_secs(3).max(arena.usual),
            ["list" | "status" | "retention" | "download", ..] => arena.usual.mul_f64(0.5),
            _ => arena.usual,
        })
    }
}

/// Gives what it was doing, and how it ended.
fn cut_off(
    arena: &mut Arena,
    signal: Signal,
    dice: &mut Dice,
    times: &mut Times,
    target: &Database,
) -> (&'static [&'static str], Run) {
    let words = match dice.pick(&WORDS) {
        // A folder has no rules.
        RULES if arena.shape != Shape::Bucket => &["status"],
        words => words,
    };
    let mut command = arena.command(words);
    if words[0] == "restore" {
        command.args(["--target", &target.url()]);
    }
    if words == IN_PLACE {
        arena.assert_restores(target, CREATE);
    }
    let usual = times.of(words, arena);
    let moment = dice.moment(*usual);
    let running = arena.site.start(&mut command);
    sleep(moment);
    // It may have ended already.
    let pid = rustix::process::Pid::from_raw(running.pid() as i32).unwrap();
    let _ = rustix::process::kill_process(pid, signal);
    let run = running.end(Duration::from_secs(40));
    match run.status.code() {
        Some(0 | 1 | 3) => *usual = moment.mul_f64(0.9),
        // Its end may be later than all moments that are tried.
        _ if moment > usual.mul_f64(0.7) => *usual = usual.mul_f64(1.15),
        _ => {}
    }
    arena.note_if_backup(words, &run);
    (words, run)
}

impl Arena {
    fn note_if_backup(&mut self, words: &[&str], run: &Run) {
        if words[0] == "backup" {
            self.note(run);
        }
    }

    /// Watchdogs and children of a killed run end by themselves, soon.
    fn assert_its_helpers_end(&self) {
        let patience = Instant::now() + Duration::from_secs(12);
        while !self.site.processes().is_empty() {
            assert!(Instant::now() < patience, "{:?}", self.site.processes());
            sleep(Duration::from_millis(50));
        }
    }

    /// A restore that was cut off can be done again.
    pub fn assert_restores(&self, target: &Database, words: &[&str]) {
        // A server notices a little later that the client is gone.
        let patience = Instant::now() + Duration::from_secs(5);
        let run = loop {
            let run = run(self.command(words).args(["--target", &target.url()]));
            if run.status.code() == Some(0) || Instant::now() > patience {
                break run;
            }
            sleep(Duration::from_millis(200));
        };
        assert_eq!(run.status.code(), Some(0), "{words:?}: {}", run.stderr);
        self.assert_has_all(target);
    }

    fn assert_has_all(&self, target: &Database) {
        let sums = "SELECT count(*), md5(string_agg(body, '' ORDER BY n)) FROM facts";
        assert_eq!(target.sql(sums), self.database.sql(sums));
    }

    fn assert_restores_after(&self, words: &[&str], target: &Database) {
        if words == IN_PLACE {
            // All of it or nothing, and it was all there before.
            self.assert_has_all(target);
        }
        if words[0] == "restore" {
            self.assert_restores(target, words);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigkill_at_any_moment_loses_nothing_and_the_next_run_clears_up() {
    let (mut arenas, mut times) = (Arenas::default(), Times::default());
    let target = Database::fresh(MAJOR);
    tokio::task::block_in_place(|| {
        Campaign::of("SIGKILL", 6).run(|_, dice| {
            let arena = arenas.of(dice.pick(&SHAPES));
            let (words, run) = cut_off(arena, Signal::KILL, dice, &mut times, &target);
            arena.assert_its_helpers_end();
            arena.assert_all_good();
            arena.assert_restores_after(words, &target);
            arena.assert_goes_on();
            arena.assert_all_good();
            format!(
                "{}: {}",
                words[0],
                if run.status.code().is_some() {
                    "ended before"
                } else {
                    "killed"
                }
            )
        });
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_at_any_moment_ends_soon_and_leaves_nothing() {
    let (mut arenas, mut times) = (Arenas::default(), Times::default());
    let target = Database::fresh(MAJOR);
    tokio::task::block_in_place(|| {
        Campaign::of("SIGTERM", 6).run(|_, dice| {
            let arena = arenas.of(dice.pick(&SHAPES));
            let (words, run) = cut_off(arena, Signal::TERM, dice, &mut times, &target);
            let came_to = match run.status.code() {
                // The last is what status and doctor say of what they do not like.
                Some(0 | 3 | 1) => "ended before",
                // Before it could listen.
                None => "killed",
                code => {
                    assert_eq!(
                        (code, Arena::code(&run).as_str()),
                        (Some(143), "INTERRUPTED"),
                        "{}",
                        run.stderr
                    );
                    "interrupted"
                }
            };
            arena.assert_all_good();
            arena.assert_nothing_else();
            arena.assert_restores_after(words, &target);
            if came_to == "interrupted" {
                // No run has to wait for a lease.
                let next = crate::support::program::run(&mut arena.backup("1"));
                assert_eq!(next.status.code(), Some(0), "{}", next.stderr);
                arena.note(&next);
            }
            arena.assert_nothing_else();
            format!("{}: {came_to}", words[0])
        });
    });
}
