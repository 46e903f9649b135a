//! Stores that several writers share: primaries with one copy, servers under one prefix, disks that are
//! not mounted.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::support::bucket::{Bucket, client};
use crate::support::database::{Database, unique_word};
use crate::support::planted::Folder;
use crate::support::program::{Run, pgstow, program, run, succeed};
use crate::support::services::s3;
use crate::support::wreck::{Site, backups, fail, report, tree};

fn shop(major: u32) -> Database {
    let database = Database::fresh(major);
    database.sql("CREATE TABLE orders AS SELECT n, md5(n::text) AS text FROM generate_series(1, 500) n");
    database
}

fn backup(site: &Site, database: &Database, stores: &[&str]) -> Command {
    let mut command = pgstow();
    command
        .args(["backup", "--json"])
        .args(stores.iter().flat_map(|store| ["--store", *store]))
        .env("DATABASE_URL", database.url())
        .env("TMPDIR", site.path().join("tmp"))
        .envs(s3().environment())
        .current_dir(site.path());
    command
}

fn degraded(command: &mut Command) -> Value {
    let report = report(command);
    assert_eq!(report["status"], "degraded", "{report:#}");
    report
}

/// Sleeps into the beginning of the next second, as cron does.
fn next_second() {
    let now = Timestamp::now().subsec_nanosecond();
    std::thread::sleep(Duration::from_nanos(1_000_000_000 - u64::from(now.unsigned_abs())));
}

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> Value {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn verify_all(site: &Site, store: &str) -> Run {
    let mut verify = pgstow();
    verify.args(["verify", "--all", "--json", "--store", store]);
    run(verify.envs(s3().environment()).current_dir(site.path()))
}

/// Two primaries and one copy, begun in the same second, so many times: ids differ, and all is whole.
fn pairs(count: usize, copy: &str) {
    let site = Site::new();
    let database = shop(17);
    let mut ids = Vec::new();
    for _ in 0..count {
        next_second();
        let pair = ["one", "two"].map(|primary| start(&mut backup(&site, &database, &[primary, copy])));
        let reports = pair.map(end);
        for report in &reports {
            for store in 0..2 {
                assert_eq!(report["stores"][store]["holds_backup"], true, "{report}");
            }
        }
        ids.extend(reports.map(|report| report["id"].as_str().unwrap().to_owned()));
    }
    let made = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), made, "an id was taken twice");
    for (store, held) in [("one", count), ("two", count), (copy, made)] {
        let verified = verify_all(&site, store);
        assert_eq!(verified.status.code(), Some(0), "{store}: {}", verified.stderr);
        assert_eq!(verified.json()["backups"].as_array().unwrap().len(), held, "{store}");
    }
}

