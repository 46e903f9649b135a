//! Increments: every message of their changes, and what only they have.

use std::fs;

use serde_json::{Value, json};

use super::place::{Kept, flip, source};
use crate::support::increments::Increments;
use crate::support::stream;

const ORDERS: u32 = 16_390;

/// Two increments, the second with a large transaction.
fn two() -> (Increments, [String; 2]) {
    let mut made = Increments::of("shop");
    made.coverage = vec![json!({"schema": "public", "name": "orders", "oid": ORDERS, "state": "exact"})];
    let described = || stream::relation(ORDERS, "public", "orders", b'd', 1, &["id", "text"]);
    let text = "x".repeat(50_000);
    let insert = || stream::insert(ORDERS, &[Some("1"), Some(&text)]);
    made.next.add([described(), insert(), insert()]);
    made.next.add([stream::delete(ORDERS, b'K', &[Some("1"), None])]);
    let first = made.store();
    made.next
        .add(std::iter::once(described()).chain(std::iter::repeat_with(insert).take(200)));
    let second = made.store();
    (made, [first, second])
}

fn verify(made: &Increments, args: &[&str]) -> (Value, i32) {
    made.folder.json(&[&["verify"], args].concat())
}

/// The problems of an increment that must have some: (file, what).
fn problems(made: &Increments, id: &str) -> Vec<(String, String)> {
    let (report, exit) = verify(made, &[id]);
    assert_eq!((exit, &report["error"]["code"]), (40, &"INTEGRITY".into()), "{report}");
    let problems = report["problems"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    problems
        .map(|problem| (text(&problem["file"]), text(&problem["what"])))
        .collect()
}

fn is_found(made: &Increments, id: &str, file: &str, what: &str) {
    let problems = problems(made, id);
    let found = problems.iter().any(|(of, told)| of == file && told.contains(what));
    assert!(found, "{file} {what}: {problems:?}");
}

#[test]
fn an_increment_is_read_to_its_last_message() {
    let (made, [first, second]) = two();
    let (report, exit) = verify(&made, &[&first]);
    assert_eq!((exit, &report["status"]), (0, &"ok".into()), "{report}");
    assert_eq!((&report["transactions"], &report["changes"]), (&json!(2), &json!(3)));
    assert_eq!(report["bytes"], fs::metadata(made.changes(&first)).unwrap().len());
    let (report, exit) = verify(&made, &["--all"]);
    assert_eq!((exit, report["backups"].as_array().unwrap().len()), (0, 2), "{report}");
    let text = made.folder.run(&["verify", &second]).text();
    assert!(text.contains("ok  1 transaction, 200 changes, "), "{text}");
}

#[test]
fn a_damaged_or_missing_file_of_changes_is_found() {
    let (made, [first, second]) = two();
    let length = usize::try_from(fs::metadata(made.changes(&second)).unwrap().len()).unwrap();
    for at in [0, 20, 60, length / 2, length - 400, length - 1] {
        flip(&made.changes(&second), at);
        is_found(&made, &second, "shop.changes", "has the SHA-256");
        flip(&made.changes(&second), at);
    }
    flip(&made.changes(&second), length / 2);
    is_found(
        &made,
        &second,
        "shop.changes",
        "is damaged: it has another SHA-256 than the index says",
    );
    fs::remove_file(made.changes(&first)).unwrap();
    is_found(&made, &first, "shop.changes", "is missing");
}

#[test]
fn a_manifest_that_counts_otherwise_than_the_changes_is_found() {
    let (made, [first, _]) = two();
    let whole = made.manifest(&first);
    type Alter<'a> = &'a dyn Fn(&mut Value);
    let changes: [(&str, &str, Alter<'_>); 9] = [
        ("shop.changes", "has 2 inserts, 0 updates, 1 deletes", &|manifest| {
            manifest["changes"][0]["inserts"] = 3.into();
        }),
        ("shop.changes", "the manifest says 0, 0, 0 and 0", &|manifest| {
            manifest["changes"] = json!([]);
        }),
        ("shop.changes", "has 2 transactions, the manifest says 4", &|manifest| {
            manifest["stream"]["transactions"] = 4.into();
        }),
        ("shop.changes", "has commits of", &|manifest| {
            manifest["stream"]["last_commit"] = "2025-01-31T13:00:09Z".into();
        }),
        ("shop.changes", "of another stream or span", &|manifest| {
            manifest["stream"]["timeline"] = 2.into();
        }),
        ("shop.changes", "of another stream or span", &|manifest| {
            manifest["stream"]["from"] = "0/1".into();
        }),
        ("shop.changes", "its index says that it ends at", &|manifest| {
            manifest["stream"]["to"] = "9/0".into();
        }),
        ("shop.changes", "its index has the SHA-256", &|manifest| {
            manifest["stream"]["index"]["sha256"] = "11".repeat(32).into();
        }),
        (
            "manifest.json",
            "has a baseline of public.orders, and no place of its rows",
            &|manifest| {
                manifest["baselines"] = json!([{
                    "oid": ORDERS, "schema": "public", "name": "orders", "why": "new",
                    "snapshot": {"lsn": "0/1", "xmin": 1, "xmax": 1, "xip": []}
                }]);
            },
        ),
    ];
    for (file, what, change) in changes {
        made.alter(&first, |manifest| {
            *manifest = whole.clone();
            change(manifest);
        });
        is_found(&made, &first, file, what);
    }
}

#[test]
fn an_increment_must_begin_where_the_one_before_it_ends() {
    let (made, [first, second]) = two();
    made.alter(&first, |manifest| manifest["stream"]["id"] = "other".into());
    is_found(&made, &second, "manifest.json", "is of another stream than");
    made.alter(&first, |manifest| {
        manifest["stream"]["id"] = "one".into();
        manifest["stream"]["to"] = "1/5".into();
    });
    is_found(&made, &second, "manifest.json", "before it ends at 1/5");
    // One that has expired says nothing.
    fs::remove_dir_all(made.path(&first)).unwrap();
    let (report, exit) = verify(&made, &[&second]);
    assert_eq!(exit, 0, "{report}");
}

#[test]
fn the_small_files_must_be_what_their_roles_say() {
    let (made, [first, second]) = two();
    made.add_file(&first, "catalog", "catalog.json", b"{\"tables\": [");
    is_found(&made, &first, "catalog.json", "is not JSON");
    made.add_file(&second, "schema", "shop.schema", b"PGDMP");
    is_found(&made, &second, "shop.schema", "is no archive of definitions");
}

#[test]
fn the_archive_of_baselines_is_read_as_a_fulls() {
    let kept = Kept::of(&source(17), &[]);
    let full = kept.manifest();
    let (made, [first, _]) = two();
    for role in ["dump", "toc"] {
        let name = full["files"][role]["name"].as_str().unwrap();
        made.add_file(&first, role, name, &fs::read(kept.folder().join(name)).unwrap());
    }
    made.alter(&first, |manifest| {
        manifest["data_files"]
            .as_array_mut()
            .unwrap()
            .insert(0, full["data_files"][0].clone());
        manifest["tables"] = full["tables"].clone();
        manifest["large_objects"] = full["large_objects"].clone();
        for field in ["compression", "parts", "store_checksum"] {
            manifest[field] = full[field].clone();
        }
    });
    let (report, exit) = verify(&made, &[&first]);
    assert_eq!((exit, &report["transactions"]), (0, &json!(2)), "{report}");
    let (offset, _) = kept.block("second");
    flip(
        &made.path(&first).join(full["files"]["dump"]["name"].as_str().unwrap()),
        offset + 100,
    );
    let (report, exit) = verify(&made, &[&first]);
    let problems = report["problems"].as_array().unwrap();
    assert_eq!(exit, 40, "{report}");
    assert!(
        problems.iter().any(|problem| problem["table"] == "public.second"),
        "{report}"
    );
}
