//! The manifest itself: what else speaks for it, and whether it agrees with itself. Everything below is
//! compared with the manifest, so a bit flipped in it must be found here.

use jiff::Timestamp;

use super::Finding;
use crate::error::{Code, Result};
use crate::repository::backup_id::{BackupId, MANIFEST, is_ahead};
use crate::repository::catalog::{self, Demand, Listed, Located, Read, Seal, contradiction_of_times, stored_before};
use crate::repository::manifest::{Manifest, checksums};
use crate::repository::retention::SHA256_TAG;
use crate::repository::signature::Trust;

/// By the clock of this machine, which may be the wrong one.
pub(super) const AHEAD: &str = "is dated in the future";

/// What is wrong, and what a person should know.
pub(super) async fn check(located: &Located, around: &[Listed], now: Timestamp) -> Result<(Vec<Finding>, Vec<String>)> {
    let Located { store, manifest, .. } = located;
    let mut found: Vec<String> = Vec::new();
    let mut warnings = Vec::new();
    match &located.seal {
        Seal::Same => {}
        Seal::Different(what) => found.push(what.clone()),
        // Told by whoever found it.
        Seal::Attested(_) => {}
        Seal::None => match &manifest.digest_file {
            Some(name) => found.push(format!("names its digest's file {name:?}, and there is none")),
            None => warnings.push(format!(
                "no digest of {MANIFEST} was stored beside it, as in all backups before there was one: only its \
                 agreement with the other files was proved"
            )),
        },
    }
    let sha256 = hex::encode(located.manifest_sha256);
    if let Some(lifecycle) = store.lifecycle() {
        let tags = match lifecycle.tags(&manifest.id.manifest_key()).await {
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
    let after = match successor(located, around, &sha256, now).await {
        Ok(after) => after,
        Err(error) => {
            warnings.push(format!(
                "{MANIFEST} was not compared with what the next backup says of it: {}",
                error.message()
            ));
            None
        }
    };
    if let Some(what) = after {
        // A copy that was repaired from another store has that store's manifest, which is none of ours.
        match &manifest.store {
            Some(made_for) if made_for != store.url() => {
                warnings.push(format!(
                    "{MANIFEST} {what}; it was made for {made_for}, and was copied here"
                ));
            }
            _ => found.push(what),
        }
    }
    found.extend(with_itself(manifest));
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
    // Tools that carry files lose their times, and clocks differ: no byte of the backup is wrong for that.
    let late = stored_before(manifest.finished_at.max(manifest.id.timestamp()), stored);
    warnings.extend(late.map(|what| format!("{MANIFEST} {what}")));
    let findings = found.into_iter().map(|what| Finding::of_file(MANIFEST, what));
    Ok((findings.collect(), warnings))
}

/// The backup after this one remembers the manifest as it was then. What it says counts only where it is
/// itself what its own digest says.
async fn successor(located: &Located, around: &[Listed], sha256: &str, now: Timestamp) -> Result<Option<String>> {
    let id = &located.manifest.id;
    let next = around
        .iter()
        .filter(|one| one.has_manifest && one.id.database() == id.database() && one.id > *id)
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
            "has the SHA-256 {sha256}, and had {} when {next} was made, whose manifest says so",
            said.manifest_sha256
        )
    })
}

/// What the manifest says twice.
fn with_itself(manifest: &Manifest) -> Vec<String> {
    let mut found = Vec::new();
    if manifest.database != manifest.id.database() {
        found.push(format!(
            "is of {}, and says the database {:?}",
            manifest.id, manifest.database
        ));
    }
    if manifest.kind != manifest.id.kind() {
        found.push(format!("is of {}, and says that it is {}", manifest.id, manifest.kind));
    }
    // Left out by those that have none to say.
    let told = !manifest.checksums.is_empty() || manifest.digest_file.is_some();
    if told && manifest.checksums != checksums(&manifest.files) {
        found.push("says other digests under `checksums` than under `files`".to_owned());
    }
    found
}
