//! What may lie in a folder store in the place of a file, and in the working folder in the place of
//! settings: giants, FIFOs, devices, sockets, links. No command waits for them, follows them, or takes
//! them into its memory.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::database::Database;
use crate::support::planted::Folder;
use crate::support::program::{Run, pgstow, run};
use crate::support::wreck::Site;

const GIANT: u64 = 3 << 30;
const PATIENCE: Duration = Duration::from_secs(60);
/// Two manifests of the greatest length, and pgstow itself.
const MEMORY_KB: u64 = 400_000;

/// In the place of a file.
const KINDS: [&str; 6] = ["giant", "fifo", "device", "socket", "link", "link to a device"];

fn put(kind: &str, path: &Path, precious: &Path) {
    let _ = fs::remove_file(path);
    match kind {
        "giant" => File::create(path).unwrap().set_len(GIANT).unwrap(),
        "fifo" => mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap(),
        // /dev/zero: whoever reads it to its end never ends.
        "device" => mknodat(
            CWD,
            path,
            FileType::CharacterDevice,
            Mode::RWXU,
            rustix::fs::makedev(1, 5),
        )
        .unwrap(),
        "socket" => drop(UnixListener::bind(path).unwrap()),
        "link" => symlink(precious, path).unwrap(),
        "link to a device" => symlink("/dev/zero", path).unwrap(),
        other => panic!("{other}"),
    }
}

