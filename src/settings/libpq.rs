//! libpq's variables and files, which give the parts of a connection that pgstow's own settings lack. The order: the
//! connection itself, the service that it or `PGSERVICE` names, `PGHOST` and the like, the password file.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::problems::Problems;
use super::value::{Value, Values};
use crate::error::Error;
use crate::postgres::{ConnectionInfo, Keys, PasswordFile, Whose};
use crate::run::named_file;

/// The variable, and libpq's parameter for the same.
const PARTS: &[(&str, &str)] = &[
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGDATABASE", "dbname"),
    ("PGUSER", "user"),
    (PASSWORD, "password"),
    ("PGOPTIONS", "options"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGGSSDELEGATION", "gssdelegation"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGGSSLIB", "gsslib"),
    ("PGKRBSRVNAME", "krbsrvname"),
    ("PGLOADBALANCEHOSTS", "load_balance_hosts"),
    ("PGMAXPROTOCOLVERSION", "max_protocol_version"),
    ("PGMINPROTOCOLVERSION", "min_protocol_version"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGREQUIREPEER", "requirepeer"),
    (REQUIRE_SSL, "sslmode"),
    ("PGSSLCERTMODE", "sslcertmode"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLSNI", "sslsni"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
];
/// The old form of `PGSSLMODE=require`, with the value `1`. libpq still reads it.
const REQUIRE_SSL: &str = "PGREQUIRESSL";
pub const PASSWORD: &str = "PGPASSWORD";
const SERVICE: &str = "PGSERVICE";
const SERVICE_FILE: &str = "PGSERVICEFILE";
const SYSTEM_FOLDER: &str = "PGSYSCONFDIR";
const PASSWORD_FILE: &str = "PGPASSFILE";

/// Each of these alone names a database.
const NAMING: [&str; 4] = ["PGHOST", "PGHOSTADDR", "PGDATABASE", SERVICE];

const LONGEST: u64 = 1 << 20;

/// The key for the value of one of libpq's variables, if pgstow knows the name.
pub fn variable(name: &str) -> Option<&'static str> {
    let files = [SERVICE, SERVICE_FILE, SYSTEM_FOLDER, PASSWORD_FILE];
    let mut known = PARTS.iter().map(|(variable, _)| *variable).chain(files);
    known.find(|known| *known == name)
}

/// Whether a variable chooses files that name the server and the password of a connection.
pub fn chooses_files(name: &str) -> bool {
    matches!(name, SERVICE | SERVICE_FILE | SYSTEM_FOLDER | PASSWORD_FILE)
}

pub fn names_a_database(values: &Values) -> bool {
    NAMING.iter().any(|name| values.get(name).is_some())
}

/// The folders in which libpq looks for its files, from the process's own environment.
#[derive(Clone, Copy)]
pub struct SearchFolders<'a> {
    pub home: Option<&'a str>,
    pub working_dir: &'a Path,
}

