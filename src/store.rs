//! Where backups are stored: one trait, documented by its guarantees. `tests/suite/store.rs` tests every back end
//! for them.
//!
//! Keys are relative to the store's root, `/`-separated, without a leading slash. Every segment is encoded by
//! [`crate::repository::backup_id`], so that it is a safe file name and object key.

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

/// A place for backups. Its methods promise the same of every back end.
#[async_trait]
pub trait Store: Send + Sync {
    /// The store as its user named it, without secrets: for reports, logs and errors.
    fn url(&self) -> &str;

    /// Checks that the store exists and gives access, with at most one cheap request and without writing anything.
    /// Called before the dump starts, so that a wrong bucket costs seconds.
    async fn reach(&self) -> Result<()>;

    /// As [`Store::reach`], for a command that only reads: a store that does not exist before the first backup is an
    /// error.
    async fn is_there(&self) -> Result<()> {
        self.reach().await
    }

    /// Starts an object whose length is not known yet. Nothing is visible under `key` until
    /// [`Upload::complete`] has returned. An object that has the key by then stays as it is, and the
    /// upload fails with `BUSY`, unless [`ObjectInfo::replace`] says otherwise.
    async fn upload(&self, key: &str, object: &ObjectInfo) -> Result<Box<dyn Upload>>;

    /// Writes a small object in one atomic step: readers see the whole old one or the whole new one. Safe to repeat.
    async fn put(&self, key: &str, body: Bytes, object: &ObjectInfo) -> Result<ObjectVersion>;

    /// The whole object (meant for small ones: manifests, leases), or `None` if there is none. `INTEGRITY` if it is
    /// longer than [`limits::most`] allows, whatever length the store reported before, or if it is not a regular
    /// file; nothing more of it is read then.
    async fn get(&self, key: &str) -> Result<Option<Object>>;

    /// The same with a limit of `most` bytes, for callers that have memory for so many.
    async fn get_up_to(&self, key: &str, most: u64) -> Result<Option<Object>> {
        match self.get(key).await? {
            Some(object) if object.body.len() as u64 > most => {
                let name = format!("{key} in {}", self.url());
                Err(limits::too_long(&name, object.body.len() as u64, most))
            }
            object => Ok(object),
        }
    }

    /// `length` bytes from `offset`; fewer only if the object ends. `None` if there is none.
    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Option<Bytes>>;

    /// The store's metadata of an object; `None` if there is none.
    async fn head(&self, key: &str) -> Result<Option<ObjectHead>>;

    /// Every object whose key starts with `prefix`, in byte order of the keys, from all pages. Uploads in progress
    /// and temporary files are not objects. A folder that does not exist gives an empty list. Entries of a folder
    /// that are not files, such as a link or a FIFO, are listed without bytes: reading them is an error that names
    /// their kind.
    async fn list(&self, prefix: &str) -> Result<Vec<ListedObject>>;

    /// The folder names directly below `prefix` (empty, or ending in `/`), sorted, without slashes.
    async fn folders(&self, prefix: &str) -> Result<Vec<String>>;

    /// Entries that could be a database's folder but are not read, each as an error that says why: with an empty
    /// answer the store would look like one without backups.
    async fn passed_over(&self) -> Result<Vec<Error>> {
        Ok(Vec::new())
    }

    /// Left-overs of killed runs under `prefix` that never became an object: multipart uploads in progress, temporary
    /// files.
    async fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>>;

    /// Removes one left-over that [`Store::unfinished`] named. Safe to repeat.
    async fn abort_unfinished(&self, unfinished: &Unfinished) -> Result<()>;

    /// Whether the existing object came from this upload, and not from another run.
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

    /// Removes the folder that the first write into a store creates, if it is empty. Safe to repeat.
    async fn unmake(&self) -> Result<()> {
        Ok(())
    }

    /// The space on the store's disk; `None` if a store has no such limit.
    async fn space(&self) -> Result<Option<Space>> {
        Ok(None)
    }

