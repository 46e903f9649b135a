//! What each event makes.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::place::{Place, failed, read, succeeded, until};
use crate::support::lock::Lock;
use crate::support::program::{stock, succeed, succeed_with_input};

fn fields(document: &Value) -> BTreeSet<&String> {
    document.as_object().unwrap().keys().collect()
}

#[tokio::test]
async fn an_empty_event_makes_a_full_backup_and_answers_as_the_command_line_does() {
    let place = Place::fresh().await;
    let function = place.function();
    let answer = function.invoke(&json!({}));
    let id = succeeded(&answer);
    let name = &place.database.name;
    assert_eq!(place.backups().await, std::slice::from_ref(&id));

    let manifest = place.manifest(&id).await;
    assert_eq!(manifest["trigger"], "manual");
    assert_eq!(manifest["type"], "full");
    assert_eq!(manifest["database"], **name);
    assert_eq!(manifest["tables"][1]["rows"], 1000, "{:#}", manifest["tables"]);
    let dump = place.bucket.get(&format!("nightly/{id}/{name}.dump")).await;
    assert_eq!(manifest["files"]["dump"]["sha256"], hex::encode(Sha256::digest(&dump)));
    succeed_with_input(stock(15, "pg_restore").args(["-f", "/dev/null"]), &dump);

    for key in place.bucket.keys().await {
        let tags = place.bucket.tags(&key).await;
        if key == place.lease_key() {
            assert!(tags.is_empty(), "{tags:?}");
        } else {
            assert_eq!(tags["pgstow-tier"], "latest", "{key}");
            let sha256 = hex::encode(Sha256::digest(place.bucket.get(&key).await));
            assert_eq!(tags["sha256"], sha256, "{key}");
        }
    }

    let message = place.message();
    assert_eq!(message.subject, format!("pgstow {name} backup SUCCEEDED"));
    let attributes: Vec<(&str, &str)> = message
        .attributes
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    assert_eq!(
        attributes,
        [("database", &**name), ("kind", "full"), ("status", "succeeded")]
    );
    let (summary, mut report) = read(&message);
    assert!(
        summary.starts_with(&id) && summary.contains("2 tables, 1000 rows"),
        "{summary}"
    );
    // The report cannot say of itself that it has arrived.
    report["notification"] = json!({"sent": true});
    assert_eq!(report, answer);
    // Which manifest was meant, for a restore without keys (`--expect-manifest`): in answer, message and log.
    let manifest = place.bucket.get(&format!("nightly/{id}/manifest.json")).await;
    let digest = hex::encode(Sha256::digest(&manifest));
    assert_eq!(answer["manifest_sha256"], digest.as_str());
    assert!(summary.contains(&format!("manifest SHA-256 {digest}")), "{summary}");
    assert!(function.log().contains(&digest), "{}", function.log());

    let by_hand = succeed(place.command_line().args(["backup", "--json"])).json();
    assert_eq!(fields(&answer), fields(&by_hand));
    assert_eq!(by_hand["trigger"], "cli");
    assert_eq!(
        place.bucket.tags(&format!("nightly/{id}/{name}.dump")).await["pgstow-tier"],
        "daily"
    );

    let report = function.log();
    let start = report.split("INIT REPORT(durationMs: ").nth(1).unwrap();
    println!("cold start: {} ms", start.split(')').next().unwrap());
}

#[tokio::test]
async fn a_warm_function_makes_its_next_backup_in_the_same_process() {
    let place = Place::fresh().await;
    let function = place.function();
    let first = succeeded(&function.invoke(&json!({})));
    place.database.sql("INSERT INTO orders VALUES (0, 'new')");
    let second = function.invoke(&Value::Null);
    assert_eq!(second["rows"], 1001);
    assert_eq!(place.backups().await, [first, succeeded(&second)]);
    assert_eq!(function.starts(), 1);
    assert_eq!(place.topic.messages().len(), 2);

    // Each invocation's lines bear its own id.
    let requests = function.request_ids();
    assert_eq!(requests.len(), 2);
    for (request, rows) in requests.iter().zip([1000, 1001]) {
        let lines = function.lines();
        let of_request = |line: &&Value| line["request_id"] == **request;
        // The first tells of the commit, and the last of it all.
        let told = lines.iter().rfind(of_request);
        let told = told.unwrap_or_else(|| panic!("no line of {request} in {lines:#?}"));
        assert_eq!((&told["level"], &told["rows"]), (&json!("INFO"), &json!(rows)));
        assert!(told["message"].is_string() && told["timestamp"].is_string());
    }
}

