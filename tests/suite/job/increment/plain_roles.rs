//! Where no role is a superuser, as with the services that manage servers: `app` owns the tables, `reader` makes backups
//! and increments, `third` restores.

use std::process::Command;

use serde_json::Value;

use super::scene::Scene;
use crate::support::database::{Database, psql, quoted, try_psql};
use crate::support::program::{run, succeed};

fn tables(database: &Database) -> String {
    let statements = database.sql(
        "SELECT format('SELECT %L, count(*), sum(hashtextextended(t::text, 0)) FROM ONLY %s t;', oid::regclass, oid::regclass)
         FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY relname",
    );
    database.sql(&statements)
}

fn three_plain_roles_make_and_restore_increments(major: u32) {
    let scene = Scene::with(major, &["max_slot_wal_keep_size=1GB"]);
    let database = quoted(&scene.database.name);
    psql(
        major,
        &scene.server.url(),
        &format!(
            "CREATE ROLE app LOGIN PASSWORD 'pw'; CREATE ROLE third LOGIN PASSWORD 'pw';
             CREATE ROLE reader LOGIN REPLICATION PASSWORD 'pw' IN ROLE pg_read_all_data;
             ALTER DATABASE {database} OWNER TO app"
        ),
    );
    let url = |role: &str| scene.database.url_as(Some((role, "pw")));
    let app = |script: &str| psql(major, &url("app"), script);
    let reader = |arguments: &[&str]| -> Command {
        let mut command = scene.pgstow(arguments);
        command.env("DATABASE_URL", url("reader"));
        command
    };
    let script = || {
        let script = succeed(&mut reader(&["incremental", "start", "--print-sql"])).text();
        let ran = try_psql(major, &url("app"), &script);
        assert!(ran.status.success(), "{script}\n{}", ran.stderr);
    };
    app(
        "CREATE TABLE orders (id int PRIMARY KEY, item text); INSERT INTO orders SELECT n, 'x' FROM generate_series(1, 50) n",
    );
    assert_eq!(run(&mut reader(&["incremental", "start"])).status.code(), Some(13));
    script();
    succeed(&mut reader(&["incremental", "start"]));
    let increment = || -> Value { succeed(&mut reader(&["backup", "--kind", "incremental", "--json"])).json() };

    app("UPDATE orders SET item = 'y' WHERE id < 9; DELETE FROM orders WHERE id > 40");
    let first = increment();
    assert_eq!(first["kind"], "incremental", "{first}");
    // A new table cannot be published by this role: it is told, and the owner's script mends it.
    app("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1)");
    let second = increment();
    let coverage = scene.manifest(&second).increment.unwrap().coverage;
    let later = coverage.iter().find(|table| table.name == "later").unwrap();
    assert!(later.why.is_some(), "{later:?}");
    script();
    app("INSERT INTO later VALUES (2)");
    increment();
    app("INSERT INTO later VALUES (3); UPDATE orders SET item = 'z' WHERE id = 1");
    let last = increment();
    let coverage = scene.manifest(&last).increment.unwrap().coverage;
    assert!(
        coverage.iter().all(|table| table.why.is_none() && table.to.is_none()),
        "{coverage:?}"
    );

    let target = scene.server.database("target");
    psql(
        major,
        &scene.server.url(),
        &format!("ALTER DATABASE {} OWNER TO third", quoted(&target.name)),
    );
    let to = last["increment"]["to"].as_str().unwrap();
    let mut restore = scene.pgstow(&[
        "restore",
        "latest",
        "--to-lsn",
        to,
        "--no-owner",
        "--no-privileges",
        "--json",
    ]);
    restore
        .env_remove("DATABASE_URL")
        .env("BACKUP_TARGET_URL", target.url_as(Some(("third", "pw"))));
    let restored = succeed(&mut restore).json();
    assert_eq!(tables(&target), tables(&scene.database), "{restored}");
    let owners = "SELECT string_agg(DISTINCT tableowner, ',') FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(target.sql(owners), "third");

    succeed(&mut reader(&["backup", "--json"]));
    app("DELETE FROM later WHERE id = 1");
    let proved = increment();
    assert_eq!(
        (&proved["chain"]["equal"], &proved["chain"]["different"]),
        (&Value::from(2), &Value::Null),
        "{proved}"
    );
    // The tables go before the increments do.
    app("DROP TABLE later, orders");
    let stopped = run(&mut reader(&["incremental", "stop", "--json"]));
    assert_eq!(
        scene.sql("SELECT count(*) FROM pg_replication_slots"),
        "0",
        "{}",
        stopped.stderr
    );
    // The publications are the owner's, who drops them.
    if !stopped.status.success() {
        assert!(stopped.stderr.contains("DROP PUBLICATION"), "{}", stopped.stderr);
        let mut by_owner = scene.pgstow(&["incremental", "stop", "--slot", scene.slot().slot()]);
        succeed(by_owner.env("DATABASE_URL", url("app")));
    }
    let mut again = scene.pgstow(&["incremental", "stop"]);
    succeed(again.env("DATABASE_URL", url("app")));
    assert_eq!(scene.sql("SELECT count(*) FROM pg_publication"), "0");
}

on_majors! { three_plain_roles_make_and_restore_increments: 15 18 }
