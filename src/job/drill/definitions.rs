//! Whether two archives define the same objects.
//!
//! A server prints some definitions differently after a restore (`IN` over varchar, `BETWEEN` in a view), so another
//! text is not yet a difference. Then a [`Twin`] decides: pgstow runs the same statements in an empty database with no
//! other session, and the restored database must print what the twin prints. Owners, rights, positions of sequences and
//! entries about large objects always print the same.

mod rights;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::exclusion::DrillExclusion;
use super::twin::{Twin, has_twin, is_of_large_objects};
use crate::format::archive::Item;
use crate::job::restore::LeftOut;
use rights::LARGE_OBJECTS;

/// Kinds that have an owner of their own. If an extension made such an object, no dump holds it.
pub(super) const OWNED: [&str; 27] = [
    "ACCESS METHOD",
    "AGGREGATE",
    "COLLATION",
    "CONVERSION",
    "DOMAIN",
    "EVENT TRIGGER",
    "FOREIGN DATA WRAPPER",
    "FOREIGN TABLE",
    "FUNCTION",
    "MATERIALIZED VIEW",
    "OPERATOR",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "PROCEDURAL LANGUAGE",
    "PROCEDURE",
    "PUBLICATION",
    "SCHEMA",
    "SEQUENCE",
    "SERVER",
    "STATISTICS",
    "SUBSCRIPTION",
    "TABLE",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TYPE",
    "VIEW",
    "DEFAULT ACL",
];

const OTHERWISE: &str = "is defined otherwise";
const ANOTHERS: &str = "belongs to another role";
const NO_TRACE: &str = "its statement ran, but no dump of the restored database has an entry for it, and pgstow does not \
                        know where else to look for this kind";

/// What identifies an entry: kind, schema, name.
type Key<'a> = (&'a str, &'a str, &'a str);

/// Two dumps' tables of contents.
pub(super) struct Definitions<'a> {
    /// The entries of the backup.
    pub ours: &'a [Item],
    /// Entries that were not restored, or that cannot be judged.
    pub exclusion: &'a DrillExclusion<'a>,
    /// For entries that the second dump lacks: whether their objects exist nevertheless. Kinds that no other entry can
    /// hold are not looked up.
    pub present: HashMap<i64, bool>,
    /// The entries of the second dump.
    pub theirs: &'a [Item],
    /// In the throwaway server this role owns the objects of extensions, because a backup does not say which role made
    /// an extension.
    pub superuser: &'a str,
    /// Whether the same major of server and pg_dump printed both. Another major may print the same object differently,
    /// also in the twin.
    pub same_major: bool,
}

#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Entries that are the same in both.
    pub equal: usize,
    /// Of them, positions of sequences.
    pub sequences: usize,
    /// The differences: the entry's name, and what differs.
    pub differences: Vec<(String, &'static str)>,
    pub not_proved: Vec<LeftOut>,
    /// Some texts differ, and only a twin can show whether they mean the same.
    pub needs_twin: bool,
}

impl Comparison {
    /// `count`: how many entries of the backup have the key.
    fn add(&mut self, (kind, schema, name): Key<'_>, count: usize, found: Found) {
        let full_name = || match schema {
            "" => format!("{kind} {name}"),
            _ => format!("{kind} {schema}.{name}"),
        };
        match found {
            Found::Same => {
                self.equal += count;
                if kind == "SEQUENCE SET" {
                    self.sequences += count;
                }
            }
            Found::Differs(what) => self.differences.push((full_name(), what)),
            Found::NotProved(why) => self.not_proved.push(LeftOut { what: full_name(), why }),
            Found::Open => self.needs_twin = true,
        }
    }
}

/// All entries with one key.
#[derive(Default)]
struct Entries<'a> {
    ours: Vec<&'a Item>,
    theirs: Vec<&'a Item>,
    twins: Vec<&'a Item>,
}

/// The finding for one key.
enum Found {
    Same,
    Differs(&'static str),
    NotProved(String),
    /// Only a twin can decide.
    Open,
}

impl Entries<'_> {
    fn agree_with_the_twin(&self) -> bool {
        self.twins.is_empty() || texts(&self.theirs) == texts(&self.twins)
    }
}

