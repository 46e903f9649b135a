//! The S3 store: AWS and other services with its protocol.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, ByteStreamError, DateTime};
use bytes::Bytes;

use super::bucket::{Bucket, Digests, Whole, missing};
use super::limits::{self, too_long};
use super::segments::Segments;
use super::sending::{Verdict, corrupted, judge, untrusted};
use super::settings;
use super::tagging::Tagging;
use super::trouble;
use super::upload::S3Upload;
use super::{
    Condition, Conditional, Lifecycle, ListedObject, Object, ObjectHead, ObjectInfo, ObjectVersion, Put, Store,
    Unfinished, Upload,
};
use crate::error::{Code, Error, Result};
use crate::outside::aws::{self, Patience};

/// How often pgstow reads a body again that broke off, and repeats a conflicting conditional put.
const TRIES: u32 = 5;

pub struct S3 {
    pub(super) bucket: Arc<Bucket>,
}

impl S3 {
    /// `client` comes from [`crate::outside::aws::s3_client`], made with the same `patience`.
    pub fn new(client: Client, bucket: &str, prefix: &str, settings: settings::S3, patience: Patience) -> Self {
        let prefix = prefix.trim_matches('/');
        let (url, prefix) = if prefix.is_empty() {
            (format!("s3://{bucket}"), String::new())
        } else {
            (format!("s3://{bucket}/{prefix}"), format!("{prefix}/"))
        };
        let bucket = Bucket {
            client,
            name: bucket.to_owned(),
            prefix,
            url,
            tagging: Tagging::new(settings.tagging),
            refuses_conditions: AtomicBool::new(false),
            settings,
            patience,
        };
        Self {
            bucket: Arc::new(bucket),
        }
    }

    /// The whole object or a range of it, with a limit of `most` bytes: on the length in the answer, and on the bytes
    /// that arrive. The SDK retries a request, but not a body that breaks off during reading.
    async fn fetch(&self, key: &str, range: Option<String>, most: u64) -> Result<Option<(GetObjectOutput, Bytes)>> {
        let bucket = &self.bucket;
        let mut tries = 1;
        loop {
            let request = bucket
                .client
                .get_object()
                .bucket(&bucket.name)
                .key(bucket.key(key))
                .set_range(range.clone());
            let mut object = match request.send().await {
                Ok(object) => object,
                Err(error) if missing(&error) => return Ok(None),
                Err(error) => return Err(bucket.error(&format!("read {key}"), &error)),
            };
            let said = object.content_length().and_then(|bytes| u64::try_from(bytes).ok());
            let absurd = |bytes| match &range {
                None => too_long(&format!("{key} in {}", bucket.url), bytes, most),
                Some(range) => {
                    let what = format!(
                        "{} gave {bytes} bytes of {key} or more for the range {range}",
                        bucket.url
                    );
                    Error::new(Code::Store, what)
                }
            };
            if let Some(bytes) = said.filter(|bytes| *bytes > most) {
                return Err(absurd(bytes));
            }
            let body = std::mem::take(&mut object.body);
            match collect(body, said, most).await {
                Ok(Some(body)) => return Ok(Some((object, body))),
                Ok(None) => return Err(absurd(most + 1)),
                Err(_) if tries < TRIES => {
                    pause(tries).await;
                    tries += 1;
                }
                Err(error) => {
                    let what = format!("cannot read {key} in {}: the answer broke off", bucket.url);
                    return Err(Error::new(Code::Store, what).source(error));
                }
            }
        }
    }

