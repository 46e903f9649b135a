//! A plain backup's script, in the hands of somebody who can write to the store.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::job::restore::place::{Backed, untouched};
use crate::security::forging::{Marker, content, forge_whole, mend_data_files};
use crate::support::contents::Contents;
use crate::support::database::Database;
use crate::support::impostor::{bin_with, write_script};
use crate::support::program::{pgstow, run_with_input, stock};
use crate::support::services::postgres_bin;

/// Rows, functions and comments that look like an attack, and are none.
fn source(major: u32) -> Database {
    let source = Database::fresh(major);
    source.sql(
        r#"CREATE TABLE notes (n int PRIMARY KEY, text text);
        INSERT INTO notes VALUES (1, '\! id'), (2, E'\n\\.\n\\! id\nCOMMIT;\n'), (3, E'\\.'), (4, 'it''s $$'), (5, '\o |id');
        COMMENT ON TABLE notes IS 'C:\';
        COMMENT ON COLUMN notes.n IS E'a\\''; COMMIT; --\n\\! id';
        CREATE VIEW slashes AS SELECT 'C:\' AS a, E'it''s \\' AS b, (ARRAY[1, 2, 3])[1:2] AS c, $$;COMMIT;$$ AS d;
        SET check_function_bodies = off;
        CREATE FUNCTION hidden() RETURNS text LANGUAGE plpgsql AS $f$
        BEGIN
        \! id
        COMMIT;
        END $f$;
        CREATE PROCEDURE twice(given int) LANGUAGE sql BEGIN ATOMIC
          INSERT INTO notes SELECT given, CASE WHEN given > 1 THEN 'more' ELSE 'one' END;
          DELETE FROM notes WHERE n = given;
        END;
        CREATE VIEW sliced AS SELECT (ARRAY[1, 2, 3])[1:"N"] AS upper, (ARRAY[1, 2, 3])[n:2] AS lower FROM (SELECT 2 AS "N", 1 AS n) s;
        CREATE TABLE "größe" ("é" text); COMMENT ON TABLE "größe" IS 'ß'; CREATE VIEW "ß" AS SELECT "é" FROM "größe";
        CREATE RULE kept AS ON DELETE TO notes DO ALSO (SELECT 1; SELECT 2);
        SELECT lo_from_bytea(0, 'a large object'), lo_from_bytea(0, 'another')"#,
    );
    source
}

const RELATIONS: &str = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";

fn backed(major: u32, compress: &str) -> Backed {
    Backed::up(source(major), &["--format", "plain", "--compress", compress])
}

