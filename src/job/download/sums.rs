//! `SHA256SUMS` beside a downloaded file, for `sha256sum -c`. Its lines for other files stay.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::fetch::FileDigests;
use super::target::file_error;
use crate::error::{Error, Result};
use crate::repository::backup_id::{BackupId, SHA256SUMS};
use crate::run::files::{lock_folder, parent};
use crate::run::named_file;
use crate::run::publication::{Access, Publish, publish};

/// pgstow does not rewrite a longer file: it is probably not a file of sums.
const LONGEST: u64 = 16 << 20;

/// Writes the line of the file. If the stored object has another digest, that follows as a comment, which
/// `sha256sum -c` skips.
pub fn write(target: &Path, id: &BackupId, digests: &FileDigests) -> Result<()> {
    let folder = parent(target);
    let path = folder.join(SHA256SUMS);
    let failed = |what: &'static str| move |error| file_error(what, &folder.join(SHA256SUMS), error);
    // The lock keeps two downloads into one folder from removing each other's lines. Where the file system has no
    // locks, that can still happen.
    let lock = File::open(folder).map_err(failed("write"))?;
    lock_folder(&lock).map_err(failed("write"))?;
    // Another user may have put a FIFO there.
    let (old, mode) = match named_file::open_any(&path) {
        Ok(file) => {
            let metadata = file.metadata().map_err(failed("read"))?;
            if !metadata.is_file() {
                return Err(Error::config(format!("{} is no file", path.display())));
            }
            let mut old = Vec::new();
            file.take(LONGEST + 1).read_to_end(&mut old).map_err(failed("read"))?;
            if old.len() as u64 > LONGEST {
                return Err(Error::config(format!(
                    "{} is too long to be a file of sums",
                    path.display()
                )));
            }
            (old, metadata.permissions().mode())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => (Vec::new(), 0o600),
        Err(error) => return Err(failed("read")(error)),
    };
    let name = target.file_name().unwrap_or_default();
    let access = Access::Exactly(mode & 0o777);
    publish(&path, &rewritten(&old, name, id, digests), access, Publish::Replace).map_err(failed("write"))?;
    Ok(())
}

fn rewritten(old: &[u8], name: &OsStr, id: &BackupId, digests: &FileDigests) -> Vec<u8> {
    let (mark, name) = escaped(name);
    let comment = [b"# ", &name[..], b" as stored in "].concat();
    let about_it = |line: &[u8]| {
        line.starts_with(&comment)
            || line
                .strip_prefix(mark)
                .and_then(|line| line.split_at_checked(64))
                .is_some_and(|(_, rest)| rest.get(2..) == Some(&name[..]))
    };
    let mut sums = Vec::new();
    for line in old.split(|byte| *byte == b'\n') {
        if !line.is_empty() && !about_it(line) {
            sums.extend_from_slice(line);
            sums.push(b'\n');
        }
    }
    for part in [mark, digests.downloaded.as_bytes(), b"  ", &name, b"\n"] {
        sums.extend_from_slice(part);
    }
    if digests.stored != digests.downloaded {
        sums.extend_from_slice(&comment);
        sums.extend_from_slice(format!("{id}: {}\n", digests.stored).as_bytes());
    }
    sums
}

/// A name as sha256sum writes it, and the mark that sha256sum puts before such a line.
fn escaped(name: &OsStr) -> (&'static [u8], Vec<u8>) {
    let mut text = Vec::new();
    for byte in name.as_bytes() {
        match byte {
            b'\\' => text.extend_from_slice(b"\\\\"),
            b'\n' => text.extend_from_slice(b"\\n"),
            b'\r' => text.extend_from_slice(b"\\r"),
            byte => text.push(*byte),
        }
    }
    let mark: &[u8] = if text.len() > name.len() { b"\\" } else { b"" };
    (mark, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(stored: char, downloaded: char) -> FileDigests {
        let digest = |digit: char| digit.to_string().repeat(64);
        FileDigests {
            stored: digest(stored),
            downloaded: digest(downloaded),
        }
    }

    fn sums(old: &str, name: &str, digests: &FileDigests) -> String {
        let id = "shop/20250131T040500Z-full".parse().unwrap();
        String::from_utf8(rewritten(old.as_bytes(), OsStr::new(name), &id, digests)).unwrap()
    }

    #[test]
    fn the_files_line_is_replaced_and_all_others_stay() {
        let (a, b, c) = ("a".repeat(64), "b".repeat(64), "c".repeat(64));
        let old = format!("{a}  shop.dump\n{a} *shop.dump\n{a}  globals.sql\n# a note\n{a}  my shop.dump");
        let new = sums(&old, "shop.dump", &digests('b', 'c'));
        let comment = format!("# shop.dump as stored in shop/20250131T040500Z-full: {b}\n");
        let kept = format!("{a}  globals.sql\n# a note\n{a}  my shop.dump\n");
        assert_eq!(new, format!("{kept}{c}  shop.dump\n{comment}"));
        assert_eq!(sums(&new, "shop.dump", &digests('b', 'c')), new);
        assert_eq!(
            sums(&new, "shop.dump", &digests('b', 'b')),
            format!("{kept}{b}  shop.dump\n")
        );
    }

    #[test]
    fn sha256sum_understands_a_name_that_breaks_lines() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a\\b\nc");
        std::fs::write(&target, "content").unwrap();
        let hex = hex::encode(<sha2::Sha256 as sha2::Digest>::digest("content"));
        let id = "shop/20250131T040500Z-full".parse().unwrap();
        let digests = FileDigests {
            stored: "0".repeat(64),
            downloaded: hex,
        };
        for _ in 0..2 {
            write(&target, &id, &digests).unwrap();
        }
        let checked = std::process::Command::new("sha256sum")
            .args(["--check", "--strict", SHA256SUMS])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(checked.status.success(), "{checked:?}");
        assert_eq!(String::from_utf8_lossy(&checked.stdout).lines().count(), 1);
    }
}