    /// A small object in one request.
    async fn write(&self, key: &str, body: &Bytes, object: &ObjectInfo, condition: Option<&Condition>) -> Result<Put> {
        let bucket = &self.bucket;
        let digests = Digests::of([&body[..]].into_iter(), bucket.settings.checksums);
        let segments = Segments::from(body.clone());
        let whole = Whole {
            key,
            body: &segments,
            digests: &digests,
            object,
            condition,
        };
        let mut damaged = false;
        let conditional = condition.is_some();
        for tries in 1.. {
            let error = match bucket.put_object(&whole).await {
                Ok(answer) => match judge(answer.checksum_sha256(), &digests, bucket.always_checksums()) {
                    Verdict::Same => {
                        if conditional {
                            bucket.refuses_conditions.store(false, Ordering::Relaxed);
                        }
                        return Ok(Put::Done(version(answer.e_tag)));
                    }
                    verdict => return Err(untrusted(bucket, key, verdict, "the object")),
                },
                // Damaged in transfer: the store has not accepted it.
                Err(error) if corrupted(&error) && !damaged => {
                    damaged = true;
                    continue;
                }
                Err(error) => error,
            };
            match aws::service_code(&error) {
                Some("PreconditionFailed") if conditional => {
                    // The object was removed in the meantime: in another attempt the condition may hold.
                    match self.settle(key, body).await? {
                        Some(put) => return Ok(put),
                        None if condition == Some(&Condition::Absent) && tries < TRIES => {}
                        None => return Ok(Put::Refused),
                    }
                }
                // Another run is writing the same key now, and may still fail.
                Some("ConditionalRequestConflict" | "OperationAborted") if conditional => {
                    if tries >= TRIES {
                        return match self.settle(key, body).await? {
                            Some(put) => Ok(put),
                            None => Err(bucket.error(&format!("write {key}"), &error)),
                        };
                    }
                }
                Some("NoSuchKey" | "NotFound") if conditional => return Ok(Put::Refused),
                _ if conditional && trouble::refuses_conditions(&error) => {
                    bucket.refuses_conditions.store(true, Ordering::Relaxed);
                    return Err(bucket.error(&format!("write {key}"), &error).hint(trouble::CONDITIONS));
                }
                _ => return Err(bucket.error_making(&format!("write {key}"), &error, object)),
            }
            pause(tries).await;
        }
        unreachable!("the loop ends by returning")
    }

    /// Explains a failed condition: a repeated put finds its own bytes, which is success.
    async fn settle(&self, key: &str, body: &Bytes) -> Result<Option<Put>> {
        Ok(self.get(key).await?.map(|current| {
            if current.body == *body {
                Put::Done(current.version)
            } else {
                Put::Refused
            }
        }))
    }
}

/// The body's bytes; `None` if more than `most` arrive.
async fn collect(mut body: ByteStream, said: Option<u64>, most: u64) -> Result<Option<Bytes>, ByteStreamError> {
    let mut bytes = Vec::with_capacity(said.and_then(|said| usize::try_from(said).ok()).unwrap_or(0));
    while let Some(more) = body.try_next().await? {
        if (bytes.len() + more.len()) as u64 > most {
            return Ok(None);
        }
        bytes.extend_from_slice(&more);
    }
    Ok(Some(Bytes::from(bytes)))
}

/// Longer each time, and random, so that conflicting clients do not meet again.
async fn pause(tries: u32) {
    let most = 100_u64 << tries.min(5);
    let random = RandomState::new().build_hasher().finish() % (most / 2 + 1);
    tokio::time::sleep(Duration::from_millis(most / 2 + random)).await;
}

#[async_trait]
impl Store for S3 {
    fn url(&self) -> &str {
        &self.bucket.url
    }

    /// Lists one key: unlike HEAD on the bucket, its refusal gives a reason, and a policy that allows only the prefix
    /// allows it.
    async fn reach(&self) -> Result<()> {
        let bucket = &self.bucket;
        let listing = bucket
            .client
            .list_objects_v2()
            .bucket(&bucket.name)
            .prefix(&bucket.prefix)
            .max_keys(1);
        let briefly = listing.clone().customize().config_override(bucket.briefly());
        let reached = match briefly.send().await {
            // A store that answers with errors may recover soon. If it does not answer at all, the endpoint is more
            // likely wrong.
            Err(error)
                if error
                    .raw_response()
                    .is_some_and(|answer| answer.status().is_server_error()) =>
            {
                listing.send().await
            }
            reached => reached,
        };
        reached.map_err(|error| bucket.error_of(&format!("cannot reach the store {}", bucket.url), &error))?;
        Ok(())
    }

    async fn upload(&self, key: &str, object: &ObjectInfo) -> Result<Box<dyn Upload>> {
        Ok(Box::new(S3Upload::new(Arc::clone(&self.bucket), key, object)))
    }

    async fn put(&self, key: &str, body: Bytes, object: &ObjectInfo) -> Result<ObjectVersion> {
        self.write(key, &body, object, None).await?.done(key)
    }

    async fn get(&self, key: &str) -> Result<Option<Object>> {
        self.get_up_to(key, limits::most(key)).await
    }

