//! What a stolen writer can do by tags, overwriting and delete markers, against the rules that pgstow
//! installs: the bucket's expiry, day by day, as a pure function.

use std::fs;

use pgstow::repository::retention::{LATEST, PENDING, Rule, TIER_TAG, Tier, rules, rules_after};
use pgstow::settings::{Policy, Retention};
use proptest::prelude::*;

/// For so long a backup can be had back after anything that the writer may do.
const PROMISED: i64 = 7;

/// One version of an object in a versioned bucket.
#[derive(Debug, Clone)]
struct Version {
    created: i64,
    /// The day on which another took its place.
    noncurrent: Option<i64>,
    tag: Option<String>,
    marker: bool,
    /// The backup's own, which must not be lost.
    precious: bool,
}

#[derive(Debug, Clone)]
enum Act {
    /// `PutObjectTagging`, on the current version or, by its id, on any.
    Tag { version: usize, tag: Option<&'static str> },
    /// `PutObject`, with a tag.
    Overwrite(Option<&'static str>),
    /// A `DELETE` without a version, though the writer is denied it.
    Delete,
}

/// Whether a rule is for objects with this tag.
fn matches(rule: &Rule, tag: Option<&str>) -> bool {
    match &rule.tag {
        None => true,
        Some((name, value)) => name == TIER_TAG && Some(value.as_str()) == tag,
    }
}

fn shortest(rules: &[Rule], tag: Option<&str>, days: fn(&Rule) -> Option<u32>) -> Option<i64> {
    let matching = rules.iter().filter(|rule| matches(rule, tag));
    matching.filter_map(days).min().map(i64::from)
}

/// What S3 does at the end of a day, at its quickest: it may take longer, and never takes less.
fn midnight(rules: &[Rule], versions: &mut Vec<Version>, day: i64) {
    let current = versions.iter().rposition(|version| version.noncurrent.is_none());
    if let Some(current) = current.filter(|current| !versions[*current].marker) {
        let after = shortest(rules, versions[current].tag.as_deref(), |rule| rule.expire_days);
        if after.is_some_and(|after| day - versions[current].created >= after) {
            put(versions, day, None, true);
        }
    }
    versions.retain(|version| {
        let Some(since) = version.noncurrent else { return true };
        let after = shortest(rules, version.tag.as_deref(), |rule| rule.noncurrent_days);
        after.is_none_or(|after| day - since < after)
    });
}

fn put(versions: &mut Vec<Version>, day: i64, tag: Option<&str>, marker: bool) {
    for version in versions.iter_mut().filter(|version| version.noncurrent.is_none()) {
        version.noncurrent = Some(day);
    }
    versions.push(Version {
        created: day,
        noncurrent: None,
        tag: tag.map(str::to_owned),
        marker,
        precious: false,
    });
}

fn act(versions: &mut Vec<Version>, day: i64, act: &Act) {
    match act {
        Act::Tag { version, tag } => {
            let count = versions.len();
            if let Some(version) = versions.get_mut(version % count.max(1)) {
                version.tag = tag.map(str::to_owned);
            }
        }
        Act::Overwrite(tag) => put(versions, day, *tag, false),
        Act::Delete => put(versions, day, None, true),
    }
}

/// The first day on which the backup cannot be had back, with these acts on their days.
fn lost_on(rules: &[Rule], age: i64, tag: &str, acts: &[(i64, Act)]) -> Option<i64> {
    let mut versions = vec![Version {
        created: -age,
        noncurrent: None,
        tag: Some(tag.to_owned()),
        marker: false,
        precious: true,
    }];
    for day in 0..40 {
        for (_, one) in acts.iter().filter(|(on, _)| *on == day) {
            act(&mut versions, day, one);
        }
        midnight(rules, &mut versions, day);
        if !versions.iter().any(|version| version.precious) {
            return Some(day);
        }
    }
    None
}

const TAGS: [Option<&str>; 9] = [
    None,
    Some(PENDING),
    Some(LATEST),
    Some("daily"),
    Some("weekly"),
    Some("monthly"),
    Some("yearly"),
    Some("increment"),
    Some("of my own"),
];

/// Of full backups, and of increments.
fn tiers() -> impl Iterator<Item = Tier> {
    Tier::ALL.into_iter().chain([Tier::Increment])
}

fn policies() -> [Retention; 4] {
    let policies = [
        Policy::Days(1),
        Policy::Days(30),
        Policy::Tiers(vec![(Tier::Daily, 7), (Tier::Weekly, 4), (Tier::Monthly, 12)]),
        Policy::Tiers(Tier::ALL.map(|tier| (tier, 1)).to_vec()),
    ];
    policies.map(Retention::of)
}

#[test]
fn after_any_one_tag_a_backup_can_be_had_back_for_a_week() {
    for policy in policies() {
        let rules = rules(&policy, "pg/");
        for tag in TAGS {
            for age in [0, 1, 3, 30, 400] {
                let acts = [(0, Act::Tag { version: 0, tag })];
                let lost = lost_on(&rules, age, LATEST, &acts);
                assert!(
                    lost.is_none_or(|day| day >= PROMISED),
                    "{policy:?} {tag:?} {age}: {lost:?}"
                );
            }
        }
    }
}

/// The simulation itself sees the loss under the rules of before.
#[test]
fn with_one_day_for_pending_it_was_gone_the_next_day() {
    let mut rules = rules(&Retention::of(Policy::Days(30)), "pg/");
    for rule in &mut rules {
        if rule.tag.as_ref().is_some_and(|(_, value)| value == PENDING) {
            rule.noncurrent_days = Some(1);
        }
    }
    let acts = [(
        0,
        Act::Tag {
            version: 0,
            tag: Some(PENDING),
        },
    )];
    assert_eq!(lost_on(&rules, 30, LATEST, &acts), Some(1));
}

fn any_act() -> impl Strategy<Value = Act> {
    let tag = proptest::sample::select(TAGS.to_vec());
    prop_oneof![
        (0_usize..6, tag.clone()).prop_map(|(version, tag)| Act::Tag { version, tag }),
        tag.prop_map(Act::Overwrite),
        Just(Act::Delete),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn whatever_a_writer_does_no_backup_is_lost_within_a_week(
        policy in proptest::sample::select(policies().to_vec()),
        before in proptest::sample::select(policies().to_vec()),
        age in 0_i64..500,
        acts in proptest::collection::vec((0_i64..14, any_act()), 1..8),
    ) {
        let installed = rules(&before, "pg/");
        for rules in [rules(&policy, "pg/"), rules_after(&policy, "pg/", &installed)] {
            let first = acts.iter().map(|(day, _)| *day).min().unwrap_or(0);
            let lost = lost_on(&rules, age, LATEST, &acts);
            prop_assert!(lost.is_none_or(|day| day - first >= PROMISED), "{:?} {:?}", lost, rules);
        }
    }
}

/// What is deployed says the same as the rules, and denies what pgstow never does.
#[test]
fn the_template_and_the_module_keep_old_versions_as_long_and_deny_pending_from_a_tier() {
    let template = fs::read_to_string("template.yaml").unwrap();
    let days: Vec<i64> = template
        .split("NoncurrentDays: ")
        .skip(1)
        .map(|rest| rest.split('}').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(days.len(), 7);
    assert!(days.iter().all(|days| *days >= PROMISED), "{days:?}");
    let module = fs::read_to_string("infra/terraform/bucket.tf").unwrap();
    let days: Vec<i64> = module
        .split("noncurrent_days = ")
        .skip(1)
        .map(|rest| rest.lines().next().unwrap().parse().unwrap())
        .collect();
    assert!(days.len() == 2 && days.iter().all(|days| *days >= PROMISED), "{days:?}");
    for (name, text) in [("the template", &template), ("the module", &module)] {
        let deny = Deny::read(text);
        for before in TAGS {
            for after in TAGS {
                let tier = before.is_some_and(|before| tiers().any(|tier| tier.name() == before));
                assert_eq!(
                    deny.applies(before, after),
                    tier && after == Some(PENDING),
                    "{name}: from {before:?} to {after:?}"
                );
            }
        }
    }
    // Read as what it says, not as words that occur.
    for (statement, other) in [
        ("Effect: Deny", "Effect: Allow"),
        ("StringEquals:", "StringNotEquals:"),
        ("yearly, increment]", "yearly]"),
        ("s3:PutObjectVersionTagging]", "s3:DeleteObject]"),
        ("Tag/pgstow-tier: pending", "Tag/pgstow-tier: latest"),
    ] {
        let from = template.find("Sid: NoTierBecomesPending").unwrap();
        let altered = template[from..].replacen(statement, other, 1);
        let read = std::panic::catch_unwind(|| {
            let deny = Deny::read(&altered);
            assert!(tiers().all(|tier| deny.applies(Some(tier.name()), Some(PENDING))));
        });
        assert!(read.is_err(), "{other} passes for a denial");
    }
}

/// The bucket policy's statement on tags, as the template (YAML) or the module (HCL) has it. What the whole policies say
/// once they are rendered and applied is asked of them by infra/policy.py.
struct Deny {
    existing: Vec<String>,
    requested: Vec<String>,
}

impl Deny {
    fn read(text: &str) -> Deny {
        let lines = text
            .lines()
            .skip_while(|line| !line.contains("NoTierBecomesPending"))
            .skip(1)
            .take_while(|line| {
                !line.trim_start().starts_with("- Sid:") && !line.trim_start().starts_with("statement {")
            });
        // `name: value` and `name = value` are one here; the values are words.
        let lines: Vec<(String, Vec<String>)> = lines
            .filter(|line| !line.trim_start().starts_with('#'))
            .filter_map(|line| line.split_once(": ").or_else(|| line.split_once(" = ")))
            .map(|(name, value)| {
                let value = value.replace("local.tier_order", &Tier::ALL.map(Tier::name).join(","));
                let value = value.replace("concat(", "").replace(')', "");
                let words = value
                    .split(',')
                    .map(|word| word.trim_matches([' ', '[', ']', '"', '{', '}']).to_owned());
                (name.trim().to_owned(), words.collect())
            })
            .collect();
        let value = |names: &[&str]| {
            let found = lines.iter().find(|(name, _)| names.contains(&name.as_str()));
            found.map(|(_, words)| words.clone()).unwrap_or_default()
        };
        assert_eq!(value(&["Effect", "effect"]), ["Deny"], "{text:.400}");
        let mut actions = value(&["Action", "actions"]);
        actions.sort_unstable();
        assert_eq!(actions, ["s3:PutObjectTagging", "s3:PutObjectVersionTagging"]);
        assert_eq!(value(&["Principal", "identifiers"]), ["*"]);
        assert!(value(&["Resource", "resources"])[0].ends_with("/*"));
        let tag = |key: &str| {
            // In HCL the key is the value of `variable`, and its values follow.
            let direct = value(&[key]);
            if direct.is_empty() {
                let at = lines.iter().position(|(_, words)| words[0] == key).unwrap();
                assert_eq!(
                    (lines[at - 1].0.as_str(), &lines[at - 1].1[0][..]),
                    ("test", "StringEquals")
                );
                return lines[at + 1].1.clone();
            }
            assert!(text.contains("\n              StringEquals:\n                s3:ExistingObjectTag"));
            direct
        };
        Deny {
            existing: tag("s3:ExistingObjectTag/pgstow-tier"),
            requested: tag("s3:RequestObjectTag/pgstow-tier"),
        }
    }

    /// Whether it denies to give a tag in another's place. A condition on a tag that is not there does not hold.
    fn applies(&self, before: Option<&str>, after: Option<&str>) -> bool {
        let has = |words: &[String], tag: Option<&str>| tag.is_some_and(|tag| words.iter().any(|word| word == tag));
        has(&self.existing, before) && has(&self.requested, after)
    }
}
