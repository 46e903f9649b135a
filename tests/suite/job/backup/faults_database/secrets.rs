use std::process::Command;

use serde_json::json;

use crate::support::database::Database;
use crate::support::locked_cloud::LockedCloud;
use crate::support::moto;
use crate::support::services::cloud;
use crate::support::wreck::{Failure, Site, fail, report};

fn with_secret(site: &Site, id: &str) -> Command {
    let mut command = site.backup("");
    command.env_remove("DATABASE_URL").env("BACKUP_SECRET_ID", id);
    cloud(&mut command);
    command
}

fn refused(site: &Site, id: &str) -> Failure {
    let failure = fail(&mut with_secret(site, id), "SECRET", 12);
    assert!(failure.message.contains(id), "{}", failure.message);
    site.assert_nothing_is_left();
    assert!(!site.store().exists());
    failure
}

#[test]
fn a_secret_that_is_not_there_is_named() {
    let site = Site::new();
    let failure = refused(&site, "no-such-secret");
    assert!(failure.message.contains("no such secret"), "{}", failure.message);
}

#[test]
fn a_secret_that_is_neither_json_nor_a_url_is_not_quoted() {
    let site = Site::new();
    for value in [
        "hunter2 and more",
        "{\"password\": \"hunter2",
        "[\"hunter2\"]",
        "  ",
        "postgres://u:hunter2@[/d",
    ] {
        let failure = refused(&site, &moto::secret(value));
        assert!(!failure.stderr.contains("hunter2"), "{}", failure.stderr);
    }
}

#[test]
fn a_secret_without_one_of_its_fields_names_it() {
    let site = Site::new();
    let whole = json!({"host": "127.0.0.1", "port": 5432, "username": "u", "password": "hunter2", "dbname": "d"});
    for field in ["host", "username", "password", "dbname"] {
        let mut secret = whole.clone();
        secret.as_object_mut().unwrap().remove(field);
        let failure = refused(&site, &moto::secret(&secret.to_string()));
        assert!(failure.message.contains(&format!("`{field}`")), "{}", failure.message);
        assert!(!failure.stderr.contains("hunter2"), "{}", failure.stderr);
    }
}

#[test]
fn a_secret_that_the_task_may_not_read_says_which_permission_it_needs() {
    let (site, cloud) = (Site::new(), LockedCloud::start("guarded", "postgres://u:hunter2@h/d"));
    let mut command = with_secret(&site, "guarded");
    let failure = fail(cloud.as_nobody(&mut command), "SECRET", 12);
    assert!(failure.message.contains("denied"), "{}", failure.message);
    assert!(
        failure
            .hint
            .contains(r#""Action": "secretsmanager:GetSecretValue", "Resource": "guarded"}"#),
        "{}",
        failure.hint
    );
    command.env("AWS_SECRET_ACCESS_KEY", "not the key");
    fail(&mut command, "SECRET", 12);
    site.assert_nothing_is_left();
}

#[test]
fn a_secrets_manager_that_is_not_there_is_secret_and_does_not_take_long() {
    let site = Site::new();
    let mut command = with_secret(&site, "any");
    command.env("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:1");
    fail(&mut command, "SECRET", 12);
    site.assert_nothing_is_left();
}

#[test]
fn a_secret_with_a_wrong_password_is_auth_and_works_once_it_is_mended() {
    let (site, database) = (Site::new(), Database::fresh(15));
    let (host, port) = database.address();
    let secret = |password: &str| {
        json!({"host": host, "port": port, "username": "postgres", "password": password, "dbname": database.name})
            .to_string()
    };
    let id = moto::secret(&secret("hunter2"));
    let failure = fail(&mut with_secret(&site, &id), "AUTH", 11);
    assert!(!failure.stderr.contains("hunter2"), "{}", failure.stderr);
    site.assert_nothing_is_left_of(&database);
    moto::rotate(&id, &secret(&database.password()));
    report(&mut with_secret(&site, &id));
}
