//! The key that signs, and the keys that pgstow trusts.

use std::path::Path;

use secrecy::SecretString;

use super::Reader;
use crate::repository::signature::PublicKey;
use crate::settings::{KeySource, Signing};

impl Reader<'_> {
    pub(super) fn signing(&mut self) -> Signing {
        let home = self.input.env.get("HOME").cloned();
        let working_dir = self.input.working_dir.clone();
        let source = |text: &str| source(text, &working_dir, home.as_deref());
        let sign_key = self.read("BACKUP_SIGN_KEY", |text| match source(text)? {
            KeySource::Text(_) => Err("it is a public key, but signing needs the secret key".to_owned()),
            other => Ok(other),
        });
        let password = self.values.get("BACKUP_SIGN_KEY_PASSWORD").cloned();
        let password_file = self.values.get("BACKUP_SIGN_KEY_PASSWORD_FILE").cloned();
        if let (Some(one), Some(other)) = (&password, &password_file) {
            self.of("BACKUP_SIGN_KEY_PASSWORD", |reader| {
                reader.problems.conflict(one, other, "give the password once");
            });
        }
        let mut verify_keys = Vec::new();
        if let Some(value) = self.values.get("BACKUP_VERIFY_KEYS").cloned() {
            for text in value.texts.iter().map(|text| text.trim()) {
                match source(text).and_then(lasting) {
                    Ok(key) => verify_keys.push(key),
                    Err(why) => self
                        .problems
                        .add_of("BACKUP_VERIFY_KEYS", format!("{}: {why}", value.name)),
                }
            }
            // Otherwise a mistake would turn the check of signatures off.
            if verify_keys.is_empty() {
                self.problems
                    .add_of("BACKUP_VERIFY_KEYS", format!("{}: it names no key", value.name));
            }
        }
        Signing {
            sign_key,
            password: password.map(|password| SecretString::from(password.text())),
            password_file: password_file.map(|path| place(path.text(), &working_dir, home.as_deref())),
            verify_keys,
        }
    }
}

/// Refuses an alias: it can be moved to another key, and pgstow would not notice.
fn lasting(source: KeySource) -> Result<KeySource, String> {
    match source {
        KeySource::Kms(arn) if arn.contains(":alias/") => Err(format!(
            "{arn} is an alias, which can be moved to another key: give the ARN of the key itself (…:key/…), \
             or its public key"
        )),
        source => Ok(source),
    }
}

fn source(text: &str, working_dir: &Path, home: Option<&str>) -> Result<KeySource, String> {
    // First, because later errors quote the text.
    if is_secret(text) {
        return Err(
            "it holds the secret key itself, which is not shown here: put it into a file that only pgstow can read, \
             and name that file. If others have seen this value, make a new key"
                .into(),
        );
    }
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err("it names no key".into());
    }
    if text.starts_with("arn:") {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        return match parts.as_slice() {
            ["arn", partition, "kms", region, account, name]
                if partition.starts_with("aws")
                    && ![*region, *account].contains(&"")
                    && (name.starts_with("key/") || name.starts_with("alias/")) =>
            {
                Ok(KeySource::Kms(text.to_owned()))
            }
            _ => Err(format!(
                "{text:?} is not the ARN of a KMS key, such as arn:aws:kms:eu-central-1:123456789012:key/…"
            )),
        };
    }
    if PublicKey::parse(text).is_ok() {
        return Ok(KeySource::Text(text.to_owned()));
    }
    if is_encoded(text) {
        return Err(
            "it looks like a key, but pgstow does not know this kind of key, and does not show it here: give a public \
             key, or the name of a file (with ./ before a long name)"
                .into(),
        );
    }
    Ok(KeySource::File(place(text, working_dir, home)))
}

/// minisign's secret keys, encrypted or not, begin like this in base64; others hold these words.
fn is_secret(text: &str) -> bool {
    let marks = ["RWRTY0Iy", "RWQAAEIy", "PRIVATE KEY", "SECRET KEY", "SECRET-KEY"];
    marks.iter().any(|mark| text.contains(mark)) || text.to_ascii_lowercase().contains("secret key")
}

/// Long, only letters of base64 or hex, and both digits and letters: no usual name of a file looks like that.
fn is_encoded(text: &str) -> bool {
    const LONG: usize = 40;
    let has = |wanted: fn(&u8) -> bool| text.bytes().any(|byte| wanted(&byte));
    let encoded = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_');
    text.len() >= LONG
        && !text.starts_with(['/', '~'])
        && text.bytes().all(encoded)
        && has(u8::is_ascii_digit)
        && has(u8::is_ascii_alphabetic)
}

fn place(text: &str, working_dir: &Path, home: Option<&str>) -> std::path::PathBuf {
    match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => Path::new(home).join(rest),
        _ => working_dir.join(text),
    }
}
