//! Where backups are kept: one trait, documented by its guarantees. `tests/suite/stores.rs`
//! holds every back end to them.
//!
//! Keys are relative to the store's root, `/`-separated, without a leading slash; every segment
//! has been through [`crate::repository::backup_id`]'s encoding, so that it is a safe file name and object key.

pub(crate) mod beneath;
mod bucket;
pub mod conditions;
mod file_upload;
mod lifecycle;
pub mod limits;
pub mod local;
#[cfg(test)]
pub(crate) mod memory;
mod mounts;
mod oldest_checksum;
pub mod parts;
mod permission;
pub mod reading;
mod rule;
pub mod s3;
mod segments;
mod sending;
pub mod settings;
mod tagging;
mod tags;
pub(crate) mod temporary;
mod trouble;
mod upload;
mod window;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};

pub use rule::{PENDING, Rule, TIER_TAG, UPLOADS, is_ours, rule_id};
pub use trouble::is_archived;

#[async_trait]
pub trait Store: Send + Sync {
    /// The store as its user named it, without secrets: for reports, logs and errors.
    fn url(&self) -> &str;

    /// Checks that the store is there and lets us in, with at most one cheap request and without
    /// writing anything. Called before the dump starts, so that a wrong bucket costs seconds.
    async fn reach(&self) -> Result<()>;

    /// As [`Store::reach`], for a command that reads alone: a store that the first backup is yet to make is
    /// not there.
    async fn is_there(&self) -> Result<()> {
        self.reach().await
    }

    /// Starts an object whose length is not known yet. Nothing is visible under `key` until
    /// [`Upload::complete`] has returned. An object that has the key by then stays as it is, and the
    /// upload fails with `BUSY`, unless [`ObjectInfo::replace`] says otherwise.
    async fn upload(&self, key: &str, object: &ObjectInfo) -> Result<Box<dyn Upload>>;

    /// Writes a small object in one atomic step: readers see the whole old one or the whole new
    /// one. Safe to repeat.
    async fn put(&self, key: &str, body: Bytes, object: &ObjectInfo) -> Result<Version>;

    /// The whole object (meant for small ones: manifests, leases), or `None` when there is none.
    /// `INTEGRITY` when it is longer than [`limits::most`] allows, whatever length the store gave
    /// out for it before, or when it is no regular file; nothing more is read of it then.
    async fn get(&self, key: &str) -> Result<Option<Object>>;

    /// The same, of `most` bytes at most: for callers that have room for so many.
    async fn get_up_to(&self, key: &str, most: u64) -> Result<Option<Object>> {
        match self.get(key).await? {
            Some(object) if object.body.len() as u64 > most => {
                let name = format!("{key} in {}", self.url());
                Err(limits::too_long(&name, object.body.len() as u64, most))
            }
            object => Ok(object),
        }
    }

    /// `length` bytes from `offset`; fewer only where the object ends. `None` when there is none.
    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Option<Bytes>>;

    /// What the store says about an object without reading it; `None` when there is none.
    async fn head(&self, key: &str) -> Result<Option<ObjectHead>>;

    /// Every object whose key starts with `prefix`, in byte order of the keys, all pages followed.
    /// Uploads in progress and temporary files are not objects. No such folder is an empty list.
    /// What a folder holds in the place of a file, such as a link or a FIFO, is listed without bytes:
    /// to read it is an error that says what it is.
    async fn list(&self, prefix: &str) -> Result<Vec<Entry>>;

    /// The folder names directly below `prefix` (empty, or ending in `/`), sorted, without slashes.
    async fn folders(&self, prefix: &str) -> Result<Vec<String>>;

    /// What could be a database's folder and is not looked into, each as an error that says why: an empty
    /// answer would pass for a store without backups.
    async fn passed_over(&self) -> Result<Vec<Error>> {
        Ok(Vec::new())
    }

    /// What killed runs left under `prefix` that never became an object: multipart uploads in
    /// progress, temporary files.
    async fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>>;

    /// Removes one left-over that [`Store::unfinished`] named. Safe to repeat.
    async fn abort_unfinished(&self, unfinished: &Unfinished) -> Result<()>;

    /// Whether the object that is there came from this upload, so that it is not another run's.
    async fn came_from(&self, key: &str, mark: &Mark) -> Result<bool> {
        let head = self.head(key).await?;
        Ok(head.is_some_and(|head| {
            let mut metadata = head.metadata.iter();
            metadata.any(|(name, word)| name == UPLOAD && *word == mark.0)
        }))
    }

    /// Gives up an object that no manifest claims. With a lifecycle it is tagged `pending`, for
    /// the bucket to expire; without one it is deleted, and its folder when that is empty then.
    /// Safe to repeat; a missing object is no error.
    async fn discard(&self, key: &str) -> Result<()>;

