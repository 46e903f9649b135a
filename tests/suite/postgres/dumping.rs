use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use pgstow::error::Code;
use pgstow::postgres::{Contents, Dump, DumpOrder, Passfile, Programs, Session, StallClock, WatchedPipe, globals};
use pgstow::settings::Format;
use secrecy::ExposeSecret;

use crate::postgres::place::{
    MAJORS, bin, client, connect, database, dump, dump_with, restored, role, scripted, settings, superuser, with_name,
};

/// Enough that pg_dump is not done before we look.
const LARGE: &str = "CREATE TABLE large AS SELECT i, repeat(md5(i::text), 30) AS t FROM generate_series(1, 60000) i";

async fn started(major: u32, info: &pgstow::postgres::ConnectionInfo) -> (Session, Option<Passfile>, Dump, File) {
    let settings = settings(major);
    let session = Session::connect(info, &settings).await.unwrap();
    let snapshot = session.export_snapshot().await.unwrap();
    let passfile = Passfile::create(&settings.temp, session.info()).unwrap();
    let programs = Programs::find(major, &settings).await.unwrap();
    let info = session.info().clone();
    let mut dump = Dump::start(&DumpOrder {
        programs: &programs,
        info: &info,
        passfile: passfile.as_ref(),
        snapshot: &snapshot.id,
        contents: Contents::Whole(Format::Custom),
        lock_wait: settings.lock_wait,
        settings: &settings,
    })
    .await
    .unwrap();
    let mut stdout = dump.take_stdout().unwrap();
    // It has read the catalogs and begun with the data.
    stdout.read_exact(&mut [0; 100_000]).unwrap();
    (session, passfile, dump, stdout)
}

/// Processes whose parent is `parent`, by the name `pg_dump`.
fn dumps_of(parent: u32) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let entry = entry.unwrap();
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let Some((head, tail)) = stat.rsplit_once(") ") else {
            continue;
        };
        let parent_of: u32 = tail.split(' ').nth(1).unwrap().parse().unwrap();
        if parent_of == parent && head.ends_with("(pg_dump") {
            found.push(head.split(' ').next().unwrap().parse().unwrap());
        }
    }
    found
}

