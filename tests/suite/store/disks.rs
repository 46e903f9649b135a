//! What breaks around a folder store. These tests mount small disks, and so run as root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use pgstow::error::Code;
use pgstow::store::local::Local;
use pgstow::store::{Condition, Conditional, Store};

use super::conformance::{expected, info, pattern, upload};
use super::place::{SmallDisk, folder};

const KEY: &str = "shop/20260102T030405Z-full/shop.dump";

/// Everything below a folder, folders too; links are not followed.
fn tree(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        }
        found.push(path);
    }
    found
}

#[tokio::test]
async fn a_full_disk_is_said_to_be_full_and_left_as_it_was() {
    let disk = SmallDisk::mount("size=4m");
    let root = disk.path().join("backups");
    let store = Local::new(root.clone());
    let small = Bytes::from_static(b"x");
    store.put("shop/.lease", small, &info()).await.unwrap();
    let before = tree(disk.path());

    let error = upload(&store, KEY, &pattern(8 << 20)).await.unwrap_err();
    assert_eq!(error.code(), Code::Enospc, "{error}");
    assert!(error.message().contains(root.to_str().unwrap()), "{error}");
    assert_eq!(tree(disk.path()), before);

    let error = store
        .put_if("shop/big", pattern(8 << 20), &info(), Condition::Absent)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Enospc, "{error}");
    assert_eq!(tree(disk.path()), before);
}

#[tokio::test]
async fn a_disk_that_fills_up_at_the_last_bytes_fails_the_completion() {
    let disk = SmallDisk::mount("size=4m");
    let store = Local::new(disk.path().join("backups"));
    let bytes = pattern(5 << 20);
    let mut upload = store.upload(KEY, &info()).await.unwrap();
    // Taken in one piece, so that the write is still under way when the completion comes.
    upload.write(bytes.clone()).await.unwrap();
    let error = upload.complete(&expected(&bytes)).await.unwrap_err();
    assert_eq!(error.code(), Code::Enospc, "{error}");
    assert!(tree(disk.path()).is_empty());
}

#[tokio::test]
async fn a_read_only_disk_is_refused_before_and_while_writing() {
    let disk = SmallDisk::mount("size=4m");
    let store = Local::new(disk.path().join("backups"));
    fs::create_dir(disk.path().join("backups")).unwrap();
    disk.remount("ro");
    let error = store.reach().await.unwrap_err();
    assert_eq!(error.code(), Code::Eacces, "{error}");
    let error = upload(&store, KEY, &pattern(10)).await.unwrap_err();
    assert_eq!(error.code(), Code::Eacces, "{error}");
    let put = store.put("shop/x", Bytes::new(), &info()).await;
    assert_eq!(put.unwrap_err().code(), Code::Eacces);
    disk.remount("rw");
    assert_eq!(tree(disk.path()), [disk.path().join("backups")]);
}

#[tokio::test]
async fn a_missing_folder_is_made_only_where_its_parent_exists() {
    let around = tempfile::tempdir().unwrap();
    let lost = Local::new(around.path().join("no/such/backups"));
    let error = lost.reach().await.unwrap_err();
    assert_eq!(error.code(), Code::Enoent, "{error}");
    assert!(error.message().contains("no/such/backups"), "{error}");
    let error = upload(&lost, KEY, &pattern(10)).await.unwrap_err();
    assert_eq!(error.code(), Code::Enoent, "{error}");
    assert!(tree(around.path()).is_empty());

    let store = Local::new(around.path().join("backups"));
    store.reach().await.unwrap();
    assert!(tree(around.path()).is_empty(), "reaching makes nothing");
    upload(&store, KEY, &pattern(10)).await.unwrap();
    store.reach().await.unwrap();
}

#[tokio::test]
async fn a_file_where_the_folder_should_be_is_refused() {
    let around = tempfile::tempdir().unwrap();
    let root = around.path().join("backups");
    fs::write(&root, "not a folder").unwrap();
    let store = Local::new(root);
    assert_eq!(store.reach().await.unwrap_err().code(), Code::Enoent);
    let error = upload(&store, KEY, &pattern(10)).await.unwrap_err();
    assert!(error.message().contains("backups"), "{error}");
    assert_eq!(tree(around.path()).len(), 1);
}

