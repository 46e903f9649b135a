//! Sends one part, or one small object, to S3, and checks that the store has the same bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

use super::bucket::{Bucket, Digests};
use super::segments::Segments;
use super::settings::Checksums;
use crate::error::{Code, Error, Result};
use crate::outside::aws;

const WHEN_REQUIRED: &str = "set BACKUP_S3_CHECKSUMS=when_required if this endpoint cannot do SHA-256 checksums";

pub struct SentPart {
    pub number: u32,
    pub bytes: u64,
    pub digests: Digests,
    pub e_tag: Option<String>,
    /// From its first byte to the store's answer, including retries.
    pub time: Duration,
}

pub async fn digest(body: Segments, checksums: Checksums) -> Result<Digests> {
    let digested = tokio::task::spawn_blocking(move || Digests::of(body.iter(), checksums)).await;
    digested.map_err(|error| Error::internal("the thread that computes a checksum died").source(error))
}

/// Sends one part until the store has the same bytes: once more if it was damaged in transfer.
pub async fn send(bucket: Arc<Bucket>, key: String, id: String, number: u32, body: Segments) -> Result<SentPart> {
    let digests = digest(body.clone(), bucket.settings.checksums).await?;
    let always = bucket.always_checksums();
    let began = Instant::now();
    let mut repeated = false;
    loop {
        let sent = bucket
            .client
            .upload_part()
            .bucket(&bucket.name)
            .key(bucket.key(&key))
            .upload_id(&id)
            .part_number(i32::try_from(number).unwrap_or(i32::MAX))
            .body(body.clone().body())
            .set_checksum_sha256(digests.checksum())
            .set_content_md5(digests.content_md5())
            .customize()
            .config_override(bucket.within(bucket.patience.transfer(body.len() as u64)))
            .interceptor(digests.signed())
            .send()
            .await;
        match sent {
            Ok(answer) => match judge(answer.checksum_sha256(), &digests, always) {
                Verdict::Same => {
                    return Ok(SentPart {
                        number,
                        bytes: body.len() as u64,
                        digests,
                        e_tag: answer.e_tag,
                        time: began.elapsed(),
                    });
                }
                Verdict::Different if !repeated => repeated = true,
                verdict => return Err(untrusted(&bucket, &key, verdict, &format!("part {number}"))),
            },
            Err(error) if corrupted(&error) && !repeated => repeated = true,
            Err(error) => return Err(bucket.error(&format!("write part {number} of {key}"), &error)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Same,
    Different,
    Missing,
}

pub fn judge(theirs: Option<&str>, ours: &Digests, required: bool) -> Verdict {
    match theirs {
        Some(theirs) if theirs == ours.sha256_base64() => Verdict::Same,
        Some(_) => Verdict::Different,
        // In that case `Content-MD5` and the signature's SHA-256 cover the body.
        None if !required => Verdict::Same,
        None => Verdict::Missing,
    }
}

pub fn untrusted(bucket: &Bucket, key: &str, verdict: Verdict, of: &str) -> Error {
    let why = if verdict == Verdict::Missing {
        "no checksum"
    } else {
        "a checksum that differs from ours"
    };
    let what = format!("cannot trust {} with {key}: it reports {why} for {of}", bucket.url);
    Error::new(Code::Store, what).hint(if verdict == Verdict::Missing {
        WHEN_REQUIRED
    } else {
        aws::BYTES_CHANGE
    })
}

/// Whether the store found other bytes than we signed.
pub fn corrupted<E: aws_sdk_s3::error::ProvideErrorMetadata>(
    error: &aws_sdk_s3::error::SdkError<E, aws_smithy_runtime_api::client::orchestrator::HttpResponse>,
) -> bool {
    matches!(
        aws::service_code(error),
        Some("BadDigest" | "InvalidDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch")
    )
}

/// S3's checksum of a multipart object: the digest of its parts' digests.
pub fn composite(parts: &[SentPart]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.digests.sha256);
    }
    format!("{}-{}", BASE64.encode(digest.finalize()), parts.len())
}