fn arguments_of(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

async fn drained(mut stdout: File) {
    tokio::task::spawn_blocking(move || std::io::copy(&mut stdout, &mut std::io::sink()))
        .await
        .unwrap()
        .unwrap();
}

async fn the_dump_holds_what_the_snapshot_saw(major: u32) {
    let info = database(major, "frozen", "CREATE TABLE t AS SELECT 'before' AS a").await;
    let settings = settings(major);
    let session = connect(&info, major).await.unwrap();
    let snapshot = session.export_snapshot().await.unwrap();
    client(&info)
        .await
        .batch_execute("INSERT INTO t VALUES ('after')")
        .await
        .unwrap();
    let passfile = Passfile::create(&settings.temp, session.info()).unwrap();
    let programs = Programs::find(major, &settings).await.unwrap();
    for format in [Format::Custom, Format::Plain] {
        let mut dump = Dump::start(&DumpOrder {
            programs: &programs,
            info: session.info(),
            passfile: passfile.as_ref(),
            snapshot: &snapshot.id,
            contents: Contents::Whole(format),
            lock_wait: settings.lock_wait,
            settings: &settings,
        })
        .await
        .unwrap();
        let mut bytes = Vec::new();
        dump.take_stdout().unwrap().read_to_end(&mut bytes).unwrap();
        dump.wait().await.unwrap();
        dump.wait().await.unwrap();
        let sql = match format {
            Format::Custom => {
                assert_eq!(&bytes[..5], b"PGDMP");
                restored(&bytes, major)
            }
            Format::Plain => String::from_utf8(bytes).unwrap(),
        };
        assert!(sql.contains("before") && !sql.contains("after"));
    }
}

on_majors! { async the_dump_holds_what_the_snapshot_saw: 15 17 }

#[tokio::test]
async fn databases_of_any_name_are_dumped_and_their_globals_too() {
    let names = [
        "a=b",
        "postgres://elsewhere/db",
        "it's \"quoted\" \\ and $HOME `id`",
        "-d",
        "--help",
        "new\nline",
        " leading and trailing ",
        "ünï 🐘",
        "a/../b",
        "dbname='x' host=nowhere",
    ];
    for major in MAJORS {
        for name in names {
            let info = database(major, name, "CREATE TABLE marker (a int)").await;
            let (bytes, verdict) = dump(&info, major).await;
            verdict.unwrap_or_else(|error| panic!("{name:?}: {error}"));
            assert!(
                restored(&bytes, major).contains("CREATE TABLE public.marker"),
                "{name:?}"
            );
            let settings = settings(major);
            let passfile = Passfile::create(&settings.temp, &info).unwrap();
            let programs = Programs::find(major, &settings).await.unwrap();
            let limit = Duration::from_secs(30);
            let text = globals(&programs, &info, passfile.as_ref(), &settings, limit).await;
            let text = text.unwrap_or_else(|error| panic!("{name:?}: {error}")).sql;
            let text = String::from_utf8(text).unwrap();
            assert!(
                text.contains("CREATE ROLE postgres") && !text.contains("PASSWORD"),
                "{text}"
            );
            let quoted = crate::postgres::place::quoted(name);
            let drop = format!("DROP DATABASE {quoted}");
            client(&superuser(major)).await.batch_execute(&drop).await.unwrap();
        }
    }
}

#[tokio::test]
async fn globals_that_the_role_may_not_read_say_why() {
    let info = database(15, "no_globals", "").await;
    let info = role(&info, "humble", "").await;
    let settings = settings(15);
    let programs = Programs::find(15, &settings).await.unwrap();
    let limit = Duration::from_secs(30);
    let error = globals(&programs, &info, None, &settings, limit).await.unwrap_err();
    assert_eq!(
        error.code(),
        Code::ConnErr,
        "no passfile, no login, and pg_dumpall does not say more: {error}"
    );
    let passfile = Passfile::create(&settings.temp, &info).unwrap();
    // Privileges on the catalogs are each database's own, so other tests are not affected.
    client(&with_name(&superuser(15), "no_globals"))
        .await
        .batch_execute("REVOKE SELECT ON pg_catalog.pg_roles FROM public")
        .await
        .unwrap();
    let result = globals(&programs, &info, passfile.as_ref(), &settings, limit).await;
    let error = result.unwrap_err();
    assert_eq!(error.code(), Code::Permission, "{error}");
    let mut without = programs.clone();
    without.pg_dumpall = None;
    let error = globals(&without, &info, None, &settings, limit).await.unwrap_err();
    assert!(error.message().contains("missing"), "{error}");
}

async fn a_lock_that_is_not_given_ends_the_dump_with_a_hint(major: u32) {
    let info = database(major, "locked", "CREATE TABLE t (a int)").await;
    let mut locker = client(&info).await;
    let transaction = locker.transaction().await.unwrap();
    transaction
        .batch_execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let mut settings = settings(major);
    settings.lock_wait = Duration::from_secs(1);
    let programs = Programs::find(major, &settings).await.unwrap();
    let (_, verdict) = dump_with(&programs, &info, &settings).await;
    let error = verdict.unwrap_err();
    assert_eq!(error.code(), Code::PgDumpErr, "{error}");
    assert!(error.hint_text().contains("lock"), "{}", error.hint_text());
    assert!(error.message().contains("LOCK TABLE"), "{error}");
}

on_majors! { async a_lock_that_is_not_given_ends_the_dump_with_a_hint: 15 17 }

#[tokio::test]
async fn a_dump_that_stops_giving_is_seen_and_ended() {
    let info = database(17, "stalling", LARGE).await;
    let (_session, _passfile, dump, stdout) = started(17, &info).await;
    let pid = dumps_of(std::process::id())[0];
    signal(pid, rustix::process::Signal::STOP);
    let clock = StallClock::default();
    let mut pipe = WatchedPipe::new(stdout, clock.clone());
    let reader = std::thread::spawn(move || std::io::copy(&mut pipe, &mut std::io::sink()));
    let limit = Duration::from_millis(700);
    tokio::time::timeout(Duration::from_secs(20), clock.watch(limit))
        .await
        .unwrap();
    // A stopped process does not hear SIGTERM: after the grace it is killed.
    dump.stop().await;
    reader.join().unwrap().unwrap();
    assert!(!is_alive(pid));
    let error = dump.wait().await.unwrap_err();
    assert_eq!(error.code(), Code::PgDumpErr);
    assert!(error.message().contains("SIGKILL"), "{error}");
}

#[tokio::test]
async fn a_dump_is_stopped_in_order_and_its_query_on_the_server_too() {
    let info = database(15, "stopping", LARGE).await;
    let (_session, _passfile, dump, _stdout) = started(15, &info).await;
    let pid = dumps_of(std::process::id())[0];
    dump.stop().await;
    assert!(!is_alive(pid));
    let error = dump.wait().await.unwrap_err();
    assert!(!error.message().contains("SIGKILL"), "SIGTERM was enough: {error}");
    let admin = client(&superuser(15)).await;
    let question = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'stopping' AND application_name = 'pgstow'
                    AND query LIKE 'COPY%'";
    for _ in 0..30 {
        if admin.query_one(question, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the server still copies");
}

#[tokio::test]
async fn a_killed_dump_is_an_error_that_names_the_signal() {
    let info = database(15, "killing", LARGE).await;
    let (_session, _passfile, dump, stdout) = started(15, &info).await;
    signal(dumps_of(std::process::id())[0], rustix::process::Signal::KILL);
    drained(stdout).await;
    let error = dump.wait().await.unwrap_err();
    assert_eq!(error.code(), Code::PgDumpErr);
    assert!(error.message().contains("SIGKILL"), "{error}");
}

#[tokio::test]
async fn a_session_cut_by_the_server_is_a_lost_connection() {
    let info = database(17, "cutting", LARGE).await;
    let (_session, _passfile, dump, stdout) = started(17, &info).await;
    client(&superuser(17))
        .await
        .batch_execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'cutting' AND query LIKE 'COPY%'",
        )
        .await
        .unwrap();
    drained(stdout).await;
    let error = dump.wait().await.unwrap_err();
    assert_eq!(error.code(), Code::ConnErr, "{error}");
}

#[tokio::test]
async fn a_dropped_dump_is_gone() {
    let info = database(15, "dropping", LARGE).await;
    let (_session, _passfile, dump, _stdout) = started(15, &info).await;
    let pid = dumps_of(std::process::id())[0];
    drop(dump);
    for _ in 0..50 {
        if !is_alive(pid) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("pg_dump outlived its owner");
}

#[tokio::test]
async fn an_exit_status_after_the_last_byte_counts() {
    let info = database(15, "late_failure", "CREATE TABLE t (a int)").await;
    let folder = tempfile::tempdir().unwrap();
    let programs = scripted(
        folder.path(),
        15,
        "$REAL \"$@\"\necho 'pg_dump: error: too late' >&2\nexit 1",
    );
    let (bytes, verdict) = dump_with(&programs, &info, &settings(15)).await;
    assert!(
        restored(&bytes, 15).contains("CREATE TABLE public.t"),
        "the archive itself is whole"
    );
    let error = verdict.unwrap_err();
    assert_eq!(error.code(), Code::PgDumpErr);
    assert!(
        error.message().contains("exit status 1") && error.message().contains("too late"),
        "{error}"
    );
}

#[tokio::test]
async fn what_a_wrapper_leaves_running_is_ended_and_does_not_hold_us_up() {
    let info = database(15, "left_over", "").await;
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("pid");
    let programs = scripted(
        folder.path(),
        15,
        &format!("sleep 300 & echo $! > {}\nexit 0", note.display()),
    );
    let (_, verdict) = dump_with(&programs, &info, &settings(15)).await;
    verdict.unwrap();
    let pid = std::fs::read_to_string(note).unwrap().trim().parse().unwrap();
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn no_secret_is_in_the_arguments_environment_or_errors_of_the_child() {
    let info = database(15, "quiet", "").await;
    let info = role(&info, "quiet_role", "SUPERUSER").await;
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    let body = format!(
        "printf '%s\\n' \"$@\" > {at}/arguments; env > {at}/environment\ncat \"$PGPASSFILE\" > {at}/passfile\n\
         ls -ld \"$(dirname \"$PGPASSFILE\")\" \"$PGPASSFILE\" > {at}/modes\n\
         echo 'failed with pw of quiet_role and password=other' >&2\nexit 3"
    );
    let programs = scripted(folder.path(), 15, &body);
    let mut settings = settings(15);
    settings.temp = folder.path().into();
    settings.child_env.push(("PGPASSWORD".into(), "hunter2".into()));
    let (_, verdict) = dump_with(&programs, &info, &settings).await;
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let arguments = read("arguments");
    assert!(
        !arguments.contains("pw of") && arguments.contains("user='quiet_role'"),
        "{arguments}"
    );
    let environment = read("environment");
    assert!(
        !environment.contains("pw of") && !environment.contains("hunter2"),
        "{environment}"
    );
    let mut names: Vec<_> = environment
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    // The shell adds these by itself.
    names.retain(|name| !matches!(*name, "PWD" | "SHLVL" | "_" | "OLDPWD"));
    names.sort_unstable();
    assert_eq!(names, ["LC_ALL", "PATH", "PGAPPNAME", "PGPASSFILE", "PGTZ"]);
    assert_eq!(read("passfile"), "*:*:*:*:pw of quiet_role\n");
    let modes = read("modes");
    assert!(
        modes.starts_with("drwx------") && modes.contains("-rw-------"),
        "{modes}"
    );
    let error = verdict.unwrap_err();
    assert!(error.message().contains("failed with *** and password=***"), "{error}");
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.starts_with("pgstow-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(folder.path().metadata().unwrap().permissions().mode() & 0o700 == 0o700);
}

#[tokio::test]
async fn a_killed_pgstow_leaves_no_pg_dump_behind_and_the_next_run_sweeps_its_folder() {
    let info = database(15, "orphaning", LARGE).await;
    // While it waits for this catalog, which pg_dump alone reads, it writes nothing, so no broken pipe can end it.
    let holder = client(&info).await;
    holder
        .batch_execute("BEGIN; LOCK TABLE pg_catalog.pg_ts_template")
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let password = info
        .password
        .as_ref()
        .map(|password| password.expose_secret().to_owned());
    let mut victim = Command::new(env!("CARGO_BIN_EXE_pgstow"))
        .args(["backup", "--store", "store", "--database-url", &info.to_conninfo()])
        .current_dir(folder.path())
        .env_clear()
        .env("BACKUP_PG_BIN", bin(15))
        .env("DB_PASSWORD", password.unwrap_or_default())
        .env("TMPDIR", folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut dumps = Vec::new();
    for _ in 0..500 {
        dumps = dumps_of(victim.id());
        dumps.retain(|pid| arguments_of(*pid).contains("--snapshot="));
        if !dumps.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(dumps.len(), 1);
    victim.kill().unwrap();
    victim.wait().unwrap();
    for _ in 0..50 {
        if !is_alive(dumps[0]) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!is_alive(dumps[0]), "pg_dump outlived a killed pgstow");
    assert_eq!(pgstow::run::private_folder::sweep_stale(folder.path()).unwrap(), 1);
    let left = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["store"]);
}
