//! Names that others have chosen, in everything that pgstow prints: no name steers a terminal or a
//! log, and none passes for a line of pgstow's.

use std::fs;
use std::process::Command;

use pgstow::printable::steers;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::database::{Database, quoted};
use crate::support::planted::{Folder, id};
use crate::support::program::{Run, pgstow, run};
use crate::support::wreck::Site;

/// What would be seen as a line of ours if a name could break lines.
const MARK: &str = "FORGED-LINE";

fn hostile() -> String {
    format!("x\u{1b}[2J\u{9b}1m\r\n{MARK} all is well\n\u{202e}\u{2028}{MARK}\u{7f}\u{8}y")
}

fn assert_plain(what: &str, run: &Run) {
    for (stream, text) in [("stdout", run.text()), ("stderr", run.stderr.clone())] {
        let odd: Vec<char> = text.chars().filter(|c| *c != '\n' && steers(*c)).collect();
        assert!(odd.is_empty(), "{what} {stream}: {odd:?} in {text:?}");
        let forged = text.lines().any(|line| line.trim_start().starts_with(MARK));
        assert!(!forged, "{what} {stream}: {text}");
    }
}

fn at(site: &Site) -> Command {
    let mut command = pgstow();
    command.env("TMPDIR", site.path().join("tmp")).current_dir(site.path());
    command
}

/// Runs in every form that prints.
fn assert_all_plain(folder: &Folder, args: &[&str]) {
    for (format, json) in [("text", false), ("json", false), ("text", true)] {
        let mut command = folder.command(args);
        command.env("LOG_FORMAT", format).env("RUST_LOG", "pgstow=debug");
        if json {
            command.arg("--json");
        }
        let run = run(&mut command);
        assert_plain(&format!("{args:?} {format} {json}"), &run);
        if json && !run.stdout.is_empty() {
            run.json();
        }
    }
}

/// A store whose every name is hostile: of a file, a host, a database, a reason, a version.
fn planted(text: &str) -> (Folder, String) {
    let folder = Folder::new();
    let spoilt = folder.plant("shop", 2, "daily");
    let path = folder.path().join(&spoilt).join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["files"]["toc"]["name"] = json!(text.replace(['/', '\\', '\0'], "_"));
    manifest["server"]["version"] = json!(text);
    manifest["missing"] = json!({ text: text });
    manifest["tables"][0]["name"] = json!(text);
    fs::write(&path, manifest.to_string()).unwrap();
    let odd = folder.plant("shop", 30, "daily");
    folder.write(
        &format!("{odd}/manifest.json"),
        json!({"schema": 1, "id": odd, "type": text}).to_string(),
    );
    let lease = json!({
        "holder": {"host": text, "pid": 1},
        "run": text,
        "backup": text,
        "acquired_at": "2025-01-01T00:00:00Z",
        "expires_at": "2099-01-01T00:00:00Z"
    });
    folder.write("shop/.lease", lease.to_string());
    let foreign: String = text.chars().filter(|c| !matches!(c, '/' | '\0')).take(60).collect();
    if !matches!(foreign.as_str(), "" | "." | "..") {
        folder.write(&format!("{spoilt}/{foreign}"), "x");
        folder.write(
            &format!("{foreign}z/{}/notes", id("shop", 1).rsplit_once('/').unwrap().1),
            "x",
        );
    }
    (folder, spoilt)
}

#[test]
fn no_command_over_a_hostile_store_prints_what_steers() {
    let text = hostile();
    let (folder, spoilt) = planted(&text);
    for args in [
        &["list"][..],
        &["list", "--database", &text],
        &["status"],
        &["status", "--database", &text],
        &["prune", "--dry-run", "--retention", "1d"],
        &["verify", &spoilt],
        &["verify", &text],
        &["verify", "latest", "--database", &text],
        &["download", &spoilt],
        &["download", "latest", "--database", &text],
        &["restore", &spoilt, "--target", "postgresql://nobody@127.0.0.1:1/x"],
        &["restore", &text, "--target", "postgresql://nobody@127.0.0.1:1/x"],
        &["backup", "--database-url", "postgresql://nobody@127.0.0.1:1/x\u{1b}[2J"],
        &["backup", "--retention", &text],
        &[text.as_str()],
    ] {
        assert_all_plain(&folder, args);
    }
}

