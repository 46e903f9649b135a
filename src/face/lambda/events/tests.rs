use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::error::Code;

const REQUEST: &str = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef";

fn backup(trigger: Trigger, id: &str, database: Option<&str>) -> Command {
    Command::Backup(BackupRequest {
        trigger,
        event_id: Some(id.into()),
        database: database.map(str::to_owned),
        ..BackupRequest::default()
    })
}

#[track_caller]
fn asks_for(event: &Value, expected: &Command) {
    assert_eq!(parse_event(event, REQUEST).unwrap(), *expected);
}

#[track_caller]
fn is_refused(event: &Value, naming: &str) {
    let error = parse_event(event, REQUEST).unwrap_err();
    assert_eq!(error.code(), Code::Config);
    assert!(error.message().contains(naming), "{error}");
}

#[test]
fn an_empty_event_is_a_manual_full_backup() {
    asks_for(&json!({}), &backup(Trigger::Manual, REQUEST, None));
    asks_for(&Value::Null, &backup(Trigger::Manual, REQUEST, None));
}

#[test]
fn a_rule_of_eventbridge_is_known_by_its_own_id() {
    let event = json!({
        "version": "0",
        "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "123456789012",
        "time": "2026-10-08T16:53:06Z",
        "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:123456789012:rule/nightly-backup"],
        "detail": {}
    });
    asks_for(
        &event,
        &backup(Trigger::Schedule, "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa", None),
    );
}

#[test]
fn a_schedule_of_eventbridge_scheduler_has_its_detail_as_text() {
    let event = json!({
        "version": "0",
        "id": "37666ae6-48cf-4285-b4c6-a3320b38824a",
        "detail-type": "Scheduled Event",
        "source": "aws.scheduler",
        "account": "123456789012",
        "time": "2026-06-13T12:30:00Z",
        "region": "us-east-2",
        "resources": ["arn:aws:scheduler:us-east-2:123456789012:schedule/default/nightly"],
        "detail": "{}"
    });
    asks_for(
        &event,
        &backup(Trigger::Schedule, "37666ae6-48cf-4285-b4c6-a3320b38824a", None),
    );
}

#[test]
fn a_schedule_with_an_input_of_its_own_may_say_so() {
    let event = json!({"action": "backup", "trigger": "schedule", "event_id": "d32c5kddcf5bb8c3", "database": "shop"});
    asks_for(&event, &backup(Trigger::Schedule, "d32c5kddcf5bb8c3", Some("shop")));
}

#[test]
fn a_request_names_kind_and_database() {
    let event = json!({"action": "backup", "kind": "full", "database": "shop's \u{e4}"});
    asks_for(&event, &backup(Trigger::Manual, REQUEST, Some("shop's \u{e4}")));
    asks_for(&json!({"kind": "full"}), &backup(Trigger::Manual, REQUEST, None));
    asks_for(
        &json!({"action": "backup", "database": null}),
        &backup(Trigger::Manual, REQUEST, None),
    );
}

#[test]
fn an_increment_is_asked_for_by_its_kind() {
    let event = json!({"action": "backup", "kind": "incremental", "trigger": "schedule", "event_id": "e1"});
    let asked = BackupRequest {
        kind: BackupKind::Incremental,
        trigger: Trigger::Schedule,
        event_id: Some("e1".into()),
        ..BackupRequest::default()
    };
    asks_for(&event, &Command::Backup(asked));
    is_refused(&json!({"action": "backup", "kind": "half"}), "half");
    is_refused(
        &json!({"action": "backup", "kind": "incremental", "follow": true}),
        "follow",
    );
}

#[test]
fn a_verification_is_of_the_latest_unless_said_otherwise_and_drills_when_asked() {
    let verify = |backup: &str, database: Option<&str>, drill| {
        Command::Verify(VerifyRequest {
            selection: VerifySelection::One(backup.to_owned()),
            database: database.map(str::to_owned),
            drill,
            moment: None,
            chain: false,
            expect_manifest: None,
        })
    };
    asks_for(&json!({"action": "verify"}), &verify("latest", None, false));
    asks_for(
        &json!({"action": "verify", "backup": "shop/20260131T040500Z-full", "drill": true}),
        &verify("shop/20260131T040500Z-full", None, true),
    );
    asks_for(
        &json!({"action": "verify", "database": "shop", "drill": false}),
        &verify("latest", Some("shop"), false),
    );
    is_refused(&json!({"action": "verify", "drill": "false"}), "drill");
    is_refused(
        &json!({"action": "verify", "expect_manifest": "abc"}),
        "expect_manifest",
    );
    is_refused(&json!({"action": "verify", "backup": ""}), "backup");
    is_refused(&json!({"action": "verify", "kind": "full"}), "kind");
}

#[test]
fn a_restore_names_its_backup_and_never_its_target() {
    let restore = RestoreRequest {
        backup: "latest".into(),
        tables: vec!["public.orders".into()],
        into: Some("yesterday".into()),
        clean: true,
        dry_run: true,
        ..RestoreRequest::default()
    };
    asks_for(
        &json!({"action": "restore", "backup": "latest", "tables": ["public.orders"], "into": "yesterday", "clean": true,
            "dry_run": true}),
        &Command::Restore(restore),
    );
    is_refused(&json!({"action": "restore"}), "backup");
    is_refused(
        &json!({"action": "restore", "backup": "latest", "tables": "public.orders"}),
        "tables",
    );
    is_refused(
        &json!({"action": "restore", "backup": "latest", "tables": [1]}),
        "tables",
    );
    is_refused(&json!({"action": "restore", "backup": "latest", "clean": 1}), "clean");
    is_refused(
        &json!({"action": "restore", "backup": "latest", "target": "db"}),
        "target",
    );
    is_refused(
        &json!({"action": "restore", "backup": "latest", "target_secret_id": "db"}),
        "an event must not hold one",
    );
}

