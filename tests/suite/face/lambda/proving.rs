//! Verification, drill and restore by events.

use serde_json::json;

use super::place::{Place, failed, succeeded};
use crate::support::database::Database;
use crate::support::moto::secret;

#[tokio::test]
async fn a_schedule_verifies_and_drills_the_latest_backup() {
    let place = Place::fresh().await;
    let function = place.function();
    let id = succeeded(&function.invoke(&json!({})));
    let answer = function.invoke(&json!({"action": "verify"}));
    assert_eq!(
        (&answer["status"], &answer["id"]),
        (&json!("ok"), &json!(id)),
        "{answer:#}"
    );
    assert_eq!((&answer["tables"], &answer["rows"]), (&json!(2), &json!(1000)));

    let answer = function.invoke(&json!({"action": "verify", "backup": id, "drill": true}));
    assert_eq!(
        (&answer["status"], &answer["drill"]["status"]),
        (&json!("ok"), &json!("ok")),
        "{answer:#}"
    );
    assert_eq!(function.temporary_files(), [""; 0]);
    let list = function.invoke(&json!({"action": "list"}));
    assert_eq!(list["backups"][0]["drilled"]["status"], "ok", "{list:#}");
}

/// As deployed: the function that may read the secret drills nothing, and the one that drills knows no database.
#[tokio::test]
async fn a_drill_belongs_to_a_function_that_knows_nothing_of_the_database() {
    let place = Place::fresh().await;
    let source = secret(&place.secret().to_string());
    let writer = place.function_with(|command| {
        command
            .env("BACKUP_SECRET_ID", source)
            .env("BACKUP_ALLOW_DRILL", "false");
    });
    let id = succeeded(&writer.invoke(&json!({})));
    let event = json!({"action": "verify", "backup": "latest", "drill": true});
    let told = failed(&writer.invoke(&event), "CONFIG");
    assert!(
        told.contains("BACKUP_ALLOW_DRILL") && told.contains("DrillFunction"),
        "{told}"
    );
    let answer = writer.invoke(&json!({"action": "verify"}));
    assert_eq!(answer["status"], "ok", "{answer:#}");

    let drills = place.function_with(|_| {});
    let answer = drills.invoke(&event);
    assert_eq!(
        (&answer["drill"]["status"], &answer["id"]),
        (&json!("ok"), &json!(id)),
        "{answer:#}"
    );
    failed(&drills.invoke(&json!({})), "CONFIG");
}

/// A function that does both has the passwords again for the next backup.
#[tokio::test]
async fn after_a_drill_the_same_function_makes_the_next_backup() {
    let place = Place::fresh().await;
    let function = place.function_with(|command| {
        command.env("DATABASE_URL", place.database.url());
    });
    succeeded(&function.invoke(&json!({})));
    let answer = function.invoke(&json!({"action": "verify", "backup": "latest", "drill": true}));
    assert_eq!(answer["drill"]["status"], "ok", "{answer:#}");
    succeeded(&function.invoke(&json!({})));
    assert_eq!((function.starts(), place.backups().await.len()), (1, 2));
}

#[tokio::test]
async fn a_damaged_backup_is_a_function_error_that_names_the_table() {
    let place = Place::fresh().await;
    let function = place.function();
    let id = succeeded(&function.invoke(&json!({})));
    let key = format!("nightly/{id}/{}.dump", place.database.name);
    let mut dump = place.bucket.get(&key).await;
    let offset = place.manifest(&id).await["tables"][1]["offset"].as_u64().unwrap();
    dump[usize::try_from(offset).unwrap() + 100] ^= 1;
    place.bucket.put(&key, &dump).await;
    let told = failed(&function.invoke(&json!({"action": "verify"})), "INTEGRITY");
    assert!(told.contains("public.orders"), "{told}");
    assert!(function.lines().iter().any(|line| line["code"] == "INTEGRITY"));
}

#[tokio::test]
async fn a_restore_needs_its_switch_and_goes_into_the_settings_target() {
    let place = Place::fresh().await;
    let target = Database::fresh(15);
    let event = json!({"action": "restore", "backup": "latest", "tables": ["public.orders"]});
    let function = place.function();
    succeeded(&function.invoke(&json!({})));
    let told = failed(&function.invoke(&event), "CONFIG");
    assert!(told.contains("BACKUP_ALLOW_RESTORE"), "{told}");

    let mut into = place.secret();
    into["dbname"] = json!(target.name);
    let (source, into) = (secret(&place.secret().to_string()), secret(&into.to_string()));
    let function = place.function_with(|command| {
        command
            .env("BACKUP_SECRET_ID", source)
            .env("BACKUP_TARGET_SECRET_ID", into)
            .env("BACKUP_ALLOW_RESTORE", "true");
    });
    let answer = function.invoke(&event);
    assert_eq!(answer["status"], "restored", "{answer:#}");
    assert_eq!(target.sql("SELECT count(*) FROM orders"), "1000");
    let told = failed(&function.invoke(&event), "RESTORE_ERR");
    assert!(told.contains("orders"), "{told}");
}
