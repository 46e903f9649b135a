//! The lifecycle rules by which a bucket expires the backups that the policy no longer keeps.

use serde_json::{Value, json};

use super::{Policy, Retention, Tier};
use crate::store::{PENDING, Rule, TIER_TAG, UPLOADS, rule_id};

/// How long files without a manifest are kept.
pub const PENDING_DAYS: u32 = 2;
/// Longer than any upload may take: S3 counts from the day on which an upload began, whether it is still running or
/// not.
const UPLOAD_DAYS: u32 = 7;
/// In a versioned bucket an expired object remains as an old version. A week is left to notice a mistake or a thief:
/// a role that may tag can give a backup any of these tags, also `pending`, so no rule may have a shorter time.
const EXPIRED_VERSION_DAYS: u32 = 7;
/// For old versions of objects without a tier: every renewal of a lease leaves one. It also applies to a file tagged
/// `latest` that a person deletes by hand: this is the time to notice it.
const OLD_VERSION_DAYS: u32 = 30;

/// The rules that a store with this policy needs, for objects below `prefix` (`""`, or ending in `/`), if none of
/// pgstow's rules is installed. None of them applies to `latest` or to the lease, which has no tag.
pub fn rules(retention: &Retention, prefix: &str) -> Vec<Rule> {
    rules_after(retention, prefix, &[])
}

/// The same, if pgstow's rules in `before` are installed.
///
/// Every tier has a rule, also a tier that the policy does not list: otherwise backups that an older policy tagged
/// with it would stay for ever. The rule of such a tier stays as it was installed. So a change of policy expires no
/// backup of a tier that it drops earlier than the policy under which the backup was made; to expire them sooner,
/// give a count (`monthly=1`). If no rule was installed, nothing says how long the tier was to be kept: then it is
/// kept as long as the longest tier in this policy, and not shorter than the tier's smallest count.
///
/// Increments have a rule of their own, also if none are made: its time follows from the span alone.
pub fn rules_after(retention: &Retention, prefix: &str, before: &[Rule]) -> Vec<Rule> {
    let tagged = |name: &str, expire: u32| Rule {
        id: rule_id(prefix, name),
        enabled: true,
        prefix: prefix.to_owned(),
        tag: Some((TIER_TAG.to_owned(), name.to_owned())),
        limits: Vec::new(),
        expire_days: Some(expire),
        expire_date: None,
        noncurrent_days: Some(EXPIRED_VERSION_DAYS),
        abort_uploads_days: None,
        archive: None,
    };
    let mut rules: Vec<Rule> = Tier::ALL
        .into_iter()
        .map(|tier| tagged(tier.name(), days_after(&retention.policy, tier, before)))
        .collect();
    rules.push(tagged(Tier::Increment.name(), retention.increment_days()));
    rules.push(tagged(PENDING, PENDING_DAYS));
    rules.push(Rule {
        id: rule_id(prefix, UPLOADS),
        enabled: true,
        prefix: prefix.to_owned(),
        // S3 refuses a tag in a rule that cleans up uploads: uploads have none.
        tag: None,
        limits: Vec::new(),
        expire_days: None,
        expire_date: None,
        noncurrent_days: Some(OLD_VERSION_DAYS),
        abort_uploads_days: Some(UPLOAD_DAYS),
        archive: None,
    });
    rules
}

/// For how many days a backup of this tier is kept, if no installed rules say otherwise.
pub fn days_kept(retention: &Retention, tier: Tier) -> u32 {
    match tier {
        Tier::Increment => retention.increment_days(),
        tier => days_after(&retention.policy, tier, &[]),
    }
}

/// For how many days the full backups of the tier that most of them have are kept.
pub(super) fn shortest_tier_days(policy: &Policy) -> u32 {
    let kept = keeps(policy);
    kept.iter()
        .min_by_key(|(tier, _)| *tier)
        .map_or(u32::MAX, |&(_, days)| days)
}

