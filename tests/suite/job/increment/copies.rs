//! Increments in S3, with a copy in another bucket.

use std::process::Command;

use serde_json::Value;

use crate::support::bucket::Bucket;
use crate::support::database::Database;
use crate::support::program::{pgstow, succeed};
use crate::support::server::OwnServer;
use crate::support::services::cloud;

struct Twice {
    database: Database,
    primary: Bucket,
    copy: Bucket,
    server: OwnServer,
}

impl Twice {
    async fn fresh() -> Self {
        let server = OwnServer::start(18);
        Self {
            database: server.database("shop"),
            primary: Bucket::fresh().await,
            copy: Bucket::fresh().await,
            server,
        }
    }

    fn pgstow(&self, stores: &[&Bucket], arguments: &[&str]) -> Command {
        let mut command = pgstow();
        let urls: Vec<String> = stores.iter().map(|bucket| bucket.url("pg")).collect();
        cloud(&mut command)
            .args(arguments)
            .arg("--json")
            .env("BACKUP_STORE", urls.join(" "))
            .env("DATABASE_URL", self.database.url());
        command
    }

    fn both(&self, arguments: &[&str]) -> Value {
        succeed(&mut self.pgstow(&[&self.primary, &self.copy], arguments)).json()
    }
}

#[tokio::test]
async fn a_copy_has_the_same_chain_and_is_restored_alone() {
    let twice = Twice::fresh().await;
    twice.database.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    twice.both(&["incremental", "start", "--accept-unbounded-wal"]);
    for id in 1..=2 {
        twice.database.sql(&format!("INSERT INTO orders VALUES ({id})"));
        twice.both(&["backup", "--kind", "incremental"]);
    }
    twice.both(&["backup"]);
    twice.database.sql("INSERT INTO orders VALUES (3)");
    let last = twice.both(&["backup", "--kind", "incremental"]);
    assert_eq!(last["stores"].as_array().unwrap().len(), 2, "{last}");
    let finished = |keys: &[String]| -> Vec<String> {
        let data = keys
            .iter()
            .filter(|key| !key.contains("/.lease") && !key.contains("/verification"));
        data.cloned().collect()
    };
    let keys = finished(&twice.primary.keys().await);
    assert_eq!(finished(&twice.copy.keys().await), keys);
    for bucket in [&twice.primary, &twice.copy] {
        for key in keys.iter().filter(|key| key.contains("-incr/")) {
            let tags = bucket.tags(key).await;
            assert_eq!(tags.get("pgstow-tier").map(String::as_str), Some("latest"), "{key}");
            let is_of_manifest = key.contains("/manifest.json");
            assert!(is_of_manifest || tags.contains_key("sha256"), "{key}: {tags:?}");
        }
    }
    let rules = twice.both(&["retention", "show"]).to_string();
    assert!(rules.contains("increment"), "{rules}");

    // The primary is gone.
    let target = twice.server.database("target");
    let mut restore = twice.pgstow(
        &[&twice.copy],
        &[
            "restore",
            "latest",
            "--to-lsn",
            last["increment"]["to"].as_str().unwrap(),
        ],
    );
    succeed(restore.env("BACKUP_TARGET_URL", target.url()));
    assert_eq!(target.sql("SELECT count(*) FROM orders"), "3");
    let verified = succeed(&mut twice.pgstow(&[&twice.copy], &["verify", "latest", "--chain"])).json();
    assert_eq!(verified["chain"]["equal"], 1, "{verified}");
    twice.both(&["incremental", "stop"]);
}

#[tokio::test]
async fn a_copy_that_missed_an_increment_says_so_and_the_primary_goes_on() {
    let twice = Twice::fresh().await;
    twice.database.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    twice.both(&["incremental", "start", "--accept-unbounded-wal"]);
    twice.database.sql("INSERT INTO orders VALUES (1)");
    twice.both(&["backup", "--kind", "incremental"]);
    // The copy cannot be reached once.
    twice.database.sql("INSERT INTO orders VALUES (2)");
    succeed(&mut twice.pgstow(&[&twice.primary], &["backup", "--kind", "incremental"]));
    twice.database.sql("INSERT INTO orders VALUES (3)");
    let third = twice.both(&["backup", "--kind", "incremental"]);
    assert_eq!(third["kind"], "incremental", "{third}");
    let of = |bucket: &Bucket| succeed(&mut twice.pgstow(&[bucket], &["list"])).json();
    assert_eq!(of(&twice.primary)["chains"].as_array().unwrap().len(), 1);
    let copy = of(&twice.copy);
    let chains = copy["chains"].as_array().unwrap();
    assert!(
        chains.len() == 2 && chains.iter().any(|chain| chain["gap"].is_string()),
        "{copy}"
    );
    // Moments before the hole can be had from it, and those behind it cannot.
    let target = twice.server.database("target");
    let to = third["increment"]["to"].as_str().unwrap();
    let mut restore = twice.pgstow(&[&twice.copy], &["restore", "latest", "--to-lsn", to]);
    let refused = crate::support::program::run(restore.env("BACKUP_TARGET_URL", target.url()));
    assert_eq!(refused.status.code(), Some(45), "{}", refused.stderr);
    twice.both(&["incremental", "stop"]);
}