    /// Takes away what the first write into a store makes beside its object (a folder), where nothing is in it. Safe to
    /// repeat.
    async fn unmake(&self) -> Result<()> {
        Ok(())
    }

    /// The room on the disk that the store lies on; `None` where a store has no such limit.
    async fn space(&self) -> Result<Option<Space>> {
        Ok(None)
    }

    /// The store's own expiry, if it has one. Where it has none, `prune` does that work.
    fn lifecycle(&self) -> Option<&dyn Lifecycle>;

    /// The store's conditional writes, if it has any. Where it has none, no run can hold a lease in it, so it can hold
    /// copies alone: see [`conditions`].
    fn conditional(&self) -> Option<&dyn Conditional>;
}

/// Writes that depend on what is there: the store alone decides.
#[async_trait]
pub trait Conditional: Send + Sync {
    /// As [`Store::put`], if the condition holds. Of racing puts under a condition, one is done at most. Safe to
    /// repeat: a put under a condition that no longer holds, because the object has just these bytes already, as a
    /// retry after a lost answer finds it, is `Put::Done`. So bodies whose owner matters (a lease) name their owner.
    async fn put_if(&self, key: &str, body: Bytes, object: &ObjectInfo, condition: Condition) -> Result<Put>;

    /// Whether the store has answered that it knows no conditions, and nothing since has shown the opposite. The put
    /// that was answered so has failed, and has written nothing.
    fn refused(&self) -> bool {
        false
    }
}

/// An object on its way. Dropping it without `complete` or `abort` leaves a left-over for
/// [`Store::unfinished`] to find, never a visible object.
#[async_trait]
pub trait Upload: Send {
    /// Takes the next bytes. Returns when they have been taken in; awaits while as many parts are
    /// in flight as the back end allows, so a caller cannot run ahead of the store.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;

    /// Everything has been written: returns when the store has taken what can be sent before the
    /// decision to complete. It may take as long as a slow line needs, so callers let it be
    /// interrupted; after that, or after an error, only `abort` may follow.
    async fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    /// Everything has been written. Compares what the store says that it holds (sizes, checksums)
    /// with `expected` and with our own record of each part, and only then makes the object
    /// visible, in one step. After an error nothing of ours is visible and nothing in progress.
    /// `BUSY` where another run has put an object of this key: it was not touched.
    async fn complete(self: Box<Self>, expected: &Expected) -> Result<Stored>;

    /// What the object will bear that comes from this upload, and no other does.
    fn mark(&self) -> Mark;

    /// Gives up: nothing becomes visible, nothing stays in progress.
    async fn abort(self: Box<Self>) -> Result<()>;
}

/// What the caller knows about an object when all of its bytes have been written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The object's length.
    pub bytes: u64,
    /// Of the whole object.
    pub sha256: [u8; 32],
}

/// What is said about an object when its writing starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The media type that the object is stored with.
    pub content_type: &'static str,
    /// Object tags (S3); ignored by stores without a lifecycle.
    pub tags: Vec<(String, String)>,
    /// User metadata (S3), ASCII; ignored by stores without.
    pub metadata: Vec<(String, String)>,
    /// A guess of the final size, for the choice of the part size; the object may outgrow it.
    pub size_estimate: Option<u64>,
    /// Of an upload: takes the place of an object that has the key. A put has its [`Condition`].
    pub replace: bool,
}

/// The store's own receipt for a completed upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The object's length.
    pub bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<StoreChecksum>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
}

/// A checksum that the store reported and that was equal to ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreChecksum {
    /// As S3 names it: `SHA256`.
    pub algorithm: String,
    /// As S3 names it: `FULL_OBJECT` or `COMPOSITE`.
    pub kind: String,
    /// Base64, with `-<parts>` appended when composite.
    pub value: String,
}

/// One part of a multipart upload: what the composite checksum is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// From 1.
    pub number: u32,
    /// Its length.
    pub bytes: u64,
    /// Base64 SHA-256, as S3 reports it.
    pub checksum_sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Only if no object has this key.
    Absent,
    /// Only if the object still has this version.
    Unchanged(Version),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    Done(Version),
    /// The condition did not hold; nothing was written.
    Refused,
}

impl Put {
    /// Of a put without a condition.
    fn done(self, key: &str) -> Result<Version> {
        match self {
            Put::Done(version) => Ok(version),
            Put::Refused => Err(Error::internal(format!("{key} was refused without a condition"))),
        }
    }
}

/// Which of all uploads an object came from: a word in S3's metadata, or the file itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(pub String);

/// In [`ObjectHead::metadata`], the upload's own word.
pub const UPLOAD: &str = "pgstow-upload";

