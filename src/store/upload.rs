//! An upload to S3: in one request if the object is small, else in parts, of which a limited number is in flight.

mod completion;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::operation::create_multipart_upload::{CreateMultipartUploadError, CreateMultipartUploadOutput};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::ChecksumAlgorithm;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use bytes::Bytes;
use tokio::task::{JoinError, JoinSet};

use super::bucket::{self, Attempts, Bucket, Whole};
use super::parts::PartSizes;
use super::segments::Segments;
use super::sending::{SentPart, Verdict, corrupted, digest, judge, send, untrusted};
use super::trouble::refuses_conditions;
use super::window::Window;
use super::{Condition, Expected, Mark, ObjectInfo, StoreChecksum, Stored, UPLOAD, Upload, taken};
use crate::error::{Code, Error, Result};
use crate::outside::aws;
use crate::run::publication::random;
use crate::units::count;

pub struct S3Upload {
    bucket: Arc<Bucket>,
    key: String,
    object: ObjectInfo,
    schedule: PartSizes,
    /// The part that is being filled.
    filling: Segments,
    /// Its number, from 1.
    number: u32,
    window: Window,
    /// `None` until the first part is full and more bytes come.
    multipart: Option<Multipart>,
    in_flight: JoinSet<Result<SentPart>>,
    sent: Vec<SentPart>,
}

struct Multipart {
    id: String,
    /// Whether its creation was sent more than once: then there may be a second upload, whose id was lost with the
    /// answer.
    may_have_twin: bool,
}

/// Attempts of a completion or put while another request on the same key is in progress.
const CONFLICTS: u32 = 3;

impl S3Upload {
    pub fn new(bucket: Arc<Bucket>, key: &str, object: &ObjectInfo) -> Self {
        let mut object = object.clone();
        // A random word, so that no object of another upload is taken for ours, even with the same backup id and
        // length.
        object.metadata.push((UPLOAD.to_owned(), random()));
        Self {
            schedule: PartSizes::new(&bucket.settings, object.size_estimate),
            bucket,
            key: key.to_owned(),
            object,
            filling: Segments::default(),
            number: 1,
            window: Window::default(),
            multipart: None,
            in_flight: JoinSet::new(),
            sent: Vec::new(),
        }
    }

    /// Sends the filled part, as soon as one more may be in flight.
    async fn send_part(&mut self) -> Result<()> {
        let id = match &self.multipart {
            Some(multipart) => multipart.id.clone(),
            None => self.begin().await?,
        };
        let body = std::mem::take(&mut self.filling);
        let memory = parts_in_flight(self.bucket.settings.memory, body.len() as u64);
        // Parts that have finished already did not make this one wait.
        while let Some(joined) = self.in_flight.try_join_next() {
            self.sent_one(joined, false, memory)?;
        }
        while self.in_flight.len() >= self.window.size(memory) {
            let Some(joined) = self.in_flight.join_next().await else {
                break;
            };
            self.sent_one(joined, true, memory)?;
        }
        self.in_flight
            .spawn(send(Arc::clone(&self.bucket), self.key.clone(), id, self.number, body));
        self.number += 1;
        Ok(())
    }

    fn sent_one(
        &mut self,
        joined: std::result::Result<Result<SentPart>, JoinError>,
        waited: bool,
        memory: usize,
    ) -> Result<()> {
        let part = joined
            .map_err(|error| Error::internal(format!("a part of {} was cut off", self.key)).source(error))
            .flatten()?;
        self.window.took(part.bytes, part.time, waited, memory);
        self.sent.push(part);
        Ok(())
    }

    async fn begin(&mut self) -> Result<String> {
        let bucket = &self.bucket;
        let attempts = Attempts::default();
        let tags = bucket.tagging.header(&self.object);
        let tagged = tags.is_some();
        let created = match self.create(tags, &attempts).await {
            Err(error) if tagged && bucket.tagging.header_may_be_refused(&error) => {
                let without = self.create(None, &attempts).await;
                if bucket.tagging.were_refused(&error, &without) {
                    without
                } else {
                    Err(error)
                }
            }
            created => {
                if tagged && created.is_ok() {
                    bucket.tagging.took();
                }
                created
            }
        };
        let created = match created {
            Ok(created) => created.upload_id,
            Err(error) => {
                self.sweep().await;
                return Err(bucket.error_making(&format!("begin the upload of {}", self.key), &error, &self.object));
            }
        };
        let id = created.ok_or_else(|| {
            let what = format!("{} began an upload of {} without an id", bucket.url, self.key);
            Error::new(Code::Store, what)
        })?;
        self.multipart = Some(Multipart {
            id: id.clone(),
            may_have_twin: attempts.count() > 1,
        });
        Ok(id)
    }

