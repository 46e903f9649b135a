//! A lifecycle rule, and the names and tags by which pgstow recognises its own.

use sha2::{Digest, Sha256};

/// One lifecycle rule, in terms that every S3 provider has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub id: String,
    pub enabled: bool,
    pub prefix: String,
    /// The tag that an object must have; `None` for the rule on unfinished uploads.
    pub tag: Option<(String, String)>,
    /// Other conditions on an object, in words, such as `larger than 1000 bytes`. Our rules have none.
    pub limits: Vec<String>,
    pub expire_days: Option<u32>,
    /// For a rule with a date instead of days: the day on which all objects expire. Our rules have none.
    pub expire_date: Option<String>,
    /// Days after which a replaced or expired version is removed, in a versioned bucket.
    pub noncurrent_days: Option<u32>,
    pub abort_uploads_days: Option<u32>,
    /// The transition after which objects cannot be read at once, such as `to GLACIER after 1 day`. Our rules have
    /// none.
    pub archive: Option<String>,
}

/// The object tag that lifecycle rules match.
pub const TIER_TAG: &str = "pgstow-tier";
/// The tag's value while no manifest names the object.
pub const PENDING: &str = "pending";
/// The purpose of the rule that ends unfinished uploads.
pub const UPLOADS: &str = "uploads";

const ID_START: &str = "pgstow-";
/// The purposes of pgstow's rules: tags that expire, and uploads.
const PURPOSES: [&str; 7] = ["daily", "weekly", "monthly", "yearly", "increment", PENDING, UPLOADS];

/// Whether `retention apply` installed a rule with this id and may replace it, if the rule also filters by the
/// store's own prefix: rules of other stores in the bucket stay. The match is exact, since a user may call a rule of
/// their own `pgstow-to-glacier`.
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
