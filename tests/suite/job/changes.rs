//! `pgstow changes`: finding the moment.

use std::fs;

use serde_json::{Value, json};

use crate::support::increments::Increments;
use crate::support::planted::Folder;
use crate::support::stream::{self, NOON};
use crate::support::wreck::fail;

const ORDERS: u32 = 16_390;
const ITEMS: u32 = 16_400;

fn described(oid: u32) -> Vec<u8> {
    let name = if oid == ORDERS { "orders" } else { "items" };
    stream::relation(oid, "public", name, b'd', 1, &["id", "text"])
}

fn insert(oid: u32) -> Vec<u8> {
    stream::insert(oid, &[Some("1"), None])
}

fn delete(oid: u32) -> Vec<u8> {
    stream::delete(oid, b'K', &[Some("1"), None])
}

/// About so many MiB of inserts.
fn bulk(oid: u32, mib: usize) -> impl Iterator<Item = Vec<u8>> {
    let text = "y".repeat(64 << 10);
    std::iter::repeat_n(stream::insert(oid, &[Some("1"), Some(&text)]), mib * 16)
}

/// Three increments; the second one deletes orders.
fn three() -> (Increments, Vec<String>) {
    let mut made = Increments::of("shop");
    made.coverage = vec![
        json!({"schema": "public", "name": "orders", "oid": ORDERS, "state": "exact"}),
        json!({"schema": "public", "name": "items", "oid": ITEMS, "state": "exact"}),
    ];
    made.next
        .add([described(ORDERS), described(ITEMS), insert(ORDERS), insert(ITEMS)]);
    let mut ids = vec![made.store()];
    made.next.add([described(ITEMS), insert(ITEMS)]);
    made.next.add([
        described(ORDERS),
        delete(ORDERS),
        delete(ORDERS),
        stream::truncate(&[ITEMS, ORDERS], 0),
    ]);
    made.next.add([insert(ITEMS)]);
    ids.push(made.store());
    made.next.add([
        described(ORDERS),
        insert(ORDERS),
        described(ITEMS),
        stream::update(ITEMS, None, &[None, None]),
    ]);
    ids.push(made.store());
    (made, ids)
}

fn changes(made: &Increments, args: &[&str]) -> Value {
    let (report, exit) = made.folder.json(&[&["changes"], args].concat());
    assert_eq!((exit, &report["status"]), (0, &"ok".into()), "{report}");
    report
}

fn counts(transaction: &Value) -> [u64; 4] {
    ["inserts", "updates", "deletes", "truncates"].map(|count| transaction[count].as_u64().unwrap())
}

fn xids(report: &Value) -> Vec<u64> {
    let transactions = report["transactions"].as_array().unwrap().iter();
    transactions
        .map(|transaction| transaction["xid"].as_u64().unwrap())
        .collect()
}

#[test]
fn the_transactions_of_a_table_are_told_in_their_order_with_the_positions_to_restore_to() {
    let (made, ids) = three();
    let report = changes(&made, &[]);
    assert_eq!(xids(&report), [701, 702, 703, 704, 705]);
    let report = changes(&made, &["--table", "public.orders"]);
    assert_eq!(xids(&report), [701, 703, 705]);
    let found = &report["transactions"][1];
    assert_eq!(counts(found), [0, 0, 2, 1]);
    assert_eq!(
        (&found["time"], &found["increment"]),
        (&"2025-01-31T13:00:03Z".into(), &ids[1].clone().into())
    );
    let table = &found["tables"][0];
    assert_eq!(
        (&table["schema"], &table["name"], &table["truncates"]),
        (&json!("public"), &json!("orders"), &json!(1))
    );
    assert_eq!(found["tables"].as_array().unwrap().len(), 1);
    // Before it lies the end of the transaction before, and not its own.
    let lsn = |value: &Value| value.as_str().unwrap().parse::<pgstow::format::Lsn>().unwrap();
    let all = changes(&made, &[]);
    let (before, own) = (&all["transactions"][1], &all["transactions"][2]);
    assert!(
        lsn(&before["lsn"]) <= lsn(&own["before"]) && lsn(&own["before"]) < lsn(&own["lsn"]),
        "{all}"
    );
    let text = made
        .folder
        .run(&["changes", "--table", "public.orders", "--since", "2025-01-31T13:00:02Z"])
        .text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("TIME ") && lines[1].starts_with("2025-01-31T13:00:03Z "),
        "{text}"
    );
    assert!(lines[1].ends_with("public.orders"), "{text}");
}

