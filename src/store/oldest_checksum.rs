//! `Content-MD5` instead of newer checksums, for endpoints that do not know these: the SDK adds a newer one to each
//! request that S3 accepts only with a checksum (tags, lifecycle rules).

use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest, Md5};

use super::bucket::Bucket;
use super::settings::Checksums;

const NEWER: [&str; 6] = [
    "x-amz-sdk-checksum-algorithm",
    "x-amz-checksum-crc32",
    "x-amz-checksum-crc32c",
    "x-amz-checksum-crc64nvme",
    "x-amz-checksum-sha1",
    "x-amz-checksum-sha256",
];

#[derive(Debug)]
pub struct OldestChecksum(Checksums);

impl Bucket {
    /// For a request with a small body.
    pub(super) fn checksum_that_is_known(&self) -> OldestChecksum {
        OldestChecksum(self.settings.checksums)
    }
}

impl Intercept for OldestChecksum {
    fn name(&self) -> &'static str {
        "OldestChecksum"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request_mut();
        let Some(body) = request.body().bytes().filter(|_| self.0 == Checksums::WhenRequired) else {
            return Ok(());
        };
        let digest = BASE64.encode(Md5::digest(body));
        for header in NEWER {
            request.headers_mut().remove(header);
        }
        request.headers_mut().insert("content-md5", digest);
        Ok(())
    }
}
