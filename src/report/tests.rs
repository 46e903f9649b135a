//! Texts that cannot steer a terminal, and documents that are read back.

use serde_json::{Value, json};

use super::*;

#[test]
fn a_name_of_several_lines_is_one_for_people() {
    #[derive(Serialize)]
    struct Told {
        name: &'static str,
    }
    impl fmt::Display for Told {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "1 warning\n  {} was emptied\n", self.name)
        }
    }
    let name = "x\n\nYour bucket is full\u{1b}[2J";
    assert_eq!(
        text(&Told { name }),
        "1 warning\n  x  Your bucket is full\u{fffd}[2J was emptied"
    );
}

/// A printed report can be read back, and prints the same again.
fn is_read_back(kind: ReportKind, document: &Value) {
    let report = Report::read(kind, &document.to_string()).unwrap();
    assert_eq!(report.kind(), kind);
    assert_eq!(serde_json::to_value(&report).unwrap(), *document, "{kind:?}");
}

const ID: &str = "shop/20250131T040500Z-full";
const AT: &str = "2025-01-31T04:05:00Z";
const KEY: &str = "0123456789ABCDEF";

fn incremental() -> [Value; 4] {
    let table = json!({"schema": "public", "name": "log", "oid": 7, "why": "it has no primary key", "remedy": "ALTER"});
    let tables = json!({"exact": 1, "inserts": [table], "full_only": [], "waiting": [], "breaking": []});
    let (slot, names) = ("pgstow_0123456789abcdef", ["pgstow_0123456789abcdef_all"]);
    [
        json!({"database": "shop", "action": "start", "slot": slot, "publications": names, "position": "0/1A2B3C4",
            "done": ["created the slot"], "tables": tables, "warnings": []}),
        json!({"database": "shop", "action": "print-sql", "sql": ["CREATE PUBLICATION x;"]}),
        json!({"database": "shop", "action": "stop", "slot": null, "publications": names}),
        json!({"database": "shop", "action": "status", "status": "attention", "problems": ["the slot is lost"],
            "warnings": [], "started": true, "name": slot, "publications": names,
            "slot": {"name": slot, "reader": 7, "confirmed": "0/1", "restart": null, "wal_status": "lost",
                "retained_bytes": null, "safe_bytes": null, "catalog_age": 3, "inactive_since": AT,
                "invalidation": "wal_removed", "fails_over": true},
            "last": {"id": "shop/20250131T040500Z-incr", "to": "0/2", "seen_to": AT, "age_seconds": 60},
            "oldest_transaction": null, "tables": tables, "others": []}),
    ]
}

fn failure(code: &str) -> Value {
    json!({"code": code, "message": "it failed: so it was", "hint": "do this"})
}

fn backup() -> Value {
    json!({
        "status": "degraded",
        "id": ID,
        "database": "shop",
        "kind": "full",
        "trigger": "schedule",
        "tier": "daily",
        "started_at": AT,
        "finished_at": AT,
        "duration_seconds": 48.5,
        "server": {"version": "17.2", "version_num": 170_002, "encoding": "UTF8", "system_identifier": "7"},
        "pg_dump": {"version": "17.2", "archive_version": "1.16"},
        "compression": {"algorithm": "zstd", "level": 3},
        "snapshot": {"lsn": "0/1A2B3C4", "xmin": 7, "xmax": 9, "xip": [8]},
        "tables": 1,
        "rows": 3,
        "large_objects": 0,
        "pauses": 2,
        "paused_seconds": 1.5,
        "bytes_read": 100,
        "bytes_stored": 40,
        "files": {"dump": {"name": "shop.dump", "bytes": 40, "sha256": "ab"}},
        "missing": {"globals": "the role may not read them"},
        "left_out": [{"kind": "subscription", "name": "s", "why": "it holds a password"}],
        "manifest_sha256": "cd",
        "signed_by": KEY,
        "stores": [
            {"url": "s3://a", "primary": true, "holds_backup": true, "manifest_sha256": "cd"},
            {"url": "s3://b", "primary": false, "holds_backup": false, "error": failure("STORE")},
        ],
        "took_over": {"holder": {"host": "h", "pid": 1}, "backup": ID, "acquired_at": AT, "expired_at": AT},
        "leftovers": [
            {"key": "shop/x", "found": "unfinished_upload", "outcome": "aborted"},
            {"store": "s3://b", "key": "shop/y", "found": "file_without_manifest", "outcome": "failed", "error": "no"},
        ],
        "warnings": ["look at this"],
        "notification": {"sent": false, "error": "no answer"},
    })
}

