//! How to reach a database: read from a URL or a keyword string as libpq reads them, and written as a keyword string
//! for PostgreSQL's own programs.

mod keys;
mod keywords;
mod parameters;
mod uri;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use crate::error::{Error, Result};
pub use keys::{Keys, Login, PasswordFile, Provider, text_of_secret};

/// The default host. libpq would try a socket folder that depends on how it was built; this name has the same meaning
/// for pgstow and every pg_dump.
pub const DEFAULT_HOST: &str = "localhost";
pub const DEFAULT_PORT: u16 = 5432;

/// Whether the text contains a connection URL, of libpq or of an application's driver, anywhere.
pub fn is_connection_url(text: &str) -> bool {
    uri::is_in(text)
}

/// A connection's parts. Missing parts get the defaults of [`ConnectionInfo::settled`].
///
/// Equality compares the password too, but not the source of the next password nor `whose`; `Debug` does not show the
/// password.
#[derive(Debug, Clone, Default)]
pub struct ConnectionInfo {
    /// A host name, an address, or a socket folder (starts with `/`).
    pub host: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub password: Option<SecretString>,
    pub dbname: Option<String>,
    /// libpq's own parameters as they were given (`sslmode`, `sslrootcert`, `options`, …); none of them is secret or
    /// empty.
    pub params: BTreeMap<String, String>,
    /// libpq's files with further parts, if the connection names them.
    pub files: Files,
    /// The source of the password for each login.
    pub keys: Keys,
    pub whose: Whose,
}

/// Whose connection it is; the names of its settings depend on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Whose {
    #[default]
    Source,
    /// The database that a restore fills.
    Target,
}

impl Whose {
    pub fn lacks_user(self) -> &'static str {
        match self {
            Self::Source => "name it in --database-url (postgres://user@host/db), DB_USER, or the secret's username",
            Self::Target => {
                "name it in --target (postgres://user@host/db), BACKUP_TARGET_USER, or the secret's username"
            }
        }
    }

    pub fn lacks_database(self) -> &'static str {
        match self {
            Self::Source => {
                "name it at the end of the URL (postgres://user@host/NAME), in DB_NAME, in the secret's dbname, or with \
                 `backup --database NAME`"
            }
            Self::Target => {
                "name it at the end of --target (postgres://user@host/NAME), in BACKUP_TARGET_NAME, or in the secret's dbname"
            }
        }
    }
}

/// libpq's `service`, `servicefile` and `passfile`: the settings read them, and they are never passed on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    pub service: Option<String>,
    pub servicefile: Option<PathBuf>,
    pub passfile: Option<PathBuf>,
}

impl ConnectionInfo {
    /// Whether the text begins as a connection URL does.
    pub fn is_url(text: &str) -> bool {
        uri::strip_scheme(text).is_some()
    }

    /// Reads a `postgres://` or `postgresql://` URL, or a keyword string (`host=… dbname='…'`), as libpq does, and the
    /// URLs of applications' drivers (`postgresql+asyncpg://`, `jdbc:postgresql://`). An empty part counts as absent. Errors are `CONFIG`, and quote nothing of the text except names of parameters,
    /// because it may contain a password.
    ///
    /// It is stricter than libpq in one place: an `@` in the host or (without user) in the path counts as part of a
    /// password that was not percent-encoded. It is more lenient in another: a parameter's value may contain `=`.
    pub fn parse_url(text: &str) -> Result<ConnectionInfo> {
        let text = text.trim();
        let mut info = ConnectionInfo::default();
        if text.is_empty() {
            return Err(Error::config("the connection URL is empty"));
        }
        if let Some(rest) = uri::strip_scheme(text) {
            uri::parse(rest, &mut info)?;
        } else if text.split_once('=').is_some_and(|(name, _)| !name.contains("://")) {
            keywords::parse(text, &mut info)?;
        } else {
            return Err(
                Error::config("the connection URL is not understood: it does not start with postgres://")
                    .hint("write postgres://user:password@host:5432/database, special characters as %XX"),
            );
        }
        Ok(info)
    }

