//! Downloads that succeed: what is there then, and what stock programs make of it.

use std::fs;

use serde_json::Value;

use super::place::{Place, check_sums, holding};
use crate::support::contents::Contents;
use crate::support::database::Database;
use crate::support::fault_proxy::{Fault, On, Op};
use crate::support::program::succeed;
use crate::support::wreck::{fail, report, tree};

async fn restores_in_parallel(major: u32) {
    let place = Place::in_s3(Database::loaded(major, "rich.sql"), &[]).await;
    let told = report(place.download("latest").args(["--database", &place.database.name]));
    assert_eq!(told["id"], place.id());
    assert_eq!(told["bytes"], place.bytes());
    assert_eq!(told["bytes_fetched"], place.bytes());
    assert_eq!(told["offsets"], true);
    assert_eq!(told["sha256_as_stored"], place.report["files"]["dump"]["sha256"]);
    assert_ne!(told["sha256"], told["sha256_as_stored"]);
    assert_eq!(told["warnings"], Value::Null);
    place.assert_whole();
    let sums = fs::read_to_string(place.here().join("SHA256SUMS")).unwrap();
    let stored = place.report["files"]["dump"]["sha256"].as_str().unwrap();
    assert!(
        sums.ends_with(&format!("as stored in {}: {stored}\n", place.id())),
        "{sums}"
    );
    Contents::of(&place.database).assert_equals(&Contents::of(&place.restored()));
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_pg_restore_of_15_restores_a_download_in_parallel() {
    restores_in_parallel(15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_pg_restore_of_18_restores_a_download_in_parallel() {
    restores_in_parallel(18).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_stored_it_is_bit_for_bit_what_the_stores_own_sums_say() {
    let place = Place::in_folder(Database::loaded(17, "rich.sql"), &[]).await;
    let told = report(place.download(place.id()).arg("--as-stored"));
    assert_eq!(told["offsets"], false);
    assert_eq!(told["sha256"], place.report["files"]["dump"]["sha256"]);
    place.assert_whole();
    assert!(fs::read(place.file()).unwrap() == fs::read(place.stored("dump")).unwrap());
    let sums = fs::read_to_string(place.here().join("SHA256SUMS")).unwrap();
    let stores = fs::read_to_string(place.stored("dump").with_file_name("SHA256SUMS")).unwrap();
    assert!(stores.contains(&sums), "{sums} in {stores}");
    // With the offsets, it is the same file but for its head.
    report(place.download(place.id()).arg("--force"));
    place.assert_whole();
    let head = fs::read(place.stored("toc")).unwrap();
    let file = fs::read(place.file()).unwrap();
    assert!(file[..head.len()] == head[..]);
    assert!(file[head.len()..] == fs::read(place.stored("dump")).unwrap()[head.len()..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_script_is_fetched_as_it_is() {
    let place = Place::in_s3(holding(100_000), &["--format", "plain", "--compress", "zstd:3"]).await;
    let told = report(&mut place.download("latest"));
    assert_eq!(told["offsets"], false);
    assert!(place.name().ends_with(".sql.zst"));
    place.assert_whole();
    let script = succeed(crate::support::program::program("zstd").args(["-dc"]).arg(place.file()));
    assert!(script.text().contains("COPY public.noise"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_there_stays_without_force_and_so_does_what_sums_say_of_others() {
    let place = Place::in_folder(holding(50_000), &[]).await;
    let here = place.here();
    fs::write(place.file(), "precious").unwrap();
    let other = format!("{}  other.dump\n", "0".repeat(64));
    fs::write(here.join("SHA256SUMS"), &other).unwrap();
    let refused = fail(&mut place.download("latest"), "CONFIG", 2);
    assert!(refused.message.contains("is there already"), "{}", refused.message);
    assert_eq!(fs::read_to_string(place.file()).unwrap(), "precious");
    assert_eq!(place.files().len(), 2);

    report(place.download("latest").arg("--force"));
    assert_eq!(place.files(), ["SHA256SUMS", place.name()]);
    let sums = fs::read_to_string(here.join("SHA256SUMS")).unwrap();
    assert!(sums.starts_with(&other), "{sums}");

    // Elsewhere, under another name, or in a folder under its own.
    fs::create_dir(here.join("folder")).unwrap();
    report(place.download("latest").args(["-o", "folder"]));
    report(place.download("latest").args(["-o", "folder/-odd name.dump"]));
    assert_eq!(
        tree(&here.join("folder")),
        ["-odd name.dump", "SHA256SUMS", place.name()]
    );
    check_sums(&here.join("folder"));
    // What is no file is not replaced, and what cannot be resumed is not offered.
    for (output, why) in [("-", "pipe"), ("/dev/null", "no file"), ("SHA256SUMS", "no name")] {
        let refused = fail(place.download("latest").args(["--force", "-o", output]), "CONFIG", 2);
        assert!(refused.message.contains(why), "{output}: {}", refused.message);
    }
    let refused = fail(place.download("latest").args(["-o", "no/such/folder/x"]), "ENOENT", 33);
    assert!(refused.hint.contains("-o"), "{}", refused.hint);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_id_names_the_nearest_and_nothing_is_made() {
    let place = Place::in_folder(holding(50_000), &[]).await;
    let (database, stamp) = place.id().split_once('/').unwrap();
    for wanted in [
        format!("{}/{stamp}", &database[..database.len() - 1]),
        format!("{database}/20200101T000000Z-full"),
        database.to_owned(),
    ] {
        let refused = fail(&mut place.download(&wanted), "NOT_FOUND", 42);
        assert!(refused.hint.contains(place.id()), "{}", refused.hint);
    }
    assert!(place.files().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_read_when_the_primary_does_not_answer() {
    let copy = tempfile::tempdir().unwrap();
    let place = Place::in_s3(holding(50_000), &["--store", copy.path().to_str().unwrap()]).await;
    place.proxy.fault(On::any(), Fault::Reject(403));
    let told = report(place.download("latest").arg("--store").arg(copy.path()));
    assert_eq!(told["store"], copy.path().to_str().unwrap());
    let warnings = told["warnings"].as_array().unwrap();
    assert!(warnings[0].as_str().unwrap().contains("AccessDenied"), "{warnings:?}");
    place.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_break_off_are_asked_for_again() {
    let place = Place::in_s3(holding(30 << 20), &["--compress", "none"]).await;
    let part = || On::op(Op::GetObject).target(".dump");
    place
        .proxy
        .fault(part().calls(2..=2), Fault::CutAnswer { after: 1 << 20 });
    place.proxy.fault(part().calls(4..=4), Fault::CutAnswer { after: 0 });
    place.proxy.fault(part().calls(7..=7), Fault::LoseAnswer);
    report(&mut place.download("latest"));
    assert_eq!(place.proxy.faults(), 3);
    place.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_depend_on_the_archives_size() {
    let place = Place::in_s3(holding(200 << 20), &["--compress", "none"]).await;
    // Its last words are those of bash's own child.
    let mut limited = crate::support::program::program("/usr/bin/python3");
    let program = "import os, sys\npid = os.spawnve(os.P_NOWAIT, sys.argv[1], sys.argv[1:], os.environ)\n\
        _, status, usage = os.wait4(pid, 0)\nprint(os.waitstatus_to_exitcode(status), usage.ru_maxrss)";
    let download = place.download("latest");
    limited
        .args(["-c", program])
        .arg(download.get_program())
        .args(download.get_args().filter(|arg| *arg != "--json"))
        .envs(download.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .current_dir(place.here());
    let run = succeed(&mut limited);
    let text = run.text();
    let (exit, kib) = text.lines().last().unwrap().split_once(' ').unwrap();
    assert_eq!(exit, "0", "{text}{}", run.stderr);
    let mib = kib.parse::<u64>().unwrap() >> 10;
    assert!((10..=96).contains(&mib), "{mib} MiB");
    place.assert_whole();
}
