use std::time::Duration;

use clap::ValueEnum;

use super::*;
use crate::command::{BackupRequest, PruneRequest, VerifySelection};
use crate::error::Code;
use crate::repository::backup_id::BackupKind;
use crate::repository::trigger::Trigger;

fn read(line: &[&str]) -> Result<Invocation> {
    let args: Vec<OsString> = std::iter::once("pgstow")
        .chain(line.iter().copied())
        .map(OsString::from)
        .collect();
    parse(&args)
}

fn given(line: &[&str]) -> (Command, BTreeMap<&'static str, Vec<String>>) {
    match read(line).unwrap() {
        Invocation::Run { command, flags, .. } => (*command, flags),
        other => panic!("{other:?}"),
    }
}

fn refusal(line: &[&str]) -> Error {
    match read(line) {
        Err(error) => error,
        Ok(other) => panic!("{other:?}"),
    }
}

fn text(line: &[&str]) -> String {
    match read(line).unwrap() {
        Invocation::Text(text) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_is_consistent() {
    command(false).debug_assert();
    command(true).debug_assert();
}

#[test]
fn a_backup_is_full_and_by_cli_unless_said_otherwise() {
    let (command, flags) = given(&["backup"]);
    let expected = BackupRequest {
        trigger: Trigger::Cli,
        ..BackupRequest::default()
    };
    assert_eq!(command, Command::Backup(expected));
    assert!(flags.is_empty());
    let line = "backup --kind=full --trigger schedule --event-id full-2026-01-31 --database shop";
    let (command, _) = given(&line.split(' ').collect::<Vec<_>>());
    let expected = BackupRequest {
        trigger: Trigger::Schedule,
        event_id: Some("full-2026-01-31".into()),
        database: Some("shop".into()),
        ..BackupRequest::default()
    };
    assert_eq!(command, Command::Backup(expected));
}

#[test]
fn increments_are_made_once_or_at_a_pace() {
    let increment = |every: Option<u64>| {
        Command::Backup(BackupRequest {
            kind: BackupKind::Incremental,
            every: every.map(Duration::from_secs),
            trigger: Trigger::Cli,
            ..BackupRequest::default()
        })
    };
    for (line, every) in [
        (&["backup", "--kind", "incremental"][..], None),
        (&["backup", "--kind", "incr"], None),
        (&["backup", "--kind", "incremental", "--follow"], Some(60)),
        (
            &["backup", "--kind", "incremental", "--follow", "--every", "5s"],
            Some(5),
        ),
        (
            &["backup", "--kind", "incremental", "--follow", "--every", "2m"],
            Some(120),
        ),
    ] {
        assert_eq!(given(line).0, increment(every), "{line:?}");
    }
    for (line, told) in [
        (&["backup", "--follow"][..], "--kind incremental"),
        (&["backup", "--kind", "incremental", "--every", "60s"], "--follow"),
        (&["backup", "--kind", "incremental", "--follow", "--every", "4s"], "5s"),
        (&["backup", "--kind", "incremental", "--follow", "--every", "2d"], "1d"),
        (
            &["backup", "--kind", "incremental", "--follow", "--every", "soon"],
            "span",
        ),
        (
            &["backup", "--kind", "incremental", "--follow", "--event-id", "e"],
            "--event-id",
        ),
    ] {
        let error = refusal(line);
        assert!(error.message().contains(told), "{line:?}: {error}");
    }
}

#[test]
fn settings_are_taken_before_and_after_the_command() {
    for line in [
        ["--store", "/a", "backup", "--jobs", "2"],
        ["backup", "--jobs", "2", "--store", "/a"],
    ] {
        let (_, flags) = given(&line);
        assert_eq!(flags["BACKUP_STORE"], ["/a"], "{line:?}");
        assert_eq!(flags["BACKUP_JOBS"], ["2"]);
    }
    let (command, flags) = given(&["retention", "apply", "--store", "s3://one", "--store", "s3://two/a b"]);
    assert_eq!(command, Command::RetentionApply);
    assert_eq!(flags["BACKUP_STORE"], ["s3://one", "s3://two/a b"]);
}

#[test]
fn every_option_of_the_contract_is_there() {
    for flag in [
        "database-url",
        "secret-id",
        "store",
        "retention",
        "keep-last",
        "compress",
        "format",
        "jobs",
        "threads",
        "log-format",
        "sns-topic-arn",
    ] {
        let (_, flags) = given(&["backup", &format!("--{flag}=x")]);
        assert_eq!(flags.len(), 1, "{flag}");
    }
    match read(&["backup", "--json", "--env-file", "e", "--config", "c"]).unwrap() {
        Invocation::Run {
            env_file,
            config_file,
            json,
            ..
        } => assert_eq!(
            (env_file, config_file, json),
            (Some("e".into()), Some("c".into()), true)
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_store_is_listed_judged_and_pruned_as_a_whole_or_for_one_database() {
    let database = Some("shop".to_owned());
    assert_eq!(given(&["list"]).0, Command::List { database: None });
    let list = Command::List {
        database: database.clone(),
    };
    assert_eq!(given(&["list", "--database", "shop"]).0, list);
    let (status, flags) = given(&["status", "--database=shop", "--max-age", "2d"]);
    let expected = Command::Status {
        database: database.clone(),
    };
    assert_eq!(status, expected);
    assert_eq!(flags["BACKUP_MAX_AGE"], ["2d"]);
    assert_eq!(given(&["prune"]).0, Command::Prune(PruneRequest::default()));
    let request = PruneRequest {
        dry_run: true,
        verified_only: true,
        allow_delete: true,
        database,
    };
    let line = [
        "cleanup",
        "--dry-run",
        "--verified-only",
        "--allow-delete",
        "--database",
        "shop",
    ];
    assert_eq!(given(&line).0, Command::Prune(request));
    assert_eq!(refusal(&["list", "--database", ""]).code(), Code::Config);
}

#[test]
fn what_is_not_understood_is_a_config_error_with_a_hint() {
    for line in [
        &[][..],
        &["frobnicate"],
        &["retention"],
        &["backup", "--stor", "x"],
        &["backup", "--store"],
        &["backup", "--jobs", "1", "--jobs", "2"],
        &["backup", "extra"],
        &["backup", "--kind", "half"],
        &["backup", "--trigger", "moon"],
        &["backup", "--event-id", ""],
        &["backup", "--database", ""],
        &["completions", "tcsh"],
    ] {
        let error = refusal(line);
        assert_eq!((error.code(), error.code().exit_code()), (Code::Config, 2), "{line:?}");
        assert!(
            !error.message().contains('\n') && !error.hint_text().is_empty(),
            "{error}"
        );
    }
    assert!(refusal(&["backup", "--stor", "x"]).hint_text().contains("--store"));
    assert!(refusal(&["lst"]).message().contains("lst"));
}

#[test]
fn an_option_that_asks_for_what_is_not_done_is_refused_and_the_hint_is_of_its_command() {
    let id = "shop/20260131T040500Z-full";
    for line in [
        &["verify", "latest", "--since", "7d"][..],
        &["verify", id, "--since", "7d"],
        &["verify", id, "--database", "other"],
        &["restore", id, "--database", "other"],
        &["download", id, "--database", "other"],
        &["restore", "latest", "--force"],
        &["restore", "latest", "--data-only"],
        &["restore", "latest", "--into", "old"],
    ] {
        let error = refusal(line);
        assert_eq!(error.code(), Code::Config, "{line:?}");
        assert!(!error.hint_text().contains("backup --help"), "{line:?}: {error}");
    }
    for line in [
        &["verify", "latest", "--database", "shop"][..],
        &["verify", "--all", "--since", "7d", "--database", "shop"],
        &["restore", "latest", "--database", "shop"],
        &["verify", id, "--database", "shop"],
        &["restore", "latest", "--no-check", "--no-verify"],
        // An unknown word is an error that names the nearest one.
        &["restore", "lates", "--database", "shop"],
    ] {
        given(line);
    }
    for (line, help) in [
        (&["restore"][..], "`pgstow restore --help`"),
        (&["restore", "latest", "extra"], "`pgstow restore --help`"),
        (&["verify", "--store", "/s"], "`pgstow verify --help`"),
        (&["list", "--database", ""], "`pgstow list --help`"),
        (&[], "`pgstow --help`"),
    ] {
        let error = refusal(line);
        assert!(error.hint_text().contains(help), "{line:?}: {}", error.hint_text());
    }
}

#[test]
fn serve_has_the_older_systems_name_too() {
    for name in ["serve", "start-scheduler"] {
        match read(&["--env-file", ".env", name, "--listen", "127.0.0.1:9000"]).unwrap() {
            Invocation::Serve { flags, env_file, .. } => {
                assert_eq!(flags["BACKUP_LISTEN"], ["127.0.0.1:9000"], "{name}");
                assert_eq!(env_file, Some(".env".into()));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn commands_of_the_older_systems_are_answered_wherever_they_stand() {
    let scheduler = "`pgstow serve` begins runs when they are due";
    let full = "a full backup is made by `pgstow backup`";
    let incremental = "an increment is made by `pgstow backup --kind incremental`";
    for (line, hint) in [
        (&["full"][..], full),
        (&["start", "scheduler"], scheduler),
        (&["--env-file", ".env", "scheduler"], scheduler),
        (&["--json", "full"], full),
        (&["--store", "x", "full"], full),
        (&["backup", "full"], full),
        (&["backup", "--store", "x", "full"], full),
        (&["backup", "incremental"], incremental),
        (&["--json", "incr"], incremental),
        (&["incremental"], incremental),
        (&["incremental", "--store", "x"], incremental),
    ] {
        let error = refusal(line);
        assert_eq!(error.code(), Code::Config);
        assert!(error.hint_text().contains(hint), "{line:?}: {}", error.hint_text());
    }
    // A value of a flag is no command.
    let (_, flags) = given(&["--store", "full", "list"]);
    assert_eq!(flags["BACKUP_STORE"], ["full"]);
    assert!(!refusal(&["list", "start"]).message().contains("older"));
}

#[test]
fn a_url_in_the_wrong_place_does_not_show_its_password() {
    let error = refusal(&["backup", "postgres://u:hun'ter2@h/db"]);
    let shown = format!("{} {}", error.message(), error.hint_text());
    assert!(!shown.contains("hunter2"), "{shown}");
    let error = refusal(&["postgres://u:hunter2@h/db"]);
    assert!(!format!("{} {}", error.message(), error.hint_text()).contains("hunter2"));
    assert_eq!(
        without_credentials("a 'x://u:p@h/d' and y://z"),
        "a 'x://…@h/d' and y://z"
    );
}

#[test]
fn help_shows_the_settings_that_apply_and_all_on_demand() {
    let (backup, list) = (text(&["backup", "--help"]), text(&["list", "--help"]));
    assert!(backup.contains("--compress") && backup.contains("BACKUP_S3_PART_SIZE"));
    assert!(!backup.contains("BACKUP_TARGET_HOST"), "{backup}");
    assert!(list.contains("--store <") && list.contains("AWS_REGION"));
    assert!(
        !list.contains("--compress") && !list.contains("BACKUP_STALL_SECONDS"),
        "{list}"
    );
    for setting in SETTINGS {
        for shown in [text(&["list", "--help=all"]), text(&["help", "settings"])] {
            assert!(shown.contains(setting.variable), "{}", setting.variable);
        }
    }
    assert!(backup.contains("Examples:") && backup.contains("Exit codes:"));
    assert!(backup.contains("pgstow help settings"));
    // A flag that the help does not show is accepted too.
    let (_, flags) = given(&["list", "--compress", "gzip"]);
    assert_eq!(flags["BACKUP_COMPRESSION"], ["gzip"]);
    assert_eq!(text(&["help", "list"]), list);
    assert_eq!(
        text(&["help", "retention", "apply"]),
        text(&["retention", "apply", "--help"])
    );
    assert_eq!(text(&["help"]), text(&["--help"]));
    assert!(!text(&["--help"]).contains("--compress"));
    assert_eq!(refusal(&["help", "frob"]).code(), Code::Config);
    assert!(text(&["--version"]).contains(env!("CARGO_PKG_VERSION")));
    assert!(text(&["-V"]).starts_with("pgstow "));
    assert!(text(&["-h"]).contains("retention"));
}

#[test]
fn completions_are_scripts() {
    for shell in clap_complete::Shell::value_variants() {
        let script = text(&["completions", &shell.to_string()]);
        assert!(script.contains("pgstow") && script.contains("retention"), "{shell}");
    }
}

#[test]
fn json_is_seen_in_arguments_that_cannot_be_parsed() {
    let args = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
    assert!(wants_json(&args("pgstow frob --json")));
    assert!(!wants_json(&args("pgstow frob -- --json")));
}

#[test]
fn a_proof_of_increments_is_of_the_latest_backup_if_none_is_named() {
    for line in [vec!["verify", "--chain"], vec!["verify", "--drill", "--to-lsn", "0/10"]] {
        let (Command::Verify(request), _) = given(&line) else {
            panic!("{line:?}")
        };
        assert_eq!(request.selection, VerifySelection::One("latest".to_owned()));
    }
    assert_eq!(refusal(&["verify"]).code(), Code::Config);
}
