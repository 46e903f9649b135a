//! The library as another program uses it.

use std::path::Path;

use pgstow::{Input, Report};

use crate::support::database::Database;
use crate::support::services::postgres_bin;

#[allow(dead_code)]
#[path = "../../../examples/round_trip.rs"]
mod round_trip;

/// As a program's main thread has it. A test's own thread has less than the frames of a debug build take.
const STACK: usize = 8 << 20;

#[test]
fn the_example_makes_a_backup_lists_verifies_and_restores_it() {
    let (source, target) = (Database::fresh(17), Database::fresh(17));
    source.sql("CREATE TABLE t AS SELECT generate_series(1, 100) AS a");
    let folder = tempfile::tempdir().unwrap();
    let mut input = Input::of_this_process().unwrap();
    input.working_dir = folder.path().to_owned();
    for (name, value) in [
        ("DATABASE_URL", source.url()),
        ("BACKUP_TARGET_URL", target.url()),
        ("BACKUP_STORE", "./backups".to_owned()),
        ("BACKUP_STATE_DIR", folder.path().display().to_string()),
        ("BACKUP_PG_BIN", postgres_bin(17).display().to_string()),
    ] {
        input.env.insert(name.into(), value);
    }
    let program = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(round_trip::round_trip(&input)).unwrap()
    };
    let main = std::thread::Builder::new().stack_size(STACK).spawn(program).unwrap();
    let reports = main.join().unwrap();
    assert!(matches!(
        &reports[..],
        [
            Report::Backup(_),
            Report::List(_),
            Report::Verify(_),
            Report::Restore(_)
        ]
    ));
    assert_eq!(target.sql("SELECT sum(a) FROM t"), "5050");
}

/// What `lib.rs` names on its page, by file.
const FACE: [&str; 15] = [
    "app.rs",
    "command.rs",
    "error.rs",
    "face/library.rs",
    "job/backup/request.rs",
    "job/download/request.rs",
    "job/prune/request.rs",
    "job/restore/request.rs",
    "job/verify/request.rs",
    "report.rs",
    "repository/trigger.rs",
    "run/progress.rs",
    "run/progress/event.rs",
    "run/stop.rs",
    "store.rs",
];

/// rustc's own lint passes over what is internal, and so over the modules that these stand in.
#[test]
fn every_public_item_of_the_librarys_face_has_a_doc() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut bare = Vec::new();
    for file in FACE {
        let text = std::fs::read_to_string(src.join(file)).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let mut documented = false;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            let is_item =
                line.starts_with("pub ") && !["pub use", "pub mod"].iter().any(|start| line.starts_with(start));
            if is_item && !documented {
                bare.push(format!("{file}:{}: {line}", number + 1));
            }
            documented = line.starts_with("///") || line.starts_with("#[") || (documented && line.ends_with(")]"));
        }
    }
    assert!(bare.is_empty(), "without a doc:\n{}", bare.join("\n"));
}