/// Runs, but neither for ever nor with all the memory that it wants.
fn bounded(command: &mut Command) -> Run {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let status = format!("/proc/{}/status", child.id());
    while child.try_wait().unwrap().is_none() {
        let peak = fs::read_to_string(&status).unwrap_or_default();
        let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak: u64 = peak.map_or(0, |peak| peak.trim().trim_end_matches(" kB").parse().unwrap());
        if started.elapsed() > PATIENCE || peak > MEMORY_KB {
            child.kill().unwrap();
            panic!("{command:?} has {peak} kB after {:?}", started.elapsed());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    Run {
        status: output.status,
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A store with a good backup and one to be spoilt, and a file outside of it.
fn scene() -> (Folder, String, String, tempfile::TempDir) {
    let folder = Folder::new();
    let good = folder.plant("shop", 30, "daily");
    let spoilt = folder.plant("shop", 2, "daily");
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), "precious\n").unwrap();
    (folder, good, spoilt, outside)
}

#[test]
fn no_command_waits_for_follows_or_swallows_what_lies_in_a_manifests_place() {
    for kind in KINDS {
        let (folder, good, spoilt, outside) = scene();
        let precious = outside.path().join("precious");
        put(kind, &folder.path().join(&spoilt).join("manifest.json"), &precious);

        let list = bounded(&mut folder.command(&["list"]));
        assert!(list.status.success(), "{kind}: {}", list.stderr);
        let text = list.text();
        assert!(text.contains(&good) && text.contains(&spoilt), "{kind}: {text}");
        assert!(text.contains("was not read"), "{kind}: {text}");

        let status = bounded(&mut folder.command(&["status"]));
        assert_eq!(status.status.code(), Some(1), "{kind}: {}", status.stderr);
        assert!(status.text().contains("manifest.json"), "{kind}: {}", status.text());

        for args in [
            &["verify", spoilt.as_str()][..],
            &["download", spoilt.as_str()],
            &[
                "restore",
                spoilt.as_str(),
                "--target",
                "postgresql://nobody@127.0.0.1:1/x",
            ],
        ] {
            let run = bounded(&mut folder.command(args));
            assert_eq!(run.status.code(), Some(40), "{kind} {args:?}: {}", run.stderr);
            assert!(run.stderr.contains("manifest.json"), "{kind} {args:?}: {}", run.stderr);
        }

        let prune = bounded(&mut folder.command(&["prune", "--retention", "1d"]));
        assert!(prune.status.success(), "{kind}: {}", prune.stderr);
        assert!(folder.exists(&format!("{spoilt}/shop.dump")), "{kind}");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious\n");
    }
}

#[test]
fn nor_in_the_place_of_a_verification_a_table_of_contents_or_sums() {
    for kind in KINDS {
        let (folder, _, spoilt, outside) = scene();
        let precious = outside.path().join("precious");
        for name in ["verification.json", "shop.toc", "SHA256SUMS", "globals.sql"] {
            put(kind, &folder.path().join(&spoilt).join(name), &precious);
        }
        for args in [
            &["list"][..],
            &["status"],
            &["verify", &spoilt],
            &["download", &spoilt, "-o", "x"],
        ] {
            let run = bounded(&mut folder.command(args));
            assert!(
                matches!(run.status.code(), Some(0 | 1 | 40)),
                "{kind} {args:?}: {}",
                run.stderr
            );
        }
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious\n", "{kind}");
    }
}

#[test]
fn a_list_over_many_large_manifests_takes_no_more_memory_than_over_a_few() {
    let folder = Folder::new();
    let good = folder.plant("shop", 1, "daily");
    let ids: Vec<String> = (2..50).map(|hours| folder.plant("shop", hours, "daily")).collect();
    for id in &ids {
        let manifest = File::create(folder.path().join(id).join("manifest.json")).unwrap();
        manifest.set_len(100 << 20).unwrap();
    }
    let run = bounded(&mut folder.command(&["list", "--json"]));
    assert!(run.status.success(), "{}", run.stderr);
    let json = run.json();
    assert_eq!(json["backups"][0]["id"], good.as_str());
    assert_eq!(json["problems"].as_array().unwrap().len(), ids.len());
}

/// One text in a manifest may not grow in memory beyond the file that it stands in.
#[test]
fn a_manifest_that_would_grow_in_memory_is_broken() {
    let (folder, good, spoilt, _outside) = scene();
    let path = folder.path().join(&spoilt).join("manifest.json");
    let manifest = fs::read_to_string(&path).unwrap();
    let grown = manifest.replace(
        "\"metadata\":{}",
        &format!("\"metadata\":{{\"a\":[{}0]}}", "0,".repeat(40 << 20)),
    );
    assert!(grown.len() > manifest.len());
    fs::write(&path, grown).unwrap();
    let verify = bounded(&mut folder.command(&["verify", &spoilt]));
    assert_eq!(verify.status.code(), Some(40), "{}", verify.stderr);
    assert!(
        verify.stderr.contains("holds more than any manifest does"),
        "{}",
        verify.stderr
    );
    let list = bounded(&mut folder.command(&["list"]));
    assert!(list.text().contains(&good), "{}", list.text());
}

#[test]
fn a_backup_neither_hangs_on_a_lease_nor_writes_through_a_link() {
    let source = Database::fresh(17);
    source.sql("CREATE TABLE t AS SELECT 1 AS n");
    for kind in KINDS {
        let site = Site::new();
        let outside = tempfile::tempdir().unwrap();
        let precious = outside.path().join("precious");
        fs::write(&precious, "precious\n").unwrap();
        let folder = site.store().join(&source.name);
        fs::create_dir_all(&folder).unwrap();
        put(kind, &folder.join(".lease"), &precious);
        let backup = bounded(&mut site.backup(&source.url()));
        assert_eq!(backup.status.code(), Some(51), "{kind}: {}", backup.stderr);
        assert!(backup.stderr.contains(".lease"), "{kind}: {}", backup.stderr);
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious\n");
    }
    // The database's own folder, leading out.
    let site = Site::new();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir_all(site.store()).unwrap();
    symlink(outside.path(), site.store().join(&source.name)).unwrap();
    let backup = bounded(&mut site.backup(&source.url()));
    assert_eq!(backup.status.code(), Some(30), "{}", backup.stderr);
    assert!(backup.stderr.contains("symbolic link"), "{}", backup.stderr);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    // Whoever looks for all databases is told as well, and beside others too.
    let look = |args: &[&str]| {
        let mut command = crate::support::program::pgstow();
        command.args(args).args(["--json", "--store"]).arg(site.store());
        bounded(command.current_dir(site.path()))
    };
    for args in [&["list"][..], &["verify", "--all"]] {
        let told = look(args);
        assert_eq!(told.status.code(), Some(30), "{args:?}: {}", told.stderr);
        assert!(
            told.stderr.contains(&source.name) && told.stderr.contains("symbolic link"),
            "{}",
            told.stderr
        );
        assert!(told.stderr.contains("mount --bind"), "{}", told.stderr);
    }
    let folder = Folder::new();
    folder.plant("shop", 1, "daily");
    symlink(outside.path(), folder.path().join("elsewhere")).unwrap();
    let (listed, code) = folder.json(&["list"]);
    assert_eq!(
        (code, listed["backups"].as_array().unwrap().len()),
        (0, 1),
        "{listed:#}"
    );
    let problem = listed["problems"][0]["problem"].as_str().unwrap();
    assert!(
        problem.contains("elsewhere is a symbolic link") && problem.contains("mount --bind"),
        "{problem}"
    );
}

#[test]
fn a_sweep_and_a_prune_remove_links_and_not_what_they_lead_to() {
    let (folder, good, _, outside) = scene();
    let precious = outside.path().join("precious");
    let dead = folder.plant("shop", 24 * 40, "daily");
    fs::remove_file(folder.path().join(&dead).join("manifest.json")).unwrap();
    put("link", &folder.path().join(&dead).join("shop.dump"), &precious);
    // A folder of a backup that is itself a link out.
    let led = outside.path().join("led");
    fs::create_dir(&led).unwrap();
    fs::write(led.join("shop.dump"), "precious\n").unwrap();
    symlink(&led, folder.path().join("shop/20200101T000000Z-full")).unwrap();
    let prune = bounded(&mut folder.command(&["prune", "--retention", "1d", "--keep-last", "5"]));
    assert!(prune.status.success(), "{}", prune.stderr);
    assert!(!folder.exists(&format!("{dead}/shop.dump")), "{}", prune.text());
    assert!(folder.exists(&format!("{good}/shop.dump")));
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious\n");
    assert_eq!(fs::read_to_string(led.join("shop.dump")).unwrap(), "precious\n");
}

#[test]
fn the_store_itself_may_be_a_link() {
    let (folder, good, _, outside) = scene();
    let link = outside.path().join("link");
    symlink(folder.path(), &link).unwrap();
    let list = run(pgstow()
        .args(["list", "--store"])
        .arg(&link)
        .current_dir(outside.path()));
    assert!(list.text().contains(&good), "{}", list.stderr);
}

/// A name of the archive that a manifest gives is no path, no option, and nothing to overwrite.
#[test]
fn a_download_has_a_name_that_pgstow_would_have_given() {
    for (name, code) in [(".bashrc", 40), ("-rf.dump", 40), ("evil\n.dump", 40)] {
        let (folder, _, spoilt, outside) = scene();
        let path = folder.path().join(&spoilt).join("manifest.json");
        let manifest = fs::read_to_string(&path).unwrap();
        let named = serde_json::to_string(name).unwrap();
        fs::write(&path, manifest.replace("\"shop.dump\"", &named)).unwrap();
        fs::write(folder.path().join(&spoilt).join(name), "PGDMP").unwrap();
        let mut command = folder.command(&["download", &spoilt]);
        let download = bounded(command.current_dir(outside.path()));
        assert_eq!(download.status.code(), Some(code), "{name:?}: {}", download.stderr);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{name:?}");
    }
}

fn with_env_file(place: &Path) -> Run {
    run(pgstow().arg("list").env_remove("BACKUP_PG_BIN").current_dir(place))
}

#[test]
fn a_foreign_env_file_is_not_read_and_ours_does_not_choose_programs() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join(".env");
    let text = "BACKUP_STORE=/nowhere/at/all\nBACKUP_PG_BIN=/tmp/evil\n";
    fs::write(&path, text).unwrap();
    let read = |run: &Run| run.stderr.contains("/nowhere/at/all");

    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let ours = with_env_file(place.path());
    assert!(read(&ours), "{}", ours.stderr);
    assert!(
        ours.stderr.contains("BACKUP_PG_BIN from .env was ignored"),
        "{}",
        ours.stderr
    );

    for mode in [0o664, 0o646, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let run = with_env_file(place.path());
        assert!(!read(&run), "{mode:o}: {}", run.stderr);
        assert_eq!(run.stderr.matches("was not read").count(), 1, "{}", run.stderr);
        assert!(run.stderr.contains("chmod go-w"), "{}", run.stderr);
    }
    // Named, it counts as it is.
    let named = run(pgstow().args(["list", "--env-file", ".env"]).current_dir(place.path()));
    assert!(read(&named), "{}", named.stderr);
    assert!(!named.stderr.contains("ignored"), "{}", named.stderr);

    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&path, Some(12_345), Some(12_345)).unwrap();
    let foreign = with_env_file(place.path());
    assert!(
        !read(&foreign) && foreign.stderr.contains("uid 12345"),
        "{}",
        foreign.stderr
    );

    // A link of somebody else's to a file of ours, and a FIFO.
    fs::rename(&path, place.path().join("own")).unwrap();
    std::os::unix::fs::chown(place.path().join("own"), Some(0), Some(0)).unwrap();
    symlink("own", &path).unwrap();
    std::os::unix::fs::lchown(&path, Some(12_345), Some(12_345)).unwrap();
    let linked = with_env_file(place.path());
    assert!(
        !read(&linked) && linked.stderr.contains("uid 12345"),
        "{}",
        linked.stderr
    );
    fs::remove_file(&path).unwrap();
    put("fifo", &path, &path);
    let waited = bounded(pgstow().arg("list").current_dir(place.path()));
    assert!(!read(&waited), "{}", waited.stderr);
}

