//! Requests on one bucket, for the S3 store, its uploads and its lifecycle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::put_object::{PutObjectError, PutObjectOutput};
use aws_sdk_s3::operation::put_object_tagging::PutObjectTaggingError;
use aws_sdk_s3::types::{ChecksumMode, MultipartUpload, ServerSideEncryption, StorageClass};
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeTransmitInterceptorContextMut, BeforeTransmitInterceptorContextRef,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::Md5;
use sha2::{Digest, Sha256};

use super::permission::{Needs, Scope};
use super::segments::Segments;
use super::settings::{self, Checksums, Encryption};
use super::tagging::Tagging;
use super::trouble::BucketLocation;
use super::{Condition, Deleted, ObjectInfo};
use crate::error::{Code, Error, Result};
use crate::outside::aws::{self, Patience};

pub struct Bucket {
    pub client: Client,
    pub name: String,
    /// `""`, or ending in `/`.
    pub prefix: String,
    pub url: String,
    pub settings: settings::S3,
    pub patience: Patience,
    pub tagging: Tagging,
    /// The store has answered that it has no conditional writes.
    pub refuses_conditions: AtomicBool,
}

/// An object that is put in one request.
pub struct Whole<'a> {
    pub key: &'a str,
    pub body: &'a Segments,
    pub digests: &'a Digests,
    pub object: &'a ObjectInfo,
    pub condition: Option<&'a Condition>,
}

/// A body's digests, as requests contain them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    pub sha256: [u8; 32],
    md5: Option<[u8; 16]>,
}

impl Digests {
    pub fn of<'a>(segments: impl Iterator<Item = &'a [u8]>, checksums: Checksums) -> Self {
        // An endpoint without the newer checksums knows the oldest, `Content-MD5`. Some do not compare the body with
        // the signature's SHA-256.
        let mut md5 = (checksums == Checksums::WhenRequired).then(Md5::new);
        let mut sha256 = Sha256::new();
        for bytes in segments {
            sha256.update(bytes);
            if let Some(md5) = &mut md5 {
                md5.update(bytes);
            }
        }
        Self {
            sha256: sha256.finalize().into(),
            md5: md5.map(|md5| md5.finalize().into()),
        }
    }

    pub fn sha256_base64(&self) -> String {
        BASE64.encode(self.sha256)
    }

    /// The checksum header's value, if the endpoint should get one.
    pub fn checksum(&self) -> Option<String> {
        self.md5.is_none().then(|| self.sha256_base64())
    }

    /// The value of `Content-MD5`, if that replaces the checksum.
    pub fn content_md5(&self) -> Option<String> {
        self.md5.map(|md5| BASE64.encode(md5))
    }

    /// For the signature, so that it does not compute the digest again.
    pub fn signed(&self) -> PayloadHash {
        PayloadHash(hex::encode(self.sha256))
    }
}

/// Gives the signer the body's digest, which is known already.
#[derive(Debug)]
pub struct PayloadHash(String);

impl Intercept for PayloadHash {
    fn name(&self) -> &'static str {
        "PayloadHash"
    }

    fn modify_before_signing(
        &self,
        _context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config
            .interceptor_state()
            .store_put(PayloadSigningOverride::Precomputed(self.0.clone()));
        Ok(())
    }
}

/// Counts the attempts of a request that were sent.
#[derive(Debug, Clone, Default)]
pub struct Attempts(Arc<AtomicU32>);

impl Attempts {
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Intercept for Attempts {
    fn name(&self) -> &'static str {
        "Attempts"
    }

    fn read_before_attempt(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Bucket {
    pub fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    pub fn always_checksums(&self) -> bool {
        self.settings.checksums == Checksums::Always
    }

    /// `what` is the verb and its object: `write shop.dump`.
    pub fn error<E: Needs + 'static>(&self, what: &str, error: &SdkError<E, HttpResponse>) -> Error {
        self.error_of(&format!("cannot {what} in {}", self.url), error)
    }

    /// As [`Bucket::error`], for a request that makes this object. With tags S3 asks for a further permission, and its
    /// refusal need not say which one is lacking.
    pub fn error_making<E: Needs + 'static>(
        &self,
        what: &str,
        error: &SdkError<E, HttpResponse>,
        object: &ObjectInfo,
    ) -> Error {
        let what = format!("cannot {what} in {}", self.url);
        match self.tagging.header(object) {
            Some(_) => self.error_needing(&what, error, &[E::ACTION, PutObjectTaggingError::ACTION]),
            None => self.error_of(&what, error),
        }
    }