/// The parts that `given` lacks and the variables have, without a password: for the defaults of a secret. A wrong
/// value is no problem yet, because the secret may hold that part itself.
pub fn variables_without_password(
    values: &Values,
    given: &ConnectionInfo,
) -> (ConnectionInfo, Vec<(&'static str, String)>) {
    let mut unusable = Vec::new();
    let mut info = variables(values, given, |part, value, error| {
        unusable.push((part, format!("{}: {error}", value.name)));
    });
    unusable.retain(|(part, _)| *part != "password");
    info.password = None;
    info.keys = Keys::Given;
    (info, unusable)
}

/// As in libpq, a variable counts, and a wrong value is reported, only if nothing else gives that part.
fn variables(
    values: &Values,
    given: &ConnectionInfo,
    mut wrong: impl FnMut(&'static str, &Value, &Error),
) -> ConnectionInfo {
    let mut info = ConnectionInfo::default();
    for (variable, part) in PARTS {
        let Some(value) = values.get(variable).filter(|_| !given.says(part)) else {
            continue;
        };
        let text = match *variable {
            REQUIRE_SSL if value.text().starts_with('1') && values.get("PGSSLMODE").is_none() => "require",
            REQUIRE_SSL => continue,
            _ => value.text(),
        };
        if let Err(error) = info.set(part, text) {
            wrong(part, value, &error);
        }
        if let (PASSWORD, Some(file)) = (*variable, &value.file) {
            info.keys = Keys::SecretFile(file.clone());
        }
    }
    info
}

/// Completes the connection with what libpq's variables and files give. The name of a target's database never comes
/// from them.
pub fn beneath(
    values: &Values,
    place: &SearchFolders<'_>,
    over: &ConnectionInfo,
    whose: Whose,
    problems: &mut Problems,
) -> ConnectionInfo {
    let mut given = over.clone();
    let named = over.files.service.clone();
    let service = named.clone().or_else(|| text(values, SERVICE));
    if let Some(service) = service {
        let file = over
            .files
            .servicefile
            .clone()
            .or_else(|| text(values, SERVICE_FILE).map(PathBuf::from));
        let system = text(values, SYSTEM_FOLDER);
        match find_service(&service, file.as_deref(), system.as_deref(), place) {
            Ok(mut found) => {
                if whose == Whose::Target && named.is_none() {
                    found.dbname = None;
                }
                given = found.merge(over);
            }
            Err(why) => problems.add(why),
        }
    }
    let mut below = variables(values, &given, |_, value, error| problems.add_error(&value.name, error));
    if whose == Whose::Target {
        below.dbname = None;
    }
    let mut info = below.merge(&given);
    if info.password.is_none() && !info.keys.may_change() {
        let file = info.files.passfile.clone();
        let file = file.or_else(|| text(values, PASSWORD_FILE).map(PathBuf::from));
        let file = file.map(|file| place.working_dir.join(file));
        if let Some(file) = file.or_else(|| Some(Path::new(place.home?).join(".pgpass"))) {
            info.keys = Keys::PasswordFile(PasswordFile::new(file));
        }
    }
    info
}

fn text(values: &Values, variable: &str) -> Option<String> {
    values.get(variable).map(|value| value.text().to_owned())
}

/// The service from the user's file, or from the system's if the user's has no such service. A file that the user has
/// named must exist.
fn find_service(
    service: &str,
    named: Option<&Path>,
    system: Option<&str>,
    place: &SearchFolders<'_>,
) -> Result<ConnectionInfo, String> {
    let own = match named {
        Some(file) => Some((place.working_dir.join(file), true)),
        None => place.home.map(|home| (Path::new(home).join(".pg_service.conf"), false)),
    };
    let system = system.map(|folder| (Path::new(folder).join("pg_service.conf"), false));
    for (path, required) in own.into_iter().chain(system) {
        let text = match named_file::read_text(&path, LONGEST) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound && !required => continue,
            Err(error) => return Err(format!("the service file {} cannot be read: {error}", path.display())),
        };
        if let Some(found) =
            parse(&text, service).map_err(|why| format!("the service file {}: {why}", path.display()))?
        {
            return Ok(found);
        }
    }
    Err(format!(
        "the service {service:?} is not defined: add it to the file that {SERVICE_FILE} names, to ~/.pg_service.conf, \
         or to pg_service.conf in the folder of {SYSTEM_FOLDER}"
    ))
}

/// The section of a service file with this name. Errors quote no value.
fn parse(text: &str, service: &str) -> Result<Option<ConnectionInfo>, String> {
    let mut found: Option<ConnectionInfo> = None;
    let mut inside = false;
    let mut seen = BTreeSet::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let told = |why: &str| format!("line {}: {why}", number + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            inside = found.is_none() && name.strip_suffix(']') == Some(service);
            if inside {
                found = Some(ConnectionInfo::default());
            }
            continue;
        }
        let Some(info) = found.as_mut().filter(|_| inside) else {
            continue;
        };
        if line.starts_with("ldap") {
            return Err(told("a directory server (LDAP) is not supported"));
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(told("there is no `=`"));
        };
        let name = name.trim_end();
        if matches!(name, "service" | "servicefile") {
            return Err(told("a service cannot name another"));
        }
        // If a name is given twice, the first counts.
        if seen.insert(name) {
            info.set(name, value.trim_start())
                .map_err(|error| told(&error.message()))?;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn the_part_of_one_service_is_read() {
        let text = "# ours\nhost=nowhere\n[other]\nhost=other\n\n[shop]\nhost=db.example\nport = 5433\n# a comment\n\
                    dbname=shop\nuser=ada\npassword=a=b c\nsslmode=verify-full\n[shop]\nhost=late\n";
        let info = parse(text, "shop").unwrap().unwrap();
        assert_eq!(info.target(), "ada@db.example:5433/shop");
        assert_eq!(info.password.unwrap().expose_secret(), "a=b c");
        assert_eq!(info.params["sslmode"], "verify-full");
        assert!(parse(text, "shops").unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_with_a_service_is_told_by_its_line() {
        for (text, why) in [
            ("[s]\nhunter2\n", "line 2: there is no `=`"),
            ("[s]\nport=hunter2\n", "line 2: the connection parameter `port`"),
            ("[s]\nservice=hunter2\n", "line 2: a service cannot name another"),
            ("[s]\nldap://hunter2\n", "line 2: a directory server"),
        ] {
            let told = parse(text, "s").unwrap_err();
            assert!(told.starts_with(why) && !told.contains("hunter2"), "{told}");
        }
        // A wrong line of another service does not matter.
        assert!(parse("[t]\nhunter2\n[s]\nhost=h\n", "s").unwrap().is_some());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[\\[\\]s=#a \\n\u{e9}]{0,60}") {
            let _ = parse(&text, "s");
        }
    }
}
