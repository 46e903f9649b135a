//! How long backups are kept: the tiers, the plan of which backup gets which tier, and the bucket's lifecycle rules
//! for the policy. Everything here is a pure function.

mod choice;
mod effect;
mod plan;
mod references;
mod rules;
mod tags;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use crate::store::{PENDING, Rule, TIER_TAG};
pub use choice::{Step, TierChoice};
pub use effect::{Differences, differences, other_times};
pub use references::keep_referred;
pub use plan::{BackupState, Candidate, Decision, Goes, Stays, Terms, plan};
pub use rules::{PENDING_DAYS, days_kept, rules, rules_after, rules_json};
pub use tags::{LATEST, Retag, SHA256_TAG, Tag, TagCandidate, settled, tag_plan};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    pub policy: Policy,
    /// How many of the newest good backups no rule ever expires.
    pub keep_last: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// `30d`: every backup is a daily, and is kept that long.
    Days(u32),
    /// `daily=7,weekly=4,…`: for how many days, weeks, months or years each tier is kept; a tier that is not listed
    /// does not exist. Sorted by tier, counts above zero.
    Tiers(Vec<(Tier, u32)>),
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::Days(days) => write!(f, "{days}d"),
            Policy::Tiers(tiers) => {
                let tiers: Vec<String> = tiers.iter().map(|(tier, count)| format!("{tier}={count}")).collect();
                f.write_str(&tiers.join(","))
            }
        }
    }
}

/// The command that installs a policy's rules in a bucket, ready to paste into a shell.
pub fn applying(url: &str, policy: &Policy) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/:._-=,@+".contains(c);
    let url = match url.chars().all(is_plain) {
        true => url.to_owned(),
        false => format!("'{}'", url.replace('\'', r"'\''")),
    };
    format!("pgstow retention apply --store {url} --retention {policy}")
}

/// The value of a stored object's `pgstow-tier` tag: it decides which lifecycle rule applies. Ordered by how long the
/// tiers are kept: a monthly counts as the weekly and the daily of its day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// An increment's. No policy has it: increments are kept for a span of their own.
    Increment,
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

impl Tier {
    /// The tiers of full backups: those that a policy can have.
    pub const ALL: [Tier; 4] = [Tier::Daily, Tier::Weekly, Tier::Monthly, Tier::Yearly];

    /// As tags, rules and manifests spell it.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Increment => "increment",
            Tier::Daily => "daily",
            Tier::Weekly => "weekly",
            Tier::Monthly => "monthly",
            Tier::Yearly => "yearly",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_applies_a_policy_can_be_pasted() {
        let tiers = Policy::Tiers(vec![(Tier::Daily, 7), (Tier::Weekly, 4)]);
        assert_eq!(
            applying("s3://acme-backups/pg", &tiers),
            "pgstow retention apply --store s3://acme-backups/pg --retention daily=7,weekly=4"
        );
        assert_eq!(
            applying("s3://acme/Ada's $(id)", &Policy::Days(30)),
            r"pgstow retention apply --store 's3://acme/Ada'\''s $(id)' --retention 30d"
        );
    }
}
