use proptest::prelude::*;

use super::*;

fn screened(script: &str, cut: usize) -> Result<Vec<Edit>, Refused> {
    let mut screen = Screen::default();
    for piece in script.as_bytes().chunks(cut) {
        screen.pass(piece)?;
    }
    screen.end()
}

/// The edits, which must be the same wherever the script is cut.
fn edits(script: &str) -> Vec<Edit> {
    let whole = screened(script, usize::MAX);
    for cut in 1..=7 {
        assert_eq!(screened(script, cut), whole, "{script}");
    }
    whole.unwrap_or_else(|refused| panic!("{refused}: {script}"))
}

fn refused(script: &str) -> Refused {
    let whole = screened(script, usize::MAX);
    for cut in 1..=7 {
        assert_eq!(screened(script, cut), whole, "{script}");
    }
    whole.expect_err(script)
}

#[test]
fn psqls_commands_are_refused_wherever_they_stand() {
    for script in [
        "\\! id\n",
        "SELECT 1;\n\\! id\n",
        "SELECT 1; \\! id\n",
        "SELECT 1 \\gexec\n",
        "SELECT 1\n\\gexec\n",
        "SELECT ( \\! id\n);\n",
        " \\restrict abc\n",
        "\\restrict abc def\n",
        "\\restrict\n",
        "\\unrestrict\n",
        "\\unrestrict a`id`\n",
        "\\restrict abc\\! id\n",
        "\\o |id\n",
        "\\copy t from program 'id'\n",
        "\\i /tmp/x\n",
        "\\c other\n",
        "\\setenv A b\n",
        "\\connect other\n",
        "\\;\n",
        "SELECT 1\\; COMMIT;\n",
        "\\.\n",
        "COPY t FROM stdin;\na\n\\.\n\\! id\n",
        "SELECT 'a' \\! id\n",
        "SELECT $$a$$ \\! id\n",
        "/* a */ \\! id\n",
        "/* /* a */ */ \\! id\n",
        "-- a\r\\! id\n",
        "SELECT \"a\"\"\" \\! id\n",
        "\\! id",
    ] {
        let why = refused(script).why;
        assert!(why.contains("psql's"), "{why}: {script}");
    }
    assert_eq!(
        refused("SELECT 1;\n\n\\! id 'secret'\n").to_string(),
        "line 3 holds psql's command \\!, which is not run"
    );
}

#[test]
fn what_only_looks_like_a_command_is_left_alone() {
    for script in [
        "SELECT '\\! id', E'\\\\! \\' id', \"\\! id\";\n",
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $_$\n\\! id\n BEGIN COMMIT; END $$ ; $_$;\n",
        "DO $$ \\! $a$ $ id $$;\n",
        "-- \\! id\n/* \\! id\n /* COMMIT; */ \\o |x */ SELECT 1;\n",
        "COPY public.t (a, b) FROM stdin;\n\\\\! id\tCOMMIT;\n\\N\t'\n\\.x\n'$$\n\\.\nSELECT 1;\n",
        "COPY t FROM stdin;\n\\.\r\n",
        "SELECT 1::int, a[1: n], b[1: \"N m\"], $1, 1.5e-7 - -1, 2E3, 1., .5,  a <-> b, a /b, U&\"\\0441\";\n",
        "SELECT a::\"char\", b::text, a[:], 'é', \"é\" /* é */ -- é\r\n;\n",
        "-- é\r\n--\n-- a\r",
        "CREATE RULE r AS ON INSERT TO t DO INSTEAD (INSERT INTO u VALUES (1); DELETE FROM v; );\n",
        "CREATE FUNCTION f() RETURNS int\n    LANGUAGE sql\n    BEGIN ATOMIC\n SELECT CASE WHEN (1 = 1) THEN 1 ELSE 2 END; SELECT 2;\nEND;\n",
        "CREATE OR REPLACE PROCEDURE p(begin int) LANGUAGE sql BEGIN ATOMIC END;\n",
    ] {
        assert_eq!(edits(script), [], "{script}");
    }
}

#[test]
fn the_keys_and_the_transactions_around_large_objects_are_taken_out() {
    let script = "--\n\\restrict aB9\n\nSET a = 1;\nBEGIN;\n\nSELECT pg_catalog.lo_open('1', 131072);\nCOMMIT;\n\\unrestrict aB9\n";
    let place = |text: &str| script.find(text).unwrap() as u64..(script.find(text).unwrap() + text.len()) as u64;
    assert_eq!(
        edits(script),
        [
            Edit::Blank(place("\\restrict aB9")),
            Edit::Blank(place("BEGIN;")),
            Edit::Blank(place("COMMIT;")),
            Edit::Blank(place("\\unrestrict aB9")),
        ]
    );
}

