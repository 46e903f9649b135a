//! The file that node exporter's textfile collector reads. It is replaced as a whole, so that the
//! collector sees the old one or the new one; several runs may share it.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Observation;
use super::prometheus::Samples;
use crate::error::{Error, Result};
use crate::run::files::lock_folder;

/// A larger file is none of ours: a database takes about 3 kB.
const LARGEST: u64 = 16 << 20;
/// The collector runs as another user.
const MODE: u32 = 0o644;

/// Lays what was observed over what the file says of other databases and earlier runs. The code of
/// an error never ends a run: the caller makes a warning of it.
pub(super) fn update(path: &Path, service: &str, observations: &[Observation]) -> Result<()> {
    let failed =
        |error: io::Error| Error::config(format!("the metrics were not written to {}", path.display())).source(error);
    let path = target(path).map_err(failed)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Two runs that read the same file and write it one after the other would lose what the first
    // has said. The lock goes with the handle.
    let folder_handle = File::open(folder).map_err(failed)?;
    lock_folder(&folder_handle).map_err(failed)?;

    let mut samples = read(&path).map_err(failed)?;
    for observation in observations {
        samples.observe(service, observation);
    }
    replace(folder, &path, &samples.render()).map_err(failed)
}

/// Where a link leads to, so that the link stays. What is no file is left alone: a rename would
/// put one in the place of a device.
fn target(path: &Path) -> io::Result<PathBuf> {
    match fs::metadata(path) {
        Ok(there) if there.is_file() => fs::canonicalize(path),
        Ok(_) => Err(io::Error::other("it is not a file")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(path.to_owned()),
        Err(error) => Err(error),
    }
}

fn read(path: &Path) -> io::Result<Samples> {
    let foreign = |what: &str| {
        io::Error::other(format!(
            "{what}, and it is not replaced; remove it, or name another file"
        ))
    };
    match fs::metadata(path) {
        Ok(there) if there.len() > LARGEST => return Err(foreign("pgstow did not write it")),
        // As `mktemp` and `touch` leave it.
        Ok(there) if there.len() == 0 => return Ok(Samples::default()),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Samples::default()),
        Err(error) => return Err(error),
    }
    let bytes = fs::read(path)?;
    let text = String::from_utf8(bytes).map_err(|_| foreign("pgstow did not write it"))?;
    Samples::parse(&text).map_err(|line| foreign(&format!("pgstow did not write its line {line}")))
}

fn replace(folder: &Path, path: &Path, text: &str) -> io::Result<()> {
    // Its name does not end in .prom: the collector passes it over, should it be left behind.
    let mut temporary = tempfile::Builder::new()
        .prefix(".pgstow-metrics.")
        .suffix(".tmp")
        .tempfile_in(folder)?;
    temporary.write_all(text.as_bytes())?;
    temporary.as_file().set_permissions(Permissions::from_mode(MODE))?;
    temporary.persist(path).map_err(|error| error.error)?;
    Ok(())
}
