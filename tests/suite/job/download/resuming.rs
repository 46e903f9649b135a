//! Downloads that are interrupted, and taken up again.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use super::place::{Place, holding};
use crate::support::fault_proxy::{Fault, On, Op};
use crate::support::wreck::{Site, fail, failure, report};

/// Ten requests' worth.
async fn large() -> Place {
    Place::in_s3(holding(40 << 20), &["--compress", "none"]).await
}

/// The only file there: hidden, with part of the archive.
fn partial(place: &Place) -> PathBuf {
    let files = place.files();
    let [file] = &files[..] else {
        panic!("{files:?}");
    };
    assert!(file.starts_with('.') && file.ends_with(".partial"), "{file}");
    place.here().join(file)
}

fn length(file: &PathBuf) -> u64 {
    fs::metadata(file).unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_stopped_midway_goes_on_where_it_was() {
    let place = large().await;
    place
        .proxy
        .fault(On::op(Op::GetObject).target(".dump").calls(6..=99), Fault::HoldAnswer);
    let site = Site::new();
    let mut running = site.start(&mut place.download("latest"));
    running.until("something has come", || {
        place.files().len() == 1 && length(&partial(&place)) > 8 << 20
    });
    running.signal(Signal::TERM);
    let run = running.end(Duration::from_secs(10));
    let stopped = failure(&run, "INTERRUPTED", 143, None);
    assert!(
        stopped
            .hint
            .starts_with(&format!("download {} again: it goes on with the ", place.id())),
        "{}",
        stopped.hint
    );
    let kept = length(&partial(&place));
    assert!(kept > 8 << 20 && kept < place.bytes(), "{kept}");

    place.proxy.heal();
    let told = report(&mut place.download("latest"));
    let head = place.report["files"]["toc"]["bytes"].as_u64().unwrap();
    assert_eq!(told["bytes_fetched"], place.bytes() - kept + head);
    place.assert_whole();
    assert_eq!(
        place.restored().sql("SELECT count(*) FROM noise"),
        place.database.sql("SELECT count(*) FROM noise")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_goes_away_midway_is_told_and_the_rest_fetched_later() {
    let place = large().await;
    place
        .proxy
        .fault(On::op(Op::GetObject).target(".dump").calls(6..=999), Fault::Reject(503));
    let failed = fail(&mut place.download("latest"), "STORE", 30);
    assert!(failed.hint.contains("again: it goes on with"), "{}", failed.hint);
    assert!(length(&partial(&place)) > 0);
    place.proxy.heal();
    let told = report(&mut place.download("latest"));
    assert!(told["bytes_fetched"].as_u64().unwrap() < place.bytes());
    place.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_died_in_its_last_step_is_finished_without_the_archive_being_fetched_again() {
    let place = large().await;
    report(&mut place.download("latest"));
    // As it is after the offsets were laid in, and before the file has its name.
    let stamp = place.id().rsplit_once('/').unwrap().1;
    let left = place.here().join(format!(".{}.{stamp}.partial", place.name()));
    fs::rename(place.file(), &left).unwrap();
    fs::remove_file(place.here().join("SHA256SUMS")).unwrap();
    let told = report(&mut place.download(place.id()));
    assert_eq!(told["bytes_fetched"], place.report["files"]["toc"]["bytes"]);
    place.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rest_that_is_damaged_is_fetched_anew_and_the_report_says_so() {
    let place = large().await;
    let stamp = place.id().rsplit_once('/').unwrap().1;
    let left = place.here().join(format!(".{}.{stamp}.partial", place.name()));
    // As a power cut leaves it: the length is there, the bytes are not.
    fs::write(&left, vec![0; 9 << 20]).unwrap();
    let told = report(&mut place.download(place.id()));
    assert!(told["warnings"][0].as_str().unwrap().contains("damaged"), "{told}");
    place.assert_whole();
    // Longer than the archive: not even looked at.
    fs::write(&left, vec![0; 50 << 20]).unwrap();
    let told = report(place.download(place.id()).arg("--force"));
    assert_eq!(told["bytes_fetched"], place.bytes());
    place.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_downloads_of_one_file_one_is_busy() {
    let place = large().await;
    place.proxy.fault(
        On::op(Op::GetObject).target(".dump").calls(6..=6),
        Fault::Delay(Duration::from_secs(4)),
    );
    let site = Site::new();
    let mut first = site.start(&mut place.download("latest"));
    first.until("it has begun", || place.files().len() == 1);
    let second = fail(&mut place.download("latest"), "BUSY", 51);
    assert!(second.message.contains("another download"), "{}", second.message);
    let run = first.end(Duration::from_secs(20));
    assert!(run.status.success(), "{}", run.stderr);
    place.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rest_that_somebody_else_put_there_is_not_written_to() {
    let place = Place::in_folder(holding(50_000), &[]).await;
    let stamp = place.id().rsplit_once('/').unwrap().1;
    let left = place.here().join(format!(".{}.{stamp}.partial", place.name()));
    let elsewhere = place.here().join("elsewhere");
    fs::write(&elsewhere, "").unwrap();
    std::os::unix::fs::symlink(&elsewhere, &left).unwrap();
    fail(&mut place.download("latest"), "STORE", 30);
    fs::remove_file(&left).unwrap();
    fs::hard_link(&elsewhere, &left).unwrap();
    let refused = fail(&mut place.download("latest"), "EACCES", 32);
    assert!(refused.message.contains("another user owns it"), "{}", refused.message);
    assert_eq!(length(&elsewhere), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_comes_to_be_there_meanwhile_stays() {
    let place = large().await;
    let slow = On::op(Op::GetObject).target(".dump").calls(6..=6);
    place.proxy.fault(slow, Fault::Delay(Duration::from_secs(3)));
    let site = Site::new();
    let mut running = site.start(&mut place.download("latest"));
    running.until("it has begun", || place.files().len() == 1);
    fs::write(place.file(), "precious").unwrap();
    let run = running.end(Duration::from_secs(20));
    let refused = failure(&run, "CONFIG", 2, None);
    assert!(refused.message.contains("meanwhile"), "{}", refused.message);
    assert_eq!(fs::read_to_string(place.file()).unwrap(), "precious");
    let told = report(place.download("latest").arg("--force"));
    assert_eq!(told["bytes_fetched"], place.report["files"]["toc"]["bytes"]);
    place.assert_whole();
}
