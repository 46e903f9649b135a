//! What is needed to reach a database: read from a URL or a keyword string as libpq reads them,
//! and written as a keyword string for PostgreSQL's own programs.

mod keywords;
mod parameters;
mod uri;

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use crate::error::{Error, Result};

/// Where we connect when no host is given. libpq would try a socket folder that depends on how it
/// was built; a name that means the same for us and for every pg_dump is better.
pub const DEFAULT_HOST: &str = "localhost";
pub const DEFAULT_PORT: u16 = 5432;

/// A connection's parts. What is absent takes the defaults of [`ConnectionInfo::settled`].
///
/// Equality compares the password too; `Debug` does not show it.
#[derive(Debug, Clone, Default)]
pub struct ConnectionInfo {
    /// A host name, an address, or a socket folder (starts with `/`).
    pub host: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub password: Option<SecretString>,
    pub dbname: Option<String>,
    /// libpq's own parameters as they were given (`sslmode`, `sslrootcert`, `options`, …); none
    /// of them is a secret, none is empty.
    pub params: BTreeMap<String, String>,
}

impl ConnectionInfo {
    /// Reads a `postgres://` or `postgresql://` URL, or a keyword string (`host=… dbname='…'`),
    /// as libpq does. An empty part counts as absent. Errors are `CONFIG` and quote nothing of
    /// the text, which may hold a password, but for the names of parameters.
    ///
    /// Stricter than libpq where it would help nobody: an `@` in the host or (without user) in
    /// the path is taken for a password that was not percent-encoded. Milder in one place: a
    /// parameter's value may hold `=`.
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

    /// Sets one parameter by libpq's name for it; the core five have their fields, everything
    /// else goes to `params`. An empty value unsets nothing and sets nothing.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        parameters::set(self, name, value)
    }

    /// These parts, with those that `over` has in their place.
    #[must_use]
    pub fn merge(mut self, over: &ConnectionInfo) -> ConnectionInfo {
        if over.host.is_some() {
            // The address belonged to the host that is being replaced.
            self.params.remove("hostaddr");
            self.host.clone_from(&over.host);
        }
        self.port = over.port.or(self.port);
        self.user = over.user.clone().or(self.user);
        self.password = over.password.clone().or(self.password);
        self.dbname = over.dbname.clone().or(self.dbname);
        for (name, value) in &over.params {
            self.params.insert(name.clone(), value.clone());
        }
        self
    }

    /// The same with every default filled in: host `localhost`, port 5432, the database named
    /// like the user. The user has no default: a service rarely runs under its database role's
    /// name.
    pub fn settled(&self) -> Result<ConnectionInfo> {
        let mut info = self.clone();
        let Some(user) = self.user.clone() else {
            return Err(Error::config("no database user is given")
                .hint("name it in --database-url (postgres://user@host/db), DB_USER, or the secret's username"));
        };
        if info.host.is_none() {
            info.host = Some(
                info.params
                    .get("hostaddr")
                    .cloned()
                    .unwrap_or_else(|| DEFAULT_HOST.into()),
            );
        }
        info.port.get_or_insert(DEFAULT_PORT);
        info.dbname.get_or_insert(user);
        Ok(info)
    }

    /// The database's name, which is the user's where none is given.
    pub fn database(&self) -> Option<&str> {
        self.dbname.as_deref().or(self.user.as_deref())
    }

    /// Whether the host is a socket folder.
    pub fn is_socket(&self) -> bool {
        self.host.as_deref().is_some_and(|host| host.starts_with('/')) && !self.params.contains_key("hostaddr")
    }

    /// `user@host:port/database`, for messages and the report.
    pub fn target(&self) -> String {
        let user = self.user.as_deref().unwrap_or("?");
        let host = self.host.as_deref().unwrap_or(DEFAULT_HOST);
        let port = self.port.unwrap_or(DEFAULT_PORT);
        let database = self.database().unwrap_or("?");
        if host.contains(':') {
            format!("{user}@[{host}]:{port}/{database}")
        } else {
            format!("{user}@{host}:{port}/{database}")
        }
    }

    /// A keyword string for `--dbname=`: robust for every name, since a bare database name that
    /// holds `=` or looks like a URL would be read as a whole connection string. It stands in
    /// argv, where every user of the machine can read it, so no secret is in it.
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
        // Before 16, libpq takes `require_auth` for an error.
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