#[test]
fn the_reports_on_an_increment_and_on_a_renewed_chain_are_read_back() {
    let mut increment = backup();
    increment["kind"] = json!("incremental");
    increment["increment"] = json!({
        "from": "0/1A", "to": "0/2B", "seen_to": AT, "transactions": 7,
        "changes": [{"oid": 5, "schema": "public", "name": "orders", "identity": "default",
            "inserts": 1, "updates": 2, "deletes": 3, "truncates": 1}],
        "changed_tables": 12, "baselines": 1, "is_behind": true,
    });
    is_read_back(ReportKind::Backup, &increment);
    let told = Report::read(ReportKind::Backup, &increment.to_string()).unwrap().text();
    for line in [
        "7 transactions in 12 tables, from 0/1A to 0/2B",
        "1 inserted, 2 updated, 3 deleted, emptied 1 time",
    ] {
        assert!(told.contains(line), "{told}");
    }
    increment["increment"]["is_idle"] = json!(true);
    is_read_back(ReportKind::Backup, &increment);
    let told = Report::read(ReportKind::Backup, &increment.to_string()).unwrap().text();
    assert!(
        told.contains("none was made") && !told.contains("7 transactions"),
        "{told}"
    );
    let mut renewed = backup();
    renewed["renewed"] = json!("the slot is missing");
    is_read_back(ReportKind::Backup, &renewed);
    assert!(
        Report::read(ReportKind::Backup, &renewed.to_string())
            .unwrap()
            .text()
            .contains("the slot is missing")
    );
}

#[test]
fn the_report_on_a_backup_is_read_back() {
    is_read_back(ReportKind::Backup, &backup());
    let mut short = backup();
    let fields = short.as_object_mut().unwrap();
    for name in [
        "pauses",
        "missing",
        "left_out",
        "signed_by",
        "took_over",
        "leftovers",
        "warnings",
        "notification",
    ] {
        fields.remove(name);
    }
    fields.insert("repeated".to_owned(), json!(true));
    is_read_back(ReportKind::Backup, &short);
    let Report::Backup(report) = Report::read(ReportKind::Backup, &backup().to_string()).unwrap() else {
        panic!("another kind")
    };
    assert_eq!(Report::Backup(report).exit_code(), DEGRADED);
    let task = json!({"status": "handed_over", "task": "arn:1", "cluster": "c", "reason": "too short"});
    is_read_back(ReportKind::HandedOver, &task);
}

fn verified(store: &str, problems: &Value) -> Value {
    json!({
        "status": if problems == &json!([]) { "ok" } else { "failed" },
        "id": ID,
        "store": store,
        "files": 5,
        "tables": 1,
        "rows": 3,
        "large_objects": 0,
        "bytes": 8,
        "duration_seconds": 1.5,
        "manifest_sha256": "cd",
        "signed_by": KEY,
        "problems": problems,
        "drill": {
            "status": "ok",
            "server": "17.2",
            "major": 17,
            "source_major": 17,
            "tables": [{"schema": "public", "name": "t", "rows": 3, "result": "equal_in_other_order"}],
            "sequences": 0,
            "large_objects": 0,
            "roles": 1,
            "definitions": 2,
            "partly": true,
            "duration_seconds": 2.5,
            "not_proved": [{"what": "x", "why": "y"}],
            "advice": "do this",
        },
        "warnings": ["look"],
    })
}

