//! Describes what lifecycle rules do, and how that differs from the policy.

use super::tags::LATEST;
use super::{Policy, Retention, Tier, days_kept};
use crate::store::{PENDING, Rule, TIER_TAG};
use crate::units;

/// How a bucket's rules differ from the policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// Backups that expire although they should stay, or expire too soon.
    pub loses: Vec<String>,
    /// Backups that stay too long, or for ever.
    pub keeps: Vec<String>,
}

impl Differences {
    pub fn is_empty(&self) -> bool {
        self.loses.is_empty() && self.keeps.is_empty()
    }
}

impl Rule {
    /// For example `expires what is tagged pgstow-tier=daily below pg/ after 7 days`.
    pub fn effect(&self) -> String {
        if !self.enabled {
            return "does nothing: it is disabled".to_owned();
        }
        let place = match self.prefix.as_str() {
            "" => "in the bucket".to_owned(),
            prefix => format!("below {prefix}"),
        };
        let limits = match self.limits.as_slice() {
            [] => String::new(),
            limits => format!(" and is {}", limits.join(" and ")),
        };
        let what = match &self.tag {
            Some((key, value)) => format!("what is tagged {key}={value}{limits} {place}"),
            None if limits.is_empty() => format!("everything {place}"),
            None => format!("what is {} {place}", self.limits.join(" and ")),
        };
        let mut does = Vec::new();
        if let Some(after) = self.expire_days {
            does.push(format!("expires {what} after {}", days(after)));
        }
        if let Some(date) = &self.expire_date {
            does.push(format!("expires {what} from {date} on"));
        }
        if let Some(after) = self.noncurrent_days {
            does.push(format!("removes old versions after {}", days(after)));
        }
        if let Some(after) = self.abort_uploads_days {
            does.push(format!("aborts uploads after {}", days(after)));
        }
        if let Some(archive) = &self.archive {
            does.push(format!("moves {what} {archive}"));
        }
        if does.is_empty() {
            return "expires nothing".to_owned();
        }
        does.join(", ")
    }

    /// Whether it expires what none of pgstow's rules would: leases, and the last good backup too, if they are below
    /// its prefix.
    pub fn takes_the_last(&self) -> bool {
        let of_latest = |(key, value): &(String, String)| key == TIER_TAG && value == LATEST;
        let expires = self.expire_days.is_some() || self.expire_date.is_some();
        self.enabled && expires && self.tag.as_ref().is_none_or(of_latest)
    }

    /// Whether it moves backups, or may move them, to a class that cannot be read at once.
    pub fn archives_backups(&self) -> bool {
        let of_ours = |(key, _): &(String, String)| key == TIER_TAG;
        self.enabled && self.archive.is_some() && self.tag.as_ref().is_none_or(of_ours)
    }

    /// The same, for objects below a store's prefix.
    pub fn archives_backups_of(&self, prefix: &str) -> bool {
        self.overlaps(prefix) && self.archives_backups()
    }

    /// Whether it does the same for a store with this prefix as one of pgstow's rules. Its id may differ: people who
    /// manage a bucket's rules with another tool have their own ids.
    pub fn acts_for(&self, prefix: &str) -> bool {
        let expires = self.expire_days.is_some() || self.expire_date.is_some();
        let of_ours = match &self.tag {
            Some((key, value)) => key == TIER_TAG && value != LATEST && self.expire_days.is_some(),
            None => !expires && self.abort_uploads_days.is_some(),
        };
        of_ours && self.prefix == prefix && self.limits.is_empty() && self.archive.is_none()
    }

    /// Compares everything except the ids.
    pub fn does_as(&self, other: &Rule) -> bool {
        let id = other.id.clone();
        Rule { id, ..self.clone() } == *other
    }

    fn overlaps(&self, prefix: &str) -> bool {
        prefix.starts_with(&self.prefix) || self.prefix.starts_with(prefix)
    }

