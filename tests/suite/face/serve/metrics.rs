//! What a monitoring system reads.

use super::{Serving, VIEWER, shop};
use crate::support::http::request;

#[test]
fn a_scraper_of_this_machine_needs_no_token_and_one_behind_a_proxy_does() {
    let database = shop();
    let serving = Serving::of(&database);
    serving.run(r#"{"action":"backup"}"#);
    let scrape = |headers: &[(&str, &str)]| request("GET", &serving.endpoint, "/metrics", headers, "");
    let page = scrape(&[]);
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(
        page.header("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    let value = |name: &str| {
        let line = page.body.lines().find(|line| line.starts_with(&format!("{name} ")));
        let line = line.unwrap_or_else(|| panic!("{name} is not in {}", page.body));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let of = |name: &str| value(&format!("{name}{{database=\"{}\"}}", database.name));
    assert!(of("pgstow_backup_last_success_timestamp_seconds") > 1.7e9);
    let good = serving.get("/api/v1/status")["databases"][0]["last_good"].clone();
    assert_eq!(of("pgstow_backup_bytes"), good["bytes"].as_f64().unwrap());
    assert_eq!(value("pgstow_up"), 1.0);
    assert_eq!(value("pgstow_runs{action=\"backup\",state=\"succeeded\"}"), 1.0);
    let forwarded = ("X-Forwarded-For", "192.0.2.1");
    assert_eq!(scrape(&[forwarded]).status, 401);
    let bearer = format!("Bearer {VIEWER}");
    assert_eq!(scrape(&[forwarded, ("Authorization", &bearer)]).status, 200);
}

#[test]
fn a_store_that_does_not_answer_is_no_empty_store() {
    let database = shop();
    let serving = Serving::of(&database);
    serving.run(r#"{"action":"backup"}"#);
    std::fs::remove_dir_all(serving.store()).unwrap();
    std::fs::write(serving.store(), "no folder").unwrap();
    serving.run(r#"{"action":"doctor"}"#);
    let status = serving.ask(VIEWER, "GET", "/api/v1/status", "");
    let is_well = status.status == 200 && status.json()["status"] == "ok";
    assert!(!is_well, "{}", status.body);
    let page = request("GET", &serving.endpoint, "/metrics", &[], "");
    assert_eq!(page.status, 200);
    let answers = page
        .body
        .lines()
        .find(|line| line.starts_with("pgstow_store_answers{"))
        .unwrap();
    assert!(
        answers.ends_with(" 0") && !page.body.contains("pgstow_backup_bytes{"),
        "{}",
        page.body
    );
}
