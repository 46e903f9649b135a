use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use pgstow::error::Code;
use pgstow::postgres::Programs;

use crate::place::{bin, settings};

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
