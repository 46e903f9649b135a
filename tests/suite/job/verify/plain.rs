//! `verify` of a plain backup holds every table against the manifest.

use serde_json::{Value, json};

use crate::support::database::Database;
use crate::support::plain::{Kept, problems};
use crate::support::program::succeed;

fn two() -> Database {
    let database = Database::fresh(17);
    database.sql(
        "CREATE TABLE a AS SELECT g AS n FROM generate_series(10, 99) g;
         CREATE TABLE b AS SELECT -g AS n FROM generate_series(1, 70) g; SELECT lo_from_bytea(5, 'five')",
    );
    database
}

fn table<'v>(manifest: &'v mut Value, name: &str) -> &'v mut Value {
    let tables = manifest["tables"].as_array_mut().unwrap();
    tables.iter_mut().find(|table| table["name"] == name).unwrap()
}

#[test]
fn exchanged_names_are_found_by_the_script() {
    for compress in ["none", "gzip", "zstd"] {
        let kept = Kept::plain(&two(), compress);
        kept.is_good();
        kept.alter(|manifest| {
            table(manifest, "a")["name"] = "c".into();
            table(manifest, "b")["name"] = "a".into();
            table(manifest, "c")["name"] = "b".into();
        });
        let (report, exit) = kept.verified();
        assert_eq!(exit, 40, "{report:#}");
        assert_eq!(report["error"]["code"], "INTEGRITY");
        let problems = problems(&report);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert_eq!(problems[0].0, "public.b");
        assert!(problems[0].1.contains("are those of public.a"), "{problems:?}");
    }
}

type Change = fn(&mut Value);

#[test]
fn whatever_the_manifest_says_otherwise_is_told_with_its_table() {
    let kept = Kept::plain(&two(), "zstd");
    let whole = kept.manifest();
    let changes: [(&str, &str, Change); 8] = [
        ("public.a", "it holds 90 rows in 270 bytes, the manifest says 91", |m| {
            table(m, "a")["rows"] = 91.into();
        }),
        ("public.b", "the manifest says 70 rows in 5 bytes", |m| {
            table(m, "b")["bytes"] = 5.into();
        }),
        ("public.b", "its SHA-256 is", |m| {
            table(m, "b")["sha256"] = "00".repeat(32).into();
        }),
        ("public.b", "its rows are at byte", |m| {
            table(m, "b")["offset"] = 1.into();
        }),
        ("public.a", "under the header", |m| {
            table(m, "a")["owner"] = "nobody".into();
        }),
        (
            "large objects",
            "it holds 1 large object in 4 bytes, the manifest says 2",
            |m| {
                m["large_objects"][0]["count"] = 2.into();
            },
        ),
        ("", "holds the rows of 2 tables, the manifest says 1", |m| {
            m["tables"].as_array_mut().unwrap().pop();
        }),
        ("", "definitions, the manifest says 99", |m| {
            m["script"]["definitions"] = 99.into();
        }),
    ];
    for (name, what, change) in changes {
        kept.alter(|manifest| {
            *manifest = whole.clone();
            change(manifest);
        });
        let (report, exit) = kept.verified();
        assert_eq!(exit, 40, "{report:#}");
        let problems = problems(&report);
        assert_eq!(problems.len(), 1, "{what}: {problems:?}");
        assert_eq!(problems[0].0, name, "{problems:?}");
        assert!(problems[0].1.contains(what), "{what}: {problems:?}");
    }
}

#[test]
fn an_older_backup_is_counted_as_it_is_verified_and_proved_by_that() {
    let kept = Kept::plain(&two(), "gzip");
    kept.age();
    assert_eq!(kept.manifest()["tables"], json!([]));
    let report = kept.is_good();
    assert_eq!(
        (&report["tables"], &report["rows"]),
        (&json!(2), &json!(160)),
        "{report:#}"
    );
    let report = succeed(&mut kept.drill()).json();
    assert_eq!(report["status"], "ok", "{report:#}");
    let tables = report["drill"]["tables"].as_array().unwrap();
    assert_eq!(tables.len(), 2, "{report:#}");
    assert!(tables.iter().all(|table| table["result"] == "equal"), "{report:#}");
    assert_eq!(report["drill"]["large_objects"], 1);
}
