//! Restores that fail midway: what the error says of the target is how the target is.

use std::time::Duration;

use serde_json::Value;

use crate::job::restore::place::{Backed, copy, flip, three};
use crate::support::contents::Contents;
use crate::support::database::{Database, psql};
use crate::support::disk::Disk;
use crate::support::fault_proxy::{Fault, FaultProxy, On, Op};
use crate::support::program::succeed;
use crate::support::server::OwnServer;
use crate::support::services::s3;
use crate::support::wreck::fail;

const COUNTS: &str = "SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b), (SELECT count(*) FROM c)";

#[test]
fn a_flipped_bit_leaves_its_table_empty_and_the_error_says_which_have_their_rows() {
    for (major, compress) in [(15, "gzip"), (17, "zstd"), (18, "none")] {
        let backed = Backed::up(three(major), &["--compress", compress]);
        backed.damage("b");
        let target = Database::fresh(major);
        let failed = backed.refused(&target.url(), &[], "INTEGRITY", 40);
        assert!(failed.message.contains("public.b"), "{}", failed.message);
        // All three travel in one pg_restore; what came before the damage is there.
        assert_eq!(target.sql(COUNTS), "1000|0|0", "{compress}");
        assert!(
            failed.message.ends_with(
                "the target holds all definitions, and the data of 1 of 3 tables; without data: public.b, public.c"
            ),
            "{}",
            failed.message
        );
        // The others can be had.
        let whole = Database::fresh(major);
        backed.restored(&whole, &["--table", "public.a", "--table", "public.c"]);
        assert_eq!(
            whole.sql("SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM c)"),
            "1000|1000"
        );
        // And when the store is right again, so can all of it.
        backed.damage("b");
        backed.restored(&target, &["--clean"]);
        Contents::of(&backed.source).assert_equals(&Contents::of(&target));
    }
}

#[test]
fn a_damaged_table_of_contents_or_a_cut_archive_is_found_before_anything_is_changed() {
    let backed = Backed::up(three(17), &[]);
    let target = copy(&backed.source);
    let unchanged = |file: &str| {
        crate::job::restore::place::untouched(&target, || {
            let refused = backed.refused(&target.url(), &["--clean"], "INTEGRITY", 40);
            assert!(refused.message.contains(file), "{}", refused.message);
            assert!(
                refused.message.contains("nothing was changed in the target"),
                "{}",
                refused.message
            );
        });
    };
    let toc = backed.file("toc");
    flip(&toc, 3000);
    unchanged(".toc");
    flip(&toc, 3000);
    let dump = backed.file("dump");
    let bytes = std::fs::read(&dump).unwrap();
    std::fs::write(&dump, &bytes[..bytes.len() - 1]).unwrap();
    unchanged(".dump");
    std::fs::remove_file(&dump).unwrap();
    unchanged(".dump");
}

#[test]
fn a_target_that_refuses_a_row_is_told_by_its_table_and_its_row_by_nobody() {
    let backed = Backed::up(three(16), &[]);
    let target = copy(&backed.source);
    target.sql("TRUNCATE c; TRUNCATE b; ALTER TABLE c ADD CONSTRAINT none_of_it CHECK (n < 500)");
    let options = ["--data-only", "--table", "public.b", "--table", "public.c"];
    let failed = backed.refused(&target.url(), &options, "RESTORE_ERR", 41);
    assert!(failed.message.contains("none_of_it"), "{}", failed.message);
    assert!(failed.message.contains("cannot load public.c"), "{}", failed.message);
    assert!(failed.message.contains("nothing was changed"), "{}", failed.message);
    let value = backed.source.sql("SELECT text FROM c WHERE n = 500");
    assert!(
        !failed.message.contains(&value) && !failed.stderr.contains(&value),
        "{}",
        failed.stderr
    );
    assert_eq!(target.sql(COUNTS), "1000|0|0");
}