/// The script without the keys that pg_dump gives it.
fn without_keys(script: &str) -> String {
    let is_key = |line: &&str| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict ");
    script
        .lines()
        .filter(|line| is_key(line))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn script_of(backed: &Backed) -> String {
    String::from_utf8(content(backed, "sql")).unwrap()
}

/// Where statements may stand: at the beginning, before the first rows, and at the end.
fn infected(script: &str, attack: &str) -> [String; 3] {
    let script = without_keys(script);
    let middle = script.find("\n--\n-- Data for Name: notes").unwrap() + 1;
    [
        format!("{attack}{script}"),
        format!("{}{attack}{}", &script[..middle], &script[middle..]),
        format!("{script}{attack}"),
    ]
}

fn drill(backed: &Backed) -> (Value, i32) {
    let mut drill = pgstow();
    drill
        .args(["verify", backed.id(), "--drill", "--json", "--store", &backed.store])
        .env("TMPDIR", backed.site.path().join("tmp"))
        .current_dir(backed.site.path());
    let run = crate::support::program::run(&mut drill);
    (run.json(), run.status.code().unwrap())
}

fn psqls_commands_are_not_run_from_a_script(major: u32) {
    let marker = Marker::new();
    let (touch, path) = (marker.command(), marker.path().display());
    let target = Database::fresh(major);
    let sql_file = target_file(&format!("\\! {touch}\n"));
    let attacks = [
        format!("\\! {touch}\n"),
        format!("SELECT 1; \\! {touch}\n"),
        format!("SELECT 1 \\! {touch}\n;\n"),
        format!("/* a */ \\! {touch}\n"),
        format!("SELECT 'a', \"b\" FROM (SELECT 1 AS b) b; \\! {touch}\n"),
        format!("\\o |{touch}\nSELECT 1;\n\\o\n"),
        format!("\\copy (SELECT 1) TO PROGRAM '{touch}'\n"),
        format!("\\copy (SELECT 1) TO '{path}'\n"),
        format!("\\i {}\n", sql_file.path().display()),
        format!("SELECT '\\! {touch}' AS x \\gset\n:x\n\\! {touch}\n"),
        format!("\\setenv PAGER '{touch}'\n\\! $PAGER\n"),
        format!("SELECT 1 \\g |{touch}\n"),
        format!("\\echo `{touch}`\n"),
        format!("\\set x `{touch}`\n"),
        format!("\\unrestrict guess\n\\! {touch}\n"),
        format!("\\restrict a\n\\unrestrict a\n\\! {touch}\n"),
        format!("\\c\n\\! {touch}\n"),
        format!("DO $$ BEGIN END $$; \\! {touch}\n"),
        format!("SELECT format('CREATE TABLE %I ()', 'left_behind') \\gexec\n\\! {touch}\n"),
    ];
    for (compress, drills) in [("none", 3), ("gzip", 1), ("zstd", 1)] {
        let backed = backed(major, compress);
        let script = script_of(&backed);
        for (number, attack) in attacks.iter().enumerate() {
            for (place, poisoned) in infected(&script, attack).iter().enumerate() {
                if compress == "none" && place == 0 {
                    // It is an attack: psql itself obeys.
                    let by_hand = Database::fresh(major);
                    let mut psql = stock(major, "psql");
                    run_with_input(psql.args(["-X", "-q", "-d", &by_hand.url()]), poisoned.as_bytes());
                    assert!(marker.was_made(), "no attack: {attack}");
                    marker.wipe();
                } else if (number + place) % 3 != 0 {
                    continue;
                }
                forge_whole(&backed, "sql", poisoned.as_bytes());
                let refused = backed.refused(&target.url(), &["--globals"], "RESTORE_ERR", 41);
                assert!(refused.message.contains("psql's"), "{attack}: {}", refused.message);
                assert!(refused.message.contains("nothing was changed"), "{}", refused.message);
                assert!(!marker.was_made(), "{attack}");
                assert_eq!(target.sql(RELATIONS), "0", "{attack}");
            }
        }
        for attack in &attacks[..drills] {
            forge_whole(&backed, "sql", infected(&script, attack)[0].as_bytes());
            let (report, exit) = drill(&backed);
            // Its bytes are what the manifest says; and nothing of it is run.
            assert_eq!(
                (exit, &report["error"]["code"]),
                (43, &"NOT_PROVED".into()),
                "{report:#}"
            );
            let refused = report["error"]["message"].as_str().unwrap();
            assert!(
                refused.contains("is not run") && refused.contains("psql's"),
                "{refused}"
            );
            assert!(report["problems"].is_null() && report["drill"].is_null(), "{report:#}");
            let warnings = report["warnings"].to_string();
            assert!(warnings.contains("this version would not run it"), "{warnings}");
            let kept = fs::read_to_string(backed.folder().join("verification.json")).unwrap();
            assert!(kept.contains("\"verify\"") && !kept.contains("\"drill\""), "{kept}");
            assert!(!marker.was_made(), "{attack}");
        }
        // What only looks like an attack comes back.
        forge_whole(&backed, "sql", script.as_bytes());
        let again = Database::fresh(major);
        backed.restored(&again, &[]);
        Contents::of(&backed.source).assert_equals(&Contents::of(&again));
    }
    assert!(!marker.was_made());
}

on_majors! { psqls_commands_are_not_run_from_a_script: 15 18 }

fn target_file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    file
}

