//! Secrets in files, as Docker, Compose and Kubernetes provide them: `DB_PASSWORD_FILE` names the file that holds the
//! value of `DB_PASSWORD`. The same works for every secret, and for the parts of the connection.

use super::aliases;
use super::known;
use super::libpq;
use super::problems::Problems;
use super::setting::ValueKind;
use super::value::{Origin, Value};
use crate::postgres::text_of_secret;
use crate::run::named_file;

/// Longer than any secret.
const LONGEST: u64 = 64 << 10;

/// These are no secrets, but they are often in files too if the password is.
const BESIDE: [&str; 4] = ["DB_HOST", "DB_PORT", "DB_NAME", "DB_USER"];

/// The setting whose file a variable names.
pub fn of_variable(name: &str) -> Option<&'static str> {
    let base = name.strip_suffix("_FILE")?;
    let others = [libpq::PASSWORD, aliases::S3_ACCESS_KEY, aliases::S3_SECRET_KEY];
    let setting =
        known::by_variable(base).filter(|setting| setting.kind == ValueKind::Secret || BESIDE.contains(&base));
    setting
        .map(|setting| setting.variable)
        .or_else(|| others.into_iter().find(|other| *other == base))
}

/// The setting whose file a key of the configuration file names.
pub fn of_key(key: &str) -> Option<&'static str> {
    let setting = known::by_key(key.strip_suffix("_file")?)?;
    (setting.kind == ValueKind::Secret).then_some(setting.variable)
}

/// The file's text as the value of the setting `of`. If there is none, adds a problem of that setting.
pub fn read(path: &str, of: &'static str, name: String, origin: &Origin<'_>, problems: &mut Problems) -> Option<Value> {
    let path = origin.folder.join(path);
    match named_file::read_text(&path, LONGEST) {
        Ok(text) if text_of_secret(&text).is_empty() => {
            problems.add_of(of, format!("{name}: {} is empty", path.display()));
            None
        }
        Ok(text) => Some(Value {
            texts: vec![text_of_secret(&text).to_owned()],
            layer: origin.layer,
            name,
            file: Some(path),
        }),
        Err(error) => {
            problems.add_of(of, format!("{name}: {} cannot be read: {error}", path.display()));
            None
        }
    }
}