fn days_after(policy: &Policy, tier: Tier, before: &[Rule]) -> u32 {
    let kept = keeps(policy);
    let in_policy = kept.iter().find(|(known, _)| *known == tier).map(|&(_, days)| days);
    in_policy.or_else(|| installed(before, tier)).unwrap_or_else(|| {
        let longest = kept.iter().map(|&(_, days)| days).max().unwrap_or_default();
        longest.max(days_of(tier, 1))
    })
}

/// After how many days the rules in `before` expire a tier. Of two rules, S3 follows the shorter.
fn installed(before: &[Rule], tier: Tier) -> Option<u32> {
    let of_tier = |rule: &&Rule| {
        let tag = rule.tag.as_ref();
        tag.is_some_and(|(key, value)| key == TIER_TAG && value == tier.name())
    };
    before.iter().filter(of_tier).filter_map(|rule| rule.expire_days).min()
}

/// For how many days each tier of the policy is kept.
fn keeps(policy: &Policy) -> Vec<(Tier, u32)> {
    match policy {
        Policy::Days(days) => vec![(Tier::Daily, days_of(Tier::Daily, *days))],
        Policy::Tiers(tiers) => tiers
            .iter()
            .map(|&(tier, count)| (tier, days_of(tier, count)))
            .collect(),
    }
}

/// Counts the longest month and year: a policy's twelfth monthly must not expire a day early.
fn days_of(tier: Tier, count: u32) -> u32 {
    let each = match tier {
        Tier::Increment | Tier::Daily => 1,
        Tier::Weekly => 7,
        Tier::Monthly => 31,
        Tier::Yearly => 366,
    };
    // S3 counts days in a signed 32-bit number.
    count.saturating_mul(each).min(i32::MAX.unsigned_abs())
}

/// Rules as `aws s3api get-bucket-lifecycle-configuration` prints them.
pub fn rules_json(rules: &[Rule]) -> Value {
    json!({ "Rules": rules.iter().map(rule_json).collect::<Vec<_>>() })
}