/// What tells two states of an object apart: S3's ETag, or a digest of a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub String);

#[derive(Debug, Clone)]
pub struct Object {
    /// The whole object.
    pub body: Bytes,
    /// Names this state of the object in a later condition.
    pub version: Version,
}

#[derive(Debug, Clone)]
pub struct ObjectHead {
    /// The object's length.
    pub bytes: u64,
    /// Names this state of the object in a later condition.
    pub version: Version,
    /// Names and values that the object was stored with.
    pub metadata: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The object's key, below the store's own prefix.
    pub key: String,
    /// The object's length.
    pub bytes: u64,
    pub modified: Option<jiff::Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// The key that the object will have.
    pub key: String,
    /// The upload id, or the temporary file's name.
    pub id: String,
    /// When the upload began, if the store says so.
    pub started: Option<jiff::Timestamp>,
}

/// The failure of an upload whose key has an object already.
pub(crate) fn taken(key: &str, url: &str) -> Error {
    Error::new(
        Code::Busy,
        format!("{key} in {url} is there already: another run has made a backup of this id"),
    )
    .hint("run it again; if this comes back, compare the clocks of the hosts that write to this store")
}

/// What is stored cannot be told from what happens to it on the way.
pub fn unsteady(key: &str, url: &str) -> Error {
    Error::new(
        Code::Store,
        format!("{key} in {url} is not the same twice when it is read"),
    )
    .hint(crate::outside::aws::BYTES_CHANGE)
}

/// Bytes of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct Space {
    /// Of those that this user may fill.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Expiry by the store itself, by tag.
#[async_trait]
pub trait Lifecycle: Send + Sync {
    /// An object's tags; `None` when there is no such object.
    async fn tags(&self, key: &str) -> Result<Option<Vec<(String, String)>>>;

    /// Replaces all of an object's tags. Safe to repeat. A missing object is an error (`STORE`).
    async fn set_tags(&self, key: &str, tags: &[(String, String)]) -> Result<()>;

    /// Whether tags can be relied on, as far as this run knows. Where they cannot, [`Lifecycle::tags`] gives
    /// none, [`Lifecycle::set_tags`] does nothing, and [`Store::discard`] deletes if the key may.
    fn keeping(&self) -> TagKeeping {
        TagKeeping::Unknown
    }

    /// Deletes one object, as somebody with our key could. A missing object is no error.
    async fn try_delete(&self, key: &str) -> Result<Deleted>;

    /// The bucket's lifecycle rules, split into ours (by [`is_ours`]) and the
    /// number of foreign ones.
    async fn rules(&self) -> Result<Rules>;

    /// Makes `ours` the set of our rules. Foreign rules stay exactly as they are: they are read,
    /// kept in the back end's own types, and written back with ours in one request. What the store shows
    /// afterwards is compared, also for some time where it still shows the former rules; where it has made
    /// something else of them, the former rules are put back, and the error says what the store's would have
    /// done.
    async fn install_rules(&self, ours: &[Rule]) -> Result<()>;

    /// The key prefix of this store in the bucket (`""`, or ending in `/`), which rules filter by.
    fn prefix(&self) -> &str;
}

/// Whether a store keeps the tags that objects are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagKeeping {
    /// Nothing has shown it yet.
    Unknown,
    Kept,
    /// It answers that it knows no tags.
    Refused,
    /// It took them, and shows none.
    Forgotten,
    /// The settings say that none are to be used.
    Off,
}

impl TagKeeping {
    /// Whether tags that are set do not stay.
    pub fn is_lost(self) -> bool {
        matches!(self, Self::Refused | Self::Forgotten | Self::Off)
    }

    /// What a store that keeps none does with them, as far as it has shown.
    pub fn shown(self) -> Option<&'static str> {
        match self {
            Self::Refused => Some("refuses object tags"),
            Self::Forgotten => Some("takes object tags and does not keep them"),
            Self::Unknown | Self::Kept | Self::Off => None,
        }
    }

    /// What a person should know of a store that has shown that it keeps none.
    pub fn warning(self, url: &str) -> Option<String> {
        let does = self.shown()?;
        Some(format!(
            "{url} {does}, so no lifecycle rule can expire its backups: `pgstow prune --allow-delete` applies the \
             retention there; BACKUP_S3_TAGGING=off says that you know"
        ))
    }
}

/// What became of an object that was to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    Gone,
    /// No listing shows it any more; the bucket keeps its versions.
    Hidden,
    /// The store does not let this key delete it.
    Refused,
}

/// A bucket's lifecycle rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Rules whose IDs are pgstow's.
    pub ours: Vec<Rule>,
    /// Rules that somebody else keeps in this bucket.
    pub foreign: Vec<Rule>,
}
