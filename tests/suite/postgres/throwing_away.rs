//! A throwaway server leaves nothing, however its owner ends.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pgstow::error::Code;
use pgstow::postgres::{Lacking, ScratchServer, ServerPrograms, Session};
use pgstow::settings::Postgres;

use crate::postgres::place::{bin, settings};
use crate::support::throwaway::client;

/// Where [`an_owner_that_lives_until_it_is_killed`] makes its server, and where it says that it runs.
const TEMP: &str = "PGSTOW_TEST_SCRATCH_TEMP";
const MAJOR: &str = "PGSTOW_TEST_SCRATCH_MAJOR";
/// Whether it stops its server by itself.
const STOPS: &str = "PGSTOW_TEST_SCRATCH_STOPS";

/// Below /tmp: the user `postgres` must be able to get there.
fn temp() -> tempfile::TempDir {
    let temp = tempfile::Builder::new()
        .prefix("pgstow-scratch-")
        .tempdir_in("/tmp")
        .unwrap();
    std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    temp
}

async fn start(major: u32, temp: &Path, settings: &Postgres) -> ScratchServer {
    let programs = ServerPrograms::find(major, settings).await.unwrap();
    ScratchServer::start(&programs, temp, settings, Lacking::Refused)
        .await
        .unwrap()
}

/// Processes at work in the folder, or that name it in their arguments, but for this one.
fn processes_of(folder: &Path) -> Vec<u32> {
    let name = folder.to_str().unwrap();
    let pids = std::fs::read_dir("/proc").unwrap();
    let pids = pids.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let at = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        at.starts_with(folder) || String::from_utf8_lossy(&arguments).contains(name)
    })
    .collect()
}

/// The numbers of the processes that made the System V segments there are.
fn owners_of_shared_memory() -> Vec<u32> {
    let text = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let lines = text.lines().skip(1);
    lines
        .map(|line| line.split_whitespace().nth(4).unwrap().parse().unwrap())
        .collect()
}

