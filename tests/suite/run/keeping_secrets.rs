use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::support::bucket::Bucket;
use crate::support::database::{Database, unique_word};
use crate::support::impostor::{bin_with, trickle, write_script};
use crate::support::moto::{self, Topic};
use crate::support::services::{cloud, postgres_bin, s3};
use crate::support::wreck::{Site, processes};

/// What a child may find in its environment.
const ALLOWED: [&str; 9] = [
    "PATH",
    "HOME",
    "LD_LIBRARY_PATH",
    "TZ",
    "PGPASSFILE",
    "PGAPPNAME",
    "PGTZ",
    "LC_ALL",
    // bash's own.
    "PWD",
];

/// A role whose password nothing else in the world contains.
fn role(database: &Database) -> (String, String) {
    let (name, password) = (
        format!("role_{}", unique_word()),
        format!("pässwörd'\\:{}", unique_word()),
    );
    database.sql(&format!(
        "CREATE ROLE {name} SUPERUSER LOGIN PASSWORD $pw${password}$pw$"
    ));
    (name, password)
}

#[tokio::test]
async fn secrets_are_in_no_argv_no_childs_environment_no_log_and_no_file() {
    let (site, database, bucket, topic) = (Site::new(), Database::fresh(16), Bucket::fresh().await, Topic::fresh());
    database.sql("CREATE TABLE t AS SELECT i, md5(i::text) AS a FROM generate_series(1, 30000) i");
    let (role, password) = role(&database);
    let (host, port) = database.address();
    let secret = json!({"host": host, "port": port, "username": role, "password": password, "dbname": database.name});
    let secret = moto::secret(&secret.to_string());
    let secrets = [password.as_str(), &s3().secret_key];

    // Both programs write down what they see before they become the real ones.
    let bin = bin_with(site.path(), "bin", 16, &[]);
    for program in ["pg_dump", "pg_dumpall"] {
        let real = postgres_bin(16).join(program);
        let note = format!(
            "tr '\\0' '\\n' </proc/$$/environ >$SITE/{program}.env; tr '\\0' '\\n' </proc/$$/cmdline >$SITE/{program}.args"
        );
        let act = if program == "pg_dump" {
            trickle(300_000, 0.1)
        } else {
            "exec $REAL \"$@\"".into()
        };
        write_script(&bin.join(program), &real, site.path(), &format!("{note}\n{act}"));
    }
    let mut command = site.backup("");
    command
        .env_remove("DATABASE_URL")
        .env("BACKUP_SECRET_ID", &secret)
        .env("BACKUP_SNS_TOPIC_ARN", &topic.arn)
        .env("BACKUP_PG_BIN", &bin)
        .env(
            "RUST_LOG",
            "trace,pgstow=trace,aws=trace,hyper=trace,rustls=trace,tokio_postgres=trace",
        )
        .args(["--store", &bucket.url("copies")]);
    let mut running = site.start(cloud(&mut command));

    let mut command_lines = BTreeSet::new();
    let mut environments = BTreeSet::new();
    while !running.is_over() {
        let all = processes();
        let ours = all.iter().find(|process| process.pid == running.pid());
        let ours = ours.map(|process| process.command_line.clone());
        let mut family = BTreeSet::from([running.pid()]);
        // Children come after their parents, as a rule; the next look finds who did not.
        for process in &all {
            if family.contains(&process.parent) {
                family.insert(process.pid);
                // Between fork and exec a child is still a copy of us.
                if ours.as_ref() != Some(&process.command_line) {
                    environments.insert(process.environment.clone());
                }
            }
            if family.contains(&process.pid) {
                command_lines.insert(process.command_line.clone());
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let run = running.end(Duration::from_secs(5));
    assert!(run.status.success(), "{}", run.stderr);
    assert!(run.stderr.len() > 1000, "trace says more than: {}", run.stderr);
    assert!(
        command_lines.iter().any(|line| line.contains("--snapshot=")),
        "{command_lines:#?}"
    );

    for program in ["pg_dump", "pg_dumpall"] {
        environments.insert(fs::read_to_string(site.path().join(format!("{program}.env"))).unwrap());
        command_lines.insert(fs::read_to_string(site.path().join(format!("{program}.args"))).unwrap());
    }
    let quiet = |place: &str, text: &str| {
        for secret in secrets {
            assert!(!text.contains(secret), "a secret is in {place}: {text}");
        }
    };
    for line in &command_lines {
        quiet("a command line", line);
    }
    for environment in &environments {
        quiet("an environment", environment);
        for variable in environment.lines().filter(|line| !line.is_empty()) {
            let name = variable.split('=').next().unwrap();
            // bash has a few of its own, and pg_dumpall tells its own child where it is installed.
            let known =
                ALLOWED.contains(&name) || ["SHLVL", "_", "OLDPWD", "PGSYSCONFDIR", "PGLOCALEDIR"].contains(&name);
            assert!(known, "a child sees {name}");
        }
    }
    quiet("the log", &run.stderr);
    quiet("the report", &run.text());
    for message in topic.messages() {
        quiet("the notification", &format!("{message:?}"));
    }
    for path in crate::support::wreck::tree(&site.store()) {
        if let Ok(bytes) = fs::read(site.store().join(&path)) {
            let text = String::from_utf8_lossy(&bytes);
            quiet(&path, &text);
            assert!(!text.contains("SCRAM-SHA-256$"), "{path} has passwords' digests");
        }
    }
    for key in bucket.keys().await {
        quiet(&key, &String::from_utf8_lossy(&bucket.get(&key).await));
    }
    site.assert_nothing_runs();
    database.sql(&format!("DROP ROLE {role}"));
}

#[test]
fn a_password_in_a_flag_is_used_and_warned_of_but_goes_no_further() {
    let (site, database) = (Site::new(), Database::fresh(16));
    database.sql("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i");
    let (role, password) = role(&database);
    let bin = bin_with(site.path(), "bin", 16, &["pg_dumpall"]);
    let note = "tr '\\0' '\\n' </proc/$$/environ >$SITE/seen; tr '\\0' '\\n' </proc/$$/cmdline >>$SITE/seen";
    write_script(
        &bin.join("pg_dump"),
        &postgres_bin(16).join("pg_dump"),
        site.path(),
        &format!("{note}; exec $REAL \"$@\""),
    );
    let mut command = site.backup("");
    command.env_remove("DATABASE_URL").env("BACKUP_PG_BIN", bin);
    command.args(["--database-url", &database.url_as(Some((&role, &password)))]);
    let run = crate::support::program::succeed(&mut command);
    let seen = fs::read_to_string(site.path().join("seen")).unwrap();
    for text in [&seen, &run.stderr, &run.text()] {
        assert!(!text.contains(&password), "{text}");
    }
    assert!(run.stderr.contains("visible"), "{}", run.stderr);
    // What was typed is no matter of the backup's.
    let manifest = site
        .store()
        .join(run.json()["id"].as_str().unwrap())
        .join("manifest.json");
    assert!(!fs::read_to_string(manifest).unwrap().contains("visible"));
    site.assert_nothing_runs();
    database.sql(&format!("DROP ROLE {role}"));
}