/// A folder that was cloned or unpacked is ours, with all that its author wrote.
#[test]
fn an_env_file_that_nobody_named_sends_no_file_and_no_password_anywhere() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heard);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let mut said = vec![0; 10_000];
            let count = client.read(&mut said).unwrap_or(0);
            // The password, in clear.
            drop(client.write_all(b"R\0\0\0\x08\0\0\0\x03"));
            let more = client.read(&mut said[count..]).unwrap_or(0);
            kept.lock().unwrap().push(said[..count + more].to_vec());
        }
    });
    let place = tempfile::tempdir().unwrap();
    let key = place.path().join("id_ed25519");
    fs::write(&key, "hunter2-of-the-file\n").unwrap();
    let theirs =
        format!("DB_HOST=127.0.0.1\nDB_PORT={port}\nDB_NAME=x\nDB_USER=x\nPGSSLMODE=disable\nPGREQUIREAUTH=password\n");
    let backup = |more: &str| {
        fs::write(place.path().join(".env"), format!("{theirs}{more}\n")).unwrap();
        let mut command = pgstow();
        command
            .arg("backup")
            .env("HOME", place.path())
            .current_dir(place.path());
        command
    };
    let run_of = |command: &mut Command, code: i32| {
        let run = bounded(command);
        assert_eq!(run.status.code(), Some(code), "{}", run.stderr);
        run.stderr
    };
    let told = run_of(&mut backup(&format!("DB_PASSWORD_FILE={}", key.display())), 11);
    assert!(told.contains("DB_PASSWORD_FILE from .env was ignored"), "{told}");
    assert!(!heard.lock().unwrap().is_empty(), "nobody called");
    let told = run_of(backup("").env("DB_PASSWORD", "hunter2-of-the-environment"), 2);
    assert!(
        told.contains("DB_HOST from .env") && told.contains("--env-file"),
        "{told}"
    );
    let told = run_of(backup("").env("BACKUP_SECRET_ID", "hunter2-of-the-account"), 2);
    assert!(told.contains("DB_HOST from .env"), "{told}");
    let heard = heard.lock().unwrap();
    let of_ours = |said: &Vec<u8>| String::from_utf8_lossy(said).contains("hunter2");
    assert!(
        !heard.iter().any(of_ours),
        "{:?}",
        heard
            .iter()
            .map(|said| String::from_utf8_lossy(said))
            .collect::<Vec<_>>()
    );
}
