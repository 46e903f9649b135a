//! Checks that a store's folder is the same as before: if its disk is not mounted, there is an empty folder with the
//! same name, and a backup would start anew on another disk.

use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::settings::StoreCreate;
use crate::error::{Code, Error, Result};
use crate::repository::backup_id::{BackupId, database_of_folder, lease_key};
use crate::run::publication::{Access, Publish, publish};

/// The folders in which backups were made, in a file on this machine. Without a file, nothing is remembered.
#[derive(Debug, Clone, Default)]
pub struct Remembered(Option<PathBuf>);

/// The oldest entries are dropped, so that a new folder for each run does not fill the file.
const MOST: usize = 100;
const LONGEST: u64 = 1 << 20;

/// A folder's state when a backup was made in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    root: PathBuf,
    /// The mount point at or above it.
    mount: PathBuf,
    /// Device and inode: an emptied folder keeps them; the folder below an unmounted disk has others.
    identity: (u64, u64),
}

impl Known {
    fn now(root: &Path) -> Option<Self> {
        let root = real(root);
        Some(Self {
            mount: innermost(&root, mounted(&read("/proc/self/mountinfo"))).unwrap_or("/".into()),
            identity: identity(&root)?,
            root,
        })
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let number = |nth| field(line, nth)?.to_str()?.parse().ok();
        let known = Self {
            root: field(line, 0)?,
            mount: field(line, 1)?,
            identity: (number(2)?, number(3)?),
        };
        (known.root.is_absolute() && known.mount.is_absolute()).then_some(known)
    }

    fn line(&self) -> Vec<u8> {
        let numbers = format!("{} {}\n", self.identity.0, self.identity.1);
        [
            &*escaped(&self.root),
            b" ",
            &escaped(&self.mount),
            b" ",
            numbers.as_bytes(),
        ]
        .concat()
    }
}

fn identity(folder: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(folder).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

impl Remembered {
    pub fn in_folder(state: Option<&Path>) -> Self {
        Self(state.map(|folder| folder.join("stores")))
    }

    /// Records that this folder holds a backup. A file that cannot be written does not fail the backup.
    pub fn note(&self, root: &Path) {
        let (Some(file), Some(now)) = (&self.0, Known::now(root)) else {
            return;
        };
        let mut all = self.all();
        if all.contains(&now) {
            return;
        }
        all.retain(|known| known.root != now.root);
        all.push(now);
        let newest = &all[all.len().saturating_sub(MOST)..];
        let lines: Vec<u8> = newest.iter().flat_map(Known::line).collect();
        if let Err(error) = replace(file, &lines) {
            tracing::debug!("cannot remember the store's folder in {}: {error}", file.display());
        }
    }

    fn all(&self) -> Vec<Known> {
        let Some(file) = &self.0 else { return Vec::new() };
        let mut text = Vec::new();
        // A pipe in its place must not block, and a link is not followed.
        let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
        let opened = fs::OpenOptions::new().read(true).custom_flags(flags).open(file);
        if let Ok(opened) = opened
            && opened.metadata().is_ok_and(|metadata| metadata.is_file())
        {
            let _ = opened.take(LONGEST).read_to_end(&mut text);
        }
        lines(&text).filter_map(Known::parse).collect()
    }

    /// Whether backups were made in a folder of this name, and the present folder is another one.
    fn other_folder(&self, here: &Path) -> bool {
        let now = identity(here);
        let mut all = self.all().into_iter();
        now.is_some_and(|now| all.any(|known| known.root == here && known.identity != now))
    }

    fn mounts(&self) -> Vec<PathBuf> {
        self.all().into_iter().map(|known| known.mount).collect()
    }
}

/// Creates the folder if necessary, for its user only. A reader sees the old file or the new one.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    publish(file, bytes, Access::Exactly(0o600), Publish::Replace)?;
    Ok(())
}

/// `ENOENT` if a backup must not start in this folder.
pub fn check(root: &Path, create: StoreCreate, remembered: &Remembered) -> Result<()> {
    if create == StoreCreate::Always || holds_any(root) {
        return Ok(());
    }
    let (here, mountinfo) = (real(root), read("/proc/self/mountinfo"));
    let fstab = read("/etc/fstab");
    let missing = [
        (fstab_points(&fstab), "which /etc/fstab names"),
        (remembered.mounts(), "on which backups were made"),
    ]
    .into_iter()
    .find_map(|(points, known)| Some((missing_mount(&here, points, &mountinfo)?, known)));
    if let Some((missing, known)) = missing {
        let what = format!(
            "the store's folder {} is on {}, {known}, and nothing is mounted there",
            root.display(),
            missing.display()
        );
        return Err(Error::new(Code::Enoent, what)
            .hint("mount it; to store backups there without the mount, set BACKUP_STORE_CREATE=always"));
    }
    if create == StoreCreate::Never {
        let what = format!(
            "the store's folder {} holds nothing of pgstow's, and BACKUP_STORE_CREATE=never forbids a first backup there",
            root.display()
        );
        return Err(Error::new(Code::Enoent, what)
            .hint("mount its disk, or correct --store; for the first backup, give --store-create always"));
    }
    if remembered.other_folder(&here) {
        let what = format!(
            "the store's folder {} held backups, but the present folder is another one and holds none",
            root.display()
        );
        return Err(Error::new(Code::Enoent, what)
            .hint("mount its disk, or move the folder back; to begin anew, give --store-create always"));
    }
    Ok(())
}