    async fn create(
        &self,
        tags: Option<String>,
        attempts: &Attempts,
    ) -> std::result::Result<CreateMultipartUploadOutput, SdkError<CreateMultipartUploadError, HttpResponse>> {
        let bucket = &self.bucket;
        bucket
            .client
            .create_multipart_upload()
            .bucket(&bucket.name)
            .key(bucket.key(&self.key))
            .set_content_type(bucket::content_type(&self.object))
            .set_tagging(tags)
            .set_metadata(bucket::metadata(&self.object))
            .set_storage_class(bucket.storage_class())
            .set_server_side_encryption(bucket.encryption())
            .set_ssekms_key_id(bucket.kms_key())
            .set_checksum_algorithm(bucket.always_checksums().then_some(ChecksumAlgorithm::Sha256))
            .customize()
            .interceptor(attempts.clone())
            .send()
            .await
    }

    /// Aborts all other uploads of our key. If that fails, the next run finds what is left, and the lifecycle rule on
    /// unfinished uploads removes it.
    async fn sweep(&self) {
        let ours = self.multipart.as_ref().map(|multipart| multipart.id.as_str());
        let key = self.bucket.key(&self.key);
        let Ok(uploads) = self.bucket.uploads(&self.key).await else {
            return;
        };
        for upload in uploads {
            if let Some(id) = upload.upload_id()
                && upload.key() == Some(&key)
                && ours != Some(id)
            {
                let _ = self.bucket.abort(&self.key, id).await;
            }
        }
    }

    /// Puts the whole object in one request: it is not longer than its first part.
    async fn put_whole(&mut self, expected: &Expected) -> Result<Stored> {
        let bucket = Arc::clone(&self.bucket);
        let body = std::mem::take(&mut self.filling);
        let digests = digest(body.clone(), bucket.settings.checksums).await?;
        if body.len() as u64 != expected.bytes || digests.sha256 != expected.sha256 {
            return Err(self.not_as_expected(body.len() as u64, expected));
        }
        let mut repeated = false;
        let mut conflicts = 0;
        let mut condition = (!self.object.replace).then_some(Condition::Absent);
        let failed = loop {
            let whole = Whole {
                key: &self.key,
                body: &body,
                digests: &digests,
                object: &self.object,
                condition: condition.as_ref(),
            };
            match bucket.put_object(&whole).await {
                Ok(answer) => match judge(answer.checksum_sha256(), &digests, bucket.always_checksums()) {
                    Verdict::Same => return Ok(self.whole(expected, answer.checksum_sha256())),
                    verdict => {
                        let error = self.untrusted(verdict, "the object");
                        return Err(self.visible_but_wrong(error).await);
                    }
                },
                Err(error) if corrupted(&error) && !repeated => repeated = true,
                // Another run is writing this key now, and may still fail.
                Err(error) if in_conflict(&error) && conflicts < CONFLICTS => {
                    conflicts += 1;
                    tokio::time::sleep(Duration::from_millis(200 << conflicts)).await;
                }
                // The store does not know the condition: check what it shows instead.
                Err(error) if condition.is_some() && refuses_conditions(&error) => {
                    if bucket.glance(&self.key).await {
                        return Err(self.taken());
                    }
                    condition = None;
                }
                Err(error) => break bucket.error_making(&format!("write {}", self.key), &error, &self.object),
            }
        };
        // It may have succeeded although the answer was lost.
        match bucket.head(&self.key).await {
            Ok(Some(head)) if self.is_ours(&head, expected.bytes, &digests.sha256_base64()) => {
                Ok(self.whole(expected, head.checksum_sha256()))
            }
            Ok(Some(head)) if self.is_anothers(&head) => Err(self.taken()),
            _ => Err(failed),
        }
    }

    fn whole(&self, expected: &Expected, checksum: Option<&str>) -> Stored {
        Stored {
            bytes: expected.bytes,
            checksum: checksum.map(|value| StoreChecksum {
                algorithm: "SHA256".to_owned(),
                kind: "FULL_OBJECT".to_owned(),
                value: value.to_owned(),
            }),
            parts: Vec::new(),
        }
    }

    /// Whether the store's object equals what we wrote: its checksum if the store reports one, its length, and its
    /// metadata, which names this backup.
    fn agrees(&self, head: &HeadObjectOutput, bytes: u64, checksum: &str) -> bool {
        let metadata = |name: &str| head.metadata().and_then(|metadata| metadata.get(name));
        head.content_length().and_then(|length| u64::try_from(length).ok()) == Some(bytes)
            && head.checksum_sha256().is_none_or(|theirs| theirs == checksum)
            && self
                .object
                .metadata
                .iter()
                .all(|(name, value)| metadata(name) == Some(value))
    }

    /// Whether the object is certainly ours, though the store never confirmed the upload: an older object could have
    /// the same length.
    fn is_ours(&self, head: &HeadObjectOutput, bytes: u64, checksum: &str) -> bool {
        let identified = head.checksum_sha256().is_some() || !self.object.metadata.is_empty();
        identified && self.agrees(head, bytes, checksum)
    }