fn no_byte_of_an_altered_script_reaches_psql(major: u32) {
    let marker = Marker::new();
    let source = Database::fresh(major);
    source.sql("CREATE TABLE t AS SELECT n, md5(n::text) AS text FROM generate_series(1, 90000) n");
    for compress in ["none", "gzip", "zstd"] {
        let backed = Backed::up(source.copy(), &["--format", "plain", "--compress", compress]);
        let script = content(&backed, "sql");
        let at = script.windows(5).position(|bytes| bytes == b"\nSET ").unwrap() + 1;
        let attack = format!("CREATE TABLE left_behind (); COMMIT;\n\\! {}\n-- ", marker.command());
        let mut altered = script.clone();
        altered[at..at + attack.len()].copy_from_slice(attack.as_bytes());
        // The manifest is the old one, but for the length, which an attacker can arrange.
        let mut manifest = backed.manifest();
        forge_whole(&backed, "sql", &altered);
        manifest["files"]["sql"]["bytes"] = fs::metadata(backed.file("sql")).unwrap().len().into();
        mend_data_files(&mut manifest);
        fs::write(backed.folder().join("manifest.json"), manifest.to_string()).unwrap();
        crate::support::wreck::reseal(&backed.folder());
        let target = Database::fresh(major);
        untouched(&target, || {
            let refused = backed.refused(&target.url(), &[], "INTEGRITY", 40);
            assert!(refused.message.contains("SHA-256"), "{}", refused.message);
            assert!(refused.message.contains("nothing was changed"), "{}", refused.message);
        });
        assert!(!marker.was_made());
        let (report, exit) = drill(&backed);
        assert_eq!(exit, 40, "{report:#}");
        assert!(!marker.was_made());
    }
}

on_majors! { no_byte_of_an_altered_script_reaches_psql: 15 18 }

#[test]
fn a_script_that_would_end_its_transaction_is_not_run() {
    let backed = backed(18, "zstd");
    let script = script_of(&backed);
    let target = Database::fresh(18);
    for attack in [
        "COMMIT;\n",
        "CREATE TABLE left_behind (); COMMIT; SELECT 1 / 0;\n",
        "ROLLBACK; CREATE TABLE left_behind ();\n",
        "END;\n",
        "/* a */ commit and chain;\n",
        "COMMIT\n;\n",
        "PREPARE TRANSACTION 'a';\n",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 AS case; END; COMMIT;\n",
        "CREATE FUNCTION begin() RETURNS int LANGUAGE sql RETURN 1; COMMIT; END;\n",
        "SELECT E'a'\n'b\\''; COMMIT; --'\n;\n",
    ] {
        for poisoned in infected(&script, attack) {
            forge_whole(&backed, "sql", poisoned.as_bytes());
            let refused = backed.refused(&target.url(), &[], "RESTORE_ERR", 41);
            assert!(
                refused.message.contains("is not run: line "),
                "{attack}: {}",
                refused.message
            );
            assert_eq!(target.sql(RELATIONS), "0", "{attack}");
        }
    }
}

