//! A new database that a killed run left beside the database that it should replace.

use rustix::process::Signal;
use serde_json::Value;

use crate::job::restore::place::{Backed, three, untouched};
use crate::support::contents::Contents;
use crate::support::database::{Database, psql, quoted};
use crate::support::lock::Held;
use crate::support::program::succeed;
use crate::support::services::postgres_url;

const REPLACES: &[&str] = &["--create", "--clean"];

/// Databases of the server whose names begin as the target's, one per line.
fn databases(target: &Database) -> String {
    let script = format!(
        "SELECT datname FROM pg_database WHERE starts_with(datname, '{}') ORDER BY 1",
        target.name
    );
    psql(target.major, &postgres_url(target.major), &script)
}

fn warnings(report: &Value) -> String {
    report["warnings"].to_string()
}

fn a_script_replaces_a_database_when_it_is_done(major: u32) {
    let backed = Backed::up(Database::loaded(major, "rich.sql"), &["--format", "plain"]);
    let target = Database::fresh(major);
    target.sql("CREATE TABLE precious AS SELECT 1 AS n");
    untouched(&target, || {
        let planned = succeed(&mut backed.restore(&target.url(), &[REPLACES, &["--dry-run"]].concat())).json();
        let steps = planned["steps"].to_string();
        let at = |words: &str| steps.find(words).unwrap_or_else(|| panic!("{words}: {steps}"));
        assert!(at("beside") < at("run the script") && at("run the script") < at("remove the database"));
    });
    backed.restored(&target, REPLACES);
    Contents::of(&backed.source).assert_equals(&Contents::of(&target));
    assert_eq!(databases(&target), target.name);
    let comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()";
    assert_eq!(target.sql(comment), "");
}

on_majors! { a_script_replaces_a_database_when_it_is_done: 15 18 }

fn what_a_killed_restore_left_is_removed_by_the_next(major: u32) {
    let source = Database::fresh(major);
    source.sql("CREATE TABLE t AS SELECT n, md5(n::text) AS text FROM generate_series(1, 1000000) n");
    let backed = Backed::up(source, &["--format", "plain"]);
    let target = Database::fresh(major);
    target.sql("CREATE TABLE precious AS SELECT 1 AS n");
    let server = postgres_url(major);
    untouched(&target, || {
        let mut running = backed.site.start(&mut backed.restore(&target.url(), REPLACES));
        let rows = format!(
            "SELECT count(*) FROM pg_stat_progress_copy WHERE starts_with(datname, '{}') AND tuples_processed > 1000",
            target.name
        );
        running.until("rows are on their way", || psql(major, &server, &rows) == "1");
        running.signal(Signal::KILL);
        drop(running.end(std::time::Duration::from_secs(20)));
    });
    let left = databases(&target);
    assert_eq!(left.lines().count(), 2, "{left}");
    let left = left.lines().last().unwrap();
    assert!(left.contains("_pgstow_"), "{left}");
    let busy =
        format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{left}' AND backend_type = 'client backend'");
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while psql(major, &server, &busy) != "0" && std::time::Instant::now() < patience {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let report = succeed(&mut backed.restore(&target.url(), REPLACES)).json();
    assert!(
        warnings(&report).contains(&format!("removed the database \\\"{left}\\\"")),
        "{report}"
    );
    assert_eq!(databases(&target), target.name);
    assert_eq!(target.sql("SELECT count(*) FROM t"), "1000000");
}

on_majors! { what_a_killed_restore_left_is_removed_by_the_next: 15 18 }

/// The target itself may have been dropped by hand in the meantime.
fn what_is_left_of_a_database_that_is_gone_is_removed_only_with_clean(major: u32) {
    let backed = Backed::up(three(major), &[]);
    let target = Database::fresh(major);
    let server = postgres_url(major);
    let left = format!("{}_pgstow_00000001", &target.name[..target.name.len().min(40)]);
    let _guard = Database::fresh_named(major, &left);
    let comment = format!("pgstow: an unfinished restore, to take the place of {}", target.name);
    let remark = format!("COMMENT ON DATABASE {} IS '{comment}'", quoted(&left));
    psql(major, &server, &remark);
    let drop_target = format!("DROP DATABASE {}", quoted(&target.name));
    for (options, expected) in [
        (
            &["--create"][..],
            format!("\\\"{left}\\\" unfinished, and it was not removed"),
        ),
        (REPLACES, format!("removed the database \\\"{left}\\\"")),
    ] {
        psql(major, &server, &drop_target);
        let report = succeed(&mut backed.restore(&target.url(), options)).json();
        let told = warnings(&report);
        assert!(told.contains(&expected), "{expected}: {told}");
    }
    assert_eq!(databases(&target), target.name);
}

on_majors! { what_is_left_of_a_database_that_is_gone_is_removed_only_with_clean: 15 18 }

/// What may be a user's, what another run is making, and what may be all that there is of a database.
fn what_is_not_surely_left_stays_and_is_named(major: u32) {
    let backed = Backed::up(three(major), &[]);
    let target = Database::fresh(major);
    let server = postgres_url(major);
    let name = |digits: &str| format!("{}_pgstow_{digits}", &target.name[..target.name.len().min(40)]);
    let unfinished = format!("pgstow: an unfinished restore, to take the place of {}", target.name);
    let other = "pgstow: an unfinished restore, to take the place of another".to_owned();
    let finished = format!(
        "pgstow: a restore that takes the place of {}, which is being removed",
        target.name
    );
    let [theirs, others, live, used, placed, left, closed] = [
        "00000001", "00000002", "00000003", "00000004", "00000005", "00000006", "00000007",
    ]
    .map(name);
    let mut guards = Vec::new();
    for (database, comment) in [
        (&theirs, None),
        (&others, Some(&other)),
        (&live, Some(&unfinished)),
        (&used, Some(&unfinished)),
        (&placed, Some(&finished)),
        (&left, Some(&unfinished)),
        (&closed, None),
    ] {
        guards.push(Database::fresh_named(major, database));
        if let Some(comment) = comment {
            let script = format!("COMMENT ON DATABASE {} IS '{comment}'", quoted(database));
            psql(major, &server, &script);
        }
    }
    let close = format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", quoted(&closed));
    psql(major, &server, &close);
    // The sessions of another run, and of a person.
    let hold = format!("SELECT 'held' FROM pg_advisory_lock(1885827956, hashtext('{live}'))");
    let run = Held::by(major, &server, &hold);
    let person = Held::by(major, &guards[3].url(), "SELECT 'held'");

    let report = succeed(&mut backed.restore(&target.url(), REPLACES)).json();
    let told = warnings(&report);
    for words in [
        format!("another restore is making the database \\\"{live}\\\""),
        format!("left the database \\\"{used}\\\" unfinished, and it was not removed (sessions are in it)"),
        format!("the database \\\"{placed}\\\" was made by a restore that was killed"),
        format!("removed the database \\\"{left}\\\""),
        format!("removed the database \\\"{closed}\\\""),
    ] {
        assert!(told.contains(&words), "{words}: {told}");
    }
    assert!(!told.contains(&theirs) && !told.contains(&others), "{told}");
    drop((run, person));
    let all = databases(&target);
    let kept = [&target.name, &theirs, &others, &live, &used, &placed].map(String::as_str);
    assert_eq!(all.lines().collect::<Vec<_>>(), kept);
}

on_majors! { what_is_not_surely_left_stays_and_is_named: 15 18 }
