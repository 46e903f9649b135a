//! Whether a store's folder is what it was: where its disk is not mounted, an empty folder of the same name
//! is there, and a backup would begin anew on another disk.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::temporary::io_error;
use crate::backup_id::{BackupId, database_of_folder, lease_key};
use crate::error::{Code, Error, Result};
use crate::settings::StoreCreate;

/// `ENOENT` where a backup must not begin in this folder.
pub fn check(root: &Path, create: StoreCreate) -> Result<()> {
    if create == StoreCreate::Always || holds_any(root) {
        return Ok(());
    }
    let read = |path: &str| fs::read(path).unwrap_or_default();
    let here = std::path::absolute(root).map_err(|error| io_error("find", root, error))?;
    // A link leads to the disk that counts.
    let here = fs::canonicalize(&here).unwrap_or(here);
    if let Some(missing) = missing_mount(&here, &read("/etc/fstab"), &read("/proc/self/mountinfo")) {
        let what = format!(
            "the store's folder {} is on {}, which /etc/fstab names and which is not mounted",
            root.display(),
            missing.display()
        );
        return Err(Error::new(Code::Enoent, what)
            .hint("mount it; to make backups beneath it all the same, set BACKUP_STORE_CREATE=always"));
    }
    if create == StoreCreate::Never {
        let what = format!(
            "the store's folder {} holds nothing of pgstow's, and BACKUP_STORE_CREATE=never forbids to begin there",
            root.display()
        );
        return Err(Error::new(Code::Enoent, what)
            .hint("mount its disk, or correct --store; for the first backup, give --store-create always"));
    }
    Ok(())
}

/// Whether a run was ever at work in it.
fn holds_any(root: &Path) -> bool {
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    };
    names(root).iter().any(|folder| {
        let Some(database) = database_of_folder(folder) else {
            return false;
        };
        let of_backup = |name: &String| format!("{folder}/{name}").parse::<BackupId>().is_ok();
        fs::symlink_metadata(root.join(lease_key(&database))).is_ok() || names(&root.join(folder)).iter().any(of_backup)
    })
}

/// The innermost mount point of `fstab` that this path is at or below, if nothing is mounted there.
fn missing_mount(path: &Path, fstab: &[u8], mountinfo: &[u8]) -> Option<PathBuf> {
    let fields = |line: &[u8], nth: usize| -> Option<PathBuf> {
        let field = line
            .split(u8::is_ascii_whitespace)
            .filter(|field| !field.is_empty())
            .nth(nth)?;
        Some(unescaped(field))
    };
    let lines = |text: &[u8]| -> Vec<Vec<u8>> { text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect() };
    let mounted: Vec<PathBuf> = lines(mountinfo).iter().filter_map(|line| fields(line, 4)).collect();
    // Nothing is known where there is no /proc.
    if mounted.is_empty() {
        return None;
    }
    let wanted = lines(fstab)
        .iter()
        .filter(|line| !line.trim_ascii_start().starts_with(b"#"))
        // Mounted by hand, when somebody wants it.
        .filter(|line| !fields(line, 3).is_some_and(|options| has_option(&options, "noauto")))
        .filter_map(|line| fields(line, 1))
        .filter(|point| point.is_absolute() && path.starts_with(point))
        .max_by_key(|point| point.as_os_str().len());
    wanted.filter(|point| point != Path::new("/") && !mounted.contains(point))
}

fn has_option(options: &Path, wanted: &str) -> bool {
    options.to_string_lossy().split(',').any(|option| option == wanted)
}

/// Both files write spaces and their like as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = |digits: &[u8]| {
            std::str::from_utf8(digits)
                .ok()
                .and_then(|text| u8::from_str_radix(text, 8).ok())
        };
        match after.get(..3).filter(|_| *first == b'\\').and_then(octal) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FSTAB: &str = "# <file system> <mount point>\n/dev/vda1 / ext4 defaults 0 1\n\
                         nas:/pg  /mnt/nas\\040pg nfs defaults 0 0\nUUID=1 /mnt ext4 user,noauto 0 0\nUUID=3 /data ext4 rw 0 0\nUUID=2 none swap sw 0 0\n";
    const ROOT: &str = "22 1 0:20 / / rw - ext4 /dev/vda1 rw\n";

    fn missing(path: &str, mountinfo: &str) -> Option<PathBuf> {
        missing_mount(Path::new(path), FSTAB.as_bytes(), mountinfo.as_bytes())
    }

    #[test]
    fn a_mount_that_is_in_fstab_and_not_there_is_missing() {
        assert_eq!(missing("/mnt/nas pg/backups", ROOT), Some("/mnt/nas pg".into()));
        let nas = format!("{ROOT}30 22 0:40 / /mnt/nas\\040pg rw - nfs nas:/pg rw\n");
        assert_eq!(missing("/mnt/nas pg/backups", &nas), None);
        assert_eq!(missing("/mnt/nas pg", ROOT), Some("/mnt/nas pg".into()));
        assert_eq!(missing("/mnt/other", ROOT), None);
        assert_eq!(missing("/data/pg", ROOT), Some("/data".into()));
        assert_eq!(missing("/mnt2", ROOT), None);
        assert_eq!(missing("/srv/backups", ROOT), None);
        assert_eq!(missing("/mnt/other", ""), None);
    }

    #[test]
    fn a_folder_is_ours_when_a_run_was_at_work_in_it() {
        let root = tempfile::tempdir().unwrap();
        let never = |path: &Path| check(path, StoreCreate::Never).map_err(|error| error.code());
        assert_eq!(never(root.path()), Err(Code::Enoent));
        assert_eq!(never(&root.path().join("none")), Err(Code::Enoent));
        fs::create_dir_all(root.path().join("lost+found")).unwrap();
        fs::create_dir_all(root.path().join("shop/films")).unwrap();
        assert_eq!(never(root.path()), Err(Code::Enoent));
        fs::write(root.path().join("shop/.lease"), "{}").unwrap();
        assert_eq!(never(root.path()), Ok(()));
        fs::remove_file(root.path().join("shop/.lease")).unwrap();
        fs::create_dir_all(root.path().join("shop/20250131T040500Z-full")).unwrap();
        assert_eq!(never(root.path()), Ok(()));
        assert!(check(root.path(), StoreCreate::Auto).is_ok());
    }
}
