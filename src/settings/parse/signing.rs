//! The keys that sign, and the keys that are trusted.

use std::path::Path;

use secrecy::SecretString;

use super::Reader;
use crate::settings::{KeySource, Signing};
use crate::signature::PublicKey;

impl Reader<'_> {
    pub(super) fn signing(&mut self) -> Signing {
        let home = self.input.env.get("HOME").cloned();
        let working_dir = self.input.working_dir.clone();
        let source = |text: &str| source(text, &working_dir, home.as_deref());
        let sign_key = self.read("BACKUP_SIGN_KEY", |text| match source(text)? {
            KeySource::Text(_) => Err("it is a public key, and signing needs the secret one".to_owned()),
            other => Ok(other),
        });
        let password = self.values.get("BACKUP_SIGN_KEY_PASSWORD").cloned();
        let password_file = self.values.get("BACKUP_SIGN_KEY_PASSWORD_FILE").cloned();
        if let (Some(one), Some(other)) = (&password, &password_file) {
            self.problems
                .conflict(one, other, "the password comes from one of them");
        }
        let mut verify_keys = Vec::new();
        if let Some(value) = self.values.get("BACKUP_VERIFY_KEYS").cloned() {
            for text in value.texts.iter().map(|text| text.trim()) {
                match source(text) {
                    Ok(key) => verify_keys.push(key),
                    Err(why) => self.problems.add(format!("{}: {why}", value.name)),
                }
            }
            // Otherwise a mistake would ask for no signature at all.
            if verify_keys.is_empty() {
                self.problems.add(format!("{}: it names no key", value.name));
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

fn source(text: &str, working_dir: &Path, home: Option<&str>) -> Result<KeySource, String> {
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
    Ok(KeySource::File(place(text, working_dir, home)))
}

fn place(text: &str, working_dir: &Path, home: Option<&str>) -> std::path::PathBuf {
    match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => Path::new(home).join(rest),
        _ => working_dir.join(text),
    }
}
