//! The log files, as the scripts of the older systems' users read them.

use serde_json::Value;

use super::{Serving, shop};

/// The lines of the files of a kind.
fn lines(serving: &Serving, kind: &str) -> Vec<Value> {
    let mut lines = Vec::new();
    for path in super::walk(&serving.place.path().join("logs")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with(&format!("{kind}-2")) && name.ends_with(".log") {
            let text = std::fs::read_to_string(&path).unwrap();
            lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
    }
    lines
}

#[test]
fn runs_failures_and_requests_stand_in_the_files_of_the_day() {
    let database = shop();
    let place = tempfile::tempdir().unwrap();
    let logs = place.path().join("logs");
    let serving = Serving::at(place, &database, |command| {
        command.env("BACKUP_LOG_DIR", &logs);
    });
    let run = serving.run(r#"{"action":"backup"}"#);
    assert_eq!(run["state"], "succeeded", "{run}");
    std::fs::remove_dir_all(serving.store()).unwrap();
    std::fs::write(serving.store(), "no folder").unwrap();
    let failed = serving.run(r#"{"action":"backup"}"#);
    assert_eq!(failed["state"], "failed", "{failed}");
    // The line is written soon after the run's end can be seen.
    let found = |kind: &str, message: &str| {
        loop {
            let lines = lines(&serving, kind);
            if let Some(line) = lines.iter().find(|line| line["message"] == message) {
                return line.clone();
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    for kind in ["combined", "backup"] {
        let line = found(kind, "backup completed");
        assert_eq!(
            (line["level"].as_str(), line["backupPath"].clone(), line["run"].clone()),
            (Some("info"), run["backup"].clone(), run["id"].clone())
        );
        assert!(line["duration"].is_u64() && line["size"].is_u64(), "{line}");
    }
    for kind in ["combined", "backup", "error"] {
        let line = found(kind, "backup failed");
        assert_eq!(line["error"], failed["error"]["message"], "{line}");
    }
    let asked = found("admin", "backup");
    assert_eq!(
        (asked["by"].as_str(), asked["role"].as_str()),
        (Some("token:the operator"), Some("operator"))
    );
    assert!(lines(&serving, "error").iter().all(|line| line["level"] == "error"));
    let all: String = lines(&serving, "combined").iter().map(Value::to_string).collect();
    assert!(!all.contains(super::OPERATOR), "{all}");
}
