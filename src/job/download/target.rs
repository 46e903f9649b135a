//! Chooses the file for a download.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};
use crate::repository::backup_id::SHA256SUMS;
use crate::run::files::io_error;

/// Returns `output`; if that is a folder, a file with the archive's own name in it; without `output`, one in the
/// working folder. Without `force` an existing file is an error. An existing object that is no file is always an error.
pub fn choose(output: Option<PathBuf>, name: &str, force: bool) -> Result<PathBuf> {
    let target = match output {
        None => PathBuf::from(name),
        Some(output) if output == Path::new("-") => {
            let why = "a download is proved before it gets its name, so it cannot go into a pipe";
            return Err(Error::config(format!("--output -: {why}"))
                .hint("give a file; `aws s3 cp … - | pg_restore` reads the stored archive from a pipe"));
        }
        Some(output) if output.is_dir() => output.join(name),
        // A folder that may not exist yet.
        Some(output) if output.as_os_str().as_encoded_bytes().ends_with(b"/") => {
            fs::create_dir_all(&output).map_err(|error| file_error("make the folder", &output, error))?;
            output.join(name)
        }
        Some(output) => output,
    };
    let shown = target.display();
    match target.file_name() {
        Some(name) if name != SHA256SUMS => {}
        _ => {
            return Err(Error::config(format!("--output {shown}: this is no name for a file")));
        }
    }
    match fs::symlink_metadata(&target) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(target),
        Err(error) => Err(file_error("look at", &target, error)),
        Ok(there) if !there.is_file() && !there.is_symlink() => Err(Error::config(format!(
            "{shown} is there already, but is no file that could be replaced"
        ))
        .hint("name another with -o")),
        Ok(_) if !force => Err(Error::config(format!("{shown} is there already"))
            .hint("name another file with -o, or replace this one with --force")),
        Ok(_) => Ok(target),
    }
}

/// The same error as for files of a store, with a hint for this file.
pub fn file_error(what: &str, path: &Path, error: std::io::Error) -> Error {
    let error = io_error(what, path, error);
    match error.code() {
        Code::Enospc => error.hint("free space there, or name a file elsewhere with -o"),
        Code::Eacces | Code::Enoent => error.hint("name a file in a folder that you may write into: -o FILE"),
        _ => error.hint("check the disk, or name a file elsewhere with -o"),
    }
}
