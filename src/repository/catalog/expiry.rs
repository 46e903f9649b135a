//! Whether a bucket's lifecycle rules expire backups as the retention requires. `doctor` and `status` use the same
//! judgement.

use crate::error::Result;
use crate::repository::backup_id::BackupId;
use crate::repository::retention::{Differences, Retention, Rule, applying, differences, rules_after};
use crate::store::{Lifecycle, Rules, Store, is_ours};

/// A bucket's rules, and those that the policy needs.
pub struct Expiry {
    /// The installed rules of pgstow, and rules of others that have the same effect.
    pub installed: Vec<Rule>,
    pub wanted: Vec<Rule>,
    /// Ids of rules that are not pgstow's and expire backups that must stay.
    pub foreign: Vec<String>,
    /// What could not be found out about rules that are not pgstow's.
    pub unsure: Vec<String>,
    differ: Differences,
    /// The prefixes of other stores in the bucket that have rules of pgstow.
    elsewhere: Vec<String>,
}

/// How the rules differ from the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiryFinding {
    pub told: String,
    /// What a person must do, because `retention apply` does not.
    by_hand: Option<String>,
    command: Option<String>,
}

impl ExpiryFinding {
    /// What to do; `quoted` makes a command part of the sentence.
    pub fn remedy(&self, quoted: impl Fn(&str) -> String) -> String {
        let command = self.command.as_deref().map(quoted);
        match (&self.by_hand, command) {
            (Some(by_hand), Some(command)) => format!("first {by_hand}; then {command}"),
            (by_hand, command) => by_hand.clone().or(command).unwrap_or_default(),
        }
    }
}

/// Reads the rules, and finds out which backups the rules of others affect.
pub async fn expiry(store: &dyn Store, lifecycle: &dyn Lifecycle, retention: &Retention) -> Result<Expiry> {
    let Rules { ours, foreign } = lifecycle.rules().await?;
    let prefix = lifecycle.prefix();
    let (foreign, unsure) = reaching(store, prefix, foreign).await;
    Ok(Expiry::of(ours, foreign, unsure, prefix, retention))
}

impl Expiry {
    /// Rules are judged by their effect: rules of others that expire this store's backups correctly count as
    /// pgstow's.
    fn of(ours: Vec<Rule>, foreign: Vec<Rule>, unsure: Vec<String>, prefix: &str, retention: &Retention) -> Self {
        let elsewhere = foreign.iter().filter(|rule| is_ours(&rule.id) && rule.prefix != prefix);
        let mut elsewhere: Vec<String> = elsewhere.map(|rule| rule.prefix.clone()).collect();
        elsewhere.dedup();
        let (acting, foreign): (Vec<Rule>, Vec<Rule>) = foreign.into_iter().partition(|rule| rule.acts_for(prefix));
        let mut installed = ours;
        installed.extend(acting.iter().cloned());
        let wanted = rules_after(retention, prefix, &installed);
        for rule in &mut installed {
            if let Some(same) = wanted.iter().find(|want| rule.does_as(want)) {
                rule.id.clone_from(&same.id);
            }
        }
        let harms = |rule: &&Rule| rule.takes_the_last_of(prefix) || rule.archives_backups_of(prefix);
        // `retention apply` would add pgstow's rule beside it, and the bucket follows the rule that expires sooner.
        let is_sooner = |rule: &&Rule| {
            let of_tier = wanted.iter().find(|want| want.tag.is_some() && want.tag == rule.tag);
            rule.enabled && of_tier.is_some_and(|want| rule.expire_days < want.expire_days)
        };
        let by_hand = foreign.iter().filter(harms).chain(acting.iter().filter(is_sooner));
        Self {
            foreign: by_hand.map(|rule| rule.id.clone()).collect(),
            differ: differences(&wanted, &installed, &foreign),
            installed,
            wanted,
            unsure,
            elsewhere,
        }
    }

    /// Whether a rule that `retention apply` does not replace does harm.
    pub fn harms(&self) -> bool {
        !self.foreign.is_empty()
    }

    /// The warning of a run whose backup these rules will expire, in one sentence. `None` if there are no rules at
    /// all: a bucket's first backup comes before its rules, and `doctor` and `status` report that.
    pub fn warning(&self, url: &str, retention: &Retention) -> Option<String> {
        let none = self.installed.is_empty() && self.differ.loses.is_empty();
        if none && !self.elsewhere.is_empty() {
            return Some(format!(
                "pgstow's rules in the bucket apply only to {}, so nothing expires in {url}: run `{}`",
                self.elsewhere.join(", "),
                applying(url, retention)
            ));
        }
        if none || self.differ.is_empty() {
            return None;
        }
        let finding = self.finding(url, retention)?;
        Some(format!(
            "this run's retention is {}, but by the rules of {url}, {}: {}",
            retention.policy,
            finding.told,
            finding.remedy(|command| format!("run `{command}`"))
        ))
    }

    /// `None` if backups expire as the policy requires, and the rules are written as pgstow writes them.
    pub fn finding(&self, url: &str, retention: &Retention) -> Option<ExpiryFinding> {
        let missing = self.wanted.iter().filter(|rule| !self.installed.contains(rule)).count();
        let loses = self.differ.loses.clone();
        let told = if self.installed.is_empty() && loses.is_empty() {
            "pgstow's lifecycle rules are not installed, so old backups never expire".to_owned()
        } else if self.installed.is_empty() {
            [loses, vec!["pgstow's rules are not installed".to_owned()]]
                .concat()
                .join("; ")
        } else if !self.differ.is_empty() {
            [loses, self.differ.keeps.clone()].concat().join("; ")
        } else if missing > 0 {
            format!(
                "backups expire as the retention requires; {missing} of {} rules differ in other ways",
                self.wanted.len()
            )
        } else {
            return None;
        };
        let ours_differ = missing > 0 || !differences(&self.wanted, &self.installed, &[]).is_empty();
        Some(ExpiryFinding {
            told,
            by_hand: self.sparing(url),
            command: ours_differ.then(|| applying(url, retention)),
        })
    }

