//! The way back without pgstow that docs/commands.md shows, run as it stands there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::bucket::Bucket;
use crate::support::contents::Contents;
use crate::support::database::{Database, psql, quoted};
use crate::support::program::{pgstow, program, succeed};
use crate::support::services::{REGION, aws_cli, postgres_bin, postgres_url, s3};
use crate::support::wreck::report;

const SECTION: &str = "### Restore with stock tools alone";

/// The fenced blocks of the section.
fn blocks() -> Vec<String> {
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md")).unwrap();
    let section = document.split_once(SECTION).unwrap().1;
    let section = section.split("\n## ").next().unwrap().split("\n### ").next().unwrap();
    let blocks = section.split("\n```").skip(1).step_by(2);
    blocks
        .map(|block| block.split_once('\n').unwrap().1.to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_recipe_restores_a_backup_without_pgstow() {
    // A database of this name and a bucket of that are those of the document.
    let source = Database::loaded_as(17, "shop", "shop.sql");
    Bucket::named("acme-backups").await;
    let store = "s3://acme-backups/pg";
    let mut backup = pgstow();
    backup
        .args(["backup", "--json", "--store", store])
        .envs(s3().environment());
    let backup = report(backup.env("DATABASE_URL", source.url()));
    let stamp = backup["id"].as_str().unwrap().rsplit_once('/').unwrap().1.to_owned();

    let tools = tempfile::tempdir().unwrap();
    symlink(aws_cli(), tools.path().join("aws")).unwrap();
    let (host, port) = source.address();
    let blocks = blocks();
    assert_eq!(blocks.len(), 2, "{blocks:?}");
    for block in blocks {
        // Only the names differ: of the database, since tests share a server, and of the moment.
        let recipe = block
            .replace("20260131T040500Z-full", &stamp)
            .replace("shop", &source.name);
        assert!(recipe.contains(&format!("{store}/{}/{stamp}", source.name)), "{recipe}");
        let here = tempfile::tempdir().unwrap();
        let mut shell = program("bash");
        let path = std::env::join_paths([
            tools.path(),
            &postgres_bin(17),
            Path::new("/usr/bin"),
            Path::new("/bin"),
        ]);
        shell
            .args(["-euo", "pipefail", "-c", &recipe])
            .env("PATH", path.unwrap())
            .envs(s3().environment())
            .env("AWS_DEFAULT_REGION", REGION)
            .envs([
                ("PGHOST", host.as_str()),
                ("PGPORT", &port.to_string()),
                ("PGUSER", "postgres"),
            ])
            .env("PGPASSWORD", source.password())
            .current_dir(here.path());
        succeed(&mut shell);
        // Under a name that goes with the test.
        let restored = Database::named(17, "restored");
        let script = format!(
            "DROP DATABASE {new}; ALTER DATABASE {old} RENAME TO {new}",
            new = quoted(&restored.name),
            old = quoted(&format!("{}_restored", source.name))
        );
        let (drop, rename) = script.split_once("; ").unwrap();
        psql(17, &postgres_url(17), drop);
        psql(17, &postgres_url(17), rename);
        Contents::of(&source).assert_equals(&Contents::of(&restored));
    }
}
