//! `keygen`: a key pair in minisign's format.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::key::KeyId;
use super::keyring::password;
use super::secret::SecretKey;
use super::settings::Signing;
use crate::error::{Code, Error, Result};
use crate::run::files::blocking;

#[derive(Debug, Serialize)]
pub struct KeygenReport {
    pub status: &'static str,
    pub secret_key: PathBuf,
    pub public_key: PathBuf,
    pub key_id: KeyId,
    /// As `minisign -P` and `BACKUP_VERIFY_KEYS` take it.
    pub public: String,
    pub encrypted: bool,
}

/// Makes FILE and FILE.pub. Replaces nothing: a signing key that is lost cannot be had again.
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
        // Without its other half it is of no use, and it is ours.
        let _ = fs::remove_file(&secret);
        return Err(error);
    }
    Ok(KeygenReport {
        status: "succeeded",
        secret_key: secret,
        public_key: public,
        key_id: key.id(),
        public: key.to_string(),
        encrypted: password.is_some(),
    })
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = made.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => exists(path),
        ErrorKind::PermissionDenied => {
            Error::new(Code::Eacces, format!("cannot make {}", path.display())).source(error)
        }
        ErrorKind::NotFound => Error::new(Code::Enoent, format!("cannot make {}", path.display())).source(error),
        _ => Error::config(format!("cannot make {}", path.display())).source(error),
    })?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| {
        let _ = fs::remove_file(path);
        Error::new(Code::Enospc, format!("cannot write {}", path.display())).source(error)
    })
}

fn exists(path: &Path) -> Error {
    Error::config(format!("{} is there already", path.display()))
        .hint("give another name: a key that has signed backups must not be lost")
}

impl fmt::Display for KeygenReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = match self.encrypted {
            true => "encrypted with the password",
            false => "not encrypted: keep it where only pgstow can read it",
        };
        writeln!(f, "key {}", self.key_id)?;
        writeln!(f, "  secret key  {} ({kept})", self.secret_key.display())?;
        writeln!(f, "  public key  {}", self.public_key.display())?;
        writeln!(f, "  sign with   BACKUP_SIGN_KEY={}", self.secret_key.display())?;
        writeln!(f, "  verify with BACKUP_VERIFY_KEYS={}", self.public)
    }
}
