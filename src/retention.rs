//! How long backups are kept: tiers, the plan of which backup bears which, and the bucket's
//! lifecycle rules that follow from the policy. Everything here is a pure function.

use serde::{Deserialize, Serialize};

/// What a stored object's `pgstow-tier` tag says, and so which lifecycle rule it falls under.
/// Ordered by how long they keep: a monthly counts as the weekly and the daily of its day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

/// One lifecycle rule of ours, in the terms that every S3 provider has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub id: String,
    pub prefix: String,
    /// The tag that an object must bear; `None` for the rule on unfinished uploads.
    pub tag: Option<(String, String)>,
    pub expire_days: Option<u32>,
    /// Days after which a replaced or expired version goes, in a versioned bucket.
    pub noncurrent_days: Option<u32>,
    pub abort_uploads_days: Option<u32>,
}

/// Whether a rule with this id is one that `retention apply` installs and may replace.
pub fn is_ours(id: &str) -> bool {
    id.starts_with("pgstow-")
}
