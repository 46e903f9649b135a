//! The one message per run, through a real SNS protocol into a queue.
use std::path::Path;

use crate::support::database::Database;
use crate::support::moto::Topic;
use crate::support::program::{Run, pgstow, run, succeed};
use crate::support::services::{aws_endpoint, cloud};
use aws_config::BehaviorVersion;
use aws_credential_types::Credentials;
use aws_sdk_sns::config::Region;
use aws_sdk_sns::config::retry::RetryConfig;
use aws_smithy_http_client::tls;
use pgstow::error::Code;
use pgstow::outside::notify::{About, Notice, Notifier, RunStatus, Sns};
use pgstow::repository::backup_id::BackupKind;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn client(endpoint: &str) -> aws_sdk_sns::Client {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    let config = aws_sdk_sns::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .retry_config(RetryConfig::standard().with_max_attempts(2))
        .endpoint_url(endpoint)
        .build();
    aws_sdk_sns::Client::from_conf(config)
}

/// One SQS request, as the SDK for it would send it; moto does not look at the signature.
async fn sqs(endpoint: &str, action: &str, input: &Value) -> Value {
    let host = endpoint.trim_start_matches("http://").trim_end_matches('/');
    let body = input.to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/x-amz-json-1.0\r\n\
         X-Amz-Target: AmazonSQS.{action}\r\nContent-Length: {}\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=test/20250101/us-east-1/sqs/aws4_request, \
         SignedHeaders=host, Signature=0\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(host).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{answer}");
    serde_json::from_str(body).unwrap_or(Value::Null)
}

/// A topic and a queue that gets what the topic gets, attributes included.
struct Wired {
    endpoint: String,
    topic_arn: String,
    queue_url: String,
}

impl Wired {
    async fn new(endpoint: &str, name: &str, filter: Option<&str>) -> Self {
        // The server outlives a test: another run's messages must not come in between.
        let name = format!("{name}-{}", std::process::id());
        let sns = client(endpoint);
        let topic = sns.create_topic().name(&name).send().await.unwrap();
        let topic_arn = topic.topic_arn().unwrap().to_owned();
        let queue = sqs(endpoint, "CreateQueue", &json!({ "QueueName": name })).await;
        let queue_url = queue["QueueUrl"].as_str().unwrap().to_owned();
        let mut subscribe = sns
            .subscribe()
            .topic_arn(&topic_arn)
            .protocol("sqs")
            .endpoint(format!("arn:aws:sqs:us-east-1:123456789012:{name}"));
        if let Some(filter) = filter {
            subscribe = subscribe.attributes("FilterPolicy", filter);
        }
        subscribe.send().await.unwrap();
        Self {
            endpoint: endpoint.to_owned(),
            topic_arn,
            queue_url,
        }
    }

    /// All messages, as the subscriber sees them.
    async fn received(&self) -> Vec<Value> {
        let input = json!({ "QueueUrl": self.queue_url, "MaxNumberOfMessages": 10 });
        let answer = sqs(&self.endpoint, "ReceiveMessage", &input).await;
        let messages = answer["Messages"].as_array().cloned().unwrap_or_default();
        messages
            .iter()
            .map(|message| serde_json::from_str(message["Body"].as_str().unwrap()).unwrap())
            .collect()
    }
}

fn notice(database: &str, status: RunStatus, report: Value) -> Notice {
    Notice {
        status,
        about: About::Backup(BackupKind::Full),
        database: Some(database.to_owned()),
        summary: format!("Backup of {database}"),
        report,
    }
}

