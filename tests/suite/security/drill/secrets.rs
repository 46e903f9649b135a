//! What pgstow itself holds while a drill runs.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use super::{NAMELESS, as_nameless};
use crate::support::database::Database;
use crate::support::program::{run, succeed};
use crate::support::wreck::{Site, tree};

fn as_his(program: &str, path: &str) -> bool {
    let mut command = Command::new(program);
    command.arg(path).uid(NAMELESS).gid(NAMELESS);
    run(&mut command).status.success()
}

/// The process and its children.
fn family(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<u32> = children
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|one| one.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect();
    [vec![pid], children].concat()
}

#[test]
fn its_own_user_cannot_read_its_environment_while_it_drills() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (site, database) = (Site::new(), Database::fresh(17));
    database.sql("CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 200000)");
    succeed(&mut site.backup(&database.url()));
    let mut command = site.drill(as_nameless(&site));
    let secrets = [
        ("DB_PASSWORD", "a hidden word"),
        ("AWS_SECRET_ACCESS_KEY", "a hidden key"),
        ("BACKUP_TARGET_URL", "postgres://u:hidden@127.0.0.1:1/d"),
    ];
    command.envs(secrets);
    let mut running = site.start(&mut command);
    let place = site.path().join("tmp");
    running.until("the drill begins", || !tree(&place).is_empty());
    let pid = running.pid();
    let mut looks = 0;
    while !running.is_over() && looks < 40 {
        assert!(as_his("cat", &format!("/proc/{pid}/stat")) || running.is_over());
        // Nor has root a use for it, nor who breaks into one of its keepers.
        for process in family(pid) {
            let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            assert!(!environment.windows(6).any(|word| word == b"hidden"), "{process}");
        }
        for secret in ["environ", "maps", "auxv"] {
            assert!(!as_his("cat", &format!("/proc/{pid}/{secret}")), "{secret}");
        }
        looks += 1;
    }
    assert!(looks > 5, "{looks}");
    let ended = running.end(Duration::from_secs(60));
    assert!(ended.status.success(), "{}", ended.stderr);
}