    fn sparing(&self, url: &str) -> Option<String> {
        let (rules, they) = match self.foreign.len() {
            0 => return None,
            1 => ("rule", "it is not pgstow's, and `retention apply` leaves it as it is"),
            _ => (
                "rules",
                "they are not pgstow's, and `retention apply` leaves them as they are",
            ),
        };
        Some(format!(
            "change the {rules} {} so that {url} is not affected: {they}",
            self.foreign.join(", ")
        ))
    }
}

/// Removes the rules that affect only parts of the store without backups. The second list says what could not be
/// found out.
async fn reaching(store: &dyn Store, prefix: &str, foreign: Vec<Rule>) -> (Vec<Rule>, Vec<String>) {
    let (mut reach, mut unsure) = (Vec::new(), Vec::new());
    for rule in foreign {
        let held = match rule.part_of(prefix) {
            Some(part) if rule.takes_the_last() || rule.archives_backups() => holds_backups(store, part).await,
            _ => Ok(true),
        };
        match held {
            Ok(true) => reach.push(rule),
            Ok(false) => {}
            Err(error) => unsure.push(format!(
                "the rule {} {}; whether that affects a backup is not known, as the folders could not be listed: {}",
                rule.id,
                rule.effect(),
                error.message()
            )),
        }
    }
    (reach, unsure)
}

/// Whether a database has backups whose keys may begin with `start`.
async fn holds_backups(store: &dyn Store, start: &str) -> Result<bool> {
    for name in store.folders("").await? {
        let folder = format!("{name}/");
        if !folder.starts_with(start) && !start.starts_with(&folder) {
            continue;
        }
        let inside = store.folders(&folder).await?;
        let is_backup = |stamp: &String| format!("{folder}{stamp}").parse::<BackupId>().is_ok();
        if inside.iter().any(is_backup) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::retention::{Policy, rules};

    fn found(installed: Vec<Rule>, foreign: &[Rule]) -> Option<(String, String)> {
        let policy = Retention::of(Policy::Days(30));
        let expiry = Expiry::of(installed, foreign.to_vec(), Vec::new(), "pg/", &policy);
        let finding = expiry.finding("s3://acme/pg", &policy)?;
        let remedy = finding.remedy(str::to_owned);
        Some((finding.told, remedy))
    }

    #[test]
    fn what_applying_does_not_cure_is_said_first() {
        let command = "pgstow retention apply --store s3://acme/pg --retention 30d";
        let wanted = rules(&Retention::of(Policy::Days(30)), "pg/");
        assert_eq!(found(wanted.clone(), &[]), None);
        let (told, remedy) = found(Vec::new(), &[]).unwrap();
        assert!(told.contains("never expire"), "{told}");
        assert_eq!(remedy, command);

        let all = Rule {
            id: "x".to_owned(),
            prefix: String::new(),
            tag: None,
            noncurrent_days: None,
            expire_days: Some(5),
            ..wanted[0].clone()
        };
        let takes = "the rule x expires everything in the bucket after 5 days, the last good backup too";
        let spare = "change the rule x so that s3://acme/pg is not affected: \
                     it is not pgstow's, and `retention apply` leaves it as it is"
            .to_owned();
        let (told, remedy) = found(Vec::new(), std::slice::from_ref(&all)).unwrap();
        assert_eq!(told, format!("{takes}; pgstow's rules are not installed"));
        assert_eq!(remedy, format!("first {spare}; then {command}"));
        let ours_are_there = found(wanted, &[all]).unwrap();
        assert_eq!(ours_are_there, (takes.to_owned(), spare));
    }

    #[test]
    fn rules_that_do_the_same_under_other_ids_are_as_good() {
        let mut theirs = rules(&Retention::of(Policy::Days(30)), "pg/");
        for (number, rule) in theirs.iter_mut().enumerate() {
            rule.id = format!("terraform-{number}");
        }
        assert_eq!(found(Vec::new(), &theirs), None);
        theirs[0].expire_days = Some(3);
        let (told, remedy) = found(Vec::new(), &theirs).unwrap();
        assert!(told.contains("daily backups expire after 3 days, not 30"), "{told}");
        assert!(
            remedy.starts_with("first change the rule terraform-0 so that"),
            "{remedy}"
        );
    }

    #[test]
    fn a_run_is_warned_of_rules_that_harm_and_of_rules_that_do_nothing() {
        let policy = Retention::of(Policy::Days(30));
        let wanted = rules(&policy, "pg/");
        let warned = |ours: Vec<Rule>, foreign: Vec<Rule>| {
            Expiry::of(ours, foreign, Vec::new(), "pg/", &policy).warning("s3://acme/pg", &policy)
        };
        assert_eq!(warned(wanted.clone(), Vec::new()), None);
        assert_eq!(warned(Vec::new(), Vec::new()), None);
        let all = Rule {
            id: "x".to_owned(),
            prefix: String::new(),
            tag: None,
            expire_days: Some(1),
            ..wanted[0].clone()
        };
        assert!(
            warned(wanted.clone(), vec![all])
                .unwrap()
                .contains("the last good backup too")
        );
        let asleep = wanted.iter().cloned().map(|rule| Rule { enabled: false, ..rule });
        assert!(warned(asleep.collect(), Vec::new()).unwrap().contains("never expire"));
        let others = warned(Vec::new(), rules(&policy, "old/")).unwrap();
        assert!(others.contains("apply only to old/"), "{others}");
    }
}