    /// The part of a store with this prefix that the rule applies to, if it does not apply to all of it.
    pub fn part_of(&self, prefix: &str) -> Option<&str> {
        self.prefix.strip_prefix(prefix).filter(|rest| !rest.is_empty())
    }

    /// The same, for objects below a store's prefix.
    pub fn takes_the_last_of(&self, prefix: &str) -> bool {
        self.overlaps(prefix) && self.takes_the_last()
    }
}

/// What the installed rules do differently from `wanted`. `foreign` are the bucket's other rules, without those that
/// affect only parts of the store without backups.
pub fn differences(wanted: &[Rule], installed: &[Rule], foreign: &[Rule]) -> Differences {
    let mut found = Differences::default();
    let prefix = wanted.first().map_or("", |rule| rule.prefix.as_str());
    for rule in installed
        .iter()
        .chain(foreign)
        .filter(|rule| rule.takes_the_last_of(prefix))
    {
        // pgstow does not know whether a backup is that large, or has those tags.
        let last = if rule.limits.is_empty() { "" } else { "perhaps " };
        let what = format!("the rule {} {}, {last}the last good backup too", rule.id, rule.effect());
        found.loses.push(what);
    }
    let archiving = installed.iter().chain(foreign);
    for rule in archiving.filter(|rule| rule.archives_backups_of(prefix)) {
        let what = format!(
            "the rule {} {}, where a backup cannot be read until it is restored from the archive, which takes hours",
            rule.id,
            rule.effect()
        );
        found.loses.push(what);
    }
    for want in wanted {
        let Some((_, value)) = &want.tag else {
            let uploads = shortest(installed, None, |rule| rule.abort_uploads_days);
            if want.abort_uploads_days.is_some() && uploads.is_none() {
                found.keeps.push("unfinished uploads stay".to_owned());
            }
            continue;
        };
        let whose = match value.as_str() {
            PENDING => "files without a manifest".to_owned(),
            increment if increment == Tier::Increment.name() => "increments".to_owned(),
            tier => format!("{tier} backups"),
        };
        let wanted_days = want.expire_days.unwrap_or_default();
        match shortest(installed, Some(value), |rule| rule.expire_days) {
            None => found.keeps.push(format!("{whose} never expire")),
            Some(is) if is < wanted_days => {
                found
                    .loses
                    .push(format!("{whose} expire after {}, not {wanted_days}", days(is)));
            }
            Some(is) if is > wanted_days => {
                found
                    .keeps
                    .push(format!("{whose} expire after {}, not {wanted_days}", days(is)));
            }
            Some(_) => {}
        }
        let versions = shortest(installed, Some(value), |rule| rule.noncurrent_days);
        if let (Some(is), Some(wants)) = (versions, want.noncurrent_days)
            && is < wants
        {
            let what = format!("old versions of {whose} are removed after {}, not {wants}", days(is));
            found.loses.push(what);
        }
    }
    found
}

/// The tiers of this policy, and that of increments, that the installed rules keep for another time, each with that
/// time. Empty if none of pgstow's rules is installed.
pub fn other_times(retention: &Retention, installed: &[Rule]) -> Vec<(Tier, u32, u32)> {
    let tiers: Vec<Tier> = match &retention.policy {
        Policy::Days(_) => vec![Tier::Daily],
        Policy::Tiers(tiers) => tiers.iter().map(|(tier, _)| *tier).collect(),
    };
    tiers
        .into_iter()
        .chain([Tier::Increment])
        .filter_map(|tier| {
            let is = shortest(installed, Some(tier.name()), |rule| rule.expire_days)?;
            let wanted = days_kept(retention, tier);
            (is != wanted).then_some((tier, is, wanted))
        })
        .collect()
}

/// Of several rules, S3 follows the shortest.
fn shortest(rules: &[Rule], tier: Option<&str>, time: impl Fn(&Rule) -> Option<u32>) -> Option<u32> {
    let matches = |rule: &&Rule| {
        let tag = rule.tag.as_ref();
        rule.enabled && tag.is_none_or(|(key, value)| key == TIER_TAG && Some(value.as_str()) == tier)
    };
    rules.iter().filter(matches).filter_map(time).min()
}

