//! What fails, by the code in `errorType`; who is told; and what is left.

use std::net::TcpListener;

use serde_json::{Value, json};

use super::place::{Place, failed, read, succeeded};
use crate::support::function::Function;
use crate::support::moto::{rotate, secret};
use crate::support::role::Role;
use crate::support::secrets_proxy::SecretsProxy;

/// The failure is told alike by the answer, the message, the log; and leaves nothing.
async fn is_told_and_leaves_nothing(
    place: &Place,
    function: &Function,
    answer: &Value,
    code: &str,
    database: Option<&str>,
) -> String {
    let told = failed(answer, code);
    let message = place.message();
    let named = database.map_or(String::new(), |name| format!("{name} "));
    assert_eq!(message.subject, format!("pgstow {named}backup FAILED"));
    let attribute = |name: &str| message.attributes.get(name).map(String::as_str);
    assert_eq!(attribute("status"), Some("failed"));
    assert_eq!(attribute("code"), Some(code));
    assert_eq!(attribute("kind"), Some("full"));
    assert_eq!(attribute("database"), database);
    let (summary, report) = read(&message);
    assert!(summary.starts_with(&format!("error[{code}]: ")), "{summary}");
    assert!(summary.contains("\nhint: "), "{summary}");
    assert_eq!(
        (&report["status"], &report["error"]["code"]),
        (&json!("failed"), &json!(code))
    );
    let (what, hint) = (&report["error"]["message"], &report["error"]["hint"]);
    assert_eq!(
        told,
        format!("{}; hint: {}", what.as_str().unwrap(), hint.as_str().unwrap())
    );

    let (request, lines) = (function.request_ids().pop().unwrap(), function.lines());
    let line = lines.iter().find(|line| line["code"] == code);
    let line = line.unwrap_or_else(|| panic!("no line with {code} in {lines:#?}"));
    assert_eq!((&line["level"], &line["message"]), (&json!("ERROR"), what));
    assert_eq!(line["request_id"], request);

    if code != "STORE" {
        place.assert_nothing_is_left().await;
    }
    assert_eq!(function.children(), [""; 0]);
    assert_eq!(function.temporary_files(), [""; 0]);
    told
}

#[tokio::test]
async fn a_missing_secret_is_secret() {
    let place = Place::fresh().await;
    let function = place.function_with(|command| {
        command.env("BACKUP_SECRET_ID", "pgstow/nowhere");
    });
    let answer = function.invoke(&json!({}));
    let told = is_told_and_leaves_nothing(&place, &function, &answer, "SECRET", None).await;
    assert!(told.contains("pgstow/nowhere"), "{told}");
}

#[tokio::test]
async fn a_secret_without_a_password_is_secret_and_the_database_that_it_names_is_told() {
    let place = Place::fresh().await;
    let mut unfit = place.secret();
    unfit.as_object_mut().unwrap().remove("password");
    let id = secret(&unfit.to_string());
    let function = place.function_with(|command| {
        command.env("BACKUP_SECRET_ID", &id);
    });
    let answer = function.invoke(&json!({}));
    let database = place.database.name.as_str();
    let told = is_told_and_leaves_nothing(&place, &function, &answer, "SECRET", Some(database)).await;
    assert!(told.contains("`password`"), "{told}");
    // Repaired, it is read anew by the same process.
    rotate(&id, &place.secret().to_string());
    succeeded(&function.invoke(&json!({})));
    assert_eq!(function.starts(), 1);
}

#[tokio::test]
async fn a_password_that_stays_wrong_is_auth_after_the_secret_was_read_twice() {
    let place = Place::fresh().await;
    let id = secret(&place.secret_of("postgres", "not it").to_string());
    let proxy = SecretsProxy::start(|_| {});
    let function = place.function_with(|command| {
        command
            .env("BACKUP_SECRET_ID", id)
            .env("AWS_ENDPOINT_URL_SECRETS_MANAGER", &proxy.endpoint);
    });
    let answer = function.invoke(&json!({}));
    let database = place.database.name.as_str();
    let told = is_told_and_leaves_nothing(&place, &function, &answer, "AUTH", Some(database)).await;
    assert!(!told.contains("not it"), "{told}");
    assert_eq!(proxy.readings(), 2);
}

