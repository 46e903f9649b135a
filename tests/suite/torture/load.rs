//! A busy database whose tables change their definitions, with increments every few seconds. At random moments the test
//! looks at all rows in one snapshot. In the end it restores each of these moments, and compares.

mod busy;
mod chain;
mod compared;
mod definitions;
mod moments;
mod session;
mod tables;
mod writers;

use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use busy::Busy;
use chain::Chain;
use compared::{Backups, Compared, Figures};
use moments::Moment;

use super::campaign::{Campaign, Dice, setting};
use crate::support::database::Database;
use crate::support::program::succeed;
use crate::support::server::OwnServer;

const WRITERS: usize = 4;
/// Of a load in the gate, which has three moments.
const SHORT: u64 = 8;
const MOMENTS: usize = 20;

/// What a round is like, besides its load.
#[derive(Debug)]
struct Plan {
    length: Duration,
    moments: usize,
    follows: bool,
    in_bucket: bool,
    kills: bool,
    crashes: bool,
    is_plain: bool,
}

impl Plan {
    fn of(major: u32, dice: &mut Dice) -> Self {
        let Some(seconds) = setting("TORTURE_SECONDS") else {
            // In the gate, each of the two majors tries one of the ways.
            return Self {
                length: Duration::from_secs(SHORT),
                moments: 3,
                follows: major > 15,
                in_bucket: major > 15,
                kills: major == 15,
                crashes: false,
                is_plain: true,
            };
        };
        Self {
            length: Duration::from_secs(seconds),
            moments: MOMENTS.min(3 + seconds as usize / 6),
            follows: dice.below(2) == 0,
            in_bucket: dice.below(3) == 0,
            kills: dice.below(3) > 0,
            crashes: dice.below(2) == 0,
            is_plain: setting("TORTURE_PLAIN").is_some(),
        }
    }
}

fn server(major: u32) -> OwnServer {
    let mut server = OwnServer::start(major);
    let database = server.database("settings");
    for setting in [
        "max_prepared_transactions = 30",
        "max_slot_wal_keep_size = '4GB'",
        "logical_decoding_work_mem = '256kB'",
        "max_connections = 60",
        "deadlock_timeout = '200ms'",
    ] {
        database.sql(&format!("ALTER SYSTEM SET {setting}"));
    }
    drop(database);
    server.stop();
    server.start_again();
    server
}

fn every_moment_of_a_busy_database_is_restored_as_it_was(major: u32) {
    let name = if major == 15 { "load on 15" } else { "load on 18" };
    Campaign::of(name, 1).run(|_, dice| {
        let plan = Plan::of(major, dice);
        println!("{plan:?}");
        let mut server = server(major);
        let database = server.database("busy");
        database.sql(&tables::tables());
        let chain = Chain::of(&database, plan.in_bucket);
        let busy = Busy::at(database.url(), plan.is_plain);
        let moments = run(&plan, dice, (&busy, &chain), &mut server, &database);
        // The last moments lie in it.
        chain.insist("last increment", &["backup", "--kind", "incremental"], &busy);
        println!(
            "{} transactions, refused {:?}, {} definitions; {:?}",
            busy.committed.load(std::sync::atomic::Ordering::Relaxed),
            busy.refused(),
            busy.redefined().len(),
            chain.came_to()
        );
        busy.redefined().iter().for_each(|one| println!("{one:?}"));
        chain.assert_no_problem();
        if chain.is_undecodable() {
            return "the server could not decode its log".to_owned();
        }
        let figures = compare_all(&plan, (&chain, &busy), &moments, (&server, &database));
        format!("{} moments", figures.moments)
    });
}

fn compare_all(
    plan: &Plan,
    (chain, busy): (&Chain, &Busy),
    moments: &[Moment],
    (server, source): (&OwnServer, &Database),
) -> Figures {
    let (backups, changes) = (Backups::read(chain), busy.redefined());
    let mut figures = Figures::default();
    let mut wrong = Vec::new();
    for (number, moment) in moments.iter().enumerate() {
        let target = server.database("moment");
        // The newest suitable full, or the first one with all increments.
        let base = match number % 4 {
            1 => backups.first_full(),
            _ => "latest",
        };
        let compared = Compared {
            chain,
            backups: &backups,
            changes: &changes,
            moment,
            base,
            is_whole: !plan.is_plain && number % 3 < 2,
            target: &target,
            source,
        };
        wrong.extend(compared.compare(number % 2 == 1, &mut figures));
    }
    println!("{:?}: {figures:?}", backups.count());
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    succeed(&mut chain.command(&["verify", "--all"]));
    assert_eq!(backups.count().0, 2, "fulls");
    assert!(figures.equal > figures.moments * 10, "{figures:?}");
    figures
}

mod every_moment_of_a_busy_database_is_restored_as_it_was {
    #[test]
    fn on_15() {
        super::every_moment_of_a_busy_database_is_restored_as_it_was(15);
    }

    #[test]
    fn on_18() {
        super::every_moment_of_a_busy_database_is_restored_as_it_was(18);
    }
}

/// The load itself. Gives the moments that were looked at.
fn run(
    plan: &Plan,
    dice: &mut Dice,
    (busy, chain): (&Busy, &Chain),
    server: &mut OwnServer,
    database: &Database,
) -> Vec<Moment> {
    let pause = if plan.length.as_secs() > SHORT { 4 } else { 1 };
    let pause = Duration::from_secs(pause);
    let mut moments = Vec::new();
    scope(|threads| {
        for number in 0..WRITERS {
            let own = Dice::new(dice.below(1 << 30) as u64);
            threads.spawn(move || writers::write(busy, own, number));
        }
        let mut own: Vec<Dice> = (0..4).map(|_| Dice::new(dice.below(1 << 30) as u64)).collect();
        let (definitions, partitions) = (own.pop().unwrap(), own.pop().unwrap());
        threads.spawn(move || definitions::redefine(busy, definitions, pause));
        threads.spawn(move || definitions::partition(busy, partitions, pause));
        let over = Over(busy);
        succeed(&mut chain.command(&["incremental", "start"]));
        if busy.is_plain {
            // However slow the machine is, the first increment is older than the second full.
            chain.insist("first increment", &["backup", "--kind", "incremental"], busy);
        }
        let mut increments = own.pop().unwrap();
        threads.spawn(move || match plan.follows {
            true => chain.follow(busy, &mut increments, plan.kills),
            false => chain.repeat(busy, &mut increments, Duration::from_secs(3), plan.kills),
        });
        let mut times: Vec<Duration> = (0..plan.moments).map(|_| dice.moment(plan.length)).collect();
        times.sort_unstable();
        let begun = Instant::now();
        let middle = plan.length / 2;
        let (mut full, mut crash) = (Some(middle), plan.crashes.then(|| middle + dice.moment(middle)));
        for time in times {
            sleep(time.saturating_sub(begun.elapsed()));
            if full.take_if(|at| begun.elapsed() >= *at).is_some() {
                threads.spawn(move || chain.insist("full", &["backup", "--jobs", "2"], busy));
            }
            if crash.take_if(|at| begun.elapsed() >= *at).is_some() {
                server.crash();
                server.start_again();
            }
            moments.push(moments::take(busy, database));
        }
        if full.is_some() {
            chain.insist("full", &["backup", "--jobs", "2"], busy);
        }
        drop(over);
    });
    moments
}

/// The load ends, also if the test fails.
struct Over<'a>(&'a Busy);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
