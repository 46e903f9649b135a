//! Restores: planned, confirmed, carried out once, and refused in all other cases.

use serde_json::{Value, json};

use super::{ADMIN, JWT_KEY, OPERATOR, Serving, VIEWER, shop, signed};
use crate::support::database::Database;

fn plan(serving: &Serving) -> Value {
    let planned = serving.ask(ADMIN, "POST", "/api/v1/restore-plans", r#"{"backup":"latest"}"#);
    assert_eq!(planned.status, 201, "{}", planned.body);
    planned.json()
}

fn confirm(serving: &Serving, token: &str, plan: &Value, text: &Value) -> (u16, Value) {
    let body = json!({"action": "restore", "plan": plan, "confirm": text});
    let answer = serving.ask(token, "POST", "/api/v1/runs", &body.to_string());
    (answer.status, answer.json())
}

fn tables(database: &Database) -> String {
    database.sql("SELECT string_agg(relname, ',') FROM pg_class WHERE relnamespace = 'public'::regnamespace")
}

#[test]
fn a_restore_begins_with_its_plan_the_name_of_its_target_and_an_admin_only() {
    let database = shop();
    let target = Database::fresh(17);
    let serving = Serving::with(&database, |command| {
        command.env("BACKUP_TARGET_URL", target.url());
    });
    let backup = serving.run(r#"{"action":"backup"}"#)["backup"].clone();
    let targets = serving.get("/api/v1/targets");
    assert_eq!(targets["targets"][0]["database"], target.name.as_str());
    assert!(!targets.to_string().contains("postgres://"), "{targets}");
    for token in [VIEWER, OPERATOR] {
        let refused = serving.ask(token, "POST", "/api/v1/restore-plans", r#"{"backup":"latest"}"#);
        assert_eq!(refused.status, 403);
    }
    let planned = plan(&serving);
    assert_eq!(planned["confirm"], target.name.as_str());
    assert_eq!(
        (planned["report"]["id"].clone(), planned["report"]["status"].as_str()),
        (backup.clone(), Some("planned"))
    );
    assert!(!planned["report"]["steps"].as_array().unwrap().is_empty(), "{planned}");
    let (id, name) = (&planned["id"], json!(target.name));
    assert_eq!(confirm(&serving, OPERATOR, id, &name).0, 403);
    assert_eq!(confirm(&serving, ADMIN, id, &json!("another")).0, 400);
    assert_eq!(confirm(&serving, ADMIN, id, &Value::Null).0, 400);
    assert_eq!(confirm(&serving, ADMIN, &json!("0".repeat(32)), &name).0, 404);
    assert_eq!(confirm(&serving, ADMIN, &Value::Null, &name).0, 400);
    assert_eq!(tables(&target).trim(), "", "nothing was changed yet");
    let (status, run) = confirm(&serving, ADMIN, id, &name);
    assert_eq!((status, run["target"].clone()), (202, name.clone()), "{run}");
    let run = serving.ended(run["id"].as_str().unwrap());
    assert_eq!(
        (run["state"].as_str(), run["backup"].clone()),
        (Some("succeeded"), backup),
        "{run}"
    );
    assert_eq!(target.sql("SELECT count(*) FROM orders").trim(), "1000");
    assert_eq!(
        confirm(&serving, ADMIN, id, &name).0,
        404,
        "a plan is good for one restore"
    );
    let audit = serving.ask(ADMIN, "GET", "/api/v1/audit", "").body;
    assert!(
        audit.contains("\"outcome\":\"refused: NOT_FOUND\"") && !audit.contains("\"outcome\":\"allowed\""),
        "{audit}"
    );
    assert!(
        audit.contains("\"action\":\"restore\"") && audit.contains("\"by\":\"token:the admin\""),
        "{audit}"
    );
}

#[test]
fn a_plan_is_of_the_backup_as_it_was_read() {
    let database = shop();
    let target = Database::fresh(17);
    let serving = Serving::with(&database, |command| {
        command.env("BACKUP_TARGET_URL", target.url());
    });
    serving.run(r#"{"action":"backup"}"#);
    let planned = plan(&serving);
    let manifest = super::walk(&serving.store())
        .into_iter()
        .find(|path| path.ends_with("manifest.json"))
        .unwrap();
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, format!("{text} ")).unwrap();
    let (status, run) = confirm(&serving, ADMIN, &planned["id"], &planned["confirm"]);
    assert_eq!(status, 202, "{run}");
    let run = serving.ended(run["id"].as_str().unwrap());
    assert_eq!(run["state"], "failed", "{run}");
    assert_eq!(tables(&target).trim(), "");
}

#[test]
fn a_plan_is_of_the_one_who_asked_for_it_whatever_others_call_themselves() {
    let database = shop();
    let target = Database::fresh(17);
    let serving = Serving::with(&database, |command| {
        command
            .env("BACKUP_TARGET_URL", target.url())
            .env("BACKUP_JWT_SECRET", JWT_KEY);
    });
    serving.run(r#"{"action":"backup"}"#);
    let planned = plan(&serving);
    let other = signed(r#"{"sub":"the admin","role":"admin","exp":4000000000}"#);
    let me = serving.ask(&other, "GET", "/api/v1/me", "").json();
    assert_eq!(
        (me["name"].as_str(), me["identity"].as_str()),
        (Some("the admin"), Some("jwt:the admin"))
    );
    assert_eq!(confirm(&serving, &other, &planned["id"], &planned["confirm"]).0, 404);
    let nameless = signed(r#"{"role":"admin","exp":4000000000}"#);
    let refused = serving.ask(&nameless, "POST", "/api/v1/restore-plans", r#"{"backup":"latest"}"#);
    assert_eq!(refused.status, 403, "{}", refused.body);
    assert_eq!(confirm(&serving, &nameless, &planned["id"], &planned["confirm"]).0, 403);
    assert_eq!(tables(&target).trim(), "");
}

#[test]
fn clients_of_the_older_systems_restore_only_where_the_settings_allow_it() {
    let database = shop();
    let target = Database::fresh(17);
    let serving = Serving::with(&database, |command| {
        command.env("BACKUP_TARGET_URL", target.url());
    });
    serving.run(r#"{"action":"backup"}"#);
    let name = serving.get("/api/backup/list")[0]["filename"].clone();
    let path = "/api/admin/system/backups/restore";
    let ask = |serving: &Serving, token: &str, body: &Value| serving.ask(token, "POST", path, &body.to_string());
    let body = json!({"backupPath": name, "includeLogs": false});
    assert_eq!(ask(&serving, OPERATOR, &body).status, 403);
    let refused = ask(&serving, ADMIN, &body);
    assert_eq!(
        (refused.status, refused.json()["success"].as_bool()),
        (403, Some(false))
    );
    let (place, _) = serving.end();
    let serving = Serving::at(place, &database, |command| {
        command
            .env("BACKUP_TARGET_URL", target.url())
            .env("BACKUP_ALLOW_RESTORE", "true");
    });
    assert_eq!(
        ask(&serving, ADMIN, &json!({"backupPath": "../../etc/passwd"})).status,
        404
    );
    assert_eq!(
        ask(&serving, ADMIN, &json!({"backupPath": name, "confirm": "another"})).status,
        400
    );
    let begun = ask(&serving, ADMIN, &body);
    assert_eq!(
        (begun.status, begun.json()["success"].as_bool()),
        (202, Some(true)),
        "{}",
        begun.body
    );
    let run = serving.ended(begun.json()["runId"].as_str().unwrap());
    assert_eq!(run["state"], "succeeded", "{run}");
    target.sql("DELETE FROM orders");
    let replaced = json!({"backupPath": format!("/backups/{}", name.as_str().unwrap()), "confirm": target.name});
    let begun = ask(&serving, ADMIN, &replaced);
    assert_eq!(begun.status, 202, "{}", begun.body);
    assert_eq!(
        serving.ended(begun.json()["runId"].as_str().unwrap())["state"],
        "succeeded"
    );
    assert_eq!(target.sql("SELECT count(*) FROM orders").trim(), "1000");
}
