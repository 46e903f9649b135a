//! What a drill compares: it finds equal objects equal, however the server prints them after the restore, and names
//! each object that differs.

mod columns;
mod definitions;
mod roots;

use std::path::PathBuf;

use serde_json::Value;

use super::drill;
use crate::support::program::{Run, run};
use crate::support::services::postgres_bin;
use crate::support::wreck::Site;

/// A drill behind whose back this is said to the restored database.
fn drill_with_injuries(site: &Site, major: u32, injuries: &str) -> Run {
    let mut command = drill(site);
    let (folder, real) = (meddling(site, major, injuries), postgres_bin(major));
    command.env("BACKUP_PG_BIN", format!("{}:{}", folder.display(), real.display()));
    run(&mut command)
}

/// When it has given the grants, all else is there.
fn meddling(site: &Site, major: u32, injuries: &str) -> PathBuf {
    crate::job::drill::meddling(site, major, "grants.list", injuries)
}

/// What the drill found, by the table's or the definition's name.
fn problems(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{report:#}")).to_owned();
    let problems = report["drill"]["problems"].as_array();
    let problems = problems.unwrap_or_else(|| panic!("no problems: {report:#}"));
    let of = |problem: &Value| (text(&problem["table"]), text(&problem["what"]));
    problems.iter().map(of).collect()
}

/// Every table with its result.
fn results(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |table: &Value| {
        let name = format!("{}.{}", text(&table["schema"]), text(&table["name"]));
        (name, text(&table["result"]))
    };
    report["drill"]["tables"].as_array().unwrap().iter().map(of).collect()
}

fn assert_proved(report: &Value) {
    assert_eq!(report["drill"]["status"], "ok", "{report:#}");
    assert!(report["drill"].get("not_proved").is_none(), "{report:#}");
    let results = results(report);
    let unequal: Vec<_> = results
        .iter()
        .filter(|(_, result)| !result.starts_with("equal"))
        .collect();
    assert!(unequal.is_empty(), "{unequal:?}");
}