#[test]
fn definitions_that_fail_are_rolled_back() {
    // Its function's language is there; what it makes use of in the target is not.
    let source = Database::fresh(16);
    source.sql("CREATE TABLE first (n integer); CREATE TABLE second (n integer, during tstzrange)");
    let backed = Backed::up(source, &[]);
    let target = Database::fresh(16);
    // An event trigger of the target's own, which belongs to no backup. From 17 on a superuser's restore runs none.
    target.sql(
        "CREATE FUNCTION no_more() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
           IF to_regclass('public.second') IS NOT NULL THEN RAISE 'no more'; END IF; END $$;
         CREATE EVENT TRIGGER no_more ON ddl_command_end EXECUTE FUNCTION no_more();
         ALTER FUNCTION no_more() OWNER TO postgres",
    );
    let before = Contents::of(&target);
    let failed = backed.refused(&target.url(), &["--clean"], "RESTORE_ERR", 41);
    assert!(failed.message.contains("no more"), "{}", failed.message);
    assert!(failed.message.contains("rolled back"), "{}", failed.message);
    before.assert_equals(&Contents::of(&target));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_within_a_block_is_asked_again_and_one_that_stays_ill_is_told() {
    let source = three(17);
    source.sql("CREATE TABLE big AS SELECT n, md5(n::text) AS text FROM generate_series(1, 200000) n");
    let backed = Backed::in_s3(source, &["--compress", "none"]).await;
    let proxy = FaultProxy::start(&s3().endpoint).await;
    let through = |target: &Database, options: &[&str]| {
        let mut restore = backed.restore(&target.url(), options);
        restore
            .env("AWS_ENDPOINT_URL_S3", proxy.url())
            .env("BACKUP_S3_RETRY_SECONDS", "3");
        restore
    };
    let on_blocks = || On::op(Op::GetObject).target(".dump");
    proxy.fault(on_blocks().calls(1..=1), Fault::CutAnswer { after: 100_000 });
    proxy.fault(on_blocks().calls(3..=3), Fault::Reject(503));
    let target = Database::fresh(17);
    succeed(&mut through(&target, &[]));
    assert_eq!(proxy.faults(), 2);
    Contents::of(&backed.source).assert_equals(&Contents::of(&target));

    proxy.heal();
    proxy.fault(on_blocks().calls(2..=usize::MAX), Fault::Reject(500));
    let target = Database::fresh(17);
    let failed = fail(&mut through(&target, &[]), "STORE", 30);
    backed.site.assert_nothing_runs();
    assert!(failed.message.contains("public.big"), "{}", failed.message);
    assert_eq!(target.sql("SELECT count(*) FROM big"), "0");

    // The restore waits for a server that falls silent, but not after a stop.
    proxy.heal();
    let before = proxy.faults();
    proxy.fault(on_blocks().calls(2..=usize::MAX), Fault::HoldAnswer);
    let mut running = backed.site.start(&mut through(&target, &["--clean"]));
    running.until("the store is silent", || proxy.faults() > before);
    running.signal(rustix::process::Signal::TERM);
    let run = running.end(Duration::from_secs(10));
    crate::job::restore::place::ended(&run, "INTERRUPTED", 143);
    backed.site.assert_nothing_runs();

    proxy.heal();
    succeed(&mut through(&target, &["--clean"]));
    Contents::of(&backed.source).assert_equals(&Contents::of(&target));
}

#[test]
fn a_target_whose_disk_is_full_is_told_and_fits_when_there_is_room() {
    let source = Database::fresh(15);
    source.sql(
        "CREATE TABLE small AS SELECT 1 AS n;
         CREATE TABLE big AS SELECT n, repeat(md5(n::text), 60) AS text FROM generate_series(1, 20000) n;
         ALTER TABLE big ALTER COLUMN text SET STORAGE EXTERNAL",
    );
    let backed = Backed::up(source, &[]);
    let server = OwnServer::start(15);
    let disk = Disk::mount("size=20m");
    psql(
        15,
        &server.url(),
        &format!("CREATE TABLESPACE narrow LOCATION '{}'", place_on(&disk)),
    );
    let target = server.database("full");
    psql(
        15,
        &server.url(),
        &format!("ALTER DATABASE \"{}\" SET TABLESPACE narrow", target.name),
    );
    let failed = backed.refused(&target.url(), &[], "RESTORE_ERR", 41);
    assert!(failed.message.contains("No space left on device"), "{}", failed.message);
    assert!(
        failed.message.contains("without data: public.big"),
        "{}",
        failed.message
    );
    assert!(
        failed.hint.contains("free space") && failed.hint.contains("--clean"),
        "{}",
        failed.hint
    );
    disk.remount("size=200m");
    backed.restored(&target, &["--clean"]);
    let sums = "SELECT count(*), md5(string_agg(text, '' ORDER BY n)) FROM big";
    assert_eq!(target.sql(sums), backed.source.sql(sums));
}

/// A folder that the server's user may write.
fn place_on(disk: &Disk) -> String {
    let folder = disk.path().join("tablespace");
    std::fs::create_dir(&folder).unwrap();
    if rustix::process::geteuid().is_root() {
        succeed(crate::support::program::program("chown").arg("postgres").arg(&folder));
    }
    // The server's user must get there.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(disk.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    folder.to_str().unwrap().to_owned()
}

fn planned_steps(report: &Value) -> Vec<&str> {
    let steps = report["steps"].as_array().unwrap();
    steps.iter().filter_map(Value::as_str).collect()
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let backed = Backed::up(three(17), &[]);
    let target = copy(&backed.source);
    target.sql("DELETE FROM c");
    crate::job::restore::place::untouched(&target, || {
        let report = succeed(&mut backed.restore(&target.url(), &["--dry-run", "--clean"])).json();
        assert_eq!(report["status"], "planned");
        let steps = planned_steps(&report);
        assert!(
            steps
                .iter()
                .any(|step| step.contains("DROP TABLE") && step.contains("public.c")),
            "{steps:?}"
        );
        assert!(steps.iter().any(|step| step.contains("3 blocks")), "{steps:?}");
        let warning = report["warnings"][0].as_str().unwrap();
        assert!(warning.contains("role is a superuser"), "{report}");
        let report = succeed(&mut backed.restore(&target.url(), &["--dry-run", "--create", "--clean"])).json();
        let steps = planned_steps(&report);
        let at = |words: &str| steps.iter().position(|step| step.contains(words)).unwrap();
        assert_eq!(at("make a new database beside"), 0, "{report}");
        assert!(at("definition") < at("remove the database"), "{report}");
        assert!(at("remove the database") < at("of data"), "{report}");
    });
    backed.site.assert_nothing_runs();
}
