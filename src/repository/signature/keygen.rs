//! `keygen`: a key pair in minisign's format.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::key::KeyId;
use super::keyring::password;
use super::secret::SecretKey;
use super::settings::Signing;
use crate::error::{Code, Error, Result};
use crate::run::files::blocking;
use crate::run::publication::{Access, Publish, Published, publish};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeygenStatus {
    Succeeded,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct KeygenReport {
    pub status: KeygenStatus,
    pub secret_key: PathBuf,
    pub public_key: PathBuf,
    pub key_id: KeyId,
    /// The form that `minisign -P` and `BACKUP_VERIFY_KEYS` accept.
    pub public: String,
    pub encrypted: bool,
}

/// Makes FILE and FILE.pub. Replaces no file: a lost signing key cannot be made again.
pub async fn run(settings: &Signing, file: &Path) -> Result<KeygenReport> {
    let (settings, file) = (settings.clone(), file.to_owned());
    blocking(move || make(&settings, file)).await
}

fn make(settings: &Signing, secret: PathBuf) -> Result<KeygenReport> {
    let password = password(settings)?;
    let mut public = secret.clone().into_os_string();
    public.push(".pub");
    let public = PathBuf::from(public);
    if public.symlink_metadata().is_ok() {
        return Err(exists(&public));
    }
    let generated = SecretKey::generate(password.as_ref().map(|password| password.as_bytes()));
    let (key, text) = generated.map_err(|why| Error::internal(format!("cannot make a key: {why}")))?;
    write(&secret, text.as_bytes(), 0o600)?;
    if let Err(error) = write(&public, key.to_file().as_bytes(), 0o644) {
        // Without the public key the secret one is useless, and this call has made it.
        let _ = fs::remove_file(&secret);
        return Err(error);
    }
    Ok(KeygenReport {
        status: KeygenStatus::Succeeded,
        secret_key: secret,
        public_key: public,
        key_id: key.id(),
        public: key.to_string(),
        encrypted: password.is_some(),
    })
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let error = match publish(path, bytes, Access::AtMost(mode), Publish::IfAbsent) {
        Ok(Published::Done) => return Ok(()),
        Ok(Published::Exists) => return Err(exists(path)),
        Err(error) => error,
    };
    let code = match error.kind() {
        ErrorKind::PermissionDenied => Code::Eacces,
        ErrorKind::NotFound => Code::Enoent,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Code::Enospc,
        _ => Code::Config,
    };
    Err(Error::new(code, format!("cannot make {}", path.display())).source(error))
}

fn exists(path: &Path) -> Error {
    Error::config(format!("{} is there already", path.display()))
        .hint("give another file name: a key that has signed backups must not be overwritten")
}

impl fmt::Display for KeygenReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = match self.encrypted {
            true => "encrypted with the password",
            false => "not encrypted: keep it where only pgstow's user can read it",
        };
        writeln!(f, "key {}", self.key_id)?;
        writeln!(f, "  secret key  {} ({kept})", self.secret_key.display())?;
        writeln!(f, "  public key  {}", self.public_key.display())?;
        writeln!(f, "  sign with   BACKUP_SIGN_KEY={}", self.secret_key.display())?;
        writeln!(f, "  verify with BACKUP_VERIFY_KEYS={}", self.public)
    }
}
