use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

fn read(script: &str, cut: usize) -> Result<Contents, Refused> {
    let mut reader = Reader::gathering();
    for piece in script.as_bytes().chunks(cut) {
        reader.pass(piece)?;
    }
    reader.end(script.len() as u64)
}

/// The content, which must be the same wherever the script is cut.
fn contents(script: &str) -> Contents {
    let whole = read(script, usize::MAX).unwrap_or_else(|refused| panic!("{refused}: {script}"));
    for cut in 1..=9 {
        assert_eq!(
            format!("{:?}", read(script, cut).unwrap()),
            format!("{whole:?}"),
            "{cut}"
        );
    }
    whole
}

fn header(fields: &str) -> String {
    format!("--\n-- {fields}\n--\n\n")
}

fn data(schema: &str, name: &str, owner: &str) -> String {
    header(&format!(
        "Data for Name: {name}; Type: TABLE DATA; Schema: {schema}; Owner: {owner}"
    ))
}

/// The name of each table, its number of rows, and the rows at their place in the script.
fn tables(script: &str) -> Vec<(String, u64, &str)> {
    let contents = contents(script);
    let of = |table: &Table| {
        let (schema, name) = table.name();
        let from = usize::try_from(table.offset).unwrap();
        let rows = &script[from..from + usize::try_from(table.digest.bytes).unwrap()];
        assert_eq!(Sha256::digest(rows)[..], table.digest.sha256);
        (format!("{schema}.{name}"), table.rows(), rows)
    };
    contents.tables.iter().map(of).collect()
}

#[test]
fn rows_are_counted_as_those_of_an_archive() {
    let script = format!(
        "{}COPY public.t (a, \"b c\") FROM stdin;\n1\tx\n2\t\\N\n\\.\n\n\n{}COPY public.\"no\"\"ne\" (a) FROM stdin;\n\\.\n\n\n\
         {}COPY \"S.x\".columns  FROM stdin;\n\n\n\\.\n\n\n",
        data("public", "t", "o"),
        data("public", "no\"ne", "o"),
        data("S.x", "columns", "-"),
    );
    assert_eq!(
        tables(&script),
        [
            ("public.t".to_owned(), 2, "1\tx\n2\t\\N\n"),
            ("public.no\"ne".to_owned(), 0, ""),
            ("S.x.columns".to_owned(), 2, "\n\n"),
        ]
    );
    let contents = contents(&script);
    assert_eq!(contents.bytes, script.len() as u64);
    assert_eq!(contents.tables[0].columns, [b"a".to_vec(), b"b c".to_vec()]);
    assert_eq!(contents.tables[0].header.as_ref().unwrap().owner().unwrap(), "o");
    assert_eq!(contents.tables[2].header.as_ref().unwrap().owner(), None);
}

#[test]
fn nothing_but_a_copy_is_taken_for_one() {
    let fake = format!(
        "{}COPY public.fake (a) FROM stdin;\n1\n\\.\n\n\n",
        data("public", "fake", "x")
    );
    for around in [
        format!("CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $_$\n{fake}$_$;\n"),
        format!("COMMENT ON TABLE t IS 'it''s\n{fake}';\n"),
        format!("COMMENT ON TABLE t IS E'it\\'s\n{}';\n", fake.replace('\\', "\\\\")),
        format!("CREATE TABLE \"a\n{fake}\" ();\n"),
        format!("/* {fake} */\n"),
        "-- COPY public.fake (a) FROM stdin;\n".to_owned(),
        "SET standard_conforming_strings = off;\nSELECT '\\'\nCOPY public.fake (a) FROM stdin;\n';\n".to_owned(),
    ] {
        let script = format!(
            "{around}{}COPY public.t (a) FROM stdin;\n{fake_row}\n\\.\n\n\n",
            data("public", "t", "o"),
            fake_row = "\\\\.\nCOPY public.fake (a) FROM stdin;\n\\.x\n--\n-- Data for Name: fake; Type: TABLE DATA; Schema: public; Owner: x"
        );
        let found = tables(&script);
        assert_eq!(found.len(), 1, "{script}");
        assert_eq!((found[0].0.as_str(), found[0].1), ("public.t", 5), "{script}");
    }
}

#[test]
fn a_partition_that_is_loaded_through_its_root_is_named_by_its_header() {
    let script = format!(
        "{}-- load via partition root public.\"ro.ot\"\n\nCOPY public.\"ro.ot\" (a) FROM stdin;\n1\n\\.\n\n\n\
         {}COPY public.\"ro.ot\" (a) FROM stdin;\n\\.\n\n\n",
        data("parts", "leaf one; Type: X; Schema: y", "o"),
        data("public", "ro.ot", "o"),
    );
    let found = contents(&script);
    let names: Vec<_> = found.tables.iter().map(Table::name).collect();
    let name = |schema: &str, name: &str| (schema.to_owned(), name.to_owned());
    assert_eq!(
        names,
        [name("parts", "leaf one; Type: X; Schema: y"), name("public", "ro.ot")]
    );
    assert_eq!(found.tables[0].target, found.tables[1].target);
}