impl Definitions<'_> {
    /// Compares the dumps. With a twin, nothing stays open.
    pub fn compare(&self, twin: Option<&Twin>) -> Comparison {
        let ours = || {
            let left_out = |item: &&Item| self.exclusion.excluded().contains(&item.entry.dump_id);
            self.ours.iter().filter(move |item| !left_out(item))
        };
        // A dump has the position of a sequence and the rights on an extension's objects, even if another entry set
        // them.
        let untried: HashSet<Key<'_>> = {
            let excluded = |item: &&Item| self.exclusion.excluded().contains(&item.entry.dump_id);
            let direct = self.ours.iter().filter(excluded).filter(|item| prints_for_good(item));
            direct.map(key).collect()
        };
        let all = self.by_key(ours(), twin);
        let unmade = twin.map(|twin| unmade(self.ours, twin)).unwrap_or_default();
        let mut comparison = Comparison::default();
        let found: Vec<Found> = all
            .values()
            .map(|entries| self.find(entries, twin.is_some(), &unmade))
            .collect();
        // An object without an entry of its own must be part of another entry, as in the twin's dump.
        let moved = |(entries, found): (&Entries<'_>, &Found)| {
            matches!(found, Found::Same) && entries.ours.is_empty() != entries.theirs.is_empty()
        };
        let strict = twin.is_some() && all.values().zip(&found).any(moved);
        for ((key, entries), found) in all.iter().zip(found) {
            if entries.ours.is_empty() && untried.contains(key) {
                continue;
            }
            let found = match found {
                Found::Same if strict && !entries.agree_with_the_twin() => Found::Differs(OTHERWISE),
                found => found,
            };
            let found = self.excused(found, entries);
            // If it was made, but in another version, it is not the same.
            let is_another = entries.ours.iter().any(|item| self.exclusion.is_another_version(item));
            if !(is_another && matches!(found, Found::Same)) {
                comparison.add(*key, entries.ours.len(), found);
            }
        }
        let there = rights::owners_of_large_objects(self.theirs.iter());
        for (number, owner) in rights::owners_of_large_objects(ours()) {
            // The comparison of contents shows whether it exists.
            if there.get(&number).is_some_and(|other| *other != owner) {
                let name = format!("LARGE OBJECT {number}");
                comparison.differences.push((name, ANOTHERS));
            }
        }
        comparison
    }

    /// The entries that describe the same object, from all dumps.
    fn by_key<'i>(
        &'i self,
        ours: impl Iterator<Item = &'i Item>,
        twin: Option<&'i Twin>,
    ) -> BTreeMap<Key<'i>, Entries<'i>> {
        let mut all: BTreeMap<Key<'_>, Entries<'_>> = BTreeMap::new();
        for item in ours.filter(|item| counts(item)) {
            all.entry(key(item)).or_default().ours.push(item);
        }
        for item in self.theirs.iter().filter(|item| counts(item)) {
            all.entry(key(item)).or_default().theirs.push(item);
        }
        let twins = twin.iter().flat_map(|twin| &twin.items);
        for item in twins.filter(|item| counts(item) && !prints_for_good(item)) {
            all.entry(key(item)).or_default().twins.push(item);
        }
        all
    }

    /// A difference that may have another reason than the backup proves nothing.
    fn excused(&self, found: Found, entries: &Entries<'_>) -> Found {
        let found = match found {
            Found::Differs(what) if entries.ours.is_empty() => match self.why_more(&entries.theirs) {
                Some(why) => Found::NotProved(format!("{why} (it {what})")),
                None => Found::Differs(what),
            },
            found => found,
        };
        match (found, self.exclusion.locale()) {
            (Found::Differs(OTHERWISE), Some(why)) if !entries.ours.iter().any(|item| prints_for_good(item)) => {
                Found::NotProved(format!("{why} (it {OTHERWISE})"))
            }
            (found, _) => found,
        }
    }

    fn find(&self, entries: &Entries<'_>, with_twin: bool, unmade: &HashMap<i64, String>) -> Found {
        let Entries { ours, theirs, twins } = entries;
        let direct = ours.iter().chain(theirs).any(|item| prints_for_good(item));
        let same = if ours.iter().any(|item| item.is_grant()) {
            given(ours) == given(theirs)
        } else {
            texts(ours) == texts(theirs)
        };
        if same {
            return match self.have_the_same_owners(ours, theirs) {
                true => Found::Same,
                false => Found::Differs(ANOTHERS),
            };
        }
        let missing = match (ours.len(), theirs.len()) {
            (0, _) => "is there and not in the backup",
            (_, 0) => "is not there",
            _ => OTHERWISE,
        };
        if direct {
            return match self.same_major {
                true => Found::Differs(missing),
                false => Found::NotProved("pg_dump of another major writes it differently".into()),
            };
        }
        if !with_twin {
            return Found::Open;
        }
        let why = || ours.iter().find_map(|item| unmade.get(&item.entry.dump_id));
        if theirs.is_empty() && twins.is_empty() {
            // Restore and twin follow the same plan, so it proves nothing that both lack the object.
            let present = ours.iter().map(|item| self.present.get(&item.entry.dump_id));
            let of_extension = ours.iter().find_map(|item| self.exclusion.doubt(item));
            let why = why().map(String::as_str).or(of_extension);
            return match (present.collect::<Option<Vec<&bool>>>(), why) {
                (Some(present), _) if present.iter().all(|present| **present) => Found::Same,
                (_, Some(why)) => Found::NotProved(why.to_owned()),
                (Some(_), None) => Found::Differs(missing),
                (None, None) if self.same_major => Found::Differs(missing),
                (None, None) => Found::NotProved(NO_TRACE.into()),
            };
        }
        if texts(theirs) == texts(twins) {
            // If one dump has an entry of its own for an object that the other writes elsewhere, there is no entry to
            // compare with.
            let comparable = ours.len() == theirs.len();
            return match comparable && !self.have_the_same_owners(ours, theirs) {
                true => Found::Differs(ANOTHERS),
                false => Found::Same,
            };
        }
        match why() {
            Some(why) => Found::NotProved(why.clone()),
            None => Found::Differs(missing),
        }
    }

    /// Why an object that is not in the backup exists here, if that is no damage.
    fn why_more(&self, theirs: &[&Item]) -> Option<&str> {
        theirs.iter().find_map(|item| {
            let schema = item.entry.namespace.as_deref().unwrap_or_default();
            self.exclusion.doubt_of_more(&item.entry.desc, schema, &item.entry.tag)
        })
    }

    /// Entries of the backup that the second dump lacks.
    pub fn without_a_trace(&self) -> Vec<&Item> {
        let there: HashSet<Key<'_>> = self.theirs.iter().map(key).collect();
        let ours = self
            .ours
            .iter()
            .filter(|item| counts(item) && !self.exclusion.excluded().contains(&item.entry.dump_id) && has_twin(item));
        ours.filter(|item| !there.contains(&key(item))).collect()
    }

    fn have_the_same_owners(&self, ours: &[&Item], theirs: &[&Item]) -> bool {
        let of_extension =
            |item: &&Item| item.details.owner == self.superuser && !OWNED.contains(&item.entry.desc.as_str());
        if theirs.iter().any(of_extension) {
            return true;
        }
        // The number of entries may differ: rights of large objects come in groups.
        let owners =
            |items: &[&Item]| -> BTreeSet<String> { items.iter().map(|item| item.details.owner.clone()).collect() };
        owners(ours) == owners(theirs)
    }
}

