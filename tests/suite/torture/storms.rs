//! Money that moves, and tables that are emptied, rewritten, made and dropped, while they are backed up.

use std::io::Write;
use std::process::{Child, Stdio};

use super::arena::{Arena, MAJOR, Shape};
use super::campaign::{Campaign, Dice};
use crate::support::database::Database;
use crate::support::program::{run, stock, succeed};

const ACCOUNTS: usize = 200;
const FACTS: usize = 1000;

/// One snapshot sees all of these together.
const INVARIANTS: &str = "SELECT (SELECT sum(balance) FROM accounts), (SELECT count(*) FROM facts),
    (SELECT coalesce(sum(amount), 0) FROM ledger),
    (SELECT count(*) FROM accounts a WHERE balance <> 100 + coalesce(
        (SELECT sum(amount) FROM ledger l WHERE l.account = a.id), 0))";

fn bank() -> Database {
    let database = Database::fresh(MAJOR);
    database.sql(&format!(
        "CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL, note text DEFAULT repeat('x', 200));
         INSERT INTO accounts SELECT n, 100 FROM generate_series(1, {ACCOUNTS}) n;
         CREATE TABLE ledger (account int, amount int);
         CREATE TABLE facts AS SELECT n, md5(n::text) AS body FROM generate_series(1, {FACTS}) n;
         CREATE TABLE bulk AS SELECT n, repeat(md5(n::text), 20) AS body FROM generate_series(1, 8000) n"
    ));
    database
}

/// A session that does one thing after the other until it is dropped.
struct Session(Child);

impl Session {
    fn does(database: &Database, statements: &str) -> Self {
        let mut psql = stock(MAJOR, "psql")
            .args(["-X", "-q", "-d", &database.url()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = psql.stdin.take().unwrap();
        let script = statements.repeat(200);
        // It ends with the session.
        std::thread::spawn(move || stdin.write_all(script.as_bytes()));
        Self(psql)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn transfers(dice: &mut Dice) -> String {
    let mut script = String::new();
    for _ in 0..20 {
        let (from, to, amount) = (1 + dice.below(ACCOUNTS), 1 + dice.below(ACCOUNTS), dice.below(50));
        script.push_str(&format!(
            "BEGIN; UPDATE accounts SET balance = balance - {amount} WHERE id = {from};
             UPDATE accounts SET balance = balance + {amount} WHERE id = {to};
             INSERT INTO ledger VALUES ({from}, -{amount}), ({to}, {amount}); COMMIT; SELECT pg_sleep(0.001);\n"
        ));
    }
    script
}

fn changes(dice: &mut Dice) -> String {
    let rewrite = format!(
        "BEGIN; TRUNCATE facts; INSERT INTO facts SELECT n, md5(n::text) FROM generate_series(1, {FACTS}) n; COMMIT;"
    );
    let all = [
        rewrite.as_str(),
        rewrite.as_str(),
        "ALTER TABLE facts ALTER body TYPE varchar(60); ALTER TABLE facts ALTER body TYPE text;",
        "VACUUM FULL ledger;",
        "CLUSTER accounts USING accounts_pkey;",
        "CREATE TABLE passing AS SELECT 1 AS a; DROP TABLE passing;",
        "ALTER TABLE accounts ALTER note TYPE varchar(300); ALTER TABLE accounts ALTER note TYPE text;",
        "BEGIN; CREATE TABLE facts_new (LIKE facts); INSERT INTO facts_new SELECT * FROM facts; DROP TABLE facts;
         ALTER TABLE facts_new RENAME TO facts; COMMIT;",
    ];
    let mut script = String::new();
    for _ in 0..10 {
        let pause = dice.below(60) as f64 / 1000.0;
        script.push_str(&format!("{}\nSELECT pg_sleep({pause});\n", dice.pick(&all)));
    }
    script
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_emptied_and_rewritten_meanwhile_is_whole_in_the_backup_or_named() {
    tokio::task::block_in_place(|| {
        Campaign::of("storms", 4).run(|_, dice| {
            let arena = Arena::around(bank(), Shape::Folder);
            let sessions = [
                Session::does(&arena.database, &transfers(dice)),
                Session::does(&arena.database, &transfers(dice)),
                Session::does(&arena.database, &changes(dice)),
            ];
            std::thread::sleep(dice.moment(std::time::Duration::from_millis(300)));
            let how = dice.pick(&[
                &["--jobs", "1"][..],
                &["--jobs", "3"],
                &["--jobs", "1", "--format", "plain"],
            ]);
            let run = run(arena.command(&["backup"]).args(how));
            drop(sessions);
            arena.assert_nothing_runs_of_it();
            if run.status.code() != Some(0) {
                let code = Arena::code(&run);
                assert!(["CHANGED", "PG_DUMP_ERR"].contains(&code.as_str()), "{}", run.stderr);
                assert!(arena.manifests().is_empty(), "{}", run.stderr);
                return code;
            }
            let report = run.json();
            let id = report["id"].as_str().unwrap();
            let copy = Database::fresh(MAJOR);
            let file = |ending: &str| {
                let path = format!("store/{id}/{}.{ending}", arena.database.name);
                arena.site.path().join(path)
            };
            if how.contains(&"plain") {
                copy.load(&file("sql"));
            } else {
                succeed(
                    stock(MAJOR, "pg_restore")
                        .args(["--exit-on-error", "-d", &copy.url()])
                        .arg(file("dump")),
                );
            }
            let expected = format!("{}|{FACTS}|0|0", ACCOUNTS * 100);
            assert_eq!(copy.sql(INVARIANTS), expected, "{report:#}");
            "whole".to_owned()
        });
    });
}

impl Arena {
    fn assert_nothing_runs_of_it(&self) {
        self.site.assert_nothing_runs();
        crate::support::wreck::assert_no_session(&self.database);
    }
}
