//! Values of every built-in type, as columns and as keys, in databases whose settings print them otherwise: restored to
//! moments, they are byte for byte those of the source.

use std::fmt::Write as _;

use super::moment::{restored, witness};
use crate::job::increment::scene::Scene;
use crate::support::database::{Database, quoted};
use tempfile::TempDir;

/// A type, and three values that differ.
type Values = (&'static str, [&'static str; 3]);

/// Those that can be keys.
const KEYS: [Values; 68] = [
    ("int2", ["-32768", "32767", "0"]),
    ("int4", ["-2147483648", "2147483647", "0"]),
    ("int8", ["-9223372036854775808", "9223372036854775807", "0"]),
    ("numeric", ["NaN", "-1.50", "12345678901234567890.0123456789000"]),
    ("numeric(10,3)", ["-1234567.891", "0", "0.001"]),
    ("float4", ["1e-45", "-Infinity", "0.1"]),
    ("float8", ["5e-324", "NaN", "0.30000000000000004"]),
    ("money", ["-92233720368547758.08", "92233720368547758.07", "1234.56"]),
    ("\"char\"", ["x", "\\", "~"]),
    ("char(5)", ["a", "ab", "\t'\\"]),
    ("varchar(9)", ["", "a b", "\\N"]),
    ("text", ["", "a\tb\nc\\d\r\u{8}\u{b}\u{c}", "\u{e9}\u{fc}\u{df}"]),
    ("name", ["a", "A b", "\u{e4}"]),
    ("bytea", ["\\x", "\\x00ff5c0a09", "\\xdeadbeef"]),
    ("date", ["4713-01-01 BC", "infinity", "5874897-12-31"]),
    ("time", ["24:00:00", "00:00:00.000001", "12:34:56"]),
    ("time(2)", ["24:00:00", "00:00:00.01", "12:34:56"]),
    ("timetz", ["12:00:00+15:59", "12:00:00-15:59", "00:00:00.5+00"]),
    (
        "timestamp",
        ["-infinity", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999"],
    ),
    (
        "timestamptz",
        [
            "infinity",
            "2025-01-31 12:00:00.123456+05:30",
            "0001-01-01 00:00:00+00 BC",
        ],
    ),
    (
        "timestamptz(0)",
        ["-infinity", "2025-07-31 12:00:00+05:30", "1900-01-01 00:00:00+00"],
    ),
    (
        "interval",
        [
            "-178000000 years",
            "1 mon -1 day 00:00:01.5",
            "-1 year -2 mons 3 days -04:05:06.7",
        ],
    ),
    ("interval day to second", ["3 days", "-04:05:06.7", "00:00:00"]),
    (
        "uuid",
        [
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ],
    ),
    ("inet", ["::ffff:1.2.3.4/96", "10.0.0.1", "192.168.0.0/16"]),
    ("cidr", ["10.0.0.0/8", "::/0", "192.168.1.0/24"]),
    (
        "macaddr",
        ["08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"],
    ),
    (
        "macaddr8",
        [
            "08:00:2b:01:02:03:04:05",
            "ff:ff:ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00:00:00",
        ],
    ),
    ("bit(3)", ["101", "000", "111"]),
    ("varbit", ["", "1", "0101010101"]),
    ("pg_lsn", ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"]),
    ("oid", ["0", "4294967295", "16384"]),
    ("tid", ["(0,1)", "(4294967295,65535)", "(7,7)"]),
    ("xid8", ["0", "18446744073709551615", "7"]),
    ("int2vector", ["", "1 2", "-1"]),
    ("oidvector", ["", "1 2", "4294967295"]),
    ("regclass", ["odd.\"Na me\"", "pg_catalog.pg_class", "-"]),
    ("regproc", ["odd.twice", "pg_catalog.now", "-"]),
    ("regprocedure", ["odd.twice(integer)", "pg_catalog.now()", "-"]),
    ("regoper", ["pg_catalog.||/", "pg_catalog.!!", "0"]),
    (
        "regoperator",
        ["pg_catalog.+(integer,integer)", "pg_catalog.-(NONE,integer)", "0"],
    ),
    ("regtype", ["odd.mood", "integer[]", "-"]),
    ("regnamespace", ["odd", "pg_catalog", "-"]),
    ("regrole", ["pg_monitor", "pg_read_all_data", "-"]),
    (
        "regconfig",
        ["pg_catalog.simple", "pg_catalog.english", "pg_catalog.german"],
    ),
    (
        "regdictionary",
        ["pg_catalog.simple", "pg_catalog.english_stem", "pg_catalog.german_stem"],
    ),
    ("regcollation", ["pg_catalog.\"C\"", "pg_catalog.\"POSIX\"", "-"]),
    ("jsonb", ["{\"a\": [1, null, \"\\\\ \\n\"]}", "1.10", "\"\u{e9}\""]),
    ("tsvector", ["", "'a':1A 'b c':2", "'it''s' 'x\\\\y'"]),
    ("tsquery", ["'a' & !'b'", "'it''s' <-> 'x':*B", "'c' | 'd'"]),
    ("int4range", ["empty", "[1,5)", "(,)"]),
    ("int8range", ["[-5,7)", "[1,)", "empty"]),
    ("numrange", ["(1.50,2.0]", "empty", "[,7)"]),
    ("daterange", ["[2025-01-01,infinity)", "empty", "(,2025-01-01)"]),
    ("tsrange", ["[\"2025-01-01 00:00:00\",infinity]", "empty", "(,)"]),
    (
        "tstzrange",
        [
            "[\"2025-01-01 00:00:00+05:30\",\"2025-07-01 00:00:00+00\")",
            "empty",
            "(,)",
        ],
    ),
    ("int4multirange", ["{}", "{[1,3),[5,)}", "{(,)}"]),
    ("datemultirange", ["{}", "{[2025-01-01,2025-02-01)}", "{(,)}"]),
    ("int4[]", ["{}", "[0:1]={1,NULL}", "{{1,2},{3,4}}"]),
    (
        "text[]",
        ["{}", "{\"a,b\",\"NULL\",NULL,\"\\\"\\\\\",\"\"}", "{{x},{\"\\t\"}}"],
    ),
    ("date[]", ["{}", "{infinity,NULL,\"4713-01-01 BC\"}", "{2025-01-31}"]),
    ("bytea[]", ["{}", "{\"\\\\x00ff\",NULL}", "{\"\\\\x\"}"]),
    ("odd.mood", ["bad", "so so", "good"]),
    ("odd.mood[]", ["{}", "{bad,NULL}", "{\"so so\"}"]),
    ("odd.short", ["a", "bb", ""]),
    ("odd.pair", ["(1,)", "(,\"a,b\"\"\")", "(-1,\"2025-01-31 00:00:00\")"]),
    ("odd.pair[]", ["{}", "{\"(1,)\",NULL}", "{\"(2,\\\"a b\\\")\"}"]),
    ("odd.floats", ["[0.1,0.3)", "empty", "(,)"]),
];

/// Those that have no order: their rows are known as a whole.
const WHOLE: [Values; 19] = [
    ("json", ["{\"a\":  1}", "null", "\"\\u00e9\""]),
    ("xml", ["<a/>", "text only", "<a b=\"c\">\u{e9}</a><b/>"]),
    ("jsonpath", ["$.\"a\"[*]?(@ > 1)", "strict $", "$.b"]),
    ("point", ["(0.1,-Infinity)", "(NaN,5e-324)", "(1,2)"]),
    ("line", ["{1,-1,0.1}", "{0,1,2}", "{3,0,1}"]),
    ("lseg", ["[(0,0),(0.1,1)]", "[(1,1),(2,2)]", "[(0,0),(0,0)]"]),
    ("box", ["(1,1),(0,0.1)", "(2,2),(1,1)", "(0,0),(0,0)"]),
    ("path", ["[(0,0),(1,0.1)]", "((0,0),(1,1))", "((5,5))"]),
    ("polygon", ["((0,0),(1,0.1),(2,2))", "((1,1))", "((0,0),(1,1))"]),
    ("circle", ["<(0,0.1),1>", "<(1,1),0>", "<(5,5),5e-324>"]),
    ("txid_snapshot", ["10:20:10,14", "1:1:", "5:9:7"]),
    ("pg_snapshot", ["10:20:10,14", "1:1:", "5:9:7"]),
    ("xid", ["0", "4294967295", "7"]),
    ("cid", ["0", "4294967295", "7"]),
    ("point[]", ["{}", "{\"(0.1,2)\",NULL}", "{\"(1,1)\"}"]),
    ("box[]", ["{}", "{(1,1),(0,0);(2,2),(1,1)}", "{(0,0),(0,0)}"]),
    ("json[]", ["{}", "{\"{\\\"a\\\": 1}\",NULL}", "{1}"]),
    (
        "aclitem[]",
        ["{}", "{pg_monitor=r/pg_monitor}", "{pg_read_all_data=arw/pg_monitor}"],
    ),
    ("refcursor", ["", "a\tb", "\u{e9}"]),
];

/// In force for every session of the database and of the role.
const HOSTILE: [&str; 15] = [
    "datestyle = 'SQL, DMY'",
    "intervalstyle = 'sql_standard'",
    "extra_float_digits = -15",
    "bytea_output = 'escape'",
    "timezone = 'Asia/Kolkata'",
    "xmloption = 'document'",
    "xmlbinary = 'hex'",
    "search_path = odd, public",
    "quote_all_identifiers = on",
    "standard_conforming_strings = off",
    "array_nulls = off",
    "client_encoding = 'LATIN1'",
    "lc_monetary = 'C'",
    "default_transaction_isolation = 'serializable'",
    "enable_seqscan = off",
];

const MADE: &str = "CREATE EXTENSION hstore SCHEMA public; CREATE EXTENSION citext SCHEMA public; CREATE SCHEMA odd;
    CREATE FUNCTION odd.twice(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
    CREATE TYPE odd.mood AS ENUM ('bad', 'so so', 'good'); CREATE DOMAIN odd.short AS varchar(3) CHECK (value <> 'long');
    CREATE TYPE odd.pair AS (n int, t text); CREATE TYPE odd.floats AS RANGE (subtype = float8);
    CREATE TABLE odd.\"Na me\" (id int PRIMARY KEY);";

/// Under these, every value has one text that holds all of it.
const PLAIN: &str = "SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET extra_float_digits = 3; SET bytea_output = 'hex';
    SET timezone = 'UTC'; SET search_path = ''; SET client_encoding = 'UTF8'; SET lc_monetary = 'C'; SET array_nulls = on;
    SET standard_conforming_strings = on; SET xmloption = 'content'; SET quote_all_identifiers = off;";

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Every type, with the name of its table.
fn typed() -> Vec<(String, bool, &'static str, [&'static str; 3])> {
    let more: [Values; 2] = [
        (
            "public.hstore",
            ["", "\"a\"=>NULL, \"b c\"=>\"\\\"\"", "\"x\"=>\"\u{e9}\""],
        ),
        ("public.citext", ["a", "Bb", "\u{c9}x"]),
    ];
    let keys = KEYS
        .iter()
        .chain(&more)
        .enumerate()
        .map(|(number, (name, values))| (format!("k{number}"), true, *name, *values));
    let whole = WHOLE
        .iter()
        .enumerate()
        .map(|(number, (name, values))| (format!("w{number}"), false, *name, *values));
    keys.chain(whole).collect()
}

fn make(database: &Database) {
    let mut script = format!("{PLAIN}{MADE}");
    for (table, is_key, name, [a, b, _]) in typed() {
        let identity = if is_key {
            "ADD PRIMARY KEY (v)"
        } else {
            "REPLICA IDENTITY FULL"
        };
        let _ = write!(
            script,
            "CREATE TABLE public.{table} (v {name}, n int); ALTER TABLE public.{table} {identity};
             INSERT INTO public.{table} VALUES ({}, 1), ({}, 2);
             CREATE TABLE public.plain_{table} (id int PRIMARY KEY, v {name});
             INSERT INTO public.plain_{table} VALUES (1, {}), (2, NULL), (3, {});",
            literal(a),
            literal(b),
            literal(a),
            literal(b)
        );
    }
    database.sql(&script);
}

/// Inserts, updates and deletes in every table; the second time, values are changed to those that others had.
fn change(database: &Database, turn: usize) {
    let mut script = PLAIN.to_owned();
    for (table, _, name, [a, b, c]) in typed() {
        let is = |value: &str| format!("v::text = ({}::{name})::text", literal(value));
        let [a_text, b_text, c_text] = [a, b, c].map(literal);
        let statements = match turn {
            0 => format!(
                "INSERT INTO public.{table} VALUES ({c_text}, 3); UPDATE public.{table} SET n = n + 10 WHERE {};
                 UPDATE public.plain_{table} SET v = {c_text} WHERE id = 1; INSERT INTO public.plain_{table} VALUES (4, {b_text});",
                is(b)
            ),
            _ => format!(
                "DELETE FROM public.{table} WHERE {}; UPDATE public.{table} SET v = {a_text} WHERE {};
                 DELETE FROM public.plain_{table} WHERE id = 3; UPDATE public.plain_{table} SET v = {a_text} WHERE id = 2;",
                is(a),
                is(c)
            ),
        };
        script += &statements;
    }
    database.sql(&script);
}

/// Every row of every table.
fn rows(database: &Database) -> Vec<String> {
    let mut script = PLAIN.to_owned();
    for (table, ..) in typed() {
        let _ = write!(
            script,
            "SELECT '{table}', pg_catalog.encode(pg_catalog.convert_to(t::text, 'UTF8'), 'escape') FROM public.{table} t ORDER BY t::text COLLATE \"C\";
             SELECT 'plain_{table}', pg_catalog.encode(pg_catalog.convert_to(t::text, 'UTF8'), 'escape') FROM public.plain_{table} t ORDER BY t::text COLLATE \"C\";"
        );
    }
    database.sql(&script).lines().map(str::to_owned).collect()
}

fn in_encoding(database: &Database, encoding: &str) {
    let name = quoted(&database.name);
    let mut postgres = database.url();
    let at = postgres.rfind('/').unwrap();
    postgres.replace_range(at + 1.., "postgres");
    let script =
        format!("DROP DATABASE {name}; CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'");
    for statement in script.split("; ") {
        crate::support::database::psql(database.major, &postgres, statement);
    }
}

fn every_moment_has_the_sources_values(scene: &Scene, encoding: &str) {
    in_encoding(&scene.database, encoding);
    make(&scene.database);
    let name = quoted(&scene.database.name);
    let settings = HOSTILE.iter().enumerate().map(|(number, setting)| match number % 2 {
        0 => format!("ALTER DATABASE {name} SET {setting}"),
        _ => format!("ALTER ROLE CURRENT_USER IN DATABASE {name} SET {setting}"),
    });
    let settings: Vec<String> = settings.collect();
    scene.sql(&settings.join(";"));
    scene.start();
    let mut moments = vec![(witness(scene).lsn, rows(&scene.database))];
    for turn in 0..2 {
        change(&scene.database, turn);
        moments.push((witness(scene).lsn, rows(&scene.database)));
        scene.increment();
    }
    // The first moment is that of the full backup.
    for (lsn, expected) in &moments[1..] {
        let target = scene.server.database("moment");
        in_encoding(&target, encoding);
        let report = restored(scene, &target, &["--to-lsn", lsn]);
        let found = rows(&target);
        for (one, other) in expected.iter().zip(&found) {
            assert_eq!(one, other, "{encoding} at {lsn}: {report}");
        }
        assert_eq!(expected.len(), found.len());
    }
}

fn values_of_every_type_are_byte_for_byte_those_of_the_source(major: u32) {
    let scene = Scene::fresh(major);
    every_moment_has_the_sources_values(&scene, "UTF8");
    let Scene { database, server, .. } = scene;
    let latin = Scene {
        folder: TempDir::new().unwrap(),
        database,
        server,
    };
    latin.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
    every_moment_has_the_sources_values(&latin, "LATIN1");
}

on_majors! { values_of_every_type_are_byte_for_byte_those_of_the_source: 15 18 }