fn days(count: u32) -> String {
    units::count(count, "day")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::retention::rules;

    #[test]
    fn what_differing_rules_do_is_said() {
        let policy = Policy::Tiers(vec![(Tier::Daily, 7), (Tier::Weekly, 4)]);
        let wanted = rules(&Retention::of(policy), "pg/");
        assert!(differences(&wanted, &wanted, &[]).is_empty());
        let changed = |change: &dyn Fn(&mut Vec<Rule>)| {
            let mut rules = wanted.clone();
            change(&mut rules);
            differences(&wanted, &rules, &[])
        };
        let sooner = changed(&|rules| rules[0].expire_days = Some(1));
        assert_eq!(sooner.loses, ["daily backups expire after 1 day, not 7"]);
        let later = changed(&|rules| rules[1].expire_days = Some(90));
        assert_eq!(later.keeps, ["weekly backups expire after 90 days, not 28"]);
        let gone = changed(&|rules| drop(rules.remove(0)));
        assert_eq!(gone.keeps, ["daily backups never expire"]);
        let asleep = changed(&|rules| rules[0].enabled = false);
        assert_eq!(asleep.keeps, ["daily backups never expire"]);
        let untagged = changed(&|rules| rules[1].tag = None);
        assert!(
            untagged.loses[0].ends_with(
                "expires everything below pg/ after 28 days, removes old versions after 7 days, \
                                         the last good backup too"
            ),
            "{untagged:?}"
        );
        // A rule of others counts as well, if it applies to pgstow's backups.
        let foreign = |prefix: &str| Rule {
            id: "clean".to_owned(),
            tag: None,
            prefix: prefix.to_owned(),
            ..wanted[0].clone()
        };
        for (prefix, reaches) in [("", true), ("pg/shop/", true), ("logs/", false)] {
            let found = differences(&wanted, &wanted, &[foreign(prefix)]);
            assert_eq!(!found.is_empty(), reaches, "{prefix}");
        }
        let told = |rule: Rule| differences(&wanted, &wanted, &[rule]).loses.join("; ");
        let latest = Rule {
            tag: Some((TIER_TAG.to_owned(), LATEST.to_owned())),
            ..foreign("")
        };
        assert!(told(latest).contains("the last good backup too"));
        let by_date = Rule {
            expire_days: None,
            expire_date: Some("2027-01-01T00:00:00Z".to_owned()),
            limits: vec!["larger than 1000 bytes".to_owned()],
            ..foreign("pg/")
        };
        assert_eq!(by_date.part_of("pg/"), None);
        assert_eq!(by_date.part_of(""), Some("pg/"));
        let told = told(by_date);
        assert!(
            told.contains("expires what is larger than 1000 bytes below pg/ from 2027-01-01T00:00:00Z on"),
            "{told}"
        );
        assert!(told.contains("perhaps the last good backup too"), "{told}");
        let to_archive = Rule {
            expire_days: None,
            noncurrent_days: None,
            archive: Some("to DEEP_ARCHIVE after 1 day".to_owned()),
            ..foreign("")
        };
        let found = differences(&wanted, &wanted, &[to_archive]);
        assert!(
            found.loses[0]
                .contains("moves everything in the bucket to DEEP_ARCHIVE after 1 day, where a backup cannot"),
            "{found:?}"
        );
    }

    #[test]
    fn a_retention_is_compared_with_the_rules_tier_by_tier() {
        let kept = |days: u32| Retention::of(Policy::Days(days));
        let installed = rules(&kept(7), "");
        assert_eq!(other_times(&kept(7), &installed), []);
        assert_eq!(other_times(&kept(30), &installed), [(Tier::Daily, 7, 30)]);
        assert_eq!(other_times(&kept(30), &[]), []);
        let longer = Retention {
            pitr: std::time::Duration::from_hours(240),
            ..kept(7)
        };
        assert_eq!(other_times(&longer, &installed), [(Tier::Increment, 9, 12)]);
    }
}
