//! How long backups are kept: the tiers, the plan of which backup gets which tier, and the bucket's lifecycle rules
//! for the policy. Everything here is a pure function.

mod choice;
mod effect;
mod plan;
mod references;
mod rules;
mod tags;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use crate::store::{PENDING, Rule, TIER_TAG};
pub use choice::{Step, TierChoice};
pub use effect::{Differences, differences, other_times};
pub use plan::{BackupState, Candidate, Decision, Goes, Stays, Terms, plan};
pub use references::keep_referred;
use rules::shortest_tier_days;
pub use rules::{PENDING_DAYS, days_kept, rules, rules_after, rules_json};
pub use tags::{
    LATEST, Retag, SHA256_TAG, Tag, TagCandidate, increments_needed_since, settled, tag_of_increment, tag_plan,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    pub policy: Policy,
    /// How many of the newest good backups no rule ever expires.
    pub keep_last: usize,
    /// How far back every moment can be restored, if increments are made.
    pub pitr: Duration,
}

impl Retention {
    /// The time for increments if the settings say nothing.
    pub const PITR: Duration = Duration::from_hours(7 * 24);

    /// A policy with the usual other values.
    pub fn of(policy: Policy) -> Self {
        Self {
            policy,
            keep_last: 1,
            pitr: Self::PITR,
        }
    }

    /// The span in days; a part of a day counts as one.
    pub fn span_days(&self) -> u32 {
        let days = self.pitr.as_secs().div_ceil(86_400);
        u32::try_from(days).unwrap_or(u32::MAX)
    }

    /// For how many days each increment is kept, from its creation. The span begins in the middle of the time between
    /// two full backups, and a bucket's rules act once a day: hence two days more.
    pub fn increment_days(&self) -> u32 {
        let days = self.span_days().saturating_add(MARGIN_DAYS);
        days.min(i32::MAX.unsigned_abs())
    }

    /// The first moment of the span that ends now.
    pub fn begins(&self, now: Timestamp) -> Timestamp {
        now.checked_sub(self.pitr).unwrap_or(Timestamp::MIN)
    }

    /// The same with the longest span, up to the given one, that the full backups last for: at least an hour, so that
    /// increments have some time.
    #[must_use]
    pub fn with_fitting_pitr(self) -> Self {
        let days = u64::from(shortest_tier_days(&self.policy).saturating_sub(MARGIN_DAYS));
        let fitting = Duration::from_secs(days * 86_400).max(Duration::from_hours(1));
        Self {
            pitr: self.pitr.min(fitting),
            ..self
        }
    }

    /// Why the full backups do not last as long as the increments that follow them. For the whole span there must be a
    /// full backup from before it: with one each day, those of the shortest tier must last the span and two days.
    pub fn conflict(&self) -> Option<String> {
        let days = shortest_tier_days(&self.policy);
        let needed = self.increment_days();
        (days < needed).then(|| {
            format!(
                "full backups are kept for {days} days by {}, but to restore any moment of {} they must be kept for \
                 {needed}: the span, the day between two of them, and one more",
                self.policy,
                span_text(self.pitr)
            )
        })
    }
}

/// How much longer than the span an increment is kept.
const MARGIN_DAYS: u32 = 2;

/// A span as the setting takes it: `7d`, `36h`.
pub fn span_text(span: Duration) -> String {
    match span.as_secs() {
        seconds if seconds % 86_400 == 0 => format!("{}d", seconds / 86_400),
        seconds if seconds % 3_600 == 0 => format!("{}h", seconds / 3_600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
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

/// The command that installs the rules in a bucket, ready to paste into a shell.
pub fn applying(url: &str, retention: &Retention) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/:._-=,@+".contains(c);
    let url = match url.chars().all(is_plain) {
        true => url.to_owned(),
        false => format!("'{}'", url.replace('\'', r"'\''")),
    };
    let pitr = match retention.pitr {
        Retention::PITR => String::new(),
        span => format!(" --pitr {}", span_text(span)),
    };
    format!(
        "pgstow retention apply --store {url} --retention {}{pitr}",
        retention.policy
    )
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
            applying("s3://acme-backups/pg", &Retention::of(tiers)),
            "pgstow retention apply --store s3://acme-backups/pg --retention daily=7,weekly=4"
        );
        assert_eq!(
            applying("s3://acme/Ada's $(id)", &Retention::of(Policy::Days(30))),
            r"pgstow retention apply --store 's3://acme/Ada'\''s $(id)' --retention 30d"
        );
    }

    #[test]
    fn increments_last_two_days_beyond_their_span_and_fulls_as_long() {
        let retention = |policy, hours| Retention {
            pitr: Duration::from_hours(hours),
            ..Retention::of(policy)
        };
        assert_eq!(Retention::of(Policy::Days(30)).increment_days(), 9);
        assert_eq!(retention(Policy::Days(30), 25).increment_days(), 4);
        assert_eq!(retention(Policy::Days(9), 7 * 24).conflict(), None);
        let short = retention(Policy::Tiers(vec![(Tier::Daily, 8), (Tier::Weekly, 4)]), 7 * 24);
        let why = short.conflict().unwrap();
        assert!(
            why.contains("kept for 8 days") && why.contains("any moment of 7d"),
            "{why}"
        );
        assert!(applying("s3://b", &retention(Policy::Days(30), 36)).ends_with("--retention 30d --pitr 36h"));
    }
}
