//! The keys that the settings name. They are read when they are first needed: most commands need none.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aws_sdk_kms::Client;
use secrecy::ExposeSecret;
use secrecy::zeroize::Zeroizing;
use tokio::sync::OnceCell;

use super::key::PublicKey;
use super::kms::KmsKey;
use super::secret::{SecretKey, Unusable};
use super::settings::{KeySource, Signing};
use super::signer::Signer;
use super::trust::Trust;
use crate::error::{Error, Result};
use crate::run::files::blocking;
use crate::run::named_file;

/// Longer than any kind of key.
const LONGEST: u64 = 64 << 10;

/// Makes the client for a key's region.
type Clients = Box<dyn Fn(&str) -> Result<Client> + Send + Sync>;

pub struct Keyring {
    settings: Signing,
    kms: Clients,
    signer: OnceCell<Option<Signer>>,
    trust: OnceCell<Trust>,
}

impl Keyring {
    /// `kms` gets the region in a key's ARN.
    pub fn new(settings: Signing, kms: impl Fn(&str) -> Result<Client> + Send + Sync + 'static) -> Self {
        Self {
            settings,
            kms: Box::new(kms),
            signer: OnceCell::new(),
            trust: OnceCell::new(),
        }
    }

    /// The key of `BACKUP_SIGN_KEY`, if it is set.
    pub async fn signer(&self) -> Result<Option<&Signer>> {
        let signer = self.signer.get_or_try_init(|| async {
            Ok::<_, Error>(match &self.settings.sign_key {
                None => None,
                Some(KeySource::Kms(arn)) => Some(Signer::in_kms(self.in_kms(arn)?).await?),
                Some(KeySource::File(path)) => {
                    let (path, settings) = (path.clone(), self.settings.clone());
                    Some(Signer::here(blocking(move || secret_key(&path, &settings)).await?))
                }
                Some(KeySource::Text(_)) => {
                    return Err(Error::config("BACKUP_SIGN_KEY: it is a public key, which cannot sign"));
                }
            })
        });
        signer.await.map(Option::as_ref)
    }

    /// The keys of `BACKUP_VERIFY_KEYS`. A key that cannot be read is an error: without it, pgstow would require less
    /// than the settings say.
    pub async fn trust(&self) -> Result<&Trust> {
        let trust = self.trust.get_or_try_init(|| async {
            let mut keys = Vec::new();
            for source in &self.settings.verify_keys {
                keys.push(match source {
                    KeySource::Kms(arn) => self.in_kms(arn)?.public().await?,
                    KeySource::File(path) => {
                        let path = path.clone();
                        blocking(move || public_key(&path)).await?
                    }
                    KeySource::Text(text) => parse(text, text)?,
                });
            }
            Ok::<_, Error>(Trust::new(keys))
        });
        trust.await
    }

    /// A warning if other users of this machine may read the secret key.
    pub fn is_shared(&self) -> Option<PathBuf> {
        let Some(KeySource::File(path)) = &self.settings.sign_key else {
            return None;
        };
        let mode = fs::metadata(path).ok()?.permissions().mode();
        (mode & 0o077 != 0).then(|| path.clone())
    }

    fn in_kms(&self, arn: &str) -> Result<KmsKey> {
        let region = arn.split(':').nth(3).unwrap_or_default();
        Ok(KmsKey {
            client: (self.kms)(region)?,
            arn: arn.to_owned(),
        })
    }
}

fn secret_key(path: &Path, settings: &Signing) -> Result<SecretKey> {
    let text = read(path, "BACKUP_SIGN_KEY", &path.display().to_string())?;
    let password = password(settings)?;
    let unusable = |why: Unusable| {
        let error = Error::config(format!("BACKUP_SIGN_KEY: {}: {why}", path.display()));
        match why {
            Unusable::NeedsPassword | Unusable::Wrong => error.hint(
                "give its password in BACKUP_SIGN_KEY_PASSWORD, or in a file named by BACKUP_SIGN_KEY_PASSWORD_FILE",
            ),
            Unusable::Shape(_) => error.hint("give the secret key that `pgstow keygen FILE` or `minisign -G` has made"),
        }
    };
    let password = password.as_ref().map(|password| password.as_bytes());
    SecretKey::parse(&text, password).map_err(unusable)
}

/// The password of the secret key, if the settings have one.
pub(super) fn password(settings: &Signing) -> Result<Option<Zeroizing<String>>> {
    if let Some(password) = &settings.password {
        return Ok(Some(Zeroizing::new(password.expose_secret().to_owned())));
    }
    let Some(path) = &settings.password_file else {
        return Ok(None);
    };
    // A user may have given the password itself instead of a file's name, so the value is not shown.
    let mut text = read(path, "BACKUP_SIGN_KEY_PASSWORD_FILE", "the file that it names")?;
    // Editors and `echo` add a newline.
    while text.ends_with(['\n', '\r']) {
        text.pop();
    }
    Ok(Some(text))
}

fn public_key(path: &Path) -> Result<PublicKey> {
    let name = path.display().to_string();
    let text = read(path, "BACKUP_VERIFY_KEYS", &name)?;
    parse(&text, &name)
}

fn parse(text: &str, name: &str) -> Result<PublicKey> {
    PublicKey::parse(text).map_err(|why| {
        Error::config(format!("BACKUP_VERIFY_KEYS: {name}: {why}")).hint(
            "give the public key that `pgstow keygen` or `minisign -G` has made (FILE.pub), or its line of base64",
        )
    })
}

/// A small file, called `name` in errors. Never waits for the other end of a pipe.
fn read(path: &Path, setting: &str, name: &str) -> Result<Zeroizing<String>> {
    let failed = |error: std::io::Error| {
        Error::config(format!("{setting}: {name} cannot be read"))
            .source(error)
            .hint("check the file's name and permissions")
    };
    let mut text = Zeroizing::new(String::new());
    let file = named_file::open_any(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::config(format!("{setting}: {name} is not a file")));
    }
    file.take(LONGEST).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}
