//! The key that signs and the keys that are trusted.

use super::Check;
use crate::error::Result;
use crate::repository::signature::{Keyring, Signer, Trust};

/// Returns no checks if no key is set.
pub(super) async fn check(keyring: &Keyring) -> Vec<Check> {
    let (signer, trust) = futures::join!(signer(keyring), keyring.trust());
    let mut checks = Vec::new();
    match &signer {
        Ok(None) => {}
        Ok(Some(signer)) => checks.push(signs(keyring, signer)),
        Err(error) => checks.push(Check::failed("sign key", error)),
    }
    match trust {
        Ok(trust) if !trust.asks() => {}
        Ok(trust) => checks.push(trusted(trust, signer.ok().flatten())),
        Err(error) => checks.push(Check::failed("verify keys", &error)),
    }
    checks
}

/// The key, after it signed a text and its own public key verified that.
async fn signer(keyring: &Keyring) -> Result<Option<&Signer>> {
    let signer = keyring.signer().await?;
    if let Some(signer) = signer {
        signer.probe().await?;
    }
    Ok(signer)
}

fn signs(keyring: &Keyring, signer: &Signer) -> Check {
    const NAME: &str = "sign key";
    let public = signer.public();
    if let Some(path) = keyring.is_shared() {
        let path = path.display();
        return Check::warning(
            NAME,
            format!("{path} signs, but other users of this machine may read it"),
            format!("chmod 600 {path}"),
        );
    }
    Check::ok(NAME, format!("{} signs; its public key is {public}", public.id()))
}

fn trusted(trust: &Trust, signer: Option<&Signer>) -> Check {
    const NAME: &str = "verify keys";
    let ids: Vec<String> = trust.keys().iter().map(|key| key.id().to_string()).collect();
    let ids = ids.join(", ");
    match signer.map(Signer::public) {
        Some(own) if !trust.keys().iter().any(|key| key.id() == own.id() && key.is_same(own)) => Check::warning(
            NAME,
            format!("{ids}; the key that signs here, {}, is not among them", own.id()),
            format!("add {own} to BACKUP_VERIFY_KEYS; otherwise pgstow refuses its own backups here"),
        ),
        _ => Check::ok(NAME, format!("{ids}: pgstow refuses a backup that none of them signed")),
    }
}
