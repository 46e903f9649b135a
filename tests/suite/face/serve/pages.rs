//! The pages, as a browser without scripts uses them.

use std::io::Write;
use std::process::Stdio;

use super::events::Events;
use super::{ADMIN, Serving, VIEWER, shop};
use crate::support::database::Database;
use crate::support::http::{Answer, request};
use crate::support::program::pgstow;

/// A browser with the cookie of somebody who has logged in.
struct Browser<'a> {
    serving: &'a Serving,
    cookie: String,
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn log_in(serving: &Serving, body: &str) -> Answer {
    let origin = ("Origin", serving.endpoint.as_str());
    request("POST", &serving.endpoint, "/login", &[origin], body)
}

impl<'a> Browser<'a> {
    fn of(serving: &'a Serving, token: &str) -> Self {
        let answer = log_in(serving, &format!("token={}", encoded(token)));
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, Some("/")),
            "{}",
            answer.body
        );
        let cookie = answer.header("set-cookie").unwrap();
        assert!(cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
        let cookie = cookie.split(';').next().unwrap().to_owned();
        Self { serving, cookie }
    }

    fn get(&self, path: &str) -> Answer {
        request("GET", &self.serving.endpoint, path, &[("Cookie", &self.cookie)], "")
    }

    fn page(&self, path: &str) -> String {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(
            answer
                .header("content-security-policy")
                .unwrap()
                .contains("default-src 'none'")
        );
        assert!(
            !answer.body.contains("<script") && !answer.body.contains(" style="),
            "{path}"
        );
        answer.body
    }

    fn post(&self, path: &str, body: &str) -> Answer {
        let origin = self.serving.endpoint.clone();
        let headers = [("Cookie", self.cookie.as_str()), ("Origin", origin.as_str())];
        request("POST", &self.serving.endpoint, path, &headers, body)
    }

    /// Sends a form that begins a run, and waits for its end.
    fn run(&self, path: &str, body: &str) -> serde_json::Value {
        let answer = self.post(path, body);
        assert_eq!(answer.status, 303, "{}", answer.body);
        let place = answer.header("location").unwrap();
        assert!(self.page(place).contains("asked for"));
        self.serving.ended(place.rsplit('/').next().unwrap())
    }
}

