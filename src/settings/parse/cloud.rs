//! The settings of S3 and of the AWS SDK.

use std::time::Duration;

use secrecy::SecretString;

use super::Reader;
use crate::settings::value::{Layer, Value};
use crate::settings::{Aws, Checksums, Encryption, S3, StoreUrl, TagMode, aliases, specs};

const PART_SIZE: u64 = 8 << 20;
const SMALLEST_PART: u64 = 5 << 20;
const LARGEST_PART: u64 = 5 << 30;
const MOST_PARTS: u64 = 10_000;
const ARCHIVES: &str = "objects of this class cannot be read for hours, but every run reads the store: give a class \
                        that can be read at once, such as STANDARD_IA or GLACIER_IR";
/// Longer than a short failure of a store, and short enough that a user still waits.
const RETRY: Duration = Duration::from_secs(35);

impl Reader<'_> {
    pub(super) fn s3(&mut self, stores: &[StoreUrl]) -> S3 {
        let max_parts = self.count("BACKUP_S3_MAX_PARTS", 1..=MOST_PARTS);
        let part_size = self.read("BACKUP_S3_PART_SIZE", |text| match specs::size(text)? {
            size if (SMALLEST_PART..=LARGEST_PART).contains(&size) => Ok(size),
            _ => Err(format!("{text:?} is not a size from 5MiB to 5GiB")),
        });
        let retry = self.read("BACKUP_S3_RETRY_SECONDS", specs::duration);
        let ours = self.choice(
            "BACKUP_S3_CHECKSUMS",
            &[
                ("always", Checksums::Always),
                ("when_required", Checksums::WhenRequired),
            ],
        );
        let sdk = self.choice(
            "AWS_REQUEST_CHECKSUM_CALCULATION",
            &[
                ("when_supported", Checksums::Always),
                ("when_required", Checksums::WhenRequired),
            ],
        );
        let tagging = self.choice(
            "BACKUP_S3_TAGGING",
            &[("auto", TagMode::Auto), ("on", TagMode::On), ("off", TagMode::Off)],
        );
        if ours.or(sdk) == Some(Checksums::WhenRequired)
            && stores.iter().any(|store| matches!(store, StoreUrl::S3 { .. }))
        {
            self.note("S3 checksums are sent only where required, so pgstow compares stored objects less strictly");
        }
        S3 {
            max_parts: max_parts
                .and_then(|parts| u32::try_from(parts).ok())
                .unwrap_or(MOST_PARTS as u32),
            part_size: part_size.unwrap_or(PART_SIZE),
            // Set later, together with all shares.
            memory: 0,
            retry: retry.unwrap_or(RETRY),
            checksums: ours.or(sdk).unwrap_or(Checksums::Always),
            tagging: tagging.unwrap_or(TagMode::Auto),
            encryption: self.of("BACKUP_S3_SSE", Self::encryption),
            storage_class: self.read("BACKUP_S3_STORAGE_CLASS", |text| {
                let plausible = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let valid = !text.is_empty() && text.chars().all(plausible);
                let class = text.to_ascii_uppercase();
                // The next run reads leases and manifests, and cannot wait for hours.
                if ["GLACIER", "DEEP_ARCHIVE"].contains(&class.as_str()) {
                    return Err(ARCHIVES);
                }
                valid
                    .then_some(class)
                    .ok_or("expected a storage class such as STANDARD_IA")
            }),
            path_style: self.switch("BACKUP_S3_PATH_STYLE"),
        }
    }

    fn encryption(&mut self) -> Encryption {
        #[derive(Clone, Copy, PartialEq)]
        enum Method {
            S3,
            Kms,
        }
        let method = self.choice(
            "BACKUP_S3_SSE",
            &[("AES256", Method::S3), ("aws:kms", Method::Kms), ("kms", Method::Kms)],
        );
        let key_id = self.text("BACKUP_S3_KMS_KEY_ID");
        let names = (
            self.values.get("BACKUP_S3_SSE"),
            self.values.get("BACKUP_S3_KMS_KEY_ID"),
        );
        match (method, key_id) {
            (Some(Method::S3), Some(key_id)) => {
                if let (Some(one), Some(other)) = names {
                    if one.layer == other.layer {
                        self.problems.conflict(one, other, "AES256 uses no key of KMS");
                    } else if other.layer < one.layer {
                        return Encryption::SseKms { key_id: Some(key_id) };
                    }
                }
                Encryption::SseS3
            }
            (Some(Method::S3), None) => Encryption::SseS3,
            (None, None) => Encryption::Bucket,
            (_, key_id) => Encryption::SseKms { key_id },
        }
    }

    pub(super) fn aws(&mut self) -> Aws {
        let region = self.read("AWS_REGION", self::region).flatten();
        let fallback = self.read("AWS_DEFAULT_REGION", self::region).flatten();
        let credentials = self.aws_credentials();
        let token = self
            .values
            .get("AWS_SESSION_TOKEN")
            .filter(|token| credentials.as_ref().is_some_and(|(id, _)| id.layer == token.layer));
        let session_token = token.map(|token| SecretString::from(token.text().trim()));
        let s3 = self.pair(aliases::S3_ACCESS_KEY, aliases::S3_SECRET_KEY);
        let text = |pair: &Option<(Value, Value)>| pair.as_ref().map(|(id, _)| id.text().trim().to_owned());
        let secret =
            |pair: &Option<(Value, Value)>| pair.as_ref().map(|(_, key)| SecretString::from(key.text().trim()));
        Aws {
            region: region.or(fallback),
            endpoint: self.read("AWS_ENDPOINT_URL", endpoint),
            endpoint_s3: self.read("AWS_ENDPOINT_URL_S3", endpoint),
            endpoint_secrets: self.read("AWS_ENDPOINT_URL_SECRETS_MANAGER", endpoint),
            endpoint_sns: self.read("AWS_ENDPOINT_URL_SNS", endpoint),
            endpoint_ecs: self.read("AWS_ENDPOINT_URL_ECS", endpoint),
            endpoint_kms: self.read("AWS_ENDPOINT_URL_KMS", endpoint),
            ca_bundle: self.text("AWS_CA_BUNDLE").map(|file| self.input.working_dir.join(file)),
            access_key_id: text(&credentials),
            secret_access_key: secret(&credentials),
            session_token,
            s3_access_key_id: text(&s3),
            s3_secret_access_key: secret(&s3),
        }
    }

    /// Credentials that the SDK does not find by itself. It reads those of the environment itself, so that it can
    /// refresh them.
    fn aws_credentials(&mut self) -> Option<(Value, Value)> {
        const ID: &str = "AWS_ACCESS_KEY_ID";
        const KEY: &str = "AWS_SECRET_ACCESS_KEY";
        let ours =
            |value: Option<&Value>| value.is_some_and(|value| value.layer > Layer::Environment || value.file.is_some());
        if !ours(self.values.get(ID)) && !ours(self.values.get(KEY)) {
            return None;
        }
        let (id, key) = self.pair(ID, KEY)?;
        if id.layer != key.layer {
            self.of(ID, |reader| {
                reader
                    .problems
                    .conflict(&id, &key, "the two halves of one credential come from different places");
            });
        }
        Some((id, key))
    }

    /// The two halves of one credential. One without the other is a problem.
    fn pair(&mut self, id: &'static str, key: &'static str) -> Option<(Value, Value)> {
        match (self.values.get(id), self.values.get(key)) {
            (Some(one), Some(other)) => Some((one.clone(), other.clone())),
            (Some(one), None) => {
                self.problems
                    .add_of(id, format!("{}: {key} is not set, and is needed too", one.name));
                None
            }
            (None, Some(one)) => {
                self.problems
                    .add_of(id, format!("{}: {id} is not set, and is needed too", one.name));
                None
            }
            (None, None) => None,
        }
    }
}

pub(super) fn topic(text: &str) -> Result<String, &'static str> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        ["arn", partition, "sns", region, account, name]
            if partition.starts_with("aws") && ![*region, *account, *name].contains(&"") =>
        {
            Ok(text.to_owned())
        }
        _ => Err("expected the topic's ARN, such as arn:aws:sns:eu-central-1:123456789012:backups"),
    }
}

/// The region becomes a part of a host name. A blank one counts as not set.
fn region(text: &str) -> Result<Option<String>, &'static str> {
    let plausible = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match text.chars().all(plausible) {
        true => Ok((!text.is_empty()).then(|| text.to_owned())),
        false => Err("expected a region such as eu-central-1"),
    }
}

fn endpoint(text: &str) -> Result<String, &'static str> {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .ok_or("expected a URL that starts with https:// or http://")?;
    let authority = rest.split('/').next().unwrap_or("");
    if authority.is_empty() || text.contains(char::is_whitespace) {
        return Err("the URL has no host");
    }
    if authority.contains('@') {
        return Err("the URL of an endpoint may hold no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
    }
    Ok(text.trim_end_matches('/').to_owned())
}