#[test]
fn a_limit_that_older_servers_do_not_know_is_taken_out() {
    let script = "SET lock_timeout = 0;\nSET transaction_timeout = 0;\nSELECT 'SET transaction_timeout = 0;';\n";
    let start = script.find("SET t").unwrap() as u64;
    assert_eq!(edits(script), [Edit::Blank(start..start + 28)]);
    let other = "ALTER DATABASE a SET transaction_timeout = 0;\nCREATE TABLE transaction_timeout ();\n";
    assert_eq!(edits(other), []);
}

#[test]
fn a_script_that_would_end_its_transaction_is_refused() {
    for script in [
        "COMMIT;\n",
        "commit;",
        "/* a */ CoMMit ;\n",
        "SELECT 1; COMMIT;\n",
        "BEGIN; COMMIT; COMMIT;\n",
        "BEGIN; BEGIN;\n",
        "BEGIN;\n",
        "BEGIN WORK; COMMIT;\n",
        "BEGIN; COMMIT WORK;\n",
        "BEGIN; COMMIT AND CHAIN;\n",
        "BEGIN; COMMIT PREPARED 'a';\n",
        "BEGIN; COMMIT 'a';\n",
        "END;\n",
        "ROLLBACK;\n",
        "ABORT;\n",
        "START TRANSACTION;\n",
        "SAVEPOINT a;\n",
        "RELEASE a;\n",
        "PREPARE TRANSACTION 'a';\n",
        "DISCARD ALL;\n",
        "RESET ALL;\n",
        "COPY t FROM stdin;\na\n\\.\nCOMMIT;\n",
        "CREATE FUNCTION begin() RETURNS int LANGUAGE sql RETURN 1; COMMIT; END;\n",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; END;\n",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 AS case; END; COMMIT;\n",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT t.end FROM t; SELECT 1; END;\n",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC COMMIT; END;\n",
        "CREATE TABLE begin atomic; END;\n",
        "SELECT 1 AS begin atomic; END;\n",
        "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; COMMIT);\n",
    ] {
        refused(script);
    }
    let why = refused("SELECT 1;\nCOMMIT;\n").to_string();
    assert_eq!(
        why,
        "line 2 has COMMIT, which would end the transaction in which the script runs"
    );
}

#[test]
fn what_psql_or_versions_read_in_two_ways_is_refused() {
    for script in [
        "SELECT E'a'\n'b\\''; SELECT ' 1';\n",
        "SELECT 'a' -- x\n'b';\n",
        "SELECT 1E'\\'';\n",
        "SELECT 1$$a$$;\n",
        "SELECT 1E--1; COMMIT;\n;\n",
        "SELECT 1e+; SELECT 1;\n",
        "SELECT 1a;\n",
        "\x0b-- ;\n",
        "SELECT 1.e5e;\n",
        "SELECT $1$$a$$;\n",
        "SELECT :{?x};\n",
        "SELECT :{HOST};\n",
        "SELECT :t$$;$$;\n",
        "SELECT :e'\\'';'\n;\n",
        "SELECT :1$$;$$;\n",
        "SELECT é;\n",
        "SELECT x.é@$a$; COMMIT; --$a$;\n",
        "SELECT :é;\n",
        "SELECT 1é;\n",
        "SELECT 'a'é;\n",
        "é\n",
        "-- é\r SELECT '\nCOMMIT;\n-- ';\n",
        "SELECT 1; -- é\r\r\n",
        "-- a\r-- b\n",
        "SELECT $é$a$é$;\n",
        "SELECT 1\0;\n",
        "COPY t FROM stdin; SELECT 1;\n\\.\n",
        "COPY t FROM stdin WITH CSV;\n\\.\n",
        "COPY t TO PROGRAM 'id';\n",
        "COPY t FROM PROGRAM 'id';\n",
        "COPY (SELECT 1) TO '/tmp/x';\n",
        "COPY t FROM '/etc/passwd';\n",
        "SET standard_conforming_strings TO off;\n",
        "SET LOCAL standard_conforming_strings = off;\n",
        "SET client_encoding = 'SJIS';\n",
        "SET SESSION client_encoding = 'UTF8';\n",
        "SET NAMES 'GBK';\n",
        "SET standard_conforming_strings = off; SELECT 1;\n",
        "SELECT 'open",
        "SELECT $$open",
        "SELECT /* open",
        "SELECT 1",
        "SELECT (1;",
        "COPY t FROM stdin;\nopen",
        "COPY t FROM stdin;",
    ] {
        refused(script);
    }
}

