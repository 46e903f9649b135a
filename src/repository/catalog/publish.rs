//! The commit point of a backup: its manifest becomes visible.

use bytes::Bytes;
use percent_encoding::{CONTROLS, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::genuine::digest_line;
use super::tags;
use crate::error::{Code, Error, Result};
use crate::repository::backup_id::{BackupId, MANIFEST_DIGEST};
use crate::repository::manifest::{Figures, Manifest};
use crate::repository::retention::{PENDING, TIER_TAG, Tag};
use crate::repository::signature::Subject;
use crate::store::conditions::put_where;
use crate::store::{Condition, ObjectInfo, ObjectVersion, Put, Store, limits};

/// The object's properties when the writing of a backup's file starts: the tag `pending`, which
/// [`super::commit_tags`] replaces, and the backup's id.
pub fn object_info(id: &BackupId, server_version: &str, content_type: &'static str) -> ObjectInfo {
    ObjectInfo {
        content_type,
        tags: vec![(TIER_TAG.to_owned(), PENDING.to_owned())],
        metadata: vec![
            ("pgstow-id".to_owned(), id.ascii()),
            ("pgstow-version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            (
                "pgstow-server-version".to_owned(),
                utf8_percent_encode(server_version, CONTROLS).to_string(),
            ),
        ],
        size_estimate: None,
        replace: false,
    }
}

/// A manifest that is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedManifest {
    pub bytes: u64,
    pub sha256: [u8; 32],
    pub version: ObjectVersion,
}

/// Why a manifest was not published. The caller decides by this which files it may remove.
#[derive(Debug)]
pub enum NotPublished {
    /// The store has no manifest. The backup's files are left-overs: discard them.
    Absent(Error),
    /// Another run has published a backup with this id, so files in this folder may be that run's: do not touch them.
    /// `BUSY`, because two runs are active at once. The lease prevents this, if the clocks of both hosts are right.
    Taken(Error),
    /// The store has not said whether it wrote the manifest. If it did, the files are a good backup. So leave all
    /// files as they are; the next run finds out.
    Unknown(Error),
}

impl From<NotPublished> for Error {
    fn from(not_published: NotPublished) -> Error {
        match not_published {
            NotPublished::Absent(error) | NotPublished::Taken(error) | NotPublished::Unknown(error) => error,
        }
    }
}

/// Puts the manifest, the last file of a backup. Its digest and its signature, if it has one, are put right before: a
/// run that dies between them leaves files without a manifest. With the manifest the backup exists; without it, it
/// does not. All other files must be in the store, with their final tags: see [`super::commit_tags`]. If an answer is
/// lost, pgstow looks the manifest up before it reports a failure.
pub async fn publish(
    store: &dyn Store,
    manifest: &Manifest,
    signature: Option<&Bytes>,
) -> Result<PublishedManifest, NotPublished> {
    let bytes = Bytes::from(manifest.to_bytes().map_err(NotPublished::Absent)?);
    can_be_read_again(&bytes, &manifest.id).map_err(NotPublished::Absent)?;
    let sha256: [u8; 32] = Sha256::digest(&bytes).into();
    let published = |version| PublishedManifest {
        bytes: bytes.len() as u64,
        sha256,
        version,
    };
    let id = &manifest.id;
    let object = ObjectInfo {
        tags: tags::of_file(Tag::Latest, &hex::encode(sha256)),
        ..object_info(id, &manifest.server.version, "application/json")
    };
    let digest = Bytes::from(digest_line(&sha256));
    let digest = Some((id.key(MANIFEST_DIGEST), &digest));
    let signature = signature.map(|signature| (Subject::manifest(id).signature_key(), signature));
    for (key, beside) in digest.into_iter().chain(signature) {
        let object = ObjectInfo {
            tags: tags::of_file(Tag::Latest, &hex::encode(Sha256::digest(beside))),
            ..object_info(id, &manifest.server.version, "text/plain")
        };
        // Never replaces another run's file.
        match put_where(store, &key, beside.clone(), &object, Condition::Absent).await {
            Ok(Put::Done(_)) => {}
            Ok(Put::Refused) => return Err(NotPublished::Taken(taken(id))),
            // The store may have written it, and only the answers were lost.
            Err(error) => match store.get(&key).await {
                Ok(Some(there)) if there.body == *beside => {}
                _ => return Err(NotPublished::Absent(error)),
            },
        }
    }
    let key = id.manifest_key();
    match put_where(store, &key, bytes.clone(), &object, Condition::Absent).await {
        Ok(Put::Done(version)) => Ok(published(version)),
        Ok(Put::Refused) => Err(NotPublished::Taken(taken(id))),
        Err(error) => match store.get(&key).await {
            Ok(Some(there)) if there.body == bytes => Ok(published(there.version)),
            Ok(Some(_)) => Err(NotPublished::Taken(taken(id))),
            Ok(None) => Err(NotPublished::Absent(error)),
            Err(second) => Err(NotPublished::Unknown(error.also(second).hint(
                "the store has not confirmed the manifest, so the backup may exist: run `pgstow list` when the store \
                 answers again; the next run keeps the backup, or discards its files",
            ))),
        },
    }
}