#[test]
fn every_field_of_a_restore_is_taken() {
    let switches = [
        "data_only",
        "create",
        "clean",
        "force",
        "no_verify",
        "check",
        "no_check",
        "keep_going",
        "single_transaction",
        "globals",
        "no_owner",
        "no_privileges",
        "no_tablespaces",
        "no_comments",
        "no_publications",
        "no_subscriptions",
        "allow_partial",
        "dry_run",
    ];
    let mut fields = vec![
        "backup",
        "database",
        "tables",
        "into",
        "exclude",
        "expect_manifest",
        "to_time",
        "to_lsn",
    ];
    fields.extend(switches);
    let (_, known) = ACTIONS.iter().find(|(action, _)| *action == "restore").unwrap();
    let sorted = |mut names: Vec<&'static str>| {
        names.sort_unstable();
        names
    };
    assert_eq!(sorted(fields), sorted(known.to_vec()));
    let mut event = json!({
        "action": "restore", "backup": "latest", "database": "shop", "tables": ["public.orders"], "into": "yesterday",
        "exclude": ["public.notes"], "expect_manifest": "ab".repeat(32),
    });
    for switch in switches {
        event[switch] = true.into();
    }
    let expected = RestoreRequest {
        backup: "latest".into(),
        database: Some("shop".into()),
        tables: vec!["public.orders".into()],
        into: Some("yesterday".into()),
        data_only: true,
        create: true,
        clean: true,
        force: true,
        no_verify: true,
        check: true,
        no_check: true,
        keep_going: true,
        single_transaction: true,
        globals: true,
        globals_privileged: false,
        no_owner: true,
        no_privileges: true,
        no_tablespaces: true,
        no_comments: true,
        no_publications: true,
        no_subscriptions: true,
        exclude: vec!["public.notes".into()],
        moment: None,
        allow_partial: true,
        dry_run: true,
        expect_manifest: Some([0xab; 32]),
    };
    asks_for(&event, &Command::Restore(expected));
}

#[test]
fn the_store_is_asked_for_its_backups_and_its_state() {
    asks_for(&json!({"action": "list"}), &Command::List { database: None });
    asks_for(&json!({"action": "status"}), &Command::Status { database: None });
    let database = Some("shop".to_owned());
    asks_for(
        &json!({"action": "list", "database": "shop"}),
        &Command::List {
            database: database.clone(),
        },
    );
    asks_for(
        &json!({"action": "status", "database": "shop"}),
        &Command::Status { database },
    );
    asks_for(&json!({"action": "doctor"}), &Command::Doctor);
    is_refused(&json!({"action": "doctor", "database": "shop"}), "database");
    is_refused(&json!({"action": "list", "kind": "full"}), "kind");
    is_refused(&json!({"action": "status", "database": ""}), "database");
}

#[test]
fn what_is_not_known_is_named() {
    is_refused(&json!({"action": "bakcup"}), "bakcup");
    is_refused(&json!({"action": 1}), "action");
    is_refused(&json!({"kind": "half"}), "half");
    is_refused(&json!({"databse": "shop"}), "did you mean \"database\"");
    is_refused(&json!({"database": ""}), "database");
    is_refused(&json!({"database": "a\u{0}b"}), "database");
    is_refused(&json!({"event_id": "a\nb"}), "id");
    is_refused(&json!({"trigger": "api"}), "api");
    is_refused(&json!([1]), "object");
    is_refused(&json!("backup"), "object");
    is_refused(&json!({"Records": [{"eventSource": "aws:sqs"}]}), "Records");
    is_refused(
        &json!({"version": "0", "id": "x", "source": "shop.orders", "detail-type": "Order", "detail": {}}),
        "shop.orders",
    );
}

#[test]
fn http_requests_are_not_in_this_version() {
    let function_url = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/backups",
        "rawQueryString": "",
        "headers": {"host": "abc.lambda-url.us-east-1.on.aws", "x-amz-security-token": "t"},
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "abc",
            "domainName": "abc.lambda-url.us-east-1.on.aws",
            "http": {"method": "POST", "path": "/backups", "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "curl"},
            "requestId": "id",
            "stage": "$default",
            "time": "12/Mar/2026:19:03:58 +0000",
            "timeEpoch": 1_583_348_638_390_i64
        },
        "body": "{\"password\":\"x\"}",
        "isBase64Encoded": false
    });
    is_refused(&function_url, "HTTP");
    is_refused(&json!({"httpMethod": "GET", "path": "/", "requestContext": {}}), "HTTP");
}

#[test]
fn no_secret_is_taken_from_an_event() {
    for field in [
        "password",
        "DB_PASSWORD",
        "database_url",
        "databaseUrl",
        "secret_id",
        "accessKeyId",
        "connection-string",
        "PGPASSWORD",
    ] {
        let event = json!({"action": "backup", field: "hunter2"});
        is_refused(&event, "an event must not hold one");
        assert!(!parse_event(&event, REQUEST).unwrap_err().message().contains("hunter2"));
    }
    is_refused(
        &json!({"database": "postgres://u:hunter2@h/db"}),
        "an event must not hold one",
    );
    is_refused(&json!({"options": [{"password": "x"}]}), "an event must not hold one");
    is_refused(
        &json!({"source": "aws.events", "detail-type": "Scheduled Event", "id": "1", "detail": {"password": "x"}}),
        "an event must not hold one",
    );
}

proptest! {
    #[test]
    fn no_event_makes_the_parser_panic(name in "\\PC{0,12}|action|kind|source|detail-type", value in "\\PC{0,20}") {
        let _ = parse_event(&json!({name: value}), REQUEST);
    }
}
