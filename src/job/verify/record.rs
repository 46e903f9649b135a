//! Writes the result of a verification or a drill beside the backup.

use bytes::Bytes;

use super::Job;
use crate::error::{Code, Error, Result};
use crate::repository::backup_id::{BackupId, VERIFICATION};
use crate::repository::retention::TIER_TAG;
use crate::repository::signature::{Signer, Subject, Trust};
use crate::repository::verification::Verification;
use crate::store::conditions::put_where;
use crate::store::{Condition, ObjectInfo, Put, Store};

/// Writes a result beside the backup, and keeps the result of the other kind. It has the tier of the files around it,
/// so that it expires with them.
///
/// The signature is written before the result. Where signatures are required, the old result does not count between the
/// two, and an unsigned new one never counts.
///
/// It is put only if the result that was read is still there; otherwise pgstow starts again. So if a verification and a
/// drill end at the same time, both results are kept. In a store without conditional writes the last of the two wins.
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
        "{} was changed by other runs {RECORDS} times meanwhile",
        id.key(VERIFICATION)
    );
    Err(Error::new(Code::Busy, what).hint("verify it again when the other runs have ended"))
}

/// The number of tries. If one fails, another run has written its result.
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

/// The result that is there.
struct EarlierResult {
    /// Under which the new result may be put. `None`: in any case.
    condition: Option<Condition>,
    /// `None`: nothing of it is kept.
    body: Option<Bytes>,
}

/// Reads the result that is there. Another person may have written it, so pgstow signs only those that count already:
/// `counts` says which.
async fn earlier(job: &Job<'_>, store: &dyn Store, id: &BackupId, counts: &Trust) -> Result<EarlierResult> {
    let (subject, key) = (Subject::verification(id), id.key(VERIFICATION));
    let (condition, mut body) = match store.get(&key).await {
        // The object is no result (or a link): it is replaced, not followed.
        Err(error) if error.code() == Code::Integrity => (None, None),
        before => match before? {
            Some(object) => (Some(Condition::Unchanged(object.version)), Some(object.body)),
            None => (Some(Condition::Absent), None),
        },
    };
    // A run without keys must not make a signed result worthless.
    if body.is_some() && job.signer.is_none() && !counts.asks() {
        let signature = store.head(&subject.signature_key()).await?;
        if signature.is_some() {
            return Err(signed_is_there());
        }
    }
    if let Some(before) = &body
        && counts.asks()
    {
        match counts.look(store, subject, before).await? {
            Ok(_) if job.signer.is_none() => return Err(signed_is_there()),
            Ok(_) => {}
            Err(_) => body = None,
        }
    }
    Ok(EarlierResult { condition, body })
}

async fn record_once(
    job: &Job<'_>,
    store: &dyn Store,
    id: &BackupId,
    manifest_sha256: &[u8; 32],
    change: impl Fn(&mut Verification),
) -> Result<Recorded> {
    let (subject, key) = (Subject::verification(id), id.key(VERIFICATION));
    let counts = job.trust.and(job.signer.map(Signer::public));
    let EarlierResult { condition, body } = earlier(job, store, id, &counts).await?;
    let mut verification = body
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
        store.put(&subject.signature_key(), signature, &info).await?;
    }
    let info = info("application/json");
    let put = match condition {
        Some(condition) => put_where(store, &key, body, &info, condition).await?,
        None => Put::Done(store.put(&key, body, &info).await?),
    };
    Ok(match put {
        Put::Done(_) => Recorded::Done,
        Put::Refused => Recorded::Overtaken,
    })
}