#[tokio::test]
async fn a_success_and_a_failure_arrive_with_subject_body_and_attributes() {
    let endpoint = aws_endpoint();
    let wired = Wired::new(&endpoint, "both", None).await;
    let sns = Sns::new(client(&endpoint), &wired.topic_arn);
    let report = json!({"status": "succeeded", "id": "bücher/20250131T040500Z-full"});
    sns.send(&notice("bücher", RunStatus::Succeeded, report.clone()))
        .await
        .unwrap();
    let failure = json!({"status": "failed", "error": {"code": "STORE"}});
    sns.send(&notice("a\nb", RunStatus::Failed(Code::Store), failure))
        .await
        .unwrap();

    let received = wired.received().await;
    assert_eq!(received.len(), 2, "{received:#?}");
    let of = |subject: &str| received.iter().find(|message| message["Subject"] == subject).unwrap();

    let good = of("pgstow b?cher backup SUCCEEDED");
    let (summary, json) = good["Message"].as_str().unwrap().split_once("\n\n").unwrap();
    assert_eq!(summary, "Backup of bücher");
    assert_eq!(serde_json::from_str::<Value>(json).unwrap(), report);
    let attributes = &good["MessageAttributes"];
    assert_eq!(attributes["status"]["Value"], "succeeded");
    assert_eq!(attributes["database"]["Value"], "bücher");
    assert_eq!(attributes["kind"]["Value"], "full");
    assert!(attributes.get("code").is_none());

    let bad = of("pgstow a?b backup FAILED");
    assert_eq!(bad["MessageAttributes"]["code"]["Value"], "STORE");
    assert_eq!(bad["MessageAttributes"]["database"]["Value"], "a?b");
}

