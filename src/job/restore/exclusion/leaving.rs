//! The entries that a restore leaves out: the requested ones, with all that need them.

use std::collections::{BTreeMap, HashSet};

use super::{Exclusion, NEEDS, members, names_it};
use crate::error::Result;
use crate::format::archive::Item;
use crate::job::restore::RestoreRequest;
use crate::job::restore::plan::LeftOut;
use crate::postgres::Session;

/// How many of one kind and reason the report names; of the others it gives the number.
const LISTED: usize = 1000;

/// The entries that the user left out, and those that stay with them.
pub(super) struct Leaving<'a> {
    pub request: &'a RestoreRequest,
    pub items: &'a [Item],
    pub asked: &'a HashSet<i64>,
    /// With the reasons.
    pub kept: &'a BTreeMap<i64, String>,
}

impl Leaving<'_> {
    /// `there` is what the target has of it.
    pub async fn with_orphans(&self, there: &HashSet<i64>, session: &Session) -> Result<Exclusion> {
        let left = self.with_dependents(there, &HashSet::new());
        let lacks = |item: &Item| {
            let id = &item.entry.dump_id;
            item.entry.desc == "EXTENSION" && self.asked.contains(id) && !there.contains(id)
        };
        if !self.items.iter().any(lacks) {
            return Ok(left);
        }
        match members::orphans(self.items, &left.entries, session).await? {
            Some(orphans) => Ok(self.with_dependents(there, &orphans)),
            None => Ok(Exclusion {
                has_open_members: true,
                ..left
            }),
        }
    }

    /// `orphans` are left out with the requested entries, although the archive records no dependency for them.
    pub fn with_dependents(&self, there: &HashSet<i64>, orphans: &HashSet<i64>) -> Exclusion {
        let items = self.items;
        let mut entries: HashSet<i64> = self.asked.union(orphans).copied().collect();
        entries.extend(self.kept.keys());
        loop {
            let before = entries.len();
            for item in items {
                let of_it = matches!(item.entry.desc.as_str(), "COMMENT" | "ACL" | "SECURITY LABEL");
                let needs = |id: &i64| entries.contains(id) && (of_it || !there.contains(id));
                let is_named =
                    matches!(item.entry.desc.as_str(), "USER MAPPING") || item.entry.desc.starts_with("PUBLICATION ");
                let in_name = is_named
                    && items
                        .iter()
                        .any(|other| needs(&other.entry.dump_id) && names_it(item, other));
                if item.details.dependencies.iter().any(needs) || in_name {
                    entries.insert(item.entry.dump_id);
                }
            }
            if entries.len() == before {
                break;
            }
        }
        let left_out = self.told(&entries);
        Exclusion {
            entries,
            left_out,
            has_open_members: false,
        }
    }

    fn why(&self, item: &Item) -> &str {
        let (request, id) = (self.request, &item.entry.dump_id);
        match (self.asked.contains(id), item.entry.desc.as_str()) {
            (true, "COMMENT") if request.no_comments => "--no-comments leaves it out",
            (true, "PUBLICATION") if request.no_publications => "--no-publications leaves it out",
            (true, "SUBSCRIPTION") if request.no_subscriptions => "--no-subscriptions leaves it out",
            (true, _) => "--exclude leaves it out",
            (false, _) => self.kept.get(id).map_or(NEEDS, String::as_str),
        }
    }

    fn told(&self, entries: &HashSet<i64>) -> Vec<LeftOut> {
        let mut left_out: Vec<LeftOut> = Vec::new();
        let mut seen = HashSet::new();
        let mut alike: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for item in self.items.iter().filter(|item| entries.contains(&item.entry.dump_id)) {
            let (what, why) = (item.entry.to_string(), self.why(item));
            if !seen.insert(what.clone()) {
                continue;
            }
            let number = alike.entry((&item.entry.desc, why)).or_default();
            *number += 1;
            if *number <= LISTED {
                left_out.push(LeftOut { what, why: why.into() });
            }
        }
        let many = alike.into_iter().filter(|(_, number)| *number > LISTED);
        left_out.extend(many.map(|((kind, why), number)| LeftOut {
            what: format!("{kind}: {} more", number - LISTED),
            why: why.into(),
        }));
        left_out
    }
}
