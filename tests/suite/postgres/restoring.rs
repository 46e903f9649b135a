use std::collections::HashSet;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use pgstow::error::Code;
use pgstow::format::archive::Section;
use pgstow::postgres::{
    ArchiveInput, ConnectionInfo, Passfile, Psql, RestoreEnd, RestoreOrder, RestoreProgram, Restoring, Script,
};
use pgstow::settings::Postgres;

use crate::postgres::place::{bin, client, database, dump, settings};

const SHOP: &str = "CREATE TABLE items (id int PRIMARY KEY, name text);
    INSERT INTO items SELECT g, 'item ' || g FROM generate_series(1, 1000) g;
    CREATE TABLE prices (item int REFERENCES items, price numeric);
    INSERT INTO prices SELECT g, g / 4.0 FROM generate_series(1, 1000) g;
    CREATE VIEW dear AS SELECT * FROM prices WHERE price > 100;";

/// 1.14 for 15, 1.15 for 16, 1.16 from 17 on.
fn archive_version(major: u32) -> (u8, u8) {
    (1, (major - 1).clamp(14, 16).try_into().unwrap())
}

async fn program(dumped_by: u32, target: u32, settings: &Postgres) -> RestoreProgram {
    RestoreProgram::find(archive_version(dumped_by), target, settings)
        .await
        .unwrap()
}

fn order<'a>(
    program: &'a RestoreProgram,
    info: &'a ConnectionInfo,
    passfile: Option<&'a Passfile>,
    settings: &'a Postgres,
) -> RestoreOrder<'a> {
    RestoreOrder {
        program,
        info,
        passfile,
        settings,
        archive: ArchiveInput::Stdin,
        list: None,
        sections: Vec::new(),
        jobs: 1,
        single_transaction: false,
        no_owner: false,
        no_privileges: false,
        no_tablespaces: false,
        exit_on_error: true,
        may_fail: HashSet::new(),
        as_text: false,
    }
}

/// Feeds it as a restore does, and waits.
async fn fed(order: &RestoreOrder<'_>, archive: &[u8]) -> pgstow::error::Result<RestoreEnd> {
    let mut restoring = Restoring::start(order).await.unwrap();
    let stdin = restoring.take_stdin();
    let archive = archive.to_vec();
    let writing = tokio::task::spawn_blocking(move || {
        stdin.map(|mut stdin| {
            // It may end before it has read everything: what it says then is what matters.
            stdin.write_all(&archive)
        })
    });
    let end = restoring.wait().await;
    let _ = writing.await.unwrap();
    end
}

async fn count(info: &ConnectionInfo, what: &str) -> i64 {
    let question = format!("SELECT count(*) FROM {what}");
    client(info).await.query_one(&question, &[]).await.unwrap().get(0)
}