/// The transaction stays one and ours, though functions of the script change how it is read, and
/// though pg_dump puts one of its own around large objects.
#[test]
fn a_script_that_fails_at_its_end_leaves_nothing() {
    let backed = backed(17, "none");
    let script = script_of(&backed);
    assert!(
        script.contains("\nBEGIN;\n") && script.contains("\nCOMMIT;\n"),
        "{script}"
    );
    let target = Database::fresh(17);
    for attack in [
        "SELECT 1 / 0;\n",
        "DO $$ BEGIN PERFORM set_config('standard_conforming_strings', 'off', false); END $$;\n\
         CREATE TABLE left_behind (); SELECT '\\''; COMMIT; --';\nSELECT 1 / 0;\n",
        "DO $$ BEGIN PERFORM set_config('client_encoding', 'SJIS', false); END $$;\n\
         CREATE TABLE left_behind (); SELECT E'\u{101}\\'; COMMIT; --';\nSELECT 1 / 0;\n",
        "DO $$ BEGIN CREATE TABLE left_behind (); COMMIT; END $$;\n",
    ] {
        let whole = format!("{}{attack}", without_keys(&script));
        forge_whole(&backed, "sql", whole.as_bytes());
        untouched(&target, || {
            let failed = backed.refused(&target.url(), &[], "RESTORE_ERR", 41);
            assert!(
                failed.message.contains("was rolled back"),
                "{attack}: {}",
                failed.message
            );
            let line = format!("line {} of the script: ERROR", whole.lines().count());
            assert!(
                failed.message.contains(&line) || attack.starts_with("DO"),
                "{line}: {}",
                failed.message
            );
        });
        assert_eq!(target.sql("SELECT count(*) FROM pg_largeobject_metadata"), "0");
    }
    // A database that it would replace stays, with all that it holds.
    target.sql("CREATE TABLE precious AS SELECT 1 AS n");
    untouched(&target, || {
        let failed = backed.refused(&target.url(), &["--create", "--clean"], "RESTORE_ERR", 41);
        assert!(failed.message.contains("nothing was changed"), "{}", failed.message);
    });
    assert_eq!(target.sql(RELATIONS), "1");
}

/// Bytes that psql takes for halves of one character, once a function has set such an encoding.
#[test]
fn no_encoding_that_a_function_sets_lets_a_commit_through() {
    // Nothing in it but the attack is a reason to refuse it.
    let source = Database::fresh(17);
    source.sql("CREATE SEQUENCE counter");
    let backed = Backed::up(source, &["--format", "plain", "--compress", "none"]);
    let script = without_keys(&script_of(&backed));
    let target = Database::fresh(17);
    let set = |encoding: &str| {
        format!(
            "SELECT pg_catalog.set_config('client_encoding', '{encoding}', false);\nCREATE TABLE public.left_behind();\n"
        )
    };
    let attacks: [(&str, &[u8]); 6] = [
        ("SJIS", b"-- \x81\r SELECT '\nCOMMIT;\n-- ';\n"),
        ("GBK", b"-- \x81\r SELECT '\nCOMMIT;\n-- ';\n"),
        ("BIG5", b"SELECT 1; -- \xa4\r SELECT '\nCOMMIT;\n-- ';\n"),
        ("SJIS", b"SELECT 1 AS \x81@$a$; COMMIT; --$a$ ;\n"),
        (
            "SJIS",
            b"CREATE DOMAIN public.\x81@E AS text;\nSELECT public.\x81@E'\\'; COMMIT; --'\n;\n",
        ),
        ("GBK", b"SELECT 1 AS \xb0A$a$; COMMIT; --$a$ ;\n"),
    ];
    for (encoding, attack) in attacks {
        let attack = [set(encoding).as_bytes(), attack, b"SELECT 1 / 0;\n"].concat();
        let shown = String::from_utf8_lossy(&attack).into_owned();
        // It is an attack: psql itself commits.
        let by_hand = Database::fresh(17);
        let mut psql = stock(17, "psql");
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &by_hand.url()]);
        run_with_input(&mut psql, &[b"BEGIN;\n", &attack[..]].concat());
        assert_eq!(by_hand.sql(RELATIONS), "1", "no attack: {shown}");
        for poisoned in [
            [script.as_bytes(), &attack].concat(),
            [&attack, script.as_bytes()].concat(),
        ] {
            forge_whole(&backed, "sql", &poisoned);
            let refused = backed.refused(&target.url(), &[], "RESTORE_ERR", 41);
            assert!(
                refused.message.contains("is not run: line "),
                "{shown}: {}",
                refused.message
            );
            assert_eq!(target.sql(RELATIONS), "0", "{shown}");
        }
    }
}

