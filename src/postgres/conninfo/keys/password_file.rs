//! libpq's password file (`~/.pgpass`), as PostgreSQL's documentation describes it: a line is
//! `host:port:database:user:password`, each of the first four fields may be `*`, and the first line that matches is
//! used.

use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use secrecy::SecretString;

use crate::postgres::ConnectionInfo;
use crate::run::named_file;

const LONGEST: u64 = 1 << 20;
/// A socket in one of libpq's default folders also matches this name.
const LOCAL: &str = "localhost";
const SOCKETS: [&str; 2] = ["/tmp", "/var/run/postgresql"];

/// Clones know together what was told.
#[derive(Debug, Clone)]
pub struct PasswordFile {
    path: PathBuf,
    told: Arc<AtomicBool>,
}

impl PasswordFile {
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            told: Arc::default(),
        }
    }

    /// The password for this connection. As in libpq, a file that others may read is ignored. pgstow logs this once,
    /// however many connections a run makes; if the password was needed, the server will ask for it.
    pub(super) fn look_up(&self, info: &ConnectionInfo) -> Option<SecretString> {
        match read(&self.path) {
            Ok(Some(text)) => find(&text, info),
            Ok(None) => None,
            Err(why) => {
                if !self.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!("the password file {} was not read: {why}", self.path.display());
                }
                None
            }
        }
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let file = match named_file::open_any(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a plain file".to_owned());
    }
    if metadata.mode() & 0o077 != 0 {
        return Err("its group or others may read it: chmod 0600 it".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(LONGEST)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    Ok(Some(bytes))
}

fn find(text: &[u8], info: &ConnectionInfo) -> Option<SecretString> {
    let host = info.host.as_deref().unwrap_or(LOCAL);
    let host = if SOCKETS.contains(&host) { LOCAL } else { host };
    let port = info.port?.to_string();
    let wanted = [host, &port, info.dbname.as_deref()?, info.user.as_deref()?];
    text.split(|byte| *byte == b'\n').find_map(|line| {
        // Other lines may have any encoding.
        let line = std::str::from_utf8(line).ok()?.trim_end_matches('\r');
        if line.starts_with('#') {
            return None;
        }
        let mut rest = line;
        for part in wanted {
            rest = behind(rest, part)?;
        }
        Some(SecretString::from(unescaped(rest)))
    })
}

/// The rest after a field and its colon, if the field matches.
fn behind<'a>(line: &'a str, wanted: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let mut escaped = false;
    let end = line.char_indices().find_map(|(at, c)| {
        let ends = c == ':' && !escaped;
        escaped = c == '\\' && !escaped;
        ends.then_some(at)
    })?;
    (unescaped(&line[..end]) == wanted).then(|| &line[end + 1..])
}

fn unescaped(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.extend(chars.next()),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::AtomicUsize;

    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    fn found(text: &str, url: &str) -> Option<String> {
        let info = ConnectionInfo::parse_url(url).unwrap().settled().unwrap();
        find(text.as_bytes(), &info).map(|secret| secret.expose_secret().to_owned())
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        let text = "# db:5432:shop:ada:comment\n\ndb:5433:shop:ada:other port\r\ndb:5432:shop:ada:p\\:a\\\\s s\r\n\
                    *:*:*:bob:any\n\\*:*:*:*:none\n[::1]:*:*:*:brackets\n\\:\\:1:*:*:*:six\n/sock:*:*:*:socket\n\
                    localhost:*:*:*:local\n";
        for (url, password) in [
            ("postgres://ada@db/shop", Some("p:a\\s s")),
            ("postgres://ada@db:5433/shop", Some("other port")),
            ("postgres://ada@db/shops", None),
            ("postgres://bob@db/other", Some("any")),
            ("postgres://ada@[::1]/x", Some("six")),
            ("postgres://ada@%2Fsock/x", Some("socket")),
            ("postgres://ada@%2Fvar%2Frun%2Fpostgresql/x", Some("local")),
            ("postgres://ada@/x", Some("local")),
            ("postgres://ada@/x?hostaddr=10.0.0.1", None),
        ] {
            assert_eq!(found(text, url).as_deref(), password, "{url}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        let info = ConnectionInfo::parse_url("postgres://ada@db/shop")
            .unwrap()
            .settled()
            .unwrap();
        let look_up = |path: &Path| PasswordFile::new(path.to_owned()).look_up(&info);
        assert!(look_up(&path).is_none());
        fs::write(&path, "*:*:*:*:secret\n").unwrap();
        for (mode, counts) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(look_up(&path).is_some(), counts, "{mode:o}");
        }
        assert!(look_up(folder.path()).is_none());
    }

    /// Counts the warnings of the test's own thread.
    struct Warnings(Arc<AtomicUsize>);

    impl tracing::Subscriber for Warnings {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() == tracing::Level::WARN
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn a_file_that_does_not_count_is_told_of_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        fs::write(&path, "*:*:*:*:secret\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let info = ConnectionInfo {
            keys: crate::postgres::Keys::PasswordFile(PasswordFile::new(path)),
            ..ConnectionInfo::parse_url("postgres://ada@db/shop").unwrap()
        };
        let told = Arc::new(AtomicUsize::new(0));
        tracing::subscriber::with_default(Warnings(Arc::clone(&told)), || {
            for _ in 0..3 {
                // Each connection has a copy of its own.
                let renewed = futures::FutureExt::now_or_never(info.clone().renewed()).unwrap();
                assert!(renewed.unwrap().password.is_none());
            }
        });
        assert_eq!(told.load(Ordering::Relaxed), 1);
    }

    proptest! {
        #[test]
        fn any_fields_come_back(host in "[a-z\\\\:*]{1,8}", password in "[^\n\r\0]{0,20}") {
            let escaped = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
            // Unescaped, it would match any host.
            let host_field = if host == "*" { "\\*".to_owned() } else { escaped(&host) };
            let line = format!("{host_field}:5432:d:u:{}\n", escaped(&password));
            let info = ConnectionInfo {
                host: Some(host),
                port: Some(5432),
                dbname: Some("d".into()),
                user: Some("u".into()),
                ..ConnectionInfo::default()
            };
            let found = find(line.as_bytes(), &info).unwrap();
            prop_assert_eq!(found.expose_secret(), &password);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[ -~\\n\u{e9}]{0,60}") {
            let _ = found(&text, "postgres://u@h/d");
        }
    }
}