#[test]
fn the_report_on_a_verification_is_read_back() {
    let damaged = json!([{"file": "shop.dump", "table": "public.t", "what": "differs"}]);
    let good = |store: &str| {
        let mut one = verified(store, &json!([]));
        one.as_object_mut().unwrap().remove("problems");
        one
    };
    let mut one = good("s3://a");
    is_read_back(ReportKind::Verify, &one);
    let copies = json!([verified("s3://b", &damaged)]);
    one["copies"] = copies;
    one["status"] = json!("failed");
    one["error"] = failure("INTEGRITY");
    is_read_back(ReportKind::Verify, &one);
    let Report::Verify(report) = Report::read(ReportKind::Verify, &one.to_string()).unwrap() else {
        panic!("another kind")
    };
    assert_eq!(report.exit_code(), 40);
    assert_eq!(report.backups().len(), 2);
    assert!(report.backups()[1].is_copy && !report.backups()[0].is_copy);
    let mut unseen = verified("s3://a", &damaged);
    unseen["not_verified"] = failure("STORE");
    let many = json!({"status": "failed", "backups": [unseen, good("s3://a")], "error": failure("STORE")});
    is_read_back(ReportKind::Verify, &many);
}

#[test]
fn the_reports_on_a_store_are_read_back() {
    let proof = json!({"status": "ok", "at": AT, "age_seconds": 7, "tables": 1, "tables_equal": 1, "partly": false});
    let entry = json!({
        "id": ID,
        "database": "shop",
        "type": "full",
        "timestamp": AT,
        "finished_at": AT,
        "age_seconds": 9,
        "duration_seconds": 1.5,
        "bytes": 40,
        "tables": 1,
        "rows": 3,
        "tier": "weekly",
        "format": "plain",
        "compression": {"algorithm": "gzip", "level": 6},
        "server_version": "17.2",
        "complete": false,
        "lacks": ["globals.sql"],
        "signature": {"state": "bad", "why": "is signed by another key"},
        "verified": {"status": "failed", "at": AT, "age_seconds": 7},
        "drilled": proof,
    });
    let problems = json!([{"backup": ID, "problem": "it lacks a file"}, {"problem": "out of reach"}]);
    is_read_back(
        ReportKind::List,
        &json!({"status": "ok", "store": "s3://a", "backups": [entry], "problems": problems}),
    );
    let last_good = json!({
        "id": ID,
        "finished_at": AT,
        "age_seconds": 9,
        "bytes": 40,
        "missing": {"globals": "no right"},
        "left_out": {"subscription": 2},
        "warnings": 1,
    });
    let mut drilled = proof.clone();
    drilled["id"] = json!(ID);
    let moment = json!({"lsn": "0/1A", "time": AT});
    let window = json!({"earliest": moment, "latest": moment});
    let increments = json!({
        "count": 3,
        "bytes": 9,
        "newest": ID,
        "rpo_seconds": 60,
        "window": window,
        "earlier_windows": [window],
        "no_base": "x",
        "gaps": [{"after": ID, "before": ID, "since": AT, "why": "lost"}],
        "coverage": {"exact": 1, "inserts": 0, "baseline": 0, "full_only": 2, "in_part": 0},
    });
    let hold = json!({"database": "shop", "type": "incremental", "state": "held", "holder": {"host": "h", "pid": 1}, "since": AT, "until": AT});
    is_read_back(
        ReportKind::Status,
        &json!({
            "status": "attention",
            "problems": ["look"],
            "version": "0.1.0",
            "settings": {
                "source": {"host": "db", "port": 5432, "database": "shop", "user": null, "from_secret": true},
                "stores": ["s3://a"],
                "retention": "30d",
                "keep_last": 1,
                "pitr": "7d",
                "max_age_seconds": 93600,
                "compression": "auto",
                "notifications": false,
                "signs": true,
                "verify_keys": 2,
            },
            "schedule": {"full": "0 2 * * *", "incremental": null, "cleanup": null},
            "databases": [{
                "database": "shop",
                "backups": 2,
                "bytes": 80,
                "last_good": last_good,
                "last_verified": null,
                "last_drilled": drilled,
                "increments": increments,
            }],
            "stores": [{
                "url": "s3://a",
                "reachable": true,
                "backups": 2,
                "bytes": 80,
                "disk": {"free": 1, "total": 2},
                "lifecycle": {"state": "drifted", "missing": ["a"], "different": []},
                "leases": [{"database": "crm", "type": "full", "state": "free"}, hold],
                "uploads_in_progress": [{"key": "shop/x", "started": AT}],
                "incomplete": [{"id": ID, "lacks": ["x"]}],
                "broken": [{"id": ID, "problem": "no JSON"}],
                "signatures": [
                    {"id": ID, "signature": {"state": "signed", "key": KEY}},
                    {"id": ID, "signature": {"state": "unsigned"}},
                ],
                "left_overs": [{"id": ID, "bytes": 4}],
                "unknown": ["the disk"],
            }],
        }),
    );
    let pruned = json!([
        {"id": ID, "action": "keep", "reason": "newest", "bytes": 40},
        {"id": ID, "action": "remove", "reason": "old", "bytes": 40, "outcome": "removed", "bytes_removed": 40,
            "versions_stay": true, "foreign": ["notes"]},
        {"id": ID, "action": "remove", "reason": "old", "bytes": 40, "outcome": "failed", "error": failure("EACCES")},
    ]);
    let store = json!({"url": "/srv", "by_lifecycle": false, "note": "n", "backups": pruned});
    let prune = json!({"status": "failed", "error": failure("EACCES"), "dry_run": false, "removed": 1,
        "bytes_removed": 40, "stores": [store]});
    is_read_back(ReportKind::Prune, &prune);
    let report = Report::read(ReportKind::Prune, &prune.to_string()).unwrap();
    assert_eq!(report.exit_code(), 32);
    let applied = json!([{"store": "s3://a", "installed": 6, "foreign": ["x"]}]);
    is_read_back(ReportKind::Rules, &json!({"Rules": [{"ID": "a"}], "applied": applied}));
}