#[test]
fn times_choose_and_a_time_without_an_offset_is_printed_back_with_its_zone() {
    let (made, _) = three();
    let between = |since: &str, until: &str| xids(&changes(&made, &["--since", since, "--until", until]));
    assert_eq!(between("2025-01-31T13:00:02Z", "2025-01-31T13:00:04Z"), [702, 703, 704]);
    assert_eq!(
        between("2025-01-31T13:00:02.000001Z", "2025-01-31T13:00:03.999999Z"),
        [703]
    );
    let args = [
        "changes",
        "--since",
        "2025-01-31 14:00:03",
        "--until",
        "2025-01-31 14:00:03",
        "--json",
    ];
    let run = crate::support::program::run(made.folder.command(&args).env("TZ", "Europe/Berlin"));
    let report = run.json();
    assert_eq!(xids(&report), [703]);
    assert_eq!(report["read_as"][0], "since 2025-01-31T14:00:03+01:00 (Europe/Berlin)");
    let text = crate::support::program::run(made.folder.command(&args[..5]).env("TZ", "Europe/Berlin")).text();
    assert!(text.contains("\n2025-01-31T14:00:03+01:00 "), "{text}");
}

#[test]
fn commits_whose_times_are_out_of_order_are_all_found() {
    let mut made = Increments::of("shop");
    for time in [30, 10, 20] {
        made.next.time = NOON + (time - 1) * 1_000_000;
        made.next.add([described(ORDERS), insert(ORDERS)]);
        if time == 10 {
            made.store();
        }
    }
    made.store();
    let report = changes(
        &made,
        &["--since", "2025-01-31T13:00:10Z", "--until", "2025-01-31T13:00:20Z"],
    );
    assert_eq!(xids(&report), [702, 703]);
}

#[test]
fn only_the_frames_that_can_hold_the_answer_are_read() {
    let mut made = Increments::of("shop");
    made.next.add([described(ITEMS), described(ORDERS), insert(ITEMS)]);
    for _ in 0..3 {
        made.next.add(bulk(ORDERS, 3));
    }
    made.next.add([delete(ITEMS)]);
    let id = made.store();
    let report = changes(&made, &["--table", "public.items"]);
    assert_eq!(
        (xids(&report), counts(&report["transactions"][1])),
        (vec![701, 705], [0, 0, 1, 0])
    );
    let whole = fs::metadata(made.changes(&id)).unwrap().len();
    assert!(report["bytes"].as_u64().unwrap() < whole * 3 / 4, "{report} of {whole}");
    // A frame between them is not read, so its damage is not found; one that is read is not used.
    let path = made.changes(&id);
    let good = fs::read(&path).unwrap();
    let mut spoilt = good.clone();
    spoilt[good.len() / 2] ^= 1;
    fs::write(&path, &spoilt).unwrap();
    assert_eq!(xids(&changes(&made, &["--table", "public.items"])), [701, 705]);
    let error = fail(&mut made.folder.command(&["changes", "--json"]), "INTEGRITY", 40);
    assert!(
        error
            .message
            .contains("is damaged: it has another SHA-256 than the index says"),
        "{}",
        error.message
    );
}

#[test]
fn a_large_transaction_is_told_once_with_its_end() {
    let mut made = Increments::of("shop");
    made.next.add(
        std::iter::once(described(ORDERS))
            .chain(bulk(ORDERS, 10))
            .chain([described(ITEMS), insert(ITEMS)]),
    );
    let end = made.next.position;
    made.store();
    for table in ["public.orders", "public.items"] {
        let report = changes(&made, &["--table", table]);
        assert_eq!(xids(&report), [701], "{table}");
        assert_eq!(
            report["transactions"][0]["lsn"],
            pgstow::format::Lsn(end).to_string(),
            "{table}"
        );
    }
}

