//! What is needed to reach a database, from a URL or from single settings.

use std::collections::BTreeMap;

use secrecy::SecretString;

/// A connection's parts. Absent ones take libpq's defaults, but for the database and user,
/// which whoever connects must have settled.
#[derive(Debug, Clone, Default)]
pub struct ConnectionInfo {
    /// A host name, an address, or a socket folder (starts with `/`).
    pub host: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub password: Option<SecretString>,
    pub dbname: Option<String>,
    /// libpq's own parameters as the URL gave them (`sslmode`, `sslrootcert`, `options`, …).
    pub params: BTreeMap<String, String>,
}
