//! The target of a restore: `BACKUP_TARGET_URL` (`--target`), `BACKUP_TARGET_SECRET_ID`, or `BACKUP_TARGET_HOST` and
//! the variables like it. Two of them may complete each other.
//!
//! A URL without a login completes the secret, which often holds only user and password. A URL with a login replaces
//! the secret of a weaker layer, and is in conflict with a secret of the same layer. `BACKUP_TARGET_PASSWORD` is for a
//! URL without a password, so that no argument holds it.

use super::super::libpq;
use super::super::value::Value;
use super::super::{Auth, CredentialSource};
use super::{Reading, has, id, names_who, parameters, part_beneath, part_of, proved};
use crate::postgres::{ConnectionInfo, Keys, Whose};

const PARTS: &[(&str, &str)] = &[
    ("BACKUP_TARGET_HOST", "host"),
    ("BACKUP_TARGET_PORT", "port"),
    ("BACKUP_TARGET_NAME", "dbname"),
    ("BACKUP_TARGET_USER", "user"),
];
const PASSWORD: &str = "BACKUP_TARGET_PASSWORD";

pub fn target(reading: &mut Reading<'_>, auth: Auth) -> CredentialSource {
    let source = choose(reading);
    let auth = reading.values.get("BACKUP_TARGET_AUTH").filter(|_| auth == Auth::Iam);
    let mut source = proved(reading, source, auth);
    if let CredentialSource::Direct(info) | CredentialSource::Secret { overrides: info, .. } = &mut source {
        info.whose = Whose::Target;
    }
    source
}

fn choose(reading: &mut Reading<'_>) -> CredentialSource {
    let values = reading.values;
    let url = values.get("BACKUP_TARGET_URL");
    let secret = values.get("BACKUP_TARGET_SECRET_ID");
    let given = match url.map(|url| (url, ConnectionInfo::parse_url(url.text()))) {
        Some((url, Err(error))) => {
            reading.problems.add_error(&url.name, &error);
            return CredentialSource::None;
        }
        Some((url, Ok(info))) => Some((url, info)),
        None => None,
    };
    match (secret, given) {
        (Some(secret), Some((url, info))) if url.layer == secret.layer && names_who(&info) => {
            reading.problems.conflict(url, secret, "give the target once");
            CredentialSource::None
        }
        (Some(secret), Some((url, info))) if url.layer < secret.layer && names_who(&info) => {
            direct(reading, Some(&(url, info)))
        }
        (Some(secret), given) => beside_secret(reading, secret, given),
        (None, given) => direct(reading, given.as_ref()),
    }
}

fn beside_secret(reading: &mut Reading<'_>, secret: &Value, url: Option<(&Value, ConnectionInfo)>) -> CredentialSource {
    let mut overrides = ConnectionInfo::default();
    let mut defaults = ConnectionInfo::default();
    let mut unusable = Vec::new();
    if let Some((url, info)) = url {
        // A URL of a weaker layer is an older setting: only the parts that the secret lacks count.
        let place = if url.at_least(secret) {
            &mut overrides
        } else {
            &mut defaults
        };
        *place = ConnectionInfo {
            user: None,
            password: None,
            ..info
        };
    }
    for (variable, part) in PARTS {
        let Some(value) = reading.values.get(variable) else {
            continue;
        };
        let (place, one) = if value.at_least(secret) {
            (&mut overrides, part_of(value, part, reading.problems))
        } else {
            (&mut defaults, part_beneath(value, part, &mut unusable))
        };
        if let Some(one) = one {
            *place = place.clone().merge(&one);
        }
    }
    unusable.retain(|(part, _)| !overrides.says(part) && !defaults.says(part));
    parameters(reading.values, &mut overrides, reading.problems);
    CredentialSource::Secret {
        id: id(secret, reading.problems),
        overrides,
        defaults: Box::new(defaults),
        beside: Vec::new(),
        unusable,
    }
}

fn direct(reading: &mut Reading<'_>, url: Option<&(&Value, ConnectionInfo)>) -> CredentialSource {
    let values = reading.values;
    let mut info = ConnectionInfo::default();
    if let Some((url, given)) = url {
        info = given.clone();
        if let (Some(file), true) = (&url.file, info.password.is_some()) {
            info.keys = Keys::UrlFile(file.clone());
        }
    }
    let mut named = url.is_some();
    for (variable, part) in PARTS {
        let Some(value) = values.get(variable) else { continue };
        let Some(one) = part_of(value, part, reading.problems) else {
            continue;
        };
        let filled = info.clone().merge(&one);
        let overwrites = has(&info, part) && filled != info;
        match url {
            Some((url, _)) if overwrites && value.layer == url.layer => {
                reading
                    .problems
                    .conflict(url, value, &format!("they differ in the {part}"));
            }
            Some((url, _)) if overwrites && value.layer > url.layer => {}
            _ => info = filled,
        }
        named |= *part == "host" || *part == "dbname";
    }
    if !named {
        return CredentialSource::None;
    }
    if let (None, Some(password)) = (&info.password, values.get(PASSWORD))
        && let Some(one) = part_of(password, "password", reading.problems)
    {
        info = info.merge(&one);
    }
    let mut info = libpq::beneath(values, &reading.place, &info, Whose::Target, reading.problems);
    parameters(values, &mut info, reading.problems);
    CredentialSource::Direct(info)
}
