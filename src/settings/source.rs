//! The database that a backup reads, from the settings that may name it.
//!
//! The credentials come from `BACKUP_SECRET_ID`, from `DATABASE_URL`, or from `DB_*` alone. The first two are in
//! conflict if one layer gives both; otherwise the one of the stronger layer counts. But a URL without a login
//! completes the secret.
//!
//! | `DB_*` of | beside a URL | beside a secret | `DB_PASSWORD` beside a secret |
//! | --- | --- | --- | --- |
//! | a stronger layer | replaces the URL's part | replaces the secret's part | replaces the secret |
//! | the same layer | must be equal to the URL's part | replaces the secret's part | is a conflict |
//! | a weaker layer | counts if the URL lacks the part | counts if the secret lacks the part | does not count |
//!
//! So a URL flag without a password takes `DB_PASSWORD` of the environment. `--database` always replaces the name in
//! the URL.
//!
//! Parts that none of these give come from libpq's variables and files: see [`libpq`].

pub mod found;
mod target;

use super::libpq;
use super::problems::Problems;
use super::value::{Layer, Value, Values};
use super::{Auth, CredentialSource};
use crate::postgres::{ConnectionInfo, Keys, Whose};

pub use target::target;

/// The variable, and libpq's name for the same.
const PARTS: &[(&str, &str)] = &[
    ("DB_HOST", "host"),
    ("DB_PORT", "port"),
    ("DB_NAME", "dbname"),
    ("DB_USER", "user"),
    ("DB_PASSWORD", "password"),
];

/// The variable of a connection parameter; it counts if nothing else gives the parameter.
const PARAMETERS: &[(&str, &str)] = &[
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
];

/// The values from which a login is read, and where problems and notes go.
pub struct Reading<'a> {
    pub values: &'a Values,
    pub place: libpq::SearchFolders<'a>,
    pub problems: &'a mut Problems,
    pub notes: &'a mut Vec<String>,
}

pub fn resolve(reading: &mut Reading<'_>, auth: Auth) -> CredentialSource {
    let values = reading.values;
    let url = values.get("DATABASE_URL");
    let secret = values.get("BACKUP_SECRET_ID");
    let password = values.get("DB_PASSWORD");
    // `direct` reports a URL that cannot be parsed.
    let place = url.filter(|_| secret.is_some()).and_then(|url| {
        let info = ConnectionInfo::parse_url(url.text()).ok()?;
        (!names_who(&info)).then_some((url, info))
    });
    let url = url.filter(|_| place.is_none());
    if let (Some(url), Some(secret)) = (url, secret)
        && url.layer == secret.layer
    {
        reading.problems.conflict(url, secret, "give the database once");
        return CredentialSource::None;
    }
    let secret = secret.filter(|secret| url.is_none_or(|url| secret.layer < url.layer));
    let source = match (secret, password) {
        (None, _) => direct(reading, url),
        (Some(secret), Some(password)) if password.layer == secret.layer => {
            reading
                .problems
                .conflict(password, secret, "the secret holds the password");
            CredentialSource::None
        }
        (Some(secret), Some(password)) if password.layer < secret.layer => {
            direct(reading, place.as_ref().map(|(url, _)| *url))
        }
        (Some(secret), _) => beside_secret(reading, secret, place),
    };
    let auth = values.get("BACKUP_DB_AUTH").filter(|_| auth == Auth::Iam);
    proved(reading, source, auth)
}

/// With IAM login there is no password, and the connection must use TLS: for a while, the token is worth as much as a
/// password.
fn proved(reading: &mut Reading<'_>, mut source: CredentialSource, auth: Option<&Value>) -> CredentialSource {
    let Some(auth) = auth else { return source };
    let info = match &mut source {
        CredentialSource::Direct(info) | CredentialSource::Secret { overrides: info, .. } => info,
        CredentialSource::None => return source,
    };
    let given = matches!(info.keys, Keys::SecretFile(_) | Keys::UrlFile(_)) || info.password.is_some();
    if given {
        reading
            .notes
            .push(format!("{}=iam: the password in the settings is not used", auth.name));
    }
    info.password = None;
    info.keys = Keys::Given;
    let mode = info.params.get("sslmode").map(String::as_str);
    if info.is_socket() || matches!(mode, Some("disable" | "allow" | "prefer")) {
        reading.problems.add(format!(
            "{}: IAM login needs TLS, but the connection is {}; set sslmode=verify-full (or require), and a host",
            auth.name,
            match mode {
                Some(mode) if !info.is_socket() => format!("made with sslmode={mode}"),
                _ => "a local socket".to_owned(),
            }
        ));
    } else if mode.is_none() && info.params.get("sslrootcert").is_none_or(|roots| roots != "system") {
        info.params.insert("sslmode".into(), "require".into());
    }
    source
}