/// A manifest that pgstow's readers refuse is no backup, and must not be published as one.
fn can_be_read_again(manifest: &[u8], id: &BackupId) -> Result<()> {
    limits::fits(&id.manifest_key(), manifest.len() as u64)?;
    let read = Manifest::parse(manifest, id).and_then(|_| Figures::parse(manifest, id));
    read.map(drop).map_err(|broken| {
        Error::new(
            Code::PgDumpErr,
            format!("the manifest of {id} could not be read again: no backup was made"),
        )
        .source(broken)
        .hint("look for extremely long names or settings; if there are none, this may be a bug in pgstow")
    })
}

fn taken(id: &BackupId) -> Error {
    Error::new(
        Code::Busy,
        format!("cannot publish backup {id}: another run has published a backup with this id"),
    )
    .hint("run it again; if this happens again, compare the clocks of the hosts that back up this database")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Omission;
    use crate::repository::catalog::tests::id;
    use crate::repository::manifest::tests::sample;
    use crate::repository::retention::Tier;
    use crate::store::memory::{Fault, MemoryStore, Op};

    fn manifest() -> Manifest {
        sample(&id("shop/20250131T040500Z-full"), Tier::Daily)
    }

    #[tokio::test]
    async fn a_manifest_is_born_latest_with_its_digest_and_owner() {
        let store = MemoryStore::with_lifecycle();
        let manifest = manifest();
        let published = publish(&store, &manifest, None).await.unwrap();
        let key = manifest.id.manifest_key();
        assert_eq!(store.body(&key).unwrap(), manifest.to_bytes().unwrap());
        assert_eq!(store.tag(&key, "pgstow-tier").as_deref(), Some("latest"));
        assert_eq!(store.tag(&key, "sha256"), Some(hex::encode(published.sha256)));
        assert_eq!(
            store.metadata(&key)[0],
            ("pgstow-id".to_owned(), "shop/20250131T040500Z-full".to_owned())
        );
    }

    #[tokio::test]
    async fn an_id_that_another_run_has_taken_is_refused_and_left_alone() {
        let store = MemoryStore::with_lifecycle();
        let manifest = manifest();
        store.plant(&manifest.id.manifest_key(), "another's", &[]);
        let refused = publish(&store, &manifest, None).await.unwrap_err();
        assert!(matches!(refused, NotPublished::Taken(_)));
        assert_eq!(Error::from(refused).code(), Code::Busy);
        assert_eq!(store.body(&manifest.id.manifest_key()).unwrap(), "another's");
    }

    #[tokio::test]
    async fn a_signature_comes_before_the_manifest_and_another_runs_is_left_alone() {
        let manifest = manifest();
        let signature = Bytes::from_static(b"a signature");
        let key = Subject::manifest(&manifest.id).signature_key();
        let store = MemoryStore::with_lifecycle();
        publish(&store, &manifest, Some(&signature)).await.unwrap();
        let digest = manifest.id.key(MANIFEST_DIGEST);
        let puts = [digest.clone(), key.clone(), manifest.id.manifest_key()];
        assert_eq!(store.calls(Op::Put), puts);
        assert_eq!(
            store.body(&digest).unwrap(),
            format!(
                "{}  manifest.json\n",
                hex::encode(Sha256::digest(store.body(&puts[2]).unwrap()))
            )
        );
        assert_eq!(store.tag(&key, "pgstow-tier").as_deref(), Some("latest"));

        let store = MemoryStore::with_lifecycle();
        store.plant(&key, "another's", &[]);
        let refused = publish(&store, &manifest, Some(&signature)).await.unwrap_err();
        assert!(matches!(refused, NotPublished::Taken(_)));
        assert_eq!(store.keys(), [key.clone(), digest]);
        assert_eq!(store.body(&key).unwrap(), "another's");

        let store = MemoryStore::with_lifecycle();
        store.fault(Op::Put, 1, Fault::Reject);
        let absent = publish(&store, &manifest, Some(&signature)).await.unwrap_err();
        assert!(matches!(absent, NotPublished::Absent(_)));
        assert!(store.keys().is_empty());
    }

    #[tokio::test]
    async fn a_copy_without_conditional_writes_gets_its_manifest_and_never_over_anothers() {
        let manifest = manifest();
        for store in [
            MemoryStore::without_lifecycle().without_conditions(),
            MemoryStore::with_lifecycle().refusing_conditions(),
        ] {
            publish(&store, &manifest, None).await.unwrap();
            assert!(store.body(&manifest.id.manifest_key()).is_some());
            publish(&store, &manifest, None).await.unwrap();
            store.plant(&manifest.id.manifest_key(), "another's", &[]);
            let refused = publish(&store, &manifest, None).await.unwrap_err();
            assert!(matches!(refused, NotPublished::Taken(_)));
            assert_eq!(store.body(&manifest.id.manifest_key()).unwrap(), "another's");
        }
    }

    #[tokio::test]
    async fn what_no_reader_would_take_in_is_not_published() {
        let left_out = |name: &str| Omission {
            kind: "rows".into(),
            name: name.into(),
            why: "so".into(),
        };
        let too_long = Manifest {
            event_id: Some("x".repeat(usize::try_from(limits::MANIFEST).unwrap())),
            ..manifest()
        };
        let too_many = Manifest {
            left_out: vec![left_out("t"); 5_001],
            ..manifest()
        };
        let absurd = Manifest {
            stores: vec!["s3://".to_owned() + &"x".repeat(70_000)],
            ..manifest()
        };
        for (manifest, why) in [
            (too_long, "only 134217728 can be read again"),
            (too_many, "more than 5000 entries"),
            (absurd, "names and versions are too long"),
        ] {
            let store = MemoryStore::with_lifecycle();
            let refused = publish(&store, &manifest, None).await.unwrap_err();
            assert!(matches!(refused, NotPublished::Absent(_)));
            let error = Error::from(refused);
            assert_eq!(error.code(), Code::PgDumpErr);
            assert!(
                error.message().contains(why) && error.message().contains("no backup was made"),
                "{error}"
            );
            assert_eq!(store.requests(), 0);
        }
    }

    #[tokio::test]
    async fn a_lost_answer_is_looked_up() {
        let store = MemoryStore::with_lifecycle();
        store.fault(Op::Put, 2, Fault::LoseAnswer);
        assert!(publish(&store, &manifest(), None).await.is_ok());

        for nth in 1..=2 {
            let store = MemoryStore::with_lifecycle();
            store.fault(Op::Put, nth, Fault::Reject);
            assert!(matches!(
                publish(&store, &manifest(), None).await,
                Err(NotPublished::Absent(_))
            ));
            assert_eq!(store.keys().len(), nth - 1);
        }

        let store = MemoryStore::with_lifecycle();
        store.fault(Op::Put, 2, Fault::LoseAnswer);
        store.fault(Op::Get, 1, Fault::Reject);
        let unknown = publish(&store, &manifest(), None).await.unwrap_err();
        assert!(matches!(&unknown, NotPublished::Unknown(error) if error.message().contains("and then")));
    }
}
