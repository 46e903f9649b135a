//! The `.env` of the working folder, which nobody has named: it is read because it lies there. So it
//! counts only where nobody but this user, or root, can have written it, and it never says which
//! programs are run, nor by which files of libpq's a connection is made.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::geteuid;

use super::layers::unreadable;
use super::libpq;
use super::problems::Problems;

/// More than any file of settings has.
pub const LONGEST: u64 = 1 << 20;

/// Its text, or a warning why it is not read. None at all is no news.
pub fn read(path: &Path, problems: &mut Problems, warnings: &mut Vec<String>) -> Option<String> {
    let file = match open(path) {
        Ok(file) => file?,
        Err(Refused::Unsafe(why)) => {
            warnings.push(format!("{} was not read: {why}", path.display()));
            return None;
        }
        // Perhaps another program's. What it would have set and is needed, is told as missing.
        Err(Refused::Unreadable(error)) => {
            warnings.push(format!(
                "{} was not read: {error}; if its settings are meant, let this user read it",
                path.display()
            ));
            return None;
        }
    };
    let mut text = String::new();
    match file.take(LONGEST).read_to_string(&mut text) {
        Ok(_) => Some(text),
        Err(error) => {
            unreadable(path, ".env", &error, problems);
            None
        }
    }
}

enum Refused {
    Unsafe(String),
    Unreadable(std::io::Error),
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        Self::Unreadable(error)
    }
}

/// `None` where there is none. It may be a folder (a Python virtual environment is often called so).
fn open(path: &Path) -> Result<Option<File>, Refused> {
    let link = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    trusted(link.uid())?;
    let opened = File::options()
        .read(true)
        // A FIFO would be waited for, for ever.
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        // A link that leads nowhere.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(None);
    }
    // The file itself, whatever led to it.
    trusted(metadata.uid())?;
    if metadata.mode() & 0o022 != 0 {
        return Err(Refused::Unsafe(
            "others than its owner can write it: chmod go-w it, or name it with --env-file".to_owned(),
        ));
    }
    if metadata.len() > LONGEST {
        return Err(Refused::Unsafe("it is too long for a file of settings".to_owned()));
    }
    Ok(Some(file))
}

fn trusted(owner: u32) -> Result<(), Refused> {
    if owner == 0 || owner == geteuid().as_raw() {
        return Ok(());
    }
    Err(Refused::Unsafe(format!(
        "it belongs to another user (uid {owner}): if you trust it, name it with --env-file"
    )))
}

/// Takes out what says which programs are run, and which of libpq's files say where passwords go.
pub fn leave_out_choices(pairs: &mut Vec<(String, String)>, warnings: &mut Vec<String>) {
    pairs.retain(|(name, _)| {
        let what = match name {
            name if chooses_programs(name) => "programs",
            name if libpq::chooses_files(name) => "libpq's files",
            _ => return true,
        };
        warnings.push(format!(
            "{name} from .env was ignored: a file that nobody has named does not choose {what}; name it with \
             --env-file, or set {name} in the environment"
        ));
        false
    });
}

fn chooses_programs(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    name.ends_with("_BIN") || name.ends_with("_COMMAND") || name.contains("_HOOK")
}