fn direct(reading: &mut Reading<'_>, url: Option<&Value>) -> CredentialSource {
    let values = reading.values;
    let mut info = match url.map(|url| (url, ConnectionInfo::parse_url(url.text()))) {
        Some((url, Ok(mut info))) => {
            if let (Some(file), true) = (&url.file, info.password.is_some()) {
                info.keys = Keys::UrlFile(file.clone());
            }
            info
        }
        Some((url, Err(error))) => {
            reading.problems.add_error(&url.name, &error);
            return CredentialSource::None;
        }
        None => ConnectionInfo::default(),
    };
    let named = ["DB_HOST", "DB_NAME", "DB_USER"]
        .iter()
        .any(|part| values.get(part).is_some());
    if url.is_none() && !named && !libpq::names_a_database(values) {
        return CredentialSource::None;
    }
    for (variable, part) in PARTS {
        let Some(value) = values.get(variable) else { continue };
        let Some(one) = part_of(value, part, reading.problems) else {
            continue;
        };
        let given = info.clone().merge(&one);
        let overwrites = has(&info, part) && given != info;
        // `--database NAME` chooses one of the server's databases.
        let chooses = *variable == "DB_NAME" && value.layer == Layer::Flags;
        match url {
            Some(url) if overwrites && value.layer == url.layer && !chooses => {
                reading
                    .problems
                    .conflict(url, value, &format!("they differ in the {part}"));
            }
            Some(url) if overwrites && value.layer > url.layer => {}
            // The URL has the same password; where the next one comes from stays as the URL says.
            Some(_) if *part == "password" && has(&info, part) && given == info => {}
            _ => info = given,
        }
    }
    let mut info = libpq::beneath(values, &reading.place, &info, Whose::Source, reading.problems);
    parameters(values, &mut info, reading.problems);
    CredentialSource::Direct(info)
}

/// A connection that has only this part.
fn part_of(value: &Value, part: &str, problems: &mut Problems) -> Option<ConnectionInfo> {
    let mut one = ConnectionInfo::default();
    if let Err(error) = one.set(part, value.text()) {
        problems.add_error(&value.name, &error);
        return None;
    }
    if let (Some(file), "password") = (&value.file, part) {
        one.keys = Keys::SecretFile(file.clone());
    }
    Some(one)
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

/// Whether it holds a login, and not only a place.
fn names_who(info: &ConnectionInfo) -> bool {
    info.user.is_some() || info.password.is_some()
}

fn beside_secret(reading: &mut Reading<'_>, secret: &Value, url: Option<(&Value, ConnectionInfo)>) -> CredentialSource {
    let values = reading.values;
    let mut overrides = ConnectionInfo::default();
    let (mut defaults, mut beside) = (ConnectionInfo::default(), Vec::new());
    let mut unusable = Vec::new();
    match url {
        Some((url, info)) if url.at_least(secret) => overrides = info,
        Some((_, info)) => defaults = defaults.merge(&info),
        None => {}
    }
    for (variable, part) in PARTS {
        let Some(value) = values.get(variable) else { continue };
        if value.at_least(secret) {
            overrides = match part_of(value, part, reading.problems) {
                Some(one) => overrides.merge(&one),
                None => overrides,
            };
        } else if *part == "password" {
            reading
                .notes
                .push(format!("{} not used: {} has priority", value.name, secret.name));
        } else if let Some(one) = part_beneath(value, part, &mut unusable) {
            defaults = defaults.merge(&one);
            // The secret has not been read yet.
            beside.push((*part, value.name.clone()));
        }
    }
    let given = defaults.clone().merge(&overrides);
    let (below, wrong) = libpq::variables_without_password(values, &given);
    unusable.extend(wrong);
    unusable.retain(|(part, _)| !given.says(part));
    parameters(values, &mut overrides, reading.problems);
    CredentialSource::Secret {
        id: id(secret, reading.problems),
        overrides,
        defaults: Box::new(below.merge(&defaults)),
        beside,
        unusable,
    }
}

/// The same as [`part_of`], for a setting that counts only if the secret lacks the part. A wrong value is reported only
/// then.
fn part_beneath(
    value: &Value,
    part: &'static str,
    unusable: &mut Vec<(&'static str, String)>,
) -> Option<ConnectionInfo> {
    let mut one = ConnectionInfo::default();
    match one.set(part, value.text()) {
        Ok(()) => Some(one),
        Err(error) => {
            unusable.push((part, format!("{}: {error}", value.name)));
            None
        }
    }
}

fn id(secret: &Value, problems: &mut Problems) -> String {
    let id = secret.text().trim().to_owned();
    if id.is_empty() {
        problems.add(format!("{}: the secret's id is empty", secret.name));
    }
    id
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
