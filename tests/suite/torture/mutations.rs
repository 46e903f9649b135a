//! Any bit of any stored file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::arena::Arena;
use super::campaign::{Campaign, Dice};
use crate::support::database::Database;
use crate::support::program::{pgstow, program, run, succeed};
use crate::support::wreck::{Site, backups, tree};

/// News about a backup, and who is at work: no part of it.
const BESIDE: [&str; 2] = ["verification.json", ".lease"];

fn mutate(path: &Path, dice: &mut Dice) -> String {
    let mut bytes = fs::read(path).unwrap();
    let at = dice.below(bytes.len());
    let what = match dice.below(8) {
        0..=3 => {
            let bit = dice.below(8);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} flipped")
        }
        4 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        5 => {
            let end = (at + 512).min(bytes.len());
            if bytes[at..end].iter().all(|byte| *byte == 0) {
                bytes[at] = 1;
            } else {
                bytes[at..end].fill(0);
            }
            format!("zeros from {at}")
        }
        6 => {
            bytes.insert(at, bytes[at].wrapping_add(1));
            format!("a byte more at {at}")
        }
        _ => {
            fs::remove_file(path).unwrap();
            return "removed".to_owned();
        }
    };
    fs::write(path, bytes).unwrap();
    what
}

fn over(store: &Path, words: &[&str]) -> Command {
    let mut command = pgstow();
    command.args(words).args(["--json", "--store"]).arg(store);
    command
}

/// A custom one and a plain one, verified, of a database with all kinds of things.
fn originals() -> (Site, Vec<PathBuf>) {
    let site = Site::new();
    let database = Database::loaded(super::arena::MAJOR, "rich.sql");
    for (store, format) in [("custom", "custom"), ("plain", "plain")] {
        let store = site.path().join(store);
        let mut backup = site.backup_into(&database.url(), &store);
        succeed(backup.args(["--format", format]).env("BACKUP_COMPRESSION", "zstd:3"));
        succeed(&mut over(&store, &["verify", "latest"]));
    }
    let stores = ["custom", "plain"].map(|store| site.path().join(store)).into();
    (site, stores)
}

#[test]
fn any_change_of_any_stored_file_is_found() {
    let (site, stores) = originals();
    let copy = site.path().join("copy");
    Campaign::of("mutations", 40).run(|_, dice| {
        let store = dice.pick(&stores);
        drop(fs::remove_dir_all(&copy));
        succeed(program("cp").arg("-a").arg(&store).arg(&copy));
        let mut files = tree(&copy);
        files.retain(|path| copy.join(path).is_file() && fs::metadata(copy.join(path)).unwrap().len() > 0);
        let file = dice.pick(&files);
        let id = backups(&copy).remove(0);
        let how = mutate(&copy.join(&file), dice);
        let name = file.rsplit('/').next().unwrap();
        let told = format!("{file}: {how}");
        for words in [&["list"][..], &["status"]] {
            let run = run(&mut over(&copy, words));
            if run.status.code() != Some(0) && run.json()["error"].is_object() {
                Arena::code(&run);
            }
        }
        let run = run(&mut over(&copy, &["verify", &id]));
        let found = run.status.code() != Some(0);
        if BESIDE.contains(&name) {
            assert!(!found, "{told}: {}", run.stderr);
            return "beside a backup: good all the same".to_owned();
        }
        // A backup of an older version has no such file: that it is gone is told, and no more.
        if name == "manifest.json.sha256" && how == "removed" {
            assert!(
                !run.json()["warnings"].as_array().is_none_or(Vec::is_empty) || found,
                "{told}: {}",
                run.text()
            );
            return "digest removed: told".to_owned();
        }
        assert!(found, "{told}: verify says {}", run.text());
        let code = Arena::code(&run);
        format!("found: {code}")
    });
}
