//! Gives the password to PostgreSQL's programs: in a file that only this user can read, made for each program when it
//! starts, and removed when it ends.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use secrecy::{ExposeSecret, SecretString};

use super::ConnectionInfo;
use super::authentication::Methods;
use super::logins::Logins;
use super::relay::Relay;
use crate::error::{Code, Error, Result};
use crate::postgres::settings;
use crate::run::private_folder::{self, PrivateFolder};

/// The first libpq with `require_auth`.
const REQUIRES_AUTH_SINCE: u32 = 16;

/// The folder for the password files of one connection's programs, and what else keeps the password from a server
/// that asks for it in a forbidden way.
#[derive(Debug)]
pub struct Passfile {
    folder: PathBuf,
    made: AtomicUsize,
    /// The methods that the server may use.
    require_auth: Option<String>,
    /// For a libpq without `require_auth`.
    relay: Option<Relay>,
    /// `None` if the files are in another owner's folder.
    _folder: Option<PrivateFolder>,
}

impl Passfile {
    /// For the connection's password, if it has one, in a new private folder below `temp`.
    pub fn create(temp: &Path, info: &ConnectionInfo) -> Result<Option<Passfile>> {
        if info.password.is_none() {
            return Ok(None);
        }
        let folder = PrivateFolder::create(temp)?;
        let made = Self::within(&folder, info)?;
        Ok(made.map(|passfile| Passfile {
            _folder: Some(folder),
            ..passfile
        }))
    }

    /// The same in an existing folder; the files are removed with it.
    pub fn within(folder: &PrivateFolder, info: &ConnectionInfo) -> Result<Option<Passfile>> {
        let Some(password) = &info.password else {
            return Ok(None);
        };
        // A password that no passfile can hold is refused before anything starts.
        passfile_line(password)?;
        let require_auth = info.params.get("require_auth").cloned();
        // Without a relay, a program that needs it is refused.
        let relay = unencrypted(info)
            .zip(require_auth.as_deref())
            .and_then(|(server, list)| Relay::open(folder.path(), server, Methods::parse(list).ok()?).ok());
        Ok(Some(Passfile {
            folder: folder.path().to_owned(),
            made: AtomicUsize::new(0),
            require_auth,
            relay,
            _folder: None,
        }))
    }

    /// The socket at which a program logs in through pgstow. `None` if the folder's name is too long for a socket.
    pub(super) fn logins(&self, info: &ConnectionInfo, settings: &settings::Postgres) -> Option<Logins> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.join(format!("in-{number}"));
        let opened = Logins::open(folder, info, settings);
        opened
            .inspect_err(|error| tracing::debug!("a program logs in to the server directly: {error}"))
            .ok()
    }

    fn write(&self, password: &SecretString) -> Result<PathBuf> {
        let line = passfile_line(password)?;
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let name = format!("passfile-{number}");
        private_folder::write_into(&self.folder, &name, line.expose_secret().as_bytes())
    }
}

/// One program's connection to the database, with the password at the program's start. Its file is removed on drop.
#[derive(Debug)]
pub(super) struct Pass {
    /// With all defaults filled in.
    pub info: Box<ConnectionInfo>,
    path: Option<PathBuf>,
    require_auth: Option<String>,
}

impl Pass {
    /// The connection for a program of this major version, so that no server can make it give the password away in a
    /// forbidden way. Asks for the password, and writes it.
    pub async fn issue(info: &ConnectionInfo, passfile: Option<&Passfile>, major: u32) -> Result<Pass> {
        let Some(passfile) = passfile else {
            return Ok(Pass {
                info: Box::new(info.settled()?),
                path: None,
                require_auth: None,
            });
        };
        let way = way(&Box::pin(info.renewed()).await?, passfile, major)?;
        let path = match &way.password {
            Some(password) => Some(passfile.write(password)?),
            None => None,
        };
        Ok(Pass {
            info: Box::new(way),
            path,
            require_auth: passfile.require_auth.clone(),
        })
    }

