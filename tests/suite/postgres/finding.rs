use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use pgstow::error::Code;
use pgstow::postgres::{Programs, RestoreProgram, ServerPrograms};

use crate::postgres::place::{bin, settings};

/// `<root>/<major>/bin`, made of links to the real folders.
fn root_of(folder: &Path, majors: &[u32]) -> PathBuf {
    let root = folder.join("root");
    for major in majors {
        std::fs::create_dir_all(root.join(major.to_string())).unwrap();
        symlink(bin(*major), root.join(major.to_string()).join("bin")).unwrap();
    }
    root
}

#[tokio::test]
async fn the_servers_major_is_preferred_then_the_next_newer() {
    let folder = tempfile::tempdir().unwrap();
    let roots = [root_of(folder.path(), &[15, 17, 18])];
    let mut settings = settings(15);
    settings.bin = None;
    settings.path = vec![bin(18)];
    let found = Programs::find_below(&roots, 15, &settings).await.unwrap();
    assert_eq!(found.major, 15);
    assert!(found.version.starts_with("15."));
    assert!(found.pg_dumpall.unwrap().ends_with("bin/pg_dumpall"));
    assert_eq!(Programs::find_below(&roots, 16, &settings).await.unwrap().major, 17);
    assert_eq!(
        Programs::find_below(&roots, 18, &settings).await.unwrap().pg_dump,
        bin(18).join("pg_dump")
    );
    settings.dump_major = Some(17);
    assert_eq!(Programs::find_below(&roots, 15, &settings).await.unwrap().major, 17);
    settings.dump_major = Some(16);
    assert_eq!(
        Programs::find_below(&roots, 15, &settings).await.unwrap_err().code(),
        Code::Version
    );
}

#[tokio::test]
async fn where_backup_pg_bin_is_set_it_alone_counts() {
    let folder = tempfile::tempdir().unwrap();
    let roots = [root_of(folder.path(), &[17])];
    let mut settings = settings(15);
    settings.path = vec![bin(17)];
    let error = Programs::find_below(&roots, 17, &settings).await.unwrap_err();
    assert_eq!(error.code(), Code::Version);
    assert!(error.message().contains("15."), "{error}");
    settings.bin = Some(vec![folder.path().join("nothing"), bin(17)]);
    assert_eq!(Programs::find_below(&roots, 15, &settings).await.unwrap().major, 17);
    settings.bin = Some(vec![folder.path().join("nothing")]);
    let error = Programs::find_below(&roots, 15, &settings).await.unwrap_err();
    assert_eq!(error.code(), Code::PgDumpErr);
    assert!(error.message().contains("pg_dump is missing"), "{error}");
}

#[tokio::test]
async fn what_does_not_run_is_passed_over_and_named_when_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, body: &str| {
        let place = folder.path().join(name);
        std::fs::create_dir(&place).unwrap();
        let file = place.join("pg_dump");
        std::fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        place
    };
    let broken = make(
        "broken",
        "echo 'error while loading shared libraries: libpq.so.5' >&2; exit 127",
    );
    let chatty = make("chatty", "exec yes nonsense");
    let mut settings = settings(15);
    settings.bin = Some(vec![broken.clone(), chatty.clone(), bin(15)]);
    assert_eq!(
        Programs::find(15, &settings).await.unwrap().pg_dump,
        bin(15).join("pg_dump")
    );
    settings.bin = Some(vec![broken, chatty]);
    let error = Programs::find(15, &settings).await.unwrap_err();
    assert_eq!(error.code(), Code::PgDumpErr);
    assert!(error.message().contains("libpq.so.5"), "{error}");
}

#[tokio::test]
async fn debians_wrapper_gives_way_to_the_real_program() {
    let folder = tempfile::tempdir().unwrap();
    // As Debian lays it out: a link named pg_dump to a script named pg_wrapper.
    let wrapper = folder.path().join("pg_wrapper");
    std::fs::write(
        &wrapper,
        format!("#!/bin/sh\nexec {}/pg_dump \"$@\"\n", bin(15).display()),
    )
    .unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("path");
    std::fs::create_dir(&path).unwrap();
    symlink(&wrapper, path.join("pg_dump")).unwrap();
    let mut settings = settings(15);
    settings.bin = None;
    settings.path = vec![path.clone()];
    let roots = [root_of(folder.path(), &[15])];
    let found = Programs::find_below(&roots, 15, &settings).await.unwrap();
    assert!(found.pg_dump.starts_with(&roots[0]), "{found:?}");
    // Where it is all there is, it will do.
    let found = Programs::find_below(&[], 15, &settings).await.unwrap();
    assert_eq!(found.pg_dump, path.join("pg_dump"));
}

#[tokio::test]
async fn the_pg_restore_reads_the_archive_and_suits_the_target() {
    let folder = tempfile::tempdir().unwrap();
    let roots = [root_of(folder.path(), &[15, 16, 17, 18])];
    let mut settings = settings(15);
    settings.bin = None;
    for (minor, target, major, tolerates) in [
        (14, 15, 15, false),
        (14, 18, 18, false),
        (15, 15, 16, false),
        (16, 18, 18, false),
        (16, 16, 17, true),
    ] {
        let found = RestoreProgram::find_below(&roots, (1, minor), target, &settings)
            .await
            .unwrap();
        assert_eq!((found.major, found.tolerates_transaction_timeout), (major, tolerates));
        assert!(found.version.starts_with(&major.to_string()), "{found:?}");
    }
    settings.bin = Some(vec![bin(15)]);
    let error = RestoreProgram::find_below(&roots, (1, 16), 15, &settings)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Version);
    assert!(
        error.message().contains("pg_restore 17 or newer; found: 15."),
        "{error}"
    );
    settings.bin = Some(vec![folder.path().into()]);
    let error = RestoreProgram::find_below(&roots, (1, 14), 15, &settings)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::RestoreErr);
    assert!(error.message().contains("pg_restore is missing"), "{error}");
}

#[tokio::test]
async fn a_servers_programs_are_found_beside_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let roots = [root_of(folder.path(), &[15, 17])];
    let mut settings = settings(15);
    settings.bin = None;
    let found = ServerPrograms::find_below(&roots, 16, &settings).await.unwrap();
    assert_eq!(found.major, 17);
    assert_eq!(found.initdb, found.postgres.with_file_name("initdb"));
    let error = ServerPrograms::find_below(&roots, 18, &settings).await.unwrap_err();
    assert_eq!(error.code(), Code::Version);
    // A client's package has no server.
    settings.bin = Some(vec![folder.path().into()]);
    let error = ServerPrograms::find_below(&roots, 15, &settings).await.unwrap_err();
    assert_eq!(error.code(), Code::RestoreErr);
    assert!(error.hint_text().contains("initdb"), "{}", error.hint_text());
}
