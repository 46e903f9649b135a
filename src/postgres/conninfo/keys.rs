//! The source of the password: asked at each connect and at each child's start, because the password may change
//! during a run of hours.

mod password_file;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;

pub use self::password_file::PasswordFile;
use super::ConnectionInfo;
use crate::error::{Error, Result};
use crate::run::named_file;

/// Longer than any password or URL.
const LONGEST: u64 = 64 << 10;

/// The current user and password.
#[derive(Debug, Clone, Default)]
pub struct Login {
    /// `None`: the user that is known already.
    pub user: Option<String>,
    pub password: Option<SecretString>,
}

/// A source of logins. It is asked each time, because an earlier login may no longer be valid.
#[async_trait]
pub trait Provider: fmt::Debug + Send + Sync {
    /// For this connection, whose host, port and user are settled.
    async fn login(&self, info: &ConnectionInfo) -> Result<Login>;

    /// Whether its logins are valid only for minutes.
    fn is_short_lived(&self) -> bool {
        false
    }
}

#[derive(Debug, Clone, Default)]
pub enum Keys {
    /// The password that was given, or none.
    #[default]
    Given,
    /// libpq's password file, by host, port, database and user.
    PasswordFile(PasswordFile),
    /// A file that contains only the password.
    SecretFile(PathBuf),
    /// A file that contains a connection URL; only its user and password are used.
    UrlFile(PathBuf),
    Provider(Arc<dyn Provider>),
}

impl Keys {
    /// Whether the next answer may differ.
    pub fn may_change(&self) -> bool {
        !matches!(self, Keys::Given)
    }

    /// Whether the server would refuse a program that logs in once more with the same password.
    pub fn are_short_lived(&self) -> bool {
        matches!(self, Keys::Provider(provider) if provider.is_short_lived())
    }
}

impl ConnectionInfo {
    /// The same with the current password.
    pub async fn renewed(&self) -> Result<ConnectionInfo> {
        let login = match &self.keys {
            Keys::Given => return Ok(self.clone()),
            Keys::PasswordFile(file) => Login {
                user: None,
                password: file.look_up(&self.settled()?),
            },
            Keys::SecretFile(path) => Login {
                user: None,
                password: Some(SecretString::from(text_of_secret(&read(path)?))),
            },
            Keys::UrlFile(path) => {
                let url = ConnectionInfo::parse_url(&read(path)?)
                    .map_err(|error| error.context(path.display().to_string()))?;
                Login {
                    user: url.user,
                    password: url.password,
                }
            }
            Keys::Provider(provider) => provider.login(&self.settled()?).await?,
        };
        let mut info = self.clone();
        info.user = login.user.or(info.user);
        info.password = login.password;
        Ok(info)
    }
}

fn read(path: &Path) -> Result<String> {
    named_file::read_text(path, LONGEST)
        .map_err(|error| Error::config(format!("{} cannot be read", path.display())).source(error))
}

/// Without the line break that editors and `echo` put at the end of a file, and that no password has.
pub fn text_of_secret(text: &str) -> &str {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.trim_end_matches(['\r', '\n'])
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use secrecy::ExposeSecret;

    use super::*;

    #[derive(Debug, Default)]
    struct Counting(AtomicUsize);

    #[async_trait]
    impl Provider for Counting {
        async fn login(&self, info: &ConnectionInfo) -> Result<Login> {
            let number = self.0.fetch_add(1, Ordering::SeqCst);
            let host = info.host.as_deref().unwrap_or_default();
            Ok(Login {
                user: Some(format!("user{number}")),
                password: Some(SecretString::from(format!("{number} for {host}"))),
            })
        }
    }

    fn told(info: &ConnectionInfo) -> (Option<&str>, Option<&str>) {
        (
            info.user.as_deref(),
            info.password.as_ref().map(ExposeSecret::expose_secret),
        )
    }

    #[tokio::test]
    async fn each_time_the_password_is_asked_for_anew() {
        let mut info = ConnectionInfo::parse_url("postgres://ada:old@db/shop").unwrap();
        assert_eq!(told(&info.renewed().await.unwrap()), (Some("ada"), Some("old")));
        info.keys = Keys::Provider(Arc::new(Counting::default()));
        assert_eq!(told(&info.renewed().await.unwrap()), (Some("user0"), Some("0 for db")));
        assert_eq!(told(&info.renewed().await.unwrap()), (Some("user1"), Some("1 for db")));

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        info.keys = Keys::SecretFile(path.clone());
        assert!(
            info.renewed()
                .await
                .unwrap_err()
                .message()
                .contains("secret cannot be read")
        );
        for password in ["one", " two "] {
            std::fs::write(&path, format!("{password}\r\n")).unwrap();
            assert_eq!(told(&info.renewed().await.unwrap()), (Some("ada"), Some(password)));
        }
        info.keys = Keys::UrlFile(path.clone());
        std::fs::write(&path, "postgres://bob:three@elsewhere/other\n").unwrap();
        let renewed = info.renewed().await.unwrap();
        assert_eq!(told(&renewed), (Some("bob"), Some("three")));
        assert_eq!(renewed.host.as_deref(), Some("db"));
        std::fs::write(&path, "hunter2\n").unwrap();
        assert!(!info.renewed().await.unwrap_err().message().contains("hunter2"));
    }
}