    /// Sets one parameter by libpq's name for it. The five core parameters have their own fields; all others go to
    /// `params`. An empty value changes nothing.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        parameters::set(self, name, value)
    }

    /// These parts, replaced by those that `over` has.
    #[must_use]
    pub fn merge(mut self, over: &ConnectionInfo) -> ConnectionInfo {
        if over.host.is_some() {
            // The address belonged to the host that is replaced.
            self.params.remove("hostaddr");
            self.host.clone_from(&over.host);
        }
        self.port = over.port.or(self.port);
        self.user = over.user.clone().or(self.user);
        if over.password.is_some() || over.keys.may_change() {
            self.password.clone_from(&over.password);
            self.keys = over.keys.clone();
        }
        self.dbname = over.dbname.clone().or(self.dbname);
        for (name, value) in &over.params {
            self.params.insert(name.clone(), value.clone());
        }
        let files = &over.files;
        self.files = Files {
            service: files.service.clone().or(self.files.service),
            servicefile: files.servicefile.clone().or(self.files.servicefile),
            passfile: files.passfile.clone().or(self.files.passfile),
        };
        if over.whose == Whose::Target {
            self.whose = over.whose;
        }
        self
    }

    /// The same with every default filled in: host `localhost`, port 5432. User and database have no default: a
    /// service rarely runs under its role's name, and a database that was not named (libpq takes the user's name) is
    /// rarely the right one.
    pub fn settled(&self) -> Result<ConnectionInfo> {
        let mut info = self.clone();
        if self.user.is_none() {
            return Err(Error::config("no database user is given").hint(self.whose.lacks_user()));
        }
        if info.host.is_none() {
            info.host = Some(
                info.params
                    .get("hostaddr")
                    .cloned()
                    .unwrap_or_else(|| DEFAULT_HOST.into()),
            );
        }
        info.port.get_or_insert(DEFAULT_PORT);
        if self.dbname.is_none() {
            let what = format!("no database is named on {}", info.place());
            return Err(Error::config(what).hint(self.whose.lacks_database()));
        }
        Ok(info)
    }

    /// The database's name.
    pub fn database(&self) -> Option<&str> {
        self.dbname.as_deref()
    }

    /// Whether the host is a socket folder.
    pub fn is_socket(&self) -> bool {
        self.host.as_deref().is_some_and(|host| host.starts_with('/')) && !self.params.contains_key("hostaddr")
    }

    /// `user@host:port/database`, for messages and the report.
    pub fn target(&self) -> String {
        let user = self.user.as_deref().unwrap_or("?");
        format!("{user}@{}/{}", self.place(), self.database().unwrap_or("?"))
    }

    /// The hint with the role's name, quoted for SQL, instead of `<role>`.
    pub fn naming_the_role(&self, hint: &str) -> String {
        match &self.user {
            Some(user) => hint.replace("<role>", &super::quoting::identifier(user)),
            None => hint.to_owned(),
        }
    }

    /// Host and port as in a URL.
    fn place(&self) -> String {
        let host = self.host.as_deref().unwrap_or(DEFAULT_HOST);
        let port = self.port.unwrap_or(DEFAULT_PORT);
        if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }

    /// Whether this part, by libpq's name for it, is set.
    pub fn says(&self, part: &str) -> bool {
        match part {
            "host" => self.host.is_some(),
            "port" => self.port.is_some(),
            "dbname" => self.dbname.is_some(),
            "user" => self.user.is_some(),
            "password" => self.password.is_some() || self.keys.may_change(),
            _ => self.params.contains_key(part),
        }
    }

    /// A keyword string for `--dbname=`. It is correct for every name; libpq would read a bare database name with `=`
    /// or in the form of a URL as a whole connection string. It contains no secret, because every user of the machine
    /// can read argv.
    pub fn to_conninfo(&self) -> String {
        let port = self.port.map(|port| port.to_string());
        let core = [
            ("host", self.host.as_deref()),
            ("port", port.as_deref()),
            ("user", self.user.as_deref()),
            ("dbname", self.dbname.as_deref()),
        ];
        let given = core
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name, value)));
        let others = self.params.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        // Before 16, libpq refuses `require_auth`.
        let others = others.filter(|(name, _)| !parameters::is_secret(name) && *name != "require_auth");
        keywords::write(given.chain(others))
    }
}

impl PartialEq for ConnectionInfo {
    fn eq(&self, other: &Self) -> bool {
        let password = |info: &Self| info.password.as_ref().map(|secret| secret.expose_secret().to_owned());
        self.host == other.host
            && self.port == other.port
            && self.user == other.user
            && self.dbname == other.dbname
            && self.params == other.params
            && self.files == other.files
            && password(self) == password(other)
    }
}

impl Eq for ConnectionInfo {}

impl fmt::Display for ConnectionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.target())
    }
}

#[cfg(test)]
mod tests;
