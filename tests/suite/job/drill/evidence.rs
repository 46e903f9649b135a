//! What happens to a drill says nothing of the backup: no result is written, no backup is let go, and a drill of the
//! same backup on a healthy machine is ok.

use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::{drill, meddling, verification};
use crate::support::bucket::{Bucket, client};
use crate::support::database::{Database, unique_word};
use crate::support::disk::Disk;
use crate::support::fault_proxy::{Fault, FaultProxy, On, Op};
use crate::support::program::{Run, pgstow, run, succeed};
use crate::support::services::{postgres_bin, s3};
use crate::support::wreck::{Process, Site, backups, processes};

/// Whose index takes its time to be made again.
fn slow() -> Database {
    let database = Database::fresh(17);
    database.sql(
        "CREATE FUNCTION slow(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN a; END $$;
         CREATE TABLE t (a int, b text); INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 4) g;
         CREATE INDEX slowly ON t (slow(a));
         CREATE OR REPLACE FUNCTION slow(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
           $$ BEGIN PERFORM pg_sleep(0.7); RETURN a; END $$",
    );
    database
}

/// It could not be carried out: an error that says so and blames no backup, no result, the bytes' result all the same.
fn assert_no_evidence(site: &Site, run: &Run, code: &str, exit: i32, words: &str) -> String {
    assert_eq!(run.status.code(), Some(exit), "{}", run.stderr);
    let report = run.json();
    let error = &report["error"];
    let message = error["message"].as_str().unwrap().to_owned();
    assert_eq!(
        (&report["status"], error["code"].as_str()),
        (&"failed".into(), Some(code)),
        "{report:#}"
    );
    assert!(
        message.contains("the drill could not be carried out: ") && message.contains(words),
        "{message}"
    );
    let hint = error["hint"].as_str().unwrap();
    assert!(!hint.contains("one before"), "{hint}");
    assert_eq!(report["drill"], Value::Null);
    let written = verification(site);
    assert_eq!(
        (&written["verify"]["status"], &written["drill"]),
        (&"ok".into(), &Value::Null),
        "{written:#}"
    );
    site.assert_nothing_runs();
    hint.to_owned()
}

fn assert_healthy_again(site: &Site) {
    let report = succeed(&mut drill(site)).json();
    assert_eq!(report["drill"]["status"], "ok", "{report:#}");
    let kept = backups(&site.store());
    let mut prune = pgstow();
    prune.args(["prune", "--store"]).arg(site.store());
    succeed(&mut prune);
    assert_eq!(backups(&site.store()), kept);
}

fn servers_of(site: &Site) -> Vec<Process> {
    let place = site.path().to_str().unwrap();
    let all = processes();
    let is_server =
        |process: &&Process| process.command_line.contains("postgres\n-D\n") && process.command_line.contains(place);
    let servers: Vec<u32> = all.iter().filter(is_server).map(|process| process.pid).collect();
    let of_them = |process: &Process| servers.contains(&process.pid) || servers.contains(&process.parent);
    all.into_iter().filter(of_them).collect()
}

fn pid(process: &Process) -> Pid {
    Pid::from_raw(process.pid.try_into().unwrap()).unwrap()
}

#[test]
fn a_full_disk_is_enospc_and_no_evidence() {
    let (site, database) = (Site::new(), Database::fresh(17));
    // The other one is small until it is restored.
    database.sql(
        "CREATE TABLE t AS SELECT g, repeat(md5(g::text), 20) AS text FROM generate_series(1, 60000) g;
         CREATE TABLE grows AS SELECT repeat('x', 8000) AS text FROM generate_series(1, 10000);
         ALTER TABLE grows ALTER text SET STORAGE EXTERNAL",
    );
    succeed(&mut site.backup(&database.url()));
    let on = |disk: &Disk| run(drill(&site).env("TMPDIR", disk.path()));
    // For no server at all; for no database; for the database, but not for its log; for all that was foreseen.
    let foreseen = "no room for a drill";
    for (size, words) in [
        ("10m", ""),
        ("60m", foreseen),
        ("110m", foreseen),
        ("170m", "No space left"),
    ] {
        let disk = Disk::mount(&format!("size={size}"));
        let hint = assert_no_evidence(&site, &on(&disk), "NOT_PROVED", 43, words);
        assert!(hint.contains("TMPDIR"), "{hint}");
    }
    assert_healthy_again(&site);
}

