//! The password's way to PostgreSQL's programs: a file that only we can read, gone when we are.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::ConnectionInfo;
use super::authentication::Methods;
use super::relay::Relay;
use crate::error::{Code, Error, Result};
use crate::private_folder::PrivateFolder;

/// The first libpq that knows `require_auth`.
const REQUIRES_AUTH_SINCE: u32 = 16;

/// A passfile of libpq's, removed with its folder on drop.
#[derive(Debug)]
pub struct Passfile {
    path: PathBuf,
    /// The ways in which a server may ask for the password.
    require_auth: Option<String>,
    /// For a libpq that does not know them.
    relay: Option<Relay>,
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
        let require_auth = info.params.get("require_auth").cloned();
        // Without it, what needs it is refused.
        let relay = unencrypted(info)
            .zip(require_auth.as_deref())
            .and_then(|(server, list)| Relay::open(folder.path(), server, Methods::parse(list).ok()?).ok());
        Ok(Some(Passfile {
            path,
            require_auth,
            relay,
            _folder: None,
        }))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For libpq's environment: an older one, which takes it for an error as a parameter, overlooks it
    /// there.
    pub(super) fn require_auth(&self) -> Option<&str> {
        self.require_auth.as_deref()
    }
}

/// How a program of this major reaches the database, with all defaults settled: without being made to
/// give the password in a way that is not allowed.
pub(super) fn way(info: &ConnectionInfo, passfile: Option<&Passfile>, major: u32) -> Result<ConnectionInfo> {
    let mut info = info.settled()?;
    let Some(passfile) = passfile.filter(|_| major < REQUIRES_AUTH_SINCE) else {
        return Ok(info);
    };
    match (&passfile.relay, &passfile.require_auth) {
        (Some(relay), _) => {
            info.params.remove("hostaddr");
            info.host = Some(relay.folder().to_string_lossy().into_owned());
        }
        (None, Some(list)) if info.params.get("channel_binding").is_none_or(|wish| wish != "require") => {
            return Err(Error::new(
                Code::Version,
                format!("PostgreSQL's programs of version {major} cannot be held to require_auth={list}"),
            )
            .hint(
                "use those of version 16 or newer, or sslmode=verify-full with channel_binding=require; on a line \
                 without encryption it is enough to point TMPDIR at a folder with a short name",
            ));
        }
        _ => {}
    }
    Ok(info)
}

/// The server's address, where the line to it is known to be in clear text.
fn unencrypted(info: &ConnectionInfo) -> Option<SocketAddr> {
    if info.is_socket() || info.params.get("sslmode").is_none_or(|mode| mode != "disable") {
        return None;
    }
    let address = info.params.get("hostaddr")?.parse().ok()?;
    Some(SocketAddr::new(address, info.port?))
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
    fn a_program_that_cannot_be_held_to_what_is_allowed_is_not_given_the_password() {
        let temp = tempfile::tempdir().unwrap();
        let mut info = info("secret");
        info.user = Some("backup".into());
        let passfile = Passfile::create(temp.path(), &info).unwrap();
        assert!(way(&info, passfile.as_ref(), 15).is_ok());
        info.set("sslmode", "require").unwrap();
        info.set("require_auth", "scram-sha-256").unwrap();
        let passfile = Passfile::create(temp.path(), &info).unwrap();
        assert_eq!(way(&info, passfile.as_ref(), 15).unwrap_err().code(), Code::Version);
        assert!(way(&info, passfile.as_ref(), 16).is_ok());
        assert!(way(&info, None, 15).is_ok());
        info.set("channel_binding", "require").unwrap();
        assert!(way(&info, passfile.as_ref(), 15).is_ok());
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
