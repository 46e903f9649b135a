//! Names that others have chosen, in what a function answers, logs and sends. Each of these is a document for programs
//! too: no name ends it, or adds to it.

use std::fs;

use pgstow::printable::steers;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::face::lambda::place::{Place, read, succeeded};
use crate::support::database::{Database, quoted};
use crate::support::function::Function;
use crate::support::moto::{Topic, secret};
use crate::support::program::succeed;
use crate::support::services::cloud;
use crate::support::wreck::Site;

/// What would be seen as a line of ours if a name could break lines.
const MARK: &str = "FORGED";

fn assert_plain(what: &str, text: &str, breaks: &[char]) {
    let odd: Vec<char> = text.chars().filter(|c| !breaks.contains(c) && steers(*c)).collect();
    assert!(odd.is_empty(), "{what}: {odd:?} in {text:?}");
    let forged = text.lines().any(|line| line.trim_start().starts_with(MARK));
    assert!(!forged, "{what}: {text}");
}

/// The answer as it comes over the line.
fn answer(function: &Function, event: &Value) -> Value {
    let text = function.deliver(event);
    assert_plain(&event.to_string(), &text, &[]);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

#[tokio::test]
async fn no_answer_message_or_line_of_a_function_carries_what_steers() {
    // Colours, another line, the other direction, the end of a document's text, and of the document.
    let name = format!("x\u{1b}[2J\n{MARK}\u{202e}\u{9b}\"}}, \\");
    let database = Database::named(17, &name);
    let role = format!("{name}{}", std::process::id());
    database.sql(&format!(
        "CREATE TABLE {table} AS SELECT 1 AS {table}; CREATE ROLE {role} LOGIN PASSWORD 'x'",
        table = quoted(&name),
        role = quoted(&role),
    ));
    let place = Place::around(database).await;
    let function = place.function();
    let id = succeeded(&answer(&function, &json!({})));
    let verified = answer(&function, &json!({"action": "verify", "backup": id}));
    assert_eq!(verified["status"], "ok", "{verified:#}");
    let listed = answer(&function, &json!({"action": "list"}));
    assert_eq!(listed["backups"][0]["id"], id, "{listed:#}");
    for event in [
        json!({"action": "status"}),
        json!({"action": name}),
        json!({"action": "verify", "backup": name}),
        json!({"action": "verify", "backup": "latest", "database": name, "expect_manifest": name}),
    ] {
        answer(&function, &event);
    }
    // A backup that fails, and names what it may not read.
    let powerless = secret(&place.secret_of(&role, "x").to_string());
    let refused = place.function_with(|command| {
        command.env("BACKUP_SECRET_ID", powerless);
    });
    let failed = answer(&refused, &json!({}));
    assert!(failed["errorMessage"].is_string(), "{failed:#}");

    for function in [&function, &refused] {
        let log = function.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.starts_with('{')).collect();
        assert!(!lines.is_empty(), "{log}");
        for line in lines {
            assert_plain("the log", line, &[]);
        }
        // Each of them is a document.
        function.lines();
        assert!(!log.lines().any(|line| line.trim_start().starts_with(MARK)), "{log}");
    }
    let messages = place.topic.messages();
    let outcomes: Vec<&str> = messages.iter().map(|message| &*message.attributes["status"]).collect();
    assert!(
        outcomes.contains(&"succeeded") && outcomes.contains(&"failed"),
        "{messages:#?}"
    );
    for message in &messages {
        assert!(message.subject.chars().all(|c| matches!(c, ' '..='~')), "{message:?}");
        assert_plain("a message", &message.body, &['\n']);
        let (_, report) = read(message);
        assert!(report.is_object(), "{report:#}");
        for (attribute, value) in &message.attributes {
            assert_plain(attribute, value, &[]);
        }
    }
    place.database.sql(&format!("DROP ROLE {}", quoted(&role)));
}

/// Where a person who can write to the store cannot change it: for `--expect-manifest`, without keys.
#[test]
fn the_manifests_digest_is_told_in_the_report_in_the_message_and_in_the_log() {
    let (site, database, topic) = (Site::new(), Database::fresh(17), Topic::fresh());
    database.sql("CREATE TABLE t AS SELECT 1 AS n");
    let mut backup = site.backup(&database.url());
    cloud(&mut backup)
        .env("BACKUP_SNS_TOPIC_ARN", &topic.arn)
        .env("LOG_FORMAT", "json")
        .env("RUST_LOG", "pgstow=info");
    let run = succeed(&mut backup);
    let report = run.json();
    let id = report["id"].as_str().unwrap();
    let manifest = fs::read(site.store().join(id).join("manifest.json")).unwrap();
    let digest = hex::encode(Sha256::digest(manifest));

    assert_eq!(report["manifest_sha256"], digest.as_str(), "the report: {report:#}");

    let messages = topic.messages();
    assert_eq!(messages.len(), 1, "{messages:#?}");
    let (summary, told) = read(&messages[0]);
    assert!(
        summary.contains(&format!("manifest SHA-256 {digest}")),
        "the message: {summary}"
    );
    assert_eq!(told["manifest_sha256"], digest.as_str(), "the message: {told:#}");

    let lines = run
        .stderr
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let committed: Vec<Value> = lines
        .filter(|line| line["manifest_sha256"] == digest.as_str())
        .collect();
    assert_eq!(committed.len(), 1, "the log: {}", run.stderr);
    assert_eq!(committed[0]["backup"], id, "the log: {}", run.stderr);
}
