//! The tags of objects in a bucket: reads them, sets them, and marks objects that no backup claims, so that the
//! bucket expires them.

use std::sync::atomic::Ordering;

use aws_sdk_s3::operation::put_object_tagging::{PutObjectTaggingError, PutObjectTaggingOutput};
use aws_sdk_s3::types::{Tag, Tagging};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;

use super::bucket::{Bucket, build, missing};
use super::tagging::status;
use super::{Deleted, PENDING, TIER_TAG, TagKeeping};
use crate::error::{Code, Error, Result};
use crate::outside::aws;

const ONLY_ALONG: &str = "set BACKUP_S3_TAGGING=off: this endpoint accepts tags with a new object, but cannot change them; then \
                          apply the retention with `pgstow prune --allow-delete` after the backups";

impl Bucket {
    pub async fn tags(&self, key: &str) -> Result<Option<Vec<(String, String)>>> {
        if self.tagging.keeping().is_lost() {
            return Ok(Some(Vec::new()));
        }
        let request = self.client.get_object_tagging().bucket(&self.name).key(self.key(key));
        match request.send().await {
            Ok(answer) => {
                let tags: Vec<_> = answer.tag_set.into_iter().map(|tag| (tag.key, tag.value)).collect();
                if !tags.is_empty() {
                    self.tagging.learn(TagKeeping::Kept);
                }
                Ok(Some(tags))
            }
            Err(error) if aws::service_code(&error) == Some("NoSuchTagSet") => Ok(Some(Vec::new())),
            Err(error) if self.tagging.may_be_refused(&error) => {
                if self.tagging.keeping().is_lost() {
                    return Ok(Some(Vec::new()));
                }
                let is_there = self.head(key).await?.is_some();
                // A delete marker gives the same answer as a request that the store does not know.
                if is_there || status(&error) != Some(405) {
                    self.tagging.learn(TagKeeping::Refused);
                }
                Ok(is_there.then(Vec::new))
            }
            Err(error) if missing(&error) => Ok(None),
            Err(error) => Err(self.error(&format!("read the tags of {key}"), &error)),
        }
    }

    /// Returns false if there is no such object.
    pub async fn set_tags(&self, key: &str, tags: &[(String, String)]) -> Result<bool> {
        if self.tagging.keeping().is_lost() {
            return Ok(true);
        }
        let Err(error) = self.put_tags(key, tags).await? else {
            self.look_for_tags(key).await;
            return Ok(true);
        };
        // The object may have tags that cannot be changed, such as `pending`: it would expire, so it must not pass
        // for an object without tags.
        if self.tagging.may_be_refused(&error) && self.tags(key).await? == Some(Vec::new()) {
            self.tagging.learn(TagKeeping::Refused);
            return Ok(true);
        }
        if missing(&error) {
            return Ok(false);
        }
        let told = self.error(&format!("tag {key}"), &error);
        Err(match status(&error) {
            Some(405 | 501) => told.hint(ONLY_ALONG),
            _ => told,
        })
    }

    /// Once in a run, right after tags were set: a store may accept tags and not keep them.
    async fn look_for_tags(&self, key: &str) {
        if self.tagging.keeping() == TagKeeping::Unknown
            && !self.tagging.looked.swap(true, Ordering::Relaxed)
            && let Ok(Some(tags)) = self.tags(key).await
            && tags.is_empty()
            && self.tagging.keeping() == TagKeeping::Unknown
        {
            self.tagging.learn(TagKeeping::Forgotten);
        }
    }

    async fn put_tags(
        &self,
        key: &str,
        tags: &[(String, String)],
    ) -> Result<Result<PutObjectTaggingOutput, SdkError<PutObjectTaggingError, HttpResponse>>> {
        let mut tagging = Tagging::builder().set_tag_set(Some(Vec::new()));
        for (name, value) in tags {
            tagging = tagging.tag_set(build(Tag::builder().key(name).value(value).build())?);
        }
        let request = self
            .client
            .put_object_tagging()
            .bucket(&self.name)
            .key(self.key(key))
            .tagging(build(tagging.build())?);
        Ok(request
            .customize()
            .interceptor(self.checksum_that_is_known())
            .send()
            .await)
    }

    /// Tags an object so that the bucket expires it, and keeps its other tags. If the store keeps no tags, the object
    /// would never expire, so it is deleted, if the key may.
    pub async fn discard(&self, key: &str) -> Result<()> {
        let Some(mut tags) = self.tags(key).await? else {
            return Ok(());
        };
        if !self.tagging.keeping().is_lost() {
            tags.retain(|(name, _)| name != TIER_TAG);
            tags.push((TIER_TAG.to_owned(), PENDING.to_owned()));
            self.set_tags(key, &tags).await?;
        }
        if !self.tagging.keeping().is_lost() || self.try_delete(key).await? != Deleted::Refused {
            return Ok(());
        }
        let what = format!(
            "{} keeps no tags and does not let this key delete {key}: the object stays, but belongs to no backup",
            self.url
        );
        Err(Error::new(Code::Store, what).hint("`pgstow prune --allow-delete` with a key that may delete removes it"))
    }
}