#[tokio::test]
async fn a_secret_that_rotates_between_reading_and_login_is_read_again() {
    let place = Place::fresh().await;
    let role = Role::reader(&place.database, "old");
    let id = secret(&place.secret_of(&role.name, "old").to_string());
    // The database changes before the secret does, and the run comes in between.
    role.change_password("new");
    let proxy = SecretsProxy::start({
        let (id, rotated) = (id.clone(), place.secret_of(&role.name, "new").to_string());
        move |reading| {
            if reading == 1 {
                rotate(&id, &rotated);
            }
        }
    });
    let function = place.function_with(|command| {
        command
            .env("BACKUP_SECRET_ID", id)
            .env("AWS_ENDPOINT_URL_SECRETS_MANAGER", &proxy.endpoint);
    });
    let made = succeeded(&function.invoke(&json!({})));
    assert_eq!(place.backups().await, [made]);
    // Twice for the first login; then once each for pg_dumpall, for who holds the tables, and for pg_dump.
    assert_eq!(proxy.readings(), 5);
}

#[tokio::test]
async fn a_secret_that_rotates_between_two_events_is_read_anew() {
    let place = Place::fresh().await;
    let role = Role::reader(&place.database, "old");
    let id = secret(&place.secret_of(&role.name, "old").to_string());
    let function = place.function_with(|command| {
        command.env("BACKUP_SECRET_ID", &id);
    });
    succeeded(&function.invoke(&json!({})));
    role.change_password("new");
    rotate(&id, &place.secret_of(&role.name, "new").to_string());
    succeeded(&function.invoke(&json!({})));
    assert_eq!((place.backups().await.len(), function.starts()), (2, 1));
}

#[tokio::test]
async fn a_database_that_is_down_is_conn_err() {
    let place = Place::fresh().await;
    let mut down = place.secret();
    // The port was bound once, and no longer listens: no server answers there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    down["port"] = json!(port);
    let id = secret(&down.to_string());
    let function = place.function_with(|command| {
        command.env("BACKUP_SECRET_ID", id);
    });
    let answer = function.invoke(&json!({}));
    let database = place.database.name.as_str();
    let told = is_told_and_leaves_nothing(&place, &function, &answer, "CONN_ERR", Some(database)).await;
    assert!(told.contains(&port.to_string()), "{told}");
}

#[tokio::test]
async fn a_missing_bucket_is_store_and_the_next_event_finds_it_made() {
    let place = Place::fresh().await;
    let bucket = &place.bucket;
    bucket.client.delete_bucket().bucket(&bucket.name).send().await.unwrap();
    let function = place.function();
    let answer = function.invoke(&json!({}));
    let database = place.database.name.as_str();
    let told = is_told_and_leaves_nothing(&place, &function, &answer, "STORE", Some(database)).await;
    assert!(told.contains(&bucket.name), "{told}");
    bucket.client.create_bucket().bucket(&bucket.name).send().await.unwrap();
    succeeded(&function.invoke(&json!({})));
    assert_eq!(function.starts(), 1);
}

#[tokio::test]
async fn wrong_settings_are_told_to_every_event_by_one_process() {
    let place = Place::fresh().await;
    let function = place.function_with(|command| {
        command
            .env("DATABASE_URL", place.database.url())
            .env("BACKUP_RETENTION", "soon")
            .env("BACKUP_FORMAT", "tar");
    });
    for _ in 0..3 {
        let told = failed(&function.invoke(&json!({})), "CONFIG");
        assert!(
            told.contains("BACKUP_RETENTION") && told.contains("BACKUP_FORMAT"),
            "{told}"
        );
    }
    assert_eq!(function.starts(), 1);
    for request in function.request_ids() {
        let lines = function.lines();
        let line = lines.iter().find(|line| line["request_id"] == *request).unwrap();
        assert_eq!((&line["level"], &line["code"]), (&json!("ERROR"), &json!("CONFIG")));
    }
    assert!(!function.log().contains(&place.database.password()));
    place.assert_nothing_is_left().await;
}

