//! RDS's IAM login, against a front that takes nothing but a good token and leads to a real server.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::{TABLE, done};
use crate::support::database::psql;
use crate::support::iam_front::{IamFront, Keys};
use crate::support::lock::Lock;
use crate::support::program::pgstow;
use crate::support::server::OwnServer;
use crate::support::wreck::{Site, fail, report};

const KEYS: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "AKIDTEST"),
    ("AWS_SECRET_ACCESS_KEY", "a/secret+key"),
    ("AWS_SESSION_TOKEN", "a/session+token=="),
    ("AWS_REGION", "eu-west-1"),
];

fn with_keys(command: &mut Command) -> &mut Command {
    command.envs(KEYS)
}

#[test]
fn each_session_and_program_logs_in_with_a_token_of_its_own() {
    let server = OwnServer::start(18);
    let (source, target) = (server.database("source"), server.database("target"));
    source.sql(TABLE);
    psql(18, &server.url(), "CREATE ROLE \"back up\" LOGIN SUPERUSER");
    // Whom the front lets through is who he says.
    let rules = server.data().join("pg_hba.conf");
    let before = fs::read_to_string(&rules).unwrap();
    fs::write(&rules, format!("host all \"back up\" 127.0.0.1/32 trust\n{before}")).unwrap();
    psql(18, &server.url(), "SELECT pg_reload_conf()");
    let keys = Keys {
        id: KEYS[0].1,
        secret: KEYS[1].1,
        session: Some(KEYS[2].1),
    };
    let front = IamFront::start(([127, 0, 0, 1], server.port).into(), KEYS[3].1, keys);

    let site = Site::new();
    let url = |name: &str| format!("postgres://back%20up@localhost:{}/{name}", front.port);
    for (jobs, most) in [("1", 30), ("2", 60)] {
        let mut command = site.backup_into(&url(&source.name), &site.path().join(jobs));
        with_keys(&mut command)
            .env("BACKUP_DB_AUTH", "iam")
            .env("BACKUP_JOBS", jobs);
        let lock = Lock::hold(&source, "public.t");
        let before = front.accepted();
        let mut running = site.start(&mut command);
        let waiting =
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'back up' AND wait_event_type = 'Lock'";
        running.until("the run waits for a lock", || psql(18, &server.url(), waiting) == "t");
        // What comes after needs another token.
        front.expire_tokens();
        drop(lock);
        let run = running.end(Duration::from_secs(60));
        assert_eq!(done(&run)["rows"], 1000);
        assert!(!format!("{}{}", run.stderr, run.text()).contains("X-Amz"));
        assert!((3..most).contains(&(front.accepted() - before)), "{}", front.accepted());
    }
    let mut command = pgstow();
    command
        .args([
            "restore",
            "latest",
            "--json",
            "--jobs",
            "2",
            "--target",
            &url(&target.name),
            "--store",
        ])
        .arg(site.path().join("2"))
        .env("BACKUP_TARGET_AUTH", "iam")
        .env("TMPDIR", site.path().join("tmp"))
        .current_dir(site.path());
    report(with_keys(&mut command));
    assert_eq!(target.sql("SELECT count(*) FROM public.t"), "1000");

    // A token by another key, and a line without TLS.
    let mut command = site.backup(&url(&source.name));
    with_keys(&mut command)
        .env("BACKUP_DB_AUTH", "iam")
        .env("AWS_SECRET_ACCESS_KEY", "another");
    let failure = fail(&mut command, "AUTH", 11);
    assert!(failure.hint.contains("rds_iam"), "{}", failure.hint);
    command.env("PGSSLMODE", "prefer");
    let failure = fail(&mut command, "CONFIG", 2);
    assert!(failure.message.contains("needs TLS"), "{}", failure.message);
    // The server itself, which has no TLS.
    let open = format!("postgres://back%20up@localhost:{}/{}", server.port, source.name);
    let mut command = site.backup(&open);
    with_keys(&mut command).env("BACKUP_DB_AUTH", "iam");
    let failure = fail(&mut command, "CONN_ERR", 10);
    assert!(failure.hint.contains("IAM login needs TLS"), "{}", failure.hint);
    assert!(!failure.hint.contains("sslmode=disable"), "{}", failure.hint);
    // No keys at all: pgstow does not wait for an answer that cannot come.
    let mut command = site.backup(&url(&source.name));
    command
        .env("BACKUP_DB_AUTH", "iam")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_REGION", "eu-west-1");
    let failure = fail(&mut command, "AUTH", 11);
    assert!(
        failure.message.contains("no credentials were found"),
        "{}",
        failure.message
    );
    site.assert_nothing_runs();
}
