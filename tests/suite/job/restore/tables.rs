//! Single tables.

use crate::job::restore::place::{Backed, copy, three};
use crate::support::contents::{copied, pairs};
use crate::support::database::{Database, quoted};
use crate::support::fault_proxy::FaultProxy;
use crate::support::program::{stock, succeed};
use crate::support::services::s3;

/// In an order in which each finds what it refers to.
const TABLES: &str = "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'extensions')
    ORDER BY c.relispartition, c.oid";

/// Each statement that makes these tables and what belongs to them, sorted: the order in which
/// they were made is not theirs.
fn definitions(database: &Database, tables: &[(String, String)]) -> Vec<String> {
    let mut dump = stock(database.major, "pg_dump");
    dump.args(["--schema-only", "-d", &database.url()]);
    for (schema, name) in tables {
        // pg_dump takes patterns; within quotes only the quote itself is special.
        dump.arg(format!("--table={}.{}", quoted(schema), quoted(name)));
    }
    let text = succeed(&mut dump).text();
    let mut statements: Vec<String> = text
        .split(";\n")
        .map(|statement| {
            let lines = statement
                .lines()
                .filter(|line| !line.starts_with("--") && !line.starts_with('\\'));
            lines.collect::<Vec<_>>().join("\n").trim().to_owned()
        })
        .filter(|statement| !statement.is_empty() && !statement.starts_with("SET "))
        .collect();
    statements.sort();
    statements
}

fn rows(database: &Database, tables: &[(String, String)]) -> Vec<(String, u64, String)> {
    let sources: Vec<(String, String)> = tables
        .iter()
        .map(|(schema, name)| {
            let whole = format!("{}.{}", quoted(schema), quoted(name));
            (whole.clone(), format!("(SELECT * FROM ONLY {whole})"))
        })
        .collect();
    let texts = copied(database, "SET row_security = off;\n", &sources);
    texts
        .into_iter()
        .map(|(name, text)| (name, text.rows, text.in_any_order))
        .collect()
}

