//! A lifecycle rule, and by which names and tags pgstow knows its own.

use sha2::{Digest, Sha256};

/// One lifecycle rule, in the terms that every S3 provider has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub id: String,
    pub enabled: bool,
    pub prefix: String,
    /// The tag that an object must bear; `None` for the rule on unfinished uploads.
    pub tag: Option<(String, String)>,
    /// What else an object must be, in words, as `larger than 1000 bytes`. Ours have none.
    pub limits: Vec<String>,
    pub expire_days: Option<u32>,
    /// The day from which all expires, of a rule that counts no days. Ours have none.
    pub expire_date: Option<String>,
    /// Days after which a replaced or expired version goes, in a versioned bucket.
    pub noncurrent_days: Option<u32>,
    pub abort_uploads_days: Option<u32>,
    /// Where it moves objects so that they cannot be read at once, as `to GLACIER after 1 day`. Ours move none.
    pub archive: Option<String>,
}

/// The object tag that lifecycle rules match.
pub const TIER_TAG: &str = "pgstow-tier";
/// Its value while no manifest claims the object.
pub const PENDING: &str = "pending";
/// The rule that ends unfinished uploads.
pub const UPLOADS: &str = "uploads";

const ID_START: &str = "pgstow-";
/// What pgstow's rules are for: the tags that expire, and uploads.
const PURPOSES: [&str; 6] = ["daily", "weekly", "monthly", "yearly", PENDING, UPLOADS];

/// Whether a rule with this id is one that `retention apply` installs and may replace, given that
/// it filters by the store's own prefix: other stores in the bucket keep theirs. Exact, since a
/// user may well call a rule of their own `pgstow-to-glacier`.
pub fn is_ours(id: &str) -> bool {
    id.strip_prefix(ID_START)
        .and_then(|rest| rest.rsplit('-').next())
        .is_some_and(|purpose| PURPOSES.contains(&purpose))
}

/// The id of the rule for `purpose`: with a digest of the prefix, because ids are unique in a bucket, and a
/// prefix may be longer than the 255 characters of an id.
pub fn rule_id(prefix: &str, purpose: &str) -> String {
    let digest = Sha256::digest(prefix.as_bytes());
    format!("{ID_START}{}-{purpose}", hex::encode(&digest[..4]))
}