#[tokio::test]
async fn a_filter_policy_can_pick_the_failures() {
    let endpoint = aws_endpoint();
    let wired = Wired::new(&endpoint, "failures", Some(r#"{"status": ["failed"]}"#)).await;
    let sns = Sns::new(client(&endpoint), &wired.topic_arn);
    sns.send(&notice("shop", RunStatus::Succeeded, json!({})))
        .await
        .unwrap();
    sns.send(&notice("shop", RunStatus::Failed(Code::Stalled), json!({})))
        .await
        .unwrap();
    let received = wired.received().await;
    assert_eq!(received.len(), 1, "{received:#?}");
    assert_eq!(received[0]["Subject"], "pgstow shop backup FAILED");
}

#[tokio::test]
async fn a_report_of_thousands_of_tables_still_arrives() {
    let endpoint = aws_endpoint();
    let wired = Wired::new(&endpoint, "long", None).await;
    let sns = Sns::new(client(&endpoint), &wired.topic_arn);
    let tables: Vec<Value> = (0..5_000)
        .map(|number| json!({"name": number, "sha256": "0".repeat(64)}))
        .collect();
    let report = json!({"status": "succeeded", "tables": tables});
    sns.send(&notice("shop", RunStatus::Succeeded, report)).await.unwrap();
    let received = wired.received().await;
    let message = received[0]["Message"].as_str().unwrap();
    assert!(message.len() <= 256 * 1024);
    assert!(message.contains("… and 4800 more"));
}

#[tokio::test]
async fn a_fifo_topic_takes_it_too() {
    let endpoint = aws_endpoint();
    let client = client(&endpoint);
    let topic = client
        .create_topic()
        .name(format!("ordered-{}.fifo", std::process::id()))
        .attributes("FifoTopic", "true");
    let arn = topic.send().await.unwrap().topic_arn().unwrap().to_owned();
    let bare = client.publish().topic_arn(&arn).message("x").send().await;
    assert!(bare.is_err(), "the server does not ask for a group");
    let sns = Sns::new(client, arn);
    sns.send(&notice("my shop", RunStatus::Succeeded, json!({})))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_named_with_the_reason() {
    let endpoint = aws_endpoint();
    let arn = "arn:aws:sns:us-east-1:123456789012:nowhere";
    let sns = Sns::new(client(&endpoint), arn);
    let error = sns
        .send(&notice("shop", RunStatus::Succeeded, json!({})))
        .await
        .unwrap_err();
    assert!(error.message().contains(arn), "{error}");
    assert!(error.message().contains("NotFound"), "{error}");
}

#[tokio::test]
async fn a_service_that_is_down_is_given_up() {
    // Bound and not listening for long: the port is free again when the client comes.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let sns = Sns::new(
        client(&format!("http://{free}")),
        "arn:aws:sns:us-east-1:123456789012:t",
    );
    let error = sns
        .send(&notice("shop", RunStatus::Succeeded, json!({})))
        .await
        .unwrap_err();
    assert!(error.message().starts_with("cannot notify arn:aws:sns"), "{error}");
    assert!(error.hint_text().contains("endpoint"));
}

/// A run of the command line that fails; what it left in the queue comes with it.
fn failing_run(topic: &str, url: Option<&str>, configure: &[&str]) -> (Option<i32>, Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = pgstow();
    cloud(&mut command).current_dir(folder.path());
    let run = run(command
        .args(["backup", "--json", "--sns-topic-arn", topic])
        .envs(url.map(|url| ("DATABASE_URL", url)))
        .args(configure));
    (run.status.code(), run.json(), run.stderr)
}

#[test]
fn a_failed_run_of_the_command_line_is_told_with_its_code_and_exits_as_without() {
    let (topic, database) = (Topic::fresh(), Database::fresh(15));
    let url = database.url();
    let away = format!("{}/no_such_database", url.rsplit_once('/').unwrap().0);
    for (source, configure, exit, code, name) in [
        (
            Some(away.as_str()),
            &["--store", "."][..],
            10,
            "CONN_ERR",
            Some("no_such_database"),
        ),
        (
            Some(url.as_str()),
            &["--store", "missing/folder"],
            33,
            "ENOENT",
            Some(&*database.name),
        ),
        (None, &["--secret-id", "nowhere", "--store", "."], 12, "SECRET", None),
    ] {
        let (status, report, stderr) = failing_run(&topic.arn, source, configure);
        assert_eq!(
            (status, &report["error"]["code"]),
            (Some(exit), &json!(code)),
            "{stderr}"
        );
        assert!(stderr.starts_with(&format!("error[{code}]: ")), "{stderr}");
        let messages = topic.messages();
        assert_eq!(messages.len(), 1, "{messages:#?}");
        let message = &messages[0];
        let named = name.map_or(String::new(), |name| format!("{name} "));
        assert_eq!(message.subject, format!("pgstow {named}backup FAILED"));
        let attribute = |name: &str| message.attributes.get(name).map(String::as_str);
        assert_eq!(attribute("code"), Some(code));
        assert_eq!((attribute("status"), attribute("kind")), (Some("failed"), Some("full")));
        assert_eq!(attribute("database"), name);
        let (summary, told) = message.body.split_once("\n\n").unwrap();
        assert!(summary.starts_with(&format!("error[{code}]: ")), "{summary}");
        assert_eq!(serde_json::from_str::<Value>(told).unwrap(), report);
    }
}

#[test]
fn a_topic_that_is_gone_does_not_change_how_a_run_ends() {
    let topic = "arn:aws:sns:us-east-1:123456789012:nowhere";
    let (status, report, stderr) = failing_run(topic, None, &["--secret-id", "nowhere", "--store", "."]);
    assert_eq!((status, &report["error"]["code"]), (Some(12), &json!("SECRET")));
    assert!(stderr.contains(topic), "{stderr}");

    let (database, folder) = (Database::fresh(15), tempfile::tempdir().unwrap());
    let mut command = pgstow();
    cloud(&mut command).current_dir(folder.path());
    command.args(["backup", "--json", "--store", ".", "--sns-topic-arn", topic]);
    let run = run(command.env("DATABASE_URL", database.url()));
    assert_eq!(run.status.code(), Some(0), "{}", run.stderr);
    assert_eq!(run.json()["notification"]["sent"], false);
    assert!(run.stderr.contains("notification was not sent"), "{}", run.stderr);
}

#[test]
fn a_backup_without_its_copy_is_told_as_degraded() {
    let (topic, database, folder) = (Topic::fresh(), Database::fresh(15), tempfile::tempdir().unwrap());
    let mut command = pgstow();
    cloud(&mut command).current_dir(folder.path());
    command.args(["backup", "--json", "--store", "./good", "--store", "/proc/nowhere"]);
    command.args(["--sns-topic-arn", &topic.arn]);
    let run = run(command.env("DATABASE_URL", database.url()));
    assert_eq!(run.status.code(), Some(3), "{}", run.stderr);
    let report = run.json();
    crate::support::wreck::assert_status(&report, run.status.code(), &run.stderr);
    let messages = topic.messages();
    assert_eq!(messages.len(), 1, "{messages:#?}");
    assert_eq!(messages[0].subject, format!("pgstow {} backup DEGRADED", database.name));
    let expected = [
        ("code", "DEGRADED"),
        ("database", &database.name),
        ("kind", "full"),
        ("status", "degraded"),
    ];
    let attributes = messages[0].attributes.iter().map(|(name, value)| (&**name, &**value));
    assert!(attributes.eq(expected), "{:#?}", messages[0].attributes);
    assert!(
        messages[0].body.contains("NOT stored in /proc/nowhere"),
        "{}",
        messages[0].body
    );
}

/// `pgstow verify` of a store, with a topic.
fn verify(topic: &str, store: &Path, args: &[&str]) -> Run {
    let mut command = pgstow();
    cloud(&mut command).arg("verify").args(args).args(["--json", "--store"]);
    command.arg(store).args(["--sns-topic-arn", topic]).current_dir(store);
    run(&mut command)
}

#[test]
fn a_verification_and_a_drill_are_told_when_they_fail_and_only_then() {
    let (topic, database, folder) = (Topic::fresh(), Database::fresh(15), tempfile::tempdir().unwrap());
    let mut backup = pgstow();
    backup
        .args(["backup", "--json", "--store"])
        .arg(folder.path())
        .current_dir(folder.path());
    let made = succeed(backup.env("DATABASE_URL", database.url())).json();
    let good = verify(&topic.arn, folder.path(), &["latest", "--drill"]);
    assert_eq!(good.status.code(), Some(0), "{}", good.stderr);
    assert!(topic.messages().is_empty());

    let id = made["id"].as_str().unwrap();
    let globals = folder.path().join(id).join("globals.sql");
    let mut sql = std::fs::read(&globals).unwrap();
    sql[0] ^= 1;
    std::fs::write(&globals, sql).unwrap();
    let never = format!("{}/20200101T000000Z-full", database.name);
    for (args, word, code, exit) in [
        (&["latest"][..], "verify", "INTEGRITY", 40),
        (&["latest", "--drill"], "drill", "INTEGRITY", 40),
        (&["--all"], "verify", "INTEGRITY", 40),
        (&[never.as_str()], "verify", "NOT_FOUND", 42),
        (&[never.as_str(), "--drill"], "drill", "NOT_FOUND", 42),
    ] {
        let failed = verify(&topic.arn, folder.path(), args);
        assert_eq!(failed.status.code(), Some(exit), "{args:?}: {}", failed.stderr);
        let messages = topic.messages();
        assert_eq!(messages.len(), 1, "{args:?}: {messages:#?}");
        let message = &messages[0];
        assert_eq!(message.subject, format!("pgstow {} {word} FAILED", database.name));
        let expected = [
            ("code", code),
            ("database", &database.name),
            ("kind", word),
            ("status", "failed"),
        ];
        let attributes = message.attributes.iter().map(|(name, value)| (&**name, &**value));
        assert!(attributes.eq(expected), "{:#?}", message.attributes);
        let (summary, told) = message.body.split_once("\n\n").unwrap();
        assert!(summary.starts_with(&format!("error[{code}]: ")), "{summary}");
        assert_eq!(serde_json::from_str::<Value>(told).unwrap(), failed.json());
    }
}

#[test]
fn a_topic_that_is_gone_does_not_change_how_a_verification_ends() {
    let topic = "arn:aws:sns:us-east-1:123456789012:nowhere";
    let folder = tempfile::tempdir().unwrap();
    let failed = verify(topic, folder.path(), &["latest"]);
    assert_eq!(failed.status.code(), Some(42), "{}", failed.stderr);
    assert!(failed.stderr.contains(topic), "{}", failed.stderr);
}