/// A folder with a psql that does something else before or while it is the real one.
fn meddling(backed: &Backed, name: &str, major: u32, script: &str) -> PathBuf {
    let folder = bin_with(backed.site.path(), name, major, &["pg_restore", "pg_dump"]);
    let real = postgres_bin(major).join("psql");
    write_script(&folder.join("psql"), &real, backed.site.path(), script);
    folder
}

#[test]
fn a_script_that_changes_while_it_is_run_is_stopped_before_the_change() {
    let marker = Marker::new();
    let source = Database::fresh(17);
    source.sql("CREATE TABLE t AS SELECT n, repeat(md5(n::text), 8) AS text FROM generate_series(1, 200000) n");
    let backed = Backed::up(source, &["--format", "plain", "--compress", "none"]);
    let mut script = content(&backed, "sql");
    let at = script.len() - 400;
    let attack = format!("\n\\.\nCOMMIT;\n\\! {}\n", marker.command());
    script[at..at + attack.len()].copy_from_slice(attack.as_bytes());
    let other = backed.site.path().join("other.sql");
    fs::write(&other, script).unwrap();
    let swap = format!(
        "case \"$*\" in *--file=-*) cp {} $SITE/new && mv $SITE/new {}; esac; exec $REAL \"$@\"",
        other.display(),
        backed.file("sql").display()
    );
    let folder = meddling(&backed, "swapping", 17, &swap);
    let target = Database::fresh(17);
    untouched(&target, || {
        let mut restore = backed.restore(&target.url(), &[]);
        restore.env("BACKUP_PG_BIN", &folder);
        let failed = crate::support::wreck::fail(&mut restore, "INTEGRITY", 40);
        assert!(
            failed.message.contains("has changed since it was checked"),
            "{}",
            failed.message
        );
        assert!(failed.message.contains("the target is as it was"), "{}", failed.message);
    });
    assert!(!marker.was_made());
}

#[test]
fn what_was_committed_behind_our_back_is_told() {
    let backed = backed(17, "gzip");
    let cut = "case \"$*\" in *--file=-*) exec $REAL \"$@\" < <(sed -u 's/^CREATE VIEW public.slashes/COMMIT; &/');; esac; exec $REAL \"$@\"";
    let folder = meddling(&backed, "committing", 17, cut);
    for fails in [false, true] {
        let target = Database::fresh(17);
        let mut script = without_keys(&script_of(&backed));
        if fails {
            script += "SELECT 1 / 0;\n";
            forge_whole(&backed, "sql", script.as_bytes());
        }
        let mut restore = backed.restore(&target.url(), &[]);
        restore.env("BACKUP_PG_BIN", &folder);
        let failed = crate::support::wreck::fail(&mut restore, "RESTORE_ERR", 41);
        let what =
            "its transaction was committed before that: the target holds everything that the script did until then";
        assert!(failed.message.contains(what), "{}", failed.message);
        assert_eq!(target.sql("SELECT count(*) FROM pg_class WHERE relname = 'notes'"), "1");
    }
}

#[test]
fn a_psql_without_a_restricted_mode_gets_no_script() {
    let backed = backed(17, "zstd");
    let old = "case \"$1\" in --help=commands) $REAL \"$@\" | grep -v restrict;; *) exec $REAL \"$@\";; esac";
    let folder = meddling(&backed, "old", 17, old);
    let target = Database::fresh(17);
    untouched(&target, || {
        let mut restore = backed.restore(&target.url(), &[]);
        restore.env("BACKUP_PG_BIN", &folder);
        let refused = crate::support::wreck::fail(&mut restore, "VERSION", 21);
        assert!(refused.message.contains("\\restrict"), "{}", refused.message);
        assert!(refused.hint.contains("17.6"), "{}", refused.hint);
        // Beside one that has it, it is passed over.
        let both = format!("{}:{}", folder.display(), postgres_bin(18).display());
        crate::support::program::succeed(
            backed
                .restore(&Database::fresh(17).url(), &[])
                .env("BACKUP_PG_BIN", &both),
        );
    });
}