async fn tables(info: &ConnectionInfo) -> Vec<String> {
    let question =
        "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1";
    let rows = client(info).await.query(question, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// The archive of a database filled by `sql`, dumped by its own major.
async fn archive_of(major: u32, name: &str, sql: &str) -> Vec<u8> {
    let info = database(major, name, sql).await;
    let (archive, verdict) = dump(&info, major).await;
    verdict.unwrap();
    archive
}

async fn an_archive_of_each_major_goes_back_into_its_own_major_from_stdin(major: u32) {
    let archive = archive_of(major, "restore_source", SHOP).await;
    let target = database(major, "restore_target", "").await;
    let settings = settings(major);
    let program = program(major, major, &settings).await;
    assert!(!program.tolerates_transaction_timeout);
    let passfile = Passfile::create(&settings.temp, &target).unwrap();
    let order = RestoreOrder {
        single_transaction: true,
        ..order(&program, &target, passfile.as_ref(), &settings)
    };
    assert_eq!(fed(&order, &archive).await.unwrap(), RestoreEnd::default());
    assert_eq!(count(&target, "items").await, 1000);
    assert_eq!(count(&target, "dear").await, 600);
}

on_majors! { async an_archive_of_each_major_goes_back_into_its_own_major_from_stdin: 15 16 17 18 }

#[tokio::test]
async fn a_file_is_restored_by_several_jobs_and_only_what_the_list_names() {
    let archive = archive_of(17, "restore_jobs", SHOP).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("-archive");
    std::fs::write(&file, &archive).unwrap();
    let settings = settings(17);
    let program = program(17, 17, &settings).await;

    let target = database(17, "restore_jobs_target", "").await;
    let passfile = Passfile::create(&settings.temp, &target).unwrap();
    let whole = RestoreOrder {
        archive: ArchiveInput::File(file.clone()),
        jobs: 2,
        ..order(&program, &target, passfile.as_ref(), &settings)
    };
    fed(&whole, &[]).await.unwrap();
    assert_eq!(count(&target, "prices").await, 1000);

    let target = database(17, "restore_list_target", "").await;
    let list = folder.path().join("list");
    std::fs::write(&list, listed(&file, " TABLE public items")).unwrap();
    let part = RestoreOrder {
        info: &target,
        list: Some(list),
        sections: vec![Section::PreData],
        no_owner: true,
        no_privileges: true,
        no_tablespaces: true,
        ..whole
    };
    fed(&part, &[]).await.unwrap();
    assert_eq!(tables(&target).await, ["items"]);
    assert_eq!(count(&target, "items").await, 0);
}

fn listed(file: &Path, wanted: &str) -> String {
    let output = std::process::Command::new(bin(17).join("pg_restore"))
        .args(["--list", "--"])
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter(|line| line.contains(wanted))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[tokio::test]
async fn a_failure_names_the_object_and_nothing_after_it_is_done() {
    let archive = archive_of(15, "restore_failing", SHOP).await;
    let in_the_way = "CREATE TABLE prices (x int)";
    let settings = settings(15);
    let program = program(15, 15, &settings).await;

    let target = database(15, "restore_failing_target", in_the_way).await;
    let passfile = Passfile::create(&settings.temp, &target).unwrap();
    let order = order(&program, &target, passfile.as_ref(), &settings);
    let error = fed(&order, &archive).await.unwrap_err();
    assert_eq!(error.code(), Code::RestoreErr);
    assert!(
        error.message().contains("TABLE prices postgres") && error.message().contains("\"prices\" already exists"),
        "{error}"
    );
    assert!(error.hint_text().contains("--clean"), "{}", error.hint_text());
    assert_eq!(tables(&target).await, ["prices"]);

    // Going on, everything else is done, and what was not is told.
    let target = database(15, "restore_going_on_target", in_the_way).await;
    let order = RestoreOrder {
        info: &target,
        exit_on_error: false,
        ..order
    };
    let end = fed(&order, &archive).await.unwrap();
    assert!(
        end.refused.iter().any(|one| one.text().contains("TABLE prices")),
        "{end:?}"
    );
    assert_eq!(count(&target, "items").await, 1000);
}

#[tokio::test]
async fn a_newer_pg_restore_fills_an_older_server_and_still_stops_at_a_true_error() {
    let archive = archive_of(17, "restore_newer", SHOP).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("archive");
    std::fs::write(&file, &archive).unwrap();
    for (major, dumper) in [(15, 17), (16, 17)] {
        let settings = settings(dumper);
        let program = program(dumper, major, &settings).await;
        assert!(program.tolerates_transaction_timeout);
        let target = database(major, "restore_older_target", "").await;
        let passfile = Passfile::create(&settings.temp, &target).unwrap();
        let from_stdin = order(&program, &target, passfile.as_ref(), &settings);
        assert_eq!(fed(&from_stdin, &archive).await.unwrap(), RestoreEnd::default());
        assert_eq!(count(&target, "dear").await, 600);

        let target = database(major, "restore_older_jobs", "").await;
        let with_jobs = RestoreOrder {
            info: &target,
            archive: ArchiveInput::File(file.clone()),
            jobs: 2,
            ..from_stdin.clone()
        };
        assert_eq!(fed(&with_jobs, &[]).await.unwrap(), RestoreEnd::default());
        assert_eq!(count(&target, "dear").await, 600);

        for order in [from_stdin.clone(), with_jobs] {
            let target = database(major, "restore_older_failing", "CREATE TABLE items (x int)").await;
            let error = fed(&RestoreOrder { info: &target, ..order }, &archive)
                .await
                .unwrap_err();
            assert_eq!(error.code(), Code::RestoreErr);
            assert!(
                error.message().contains("TABLE items postgres")
                    && error.message().contains("\"items\" already exists"),
                "{error}"
            );
        }

        let error = Restoring::start(&RestoreOrder {
            single_transaction: true,
            ..from_stdin
        })
        .await
        .unwrap_err();
        assert_eq!(error.code(), Code::Version);
    }
}

#[tokio::test]
async fn a_broken_archive_and_a_wrong_password_are_failures_that_say_so() {
    let archive = archive_of(17, "restore_broken", SHOP).await;
    let target = database(17, "restore_broken_target", "").await;
    let settings = settings(17);
    let program = program(17, 17, &settings).await;
    let passfile = Passfile::create(&settings.temp, &target).unwrap();
    let order = RestoreOrder {
        exit_on_error: false,
        ..order(&program, &target, passfile.as_ref(), &settings)
    };
    let error = fed(&order, &archive[..archive.len() / 2]).await.unwrap_err();
    assert_eq!(error.code(), Code::RestoreErr);
    assert!(error.message().contains("end of file"), "{error}");
    let error = fed(&order, b"").await.unwrap_err();
    assert_eq!(error.code(), Code::RestoreErr);

    let order = RestoreOrder {
        passfile: None,
        ..order
    };
    let error = fed(&order, &archive).await.unwrap_err();
    assert!(error.message().contains("no password supplied"), "{error}");
}

#[tokio::test]
async fn writing_to_a_pg_restore_that_is_gone_is_an_error_and_does_not_end_us() {
    let target = database(15, "restore_gone", "").await;
    let settings = settings(15);
    let program = program(15, 15, &settings).await;
    let passfile = Passfile::create(&settings.temp, &target).unwrap();
    let mut restoring = Restoring::start(&order(&program, &target, passfile.as_ref(), &settings))
        .await
        .unwrap();
    let mut stdin = restoring.take_stdin().unwrap();
    let writing = tokio::task::spawn_blocking(move || {
        stdin.write_all(b"PGDMP")?;
        let zeros = vec![0; 1 << 20];
        loop {
            stdin.write_all(&zeros)?;
        }
        #[allow(unreachable_code)]
        std::io::Result::Ok(())
    });
    let written = tokio::time::timeout(Duration::from_secs(20), writing).await.unwrap();
    assert_eq!(written.unwrap().unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(restoring.wait().await.unwrap_err().code(), Code::RestoreErr);
}

#[tokio::test]
async fn a_stopped_restore_is_gone_and_so_is_its_session() {
    let archive = archive_of(17, "restore_stopping", SHOP).await;
    let target = database(17, "restore_stopping_target", "").await;
    let settings = settings(17);
    let program = program(17, 17, &settings).await;
    let passfile = Passfile::create(&settings.temp, &target).unwrap();
    let mut restoring = Restoring::start(&order(&program, &target, passfile.as_ref(), &settings))
        .await
        .unwrap();
    // It waits for the rest of the archive.
    let mut stdin = restoring.take_stdin().unwrap();
    stdin.write_all(&archive[..archive.len() - 2000]).unwrap();
    restoring.stop().await;
    assert!(restoring.wait().await.is_err());
    let question = "pg_stat_activity WHERE datname = 'restore_stopping_target' AND application_name = 'pgstow'";
    for _ in 0..100 {
        if count(&target, question).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the server still serves it");
}

async fn a_plain_script_is_done_as_a_whole_or_not_at_all(major: u32) {
    let settings = settings(major);
    let target = database(major, "script_target", "").await;
    let psql = Psql::find(major, &settings).await.unwrap();
    assert_eq!(psql.major, major);
    let passfile = Passfile::create(&settings.temp, &target).unwrap();
    let run = async |script: String| {
        let mut running = Script::start(&psql, &target, passfile.as_ref(), &settings)
            .await
            .unwrap();
        let mut input = running.take_input().unwrap();
        let writing = tokio::task::spawn_blocking(move || {
            let transaction = input.begin()?;
            input.write_all(script.as_bytes())?;
            input.commit(transaction)
        });
        let end = running.wait().await;
        assert_eq!(end.is_ok(), writing.await.unwrap().is_ok());
        end
    };
    let rows: String = (0..100_000).map(|n| format!("{n}\n")).collect();
    let good = format!("CREATE TABLE public.t (a int);\nCOPY public.t FROM stdin;\n{rows}\\.\n");
    let noisy = "SELECT repeat('x', 100) FROM generate_series(1, 20000);\n";
    let error = run(format!("{good}{noisy}INSERT INTO public.t VALUES (1 / 0);\n"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::RestoreErr);
    assert!(error.message().contains("division by zero"), "{error}");
    assert!(tables(&target).await.is_empty());
    run(format!("{good}{noisy}")).await.unwrap();
    assert_eq!(count(&target, "t").await, 100_000);
}

on_majors! { async a_plain_script_is_done_as_a_whole_or_not_at_all: 15 18 }