/// Entries that the twin cannot decide, with the reason: those that it refused, those that need them, and the tables
/// that they are about.
fn unmade(ours: &[Item], twin: &Twin) -> HashMap<i64, String> {
    let mut unmade = twin.refused.clone();
    let mut open: Vec<i64> = unmade.keys().copied().collect();
    while let Some(id) = open.pop() {
        let why = unmade[&id].clone();
        for item in ours.iter().filter(|item| item.details.dependencies.contains(&id)) {
            unmade.entry(item.entry.dump_id).or_insert_with(|| {
                open.push(item.entry.dump_id);
                why.clone()
            });
        }
    }
    for item in ours
        .iter()
        .filter(|item| twin.refused.contains_key(&item.entry.dump_id))
    {
        for id in &item.details.dependencies {
            let why = &twin.refused[&item.entry.dump_id];
            unmade.entry(*id).or_insert_with(|| why.clone());
        }
    }
    unmade
}

/// Whether the entry is compared here. Entries about the database itself depend on its name and place; rows and large
/// objects are compared by their digests.
fn counts(item: &Item) -> bool {
    !item.is_of_database()
        && !item.entry.has_data
        && !item.entry.desc.starts_with("BLOB")
        && !matches!(item.entry.desc.as_str(), "STATISTICS DATA")
}

/// Whether the entry holds no expression, so that it prints as it was written.
fn prints_for_good(item: &Item) -> bool {
    const KINDS: [&str; 3] = ["SCHEMA", "EXTENSION", "PROCEDURAL LANGUAGE"];
    !has_twin(item) || KINDS.contains(&item.entry.desc.as_str())
}

fn key(item: &Item) -> Key<'_> {
    let name = match item.is_grant() && is_of_large_objects(item) {
        true => LARGE_OBJECTS,
        false => &item.entry.tag,
    };
    let schema = item.entry.namespace.as_deref().unwrap_or_default();
    (&item.entry.desc, schema, name)
}

fn texts(items: &[&Item]) -> Vec<Vec<u8>> {
    let text = |item: &&Item| {
        let access_method = item.details.access_method.as_deref().unwrap_or_default();
        [item.definition(), b"\0", access_method.as_bytes()].concat()
    };
    let mut texts: Vec<Vec<u8>> = items.iter().map(text).collect();
    texts.sort();
    texts
}

fn given(items: &[&Item]) -> BTreeSet<String> {
    let definition = |item: &&Item| match String::from_utf8_lossy(item.definition()) {
        Cow::Borrowed(text) => text.to_owned(),
        // Not UTF-8: convert each byte separately, so that different names stay different.
        Cow::Owned(_) => item.definition().iter().map(|byte| char::from(*byte)).collect(),
    };
    items.iter().flat_map(|item| rights::given(&definition(item))).collect()
}

#[cfg(test)]
mod tests;
