//! Whether a store keeps object tags, on which expiry depends. Some providers refuse them, others accept them and
//! lose them. The requests of a run show which; no extra ones are made.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::settings;
use super::trouble::{OF_TAGS, names};
use super::{ObjectInfo, TagKeeping};
use crate::error::Result;
use crate::outside::aws;

/// The result is used for the store's other requests in the same run.
pub struct Tagging {
    mode: settings::TagMode,
    found: AtomicU8,
    /// Whether tags were read back after they were set.
    pub(super) looked: AtomicBool,
    /// Whether an object was put with tags: then its tags must be set correctly before a commit.
    taken: AtomicBool,
    /// The store accepts no tags with a new object, but keeps tags that are set afterwards.
    afterwards: AtomicBool,
}

const FOUND: [TagKeeping; 4] = [
    TagKeeping::Unknown,
    TagKeeping::Kept,
    TagKeeping::Refused,
    TagKeeping::Forgotten,
];

/// Errors that a request can have with and without tags.
const OTHER_REASONS: [&str; 13] = [
    "BadDigest",
    "InvalidDigest",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
    "RequestTimeout",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "EntityTooLarge",
    "InvalidBucketName",
    "KMS.DisabledException",
];

impl Tagging {
    pub fn new(mode: settings::TagMode) -> Self {
        Self {
            mode,
            found: AtomicU8::new(0),
            looked: AtomicBool::new(false),
            taken: AtomicBool::new(false),
            afterwards: AtomicBool::new(false),
        }
    }

    pub fn keeping(&self) -> TagKeeping {
        match self.mode {
            settings::TagMode::Off => TagKeeping::Off,
            _ => FOUND[usize::from(self.found.load(Ordering::Relaxed))],
        }
    }

    pub fn learn(&self, found: TagKeeping) {
        let place = FOUND.iter().position(|known| *known == found).unwrap_or_default();
        self.found
            .store(u8::try_from(place).unwrap_or_default(), Ordering::Relaxed);
    }

    /// The tags to send with an object.
    pub fn header(&self, object: &ObjectInfo) -> Option<String> {
        let goes_along = !self.keeping().is_lost() && !self.afterwards.load(Ordering::Relaxed);
        tagging(object).filter(|_| goes_along)
    }

    /// The store has accepted an object with tags.
    pub fn took(&self) {
        self.taken.store(true, Ordering::Relaxed);
    }

    /// Whether the store may have refused an object because of its tags: it says so, and has never accepted tags
    /// before. Otherwise the objects put before would keep the tag by which they expire.
    pub fn header_may_be_refused<E: ProvideErrorMetadata>(&self, error: &SdkError<E, HttpResponse>) -> bool {
        !self.taken.load(Ordering::Relaxed)
            && self.mode == settings::TagMode::Auto
            && says_so(error)
            && (status(error) != Some(400) || names(error, &["tag"]))
    }

    /// Whether the store may have refused a request about tags because it has none. Also true if another request has
    /// found that out meanwhile, since the requests for all files run at once.
    pub fn may_be_refused<E: ProvideErrorMetadata>(&self, error: &SdkError<E, HttpResponse>) -> bool {
        self.mode == settings::TagMode::Auto && self.keeping() != TagKeeping::Kept && says_so(error)
    }

    /// The result of the same request without tags decides. Returns true if the tags were the reason.
    pub fn were_refused<O, E: ProvideErrorMetadata>(
        &self,
        with: &SdkError<E, HttpResponse>,
        without: &Result<O, SdkError<E, HttpResponse>>,
    ) -> bool {
        let refused = match without {
            Ok(_) => true,
            // The store got further than before: it complained about the tags first, and now about something else,
            // such as a condition.
            Err(error) => {
                let code = aws::service_code(error);
                let by_code = code != aws::service_code(with)
                    && matches!(
                        code,
                        Some("PreconditionFailed" | "ConditionalRequestConflict" | "OperationAborted")
                    );
                let was_judged = matches!(status(error), Some(400..=499 | 501));
                by_code || (was_judged && names(with, &OF_TAGS) && !names(error, &OF_TAGS))
            }
        };
        match self.keeping() {
            TagKeeping::Kept if refused => self.afterwards.store(true, Ordering::Relaxed),
            _ if refused => self.learn(TagKeeping::Refused),
            _ => {}
        }
        refused
    }
}

/// Whether an answer can mean that the store does not know tags.
fn says_so<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    match status(error) {
        Some(405 | 501) => true,
        Some(400) => aws::service_code(error).is_none_or(|code| !OTHER_REASONS.contains(&code)),
        _ => false,
    }
}

pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|answer| answer.status().as_u16())
}

fn tagging(object: &ObjectInfo) -> Option<String> {
    let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let tags: Vec<String> = object
        .tags
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    (!tags.is_empty()).then(|| tags.join("&"))
}