#[test]
fn each_table_of_the_rich_database_comes_back_alone() {
    let source = Database::loaded(17, "rich.sql");
    let tables = pairs(&source, TABLES);
    assert!(tables.len() > 40, "{}", tables.len());
    let backed = Backed::up(source, &[]);
    let target = Database::fresh(17);
    let mut done: Vec<&(String, String)> = Vec::new();
    for table in &tables {
        // A partitioned table brings its partitions.
        let exists = target.sql(&format!(
            "SELECT to_regclass('{}') IS NOT NULL",
            format!("{}.{}", quoted(&table.0), quoted(&table.1)).replace('\'', "''")
        ));
        if exists == "t" {
            continue;
        }
        let name = format!("{}.{}", table.0, table.1);
        let report = backed.restored(&target, &["--table", &name]);
        assert_eq!(report["left_out"], serde_json::Value::Null, "{name}: {report}");
        done.push(table);
    }
    assert!(done.len() > 35, "{}", done.len());
    assert_eq!(rows(&backed.source, &tables), rows(&target, &tables));
    let (ours, theirs) = (definitions(&target, &tables), definitions(&backed.source, &tables));
    for (mine, wanted) in ours.iter().zip(&theirs) {
        assert_eq!(mine, wanted);
    }
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn a_table_comes_back_into_a_database_that_has_the_rest() {
    let source = Database::loaded(16, "rich.sql");
    let target = copy(&source);
    let backed = Backed::up(source, &[]);
    let before = crate::support::contents::Contents::of(&target);
    for (name, drop) in [
        ("owned.secured", "DROP TABLE owned.secured"),
        ("shapes.measured_2024_eu", "DROP TABLE shapes.measured_2024_eu"),
        ("shapes.long_values", "DROP TABLE shapes.long_values"),
        (
            "\"Schéma with spaces\".\"it's a \"\"table\"\"\"",
            "DROP TABLE \"Schéma with spaces\".\"it's a \"\"table\"\"\"",
        ),
    ] {
        target.sql(drop);
        backed.restored(&target, &["--table", name]);
        before.assert_equals(&crate::support::contents::Contents::of(&target));
    }
    // One that is there, in another state.
    target.sql("UPDATE types.times SET c_date = NULL; ALTER TABLE types.times ADD COLUMN x integer");
    let refused = backed.refused(&target.url(), &["--table", "types.times"], "RESTORE_ERR", 41);
    assert!(
        refused.message.contains("has types.times already") || refused.message.contains("has times already"),
        "{}",
        refused.message
    );
    backed.restored(&target, &["--table", "types.times", "--clean"]);
    // It was in no publication by name; its rows and definition are as they were.
    before.assert_equals(&crate::support::contents::Contents::of(&target));
}

#[test]
fn rows_alone_go_into_tables_that_are_there_and_leave_their_heirs_alone() {
    let source = Database::fresh(17);
    source.sql(
        "CREATE TABLE parent (n serial, text text); CREATE TABLE child (more text) INHERITS (parent);
         INSERT INTO parent (text) SELECT md5(n::text) FROM generate_series(1, 100) n;
         INSERT INTO child (text, more) VALUES ('c', 'd')",
    );
    let target = copy(&source);
    let backed = Backed::up(source, &[]);
    target.sql("TRUNCATE ONLY parent; INSERT INTO child (text) VALUES ('new'); SELECT setval('parent_n_seq', 1)");
    backed.restored(&target, &["--data-only", "--table", "public.parent"]);
    let counts = "SELECT (SELECT count(*) FROM ONLY parent), (SELECT count(*) FROM child), nextval('parent_n_seq')";
    assert_eq!(target.sql(counts), "100|2|102");
    let refused = backed.refused(
        &target.url(),
        &["--data-only", "--table", "public.parent"],
        "RESTORE_ERR",
        41,
    );
    assert!(
        refused.message.contains("has rows in \"public\".\"parent\""),
        "{}",
        refused.message
    );
    target.sql("UPDATE ONLY parent SET text = 'changed'");
    backed.restored(&target, &["--data-only", "--clean", "--table", "public.parent"]);
    // A number that was given out is not given out again.
    assert_eq!(target.sql(counts), "100|2|103");
    let parents = [("public".to_owned(), "parent".to_owned())];
    assert_eq!(rows(&target, &parents), rows(&backed.source, &parents));
}

#[test]
fn rows_alone_want_a_table_to_be_named() {
    let backed = Backed::up(three(17), &[]);
    let target = copy(&backed.source);
    crate::job::restore::place::untouched(&target, || {
        let refused = backed.refused(&target.url(), &["--data-only", "--clean"], "CONFIG", 2);
        assert!(refused.message.contains("--table"), "{}", refused.message);
    });
}

#[test]
fn what_a_table_refers_to_and_the_target_lacks_is_left_out_and_told() {
    let backed = Backed::up(three(18), &[]);
    let target = Database::fresh(18);
    let report = backed.restored(&target, &["--table", "public.b"]);
    let left = report["left_out"].as_array().unwrap();
    assert_eq!(left.len(), 1, "{report}");
    assert!(left[0]["what"].as_str().unwrap().contains("b_a_fkey"), "{report}");
    assert_eq!(target.sql("SELECT count(*) FROM b"), "1000");
    assert_eq!(
        target.sql(
            "SELECT string_agg(conname, ',') FROM pg_constraint WHERE conrelid = 'b'::regclass AND contype <> 'n'"
        ),
        "b_pkey"
    );
    // Together they come whole.
    let both = Database::fresh(18);
    let report = backed.restored(&both, &["--table", "public.b", "--table", "public.a"]);
    assert_eq!(report["left_out"], serde_json::Value::Null);
    assert_eq!(
        both.sql("SELECT count(*) FROM pg_constraint WHERE conname = 'b_a_fkey'"),
        "1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_small_table_reads_its_block_and_the_head_alone() {
    let source = three(17);
    source
        .sql("CREATE TABLE big AS SELECT n, md5(n::text) || md5((-n)::text) AS text FROM generate_series(1, 400000) n");
    let backed = Backed::in_s3(source, &["--compress", "none"]).await;
    let files = &backed.report["files"];
    let bytes = |role: &str| files[role]["bytes"].as_u64().unwrap();
    assert!(bytes("dump") > 20 << 20);
    let proxy = FaultProxy::start(&s3().endpoint).await;
    let target = Database::fresh(17);
    let mut restore = backed.restore(&target.url(), &["--table", "public.c"]);
    let report = succeed(restore.env("AWS_ENDPOINT_URL_S3", proxy.url())).json();
    assert_eq!(
        target.sql("SELECT count(*), md5(string_agg(text, '' ORDER BY n)) FROM c"),
        backed
            .source
            .sql("SELECT count(*), md5(string_agg(text, '' ORDER BY n)) FROM c")
    );
    let block = report["bytes_read"].as_u64().unwrap();
    assert!((30_000..200_000).contains(&block), "{report}");
    let most = block + bytes("toc") + 64 * 1024;
    assert!(
        proxy.answered() <= most,
        "{} bytes, {block} of them asked for",
        proxy.answered()
    );
    assert!(proxy.seen().len() <= 10, "{:?}", proxy.seen());
}