#[tokio::test]
async fn without_a_database_in_the_settings_every_event_is_config() {
    let place = Place::fresh().await;
    let function = place.function_with(|_| {});
    let answer = function.invoke(&json!({}));
    assert!(failed(&answer, "CONFIG").contains("BACKUP_SECRET_ID"), "{answer}");
}

#[tokio::test]
async fn a_missing_topic_does_not_spoil_the_backup_and_is_reported() {
    let place = Place::fresh().await;
    let id = secret(&place.secret().to_string());
    let topic = "arn:aws:sns:us-east-1:123456789012:nowhere";
    let function = place.function_with(|command| {
        command.env("BACKUP_SECRET_ID", id).env("BACKUP_SNS_TOPIC_ARN", topic);
    });
    let answer = function.invoke(&json!({}));
    assert_eq!(place.backups().await, [succeeded(&answer)]);
    assert_eq!(answer["notification"]["sent"], false);
    let why = answer["notification"]["error"].as_str().unwrap();
    assert!(why.contains(topic), "{why}");
    let lines = function.lines();
    let warned = lines.iter().find(|line| line["level"] == "WARN").unwrap();
    assert!(
        warned["message"]
            .as_str()
            .unwrap()
            .contains("notification was not sent")
    );
    assert_eq!(warned["request_id"], function.request_ids()[0]);
}

#[tokio::test]
async fn a_missing_topic_is_told_after_the_failure_that_it_should_have_told() {
    let place = Place::fresh().await;
    let topic = "arn:aws:sns:us-east-1:123456789012:nowhere";
    let function = place.function_with(|command| {
        command
            .env("BACKUP_SECRET_ID", "pgstow/nowhere")
            .env("BACKUP_SNS_TOPIC_ARN", topic);
    });
    let told = failed(&function.invoke(&json!({})), "SECRET");
    assert!(told.contains("pgstow/nowhere") && told.contains(topic), "{told}");
}

#[tokio::test]
async fn a_function_without_its_layer_is_told_which_one_and_so_is_its_doctor() {
    let place = Place::fresh().await;
    let (id, empty) = (secret(&place.secret().to_string()), tempfile::tempdir().unwrap());
    let function = place.function_with(|command| {
        command.env("BACKUP_SECRET_ID", id).env("BACKUP_PG_BIN", empty.path());
    });
    let answer = function.invoke(&json!({}));
    let database = place.database.name.as_str();
    let told = is_told_and_leaves_nothing(&place, &function, &answer, "PG_DUMP_ERR", Some(database)).await;
    assert!(told.contains("pg_dump is missing") && told.contains("layer"), "{told}");

    let found = function.invoke(&json!({"action": "doctor"}));
    assert_eq!(found["status"], "failed", "{found:#}");
    let checks = found["checks"].as_array().unwrap();
    let programs = checks.iter().find(|check| check["state"] == "failed").unwrap();
    assert!(programs["hint"].as_str().unwrap().contains("layer"), "{programs}");
    assert!(!found.to_string().contains(&place.database.password()));
}

#[tokio::test]
async fn a_function_with_too_little_memory_says_so_before_it_begins() {
    let place = Place::fresh().await;
    let id = secret(&place.secret().to_string());
    let function = place.function_with(|command| {
        command
            .env("BACKUP_SECRET_ID", id)
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128");
    });
    let told = failed(&function.invoke(&json!({})), "CONFIG");
    assert!(told.contains("128 MB") && told.contains("MemorySize"), "{told}");
}