#[test]
fn the_newest_are_told_if_there_are_more_than_the_limit() {
    let (made, _) = three();
    let report = changes(&made, &["--limit", "2"]);
    assert_eq!(
        (xids(&report), &report["earlier_left_out"]),
        (vec![704, 705], &json!(true))
    );
    assert_eq!(report["increments"], 2);
    let report = changes(&made, &["--limit", "5"]);
    assert_eq!((xids(&report).len(), &report["earlier_left_out"]), (5, &json!(false)));
    let error = fail(
        &mut made.folder.command(&["changes", "--limit", "0", "--json"]),
        "CONFIG",
        2,
    );
    assert!(error.hint.contains("--since"), "{}", error.hint);
}

#[test]
fn an_unknown_table_is_an_error_that_names_the_nearest() {
    let (made, _) = three();
    let error = fail(
        &mut made.folder.command(&["changes", "--table", "public.order", "--json"]),
        "NOT_FOUND",
        42,
    );
    assert!(error.message.contains("no table \"public.order\""), "{}", error.message);
    assert!(
        error.hint.contains("the nearest: public.orders, public.items"),
        "{}",
        error.hint
    );
    // Known, and not changed in that time.
    let report = changes(&made, &["--table", "public.orders", "--since", "2025-01-31T13:00:06Z"]);
    assert_eq!(xids(&report), [0_u64; 0]);
    assert_eq!(
        xids(&changes(
            &made,
            &["--table", "public.*s", "--table", "\"public\".\"items\""]
        ))
        .len(),
        5
    );
}

#[test]
fn what_is_not_recorded_and_what_is_not_there_is_said() {
    let (mut made, ids) = three();
    made.coverage[1]["state"] = "full-only".into();
    made.coverage[1]["why"] = "it has no key: ALTER TABLE public.items ADD PRIMARY KEY (id)".into();
    made.next.add([described(ORDERS), insert(ORDERS)]);
    made.store();
    let warned = |report: &Value, what: &str| {
        let warnings = report["warnings"].as_array().cloned().unwrap_or_default();
        assert!(
            warnings.iter().any(|warning| warning.as_str().unwrap().contains(what)),
            "{what}: {warnings:?}"
        );
    };
    let report = changes(&made, &["--table", "public.items"]);
    warned(&report, "changes of public.items are not recorded: it has no key");
    let report = changes(
        &made,
        &["--since", "2025-01-31T12:00:00Z", "--until", "2025-01-31T18:00:00Z"],
    );
    warned(
        &report,
        "the increments begin at 2025-01-31T13:00:01Z: earlier changes are not in the store",
    );
    warned(&report, "later changes are not in the store yet");
    fs::remove_dir_all(made.path(&ids[1])).unwrap();
    let report = changes(&made, &[]);
    assert_eq!(xids(&report), [701, 705, 706]);
    warned(&report, &ids[1]);
}

#[test]
fn without_increments_or_with_those_of_several_databases_the_error_helps() {
    let folder = Folder::new();
    folder.plant("shop", 1, "daily");
    let error = fail(&mut folder.command(&["changes", "--json"]), "NOT_FOUND", 42);
    assert!(error.hint.contains("pgstow incremental start"), "{}", error.hint);
    let mut made = Increments::within(folder, "shop");
    made.next.add([described(ORDERS), insert(ORDERS)]);
    made.store();
    let mut other = Increments::within(made.folder, "crm");
    other.next.add([described(ORDERS), insert(ORDERS), insert(ORDERS)]);
    other.store();
    let error = fail(&mut other.folder.command(&["changes", "--json"]), "CONFIG", 2);
    assert!(
        error.message.contains("of several databases: crm, shop"),
        "{}",
        error.message
    );
    let report = changes(&other, &["--database", "crm"]);
    assert_eq!(counts(&report["transactions"][0]), [2, 0, 0, 0]);
}
