use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_secretsmanager::config::{BehaviorVersion, Credentials as Keys, Region};
use aws_sdk_secretsmanager::primitives::Blob;
use aws_sdk_secretsmanager::{Client, Config};
use pgstow::error::Code;
use pgstow::outside::secrets::{Credentials, SecretSource};
use pgstow::postgres::ConnectionInfo;
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::postgres::place::{database, role, settings, variable};

fn client(endpoint: &str) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Keys::new("test", "test", None, None, "test"))
        .endpoint_url(endpoint)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(aws_sdk_secretsmanager::config::retry::RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

/// A new secret in moto; its name is unique to this run.
async fn stored(client: &Client, value: Result<&str, &[u8]>) -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let name = format!("layer/{}-{}-{number}", std::process::id(), time.as_nanos());
    let create = client.create_secret().name(&name);
    match value {
        Ok(text) => create.secret_string(text),
        Err(bytes) => create.secret_binary(Blob::new(bytes)),
    }
    .send()
    .await
    .unwrap();
    name
}

#[tokio::test]
async fn secrets_of_every_form_are_fetched_and_overridden() {
    let client = client(&variable("PGSTOW_TEST_AWS_ENDPOINT"));
    let overrides = ConnectionInfo::parse_url("sslmode=require").unwrap();
    let forms: [Result<&str, &[u8]>; 4] = [
        Ok(r#"{"username":"u","password":"a'\"@:/?#%\\ü","host":"h","port":5433,"dbname":"d","engine":"postgres"}"#),
        Ok(r#"{"user":"u","password":"a'\"@:/?#%\\ü","host":"h","port":"5433","database":"d"}"#),
        Ok("postgresql://u:a'%22%40%3A%2F%3F%23%25%5C%C3%BC@h:5433/d?sslmode=disable"),
        Err(r#"{"username":"u","password":"a'\"@:/?#%\\ü","host":"h","port":5433,"dbname":"d"}"#.as_bytes()),
    ];
    for form in forms {
        let source = SecretSource::new(client.clone(), stored(&client, form).await, overrides.clone());
        let info = source.fetch().await.unwrap();
        assert_eq!(info.target(), "u@h:5433/d");
        assert_eq!(info.password.unwrap().expose_secret(), "a'\"@:/?#%\\ü");
        assert_eq!(info.params["sslmode"], "require");
    }
    // RDS's own secrets hold user and password alone.
    let id = stored(&client, Ok(r#"{"username":"u","password":"p"}"#)).await;
    let overrides = ConnectionInfo::parse_url("host=h dbname=d").unwrap();
    let source = SecretSource::new(client.clone(), id, overrides);
    assert_eq!(source.fetch().await.unwrap().target(), "u@h:5432/d");
}

#[tokio::test]
async fn an_unusable_secret_says_why_and_shows_nothing() {
    let client = client(&variable("PGSTOW_TEST_AWS_ENDPOINT"));
    let cases: [(Result<&str, &[u8]>, &str); 5] = [
        (Ok("hunter2"), "neither JSON nor a usable URL"),
        (Ok(r#"{"password":"hunter2""#), "broken"),
        (
            Ok(r#"{"host":"h","username":"u","dbname":"d","pass":"hunter2"}"#),
            "`password`",
        ),
        (Ok(r#"{"password":"hunter2","username":"u","dbname":"d"}"#), "`host`"),
        (Err(b"\xff\xfehunter2"), "not text"),
    ];
    for (value, why) in cases {
        let source = SecretSource::new(client.clone(), stored(&client, value).await, ConnectionInfo::default());
        let error = source.fetch().await.unwrap_err();
        assert_eq!(error.code(), Code::Secret);
        assert!(error.message().contains(why), "{error}");
        let all = format!("{error} {error:?} {} {source:?}", error.hint_text());
        assert!(!all.contains("hunter2"), "{all}");
    }
    let source = SecretSource::new(client.clone(), "no/such/secret", ConnectionInfo::default());
    let error = source.fetch().await.unwrap_err();
    assert_eq!(error.code(), Code::Secret);
    assert!(error.message().contains("no such secret"), "{error}");
}

#[tokio::test]
async fn nobody_at_the_endpoint_is_a_secret_error_too() {
    let source = SecretSource::new(client("http://127.0.0.1:1"), "id", ConnectionInfo::default());
    let error = source.fetch().await.unwrap_err();
    assert_eq!(error.code(), Code::Secret);
    assert!(error.message().contains("does not answer"), "{error}");
}

/// moto cannot change a secret between two reads of one run, nor refuse one caller alone: this
/// endpoint gives scripted answers, the last of them for ever.
async fn scripted(answers: Vec<(u16, String)>) -> (Client, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 65536];
            let _ = stream.read(&mut request).await;
            let number = counter.fetch_add(1, Ordering::SeqCst);
            let (status, body) = &answers[number.min(answers.len() - 1)];
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    (client(&endpoint), asked)
}

#[tokio::test]
async fn denied_access_is_told_apart() {
    let denied = r#"{"__type":"AccessDeniedException","Message":"User: x is not authorized to perform: secretsmanager:GetSecretValue"}"#;
    let (client, _) = scripted(vec![(400, denied.into())]).await;
    let error = SecretSource::new(client, "id", ConnectionInfo::default())
        .fetch()
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Secret);
    assert!(error.message().contains("access is denied"), "{error}");
    assert!(error.hint_text().contains("secretsmanager:GetSecretValue"));
}

fn holding(info: &ConnectionInfo, password: &str) -> (u16, String) {
    let secret = serde_json::json!({
        "host": info.host, "port": info.port, "username": info.user, "password": password, "dbname": info.dbname,
    });
    let answer = serde_json::json!({"Name": "id", "ARN": "arn:x", "SecretString": secret.to_string()});
    (200, answer.to_string())
}

#[tokio::test]
async fn a_refused_login_reads_the_secret_again_once() {
    let info = database(15, "rotating", "").await;
    let info = role(&info, "rotated", "").await;
    let (old, new) = (holding(&info, "before the rotation"), holding(&info, "pw of rotated"));
    let (client, asked) = scripted(vec![old.clone(), new]).await;
    let credentials = Credentials::Secret(SecretSource::new(client, "id", ConnectionInfo::default()));
    let (given, session) = credentials.connect(&settings(15)).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert_eq!(given.password.unwrap().expose_secret(), "pw of rotated");
    assert_eq!(session.server().user, "rotated");

    let (client, asked) = scripted(vec![old]).await;
    let credentials = Credentials::Secret(SecretSource::new(client, "id", ConnectionInfo::default()));
    let error = credentials.connect(&settings(15)).await.err().unwrap();
    assert_eq!(error.code(), Code::Auth);
    assert_eq!(asked.load(Ordering::SeqCst), 2, "once more, and not for ever");
}
