//! Checks the manifest itself: whether it agrees with itself and with the other places that hold its digest. Everything
//! else is compared with the manifest, so a flipped bit in it must be found here.

use jiff::Timestamp;

use super::Finding;
use crate::error::{Code, Result};
use crate::repository::backup_id::{BackupId, MANIFEST, is_ahead};
use crate::repository::catalog::{self, Demand, Listed, Located, Read, Seal, contradiction_of_times, stored_before};
use crate::repository::manifest::{Manifest, checksums};
use crate::repository::retention::SHA256_TAG;
use crate::repository::signature::Trust;

/// Judged by the clock of this machine, which may be the wrong one.
pub(super) const AHEAD: &str = "is dated in the future";

/// Returns the findings, and warnings for people.
pub(super) async fn check(located: &Located, around: &[Listed], now: Timestamp) -> Result<(Vec<Finding>, Vec<String>)> {
    let manifest = &located.manifest;
    let mut found: Vec<String> = Vec::new();
    let mut warnings = Vec::new();
    match &located.seal {
        Seal::Same => {}
        Seal::Different(what) => found.push(what.clone()),
        // The code that found this reports it.
        Seal::Attested(_) => {}
        Seal::None => match &manifest.digest_file {
            Some(name) => found.push(format!(
                "names the file {name:?} with its digest, but that file is missing"
            )),
            None => warnings.push(format!(
                "no digest of {MANIFEST} is stored beside it, as in all backups of older versions: only its \
                 agreement with the other files was proved"
            )),
        },
    }
    with_tag(located, &mut found, &mut warnings).await;
    with_successor(located, around, now, (&mut found, &mut warnings)).await;
    found.extend(with_itself(manifest));
    with_clocks(manifest, around, now, (&mut found, &mut warnings));
    let findings = found.into_iter().map(|what| Finding::of_file(MANIFEST, what));
    Ok((findings.collect(), warnings))
}

/// Compares its digest with the one in the tag of its object.
async fn with_tag(located: &Located, found: &mut Vec<String>, warnings: &mut Vec<String>) {
    let Some(lifecycle) = located.store.lifecycle() else {
        return;
    };
    let sha256 = hex::encode(located.manifest_sha256);
    let tags = match lifecycle.tags(&located.manifest.id.manifest_key()).await {
        Ok(tags) => tags.unwrap_or_default(),
        Err(error) => {
            warnings.push(format!("the tags of {MANIFEST} were not compared: {}", error.message()));
            Vec::new()
        }
    };
    let tag = tags.iter().find(|(name, _)| name == SHA256_TAG);
    if let Some((_, said)) = tag.filter(|(_, said)| *said != sha256) {
        found.push(format!("has the SHA-256 {sha256}, the object's tag says {said}"));
    }
}

/// Compares its digest with the one in the next backup.
async fn with_successor(
    located: &Located,
    around: &[Listed],
    now: Timestamp,
    (found, warnings): (&mut Vec<String>, &mut Vec<String>),
) {
    let sha256 = hex::encode(located.manifest_sha256);
    let after = match successor(located, around, &sha256, now).await {
        Ok(after) => after,
        Err(error) => {
            warnings.push(format!(
                "{MANIFEST} was not compared with its digest in the next backup: {}",
                error.message()
            ));
            None
        }
    };
    if let Some(what) = after {
        // A copy that was repaired from another store has that store's manifest, which is not this store's own.
        match &located.manifest.store {
            Some(made_for) if made_for != located.store.url() => {
                warnings.push(format!(
                    "{MANIFEST} {what}; it was made for {made_for}, and was copied here"
                ));
            }
            _ => found.push(what),
        }
    }
}

fn with_clocks(
    manifest: &Manifest,
    around: &[Listed],
    now: Timestamp,
    (found, warnings): (&mut Vec<String>, &mut Vec<String>),
) {
    let stored = around.iter().find(|one| one.id == manifest.id);
    let stored = stored.and_then(|one| one.file(MANIFEST)?.modified);
    let times = [manifest.timestamp, manifest.finished_at];
    if manifest.id.is_ahead(now) || times.iter().any(|time| is_ahead(*time, now)) {
        found.push(AHEAD.to_owned());
    }
    found.extend(contradiction_of_times(
        &manifest.id,
        manifest.timestamp,
        manifest.finished_at,
    ));
    // Tools that copy files change their times, and clocks differ: that is no damage of the backup.
    let late = stored_before(manifest.finished_at.max(manifest.id.timestamp()), stored);
    warnings.extend(late.map(|what| format!("{MANIFEST} {what}")));
}

/// The next backup holds the digest that this manifest had then. It counts only if the next manifest agrees with its
/// own digest.
async fn successor(located: &Located, around: &[Listed], sha256: &str, now: Timestamp) -> Result<Option<String>> {
    let id = &located.manifest.id;
    let next = around
        .iter()
        .filter(|one| one.has_manifest && one.id.database() == id.database())
        // Each kind has its own row of predecessors.
        .filter(|one| one.id.kind() == id.kind() && one.id > *id)
        .map(|one| &one.id)
        .min();
    let Some(next) = next else { return Ok(None) };
    let demand = Demand {
        trust: &Trust::default(),
        manifest: None,
        now,
        altered: false,
    };
    let found = match catalog::read_genuine(located.store.as_ref(), next, &demand).await {
        Ok(Read::Genuine(found)) if found.seal == Seal::Same => found,
        Ok(_) => return Ok(None),
        Err(error) if error.code() == Code::Integrity => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(contradiction(next, &found.manifest, id, sha256))
}

fn contradiction(next: &BackupId, manifest: &Manifest, id: &BackupId, sha256: &str) -> Option<String> {
    let said = manifest.predecessor.as_ref().filter(|before| before.id == *id)?;
    (said.manifest_sha256 != sha256).then(|| {
        format!(
            "has the SHA-256 {sha256}, but the manifest of {next} says that it was {} then",
            said.manifest_sha256
        )
    })
}

/// Compares facts that the manifest holds twice.
fn with_itself(manifest: &Manifest) -> Vec<String> {
    let mut found = Vec::new();
    if manifest.database != manifest.id.database() {
        found.push(format!(
            "is of {}, but says the database {:?}",
            manifest.id, manifest.database
        ));
    }
    if manifest.kind != manifest.id.kind() {
        found.push(format!("is of {}, but says that it is {}", manifest.id, manifest.kind));
    }
    // Older manifests have no `checksums`.
    let told = !manifest.checksums.is_empty() || manifest.digest_file.is_some();
    if told && manifest.checksums != checksums(&manifest.files) {
        found.push("has other digests under `checksums` than under `files`".to_owned());
    }
    found
}
