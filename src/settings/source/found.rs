//! Logins, if pgstow found a `.env` that the user has not named. The file may name its own database with its own
//! password. But it must not send a password, a secret or a token from elsewhere to another place, or over a less safe
//! connection: the file may have come with a folder that the user cloned or unpacked.

use secrecy::ExposeSecret;

use super::super::CredentialSource;
use super::super::problems::Problems;
use super::super::value::{Layer, Value, Values};
use crate::postgres::{ConnectionInfo, Files, Keys};

/// Weakest first, as in libpq.
const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
const VERIFIED: usize = 4;

const URLS: [&str; 2] = ["DATABASE_URL", "BACKUP_TARGET_URL"];
const PASSWORDS: [&str; 3] = ["DB_PASSWORD", "BACKUP_TARGET_PASSWORD", "PGPASSWORD"];

/// Compares the login with the login that the settings without that file give.
pub fn check(
    with: &CredentialSource,
    without: &CredentialSource,
    values: &Values,
    url: &'static str,
    problems: &mut Problems,
) {
    let found = || values.of(Layer::FoundFile);
    if let Some((_, value)) = found().find(|(variable, _)| *variable == url)
        && ConnectionInfo::parse_url(value.text()).is_ok_and(|info| names_files(&info))
    {
        problems.add_grave(format!(
            "{}: a .env found in the working folder may not choose files of keys, passwords and services; name it \
             with --env-file, or set {url} in the environment",
            value.name
        ));
    }
    let (Some(login), others) = (place(with), place(without)) else {
        return;
    };
    let strict = match with {
        CredentialSource::Secret { .. } => true,
        CredentialSource::Direct(info) => holds_anothers(info, values),
        CredentialSource::None => false,
    };
    let before = others.clone().unwrap_or_default();
    let hostaddr = |info: &ConnectionInfo| info.params.get("hostaddr").cloned();
    let elsewhere = match strict {
        true => place_of(&login) != place_of(&before),
        // libpq's password file names the host of each password, and a token is made for one host. But neither names
        // the address of that host.
        false => holds_keys(with, values) && hostaddr(&login).is_some() && hostaddr(&login) != hostaddr(&before),
    };
    let less_safe = others.is_some_and(|others| others.host.is_some() || strict) && less_safe(&login, &before);
    if elsewhere || (less_safe && (strict || holds_keys(with, values))) {
        let names: Vec<&str> = found()
            .filter(|(variable, value)| says_where(variable, value, url))
            .map(|(_, value)| value.name.as_str())
            .collect();
        problems.add_grave(format!(
            "{}: a .env found in the working folder may not decide where credentials from elsewhere go; name it with \
             --env-file, or give the whole connection in one place",
            names.join(" and ")
        ));
    }
}

fn names_files(info: &ConnectionInfo) -> bool {
    info.files != Files::default() || ["sslkey", "sslcert"].iter().any(|name| info.params.contains_key(*name))
}

/// The connection, as far as the settings give it; the secret has not been read.
fn place(source: &CredentialSource) -> Option<ConnectionInfo> {
    match source {
        CredentialSource::Direct(info) => Some(info.clone()),
        CredentialSource::Secret {
            overrides, defaults, ..
        } => Some((**defaults).clone().merge(overrides)),
        CredentialSource::None => None,
    }
}

/// Whether it has a password that comes from elsewhere than the file.
fn holds_anothers(info: &ConnectionInfo, values: &Values) -> bool {
    if matches!(info.keys, Keys::SecretFile(_) | Keys::UrlFile(_) | Keys::Provider(_)) {
        return true;
    }
    let Some(password) = &info.password else { return false };
    let own = |(variable, value): (&str, &Value)| {
        if URLS.contains(&variable) {
            let parsed = ConnectionInfo::parse_url(value.text()).ok();
            return parsed
                .and_then(|info| info.password)
                .map(|own| own.expose_secret().to_owned());
        }
        PASSWORDS.contains(&variable).then(|| value.text().to_owned())
    };
    !values
        .of(Layer::FoundFile)
        .filter_map(own)
        .any(|own| own == password.expose_secret())
}

/// Whether a login would take a password from libpq's file or from a secret, or make a token.
fn holds_keys(source: &CredentialSource, values: &Values) -> bool {
    let token = ["BACKUP_DB_AUTH", "BACKUP_TARGET_AUTH"]
        .iter()
        .any(|variable| values.get(variable).is_some());
    match source {
        CredentialSource::Direct(info) => {
            matches!(info.keys, Keys::PasswordFile(_)) || (info.password.is_none() && token)
        }
        CredentialSource::Secret { .. } => true,
        CredentialSource::None => false,
    }
}

/// Parameters that do not change the server, and make no connection less safe. [`less_safe`] compares those of TLS.
const HARMLESS: [&str; 18] = [
    "application_name",
    "connect_timeout",
    "fallback_application_name",
    "gsslib",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "max_protocol_version",
    "min_protocol_version",
    "ssl_max_protocol_version",
    "sslmode",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
];
/// Values that only make a connection safer.
const SAFER: [(&str, &str); 6] = [
    ("channel_binding", "require"),
    ("gssencmode", "disable"),
    ("require_auth", "scram-sha-256"),
    ("ssl_min_protocol_version", "TLSv1.2"),
    ("ssl_min_protocol_version", "TLSv1.3"),
    ("sslnegotiation", "direct"),
];

/// The parts that decide which server gets the password.
fn place_of(info: &ConnectionInfo) -> (Option<&str>, u16, Vec<(&str, &str)>) {
    let params = info.params.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let others = params.filter(|part| !HARMLESS.contains(&part.0) && !SAFER.contains(part));
    (info.host.as_deref(), info.port.unwrap_or(5432), others.collect())
}

/// Whether the connection is less safe than without the file. A safer one is allowed.
fn less_safe(info: &ConnectionInfo, before: &ConnectionInfo) -> bool {
    let root = |info: &ConnectionInfo| info.params.get("sslrootcert").cloned();
    let mode = |info: &ConnectionInfo| {
        let system = root(info).is_some_and(|root| root == "system");
        let name = info
            .params
            .get("sslmode")
            .map_or(if system { "verify-full" } else { "prefer" }, String::as_str);
        MODES.iter().position(|mode| *mode == name).unwrap_or(0)
    };
    mode(info) < mode(before) || (mode(before) >= VERIFIED && root(info) != root(before))
}

fn says_where(variable: &str, value: &Value, url: &str) -> bool {
    let parts = match url {
        "DATABASE_URL" => ["DB_HOST", "DB_PORT", "BACKUP_SECRET_ID"],
        _ => ["BACKUP_TARGET_HOST", "BACKUP_TARGET_PORT", "BACKUP_TARGET_SECRET_ID"],
    };
    let place = variable.starts_with("PG") && !matches!(variable, "PGPASSWORD" | "PGUSER" | "PGDATABASE");
    !value.text().is_empty() && (variable == url || parts.contains(&variable) || place)
}