#[tokio::test]
async fn nobody_else_may_read_a_backup() {
    let place = folder().await;
    upload(&place.store, KEY, &pattern(10)).await.unwrap();
    for path in tree(&place.root).into_iter().chain([place.root.clone()]) {
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, wanted, "{}", path.display());
    }
}

/// A database's folder may be where another disk is mounted, and the store itself may be a link. No
/// link beneath it is followed, whether it leads out, in circles, or nowhere.
#[tokio::test]
async fn a_database_may_lie_on_another_disk_but_no_link_leads_out_of_the_store() {
    let place = folder().await;
    let around = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount("size=4m");
    let link = around.path().join("link");
    fs::create_dir(&place.root).unwrap();
    std::os::unix::fs::symlink(&place.root, &link).unwrap();
    fs::create_dir(place.root.join("shop")).unwrap();
    bind(disk.path(), &place.root.join("shop"));
    upload(&place.store, KEY, &pattern(10)).await.unwrap();
    assert!(disk.path().join(KEY.strip_prefix("shop/").unwrap()).exists());

    let shop = place.root.join("shop");
    fs::write(around.path().join("foreign"), "x").unwrap();
    std::os::unix::fs::symlink("..", shop.join("out")).unwrap();
    std::os::unix::fs::symlink(around.path().join("foreign"), shop.join("file")).unwrap();
    std::os::unix::fs::symlink(&shop, shop.join("circle")).unwrap();
    std::os::unix::fs::symlink("/nowhere", place.root.join("dead")).unwrap();
    std::os::unix::fs::symlink(around.path(), place.root.join("elsewhere")).unwrap();
    for store in [&place.store, &Local::new(link)] {
        let listed = store.list("shop/").await.unwrap();
        let seen: Vec<(&str, u64)> = listed.iter().map(|entry| (entry.key.as_str(), entry.bytes)).collect();
        assert_eq!(seen, [(KEY, 10), ("shop/circle", 0), ("shop/file", 0), ("shop/out", 0)]);
        assert_eq!(store.folders("").await.unwrap(), ["shop"]);
        assert_eq!(store.get("shop/file").await.unwrap_err().code(), Code::Integrity);
        assert_eq!(store.list("elsewhere/").await.unwrap_err().code(), Code::Store);
        assert_eq!(store.get("elsewhere/foreign").await.unwrap_err().code(), Code::Store);
        let error = upload(store, "elsewhere/x", &pattern(10)).await.unwrap_err();
        assert!(error.message().contains("symbolic link"), "{error}");
    }
    assert_eq!(fs::read_dir(around.path()).unwrap().count(), 2);
    unbind(&shop);
}

fn bind(disk: &Path, folder: &Path) {
    let bound = std::process::Command::new("mount")
        .arg("--bind")
        .arg(disk)
        .arg(folder)
        .status();
    assert!(bound.unwrap().success());
}

fn unbind(folder: &Path) {
    let unbound = std::process::Command::new("umount").arg("-l").arg(folder).status();
    assert!(unbound.unwrap().success());
}

#[tokio::test]
async fn a_very_long_name_is_still_a_name() {
    let place = folder().await;
    let key = format!("shop/{}", "ü".repeat(127));
    let mut upload = place.store.upload(&key, &info()).await.unwrap();
    upload.write(pattern(10)).await.unwrap();
    drop(upload);
    let left = place.store.unfinished("shop/").await.unwrap();
    assert_eq!(left.len(), 1);
    place.store.abort_unfinished(&left[0]).await.unwrap();
    let conditional = place.store.conditional().unwrap();
    conditional
        .put_if(&key, Bytes::new(), &info(), Condition::Absent)
        .await
        .unwrap();
    assert_eq!(place.store.list("").await.unwrap()[0].key, key);
}
