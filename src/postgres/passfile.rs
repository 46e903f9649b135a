//! The password's way to PostgreSQL's programs: a file that only we can read, gone when we are.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::ConnectionInfo;
use crate::error::{Error, Result};
use crate::private_folder::PrivateFolder;

/// A passfile of libpq's, removed with its folder on drop.
#[derive(Debug)]
pub struct Passfile {
    path: PathBuf,
    /// None where it lies in somebody else's.
    _folder: Option<PrivateFolder>,
}

impl Passfile {
    /// Writes the connection's password, if it has one, into a new private folder below `temp`.
    pub fn create(temp: &Path, info: &ConnectionInfo) -> Result<Option<Passfile>> {
        if info.password.is_none() {
            return Ok(None);
        }
        let folder = PrivateFolder::create(temp)?;
        let written = Self::within(&folder, info)?;
        Ok(written.map(|passfile| Passfile {
            _folder: Some(folder),
            ..passfile
        }))
    }

    /// The same in a folder that is there, and goes with it.
    pub fn within(folder: &PrivateFolder, info: &ConnectionInfo) -> Result<Option<Passfile>> {
        let Some(password) = &info.password else {
            return Ok(None);
        };
        let line = passfile_line(password)?;
        let path = folder.write("passfile", line.expose_secret().as_bytes())?;
        Ok(Some(Passfile { path, _folder: None }))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Every host, port, database and user: the file serves one connection only.
fn passfile_line(password: &SecretString) -> Result<SecretString> {
    let password = password.expose_secret();
    if password.contains(['\n', '\r', '\0']) {
        return Err(
            Error::config("the password holds a line break, which a PostgreSQL passfile cannot carry")
                .hint("remove the line break (often the last character of a pasted secret), or change the password"),
        );
    }
    let escaped = password.replace('\\', "\\\\").replace(':', "\\:");
    Ok(SecretString::from(format!("*:*:*:*:{escaped}\n")))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn info(password: &str) -> ConnectionInfo {
        ConnectionInfo {
            password: Some(SecretString::from(password)),
            ..Default::default()
        }
    }

    #[test]
    fn the_file_is_private_escaped_and_gone_afterwards() {
        let temp = tempfile::tempdir().unwrap();
        let passfile = Passfile::create(temp.path(), &info(r"a:b\c'd")).unwrap().unwrap();
        let path = passfile.path().to_owned();
        let folder = path.parent().unwrap().to_owned();
        assert_eq!(fs::read_to_string(&path).unwrap(), "*:*:*:*:a\\:b\\\\c'd\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o7777, 0o700);
        drop(passfile);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn without_a_password_there_is_no_file() {
        let temp = tempfile::tempdir().unwrap();
        assert!(
            Passfile::create(temp.path(), &ConnectionInfo::default())
                .unwrap()
                .is_none()
        );
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_password_with_a_line_break_is_refused_without_being_quoted() {
        let temp = tempfile::tempdir().unwrap();
        let error = Passfile::create(temp.path(), &info("hunter2\n")).unwrap_err();
        assert_eq!(error.code(), crate::error::Code::Config);
        assert!(!error.message().contains("hunter2"));
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }
}