#[test]
fn what_pg_dump_does_not_write_is_not_counted() {
    for (script, why) in [
        ("COPY t FROM stdin;\n\\.\n", "a COPY that pg_dump does not write"),
        (
            "COPY s.t (a) FROM stdin;\n1\n\\.\r\n",
            "ends a table's rows differently",
        ),
        ("COPY s.t (a) FROM stdin;\n1\n", "ends within a table's rows"),
    ] {
        let refused = read(script, usize::MAX).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn large_objects_are_those_of_an_archive() {
    let block = |calls: &str| {
        format!(
            "{}BEGIN;\n\n{calls}COMMIT;\n\n",
            header("Data for Name: 1; Type: BLOBS; Schema: -; Owner: o")
        )
    };
    let script = format!(
        "{}{}",
        block(
            "SELECT pg_catalog.lo_open('1', 131072);\nSELECT pg_catalog.lowrite(0, '\\x0061');\nSELECT \
             pg_catalog.lowrite(0, '\\x62');\nSELECT pg_catalog.lo_close(0);\n\nSELECT pg_catalog.lo_open('4294967294', \
             131072);\nSELECT pg_catalog.lo_close(0);\n\n"
        ),
        block(
            "SELECT pg_catalog.lo_open('7', 131072);\nSELECT pg_catalog.lowrite(0, '\\\\x63');\nSELECT pg_catalog.lo_close(0);\n"
        ),
    );
    let found = contents(&script);
    let expected = |objects: &[(u32, &[u8])]| {
        let line = |(oid, content): &(u32, &[u8])| {
            format!("{oid} {} {}\n", content.len(), hex::encode(Sha256::digest(content)))
        };
        let lines: String = objects.iter().map(line).collect();
        Sha256::digest(lines)
    };
    let digest = |at: usize| found.large_objects[at].digest.sha256;
    assert_eq!(found.large_objects.len(), 2);
    assert_eq!(
        (found.large_objects[0].count(), found.large_objects[0].digest.bytes),
        (2, 3)
    );
    assert_eq!(digest(0)[..], expected(&[(1, b"\0ab"), (4_294_967_294, b"")])[..]);
    assert_eq!(digest(1)[..], expected(&[(7, b"c")])[..]);
}

#[test]
fn what_it_defines_is_under_its_headers() {
    let script = format!(
        "SET client_encoding = 'UTF8';\nSET check_function_bodies = false;\n\n{}CREATE TABLE public.t (\n    a integer\n);\n\n\n\
         ALTER TABLE public.t OWNER TO o;\n\nSET default_tablespace = '';\n\n{}-- *not* creating schema\n\n{}\
         SELECT pg_catalog.setval('public.s', 4, true);\n",
        header("Name: t; Type: TABLE; Schema: public; Owner: o; Tablespace: fast"),
        header("Name: public; Type: SCHEMA; Schema: -; Owner: o"),
        header("Name: s; Type: SEQUENCE SET; Schema: public; Owner: o"),
    );
    let found = contents(&script);
    let told: Vec<(String, String, usize)> = found
        .definitions
        .iter()
        .map(|one| {
            (
                one.header.to_string(),
                one.header.owner().unwrap(),
                one.statements.as_ref().unwrap().len(),
            )
        })
        .collect();
    let expected = |what: &str, statements| (what.to_owned(), "o".to_owned(), statements);
    assert_eq!(
        told,
        [
            expected("TABLE public.t", 2),
            expected("SCHEMA public", 0),
            expected("SEQUENCE SET public.s", 1)
        ]
    );
    assert_eq!(found.headers, 3);
    assert_eq!(found.settings, [b"SET check_function_bodies = false;".to_vec()]);
}

proptest! {
    #[test]
    fn the_sum_knows_rows_and_columns_by_name_and_no_order(
        mut rows in proptest::collection::vec(("[a-z\\\\]{0,4}", "[a-z]{0,3}"), 0..20),
        cut in 1_usize..30,
    ) {
        let columns = |names: [&str; 2]| names.map(|name| name.as_bytes().to_vec());
        let sum = |columns: &[Vec<u8>], text: &str| {
            let mut sum = RowSum::of(columns);
            for piece in text.as_bytes().chunks(cut) {
                sum.update(piece);
            }
            sum.update(b"\\.\n");
            sum.finish()
        };
        let forth: String = rows.iter().map(|(a, b)| format!("{a}\t{b}\n")).collect();
        let before = sum(&columns(["a", "b"]), &forth);
        rows.reverse();
        let back: String = rows.iter().map(|(a, b)| format!("{b}\t{a}\n")).collect();
        prop_assert_eq!(sum(&columns(["b", "a"]), &back), before);
        let one_more = format!("{forth}x\ty\n");
        prop_assert_ne!(sum(&columns(["a", "b"]), &one_more), before);
    }
}
