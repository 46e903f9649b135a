//! Hints for refusals of a store that are not about permissions: which setting or command helps.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::error::Error;
use crate::outside::aws;

const ROOM: &str = "free space in the store with `pgstow prune --allow-delete` and a shorter --retention, or raise \
                    its quota: it is full";
const PARTS: &str = "set BACKUP_S3_MAX_PARTS to the number of parts that the provider allows (1000 at some), or \
                     raise BACKUP_S3_PART_SIZE";
const LIKE_PARTS: &str = "set BACKUP_S3_PART_SIZE so large that a tenth of the parts (BACKUP_S3_MAX_PARTS) holds \
                          the whole backup: this provider wants all parts of one length";
const TOO_LARGE: &str = "set BACKUP_S3_PART_SIZE to a smaller size: this provider accepts less in one request";
const CLASS: &str = "set BACKUP_S3_STORAGE_CLASS to a class that this store has, or remove the setting";
const CHECKSUMS: &str = "set BACKUP_S3_CHECKSUMS=when_required: this endpoint does not accept SHA-256 checksums";
const TAGS: &str = "set BACKUP_S3_TAGGING=off: this endpoint does not accept object tags";
pub(super) const CONDITIONS: &str = "name a store with conditional writes (If-None-Match, If-Match) first, or use \
                                     a newer version of this one: leases need them, copies do not. If this store \
                                     has them, try BACKUP_S3_CHECKSUMS=when_required and BACKUP_S3_TAGGING=off";
const FEATURE: &str = "try BACKUP_S3_CHECKSUMS=when_required (checksums), BACKUP_S3_TAGGING=off (object tags), and \
                       no BACKUP_S3_SSE and BACKUP_S3_STORAGE_CLASS: the endpoint refuses a part of the request";

/// Words that stores use for a feature that they do not have.
const OF_CONDITIONS: [&str; 3] = ["if-none-match", "if-match", "conditional"];
pub(super) const OF_TAGS: [&str; 2] = ["tagging", "tags"];

const ARCHIVED: &str = "the object is in an archive class (Glacier):";

/// Whether the error is about an object in an archive class, which can be fetched back: the store works as it should.
pub fn is_archived(error: &Error) -> bool {
    error.hint_text().starts_with(ARCHIVED)
}

/// Whether the store refuses the condition of a request because it does not know conditions. With the answer 501 it
/// need not name the condition.
pub(super) fn refuses_conditions<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let status = error.raw_response().map(|answer| answer.status().as_u16());
    matches!(aws::service_code(error), Some("NotImplemented" | "MethodNotAllowed"))
        || (matches!(status, Some(400 | 405 | 501)) && names(error, &OF_CONDITIONS))
}

/// Whether a refusal contains one of these words, in its code or its message.
pub(super) fn names<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>, words: &[&str]) -> bool {
    let said = error.as_service_error().map(ProvideErrorMetadata::meta);
    let told = said.into_iter().flat_map(|said| [said.code(), said.message()]);
    told.flatten().any(|told| {
        let told = told.to_ascii_lowercase();
        words.iter().any(|word| told.contains(word))
    })
}

/// The target of a refused request.
pub(super) struct BucketLocation<'a> {
    /// The bucket's name.
    pub name: &'a str,
    pub prefix: &'a str,
    pub url: &'a str,
}

impl BucketLocation<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// `what` is the sentence before the reason; it names the key.
    pub(super) fn remedy<E: ProvideErrorMetadata>(
        &self,
        what: &str,
        error: &SdkError<E, HttpResponse>,
    ) -> Option<String> {
        let status = error.raw_response().map(|answer| answer.status().as_u16());
        let code = aws::service_code(error);
        let message = error.as_service_error().and_then(ProvideErrorMetadata::message);
        if code == Some("InvalidObjectState") {
            return Some(self.archived(what));
        }
        remedy(code, status, &message.unwrap_or_default().to_ascii_lowercase()).map(str::to_owned)
    }

    fn archived(&self, what: &str) -> String {
        let key = what
            .strip_prefix("cannot read ")
            .and_then(|rest| rest.strip_suffix(&format!(" in {}", self.url)));
        let key = key.map_or_else(|| "KEY".to_owned(), |key| self.key(key));
        if key.ends_with("/.lease") {
            return format!(
                "{ARCHIVED} with `aws s3 rm s3://{}/{key}`, remove it while no run is active; the next backup makes \
                 another; and let no lifecycle rule put objects there",
                self.name
            );
        }
        format!(
            "{ARCHIVED} fetch it back with `aws s3api restore-object --bucket {} --key {key} \
             --restore-request Days=7`, the backup's other files too, and read it hours later; let no lifecycle rule and no \
             BACKUP_S3_STORAGE_CLASS put backups there that must be read at once",
            self.name
        )
    }
}