    /// As [`Bucket::error`], but `what` is the whole sentence.
    pub fn error_of<E: Needs + 'static>(&self, what: &str, error: &SdkError<E, HttpResponse>) -> Error {
        self.error_needing(what, error, &[E::ACTION])
    }

    fn error_needing<E: Needs + 'static>(
        &self,
        what: &str,
        error: &SdkError<E, HttpResponse>,
        actions: &[&str],
    ) -> Error {
        let resource = match E::SCOPE {
            Scope::Bucket => format!("arn:aws:s3:::{}", self.name),
            Scope::Objects => format!("arn:aws:s3:::{}/{}*", self.name, self.prefix),
        };
        let ours = aws::error_needing(Code::Store, what, error, actions, &resource);
        let place = BucketLocation {
            name: &self.name,
            prefix: &self.prefix,
            url: &self.url,
        };
        match place.remedy(what, error) {
            Some(remedy) => ours.hint(remedy),
            None => ours,
        }
    }

    /// The client settings for a request of which one attempt may take `attempt`.
    pub fn within(&self, attempt: Duration) -> aws_sdk_s3::config::Builder {
        aws_sdk_s3::Config::builder().timeout_config(self.patience.timeouts(attempt))
    }

    /// The client settings for a request that cleans up.
    pub fn briefly(&self) -> aws_sdk_s3::config::Builder {
        self.within(self.patience.answer)
            .retry_config(self.patience.brief_retries())
    }

    pub async fn put_object(
        &self,
        whole: &Whole<'_>,
    ) -> Result<PutObjectOutput, SdkError<PutObjectError, HttpResponse>> {
        let tags = self.tagging.header(whole.object);
        let tagged = tags.is_some();
        let error = match self.put_bearing(whole, tags).await {
            Err(error) if tagged && self.tagging.header_may_be_refused(&error) => error,
            put => {
                if tagged && put.is_ok() {
                    self.tagging.took();
                }
                return put;
            }
        };
        let without = self.put_bearing(whole, None).await;
        if self.tagging.were_refused(&error, &without) {
            return without;
        }
        Err(error)
    }

    async fn put_bearing(
        &self,
        whole: &Whole<'_>,
        tags: Option<String>,
    ) -> Result<PutObjectOutput, SdkError<PutObjectError, HttpResponse>> {
        let Whole {
            key,
            body,
            digests,
            object,
            condition,
        } = whole;
        let mut request = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(self.key(key))
            .body((*body).clone().body())
            .set_content_type(content_type(object))
            .set_tagging(tags)
            .set_metadata(metadata(object))
            .set_storage_class(self.storage_class())
            .set_server_side_encryption(self.encryption())
            .set_ssekms_key_id(self.kms_key())
            .set_checksum_sha256(digests.checksum())
            .set_content_md5(digests.content_md5());
        request = match condition {
            None => request,
            Some(Condition::Absent) => request.if_none_match("*"),
            Some(Condition::Unchanged(version)) => request.if_match(&version.0),
        };
        request
            .customize()
            .config_override(self.within(self.patience.transfer(body.len() as u64)))
            .interceptor(digests.signed())
            .send()
            .await
    }

    pub fn storage_class(&self) -> Option<StorageClass> {
        self.settings.storage_class.as_deref().map(StorageClass::from)
    }

    pub fn encryption(&self) -> Option<ServerSideEncryption> {
        match &self.settings.encryption {
            Encryption::Bucket => None,
            Encryption::SseS3 => Some(ServerSideEncryption::Aes256),
            Encryption::SseKms { .. } => Some(ServerSideEncryption::AwsKms),
        }
    }

    pub fn kms_key(&self) -> Option<String> {
        match &self.settings.encryption {
            Encryption::SseKms { key_id } => key_id.clone(),
            _ => None,
        }
    }

    pub async fn head(&self, key: &str) -> Result<Option<HeadObjectOutput>> {
        let request = self
            .client
            .head_object()
            .bucket(&self.name)
            .key(self.key(key))
            .set_checksum_mode(self.always_checksums().then_some(ChecksumMode::Enabled));
        match request.send().await {
            Ok(head) => Ok(Some(head)),
            Err(error) if missing(&error) => Ok(None),
            Err(error) => Err(self.error(&format!("look at {key}"), &error)),
        }
    }

    /// Whether the store shows an object with this key, asked once: no answer counts as none.
    pub async fn glance(&self, key: &str) -> bool {
        let request = self.client.head_object().bucket(&self.name).key(self.key(key));
        let once = self.within(self.patience.answer).retry_config(RetryConfig::disabled());
        request.customize().config_override(once).send().await.is_ok()
    }

    pub async fn try_delete(&self, key: &str) -> Result<Deleted> {
        let delete = self.client.delete_object().bucket(&self.name).key(self.key(key));
        match delete.send().await {
            Ok(answer) if answer.delete_marker() == Some(true) => Ok(Deleted::Hidden),
            Ok(_) => Ok(Deleted::Gone),
            Err(error) if missing(&error) => Ok(Deleted::Gone),
            Err(error) if aws::service_code(&error) == Some("AccessDenied") => Ok(Deleted::Refused),
            Err(error) => Err(self.error(&format!("delete {key}"), &error)),
        }
    }

    /// Uploads in progress for keys that start with `prefix`, from all pages.
    pub async fn uploads(&self, prefix: &str) -> Result<Vec<MultipartUpload>> {
        let mut uploads = Vec::new();
        let (mut key_marker, mut id_marker) = (None, None);
        loop {
            let page = self
                .client
                .list_multipart_uploads()
                .bucket(&self.name)
                .prefix(self.key(prefix))
                .set_key_marker(key_marker.take())
                .set_upload_id_marker(id_marker.take())
                .send()
                .await
                .map_err(|error| self.error("list the uploads in progress", &error))?;
            let more = page.is_truncated() == Some(true) && page.next_key_marker.is_some();
            uploads.extend(page.uploads.unwrap_or_default());
            if !more {
                return Ok(uploads);
            }
            (key_marker, id_marker) = (page.next_key_marker, page.next_upload_id_marker);
        }
    }

    /// Aborts a multipart upload and waits until none of its parts is left: a part that was still being received at
    /// the abort would stay, invisible, and cost money.
    pub async fn abort(&self, key: &str, upload_id: &str) -> Result<()> {
        for round in 0..6 {
            if round > 0 {
                tokio::time::sleep(Duration::from_millis(250 << round)).await;
            }
            let abort = self
                .client
                .abort_multipart_upload()
                .bucket(&self.name)
                .key(self.key(key))
                .upload_id(upload_id)
                .customize()
                .config_override(self.briefly());
            match abort.send().await {
                Ok(_) => {}
                Err(error) if no_such_upload(&error) => return Ok(()),
                Err(error) => return Err(self.error(&format!("abort the upload of {key}"), &error)),
            }
            let left = self
                .client
                .list_parts()
                .bucket(&self.name)
                .key(self.key(key))
                .upload_id(upload_id)
                .max_parts(1)
                .customize()
                .config_override(self.briefly());
            match left.send().await {
                Ok(left) if !left.parts().is_empty() => {}
                // If we may not list parts, the abort still counts as done.
                Ok(_) | Err(_) => return Ok(()),
            }
        }
        Err(Error::new(
            Code::Store,
            format!(
                "the upload of {key} to {} was aborted, but the store still holds parts of it",
                self.url
            ),
        )
        .hint("the next run aborts it again; the lifecycle rule on unfinished uploads does so too"))
    }
}

/// The builders of the SDK's types fail only if a field is missing, which would be a bug of ours.
pub fn build<T>(built: Result<T, aws_smithy_types::error::operation::BuildError>) -> Result<T> {
    built.map_err(|error| Error::internal("a request to S3 could not be built").source(error))
}

pub fn missing<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    // A delete marker in a versioned bucket answers 405.
    matches!(
        aws::service_code(error),
        Some("NoSuchKey" | "NotFound" | "NoSuchVersion" | "MethodNotAllowed")
    )
}

pub fn no_such_upload<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    matches!(aws::service_code(error), Some("NoSuchUpload" | "NotFound"))
}

pub fn content_type(object: &ObjectInfo) -> Option<String> {
    (!object.content_type.is_empty()).then(|| object.content_type.to_owned())
}

pub fn metadata(object: &ObjectInfo) -> Option<std::collections::HashMap<String, String>> {
    (!object.metadata.is_empty()).then(|| object.metadata.iter().cloned().collect())
}
