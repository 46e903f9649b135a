//! The file that node exporter's textfile collector reads. It is replaced as a whole, so that the collector sees the
//! old file or the new one; several runs may share it.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::Observation;
use super::prometheus::Samples;
use crate::error::{Error, Result};
use crate::run::files::{lock_folder, parent};
use crate::run::publication::{Access, Publish, publish};

/// pgstow never writes a larger file: a database takes about 3 kB.
const LARGEST: u64 = 16 << 20;
/// The collector runs as another user.
const MODE: u32 = 0o644;

/// Adds the observations to the file, and keeps its samples of other databases and earlier runs. The error's code
/// never ends a run: the caller turns it into a warning.
pub(super) fn update(path: &Path, service: &str, observations: &[Observation]) -> Result<()> {
    let failed =
        |error: io::Error| Error::config(format!("the metrics were not written to {}", path.display())).source(error);
    let path = target(path).map_err(failed)?;
    // If two runs read the file and then wrote it one after the other, the first run's samples would be lost. The
    // lock is released with the handle.
    let folder = File::open(parent(&path)).map_err(failed)?;
    lock_folder(&folder).map_err(failed)?;

    let mut samples = read(&path).map_err(failed)?;
    for observation in observations {
        samples.observe(service, observation);
    }
    // The collector ignores a temporary file that may be left behind: its name does not end in .prom.
    let text = samples.render();
    publish(&path, text.as_bytes(), Access::Exactly(MODE), Publish::Replace).map_err(failed)?;
    Ok(())
}

/// The target of a link, so that the link itself stays. Anything but a file is refused: a rename would replace a
/// device with a file.
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
        // Empty, as `mktemp` and `touch` make it.
        Ok(there) if there.len() == 0 => return Ok(Samples::default()),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Samples::default()),
        Err(error) => return Err(error),
    }
    let bytes = fs::read(path)?;
    let text = String::from_utf8(bytes).map_err(|_| foreign("pgstow did not write it"))?;
    Samples::parse(&text).map_err(|line| foreign(&format!("pgstow did not write its line {line}")))
}
