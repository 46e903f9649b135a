//! Who gets in, and how far.

use super::{ADMIN, JWT_KEY, OPERATOR, Serving, VIEWER, shop, signed};
use crate::support::http::request;
use crate::support::program::{pgstow, run};

#[test]
fn each_role_may_do_what_it_may_and_nobody_without_a_token_anything() {
    let database = shop();
    let serving = Serving::of(&database);
    let routes = [
        ("GET", "/api/v1/status", 0),
        ("GET", "/api/v1/databases", 0),
        ("GET", "/api/v1/backups", 0),
        ("GET", "/api/v1/runs", 0),
        ("GET", "/api/v1/me", 0),
        ("GET", "/api/backup/list", 0),
        ("GET", "/api/backup/status", 0),
        ("GET", "/api/admin/system/backups", 0),
        ("GET", "/api/admin/system/backups/status", 0),
        ("POST", "/api/v1/runs", 1),
        ("POST", "/api/v1/runs/x/cancel", 1),
        ("POST", "/api/backup/trigger", 1),
        ("POST", "/api/admin/system/backups/create", 1),
        ("GET", "/api/v1/audit", 2),
    ];
    for (method, path, needed) in routes {
        let answer = request(method, &serving.endpoint, path, &[], "");
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        for (token, role) in [(VIEWER, 0), (OPERATOR, 1), (ADMIN, 2)] {
            // A body that no route takes: nothing is begun.
            let answer = serving.ask(token, method, path, "no json");
            assert_eq!(
                answer.status == 403,
                role < needed,
                "{method} {path} as {role}: {}",
                answer.body
            );
            assert_ne!(answer.status, 401, "{path}");
        }
    }
    for token in ["", "token", "token-of-a-viewer2", "TOKEN-OF-AN-ADMIN"] {
        assert_eq!(serving.ask(token, "GET", "/api/v1/me", "").status, 401, "{token:?}");
    }
    assert_eq!(
        request("GET", &serving.endpoint, "/healthz", &[("Host", "any.example")], "").body,
        "ok\n"
    );
    // A token in a query would stand in the logs of proxies.
    assert_eq!(
        request("GET", &serving.endpoint, &format!("/api/v1/me?token={VIEWER}"), &[], "").status,
        401
    );
}