fn remedy(code: Option<&str>, status: Option<u16>, message: &str) -> Option<&'static str> {
    let code = code.unwrap_or_default();
    let told = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let coded = |words: &[&str]| words.iter().any(|word| code.to_ascii_lowercase().contains(word));
    let full = [
        "Quota",
        "StorageFull",
        "InsufficientStorage",
        "CapExceeded",
        "LimitExceeded",
    ];
    if status == Some(507) || full.iter().any(|word| code.contains(word)) || told(&["quota", "cap exceeded"]) {
        return Some(ROOM);
    }
    if told(&["same length", "same size", "equal size"]) {
        return Some(LIKE_PARTS);
    }
    if code == "EntityTooLarge" || status == Some(413) {
        return Some(TOO_LARGE);
    }
    if code == "InvalidStorageClass" {
        return Some(CLASS);
    }
    let parts = ["TooManyParts", "InvalidPartNumber"];
    if parts.contains(&code) || told(&["part number", "partnumber", "number of parts"]) {
        return Some(PARTS);
    }
    if code != "NotImplemented" && !matches!(status, Some(400 | 405 | 501)) {
        return None;
    }
    // Bytes that were damaged in transfer have a hint of their own.
    if code.contains("Digest") || code.contains("Mismatch") {
        return None;
    }
    if told(&["checksum", "trailer", "content-sha256"]) {
        return Some(CHECKSUMS);
    }
    if told(&OF_TAGS) {
        return Some(TAGS);
    }
    if told(&OF_CONDITIONS) || coded(&OF_CONDITIONS) {
        return Some(CONDITIONS);
    }
    let general = [
        "NotImplemented",
        "InvalidArgument",
        "InvalidRequest",
        "MethodNotAllowed",
        "UnsupportedOperation",
    ];
    general.contains(&code).then_some(FEATURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_setting_that_helps() {
        for (code, status, message, hint) in [
            ("EntityTooLarge", 413, "", TOO_LARGE),
            ("InvalidStorageClass", 400, "", CLASS),
            ("XMinioStorageFull", 507, "", ROOM),
            ("QuotaExceeded", 403, "", ROOM),
            ("AccessDenied", 403, "transaction cap exceeded", ROOM),
            (
                "InvalidArgument",
                400,
                "part number must be an integer between 1 and 1000, inclusive",
                PARTS,
            ),
            (
                "InvalidPart",
                400,
                "all non-trailing parts must have the same length.",
                LIKE_PARTS,
            ),
            (
                "InvalidRequest",
                400,
                "value for x-amz-checksum-sha256 header is invalid",
                CHECKSUMS,
            ),
            (
                "NotImplemented",
                501,
                "x-amz-sdk-checksum-algorithm is not supported",
                CHECKSUMS,
            ),
            ("NotImplemented", 501, "header 'x-amz-tagging' not implemented", TAGS),
            ("NotImplemented", 501, "if-none-match is not supported", CONDITIONS),
            (
                "InvalidArgument",
                400,
                "unsupported header 'if-none-match' received for this api call.",
                CONDITIONS,
            ),
            ("ConditionalWritesUnsupported", 400, "", CONDITIONS),
            (
                "NotImplemented",
                501,
                "a header you provided implies functionality that is not implemented",
                FEATURE,
            ),
        ] {
            assert_eq!(
                remedy(Some(code), Some(status), message),
                Some(hint),
                "{code} {message}"
            );
        }
        for (code, status) in [
            ("AccessDenied", 403),
            ("BadDigest", 400),
            ("NoSuchBucket", 404),
            ("ExpiredToken", 400),
        ] {
            assert_eq!(remedy(Some(code), Some(status), ""), None, "{code}");
        }
    }
}
