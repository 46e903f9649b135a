//! How long backups are kept: tiers, the plan of which backup bears which, and the bucket's
//! lifecycle rules that follow from the policy. Everything here is a pure function.

mod choice;
mod effect;
mod plan;
mod rules;
mod tags;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::settings::Policy;

pub use choice::{Step, TierChoice};
pub use effect::{Differences, differences, other_times};
pub use plan::{Candidate, Decision, Goes, State, Stays, Terms, plan};
pub use rules::{PENDING_DAYS, Rule, days_kept, is_ours, rules, rules_after, rules_json};
pub use tags::{LATEST, PENDING, Retag, SHA256_TAG, Standing, TIER_TAG, Tag, settled, tag_plan};

/// The command that installs a policy's rules in a bucket, to be pasted into a shell.
pub fn applying(url: &str, policy: &Policy) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/:._-=,@+".contains(c);
    let url = match url.chars().all(is_plain) {
        true => url.to_owned(),
        false => format!("'{}'", url.replace('\'', r"'\''")),
    };
    format!("pgstow retention apply --store {url} --retention {policy}")
}

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

impl Tier {
    pub const ALL: [Tier; 4] = [Tier::Daily, Tier::Weekly, Tier::Monthly, Tier::Yearly];

    /// As tags, rules and manifests spell it.
    pub fn name(self) -> &'static str {
        match self {
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
