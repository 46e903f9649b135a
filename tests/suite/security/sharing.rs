//! A folder store whose backups a user of another name drills: it reads them by their group, puts its results beside
//! them, and can do nothing else to them.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::support::database::Database;
use crate::support::program::{pgstow, program, run, succeed};
use crate::support::wreck::{Site, fail, tree};

/// To whom the backups belong, who drills them, and the group of both: none has a name here.
const OWNER: u32 = 54_331;
const DRILLS: u32 = 54_332;
const GROUP: u32 = 54_333;

fn open(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// pgstow as this user, who may not go where our program is.
fn as_user(site: &Site, uid: u32, args: &[&str]) -> Command {
    let copy = site.path().join("pgstow");
    if !copy.exists() {
        fs::copy(pgstow().get_program(), &copy).unwrap();
        open(&copy, 0o755);
    }
    let mut command = program(&copy);
    for (name, value) in pgstow().get_envs() {
        command.env(name, value.unwrap());
    }
    command
        .args(args)
        .args(["--json", "--store"])
        .arg(site.store())
        .env("TMPDIR", site.path().join("tmp"))
        .current_dir(site.path());
    command.uid(uid).gid(GROUP);
    command
}

/// Each file but the results, with its owner, its mode and its bytes.
fn files(store: &Path) -> BTreeMap<String, (u32, u32, Vec<u8>)> {
    let names = tree(store)
        .into_iter()
        .filter(|name| !name.contains("verification.json"));
    names
        .map(|name| {
            let path = store.join(&name);
            let about = fs::symlink_metadata(&path).unwrap();
            let bytes = if about.is_file() {
                fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            (name, (about.uid(), about.mode(), bytes))
        })
        .collect()
}

/// Tells nothing where the tests do not run as root.
#[test]
fn who_drills_by_the_group_reads_all_and_changes_nothing_but_results() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (site, source) = (Site::new(), Database::fresh(17));
    source.sql("CREATE TABLE t AS SELECT 1 AS n");
    open(site.path(), 0o755);
    open(&site.path().join("tmp"), 0o1777);
    let store = site.store();
    fs::create_dir(&store).unwrap();
    chown(&store, Some(OWNER), Some(GROUP)).unwrap();
    open(&store, 0o1750);
    let report = succeed(&mut site.backup(&source.url())).json();
    let id = report["id"].as_str().unwrap();
    let folder = store.join(id);

    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(folder.parent().unwrap()), 0o1750);
    assert_eq!(mode(&folder), 0o1770);
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let about = fs::metadata(&path).unwrap();
        let of = (about.uid(), about.gid(), about.mode() & 0o7777);
        assert_eq!(of, (OWNER, GROUP, 0o640), "{}", path.display());
    }

    // Its own result it can replace.
    let before = files(&store);
    for _ in 0..2 {
        let report = succeed(&mut as_user(&site, DRILLS, &["verify", "latest"])).json();
        assert!(report["warnings"].is_null(), "{report:#}");
    }
    let result = fs::metadata(folder.join("verification.json")).unwrap();
    assert_eq!(
        (result.uid(), result.gid(), result.mode() & 0o7777),
        (DRILLS, GROUP, 0o640)
    );
    let listed = succeed(&mut as_user(&site, OWNER, &["list"])).json();
    assert_eq!(listed["backups"][0]["verified"]["status"], "ok", "{listed:#}");

    // Whoever has taken its place tries this with all that is there, and with what is not.
    let attack = r#"
        for one in */*/* .* */.*; do
            rm -f "$one"; mv "$one" "$one.x"; echo >> "$one"; chmod 777 "$one"; chown "$(id -u)" "$one"; cp /dev/null "$one"
        done
        for one in */* *; do
            mv "$one" "$one.x"; mkdir "$one/20990101T000000Z-full"; chmod 777 "$one"
        done
        mkdir x x/20990101T000000Z-full
        for one in */*/; do mkdir -p "$one/closed/below"; chmod 0 "$one/closed" "$one/verification.json"; done
        true"#;
    let mut shell = program("sh");
    shell.args(["-c", attack]).current_dir(&store).uid(DRILLS).gid(GROUP);
    succeed(&mut shell);
    let mut after = files(&store);
    // What it may do: put things of its own beside a backup's files.
    after.retain(|name, (uid, ..)| before.contains_key(name) || *uid != DRILLS || !name.starts_with(id));
    assert_eq!(after, before);
    let listed = run(&mut as_user(&site, OWNER, &["list"])).json();
    assert_eq!(listed["backups"].as_array().map(Vec::len), Some(1), "{listed:#}");
    // A folder that is closed, and a result that is, end nothing.
    succeed(&mut as_user(&site, OWNER, &["verify", id]));
    let status = run(&mut as_user(&site, OWNER, &["status"])).json();
    assert!(status["error"].is_null(), "{status:#}");
    succeed(as_user(&site, OWNER, &["backup"]).env("DATABASE_URL", source.url()));
}

/// As a store is that nobody has opened: the user of the drill is told what it may not read.
#[test]
fn a_store_that_is_not_shared_is_closed_to_all_others() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (site, source) = (Site::new(), Database::fresh(17));
    open(site.path(), 0o755);
    open(&site.path().join("tmp"), 0o1777);
    fs::create_dir(site.store()).unwrap();
    chown(site.store(), Some(OWNER), Some(GROUP)).unwrap();
    open(&site.store(), 0o750);
    succeed(&mut site.backup(&source.url()));
    fail(&mut as_user(&site, DRILLS, &["verify", "latest"]), "EACCES", 32);
}
