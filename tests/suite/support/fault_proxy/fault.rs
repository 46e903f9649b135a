//! What goes wrong, and at which requests.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Answers with this status and S3's kind of body; the store never sees the request.
    Reject(u16),
    /// Takes this many bytes of the body, then resets the connection; the store sees nothing.
    Reset { after: usize },
    /// Forwards, waits for the answer, and closes the connection without passing it on.
    LoseAnswer,
    /// Forwards, and then says nothing until the client goes away.
    HoldAnswer,
    /// Forwards, and then answers with this status, as if the store had failed after its work.
    /// With 200 the error is in the body, as S3 does it when a completion takes long.
    Lie(u16),
    /// Holds the whole request for this long before it forwards it.
    Delay(Duration),
    /// Flips one bit of the request's body.
    CorruptBody,
    /// Replaces the SHA-256 checksum in the answer by another.
    WrongChecksum,
    /// Takes the SHA-256 checksum out of the answer.
    NoChecksum,
    /// Takes the body at this rate only.
    Slow { bytes_per_second: usize },
    /// Flips one bit in the middle of the answer's body.
    CorruptAnswer,
    /// Passes on this many bytes of the answer's body, then closes the connection.
    CutAnswer { after: usize },
    /// Answers with this status and body; the store never sees the request.
    Answer(u16, &'static str),
    /// Takes what stands from each of these marks to the one beside it out of the body, marks included; the
    /// mark alone where that is empty.
    Strip(&'static [(&'static str, &'static str)]),
    /// Answers as it was answered while the proxy remembered lists; otherwise forwards.
    Stale,
    /// Takes the objects whose keys end so out of the lists, as a list does that lags.
    Unlisted(&'static str),
}

/// S3's operations, told apart by method and query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    PutObject,
    GetObject,
    HeadObject,
    CreateUpload,
    UploadPart,
    CompleteUpload,
    AbortUpload,
    ListParts,
    ListUploads,
    Tagging,
    /// Listings, bucket operations and whatever else there is.
    Other,
}

impl Op {
    pub fn of(method: &str, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
        let object = path.trim_matches('/').contains('/');
        match method {
            _ if has("tagging") => Self::Tagging,
            "POST" if has("uploads") => Self::CreateUpload,
            "POST" if has("uploadId") => Self::CompleteUpload,
            "PUT" if has("partNumber") => Self::UploadPart,
            "DELETE" if has("uploadId") => Self::AbortUpload,
            "GET" if has("uploadId") => Self::ListParts,
            "GET" if has("uploads") => Self::ListUploads,
            "PUT" if object => Self::PutObject,
            "GET" if object => Self::GetObject,
            "HEAD" if object => Self::HeadObject,
            _ => Self::Other,
        }
    }
}

/// Which requests a fault hits.
#[derive(Debug, Clone)]
pub struct On {
    pub op: Option<Op>,
    pub target: Option<String>,
    pub bucket: Option<String>,
    pub header: Option<String>,
    pub method: Option<String>,
    pub calls: RangeInclusive<usize>,
    pub until: Option<Instant>,
}

impl On {
    pub fn any() -> Self {
        Self {
            op: None,
            target: None,
            bucket: None,
            header: None,
            method: None,
            calls: 1..=usize::MAX,
            until: None,
        }
    }

    pub fn op(op: Op) -> Self {
        Self {
            op: Some(op),
            ..Self::any()
        }
    }

    /// Only requests whose path and query contain this.
    pub fn target(mut self, part: &str) -> Self {
        self.target = Some(part.to_owned());
        self
    }

    /// Only requests whose path starts with this, such as `/bucket/`.
    pub fn bucket(mut self, start: &str) -> Self {
        self.bucket = Some(start.to_owned());
        self
    }

    /// Only requests that bear this header.
    pub fn header(mut self, name: &str) -> Self {
        self.header = Some(name.to_owned());
        self
    }

    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only these of the matching requests, counted from 1.
    pub fn calls(mut self, calls: RangeInclusive<usize>) -> Self {
        self.calls = calls;
        self
    }

    /// Only until this much time has passed.
    pub fn during(mut self, time: Duration) -> Self {
        self.until = Some(Instant::now() + time);
        self
    }
}
