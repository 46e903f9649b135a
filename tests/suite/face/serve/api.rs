//! The API: runs, backups and events.

use serde_json::Value;

use super::events::Events;
use super::{ADMIN, OPERATOR, Serving, VIEWER, shop};
use crate::support::http::request;

#[test]
fn a_backup_is_asked_for_followed_listed_verified_and_written_down() {
    let database = shop();
    let serving = Serving::of(&database);
    // A folder that is not there is not taken for an empty store.
    let missing = serving.ask(VIEWER, "GET", "/api/v1/backups", "");
    assert_eq!((missing.status, missing.json()["code"].as_str()), (503, Some("ENOENT")));
    let run = serving.run(r#"{"action":"backup"}"#);
    assert_eq!(
        (run["state"].as_str(), run["trigger"].as_str()),
        (Some("succeeded"), Some("api")),
        "{run}"
    );
    assert_eq!(run["result"]["status"], "succeeded");
    assert_eq!(run["by"], "token:the operator");
    let id = run["backup"].as_str().unwrap();
    let listed = serving.get("/api/v1/backups");
    assert_eq!(listed["backups"][0]["id"], id);
    let one = serving.get(&format!("/api/v1/backups/{id}"));
    assert_eq!(
        (one["tables"].as_u64(), one["verified"].clone()),
        (Some(1), Value::Null)
    );
    let tables = serving.get(&format!("/api/v1/backups/{id}/tables"));
    assert_eq!(tables["tables"][0]["name"], "orders");
    assert_eq!(serving.get(&format!("/api/v1/backups/{id}/manifest"))["id"], id);
    let verified = serving.run(r#"{"action":"verify"}"#);
    assert_eq!(verified["state"], "succeeded", "{verified}");
    let one = serving.get(&format!("/api/v1/backups/{id}"));
    assert_eq!(one["verified"]["status"], "ok");
    assert_eq!(
        serving.get("/api/v1/backups?proved=no")["backups"],
        Value::Array(vec![])
    );
    assert_eq!(serving.get("/api/v1/status")["databases"][0]["last_good"]["id"], id);
    let log = serving.get(&format!("/api/v1/runs/{}/log", run["id"].as_str().unwrap()));
    assert!(log["lines"].to_string().contains("committed"), "{log}");
    let audit = serving.ask(ADMIN, "GET", "/api/v1/audit", "").json();
    assert_eq!(audit["chain"]["ok"], true, "{audit}");
    assert!(
        audit["records"].to_string().contains("\"by\":\"token:the operator\""),
        "{audit}"
    );
}

#[test]
fn a_backup_whose_file_is_damaged_makes_its_verification_fail() {
    let database = shop();
    let serving = Serving::of(&database);
    assert_eq!(serving.run(r#"{"action":"backup"}"#)["state"], "succeeded");
    let dump = super::walk(&serving.store())
        .into_iter()
        .find(|path| path.extension().is_some_and(|end| end == "dump"));
    let dump = dump.unwrap();
    let mut bytes = std::fs::read(&dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&dump, bytes).unwrap();
    let run = serving.run(r#"{"action":"verify"}"#);
    assert_eq!(
        (run["state"].as_str(), run["error"]["code"].as_str()),
        (Some("failed"), Some("INTEGRITY")),
        "{run}"
    );
    assert_eq!(serving.get("/api/v1/status")["status"], "attention");
}

#[test]
fn a_key_that_was_used_before_makes_no_second_backup_not_even_after_a_restart() {
    let database = shop();
    let serving = Serving::of(&database);
    let ask = |serving: &Serving| {
        let bearer = format!("Bearer {OPERATOR}");
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/json"),
            ("Idempotency-Key", "deploy-42"),
        ];
        let answer = request(
            "POST",
            &serving.endpoint,
            "/api/v1/runs",
            &headers,
            r#"{"action":"backup"}"#,
        );
        assert_eq!(answer.status, 202);
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(answer.header("location"), Some(format!("/api/v1/runs/{id}").as_str()));
        id
    };
    let first = ask(&serving);
    assert_eq!(ask(&serving), first);
    let made = serving.ended(&first)["backup"].clone();
    let (place, code) = serving.end();
    assert_eq!(code, 0);
    let serving = Serving::at(place, &database, |_| {});
    let again = ask(&serving);
    let run = serving.ended(&again);
    assert_eq!(
        (run["state"].as_str(), run["result"]["repeated"].as_bool()),
        (Some("succeeded"), Some(true)),
        "{run}"
    );
    assert_eq!(run["result"]["id"], made);
    assert_eq!(serving.get("/api/v1/backups")["backups"].as_array().unwrap().len(), 1);
    // The run of the process before is remembered too.
    assert_eq!(serving.get(&format!("/api/v1/runs/{first}"))["state"], "succeeded");
}

#[test]
fn what_is_asked_wrongly_is_refused_with_a_problem_that_helps() {
    let database = shop();
    let serving = Serving::of(&database);
    let wrong = [
        (r#"{"action":"destroy"}"#, 422),
        (r#"{"action":"backup","kind":"differential"}"#, 400),
        (r#"{"action":"backup","backup":"latest"}"#, 400),
        (r#"{"action":"backup","database":"crm"}"#, 404),
        (r#"{"action":"backup","colour":"red"}"#, 422),
        (r#"{"action":"restore"}"#, 403),
        ("[", 400),
    ];
    for (body, status) in wrong {
        let answer = serving.ask(OPERATOR, "POST", "/api/v1/runs", body);
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{body}"
        );
        let problem = answer.json();
        assert_eq!(problem["status"], status, "{problem}");
        assert!(!problem["hint"].as_str().unwrap().is_empty() && !problem["detail"].as_str().unwrap().is_empty());
    }
    for path in [
        "/api/v1/nothing",
        "/api/v1/runs/20260131T040500Z-5f0c1a2b3c4d5e6f",
        "/api/v1/runs/..%2F..",
        "/api/v1/backups/shop/..%2F..%2Fetc",
    ] {
        let answer = serving.ask(VIEWER, "GET", path, "");
        assert_eq!(
            (answer.status, answer.json()["code"].as_str().unwrap()),
            (404, "NOT_FOUND"),
            "{path}"
        );
    }
    assert_eq!(serving.ask(VIEWER, "GET", "/api/v1/backups?limit=many", "").status, 400);
    assert_eq!(serving.ask(VIEWER, "DELETE", "/api/v1/runs", "").status, 405);
    assert_eq!(
        serving
            .ask(OPERATOR, "POST", "/api/v1/runs", &"x".repeat(70_000))
            .status,
        413
    );
    let bearer = format!("Bearer {OPERATOR}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
        ("Idempotency-Key", "schedule-shop-full-2026-01-31T02:00:00Z"),
    ];
    let taken = request(
        "POST",
        &serving.endpoint,
        "/api/v1/runs",
        &headers,
        r#"{"action":"backup"}"#,
    );
    assert_eq!(
        taken.status, 400,
        "a moment of a schedule cannot be used up: {}",
        taken.body
    );
    assert_eq!(serving.get("/api/v1/runs")["runs"], Value::Array(vec![]));
}

#[test]
fn an_answer_that_has_not_changed_is_not_sent_again() {
    let database = shop();
    let serving = Serving::of(&database);
    serving.run(r#"{"action":"backup"}"#);
    let first = serving.ask(VIEWER, "GET", "/api/v1/backups?limit=1", "");
    let tag = first.header("etag").unwrap();
    let bearer = format!("Bearer {VIEWER}");
    let headers = [("Authorization", bearer.as_str()), ("If-None-Match", tag)];
    let second = request("GET", &serving.endpoint, "/api/v1/backups?limit=1", &headers, "");
    assert_eq!((second.status, second.body.as_str()), (304, ""));
}

#[test]
fn the_stream_tells_of_a_run_from_its_queue_to_its_end_and_again_to_who_comes_back() {
    let database = shop();
    let serving = Serving::of(&database);
    let bearer = format!("Authorization: Bearer {VIEWER}");
    let listen = |last: Option<u64>| {
        let last = last.map(|last| format!("\r\nLast-Event-ID: {last}"));
        Events::of(&serving, &format!("{bearer}{}", last.unwrap_or_default()))
    };
    let mut events = listen(None);
    let run = serving.run(r#"{"action":"backup"}"#);
    let mut told = Vec::new();
    let mut first = None;
    loop {
        let (name, document) = events.next().unwrap();
        first = first.or(document["id"].as_u64());
        let is_last = name == "status.changed";
        if name != "run.progress" {
            told.push(name);
        }
        if is_last {
            break;
        }
        if document["run"].is_object() {
            assert_eq!(document["run"]["id"], run["id"]);
        }
    }
    assert_eq!(told, ["run.queued", "run.started", "run.completed", "status.changed"]);
    // After the first of them.
    let (name, document) = listen(first).next().unwrap();
    assert_eq!(
        (name.as_str(), document["run"]["id"].clone()),
        ("run.started", run["id"].clone())
    );
    // An event of long ago.
    assert_eq!(listen(Some(7)).next().unwrap().0, "reset");
}