    /// Through pgstow's own logins, for which no program needs a password at any time.
    pub fn through(logins: &Logins, info: &ConnectionInfo) -> Result<Pass> {
        Ok(Pass {
            info: Box::new(logins.way(info)?),
            path: None,
            require_auth: None,
        })
    }

    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// For libpq's environment: an older libpq ignores it there, but refuses it as a parameter.
    pub fn require_auth(&self) -> Option<&str> {
        self.require_auth.as_deref()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // If this fails, the file is removed with its folder.
            let _ = fs::remove_file(path);
        }
    }
}

fn way(info: &ConnectionInfo, passfile: &Passfile, major: u32) -> Result<ConnectionInfo> {
    let mut info = info.settled()?;
    if major >= REQUIRES_AUTH_SINCE {
        return Ok(info);
    }
    match (&passfile.relay, &passfile.require_auth) {
        (Some(relay), _) => {
            info.params.remove("hostaddr");
            info.host = Some(relay.folder().to_string_lossy().into_owned());
        }
        (None, Some(list)) if info.params.get("channel_binding").is_none_or(|wish| wish != "require") => {
            return Err(Error::new(
                Code::Version,
                format!("PostgreSQL's programs of version {major} cannot enforce require_auth={list}"),
            )
            .hint(
                "use the programs of version 16 or newer, or sslmode=verify-full with channel_binding=require; on a \
                 connection without encryption it is enough to point TMPDIR at a folder with a short name",
            ));
        }
        _ => {}
    }
    Ok(info)
}

/// The server's address, if the connection is known to be in clear text.
fn unencrypted(info: &ConnectionInfo) -> Option<SocketAddr> {
    if info.is_socket() || info.params.get("sslmode").is_none_or(|mode| mode != "disable") {
        return None;
    }
    let address = info.params.get("hostaddr")?.parse().ok()?;
    Some(SocketAddr::new(address, info.port?))
}

/// For every host, port, database and user: the file serves only one connection.
fn passfile_line(password: &SecretString) -> Result<SecretString> {
    let password = password.expose_secret();
    if password.contains(['\n', '\r', '\0']) {
        return Err(
            Error::config("the password has a line break, which a PostgreSQL passfile cannot hold")
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
    use crate::postgres::Keys;

    fn info(password: &str) -> ConnectionInfo {
        ConnectionInfo {
            password: Some(SecretString::from(password)),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn each_program_has_a_private_file_of_its_own_which_goes_with_it() {
        let temp = tempfile::tempdir().unwrap();
        let mut info = info(r"a:b\c'd");
        (info.user, info.dbname) = (Some("ada".into()), Some("shop".into()));
        let passfile = Passfile::create(temp.path(), &info).unwrap();
        let one = Pass::issue(&info, passfile.as_ref(), 18).await.unwrap();
        let path = one.path().unwrap().to_owned();
        let folder = path.parent().unwrap().to_owned();
        assert_eq!(fs::read_to_string(&path).unwrap(), "*:*:*:*:a\\:b\\\\c'd\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o7777, 0o700);
        // The password is rotated in between.
        let renewed = temp.path().join("renewed");
        fs::write(&renewed, "second\n").unwrap();
        info.keys = Keys::SecretFile(renewed);
        let other = Pass::issue(&info, passfile.as_ref(), 18).await.unwrap();
        assert_eq!(fs::read_to_string(other.path().unwrap()).unwrap(), "*:*:*:*:second\n");
        drop(one);
        assert!(!path.exists() && other.path().unwrap().exists());
        drop(passfile);
        assert!(!folder.exists());
    }

    #[test]
    fn a_program_that_cannot_be_held_to_what_is_allowed_is_not_given_the_password() {
        let temp = tempfile::tempdir().unwrap();
        let mut info = info("secret");
        (info.user, info.dbname) = (Some("backup".into()), Some("shop".into()));
        let passfile = |info: &ConnectionInfo| Passfile::create(temp.path(), info).unwrap().unwrap();
        assert!(way(&info, &passfile(&info), 15).is_ok());
        info.set("sslmode", "require").unwrap();
        info.set("require_auth", "scram-sha-256").unwrap();
        assert_eq!(way(&info, &passfile(&info), 15).unwrap_err().code(), Code::Version);
        assert!(way(&info, &passfile(&info), 16).is_ok());
        info.set("channel_binding", "require").unwrap();
        assert!(way(&info, &passfile(&info), 15).is_ok());
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