    async fn get_up_to(&self, key: &str, most: u64) -> Result<Option<Object>> {
        let fetched = self.fetch(key, None, most).await?;
        Ok(fetched.map(|(object, body)| Object {
            body,
            version: version(object.e_tag),
        }))
    }

    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Option<Bytes>> {
        let Some(beyond_first) = length.checked_sub(1) else {
            return Ok(self.head(key).await?.map(|_| Bytes::new()));
        };
        // Servers read the numbers of a range as signed ones.
        let last = offset.saturating_add(beyond_first).min(i64::MAX as u64);
        match self.fetch(key, Some(format!("bytes={offset}-{last}")), length).await {
            Ok(Some((object, bytes))) => {
                let total = object
                    .content_range()
                    .and_then(|range| range.rsplit_once('/')?.1.parse().ok());
                let expected = total.map(|total: u64| length.min(total.saturating_sub(offset)));
                if expected.is_some_and(|expected| expected != bytes.len() as u64) || bytes.len() as u64 > length {
                    let what = format!(
                        "{} gave {} bytes of {key} where {length} from {offset} were asked for",
                        self.bucket.url,
                        bytes.len()
                    );
                    return Err(Error::new(Code::Store, what));
                }
                Ok(Some(bytes))
            }
            Ok(None) => Ok(None),
            // A range beyond the end is an error in S3.
            Err(error) => match self.head(key).await {
                Ok(Some(head)) if head.bytes <= offset => Ok(Some(Bytes::new())),
                _ => Err(error),
            },
        }
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectHead>> {
        Ok(self.bucket.head(key).await?.map(|head| ObjectHead {
            bytes: head
                .content_length()
                .and_then(|bytes| bytes.try_into().ok())
                .unwrap_or(0),
            version: version(head.e_tag),
            metadata: head.metadata.unwrap_or_default().into_iter().collect(),
        }))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        let bucket = &self.bucket;
        let mut pages = bucket
            .client
            .list_objects_v2()
            .bucket(&bucket.name)
            .prefix(bucket.key(prefix))
            .into_paginator()
            .send();
        let mut entries = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| bucket.error(&listing(prefix), &error))?;
            for object in page.contents() {
                // Some consoles create an object for a folder.
                let key = object.key().and_then(|key| key.strip_prefix(&bucket.prefix));
                if let Some(key) = key.filter(|key| !key.is_empty() && !key.ends_with('/')) {
                    entries.push(ListedObject {
                        key: key.to_owned(),
                        bytes: object.size().and_then(|bytes| bytes.try_into().ok()).unwrap_or(0),
                        modified: object.last_modified().and_then(timestamp),
                    });
                }
            }
        }
        entries.sort_by(|one, other| one.key.as_bytes().cmp(other.key.as_bytes()));
        Ok(entries)
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let bucket = &self.bucket;
        let start = bucket.key(prefix);
        let mut pages = bucket
            .client
            .list_objects_v2()
            .bucket(&bucket.name)
            .prefix(&start)
            .delimiter("/")
            .into_paginator()
            .send();
        let mut names = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| bucket.error(&listing(prefix), &error))?;
            for folder in page.common_prefixes() {
                let name = folder
                    .prefix()
                    .and_then(|path| path.strip_prefix(&start)?.strip_suffix('/'));
                if let Some(name) = name.filter(|name| !name.is_empty()) {
                    names.push(name.to_owned());
                }
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    async fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>> {
        let uploads = self.bucket.uploads(prefix).await?;
        Ok(uploads
            .into_iter()
            .filter_map(|upload| {
                Some(Unfinished {
                    key: upload.key?.strip_prefix(&self.bucket.prefix)?.to_owned(),
                    id: upload.upload_id?,
                    started: upload.initiated.as_ref().and_then(timestamp),
                })
            })
            .collect())
    }

    async fn abort_unfinished(&self, unfinished: &Unfinished) -> Result<()> {
        self.bucket.abort(&unfinished.key, &unfinished.id).await
    }

    async fn discard(&self, key: &str) -> Result<()> {
        self.bucket.discard(key).await
    }

    fn lifecycle(&self) -> Option<&dyn Lifecycle> {
        Some(self)
    }

    fn conditional(&self) -> Option<&dyn Conditional> {
        Some(self)
    }
}

#[async_trait]
impl Conditional for S3 {
    async fn put_if(&self, key: &str, body: Bytes, object: &ObjectInfo, condition: Condition) -> Result<Put> {
        self.write(key, &body, object, Some(&condition)).await
    }

    /// Known from the requests of the run.
    fn refused(&self) -> bool {
        self.bucket.refuses_conditions.load(Ordering::Relaxed)
    }
}

fn version(e_tag: Option<String>) -> ObjectVersion {
    ObjectVersion(e_tag.unwrap_or_default())
}

/// The action, as errors name it.
fn listing(prefix: &str) -> String {
    match prefix {
        "" => "list the objects".to_owned(),
        prefix => format!("list {prefix}*"),
    }
}

fn timestamp(time: &DateTime) -> Option<jiff::Timestamp> {
    let nanoseconds = i32::try_from(time.subsec_nanos()).ok()?;
    jiff::Timestamp::new(time.secs(), nanoseconds).ok()
}
