//! Which database is read, from the settings that may name it.
//!
//! One of three says where the credentials are: `BACKUP_SECRET_ID`, `DATABASE_URL`, or `DB_*`
//! alone. The first two in the same layer conflict; otherwise the stronger layer's counts.
//!
//! `DB_*` beside a URL: a stronger layer's replaces the URL's part, the same layer's must agree
//! with it, a weaker layer's counts only where the URL has no such part (so a URL flag without a
//! password takes the environment's `DB_PASSWORD`).
//!
//! `DB_*` beside a secret: the same or a stronger layer's replaces what the secret says. A
//! password in the same layer is a conflict; in a stronger one, it takes the secret's place.

use super::Source;
use super::layers::{Value, Values};
use super::problems::Problems;
use crate::postgres::ConnectionInfo;

/// The variable, and libpq's name for the same.
const PARTS: &[(&str, &str)] = &[
    ("DB_HOST", "host"),
    ("DB_PORT", "port"),
    ("DB_NAME", "dbname"),
    ("DB_USER", "user"),
    ("DB_PASSWORD", "password"),
];

/// Defaults of the source's own parameters.
const PARAMETERS: &[(&str, &str)] = &[
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
];

pub fn resolve(values: &Values, problems: &mut Problems, notes: &mut Vec<String>) -> Source {
    let url = values.get("DATABASE_URL");
    let secret = values.get("BACKUP_SECRET_ID");
    let password = values.get("DB_PASSWORD");
    if let (Some(url), Some(secret)) = (url, secret)
        && url.layer == secret.layer
    {
        problems.conflict(url, secret, "give the database once");
        return Source::None;
    }
    let secret = secret.filter(|secret| url.is_none_or(|url| secret.layer < url.layer));
    let Some(secret) = secret else {
        return direct(values, url, problems);
    };
    match password {
        Some(password) if password.layer == secret.layer => {
            problems.conflict(password, secret, "the secret holds the password");
            Source::None
        }
        Some(password) if password.layer < secret.layer => direct(values, None, problems),
        _ => beside_secret(values, secret, problems, notes),
    }
}

/// Where a restore goes: `BACKUP_TARGET_URL` (`--target`), or `BACKUP_TARGET_SECRET_ID`.
/// `BACKUP_TARGET_PASSWORD` is for a URL without one, so that none stands in an argument.
pub fn target(values: &Values, problems: &mut Problems) -> Source {
    let url = values.get("BACKUP_TARGET_URL");
    let secret = values.get("BACKUP_TARGET_SECRET_ID");
    if let (Some(url), Some(secret)) = (url, secret)
        && url.layer == secret.layer
    {
        problems.conflict(url, secret, "give the target once");
        return Source::None;
    }
    if let Some(secret) = secret.filter(|secret| url.is_none_or(|url| secret.layer < url.layer)) {
        let id = secret.text().trim().to_owned();
        if id.is_empty() {
            problems.add(format!("{}: the secret's id is empty", secret.name));
        }
        let mut overrides = ConnectionInfo::default();
        parameters(values, &mut overrides, problems);
        return Source::Secret { id, overrides };
    }
    let Some(url) = url else { return Source::None };
    let mut info = match ConnectionInfo::parse_url(url.text()) {
        Ok(info) => info,
        Err(error) => {
            problems.add_error(&url.name, &error);
            return Source::None;
        }
    };
    if let (None, Some(password)) = (&info.password, values.get("BACKUP_TARGET_PASSWORD")) {
        let mut one = ConnectionInfo::default();
        match one.set("password", password.text()) {
            Ok(()) => info = info.merge(&one),
            Err(error) => problems.add_error(&password.name, &error),
        }
    }
    parameters(values, &mut info, problems);
    Source::Direct(info)
}

fn direct(values: &Values, url: Option<&Value>, problems: &mut Problems) -> Source {
    let mut info = match url.map(|url| (url, ConnectionInfo::parse_url(url.text()))) {
        Some((_, Ok(info))) => info,
        Some((url, Err(error))) => {
            problems.add_error(&url.name, &error);
            return Source::None;
        }
        None => ConnectionInfo::default(),
    };
    let named = ["DB_HOST", "DB_NAME", "DB_USER"]
        .iter()
        .any(|part| values.get(part).is_some());
    if url.is_none() && !named {
        return Source::None;
    }
    for (variable, part) in PARTS {
        let Some(value) = values.get(variable) else { continue };
        let mut one = ConnectionInfo::default();
        if let Err(error) = one.set(part, value.text()) {
            problems.add_error(&value.name, &error);
            continue;
        }
        let given = info.clone().merge(&one);
        let overwrites = has(&info, part) && given != info;
        match url {
            Some(url) if overwrites && value.layer == url.layer => {
                problems.conflict(url, value, &format!("they differ in the {part}"));
            }
            Some(url) if overwrites && value.layer > url.layer => {}
            _ => info = given,
        }
    }
    parameters(values, &mut info, problems);
    Source::Direct(info)
}

fn has(info: &ConnectionInfo, part: &str) -> bool {
    match part {
        "host" => info.host.is_some(),
        "port" => info.port.is_some(),
        "dbname" => info.dbname.is_some(),
        "user" => info.user.is_some(),
        _ => info.password.is_some(),
    }
}

fn beside_secret(values: &Values, secret: &Value, problems: &mut Problems, notes: &mut Vec<String>) -> Source {
    let mut overrides = ConnectionInfo::default();
    for (variable, part) in PARTS {
        let Some(value) = values.get(variable) else { continue };
        if value.at_least(secret) {
            if let Err(error) = overrides.set(part, value.text()) {
                problems.add_error(&value.name, &error);
            }
        } else {
            notes.push(format!("{} not used: {} is stronger", value.name, secret.name));
        }
    }
    parameters(values, &mut overrides, problems);
    let id = secret.text().trim().to_owned();
    if id.is_empty() {
        problems.add(format!("{}: the secret's id is empty", secret.name));
    }
    Source::Secret { id, overrides }
}

fn parameters(values: &Values, info: &mut ConnectionInfo, problems: &mut Problems) {
    for (variable, parameter) in PARAMETERS {
        let Some(value) = values.get(variable).filter(|_| !info.params.contains_key(*parameter)) else {
            continue;
        };
        if let Err(error) = info.set(parameter, value.text()) {
            problems.add_error(&value.name, &error);
        }
    }
}