#[test]
fn nor_over_a_database_whose_every_name_is_hostile() {
    // PostgreSQL's names are short.
    let text = format!("x\u{1b}[2J\n{MARK}\u{202e}\"}},\\");
    let source = Database::named(17, &text);
    let role = format!("{text}{}", std::process::id());
    source.sql(&format!(
        "CREATE SCHEMA {name};
         CREATE TABLE {name}.{name} AS SELECT 1 AS {name};
         CREATE ROLE {role} LOGIN PASSWORD 'x';
         CREATE FUNCTION {name}.boom(n integer) RETURNS integer LANGUAGE plpgsql AS
           $$ BEGIN RAISE EXCEPTION E'no\\n{MARK} \\x1b[2J'; END $$;",
        name = quoted(&text),
        role = quoted(&role),
    ));
    let site = Site::new();
    let metrics = site.path().join("pgstow.prom");
    let store = site.store();
    let as_role = source.url_as(Some((&role, "x")));
    for format in ["text", "json"] {
        for (what, url, args) in [
            ("a backup", source.url(), &["backup"][..]),
            ("doctor", source.url(), &["doctor"]),
            ("a backup without rights", as_role.clone(), &["backup"]),
            ("doctor without rights", as_role.clone(), &["doctor"]),
        ] {
            for json in [false, true] {
                let mut command = at(&site);
                command.args(args).args(["--database-url", &url, "--store"]).arg(&store);
                command.env("LOG_FORMAT", format).env("RUST_LOG", "pgstow=debug");
                command.arg("--metrics-file").arg(&metrics);
                if json {
                    command.arg("--json");
                }
                assert_plain(&format!("{what} {format} {json}"), &run(&mut command));
            }
        }
    }
    let said = fs::read_to_string(&metrics).unwrap();
    assert!(!said.chars().any(|c| c != '\n' && steers(c)), "{said:?}");
    // A restore tells its steps, what it leaves out and what stands in its way; a drill every difference.
    let target = Database::fresh(17);
    for (args, json) in [
        (&["list"][..], false),
        (&["status"], false),
        (&["verify", "--all"], false),
        (&["prune", "--dry-run"], false),
        (&["restore", "latest", "--dry-run"], false),
        (&["restore", "latest", "--dry-run"], true),
        (&["restore", "latest"], true),
        (&["restore", "latest"], false),
        (&["restore", "latest", "--clean", "--dry-run"], false),
        (&["restore", "latest", "--clean"], false),
        (&["restore", "latest", "--table", "nowhere.*"], false),
        (&["verify", "latest", "--drill"], false),
        (&["verify", "latest", "--drill"], true),
        (&["restore", "latest", "--data-only", "--dry-run"], true),
        (&["download", "latest", "--force"], false),
    ] {
        let mut command = at(&site);
        command.args(args).env("BACKUP_TARGET_URL", target.url());
        command.env("RUST_LOG", "pgstow=debug").arg("--store").arg(&store);
        if json {
            command.arg("--json");
        }
        let told = run(&mut command);
        assert_plain(&format!("{args:?} {json}"), &told);
        if json {
            // No name ends the document, or adds to it.
            told.json();
        }
    }
    source.sql(&format!("DROP ROLE {}", quoted(&role)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_the_names_are_the_outputs_are_plain(
        text in "[\\x00-\\x1f\\x7f-\\x9f\u{200e}\u{202e}\u{2028}\u{2066}\u{feff}a-zé/ .\"\\\\{}-]{1,40}",
    ) {
        let (folder, spoilt) = planted(&text);
        let nowhere = "postgresql://nobody@127.0.0.1:1/x";
        for args in [
            &["list"][..],
            &["status"],
            &["prune", "--dry-run"],
            &["verify", &spoilt],
            &["restore", &spoilt, "--dry-run", "--target", nowhere],
        ] {
            for json in [false, true] {
                let mut command = folder.command(args);
                if json {
                    command.arg("--json");
                }
                assert_plain(&format!("{args:?} {json}"), &run(&mut command));
            }
        }
    }
}
