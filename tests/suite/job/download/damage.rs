//! Stored bytes that are not what the manifest says.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::place::{Place, holding};
use crate::support::wreck::{fail, report};

async fn place() -> Place {
    Place::in_folder(holding(300_000), &[]).await
}

fn flip(file: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// The failure names the file, and nothing is left here.
fn refused(place: &Place, options: &[&str], role: &str, why: &str) {
    let failed = fail(place.download("latest").args(options), "INTEGRITY", 40);
    let name = place.report["files"][role]["name"].as_str().unwrap();
    assert!(failed.message.contains(name), "{}", failed.message);
    assert!(failed.message.contains(why), "{}", failed.message);
    assert!(place.files().is_empty(), "{:?}", place.files());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_flipped_bit_anywhere_in_the_archive_is_found() {
    let place = place().await;
    for at in [0, 40, place.bytes() / 2, place.bytes() - 1] {
        flip(&place.stored("dump"), at);
        refused(&place, &[], "dump", "SHA-256");
        refused(&place, &["--as-stored"], "dump", "SHA-256");
        flip(&place.stored("dump"), at);
    }
    report(&mut place.download("latest"));
    place.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_cut_or_gone_is_found() {
    let place = place().await;
    let file = OpenOptions::new().write(true).open(place.stored("dump")).unwrap();
    file.set_len(place.bytes() - 1).unwrap();
    // By its id: as the latest it would be passed over, and there is no other.
    let failed = fail(&mut place.download(place.id()), "INTEGRITY", 40);
    assert!(
        failed.message.contains("is shorter than the manifest says"),
        "{}",
        failed.message
    );
    assert!(place.files().is_empty(), "{:?}", place.files());
    let failed = fail(&mut place.download("latest"), "INTEGRITY", 40);
    assert!(failed.message.contains("is not whole"), "{}", failed.message);
    fs::remove_file(place.stored("dump")).unwrap();
    let failed = fail(&mut place.download(place.id()), "INTEGRITY", 40);
    assert!(failed.message.contains("is missing"), "{}", failed.message);
    assert!(place.files().is_empty(), "{:?}", place.files());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_table_of_contents_is_found_before_the_archive_is_fetched_and_can_be_done_without() {
    let place = place().await;
    flip(&place.stored("toc"), 100);
    refused(&place, &[], "toc", "has the SHA-256");
    let failed = fail(&mut place.download("latest"), "INTEGRITY", 40);
    assert!(failed.hint.contains("--as-stored"), "{}", failed.hint);
    report(place.download("latest").arg("--as-stored"));
    place.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_cut_or_points_elsewhere_is_not_followed() {
    let place = place().await;
    let manifest = place.stored("dump").with_file_name("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let name = format!("\"name\": \"{}\"", place.name());
    for (bad, why) in [
        (text[..text.len() / 2].to_owned(), "not JSON"),
        (text.replace("\"schema\": 2", "\"schema\": 9"), "newer pgstow"),
        (
            text.replace(&name, "\"name\": \"../x.dump\""),
            "cannot be in its folder",
        ),
    ] {
        assert_ne!(bad, text, "{why}");
        fs::write(&manifest, bad).unwrap();
        crate::support::wreck::reseal(manifest.parent().unwrap());
        let failed = fail(&mut place.download(place.id()), "INTEGRITY", 40);
        assert!(failed.message.contains(why), "{}", failed.message);
        assert!(place.files().is_empty());
    }
}