    /// The store's own expiry, if it has one. If not, `prune` removes old backups.
    fn lifecycle(&self) -> Option<&dyn Lifecycle>;

    /// The store's conditional writes, if it has any. If not, no run can hold a lease in it, so it can hold only
    /// copies: see [`conditions`].
    fn conditional(&self) -> Option<&dyn Conditional>;
}

/// Writes that depend on the existing object: the store alone decides.
#[async_trait]
pub trait Conditional: Send + Sync {
    /// As [`Store::put`], if the condition holds. Of racing puts under a condition, at most one succeeds. Safe to
    /// repeat: if the condition no longer holds because the object already has exactly these bytes, as after a lost
    /// answer, the result is `Put::Done`. So a body that must belong to one run (a lease) names that run.
    async fn put_if(&self, key: &str, body: Bytes, object: &ObjectInfo, condition: Condition) -> Result<Put>;

    /// Whether the store has answered that it has no conditional writes, and no later answer showed the opposite. The
    /// put that got that answer has failed, and has written nothing.
    fn refused(&self) -> bool {
        false
    }
}

/// An upload in progress. Dropping it without `complete` or `abort` leaves a left-over for [`Store::unfinished`],
/// never a visible object.
#[async_trait]
pub trait Upload: Send {
    /// Takes the next bytes, and returns when they are accepted. It waits while as many parts are in flight as the
    /// back end allows, so a caller cannot run ahead of the store.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;

    /// To be called after the last write: returns when the store has accepted everything that can be sent before the
    /// decision to complete. A slow line may take long, so callers may interrupt it; after that, or after an error,
    /// only `abort` may follow.
    async fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    /// To be called after the last write. Compares the sizes and checksums that the store reports with `expected` and
    /// with our own record of each part, and only then makes the object visible, in one step. After an error, no
    /// object of this upload is visible and no upload is in progress. `BUSY` if another run has put an object with
    /// this key; that object was not changed.
    async fn complete(self: Box<Self>, expected: &Expected) -> Result<Stored>;

    /// The mark that the object will have, and no object of another upload.
    fn mark(&self) -> Mark;

    /// Gives up: no object becomes visible, and no upload stays in progress.
    async fn abort(self: Box<Self>) -> Result<()>;
}

/// What the caller knows about an object after all its bytes were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The object's length.
    pub bytes: u64,
    /// Of the whole object.
    pub sha256: [u8; 32],
}

/// What the caller knows about an object when its upload starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The media type that the object is stored with.
    pub content_type: &'static str,
    /// Object tags (S3); ignored by stores without a lifecycle.
    pub tags: Vec<(String, String)>,
    /// User metadata (S3), ASCII; ignored by stores without.
    pub metadata: Vec<(String, String)>,
    /// An estimate of the final size, for the choice of the part size; the object may become larger.
    pub size_estimate: Option<u64>,
    /// For an upload: replaces an existing object with the key. A put has its [`Condition`] instead.
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

/// A checksum that the store reported and that equals ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreChecksum {
    /// S3's name: `SHA256`.
    pub algorithm: String,
    /// S3's name: `FULL_OBJECT` or `COMPOSITE`.
    pub kind: String,
    /// Base64, with `-<parts>` appended when composite.
    pub value: String,
}

/// One part of a multipart upload; the composite checksum is made of all parts.
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
    Unchanged(ObjectVersion),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    Done(ObjectVersion),
    /// The condition did not hold; nothing was written.
    Refused,
}

impl Put {
    /// The result of a put without a condition.
    fn done(self, key: &str) -> Result<ObjectVersion> {
        match self {
            Put::Done(version) => Ok(version),
            Put::Refused => Err(Error::internal(format!("{key} was refused without a condition"))),
        }
    }
}

/// Identifies the upload that an object came from: a random word in S3's metadata, or the file itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(pub String);

/// The key in [`ObjectHead::metadata`] for the upload's own word.
pub const UPLOAD: &str = "pgstow-upload";

