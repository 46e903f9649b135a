//! What a function needs around it: a database, a bucket, a topic with its queue.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::bucket::Bucket;
use crate::support::database::Database;
use crate::support::function::Function;
use crate::support::moto::{Cluster, Message, Topic};
use crate::support::program::pgstow;
use crate::support::services::cloud;

/// Lambda's timeout, where a test is not about it.
pub const AMPLE: Duration = Duration::from_secs(120);

pub struct Place {
    pub database: Database,
    pub bucket: Bucket,
    pub topic: Topic,
}

impl Place {
    pub async fn fresh() -> Self {
        let database = Database::fresh(15);
        database.sql(
            "CREATE TABLE orders AS SELECT id, md5(id::text) AS note FROM generate_series(1, 1000) AS id;
             CREATE TABLE \"odd name\" (id int)",
        );
        Self::around(database).await
    }

    pub async fn around(database: Database) -> Self {
        Self {
            database,
            bucket: Bucket::fresh().await,
            topic: Topic::fresh(),
        }
    }

    /// The superuser's secret, as RDS writes it.
    pub fn secret(&self) -> Value {
        self.secret_of("postgres", &self.database.password())
    }

    pub fn secret_of(&self, user: &str, password: &str) -> Value {
        let (host, port) = self.database.address();
        json!({
            "engine": "postgres", "host": host, "port": port, "username": user, "password": password,
            "dbname": self.database.name, "dbInstanceIdentifier": "shop-1",
        })
    }

    /// Everything but the database's credentials.
    pub fn configure(&self, command: &mut Command) {
        cloud(command)
            .env("BACKUP_STORE", self.bucket.url("nightly"))
            .env("BACKUP_SNS_TOPIC_ARN", &self.topic.arn);
    }

    /// A function that is ready for its first event, with the superuser's secret.
    pub fn function(&self) -> Function {
        let secret = crate::support::moto::secret(&self.secret().to_string());
        self.function_with(|command| {
            command.env("BACKUP_SECRET_ID", secret);
        })
    }

    /// With another timeout of Lambda's, and with tasks to which it may hand over, if there is a cluster.
    pub fn function_within(
        &self,
        timeout: Duration,
        cluster: Option<&Cluster>,
        configure: impl FnOnce(&mut Command),
    ) -> Function {
        Function::start(timeout, |command| {
            self.configure(command);
            configure(command);
            if let Some(cluster) = cluster {
                command
                    .env("BACKUP_HANDOVER", "ecs")
                    .env("BACKUP_ECS_CLUSTER", &cluster.name)
                    .env("BACKUP_ECS_TASK_DEFINITION", &cluster.family)
                    .env("BACKUP_ECS_SUBNETS", &cluster.subnet)
                    .env("BACKUP_ECS_SECURITY_GROUPS", &cluster.security_group);
            }
        })
    }

    /// With other settings than that secret.
    pub fn function_with(&self, configure: impl FnOnce(&mut Command)) -> Function {
        self.function_within(AMPLE, None, configure)
    }

    /// The command line, with the same settings as the function.
    pub fn command_line(&self) -> Command {
        let mut command = pgstow();
        self.configure(&mut command);
        command.env("DATABASE_URL", self.database.url());
        command
    }

    /// The ids of the backups that exist, oldest first.
    pub async fn backups(&self) -> Vec<String> {
        let keys = self.bucket.keys().await;
        let ids = keys.iter().filter_map(|key| {
            let id = key.strip_suffix("/manifest.json")?;
            Some(id.strip_prefix("nightly/").unwrap().to_owned())
        });
        ids.collect()
    }

    pub async fn manifest(&self, id: &str) -> Value {
        let bytes = self.bucket.get(&format!("nightly/{id}/manifest.json")).await;
        serde_json::from_slice(&bytes).unwrap()
    }

    pub fn lease_key(&self) -> String {
        format!("nightly/{}/.lease", self.database.name)
    }

    /// Nothing visible, nothing half done, and the next run need not wait.
    pub async fn assert_nothing_is_left(&self) {
        assert_eq!(self.bucket.uploads().await, [""; 0]);
        let keys = self.bucket.keys().await;
        assert!(keys.iter().all(|key| *key == self.lease_key()), "{keys:?}");
        if !keys.is_empty() {
            let lease: Value = serde_json::from_slice(&self.bucket.get(&self.lease_key()).await).unwrap();
            assert_eq!(lease["released"], true, "{lease}");
        }
    }

    /// The one message that there is.
    pub fn message(&self) -> Message {
        let mut messages = self.topic.messages();
        assert_eq!(messages.len(), 1, "{messages:#?}");
        messages.remove(0)
    }
}

/// What a message's text holds: the summary for people, the report for programs.
pub fn read(message: &Message) -> (String, Value) {
    let (summary, report) = message.body.split_once("\n\n").unwrap();
    (summary.to_owned(), serde_json::from_str(report).unwrap())
}

/// Waits for what another process does.
pub async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asserts that an answer is a function error of this code; gives its message.
#[track_caller]
pub fn failed(answer: &Value, code: &str) -> String {
    assert_eq!(answer["errorType"], code, "{answer:#}");
    answer["errorMessage"].as_str().unwrap().to_owned()
}

/// Asserts that a backup was made; gives its id.
#[track_caller]
pub fn succeeded(answer: &Value) -> String {
    assert_eq!(answer["status"], "succeeded", "{answer:#}");
    answer["id"].as_str().unwrap().to_owned()
}

/// What ECS was told to run in the task that an answer names.
#[track_caller]
pub fn handed_over(answer: &Value, cluster: &Cluster) -> Vec<String> {
    assert_eq!(answer["status"], "handed_over", "{answer:#}");
    assert_eq!(answer["cluster"], *cluster.name);
    let tasks = cluster.tasks();
    assert_eq!(tasks.len(), 1, "{tasks:#?}");
    assert_eq!(tasks[0]["taskArn"], answer["task"]);
    assert_eq!(
        (&tasks[0]["launchType"], &tasks[0]["startedBy"]),
        (&json!("FARGATE"), &json!("pgstow"))
    );
    let container = &tasks[0]["overrides"]["containerOverrides"][0];
    assert_eq!(container["name"], "pgstow");
    let words = container["command"].as_array().unwrap().iter();
    words.map(|word| word.as_str().unwrap().to_owned()).collect()
}