fn left_in(temp: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(temp)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

async fn assert_nothing_is_left(temp: &Path, processes: &[u32]) {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let shared = owners_of_shared_memory();
        let shared: Vec<_> = shared.iter().filter(|pid| processes.contains(pid)).collect();
        let (running, folders) = (processes_of(temp), left_in(temp));
        if running.is_empty() && folders.is_empty() && shared.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{running:?} {folders:?} {shared:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn a_server_of_each_major_starts_serves_and_leaves_nothing(major: u32) {
    let temp = temp();
    let settings = settings(major);
    let server = start(major, temp.path(), &settings).await;
    assert!(server.version().starts_with(&major.to_string()));
    let session = Session::connect(server.info(), &settings).await.unwrap();
    assert_eq!(
        (session.server().major, session.server().encoding.as_str()),
        (major, "UTF8")
    );
    let config = server.info();
    assert!(
        config
            .host
            .as_deref()
            .unwrap()
            .starts_with(temp.path().to_str().unwrap())
    );
    let client = client(&server).await;
    let shown = client
        .query_one(
            "SELECT current_setting('listen_addresses'), current_setting('fsync'), upper('é')::text",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(
        (
            shown.get::<_, &str>(0),
            shown.get::<_, &str>(1),
            shown.get::<_, &str>(2)
        ),
        ("", "off", "É")
    );
    client
        .batch_execute("CREATE TABLE t AS SELECT g FROM generate_series(1, 100000) g")
        .await
        .unwrap();
    let processes = processes_of(temp.path());
    assert!(
        processes.len() >= 3,
        "postmaster, its children and the watchdog: {processes:?}"
    );
    // With sessions open.
    server.stop().await.unwrap();
    assert!(left_in(temp.path()).is_empty(), "it is gone when `stop` returns");
    assert_nothing_is_left(temp.path(), &processes).await;
}

on_majors! { async a_server_of_each_major_starts_serves_and_leaves_nothing: 15 16 17 18 }

async fn modules_of_a_relocated_installation_load(major: u32) {
    let temp = temp();
    let server = start(major, temp.path(), &settings(major)).await;
    let client = client(&server).await;
    client
        .batch_execute("CREATE EXTENSION postgres_fdw; CREATE EXTENSION pg_trgm")
        .await
        .unwrap();
    server.stop().await.unwrap();
}

on_majors! { async modules_of_a_relocated_installation_load: 17 18 }

#[tokio::test]
async fn dropped_while_it_starts_or_later_it_leaves_nothing() {
    let temp = temp();
    let settings = settings(15);
    let programs = ServerPrograms::find(15, &settings).await.unwrap();
    for millis in [1, 50, 200, 500, 900, 1300, 1800] {
        let starting = ScratchServer::start(&programs, temp.path(), &settings, Lacking::Refused);
        let mut processes = Vec::new();
        let seen = async {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            processes = processes_of(temp.path());
        };
        tokio::select! {
            server = starting => drop(server.unwrap()),
            () = seen => {}
        }
        // Before it has processes a thread may be making its folders still, and removes them when it is done.
        assert!(
            processes.is_empty() || left_in(temp.path()).is_empty(),
            "after {millis} ms"
        );
        assert_nothing_is_left(temp.path(), &processes).await;
    }
}

#[tokio::test]
async fn a_long_temporary_folder_has_its_socket_elsewhere() {
    let temp = temp();
    let long = temp.path().join("a \"long\", odd folder ".repeat(5));
    std::fs::create_dir(&long).unwrap();
    std::fs::set_permissions(&long, std::fs::Permissions::from_mode(0o755)).unwrap();
    let settings = settings(15);
    let server = start(15, &long, &settings).await;
    let socket = PathBuf::from(server.info().host.clone().unwrap());
    assert!(socket.starts_with("/tmp") && !socket.starts_with(temp.path()));
    assert!(server.data().starts_with(&long));
    Session::connect(server.info(), &settings).await.unwrap();
    server.stop().await.unwrap();
    assert!(!socket.exists() && left_in(&long).is_empty());
    // An odd name alone is no reason to go elsewhere.
    let odd = temp.path().join("a, \"b\" 'c'");
    std::fs::create_dir(&odd).unwrap();
    std::fs::set_permissions(&odd, std::fs::Permissions::from_mode(0o755)).unwrap();
    let server = start(15, &odd, &settings).await;
    assert!(
        server
            .info()
            .host
            .as_deref()
            .unwrap()
            .starts_with(odd.to_str().unwrap())
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why_and_leaves_nothing() {
    let temp = temp();
    let folder = temp.path().join("bin");
    std::fs::create_dir(&folder).unwrap();
    let script = |name: &str, body: &str| {
        let file = folder.join(name);
        std::fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let real = bin(15);
    let version = |name: &str| format!("[ \"$1\" != --version ] || exec {}/{name} --version", real.display());
    script("initdb", "echo 'initdb: error: no space left' >&2; exit 1");
    script("postgres", &version("postgres"));
    let mut settings = settings(15);
    settings.bin = Some(vec![folder.clone()]);
    let programs = ServerPrograms::find(15, &settings).await.unwrap();
    let error = ScratchServer::start(&programs, temp.path(), &settings, Lacking::Refused)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::RestoreErr);
    assert!(error.message().contains("no space left"), "{error}");
    script("initdb", &format!("exec {}/initdb \"$@\"", real.display()));
    script(
        "postgres",
        &format!(
            "{}\necho '2026 [1] FATAL:  could not map memory' >&2; exit 1",
            version("postgres")
        ),
    );
    let error = ScratchServer::start(&programs, temp.path(), &settings, Lacking::Refused)
        .await
        .unwrap_err();
    assert!(error.message().contains("could not map memory"), "{error}");
    assert_eq!(left_in(temp.path()), [folder]);
    if rustix::process::geteuid().is_root() {
        let closed = temp.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
        let error = ScratchServer::start(&programs, &closed, &settings, Lacking::Refused)
            .await
            .unwrap_err();
        assert!(error.message().contains("may not enter"), "{error}");
        assert!(left_in(&closed).is_empty());
    }
}

/// No test by itself: others start it as a process of its own.
#[tokio::test]
async fn an_owner_that_lives_until_it_is_killed() {
    let (Ok(temp), Ok(major)) = (std::env::var(TEMP), std::env::var(MAJOR)) else {
        return;
    };
    let major = major.parse().unwrap();
    let server = start(major, Path::new(&temp), &settings(major)).await;
    let client = client(&server).await;
    std::fs::write(Path::new(&temp).join("ready"), "").unwrap();
    if std::env::var(STOPS).is_ok() {
        server.stop().await.unwrap();
        return;
    }
    // A session at work.
    let _ = client
        .batch_execute("SELECT count(*) FROM generate_series(1, 10000000000)")
        .await;
}

fn owner(command: &mut Command, temp: &Path, major: u32) -> Child {
    command
        .args([
            "postgres::throwing_away::an_owner_that_lives_until_it_is_killed",
            "--exact",
        ])
        .env(TEMP, temp)
        .env(MAJOR, major.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_killed_owner_leaves_no_server_no_folder_and_no_shared_memory() {
    for (major, while_starting) in [
        (15, None),
        (18, None),
        (15, Some(150)),
        (15, Some(600)),
        (15, Some(1100)),
    ] {
        let temp = temp();
        let mut owner = owner(&mut Command::new(std::env::current_exe().unwrap()), temp.path(), major);
        let ready = temp.path().join("ready");
        match while_starting {
            Some(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            None => {
                while !ready.exists() {
                    assert!(owner.try_wait().unwrap().is_none());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        let processes = processes_of(temp.path());
        assert!(while_starting.is_some() || processes.len() >= 3);
        owner.kill().unwrap();
        owner.wait().unwrap();
        let _ = std::fs::remove_file(&ready);
        assert_nothing_is_left(temp.path(), &processes).await;
    }
}

#[tokio::test]
async fn an_owner_that_is_not_root_has_a_server_of_his_own() {
    if !rustix::process::geteuid().is_root() {
        // Then every other test here is about that.
        return;
    }
    let temp = temp();
    // Where this program is, only root may go.
    let program = temp.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"])
        .arg(&program);
    let mut owner = owner(command.env(STOPS, "yes").current_dir("/"), temp.path(), 15);
    assert!(owner.wait().unwrap().success());
    std::fs::remove_file(temp.path().join("ready")).unwrap();
    std::fs::remove_file(&program).unwrap();
    assert_nothing_is_left(temp.path(), &[]).await;
}
