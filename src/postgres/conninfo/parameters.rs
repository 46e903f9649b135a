//! libpq's parameters by name: those that pgstow keeps for itself and pg_dump, those that it leaves out, and those
//! that it refuses because its own session could not do what they promise.

use std::net::{IpAddr, Ipv6Addr};

use secrecy::SecretString;

use super::ConnectionInfo;
use crate::error::{Error, Result};
use crate::postgres::authentication::Methods;

enum Treatment {
    /// Kept, and passed to pg_dump unchanged.
    Kept,
    /// Accepted and left out.
    Dropped,
    /// Names a file with further settings of the connection: only the settings may use it.
    File,
    /// Refused, with the reason.
    Refused(&'static str),
}

use Treatment::{Dropped, File, Kept, Refused};

const NO_SECRET_IN_ARGV: &str = "it is a secret that pgstow could give to pg_dump only on its command line";

/// Every parameter of libpq 12–18 except the five that have their own fields.
const PARAMETERS: &[(&str, Treatment)] = &[
    ("application_name", Kept),
    // pg_dump would translate the data; the session sets the database's own encoding instead.
    ("client_encoding", Dropped),
    ("channel_binding", Kept),
    ("connect_timeout", Kept),
    ("fallback_application_name", Kept),
    ("gssdelegation", Kept),
    ("gssencmode", Kept),
    ("gsslib", Kept),
    ("hostaddr", Kept),
    ("keepalives", Kept),
    ("keepalives_count", Kept),
    ("keepalives_idle", Kept),
    ("keepalives_interval", Kept),
    ("krbsrvname", Kept),
    ("load_balance_hosts", Kept),
    ("max_protocol_version", Kept),
    ("min_protocol_version", Kept),
    ("oauth_client_id", Refused("login by OAuth is not supported")),
    ("oauth_client_secret", Refused(NO_SECRET_IN_ARGV)),
    ("oauth_issuer", Refused("login by OAuth is not supported")),
    ("oauth_scope", Refused("login by OAuth is not supported")),
    ("options", Kept),
    ("passfile", File),
    ("replication", Refused("a backup needs an ordinary session")),
    // pg_dump gets it another way than the rest: see the passfile.
    ("require_auth", Kept),
    (
        "requirepeer",
        Refused("pgstow's own session cannot enforce it; protect the socket's folder"),
    ),
    ("scram_client_key", Refused(NO_SECRET_IN_ARGV)),
    ("scram_server_key", Refused(NO_SECRET_IN_ARGV)),
    ("service", File),
    ("servicefile", File),
    ("ssl_max_protocol_version", Kept),
    ("ssl_min_protocol_version", Kept),
    ("sslcert", Kept),
    ("sslcertmode", Kept),
    ("sslcompression", Dropped),
    ("sslcrl", Kept),
    (
        "sslcrldir",
        Refused("folders of revocation lists are not read; give one file as sslcrl"),
    ),
    ("sslkey", Kept),
    ("sslkeylogfile", Refused("it would write the session's keys to a file")),
    ("sslmode", Kept),
    ("sslnegotiation", Kept),
    (
        "sslpassword",
        Refused(
            "it is a secret that pgstow could give to pg_dump only on its command line; use a key without passphrase \
             that only this user can read",
        ),
    ),
    ("sslrootcert", Kept),
    ("sslsni", Kept),
    ("target_session_attrs", Kept),
    ("tcp_user_timeout", Kept),
];

/// What applications' own libraries read from a URL: it describes their pools and their statements, not the server.
const OF_APPLICATIONS: [&str; 14] = [
    "ApplicationName",
    "connection_limit",
    "currentSchema",
    "pgbouncer",
    "pool_size",
    "pool_timeout",
    "prepareThreshold",
    "prepared_statement_cache_size",
    "reWriteBatchedInserts",
    "schema",
    "socketTimeout",
    "socket_timeout",
    "statement_cache_size",
    "tcpKeepAlive",
];

const CORE: [&str; 5] = ["host", "port", "user", "password", "dbname"];

/// Parameters with a fixed set of values: a typing error in a parameter that protects the connection must be an
/// error.
const CHOICES: &[(&str, &[&str])] = &[
    ("channel_binding", &["disable", "prefer", "require"]),
    ("gssencmode", &["disable", "prefer"]),
    ("load_balance_hosts", &["disable", "random"]),
    ("ssl_max_protocol_version", &["TLSv1.2", "TLSv1.3"]),
    ("ssl_min_protocol_version", &["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]),
    ("sslcertmode", &["disable", "allow", "require"]),
    (
        "sslmode",
        &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"],
    ),
    ("sslnegotiation", &["postgres", "direct"]),
    ("sslsni", &["0", "1"]),
    (
        "target_session_attrs",
        &["any", "read-write", "read-only", "primary", "standby", "prefer-standby"],
    ),
];

pub(super) fn is_known(name: &str) -> bool {
    CORE.contains(&name) || OF_APPLICATIONS.contains(&name) || PARAMETERS.iter().any(|(known, _)| *known == name)
}

/// Names whose values must never be shown, even if a caller put them into `params` directly.
pub(super) fn is_secret(name: &str) -> bool {
    matches!(
        name,
        "password" | "sslpassword" | "oauth_client_secret" | "scram_client_key" | "scram_server_key"
    )
}

/// A parameter's name for a message: only if it has the form of a name.
pub(super) fn printable(name: &str) -> String {
    let plausible = !name.is_empty()
        && name.len() <= 40
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if plausible {
        format!("`{name}`")
    } else {
        "(unprintable)".into()
    }
}

pub(super) fn several_hosts() -> Error {
    Error::config("the connection names several hosts: a backup reads from one server")
        .hint("name one host: a replica, the primary, or a cluster endpoint")
}

pub(super) fn set(info: &mut ConnectionInfo, name: &str, value: &str) -> Result<()> {
    let invalid = |why: &str| invalid(name, why);
    if value.contains('\0') {
        return Err(invalid("contains a zero byte"));
    }
    let empty = value.is_empty();
    match name {
        "host" if !value.trim().is_empty() => {
            // A space beside a name in an `.env` file is invisible.
            let value = value.trim();
            if value.contains(',') && !value.starts_with('/') {
                return Err(several_hosts());
            }
            if value.starts_with('@') {
                return Err(invalid("abstract sockets are not supported"));
            }
            info.host = Some(without_brackets(value).to_owned());
        }
        "port" if !empty => {
            if value.contains(',') {
                return Err(several_hosts());
            }
            let port = value.trim().parse().ok().filter(|port| *port != 0);
            info.port = Some(port.ok_or_else(|| invalid("is not a number from 1 to 65535"))?);
        }
        "user" if !empty => info.user = Some(value.to_owned()),
        "password" if !empty => info.password = Some(SecretString::from(value)),
        "dbname" if !empty => info.dbname = Some(value.to_owned()),
        // A parameter of drivers; libpq accepts it only in a URL, and only as `true`.
        "ssl" if matches!(value, "true" | "false") => {
            let mode = if value == "true" { "require" } else { "disable" };
            info.params.insert("sslmode".into(), mode.into());
        }
        "requiressl" if matches!(value, "0" | "1") => {
            let mode = if value == "1" { "require" } else { "prefer" };
            info.params.insert("sslmode".into(), mode.into());
        }
        "ssl" | "requiressl" => return Err(invalid("has a value that is not understood; use sslmode")),
        _ if CORE.contains(&name) || OF_APPLICATIONS.contains(&name) => {}
        _ => set_of_libpq(info, name, value)?,
    }
    Ok(())
}

/// Sets a parameter that only libpq's table knows.
fn set_of_libpq(info: &mut ConnectionInfo, name: &str, value: &str) -> Result<()> {
    let Some((_, treatment)) = PARAMETERS.iter().find(|(known, _)| *known == name) else {
        return Err(
            invalid(name, "is not one of libpq's").hint("remove parameters of other drivers from the connection URL")
        );
    };
    let empty = value.is_empty();
    match treatment {
        Refused(why) => return Err(invalid(name, why)),
        Kept if !empty => {
            check(name, value).map_err(|why| invalid(name, &why))?;
            info.params.insert(name.to_owned(), value.to_owned());
        }
        File if !empty => {
            let files = &mut info.files;
            match name {
                "service" => files.service = Some(value.to_owned()),
                "servicefile" => files.servicefile = Some(value.into()),
                _ => files.passfile = Some(value.into()),
            }
        }
        Kept | Dropped | File => {}
    }
    Ok(())
}

fn invalid(name: &str, why: &str) -> Error {
    Error::config(format!("the connection parameter {}: {why}", printable(name)))
}

/// An IPv6 address may be in brackets as in URLs, although no port follows it here.
fn without_brackets(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner
        .filter(|inner| {
            inner
                .split('%')
                .next()
                .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
        })
        .unwrap_or(host)
}

fn check(name: &str, value: &str) -> Result<(), String> {
    if let Some((_, choices)) = CHOICES.iter().find(|(known, _)| *known == name)
        && !choices.contains(&value)
    {
        return Err(format!("must be one of {}", choices.join(", ")));
    }
    match name {
        "connect_timeout" if value.trim().parse::<i32>().is_err() => Err("is not a number of seconds".into()),
        "require_auth" => Methods::parse(value).map(|_| ()),
        "hostaddr" if value.parse::<IpAddr>().is_err() => Err("is not one IP address".into()),
        _ => Ok(()),
    }
}