/// A drill for which a shell has set a limit.
fn limited(site: &Site, limit: &str) -> Run {
    let drill = drill(site);
    let mut limited = Command::new("sh");
    limited
        .args(["-c", &format!("{limit}; exec \"$@\""), "sh"])
        .arg(drill.get_program())
        .args(drill.get_args())
        .env_clear()
        .envs(drill.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .current_dir(site.path());
    run(&mut limited)
}

#[test]
fn a_limit_on_files_is_enospc_too() {
    let (site, database) = (Site::new(), Database::fresh(17));
    database.sql("CREATE TABLE t AS SELECT g, repeat(md5(g::text), 20) AS text FROM generate_series(1, 60000) g");
    succeed(&mut site.backup(&database.url()));
    let told = limited(&site, "ulimit -f 20000");
    assert_no_evidence(&site, &told, "NOT_PROVED", 43, "File too large");
    assert_healthy_again(&site);
}

#[test]
fn a_killed_server_session_or_pg_restore_is_no_evidence() {
    let (site, database) = (Site::new(), slow());
    succeed(&mut site.backup(&database.url()));
    let at_work = || {
        let works = |process: &Process| process.command_line.contains("CREATE INDEX");
        servers_of(&site).into_iter().find(works)
    };
    for victim in ["session", "terminated session", "server", "pg_restore"] {
        let mut running = site.start(&mut drill(&site));
        running.until("the index is being made", || at_work().is_some());
        let session = at_work().unwrap();
        let found = match victim {
            "server" => servers_of(&site)
                .into_iter()
                .find(|process| process.command_line.contains("-D\n")),
            "pg_restore" => processes().into_iter().find(|process| {
                process.command_line.contains("pg_restore")
                    && process.command_line.contains("after.list")
                    && process.command_line.contains(site.path().to_str().unwrap())
            }),
            _ => Some(session),
        };
        let signal = if victim == "terminated session" {
            Signal::TERM
        } else {
            Signal::KILL
        };
        rustix::process::kill_process(pid(&found.unwrap()), signal).unwrap();
        let run = running.end(Duration::from_secs(60));
        let hint = assert_no_evidence(&site, &run, "NOT_PROVED", 43, "");
        assert!(
            hint.contains("the backup, and nothing was recorded"),
            "{victim}: {hint}"
        );
    }
    assert_healthy_again(&site);
}

#[test]
fn a_server_without_memory_is_no_evidence() {
    let (site, database) = (Site::new(), Database::fresh(17));
    // COPY takes it in several times.
    database.sql("CREATE TABLE z AS SELECT repeat('x', 200000000) AS large");
    succeed(&mut site.backup(&database.url()));
    let told = limited(&site, "ulimit -v 900000");
    assert_no_evidence(&site, &told, "NOT_PROVED", 43, "out of memory");
    assert_healthy_again(&site);
}

#[test]
fn a_pg_restore_that_fails_by_itself_is_no_evidence() {
    let (site, database) = (Site::new(), slow());
    succeed(&mut site.backup(&database.url()));
    let folder = |name: &str, more: &str| {
        let bin = meddling(&site, 17, "after.list", more);
        let renamed = site.path().join(name);
        std::fs::rename(bin, &renamed).unwrap();
        renamed
    };
    // The words are the backup's, perhaps; the end of the program is not.
    for (name, more) in [
        ("killed", "SELECT pg_terminate_backend(pg_backend_pid());"),
        ("missing", "SELECT no_such_thing();"),
    ] {
        let bin = folder(name, more);
        let both = format!("{}:{}", bin.display(), postgres_bin(17).display());
        let run = run(drill(&site).env("BACKUP_PG_BIN", both));
        assert_no_evidence(&site, &run, "NOT_PROVED", 43, "pg_restore failed");
    }
    assert_healthy_again(&site);
}

#[test]
fn all_backups_are_drilled_past_one_that_could_not_be() {
    let (site, database) = (Site::new(), Database::fresh(17));
    database.sql("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    succeed(&mut site.backup(&database.url()));
    std::thread::sleep(Duration::from_millis(1100));
    let large = slow();
    // So large that only this one lacks the room.
    large.sql("CREATE TABLE z AS SELECT g, repeat(md5(g::text), 20) AS text FROM generate_series(1, 90000) g");
    succeed(&mut site.backup(&large.url()));
    let disk = Disk::mount("size=100m");
    let mut all = pgstow();
    all.args(["verify", "--all", "--drill", "--json", "--store"])
        .arg(site.store());
    let run = run(all.env("TMPDIR", disk.path()).current_dir(site.path()));
    assert_eq!(run.status.code(), Some(43), "{}", run.stderr);
    let report = run.json();
    let backups = report["backups"].as_array().unwrap();
    let drilled = |backup: &Value| backup["drill"]["status"] == "ok";
    assert_eq!(backups.iter().map(drilled).filter(|ok| *ok).count(), 1, "{report:#}");
    let untried = backups.iter().find(|backup| !drilled(backup)).unwrap();
    assert_eq!(untried["not_drilled"]["code"], "NOT_PROVED", "{report:#}");
    let message = report["error"]["message"].as_str().unwrap();
    assert!(message.contains(untried["id"].as_str().unwrap()), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_is_flipped_on_the_drills_way_is_read_again() {
    const BUCKET: &str = "pgstow-verify";
    let (site, database) = (Site::new(), Database::fresh(17));
    database.sql("CREATE TABLE t AS SELECT g, repeat(md5(g::text), 20) AS text FROM generate_series(1, 20000) g");
    let bucket = Bucket {
        name: BUCKET.to_owned(),
        client: client(&s3()),
    };
    drop(bucket.client.create_bucket().bucket(BUCKET).send().await);
    let store = bucket.url(&unique_word());
    let proxy = FaultProxy::start(&s3().endpoint).await;
    let through = |args: &[&str]| {
        let mut command = pgstow();
        command
            .args(args)
            .args(["--json", "--store", &store])
            .env("DATABASE_URL", database.url())
            .env("TMPDIR", site.path().join("tmp"))
            .envs(s3().environment())
            .env("AWS_ENDPOINT_URL_S3", proxy.url())
            .current_dir(site.path());
        run(&mut command)
    };
    let id = through(&["backup", "--compress", "none"]).json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let reads = |verified: &Run| {
        assert_eq!(verified.status.code(), Some(0), "{}", verified.stderr);
        let of_dump = proxy
            .seen()
            .into_iter()
            .filter(|seen| seen.op == Op::GetObject && seen.target.contains(".dump"));
        of_dump.count()
    };
    let one = reads(&through(&["verify", &id]));
    assert!(one > 0);
    proxy.fault(
        On::op(Op::GetObject).target(".dump").calls(one + 1..=one + 1),
        Fault::CorruptAnswer,
    );
    let drilled = through(&["verify", &id, "--drill"]);
    assert_eq!(proxy.faults(), 1);
    let report = drilled.json();
    assert_eq!(
        (drilled.status.code(), &report["drill"]["status"]),
        (Some(0), &"ok".into()),
        "{report:#}"
    );
    assert!(report["warnings"].to_string().contains("started again"), "{report:#}");
    site.assert_nothing_runs();
}