fn read(path: &str) -> Vec<u8> {
    fs::read(path).unwrap_or_default()
}

/// The real path: a link leads to the disk that counts. For a folder that does not exist yet, its parent's path.
fn real(root: &Path) -> PathBuf {
    let here = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    fs::canonicalize(&here).unwrap_or(here)
}

/// Whether a run has ever written into it.
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

/// The mount points that are mounted at boot.
fn fstab_points(fstab: &[u8]) -> Vec<PathBuf> {
    lines(fstab)
        .filter(|line| !line.trim_ascii_start().starts_with(b"#"))
        // Mounted by hand only.
        .filter(|line| !field(line, 3).is_some_and(|options| has_option(&options, "noauto")))
        .filter_map(|line| field(line, 1))
        .filter(|point| point.is_absolute())
        .collect()
}

fn mounted(mountinfo: &[u8]) -> Vec<PathBuf> {
    lines(mountinfo).filter_map(|line| field(line, 4)).collect()
}

/// The innermost of these mount points at or above this path, if nothing is mounted there.
fn missing_mount(path: &Path, points: Vec<PathBuf>, mountinfo: &[u8]) -> Option<PathBuf> {
    let mounted = mounted(mountinfo);
    // Without /proc nothing is known.
    if mounted.is_empty() {
        return None;
    }
    innermost(path, points).filter(|point| point != Path::new("/") && !mounted.contains(point))
}

fn innermost(path: &Path, points: Vec<PathBuf>) -> Option<PathBuf> {
    let around = points.into_iter().filter(|point| path.starts_with(point));
    around.max_by_key(|point| point.as_os_str().len())
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
}

fn field(line: &[u8], nth: usize) -> Option<PathBuf> {
    let fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    fields.into_iter().nth(nth).map(unescaped)
}

fn has_option(options: &Path, wanted: &str) -> bool {
    options.to_string_lossy().split(',').any(|option| option == wanted)
}

fn escaped(point: &Path) -> Vec<u8> {
    let byte = |byte: &u8| match byte {
        b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | b'\\' | b'#' => format!("\\{byte:03o}").into_bytes(),
        _ => vec![*byte],
    };
    point.as_os_str().as_bytes().iter().flat_map(byte).collect()
}

/// All these files write spaces and similar characters as a backslash and three octal digits.
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
        missing_mount(Path::new(path), fstab_points(FSTAB.as_bytes()), mountinfo.as_bytes())
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
        let never = |path: &Path| check(path, StoreCreate::Never, &Remembered::default()).map_err(|error| error.code());
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
        assert!(check(root.path(), StoreCreate::Auto, &Remembered::default()).is_ok());
    }

    #[test]
    fn a_folder_in_which_backups_were_made_is_remembered() {
        let (state, site) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let remembered = Remembered::in_folder(Some(&state.path().join("made/later")));
        let root = site.path().join("a b\\040#c\n");
        fs::create_dir(&root).unwrap();
        let begin = || check(&root, StoreCreate::Auto, &remembered).map_err(|error| error.code());
        assert_eq!(begin(), Ok(()));
        remembered.note(&root);
        remembered.note(&root);
        assert_eq!(remembered.all(), [Known::now(&root).unwrap()]);
        // Emptied by hand, or taken away: nothing is mounted over it.
        assert_eq!(begin(), Ok(()));
        fs::rename(&root, site.path().join("away")).unwrap();
        assert_eq!(begin(), Ok(()));
        fs::create_dir(&root).unwrap();
        assert_eq!(begin(), Err(Code::Enoent));
        assert!(check(&root, StoreCreate::Always, &remembered).is_ok());
        remembered.note(&root);
        assert_eq!(begin(), Ok(()));
        assert_eq!(remembered.all().len(), 1);

        for n in 0..MOST {
            let folder = site.path().join(n.to_string());
            fs::create_dir(&folder).unwrap();
            remembered.note(&folder);
        }
        assert_eq!(remembered.all().len(), MOST);
        assert!(!remembered.all().iter().any(|known| known.root == root));
        fs::write(
            state.path().join("made/later/stores"),
            "nonsense\n/a /b c 1\n\\057 x 1 2\n\n",
        )
        .unwrap();
        assert_eq!(remembered.all(), []);
    }

    #[test]
    fn a_mount_on_which_backups_were_made_is_missing_when_it_is_gone() {
        let state = tempfile::tempdir().unwrap();
        let remembered = Remembered::in_folder(Some(state.path()));
        remembered.note(Path::new("/proc/self"));
        let missing = |path: &str| missing_mount(Path::new(path), remembered.mounts(), ROOT.as_bytes());
        assert_eq!(missing("/proc/backups"), Some("/proc".into()));
        assert_eq!(missing("/srv/backups"), None);
    }
}
