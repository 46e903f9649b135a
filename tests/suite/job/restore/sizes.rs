//! A great deal of data in little memory.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::job::restore::place::Backed;
use crate::support::database::Database;

/// What our process may use, whatever the database's size.
const MEMORY: u64 = 128 << 20;

/// Ends with the most memory that the process has had, in bytes.
fn peak_memory(child: &mut Child) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kilobytes) = line.and_then(|line| line.trim().strip_suffix(" kB")) {
            peak = kilobytes.parse::<u64>().unwrap() * 1024;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    peak
}

fn in_bounded_memory(command: &mut Command) {
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let peak = peak_memory(&mut child);
    assert!(child.wait().unwrap().success());
    assert!((1 << 20..=MEMORY).contains(&peak), "{} MiB", peak >> 20);
}

#[tokio::test]
async fn large_tables_and_a_huge_value_come_back_from_s3_in_bounded_memory() {
    let source = Database::fresh(17);
    source.sql(
        "CREATE TABLE one AS SELECT n, repeat(md5(n::text), 30) AS text FROM generate_series(1, 100000) n;
         CREATE TABLE huge (id integer, value text);
         ALTER TABLE huge ALTER COLUMN value SET STORAGE EXTERNAL;
         INSERT INTO huge SELECT 1, repeat(string_agg(md5(n::text), ''), 100) FROM generate_series(1, 31250) n;",
    );
    for compress in ["none", "zstd"] {
        let backed = Backed::in_s3(crate::job::restore::place::copy(&source), &["--compress", compress]).await;
        let mut verify = crate::support::program::pgstow();
        verify
            .args(["verify", backed.id(), "--store", &backed.store])
            .current_dir(backed.site.path());
        in_bounded_memory(crate::support::services::cloud(&mut verify));
        let target = Database::fresh(17);
        in_bounded_memory(&mut backed.restore(&target.url(), &["--jobs", "2"]));
        let digest = "SELECT (SELECT count(*) FROM one), (SELECT md5(string_agg(text, '' ORDER BY n)) FROM one), (SELECT md5(value) FROM huge)";
        assert_eq!(target.sql(digest), source.sql(digest));
    }
}
