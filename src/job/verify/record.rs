//! The result of a verification or a drill, kept beside the backup.

use bytes::Bytes;

use super::Job;
use crate::error::{Code, Error, Result};
use crate::repository::backup_id::{BackupId, VERIFICATION};
use crate::repository::retention::TIER_TAG;
use crate::repository::signature::{Signer, Subject};
use crate::repository::verification::Verification;
use crate::store::{Condition, ObjectInfo, Put, Store, lacks_conditions};

/// Writes a result beside the backup, keeping the other kind's. It bears the tier of the files
/// around it, so that it expires with them.
///
/// Its signature goes before it: between the two, the old result counts for nothing where
/// signatures are asked for, and no new one does that is not signed.
///
/// It is put under the condition that the one that was read is still there, and otherwise all is done
/// again: of a verification and a drill that end at the same time, neither loses its result. In a store that knows
/// no conditions the last of two that end at the same time wins.
pub(super) async fn record(
    job: &Job<'_>,
    store: &dyn Store,
    id: &BackupId,
    manifest_sha256: &[u8; 32],
    change: impl Fn(&mut Verification),
) -> Result<()> {
    for tries in 0..RECORDS {
        if tries > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50 << tries)).await;
        }
        if record_once(job, store, id, manifest_sha256, &change).await? == Recorded::Done {
            return Ok(());
        }
    }
    let what = format!(
        "{} was written by others {RECORDS} times meanwhile",
        id.key(VERIFICATION)
    );
    Err(Error::new(Code::Busy, what).hint("verify it again when they have ended"))
}

/// Each that fails means that another has written.
const RECORDS: u32 = 6;

#[derive(PartialEq, Eq)]
enum Recorded {
    Done,
    /// Another result is there now.
    Overtaken,
}

fn signed_is_there() -> Error {
    Error::config("a signed result is there, and BACKUP_SIGN_KEY is not set to sign this one")
}

async fn record_once(
    job: &Job<'_>,
    store: &dyn Store,
    id: &BackupId,
    manifest_sha256: &[u8; 32],
    change: impl Fn(&mut Verification),
) -> Result<Recorded> {
    let (subject, key) = (Subject::verification(id), id.key(VERIFICATION));
    // What we sign may have been written by anybody: only what counts already is taken over.
    let counts = job.trust.and(job.signer.map(Signer::public));
    let (condition, mut before) = match store.get(&key).await {
        // What lies there is none, and is replaced, not followed.
        Err(error) if error.code() == Code::Integrity => (Condition::Always, None),
        before => match before? {
            Some(object) => (Condition::Unchanged(object.version), Some(object.body)),
            None => (Condition::Absent, None),
        },
    };
    // Whoever has no keys must not put an end to the result of somebody who has.
    if before.is_some() && job.signer.is_none() && !counts.asks() {
        let signature = store.head(&subject.signature_key()).await?;
        if signature.is_some() {
            return Err(signed_is_there());
        }
    }
    if let Some(body) = &before
        && counts.asks()
    {
        match counts.look(store, subject, body).await? {
            Ok(_) if job.signer.is_none() => return Err(signed_is_there()),
            Ok(_) => {}
            Err(_) => before = None,
        }
    }
    let mut verification = before
        .and_then(|body| Verification::parse(&body, id).ok())
        .map(|before| before.about(manifest_sha256, counts.asks()).0)
        .unwrap_or_else(|| Verification::new(id.clone()));
    change(&mut verification);
    let tags = match store.lifecycle() {
        Some(lifecycle) => lifecycle.tags(&id.manifest_key()).await?.unwrap_or_default(),
        None => Vec::new(),
    };
    let info = |content_type| ObjectInfo {
        content_type,
        tags: tags.iter().filter(|(name, _)| name == TIER_TAG).cloned().collect(),
        ..ObjectInfo::default()
    };
    let body = Bytes::from(verification.to_bytes()?);
    if let Some(signer) = job.signer {
        let signature = signer.sign(subject, &body, (job.clock)()).await?;
        let info = info("text/plain");
        store
            .put(&subject.signature_key(), signature, &info, Condition::Always)
            .await?;
    }
    let info = info("application/json");
    let put = match store.put(&key, body.clone(), &info, condition.clone()).await {
        Err(error) if lacks_conditions(&error) => put_unconditionally(store, &key, body, &info, &condition).await?,
        put => put?,
    };
    Ok(match put {
        Put::Done(_) => Recorded::Done,
        Put::Refused => Recorded::Overtaken,
    })
}

/// For a store that knows no conditions: looks whether the one that was read is still there, and then writes. What
/// another run writes between the two is lost.
async fn put_unconditionally(
    store: &dyn Store,
    key: &str,
    body: Bytes,
    info: &ObjectInfo,
    condition: &Condition,
) -> Result<Put> {
    let there = store.get(key).await?.map(|object| object.version);
    let holds = match condition {
        Condition::Always => true,
        Condition::Absent => there.is_none(),
        Condition::Unchanged(version) => there.as_ref() == Some(version),
    };
    if !holds {
        return Ok(Put::Refused);
    }
    store.put(key, body, info, Condition::Always).await
}
