//! The end of an upload in parts: the review, the request, and what the store then shows.

use std::time::Duration;

use aws_sdk_s3::operation::complete_multipart_upload::CompleteMultipartUploadOutput;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};

use super::{CONFLICTS, S3Upload, in_conflict};
use crate::error::{Code, Error, Result};
use crate::store::sending::{Verdict, composite};
use crate::store::trouble::refuses_conditions;
use crate::store::{Expected, Part, StoreChecksum, Stored, Upload as _};

impl S3Upload {
    /// Sends the last part, compares all of them, and makes the object visible.
    pub(super) async fn finish(&mut self, id: &str, expected: &Expected) -> Result<Stored> {
        self.settle().await?;
        self.sent.sort_by_key(|part| part.number);
        let total: u64 = self.sent.iter().map(|part| part.bytes).sum();
        let contiguous = self.sent.iter().zip(1..).all(|(part, number)| part.number == number);
        if total != expected.bytes || !contiguous {
            return Err(self.not_as_expected(total, expected));
        }
        let composite = composite(&self.sent);
        // The request itself forbids replacing an existing object, but not every store obeys that. A failing store is
        // asked only once.
        if !self.object.replace && self.bucket.glance(&self.key).await {
            return Err(self.taken());
        }
        let reported = match self.request_completion(id, expected).await {
            Ok(answer) => answer.checksum_sha256,
            Err(failed) => return self.perhaps_completed(id, expected, &composite, failed).await,
        };
        // From here on the object is visible.
        if reported.as_ref().is_some_and(|reported| *reported != composite) {
            let error = self.untrusted(Verdict::Different, "the completed object");
            return Err(self.visible_but_wrong(error).await);
        }
        let head = match self.bucket.head(&self.key).await {
            Ok(Some(head)) if self.agrees(&head, expected.bytes, &composite) => head,
            // Another run replaced our object, in a store that ignores conditions: it is not ours to give up.
            Ok(Some(head)) if self.is_anothers(&head) => return Err(self.taken()),
            Ok(head) => {
                let found = head.map_or("nothing".to_owned(), |head| {
                    format!("an object of {} bytes", head.content_length().unwrap_or_default())
                });
                let what = format!(
                    "{} in {} was completed with {} bytes, but the store then shows {found}",
                    self.key, self.bucket.url, expected.bytes
                );
                return Err(self.visible_but_wrong(Error::new(Code::Store, what)).await);
            }
            Err(error) => return Err(self.visible_but_wrong(error).await),
        };
        Ok(self.composed(expected, reported.as_deref().or(head.checksum_sha256())))
    }

    async fn request_completion(&self, id: &str, expected: &Expected) -> Result<CompleteMultipartUploadOutput> {
        let bucket = &self.bucket;
        let always = bucket.always_checksums();
        let parts = self.sent.iter().map(|part| {
            CompletedPart::builder()
                .part_number(i32::try_from(part.number).unwrap_or(i32::MAX))
                .set_e_tag(part.e_tag.clone())
                .set_checksum_sha256(part.digests.checksum())
                .build()
        });
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect()));
        // The store joins the parts; with 10,000 of them that takes a while in some stores.
        let patience =
            bucket.patience.complete + Duration::from_millis(50) * u32::try_from(self.sent.len()).unwrap_or(0);
        let request = bucket
            .client
            .complete_multipart_upload()
            .bucket(&bucket.name)
            .key(bucket.key(&self.key))
            .upload_id(id)
            .multipart_upload(parts.build())
            .set_mpu_object_size(i64::try_from(expected.bytes).ok().filter(|_| always));
        let mut condition = (!self.object.replace).then(|| "*".to_owned());
        let mut conflicts = 0;
        loop {
            let request = request.clone().set_if_none_match(condition.clone());
            let sent = request
                .customize()
                .config_override(bucket.within(patience))
                .send()
                .await;
            match sent {
                Ok(answer) => return Ok(answer),
                // The store does not know the condition: what it showed before must do.
                Err(error) if condition.is_some() && refuses_conditions(&error) => {
                    condition = None;
                }
                Err(error) if in_conflict(&error) && conflicts < CONFLICTS => {
                    conflicts += 1;
                    tokio::time::sleep(Duration::from_millis(200 << conflicts)).await;
                }
                Err(error) => return Err(bucket.error(&format!("complete the upload of {}", self.key), &error)),
            }
        }
    }

    /// A completion can succeed although its answer was lost. The object that the store shows decides. If it does not
    /// show ours, the upload is aborted, and pgstow looks once more, because the completion may have been faster than
    /// the abort.
    async fn perhaps_completed(&self, id: &str, expected: &Expected, composite: &str, failed: Error) -> Result<Stored> {
        let mut failed = failed;
        for aborted in [false, true] {
            match self.bucket.head(&self.key).await {
                Ok(Some(head)) if self.is_ours(&head, expected.bytes, composite) => {
                    return Ok(self.composed(expected, head.checksum_sha256()));
                }
                // The caller aborts our upload.
                Ok(Some(head)) if self.is_anothers(&head) => return Err(self.taken()),
                Ok(_) => {}
                Err(second) => failed = failed.also(second),
            }
            if !aborted {
                failed = failed.with_clean_up(self.bucket.abort(&self.key, id).await);
            }
        }
        Err(failed)
    }

    fn composed(&self, expected: &Expected, checksum: Option<&str>) -> Stored {
        Stored {
            bytes: expected.bytes,
            checksum: checksum.map(|value| StoreChecksum {
                algorithm: "SHA256".to_owned(),
                kind: "COMPOSITE".to_owned(),
                value: value.to_owned(),
            }),
            parts: self
                .sent
                .iter()
                .map(|part| Part {
                    number: part.number,
                    bytes: part.bytes,
                    checksum_sha256: part.digests.sha256_base64(),
                })
                .collect(),
        }
    }
}