#[tokio::test]
async fn a_function_lists_and_judges_its_store() {
    let place = Place::fresh().await;
    let function = place.function();
    let id = succeeded(&function.invoke(&json!({})));
    let list = function.invoke(&json!({"action": "list"}));
    assert_eq!((&list["status"], &list["backups"][0]["id"]), (&json!("ok"), &json!(id)));
    let status = function.invoke(&json!({"action": "status", "database": place.database.name}));
    // That a person is needed is an answer, not a failure of the function.
    assert_eq!(status["status"], "attention", "{status:#}");
    assert_eq!(status["databases"][0]["last_good"]["id"], id);
    assert_eq!(status["stores"][0]["lifecycle"]["state"], "not_installed");
    let shown = status.to_string();
    assert!(
        !shown.contains(&place.database.password()) && !shown.contains("arn:"),
        "{shown}"
    );
    // The message told of the backup.
    assert_eq!(place.topic.messages().len(), 1);
}

fn scheduled(id: &str) -> Value {
    json!({
        "version": "0", "id": id, "detail-type": "Scheduled Event", "source": "aws.events",
        "account": "123456789012", "time": "2025-01-31T04:05:00Z", "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:123456789012:rule/nightly"], "detail": {},
    })
}

#[tokio::test]
async fn a_schedules_event_delivered_twice_makes_one_backup() {
    let place = Place::fresh().await;
    let function = place.function();
    let event = scheduled("89d1a02d-5ec7-412e-82f5-13505f849b41");
    let first = function.invoke(&event);
    let id = succeeded(&first);
    let manifest = place.manifest(&id).await;
    assert_eq!(manifest["trigger"], "schedule");
    assert_eq!(manifest["event_id"], "89d1a02d-5ec7-412e-82f5-13505f849b41");
    assert!(first.get("repeated").is_none());

    let second = function.invoke(&event);
    assert_eq!(second["repeated"], true, "{second:#}");
    assert_eq!(succeeded(&second), id);
    assert_eq!(place.backups().await, std::slice::from_ref(&id));
    // One message, for one backup.
    assert_eq!(place.topic.messages().len(), 1);

    let next = succeeded(&function.invoke(&scheduled("another")));
    assert_eq!(place.backups().await, [id, next]);
}

#[tokio::test]
async fn a_delivery_that_meets_the_first_at_work_is_busy_and_finds_its_backup_later() {
    let place = Place::fresh().await;
    let event = scheduled("89d1a02d");
    let (first, second) = (Arc::new(place.function()), place.function());
    // A catalog that pg_dump alone reads: a table would be waited for before it starts.
    let lock = Lock::hold(&place.database, "pg_catalog.pg_ts_template");
    let at_work = tokio::task::spawn_blocking({
        let (first, event) = (first.clone(), event.clone());
        move || first.invoke(&event)
    });
    let waiting = || async {
        first
            .children()
            .iter()
            .any(|arguments| arguments.contains("--snapshot="))
    };
    until("pg_dump reads", waiting).await;
    let busy = second.invoke(&event);
    assert!(failed(&busy, "BUSY").contains(&place.database.name), "{busy}");
    drop(lock);
    let id = succeeded(&at_work.await.unwrap());
    let again = second.invoke(&event);
    assert_eq!((&again["repeated"], succeeded(&again)), (&json!(true), id.clone()));
    assert_eq!(place.backups().await, [id]);
    assert_eq!(place.bucket.uploads().await, [""; 0]);
}