#[test]
fn requests_by_other_names_and_from_other_sites_are_refused() {
    let database = shop();
    let serving = Serving::with(&database, |command| {
        command.env("BACKUP_ALLOWED_HOSTS", "backup.example other.example");
    });
    let bearer = format!("Bearer {OPERATOR}");
    let ask = |headers: &[(&str, &str)]| {
        let mut all = vec![("Authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        request("POST", &serving.endpoint, "/api/v1/runs/x/cancel", &all, "").status
    };
    assert_eq!(ask(&[("Host", "backup.example")]), 404);
    assert_eq!(ask(&[("Host", "evil.example")]), 421);
    assert_eq!(
        ask(&[("Host", "backup.example"), ("Origin", "https://backup.example")]),
        404
    );
    assert_eq!(
        ask(&[("Host", "backup.example"), ("Origin", "https://evil.example")]),
        403
    );
    assert_eq!(ask(&[("Sec-Fetch-Site", "cross-site")]), 403);
}

#[test]
fn json_web_tokens_of_older_clients_get_in_with_the_role_of_the_settings() {
    let database = shop();
    let serving = Serving::with(&database, |command| {
        command
            .env("BACKUP_JWT_SECRET", JWT_KEY)
            .env("BACKUP_JWT_ISSUER", "https://login.example")
            .env_remove("BACKUP_API_TOKENS_FILE");
    });
    let ask = |claims: &str| serving.ask(&signed(claims), "GET", "/api/v1/me", "");
    let me = ask(r#"{"userId":7,"iss":"https://login.example","exp":4000000000}"#);
    assert_eq!(
        (me.status, me.json()["role"].as_str()),
        (200, Some("operator")),
        "{}",
        me.body
    );
    assert_eq!(
        ask(r#"{"userId":7,"iss":"https://login.example","exp":1000000000}"#).status,
        401
    );
    assert_eq!(
        ask(r#"{"userId":7,"iss":"https://evil.example","exp":4000000000}"#).status,
        401
    );
    // A session ends with the token that it begins with, give or take a minute.
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let claims = format!(r#"{{"sub":"ann","iss":"https://login.example","exp":{}}}"#, now + 100);
    let origin = ("Origin", serving.endpoint.as_str());
    let body = format!("token={}", signed(&claims));
    let session = request("POST", &serving.endpoint, "/login", &[origin], &body);
    let cookie = session.header("set-cookie").unwrap();
    let life = cookie.split("Max-Age=").nth(1).unwrap().split(';').next().unwrap();
    assert!(life.parse::<u64>().unwrap() <= 160, "{cookie}");
}

#[test]
fn guesses_from_the_addresses_of_one_network_are_counted_together() {
    let database = shop();
    let serving = Serving::with(&database, |command| {
        command.env("BACKUP_TRUSTED_PROXIES", "127.0.0.1");
    });
    let guess = |address: &str| {
        let headers = [("Authorization", "Bearer guess"), ("X-Forwarded-For", address)];
        request("GET", &serving.endpoint, "/api/v1/me", &headers, "").status
    };
    let guesses: Vec<u16> = (1..40).map(|last| guess(&format!("2001:db8::{last:x}"))).collect();
    assert_eq!(
        (guesses.first(), guesses.last()),
        (Some(&401), Some(&429)),
        "{guesses:?}"
    );
    assert_eq!(guess("2001:db8:0:1::1"), 401);
    assert_eq!(guess("192.0.2.1"), 401);
}

#[test]
fn it_does_not_listen_where_strangers_would_get_in() {
    let place = tempfile::tempdir().unwrap();
    let database = shop();
    let refused = |set: &[(&str, &str)]| {
        let mut command = pgstow();
        command
            .args(["serve", "--store"])
            .arg(place.path())
            .env("DATABASE_URL", database.url());
        for (name, value) in set {
            command.env(name, value);
        }
        let run = run(&mut command);
        assert_eq!(run.status.code(), Some(2), "{}", run.stderr);
        run.stderr
    };
    let tokens = place.path().join("tokens");
    std::fs::write(&tokens, super::lines_of_tokens()).unwrap();
    let tokens = tokens.to_str().unwrap();
    assert!(refused(&[("BACKUP_LISTEN", "0.0.0.0:0")]).contains("BACKUP_API_TOKENS_FILE"));
    let plain = refused(&[("BACKUP_LISTEN", "0.0.0.0:0"), ("BACKUP_API_TOKENS_FILE", tokens)]);
    assert!(plain.contains("BACKUP_TRUSTED_PROXIES"), "{plain}");
    assert!(refused(&[("BACKUP_JWT_SECRET", "short")]).contains("32 bytes"));
    assert!(!refused(&[("BACKUP_JWT_SECRET", "tooshortasecret")]).contains("tooshortasecret"));
    std::fs::write(tokens, "ann:root:00\n").unwrap();
    assert!(refused(&[("BACKUP_API_TOKENS_FILE", tokens)]).contains("line 1"));
    assert!(refused(&[("BACKUP_LISTEN", "everywhere")]).contains("BACKUP_LISTEN"));
    assert!(refused(&[("FULL_BACKUP_SCHEDULE", "now and then")]).contains("FULL_BACKUP_SCHEDULE"));
}

#[test]
fn whoever_tries_tokens_is_told_to_stop_and_a_good_token_still_gets_in() {
    let database = shop();
    let serving = Serving::of(&database);
    let answers: Vec<_> = (0..40)
        .map(|number| serving.ask(&format!("guess-{number}"), "GET", "/api/v1/me", ""))
        .collect();
    assert!(answers.iter().all(|answer| matches!(answer.status, 401 | 429)));
    let last = answers.last().unwrap();
    assert_eq!(
        (last.status, last.header("retry-after").is_some()),
        (429, true),
        "{}",
        last.body
    );
    assert_eq!(answers[0].status, 401);
    assert_eq!(serving.ask(VIEWER, "GET", "/api/v1/me", "").status, 200);
}

#[test]
fn slow_clients_do_not_keep_others_out() {
    use std::io::Write;
    let database = shop();
    let serving = Serving::of(&database);
    let address = serving.endpoint.strip_prefix("http://").unwrap();
    let slow: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.write_all(b"GET /api/v1/me HTTP/1.1\r\nHost: 127").unwrap();
            stream
        })
        .collect();
    assert_eq!(serving.ask(VIEWER, "GET", "/api/v1/me", "").status, 200);
    drop(slow);
}