fn rule_json(rule: &Rule) -> Value {
    let tag = rule
        .tag
        .as_ref()
        .map(|(key, value)| json!({ "Key": key, "Value": value }));
    // `And` needs at least two conditions, and an empty prefix is none.
    let filter = match tag {
        Some(tag) if rule.prefix.is_empty() => json!({ "Tag": tag }),
        Some(tag) => json!({ "And": { "Prefix": rule.prefix, "Tags": [tag] } }),
        None => json!({ "Prefix": rule.prefix }),
    };
    let mut value = json!({ "ID": rule.id, "Filter": filter, "Status": "Enabled" });
    if let Some(days) = rule.expire_days {
        value["Expiration"] = json!({ "Days": days });
    }
    if let Some(days) = rule.noncurrent_days {
        value["NoncurrentVersionExpiration"] = json!({ "NoncurrentDays": days });
    }
    if let Some(days) = rule.abort_uploads_days {
        value["AbortIncompleteMultipartUpload"] = json!({ "DaysAfterInitiation": days });
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::retention::LATEST;
    use crate::store::is_ours;

    fn tiers() -> Retention {
        Retention::of(Policy::Tiers(vec![
            (Tier::Daily, 7),
            (Tier::Weekly, 4),
            (Tier::Monthly, 12),
            (Tier::Yearly, 3),
        ]))
    }

    fn days(days: u32) -> Retention {
        Retention::of(Policy::Days(days))
    }

    fn expiry(rules: &[Rule]) -> Vec<(String, u32)> {
        rules
            .iter()
            .filter_map(|rule| Some((rule.tag.clone()?.1, rule.expire_days?)))
            .collect()
    }

    #[test]
    fn there_is_one_rule_per_tier_and_one_for_pending() {
        let expected = [
            ("daily", 7),
            ("weekly", 28),
            ("monthly", 372),
            ("yearly", 1098),
            ("increment", 9),
            ("pending", 2),
        ];
        assert_eq!(
            expiry(&rules(&tiers(), "")),
            expected.map(|(tier, days)| (tier.to_owned(), days))
        );
    }

    #[test]
    fn a_tier_that_the_policy_lost_keeps_the_rule_under_which_its_backups_were_made() {
        let before = rules(&tiers(), "team/");
        let after = expiry(&rules_after(&days(30), "team/", &before));
        let expected = [
            ("daily", 30),
            ("weekly", 28),
            ("monthly", 372),
            ("yearly", 1098),
            ("increment", 9),
            ("pending", 2),
        ];
        assert_eq!(after, expected.map(|(tier, days)| (tier.to_owned(), days)));
        // Applied again, the rules stay the same; and a count in a policy applies again, also a smaller one.
        let again = rules_after(&days(30), "team/", &rules_after(&days(30), "team/", &before));
        assert_eq!(expiry(&again), after);
        let shorter = rules_after(&Retention::of(Policy::Tiers(vec![(Tier::Monthly, 2)])), "team/", &again);
        assert!(expiry(&shorter).contains(&("monthly".to_owned(), 62)));
    }

    #[test]
    fn a_tier_of_which_nothing_is_known_expires_too_but_not_early() {
        let expected = [
            ("daily", 30),
            ("weekly", 30),
            ("monthly", 31),
            ("yearly", 366),
            ("increment", 9),
            ("pending", 2),
        ];
        assert_eq!(
            expiry(&rules(&days(30), "")),
            expected.map(|(tier, days)| (tier.to_owned(), days))
        );
    }

    #[test]
    fn no_rule_expires_the_latest_or_an_object_without_a_tag() {
        for rule in rules(&tiers(), "team/") {
            assert!(rule.expire_days.is_none() || rule.tag.is_some(), "{rule:?}");
            assert!(rule.tag.is_none_or(|(key, value)| key == TIER_TAG && value != LATEST));
        }
    }

    #[test]
    fn uploads_left_in_progress_are_cleared_without_a_tag() {
        let rules = rules(&tiers(), "team/");
        let clearing: Vec<_> = rules.iter().filter(|rule| rule.abort_uploads_days.is_some()).collect();
        assert_eq!(clearing.len(), 1);
        assert_eq!(clearing[0].tag, None);
        assert_eq!(clearing[0].prefix, "team/");
    }

    #[test]
    fn two_prefixes_in_one_bucket_do_not_replace_each_others_rules() {
        let prefixes = ["", "a/", "b/"];
        let rules: Vec<Rule> = prefixes.iter().flat_map(|prefix| rules(&tiers(), prefix)).collect();
        assert!(rules.iter().all(|rule| is_ours(&rule.id) && rule.id.len() < 255));
        let ids: std::collections::HashSet<&str> = rules.iter().map(|rule| rule.id.as_str()).collect();
        assert_eq!(ids.len(), 3 * 7);
    }

    #[test]
    fn rules_that_somebody_else_made_are_not_ours() {
        for id in [
            "pgstow-to-glacier",
            "pgstow-",
            "daily",
            "pgstow",
            "my-pgstow-daily",
            "pgstow-dailyx",
        ] {
            assert!(!is_ours(id), "{id}");
        }
    }

    #[test]
    fn absurd_counts_stay_within_what_s3_takes() {
        let retention = Retention::of(Policy::Tiers(vec![(Tier::Yearly, u32::MAX)]));
        let rules = rules(&retention, "");
        assert!(expiry(&rules).contains(&("yearly".to_owned(), 2_147_483_647)));
    }

    #[test]
    fn rules_print_as_the_aws_tool_prints_them() {
        let all = rules(&days(30), "team/");
        let printed = rules_json(&all);
        assert_eq!(
            printed["Rules"][0],
            json!({
                "ID": all[0].id,
                "Filter": {"And": {"Prefix": "team/", "Tags": [{"Key": "pgstow-tier", "Value": "daily"}]}},
                "Status": "Enabled",
                "Expiration": {"Days": 30},
                "NoncurrentVersionExpiration": {"NoncurrentDays": 7}
            })
        );
        assert_eq!(printed["Rules"][6]["Filter"], json!({"Prefix": "team/"}));
        let bare = rules_json(&rules(&days(30), ""));
        assert_eq!(
            bare["Rules"][0]["Filter"],
            json!({"Tag": {"Key": "pgstow-tier", "Value": "daily"}})
        );
    }
}
