//! SIGTERM and SIGINT at moments all over a run: either it was too late and the backup is good, or
//! nothing is left and the exit code, the error and the notification say why.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::database::Database;
use crate::support::impostor::{impostor, trickle};
use crate::support::moto::Topic;
use crate::support::services::cloud;
use crate::support::wreck::{Running, Site, assert_good, assert_no_session, backups, failure};

const MOMENTS: u32 = 15;
/// At once: they mostly wait.
const AT_ONCE: usize = 3;

/// Whether the program has taken the signal into its own hands: before, nothing has begun.
fn listens(pid: u32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default();
    caught & (1 << (signal.as_raw() - 1)) != 0
}

/// Numbers from 0 to 1, the same for the same seed.
struct Moments(u64);

impl Moments {
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn start(site: &Site, database: &Database, topic: &Topic, bin: &std::path::Path) -> Running {
    let mut command = site.backup(&database.url());
    command
        .env("BACKUP_PG_BIN", bin)
        .env("BACKUP_SNS_TOPIC_ARN", &topic.arn);
    site.start(cloud(&mut command))
}

/// How one run ended.
enum End {
    Good,
    Stopped,
}

fn stopped_at(moment: Duration, signal: Signal, exit: i32, database: &Database) -> End {
    let (site, topic) = (Site::new(), Topic::fresh());
    let bin = impostor(site.path(), 15, &trickle(250_000, 0.1));
    let mut running = start(&site, database, &topic, &bin);
    let pid = running.pid();
    running.until("it listens for signals", || listens(pid, signal));
    let begun = Instant::now();
    while begun.elapsed() < moment && !running.is_over() {
        std::thread::sleep(Duration::from_millis(1));
    }
    if !running.is_over() {
        running.signal(signal);
    }
    let run = running.end(Duration::from_secs(20));
    site.assert_nothing_runs();
    let messages = topic.messages();
    let statuses: Vec<(&str, Option<&str>)> = messages
        .iter()
        .map(|message| {
            (
                message.attributes["status"].as_str(),
                message.attributes.get("code").map(String::as_str),
            )
        })
        .collect();
    if run.status.success() {
        let id = run.json()["id"].as_str().unwrap().to_owned();
        assert_good(&site.store(), &id, 15);
        assert_eq!(backups(&site.store()), [id], "{moment:?}");
        assert_eq!(statuses, [("succeeded", None)], "{moment:?}");
        return End::Good;
    }
    let failure = failure(&run, "INTERRUPTED", exit, Some(&database.password()));
    assert!(
        failure.message.starts_with("the run was stopped by SIG"),
        "{moment:?}: {}",
        failure.message
    );
    assert!(!failure.message.contains("and then"), "{moment:?}: {}", failure.message);
    site.assert_nothing_is_left();
    assert_eq!(
        statuses,
        [("failed", Some("INTERRUPTED"))],
        "{moment:?}: {}",
        run.stderr
    );
    let (_, document) = messages[0].body.split_once("\n\n").unwrap();
    let document: Value = serde_json::from_str(document).unwrap();
    assert_eq!(document["error"]["code"], "INTERRUPTED");
    End::Stopped
}

fn at_any_moment(signal: Signal, exit: i32) {
    let database = Database::fresh(15);
    database.sql("CREATE TABLE t AS SELECT i, md5(i::text) AS a FROM generate_series(1, 50000) i");
    // The same moments in every run, unless the seed is set.
    let seed = std::env::var("PGSTOW_TEST_SEED").map_or(u64::from(exit.unsigned_abs()), |seed| seed.parse().unwrap());
    println!("PGSTOW_TEST_SEED={seed}");

    // The quicker of two, since a machine that was busy just then would put all moments too late.
    let whole = (0..2)
        .map(|_| {
            let (site, topic) = (Site::new(), Topic::fresh());
            let bin = impostor(site.path(), 15, &trickle(250_000, 0.1));
            let begun = Instant::now();
            let run = start(&site, &database, &topic, &bin).end(Duration::from_secs(30));
            assert!(run.status.success(), "{}", run.stderr);
            begun.elapsed()
        })
        .min()
        .unwrap();
    let mut random = Moments(seed);
    random.next();
    // The very first and the last are always among them.
    let moments: Vec<Duration> = (0..MOMENTS)
        .map(|number| match number {
            0 => Duration::ZERO,
            1 => whole.mul_f64(0.98),
            _ => whole.mul_f64(1.05 * random.next()),
        })
        .collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let stopped = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(moment) = moments.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    if matches!(stopped_at(*moment, signal, exit, &database), End::Stopped) {
                        stopped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let stopped = stopped.into_inner();
    assert!(
        stopped >= MOMENTS as usize / 3,
        "only {stopped} of {MOMENTS} were stopped: the run is too quick to tell"
    );
    assert_no_session(&database);
}

#[test]
fn sigterm_at_any_moment_leaves_a_good_backup_or_nothing() {
    at_any_moment(Signal::TERM, 143);
}

#[test]
fn sigint_at_any_moment_leaves_a_good_backup_or_nothing() {
    at_any_moment(Signal::INT, 130);
}

#[test]
fn further_signals_do_not_cut_the_clean_up_short() {
    let database = Database::fresh(15);
    database.sql("CREATE TABLE t AS SELECT i, md5(i::text) AS a FROM generate_series(1, 50000) i");
    let (site, topic) = (Site::new(), Topic::fresh());
    // It takes its time over SIGTERM, so there is something to cut short.
    let script = format!("trap 'sleep 1; exit 1' TERM\n{} & wait", trickle(100_000, 0.2));
    let bin = impostor(site.path(), 15, &script);
    let mut running = start(&site, &database, &topic, &bin);
    running.until("the dump has started", || site.path().join("started").exists());
    running.signal(Signal::TERM);
    for signal in [Signal::INT, Signal::TERM, Signal::INT] {
        std::thread::sleep(Duration::from_millis(100));
        if !running.is_over() {
            running.signal(signal);
        }
    }
    let run = running.end(Duration::from_secs(20));
    failure(&run, "INTERRUPTED", 143, Some(&database.password()));
    site.assert_nothing_is_left_of(&database);
    assert_eq!(topic.messages().len(), 1);
}