#[test]
fn a_person_backs_up_verifies_and_sees_it_safe_only_then() {
    let database = shop();
    let serving = Serving::of(&database);
    assert_eq!(
        request("GET", &serving.endpoint, "/", &[], "").header("location"),
        Some("/login")
    );
    let browser = Browser::of(&serving, ADMIN);
    assert!(browser.page("/").contains("? UNKNOWN"), "the folder is not there yet");
    assert_eq!(browser.run("/runs", "action=backup")["state"], "succeeded");
    assert!(browser.page("/").contains("AT RISK"), "it was never proved");
    assert_eq!(browser.run("/runs", "action=verify")["state"], "succeeded");
    let overview = browser.page("/");
    assert!(
        overview.contains("✓ SAFE") && overview.contains(&database.name),
        "{overview}"
    );
    let list = browser.page("/backups");
    let link = list
        .split("href=\"/backups/")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let one = browser.page(&format!("/backups/{link}"));
    assert!(one.contains("public.orders") && one.contains("pgstow restore"), "{one}");
    for path in ["/runs", "/restore", "/schedules"] {
        browser.page(path);
    }
    assert!(browser.page("/audit").contains("The journal is whole"));
    let style = overview
        .split("href=\"/assets/")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert_eq!(
        browser.get(&format!("/assets/{style}")).header("content-type"),
        Some("text/css; charset=utf-8")
    );
    std::fs::remove_dir_all(serving.store()).unwrap();
    std::fs::create_dir(serving.store()).unwrap();
    // After a run the stores are asked anew.
    serving.run(r#"{"action":"doctor"}"#);
    assert!(!browser.page("/").contains("SAFE"), "all backups are gone");
}

#[test]
fn a_person_restores_by_plan_and_name() {
    let database = shop();
    let target = Database::fresh(17);
    let serving = Serving::with(&database, |command| {
        command.env("BACKUP_TARGET_URL", target.url());
    });
    let browser = Browser::of(&serving, ADMIN);
    assert_eq!(browser.run("/runs", "action=backup")["state"], "succeeded");
    let plan = browser.post("/restore", "backup=latest&to_time=&tables=");
    assert_eq!(plan.status, 200, "{}", plan.body);
    assert!(plan.body.contains("Nothing has been changed yet"));
    let id = plan
        .body
        .split("name=\"plan\" value=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let wrong = browser.post("/restore/confirm", &format!("plan={id}&confirm=another"));
    assert_eq!(wrong.status, 400);
    let run = browser.run(
        "/restore/confirm",
        &format!("plan={id}&confirm={}", encoded(&target.name)),
    );
    assert_eq!(run["state"], "succeeded", "{run}");
    assert_eq!(target.sql("SELECT count(*) FROM orders").trim(), "1000");
}

#[test]
fn a_page_of_another_site_and_a_viewer_change_nothing() {
    let database = shop();
    let serving = Serving::of(&database);
    let browser = Browser::of(&serving, ADMIN);
    let foreign = |headers: &[(&str, &str)]| {
        let mut all = vec![("Cookie", browser.cookie.as_str())];
        all.extend_from_slice(headers);
        request("POST", &serving.endpoint, "/runs", &all, "action=backup").status
    };
    assert_eq!(foreign(&[("Origin", "https://evil.example")]), 403);
    assert_eq!(foreign(&[("Sec-Fetch-Site", "cross-site")]), 403);
    assert_eq!(foreign(&[("Origin", "null")]), 403);
    assert_eq!(foreign(&[]), 403, "a browser always says whose page it is");
    let viewer = Browser::of(&serving, VIEWER);
    assert_eq!(viewer.post("/runs", "action=backup").status, 403);
    assert_eq!(viewer.get("/audit").status, 403);
    assert_eq!(viewer.post("/restore", "backup=latest").status, 403);
    assert_eq!(serving.get("/api/v1/runs")["runs"], serde_json::json!([]));
    let events = Events::of(&serving, &format!("Cookie: {}", browser.cookie));
    assert_eq!(browser.post("/logout", "").status, 303);
    let told: Vec<String> = events.map(|(name, _)| name).collect();
    assert_eq!(told, ["reset"], "a stream ends with its session");
    assert_eq!(browser.get("/runs").header("location"), Some("/login"));
}

#[test]
fn a_password_gets_in_and_guesses_are_stopped() {
    let mut hashing = pgstow();
    let mut hashing = hashing
        .args(["serve", "hash-password"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    hashing.stdin.take().unwrap().write_all(b"correct horse\n").unwrap();
    let hash = String::from_utf8(hashing.wait_with_output().unwrap().stdout).unwrap();
    assert!(hash.starts_with("$argon2id$"), "{hash}");
    let database = shop();
    let users = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(users.path(), format!("ann:operator:{hash}")).unwrap();
    let serving = Serving::with(&database, |command| {
        command.env("BACKUP_USERS_FILE", users.path());
    });
    assert_eq!(log_in(&serving, "name=ann&password=correct+horse").status, 303);
    assert_eq!(log_in(&serving, "name=ann&password=wrong").status, 401);
    assert_eq!(log_in(&serving, "name=bob&password=correct+horse").status, 401);
    let guesses: Vec<u16> = (0..8)
        .map(|_| log_in(&serving, "name=ann&password=wrong").status)
        .collect();
    assert_eq!(guesses.last(), Some(&429), "{guesses:?}");
    let audit = serving.ask(ADMIN, "GET", "/api/v1/audit", "").body;
    assert!(
        audit.contains("\"outcome\":\"refused\"") && !audit.contains("wrong"),
        "{audit}"
    );
}
