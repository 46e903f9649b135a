//! `pgstow serve`, asked as its clients ask it.

mod access;
mod api;
mod ending;
mod events;
mod files;
mod logs;
mod metrics;
mod older;
mod openapi;
mod pages;
mod restores;
mod scheduled;
mod systemd;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::support::database::Database;
use crate::support::http::{Answer, request};
use crate::support::program::pgstow;

/// The tokens of the three roles.
const VIEWER: &str = "token-of-a-viewer";
const OPERATOR: &str = "token-of-an-operator";
const ADMIN: &str = "token-of-an-admin";

/// A process that serves one database and one folder.
struct Serving {
    child: Child,
    endpoint: String,
    place: TempDir,
}

impl Serving {
    fn of(database: &Database) -> Self {
        Self::with(database, |_| {})
    }

    fn with(database: &Database, set: impl FnOnce(&mut Command)) -> Self {
        Self::at(tempfile::tempdir().unwrap(), database, set)
    }

    /// Over the store and the journal of a place.
    fn at(place: TempDir, database: &Database, set: impl FnOnce(&mut Command)) -> Self {
        let tokens = place.path().join("tokens");
        std::fs::write(&tokens, lines_of_tokens()).unwrap();
        let mut command = pgstow();
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--jobs", "1"])
            .env("DATABASE_URL", database.url())
            .env("BACKUP_STORE", place.path().join("store"))
            .env("BACKUP_STATE_DIR", place.path().join("state"))
            .env("BACKUP_API_TOKENS_FILE", &tokens)
            .stderr(Stdio::piped());
        set(&mut command);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let endpoint = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended: {said:?}")).unwrap();
            if let Some(endpoint) = line.strip_prefix("listening on ") {
                break endpoint.to_owned();
            }
            said.push(line);
        };
        // Nobody reads the rest, and nothing waits for a reader.
        thread::spawn(move || lines.for_each(drop));
        Self { child, endpoint, place }
    }

    fn ask(&self, token: &str, method: &str, path: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        request(method, &self.endpoint, path, &headers, body)
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.ask(VIEWER, "GET", path, "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    /// Asks for a run, and waits for its end.
    fn run(&self, body: &str) -> Value {
        let answer = self.ask(OPERATOR, "POST", "/api/v1/runs", body);
        assert_eq!(answer.status, 202, "{}", answer.body);
        self.ended(answer.json()["id"].as_str().unwrap())
    }

    fn ended(&self, id: &str) -> Value {
        loop {
            let run = self.get(&format!("/api/v1/runs/{id}"));
            if !matches!(run["state"].as_str(), Some("queued" | "running")) {
                return run;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends as on SIGTERM, and gives back its place.
    fn end(mut self) -> (TempDir, i32) {
        self.signal(rustix::process::Signal::TERM);
        let status = self.child.wait().unwrap();
        let place = std::mem::replace(&mut self.place, tempfile::tempdir().unwrap());
        (place, status.code().unwrap())
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn store(&self) -> std::path::PathBuf {
        self.place.path().join("store")
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of_tokens() -> String {
    let line = |(role, token): (&str, &str)| format!("the {role}:{role}:{}\n", hex::encode(Sha256::digest(token)));
    [("viewer", VIEWER), ("operator", OPERATOR), ("admin", ADMIN)]
        .map(line)
        .concat()
}

const JWT_KEY: &str = "0123456789abcdef0123456789abcdef";

/// A JSON Web Token with these claims.
fn signed(claims: &str) -> String {
    use base64::Engine;
    let encoded = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let text = format!(
        "{}.{}",
        encoded(br#"{"alg":"HS256","typ":"JWT"}"#),
        encoded(claims.as_bytes())
    );
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, JWT_KEY.as_bytes());
    format!("{text}.{}", encoded(ring::hmac::sign(&key, text.as_bytes()).as_ref()))
}

fn shop() -> Database {
    let database = Database::fresh(17);
    database.sql("CREATE TABLE orders AS SELECT generate_series(1, 1000) AS id");
    database
}

/// How many files there are, besides the leases, which runs never remove.
fn files(folder: &Path) -> usize {
    walk(folder).iter().filter(|path| !path.ends_with(".lease")).count()
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] })
        .collect()
}