#[test]
fn the_other_reports_are_read_back() {
    let checks = json!([
        {"name": "store", "of": "s3://a", "state": "failed", "detail": "no", "hint": "h", "code": "STORE"},
        {"name": "role", "state": "warning", "detail": "some", "hint": "h", "objects": ["a.b"]},
    ]);
    is_read_back(ReportKind::Doctor, &json!({"status": "failed", "checks": checks}));
    is_read_back(
        ReportKind::Download,
        &json!({
            "status": "succeeded",
            "id": ID,
            "store": "s3://a",
            "file": "/tmp/shop.dump",
            "manifest_sha256": "cd",
            "bytes": 8,
            "bytes_fetched": 4,
            "offsets": true,
            "sha256": "ab",
            "sha256_as_stored": "ac",
            "duration_seconds": 0.5,
        }),
    );
    let failed = json!([{"kind": "TABLE", "name": "public.t", "code": "RESTORE_ERR", "sqlstate": "42P01",
        "message": "no", "rows_lost": 3, "consequence_of": "TABLE public.u"}]);
    let restore = json!({
        "status": "partial",
        "id": ID,
        "target": "user@host:5432/shop",
        "store": "s3://a",
        "manifest_sha256": "cd",
        "created_database": true,
        "jobs": 4,
        "pg_restore": "17.2",
        "tables": 1,
        "rows": 3,
        "large_objects": 0,
        "bytes_read": 8,
        "definitions": 2,
        "finishing": 1,
        "duration_seconds": 1.5,
        "failed": failed,
        "compared": 1,
        "copies": [{"table": "public.t", "copy": "old.t", "rows": 3}],
        "steps": ["make it"],
    });
    is_read_back(ReportKind::Restore, &restore);
    assert_eq!(
        Report::read(ReportKind::Restore, &restore.to_string())
            .unwrap()
            .exit_code(),
        PARTIAL
    );
    is_read_back(
        ReportKind::Keygen,
        &json!({"status": "succeeded", "secret_key": "k", "public_key": "k.pub", "key_id": KEY, "public": "RW",
            "encrypted": false}),
    );
    for incremental in incremental() {
        is_read_back(ReportKind::Incremental, &incremental);
    }
    let error = Report::read(ReportKind::Restore, "{}").unwrap_err();
    assert!(error.message().contains("missing field"), "{error}");
}