/// Distinguishes two states of an object: S3's ETag, or a digest of a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectVersion(pub String);

#[derive(Debug, Clone)]
pub struct Object {
    /// The whole object.
    pub body: Bytes,
    /// Names this state of the object in a later condition.
    pub version: ObjectVersion,
}

#[derive(Debug, Clone)]
pub struct ObjectHead {
    /// The object's length.
    pub bytes: u64,
    /// Names this state of the object in a later condition.
    pub version: ObjectVersion,
    /// Names and values that the object was stored with.
    pub metadata: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
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

/// The error of an upload whose key has an object already.
pub(crate) fn taken(key: &str, url: &str) -> Error {
    Error::new(
        Code::Busy,
        format!("{key} in {url} is there already: another run has made a backup of this id"),
    )
    .hint("run it again; if this comes back, compare the clocks of the hosts that write to this store")
}

/// The error if two reads of an object differ: this can be the fault of the stored bytes or of the transfer.
pub fn unsteady(key: &str, url: &str) -> Error {
    Error::new(Code::Store, format!("two reads of {key} in {url} gave different bytes"))
        .hint(crate::outside::aws::BYTES_CHANGE)
}

/// The size of a disk in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct Space {
    /// The bytes that this user may still write.
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

    /// Whether tags work, as far as this run knows. If they do not, [`Lifecycle::tags`] returns none,
    /// [`Lifecycle::set_tags`] does nothing, and [`Store::discard`] deletes if the key may.
    fn keeping(&self) -> TagKeeping {
        TagKeeping::Unknown
    }

    /// Deletes one object, as anyone with our key could. A missing object is no error.
    async fn try_delete(&self, key: &str) -> Result<Deleted>;

    /// The bucket's lifecycle rules, split into ours (by [`is_ours`]) and the
    /// number of foreign ones.
    async fn rules(&self) -> Result<Rules>;

    /// Replaces our rules by `ours`. Foreign rules stay exactly as they are: they are read, kept in the back end's
    /// own types, and written back with ours in one request. Then the rules that the store shows are compared,
    /// repeatedly for some time while it still shows the former rules. If the store has changed the rules, the former
    /// rules are installed again, and the error says what the store's rules would have done.
    async fn install_rules(&self, ours: &[Rule]) -> Result<()>;

    /// The key prefix of this store in the bucket (`""`, or ending in `/`), which rules filter by.
    fn prefix(&self) -> &str;
}

/// Whether a store keeps the tags that objects are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagKeeping {
    /// Not known yet.
    Unknown,
    Kept,
    /// The store answers that it has no tags.
    Refused,
    /// The store accepted tags, but shows none.
    Forgotten,
    /// The settings turn tags off.
    Off,
}

impl TagKeeping {
    /// Whether tags that are set do not stay.
    pub fn is_lost(self) -> bool {
        matches!(self, Self::Refused | Self::Forgotten | Self::Off)
    }

    /// How a store that keeps no tags behaves, as far as known.
    pub fn shown(self) -> Option<&'static str> {
        match self {
            Self::Refused => Some("refuses object tags"),
            Self::Forgotten => Some("takes object tags and does not keep them"),
            Self::Unknown | Self::Kept | Self::Off => None,
        }
    }

    /// The warning about a store that keeps no tags.
    pub fn warning(self, url: &str) -> Option<String> {
        let does = self.shown()?;
        Some(format!(
            "{url} {does}, so no lifecycle rule can expire its backups: `pgstow prune --allow-delete` applies the \
             retention there; BACKUP_S3_TAGGING=off says that you know"
        ))
    }
}

/// The result of deleting an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    Gone,
    /// No listing shows it any more, but the bucket keeps its versions.
    Hidden,
    /// The store does not let this key delete it.
    Refused,
}

/// A bucket's lifecycle rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Rules whose IDs are pgstow's.
    pub ours: Vec<Rule>,
    /// Rules of other people in this bucket.
    pub foreign: Vec<Rule>,
}
