//! `verify --drill --to-time`: the database as of a moment is restored into a throwaway server and compared.

use std::process::Command;

use crate::job::increment::scene::Scene;
use crate::job::restore::moment::{PHASES, TABLES, refused, time, witness};
use crate::support::program::{pgstow, run};

fn drilling(scene: &Scene, asked: &[&str]) -> Command {
    let mut verify = pgstow();
    verify
        .args(["verify", "latest", "--drill", "--json", "--store", &scene.store()])
        .args(asked)
        .env("LOG_FORMAT", "text");
    verify
}

#[test]
fn a_moment_is_drilled_with_its_rows_and_foreign_keys_and_what_is_not_exact_is_named() {
    let scene = Scene::fresh(18);
    scene.sql(TABLES);
    scene.sql("CREATE UNLOGGED TABLE cache (id int PRIMARY KEY)");
    scene.start();
    for phase in &PHASES[..3] {
        scene.sql(phase);
    }
    let moment = witness(&scene);
    scene.sql("DELETE FROM hist; DELETE FROM acc");
    scene.increment();
    let run_of = run(&mut drilling(&scene, &["--to-time", time(&moment)]));
    let report = run_of.json();
    assert_eq!(report["status"], "ok", "{report:#}\n{}", run_of.stderr);
    assert!(report["moment"]["changes"].as_u64().unwrap() > 100, "{report:#}");
    assert_eq!(report["moment"]["not_exact"][0]["what"], "public.cache", "{report:#}");
    let rows = |table: &str| {
        let tables = report["drill"]["tables"].as_array().unwrap().iter();
        let found = tables.clone().find(|one| one["name"] == table);
        found.unwrap_or_else(|| panic!("{report:#}"))["rows"].to_string()
    };
    let counted = |table: &str| {
        moment
            .tables
            .lines()
            .find(|line| line.starts_with(table))
            .unwrap()
            .to_owned()
    };
    for table in ["acc", "hist", "doc", "bykey"] {
        assert_eq!(counted(table).split('|').nth(1).unwrap(), rows(table), "{table}");
    }
    // A result about several backups is recorded beside none of them.
    let id = report["id"].as_str().unwrap();
    assert!(!scene.folder.path().join(id).join("verification.json").exists());
    refused(
        &run(&mut drilling(&scene, &["--to-time", "2999-01-01T00:00:00Z"])),
        "NOT_COVERED",
        "in the future",
    );
}