#[test]
fn two_primaries_with_one_copy_in_a_folder_never_take_the_same_id() {
    pairs(12, "copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_primaries_with_one_copy_in_s3_never_take_the_same_id() {
    let bucket = Bucket {
        name: "pgstow-sharing".to_owned(),
        client: client(&s3()),
    };
    drop(bucket.client.create_bucket().bucket(&bucket.name).send().await);
    let copy = bucket.url(&unique_word());
    tokio::task::spawn_blocking(move || pairs(8, &copy)).await.unwrap();
}

#[test]
fn twenty_four_pairs_at_once_each_take_an_id_of_their_own() {
    let site = Site::new();
    let databases: Vec<Database> = (0..6).map(|_| shop(17)).collect();
    for _ in 0..4 {
        next_second();
        let running: Vec<Child> = databases
            .iter()
            .flat_map(|database| ["one", "two"].map(|primary| start(&mut backup(&site, database, &[primary, "copy"]))))
            .collect();
        for report in running.into_iter().map(end) {
            assert_eq!(report["stores"][1]["holds_backup"], true, "{report}");
        }
    }
    let verified = verify_all(&site, "copy");
    assert_eq!(verified.status.code(), Some(0), "{}", verified.stderr);
    assert_eq!(verified.json()["backups"].as_array().unwrap().len(), 48);
}

#[test]
fn a_file_of_another_run_is_neither_replaced_nor_removed() {
    let site = Site::new();
    let database = shop(17);
    database.sql("CREATE TABLE long AS SELECT n, repeat(md5(n::text), 20) AS text FROM generate_series(1, 20000) n");
    let mut command = backup(&site, &database, &["one", "copy"]);
    command.args(["--max-rate", "4M", "--compress", "none"]);
    let mut running = site.start(&mut command);
    // One that has never heard of claims ends its archive under our id, while ours is on its way.
    let copy = site.path().join("copy");
    let ours = || {
        tree(&copy)
            .into_iter()
            .find(|path| path.contains("-full/.") && path.contains(".dump."))
    };
    running.until("the copy is being written", || ours().is_some());
    let folder = copy.join(Path::new(&ours().unwrap()).parent().unwrap());
    let theirs = folder.join(format!("{}.dump", database.name));
    fs::write(&theirs, "theirs").unwrap();
    let run = running.end(Duration::from_secs(40));
    assert_eq!(run.status.code(), Some(3), "{}", run.stderr);
    assert_eq!(run.json()["stores"][1]["error"]["code"], "BUSY", "{}", run.text());
    assert_eq!(fs::read(&theirs).unwrap(), b"theirs");
    assert_eq!(tree(&folder).len(), 1, "{:?}", tree(&folder));
}

#[test]
fn another_server_under_the_same_prefix_is_refused_until_it_is_adopted() {
    let site = Site::new();
    let first = shop(17);
    succeed(&mut backup(&site, &first, &["one"]));
    let there = backups(&site.path().join("one"));
    let second = Database::fresh_named(18, &first.name);
    second.sql("CREATE TABLE orders (n int)");
    let failure = fail(&mut backup(&site, &second, &["one"]), "OTHER_DATABASE", 48);
    assert!(failure.message.contains("system identifier"), "{}", failure.message);
    assert!(failure.hint.contains("--adopt"), "{}", failure.hint);
    assert_eq!(backups(&site.path().join("one")), there);
    // A copy alone is left out.
    let report = degraded(&mut backup(&site, &second, &["two", "one"]));
    assert_eq!(report["stores"][1]["error"]["code"], "OTHER_DATABASE", "{report}");
    assert_eq!(backups(&site.path().join("one")), there);
    // Said once.
    succeed(backup(&site, &second, &["one"]).arg("--adopt"));
    succeed(&mut backup(&site, &second, &["one"]));
    fail(&mut backup(&site, &first, &["one"]), "OTHER_DATABASE", 48);
}

#[test]
fn a_store_that_had_backups_and_has_none_is_noticed_before_a_new_one_grows() {
    let site = Site::new();
    let database = shop(17);
    // The second run sees that the copy has the first one's backup, and says so.
    succeed(&mut backup(&site, &database, &["one", "two"]));
    succeed(&mut backup(&site, &database, &["one", "two"]));
    // As when the disk is not mounted: an empty folder of the same name.
    let unmount = |store: &str| {
        let path = site.path().join(store);
        fs::rename(&path, site.path().join(format!("{store} away"))).unwrap();
        fs::create_dir(&path).unwrap();
    };
    let mount = |store: &str| {
        fs::remove_dir_all(site.path().join(store)).unwrap();
        fs::rename(site.path().join(format!("{store} away")), site.path().join(store)).unwrap();
    };
    unmount("one");
    let failure = fail(&mut backup(&site, &database, &["one", "two"]), "ENOENT", 33);
    assert!(failure.message.contains("had some"), "{}", failure.message);
    assert!(failure.hint.contains("--store-create always"), "{}", failure.hint);
    assert_eq!(backups(&site.path().join("one")), [""; 0]);
    let status = |stores: &[&str]| {
        let mut status = pgstow();
        status
            .args(["status", "--json"])
            .args(stores.iter().flat_map(|store| ["--store", *store]));
        run(status.current_dir(site.path())).json()
    };
    let report = status(&["one", "two"]);
    assert!(
        report["problems"].to_string().contains("is its disk mounted?"),
        "{report}"
    );
    mount("one");
    unmount("two");
    let report = degraded(&mut backup(&site, &database, &["one", "two"]));
    assert_eq!(report["stores"][1]["error"]["code"], "ENOENT", "{report}");
    // Meant so.
    let report = succeed(backup(&site, &database, &["one", "two"]).args(["--store-create", "always"])).json();
    assert_eq!(report["stores"][1]["holds_backup"], true, "{report}");

    // Alone, a folder is remembered by this machine.
    let state = site.path().join("state");
    succeed(backup(&site, &database, &["one"]).env("BACKUP_STATE_DIR", &state));
    unmount("one");
    let failure = fail(
        backup(&site, &database, &["one"]).env("BACKUP_STATE_DIR", &state),
        "ENOENT",
        33,
    );
    assert!(failure.message.contains("is another"), "{}", failure.message);
    let mut status = pgstow();
    status
        .args(["status", "--store", "one"])
        .env("BACKUP_STATE_DIR", &state);
    let told = run(status.current_dir(site.path()));
    assert_eq!(told.status.code(), Some(1), "{}", told.text());
    assert!(told.text().contains("is another"), "{}", told.text());
    let failure = fail(
        backup(&site, &database, &["one"]).args(["--store-create", "never"]),
        "ENOENT",
        33,
    );
    assert!(
        failure.message.contains("holds nothing of pgstow's"),
        "{}",
        failure.message
    );
    mount("one");
    succeed(backup(&site, &database, &["one"]).args(["--store-create", "never"]));
}

#[test]
fn a_disk_that_is_not_mounted_any_more_is_noticed() {
    let (site, database) = (Site::new(), shop(17));
    let state = site.path().join("state");
    fs::create_dir(site.path().join("disk")).unwrap();
    let mut script = program("unshare");
    // The mounts of a namespace, which go with it.
    script.args(["--mount", "sh", "-ec"]);
    script.arg(
        r#"mount -t tmpfs none disk
        "$@"
        umount disk
        if "$@" 2>&1; then exit 7; fi
        ls -A disk
        BACKUP_STORE_CREATE=always "$@"
        rm -r disk/backups"#,
    );
    let backup = backup(&site, &database, &["disk/backups"]);
    script.arg("sh").arg(backup.get_program()).args(backup.get_args());
    script.envs(backup.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script.env("BACKUP_STATE_DIR", &state).current_dir(site.path());
    let told = succeed(&mut script).text();
    assert!(
        told.contains("ENOENT") && told.contains("on which backups were made"),
        "{told}"
    );
}

#[test]
fn a_failed_check_lets_no_backup_go() {
    let folder = Folder::new();
    let good = folder.plant("shop", 24 * 40, "daily");
    let old = folder.plant("shop", 24 * 50, "daily");
    let newest = folder.plant("shop", 24 * 35, "daily");
    folder.judge(&newest, Some("ok"), Some("failed"));
    let (report, code) = folder.json(&["prune", "--retention", "30d"]);
    assert_eq!((code, &report["removed"]), (0, &1.into()), "{report:#}");
    let there = |id: &str| folder.exists(&format!("{id}/manifest.json"));
    assert!(there(&newest) && there(&good) && !there(&old));
    assert!(
        report.to_string().contains("found damaged, which removes nothing"),
        "{report}"
    );
}

#[test]
fn a_server_whose_log_has_gone_back_is_told() {
    let site = Site::new();
    let database = shop(17);
    let report = succeed(&mut backup(&site, &database, &["one"])).json();
    assert!(!report.to_string().contains("was further"), "{report}");
    // As on the server whose disk this one's is an old copy of.
    let folder = site.path().join("one").join(report["id"].as_str().unwrap());
    let path = folder.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["snapshot"]["lsn"] = "FFFFFF/0".into();
    fs::write(&path, manifest.to_string()).unwrap();
    crate::support::wreck::reseal(&folder);
    let report = succeed(&mut backup(&site, &database, &["one"])).json();
    let warnings = report["warnings"].to_string();
    assert!(
        warnings.contains("was further when") && warnings.contains("a prefix of its own"),
        "{report:#}"
    );
    // From then on it is the newest.
    let report = succeed(&mut backup(&site, &database, &["one"])).json();
    assert!(!report.to_string().contains("was further"), "{report:#}");
}

#[test]
fn an_event_that_comes_again_is_answered_as_it_was() {
    let site = Site::new();
    let database = shop(17);
    let again = || {
        let mut command = backup(&site, &database, &["one", "two"]);
        command.args(["--event-id", "nightly"]);
        run(&mut command)
    };
    let two = site.path().join("two");
    fs::write(&two, "no folder").unwrap();
    for (repeated, code, status) in [(false, 3, "degraded"), (true, 3, "degraded")] {
        let told = again();
        let report = told.json();
        assert_eq!(
            (told.status.code(), &report["status"]),
            (Some(code), &status.into()),
            "{report:#}"
        );
        assert_eq!(
            report["repeated"],
            if repeated { true.into() } else { Value::Null },
            "{report:#}"
        );
        assert_eq!(report["stores"][1]["holds_backup"], false, "{report:#}");
    }
    fs::remove_file(&two).unwrap();
    let report = again().json();
    let error = &report["stores"][1]["error"];
    assert!(
        error["message"].as_str().unwrap().contains("does not hold"),
        "{report:#}"
    );
    // A person has repaired it.
    let copied = run(Command::new("cp").args(["-r", "one", "two"]).current_dir(site.path()));
    assert!(copied.status.success());
    let told = again();
    assert_eq!(
        (told.status.code(), &told.json()["status"]),
        (Some(0), &"succeeded".into()),
        "{}",
        told.text()
    );
}

/// A manifest behind a link is one: the run after it deletes nothing.
#[test]
fn a_manifest_behind_a_link_keeps_its_backup() {
    let site = Site::new();
    let database = shop(17);
    let report = succeed(&mut backup(&site, &database, &["one"])).json();
    let folder = site.path().join("one").join(report["id"].as_str().unwrap());
    let manifest = folder.join("manifest.json");
    fs::rename(&manifest, site.path().join("manifest.json")).unwrap();
    std::os::unix::fs::symlink(site.path().join("manifest.json"), &manifest).unwrap();
    let files = |folder: &Path| fs::read_dir(folder).unwrap().count();
    let before = files(&folder);
    next_second();
    succeed(&mut backup(&site, &database, &["one"]));
    assert_eq!(files(&folder), before);
    // A folder of that name is something too.
    fs::remove_file(&manifest).unwrap();
    fs::create_dir(&manifest).unwrap();
    next_second();
    succeed(&mut backup(&site, &database, &["one"]));
    assert_eq!(files(&folder), before);
    fs::remove_dir(&manifest).unwrap();
    next_second();
    let report = succeed(&mut backup(&site, &database, &["one"])).json();
    assert!(!folder.exists(), "{report}");
}