#[tokio::test]
async fn deliveries_that_race_never_make_two_backups() {
    let place = Place::fresh().await;
    let event = scheduled("race");
    let functions = [place.function(), place.function(), place.function()];
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let running: Vec<_> = functions
            .iter()
            .map(|function| scope.spawn(|| function.invoke(&event)))
            .collect();
        running.into_iter().map(|running| running.join().unwrap()).collect()
    });
    let made = answers
        .iter()
        .filter(|answer| answer["status"] == "succeeded" && answer["repeated"] != true);
    assert_eq!(made.count(), 1, "{answers:#?}");
    for answer in answers.iter().filter(|answer| answer["status"] != "succeeded") {
        failed(answer, "BUSY");
    }
    assert_eq!(place.backups().await.len(), 1);
}

#[tokio::test]
async fn an_event_that_names_the_database_is_obeyed_only_where_it_is_the_settings() {
    let place = Place::fresh().await;
    let function = place.function();
    let name = &place.database.name;
    let wrong = function.invoke(&json!({"action": "backup", "kind": "full", "database": "other"}));
    let message = failed(&wrong, "CONFIG");
    assert!(message.contains("\"other\"") && message.contains(&**name), "{message}");
    place.assert_nothing_is_left().await;
    let right = function.invoke(&json!({"action": "backup", "kind": "full", "database": name}));
    assert_eq!(right["database"], **name);
    assert_eq!(place.backups().await, [succeeded(&right)]);
}

#[tokio::test]
async fn events_that_are_not_a_backups_are_refused_and_touch_nothing() {
    let place = Place::fresh().await;
    let function = place.function();
    let http = json!({"http": {"method": "POST", "path": "/backups"}});
    for event in [
        json!({"action": "verify", "backup": "latest", "drill": "true"}),
        json!({"action": "restore", "backup": "latest"}),
        json!({"action": "drop"}),
        json!({"action": "backup", "kind": "half"}),
        json!({"action": "backup", "knid": "full"}),
        json!({"action": ["backup"]}),
        json!({"Records": [{"eventSource": "aws:sqs", "body": "{}"}]}),
        json!({"source": "aws.ec2", "detail-type": "EC2 Instance State-change Notification", "id": "1"}),
        json!({"version": "2.0", "rawPath": "/backups", "requestContext": http, "body": "{}"}),
        json!({"httpMethod": "POST", "path": "/backups", "requestContext": {"httpMethod": "POST"}}),
        json!({"requestContext": {"elb": {"targetGroupArn": "arn"}}, "httpMethod": "GET", "path": "/"}),
        json!("backup"),
        json!([]),
    ] {
        let answer = function.invoke(&event);
        assert!(failed(&answer, "CONFIG").contains("hint: "), "{event}: {answer}");
    }
    place.assert_nothing_is_left().await;
    assert_eq!(function.starts(), 1);
}

#[tokio::test]
async fn credentials_in_an_event_are_refused_and_not_repeated() {
    let place = Place::fresh().await;
    let function = place.function();
    for event in [
        json!({"password": "hunter2"}),
        json!({"action": "backup", "database_url": "postgres://u:hunter2@h/d"}),
        json!({"action": "backup", "database": "postgres://u:hunter2@h/d"}),
        json!({"action": "backup", "database": "postgresql+asyncpg://u:hunter2@h/d"}),
        json!({"action": "backup", "note": "for jdbc:postgresql://h/d?user=u&pass=hunter2"}),
        json!({"action": "backup", "notes": [["see", "Postgres://u:hunter2@h/d"]]}),
        json!({"action": "backup", "postgres://u:hunter2@h/d": true}),
        json!({"action": "backup", "db": {"DbPassword": "hunter2"}}),
        json!({"action": "backup", "note": "host=h Password = hunter2"}),
        json!({"action": "backup", "note": "{\"password\": \"hunter2\"}"}),
        json!({"action": "backup", "secret_id": "hunter2"}),
        json!({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {"token": "hunter2"}}),
    ] {
        let message = failed(&function.invoke(&event), "CONFIG");
        assert!(message.contains("looks like a secret"), "{event}: {message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
    assert!(!function.log().contains("hunter2"), "{}", function.log());
    place.assert_nothing_is_left().await;
}