#[test]
fn where_a_setting_decides_what_ends_a_text_it_is_set_before_the_statement() {
    let on = |at| Edit::Insert(at, "SET standard_conforming_strings = on;\n");
    let off = |at| Edit::Insert(at, "SET standard_conforming_strings = off;\n");
    assert_eq!(edits("SELECT 1;\nCOMMENT ON TABLE t IS 'C:\\';\n"), [on(10)]);
    assert_eq!(edits("SELECT 'a\\b', 'C:\\', '\\''';\nSELECT 'd\\';"), [on(0), on(28)]);
    assert_eq!(
        edits("SET standard_conforming_strings = off;\nSELECT 'it\\'s';\nSET standard_conforming_strings = on;\n"),
        [off(39)]
    );
    assert_eq!(
        edits("SET client_encoding = 'EUC_JP';\nSELECT E'é\\'';\n"),
        [Edit::Insert(32, "SET client_encoding = 'EUC_JP';\n")]
    );
    refused("SELECT E'é\\'';\n");
}

/// Between two of the calls that fill large objects, nothing can have changed the setting.
#[test]
fn large_objects_are_settled_once() {
    let writes = "SELECT pg_catalog.lo_open('1', 131072);\nSELECT pg_catalog.lowrite(0, '\\\\x00');\n\
                  SELECT pg_catalog.lowrite(0, '\\\\x00');\nSELECT pg_catalog.lo_close(0);\n";
    let settled = |script: &str| {
        let edits = edits(&format!("SET standard_conforming_strings = off;\n{script}"));
        edits.iter().filter(|edit| matches!(edit, Edit::Insert(..))).count()
    };
    assert_eq!(settled(&writes.repeat(50)), 1);
    for between in [
        "SELECT public.lowrite(0, 'a');\n",
        "SELECT pg_catalog.lowrite(0, 'a') FROM f();\n",
        "SELECT pg_catalog.lowrite(0, f());\n",
        "SELECT pg_catalog.lowrite(0, 'a', b);\n",
        "SELECT pg_catalog.lowrite(0, 'a' || 'b');\n",
        "SELECT pg_catalog.set_config('a', 'b');\n",
        "SELECT \"pg_catalog\".lowrite(0, 'a');\n",
        "SET standard_conforming_strings = off;\n",
        "COPY t FROM stdin;\n\\.\n",
    ] {
        assert_eq!(settled(&format!("{writes}{between}{writes}")), 2, "{between}");
    }
}

#[test]
fn no_colon_asks_psql_for_a_variable() {
    for (script, places) in [
        ("SELECT :HOST;\n", vec![8]),
        ("SELECT :'HOST', :\"HOST\";\n", vec![8, 17]),
        ("SELECT :'USER''x', :\"USER\"\"x\";\n", vec![8, 20]),
        ("SELECT a[1:\"N\"], a[n:2], a[b:c], a[:_d];\n", vec![11, 21, 29, 36]),
        ("SELECT a:::'USER''; COMMIT; --';\n", vec![11]),
        ("SELECT a:=:USER;\n", vec![11]),
    ] {
        let spaces: Vec<Edit> = places.into_iter().map(|place| Edit::Insert(place, " ")).collect();
        assert_eq!(edits(script), spaces, "{script}");
    }
    // In the order of the places, not in the order in which the screen found them.
    let settled = "SET standard_conforming_strings = on;\n";
    let expected = [Edit::Insert(0, settled), Edit::Insert(11, " ")];
    assert_eq!(edits("SELECT a[1:n], 'C:\\';\n"), expected);
}

proptest! {
    /// The result must be the same wherever the script is cut.
    #[test]
    fn no_bytes_make_it_panic_or_depend_on_the_pieces(
        script in "([-/*;'\"$:eEU&()\\\\a1 \n\r.]|BEGIN|COMMIT;|COPY t FROM stdin;\n|\\$a\\$|ATOMIC|CREATE FUNCTION ){0,40}",
        cut in 1_usize..5,
    ) {
        prop_assert_eq!(screened(&script, cut), screened(&script, usize::MAX));
    }

    #[test]
    fn names_texts_and_rows_of_any_kind_hide_nothing_and_reveal_nothing(
        texts in proptest::collection::vec("[^\0]{0,20}", 1..6),
    ) {
        let mut script = "SET client_encoding = 'UTF8';\n".to_owned();
        for text in &texts {
            let (name, value) = (text.replace('"', "\"\""), text.replace('\'', "''"));
            let escaped = value.replace('\\', "\\\\");
            let row = text.replace('\\', "\\\\").replace('\n', "\\n");
            script += &format!("COMMENT ON TABLE \"{name}\" IS '{value}';\nSELECT E'{escaped}', $_a$ $$ \\! $_a$;\n");
            script += &format!("COPY t FROM stdin;\n{row}\n\\.\n");
        }
        prop_assert!(screened(&script, usize::MAX).is_ok(), "{:?}", screened(&script, usize::MAX));
        let refused = screened(&format!("{script}\\! id\n"), usize::MAX).unwrap_err();
        prop_assert!(refused.why.contains("\\!"));
    }
}