    /// Whether it has another upload's word, and so is an object that must not be replaced.
    fn is_anothers(&self, head: &HeadObjectOutput) -> bool {
        let told = head.metadata().and_then(|metadata| metadata.get(UPLOAD));
        let ours = self.object.metadata.iter().find(|(name, _)| name == UPLOAD);
        !self.object.replace && told != ours.map(|(_, word)| word)
    }

    fn taken(&self) -> Error {
        taken(&self.key, &self.bucket.url)
    }

    /// The object is visible but must not count as good. Without a permission to delete, pgstow cannot remove it; so
    /// it is tagged to expire, and the error says so.
    async fn visible_but_wrong(&self, error: Error) -> Error {
        let what = format!("{} is visible, and was given up", self.key);
        let note = match self.bucket.discard(&self.key).await {
            Ok(()) if self.bucket.tagging.keeping().is_lost() => {
                Error::new(Code::Store, format!("{what}: it was deleted"))
            }
            Ok(()) => Error::new(Code::Store, format!("{what}: it was tagged to expire")),
            Err(second) => Error::new(Code::Store, format!("{what}, but could not be removed")).also(second),
        };
        error.also(note)
    }

    fn not_as_expected(&self, bytes: u64, expected: &Expected) -> Error {
        Error::new(
            Code::Store,
            format!(
                "the parts of {} hold {bytes} bytes, which are not the {} that were to be stored",
                self.key, expected.bytes
            ),
        )
        .hint("run again; if it happens again, please report it")
    }

    fn untrusted(&self, verdict: Verdict, of: &str) -> Error {
        untrusted(&self.bucket, &self.key, verdict, of)
    }

    /// Ends the parts in flight, then the upload.
    async fn give_up(&mut self) -> Result<()> {
        let patience = self.bucket.patience.abort;
        let settled = async { while self.in_flight.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(patience, settled).await;
        self.in_flight.shutdown().await;
        let Some(multipart) = &self.multipart else {
            return Ok(());
        };
        let aborted = self.bucket.abort(&self.key, &multipart.id).await;
        if multipart.may_have_twin {
            self.sweep().await;
        }
        aborted
    }
}

#[async_trait]
impl Upload for S3Upload {
    fn mark(&self) -> Mark {
        let word = self.object.metadata.iter().find(|(name, _)| name == UPLOAD);
        Mark(word.map(|(_, word)| word.clone()).unwrap_or_default())
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let Some(length) = self.schedule.length(self.number) else {
                let what = format!(
                    "{} does not fit {} in {}",
                    self.key,
                    count(self.schedule.max_parts(), "part"),
                    self.bucket.url
                );
                return Err(Error::new(Code::Store, what)
                    .hint("raise BACKUP_S3_PART_SIZE, or BACKUP_S3_MAX_PARTS where the provider allows more"));
            };
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            // A part is sent only when more bytes follow, so that an object that fits in one part is recognised.
            if self.filling.len() >= length {
                self.send_part().await?;
                continue;
            }
            self.filling
                .push(bytes.split_to(bytes.len().min(length - self.filling.len())));
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<()> {
        if self.multipart.is_none() {
            // The object is sent in one request, which also makes it visible.
            return Ok(());
        }
        if !self.filling.is_empty() {
            self.send_part().await?;
        }
        while let Some(joined) = self.in_flight.join_next().await {
            self.sent_one(joined, false, 1)?;
        }
        Ok(())
    }

    async fn complete(mut self: Box<Self>, expected: &Expected) -> Result<Stored> {
        let Some(id) = self.multipart.as_ref().map(|multipart| multipart.id.clone()) else {
            return self.put_whole(expected).await;
        };
        match self.finish(&id, expected).await {
            Ok(stored) => {
                if self.multipart.as_ref().is_some_and(|multipart| multipart.may_have_twin) {
                    self.sweep().await;
                }
                Ok(stored)
            }
            // A second abort does no harm, and a completed upload cannot be aborted any more.
            Err(error) => Err(error.with_clean_up(self.give_up().await)),
        }
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        self.give_up().await
    }
}

/// Another request on the same key is in progress.
fn in_conflict<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    matches!(
        aws::service_code(error),
        Some("ConditionalRequestConflict" | "OperationAborted")
    )
}

/// How many parts may be in flight within `memory`, beside the part that is being filled; at least one, however long
/// it is. So the largest use is `memory`, or two parts if they are longer.
fn parts_in_flight(memory: u64, length: u64) -> usize {
    let parts = (memory + length / 2) / length.max(1);
    usize::try_from(parts.saturating_sub(1)).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_in_flight_and_the_one_being_filled_take_what_they_may_and_never_less_than_two() {
        let memory = 40 << 20;
        assert_eq!(parts_in_flight(memory, 8 << 20), 4);
        assert_eq!(parts_in_flight(memory, 16 << 20), 2);
        assert_eq!(parts_in_flight(memory, 64 << 20), 1);
        assert_eq!(parts_in_flight(memory, 5 << 30), 1);
        assert_eq!(parts_in_flight(256 << 20, 8 << 20), 31);
    }
}
