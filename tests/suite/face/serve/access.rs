//! Who gets in, and how far.

use super::{ADMIN, OPERATOR, Serving, VIEWER, shop};
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
    let key = "0123456789abcdef0123456789abcdef";
    let serving = Serving::with(&database, |command| {
        command
            .env("BACKUP_JWT_SECRET", key)
            .env_remove("BACKUP_API_TOKENS_FILE");
    });
    // {"alg":"HS256","typ":"JWT"}.{"userId":7,"exp":4000000000}
    let part = |text: &str| base64_url(text.as_bytes());
    let signed = |claims: &str| {
        let text = format!("{}.{}", part(r#"{"alg":"HS256","typ":"JWT"}"#), part(claims));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_bytes());
        format!(
            "{text}.{}",
            base64_url(ring::hmac::sign(&key, text.as_bytes()).as_ref())
        )
    };
    let me = serving.ask(&signed(r#"{"userId":7,"exp":4000000000}"#), "GET", "/api/v1/me", "");
    assert_eq!(
        (me.status, me.json()["role"].as_str()),
        (200, Some("operator")),
        "{}",
        me.body
    );
    let expired = serving.ask(&signed(r#"{"userId":7,"exp":1000000000}"#), "GET", "/api/v1/me", "");
    assert_eq!(expired.status, 401);
}

fn base64_url(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
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
