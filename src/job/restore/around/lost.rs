//! Finds what is lost with replaced objects of the target, by comparing it with what the archive's table of contents
//! brings.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;

use super::members::TableMembers;
use crate::format::archive::Item;
use crate::job::restore::grants;
use crate::job::restore::plan::{self, LeftOut};
use crate::postgres::quoting::identifier;
use crate::postgres::{Belonging, Feature, Inside, Mark, MemberGrant, Trait, TraitKind};
use crate::units::count;

/// How many of one kind a report lists.
const MOST: usize = 100;
/// How many bytes of a statement a report shows.
const LONGEST: usize = 1000;

pub(super) const ON_A_TABLE: &str = "the target had it on a table that was replaced, and the backup does not have it";
pub(super) const ANOTHER_VALUE: &str =
    "the target had another value of it on a table that was replaced than the backup has";
pub(super) const IN_A_SCHEMA: &str = "the target had it in a schema that was replaced, and the backup does not have it";
const ON_AN_OBJECT: &str = "the target had it on what was replaced, and the backup does not have it";
const WITH_VALUES: &str =
    "the target had it in a table that was replaced, and the backup does not have it; its values are lost";

/// As many of each kind as a person reads, and the number of the others.
#[derive(Debug, Default)]
pub(super) struct Lost {
    kinds: BTreeMap<String, (usize, Vec<LeftOut>)>,
}

impl Lost {
    pub fn around_the_tables(left_out: Vec<LeftOut>) -> Self {
        let mut lost = Self::default();
        for left in left_out {
            lost.add("AROUND THE TABLES", left.what, &left.why, None);
        }
        lost
    }

    pub fn add(&mut self, kind: &str, what: String, why: &str, statement: Option<String>) {
        let (found, told) = self.kinds.entry(kind.to_owned()).or_default();
        *found += 1;
        if *found > MOST {
            return;
        }
        let statement = statement.filter(|text| !text.is_empty() && text.len() <= LONGEST);
        let why = match statement {
            Some(statement) => format!("{why}: {statement}"),
            None => why.to_owned(),
        };
        told.push(LeftOut { what, why });
    }

    pub fn told(self) -> Vec<LeftOut> {
        let mut all = Vec::new();
        for (kind, (found, told)) in self.kinds {
            all.extend(told);
            if found > MOST {
                all.push(LeftOut {
                    what: format!("{} more of this kind ({})", found - MOST, kind.to_lowercase()),
                    why: ON_AN_OBJECT.to_owned(),
                });
            }
        }
        all
    }
}

/// The archive's entries, by their object and by the object that they are about.
pub(super) struct Brought<'a> {
    entries: HashMap<String, Vec<&'a Item>>,
    /// Grants and comments, by the dump id of the object.
    about: HashMap<i64, Vec<&'a Item>>,
    /// Grants on large objects, one by one and in groups.
    granted: HashMap<u32, &'a Item>,
    groups: Vec<(RangeInclusive<u32>, &'a Item)>,
    /// What makes each large object.
    objects: HashMap<u32, &'a Item>,
    is_utf8: bool,
}

impl<'a> Brought<'a> {
    /// All entries, except those that are left out.
    pub fn new(items: &'a [Item], left_out: &HashSet<i64>) -> Self {
        let mut brought = Self {
            entries: HashMap::new(),
            about: HashMap::new(),
            granted: HashMap::new(),
            groups: Vec::new(),
            objects: HashMap::new(),
            is_utf8: items.iter().all(|item| item.details.definition_bytes.is_none()),
        };
        for item in items.iter().filter(|item| !left_out.contains(&item.entry.dump_id)) {
            let (kind, tag) = (item.entry.desc.as_str(), item.entry.tag.as_str());
            let schema = item.entry.namespace.as_deref().unwrap_or_default();
            brought.entries.entry(key(kind, schema, tag)).or_default().push(item);
            if item.is_grant() || kind == "COMMENT" {
                for id in &item.details.dependencies {
                    brought.about.entry(*id).or_default().push(item);
                }
            }
            brought
                .objects
                .extend(plan::objects_of(item).into_iter().map(|id| (id, item)));
            match large_objects(tag).filter(|_| kind == "ACL") {
                Some(group) if group.start() == group.end() => {
                    brought.granted.insert(*group.start(), item);
                }
                group => brought.groups.extend(group.map(|group| (group, item))),
            }
        }
        brought
    }

    fn found(&self, kind: &str, schema: &str, tag: &str) -> &[&'a Item] {
        let found = self.entries.get(&key(kind, schema, tag));
        found.map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether the backup has it too.
    pub fn brings(&self, one: &Belonging) -> bool {
        let found = self.found(&one.kind, &one.schema, &one.tag);
        found.iter().any(|item| match (&*one.kind, one.role.as_deref()) {
            ("ACL", Some(role)) => is_for(item, role),
            (_, Some(role)) => item.details.owner == role,
            (_, None) => true,
        })
    }

    /// Whether a definition in the backup gives the table or index this setting.
    pub fn marks(&self, mark: &Mark) -> bool {
        if !self.is_utf8 && !mark.words.is_ascii() {
            return true;
        }
        self.of_mark(mark)
            .any(|item| stands(&item.details.definition, &mark.words))
    }

    /// Entries whose definitions may contain the setting.
    fn of_mark<'s>(&'s self, mark: &'s Mark) -> impl Iterator<Item = &'a Item> + use<'s, 'a> {
        let kinds = ["TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW", "INDEX"];
        let named = kinds
            .into_iter()
            .flat_map(move |kind| self.found(kind, &mark.schema, &mark.name));
        let tag = mark.constraint.iter();
        let constraints = tag.flat_map(move |tag| self.found("CONSTRAINT", &mark.schema, tag));
        named.chain(constraints).copied()
    }

    /// Whether one of them gives it the target's value. The backup has the setting too.
    pub fn values(&self, mark: &Mark) -> bool {
        let phrases = mark.phrases();
        if phrases.is_empty() || (!self.is_utf8 && !mark.statement.is_ascii()) {
            return true;
        }
        self.of_mark(mark)
            .any(|item| phrases.iter().any(|phrase| ends(&item.details.definition, phrase)))
    }

    /// Columns and checks that the backup's table does not have. A table whose definition is not understood is
    /// skipped.
    pub fn lacking(&self, table: &Inside, lost: &mut Lost) {
        let Some(family) = self.family(&table.schema, &table.name) else {
            return;
        };
        let has = |of: fn(&TableMembers) -> &HashSet<String>, name: &str| {
            // Names in another encoding cannot be compared.
            (!self.is_utf8 && !name.is_ascii()) || family.iter().any(|members| of(members).contains(name))
        };
        let path = &table.table;
        for (column, kind) in table.columns.iter().zip(&table.types) {
            if !has(|members| &members.columns, column) {
                let column = identifier(column);
                let statement = format!("ALTER TABLE {path} ADD COLUMN {column} {kind}");
                lost.add(
                    "COLUMN",
                    format!("the column {column} of {path}"),
                    WITH_VALUES,
                    Some(statement),
                );
            }
        }
        for column in &table.not_null {
            if has(|members| &members.columns, column) && !has(|members| &members.not_null, column) {
                let column = identifier(column);
                let statement = format!("ALTER TABLE {path} ALTER COLUMN {column} SET NOT NULL");
                let what = format!("NOT NULL of the column {column} of {path}");
                lost.add("NOT NULL", what, ON_A_TABLE, Some(statement));
            }
        }
        for (check, definition) in table.checks.iter().zip(&table.definitions) {
            let tag = format!("{} {check}", table.name);
            let is_apart = !self.found("CHECK CONSTRAINT", &table.schema, &tag).is_empty();
            if !is_apart && !has(|members| &members.constraints, check) {
                let statement = format!("ALTER TABLE {path} ADD CONSTRAINT {} {definition}", identifier(check));
                let what = format!("the constraint {check} of {path}");
                lost.add("CHECK", what, ON_A_TABLE, Some(statement));
            }
        }
    }

    /// The members of a table and of the tables above it.
    fn family(&self, schema: &str, name: &str) -> Option<Vec<TableMembers>> {
        let members = |schema: &str, name: &str| {
            let kinds = ["TABLE", "FOREIGN TABLE"];
            let found = kinds.iter().find_map(|kind| self.found(kind, schema, name).first());
            found.and_then(|item| TableMembers::parse(&item.details.definition))
        };
        let own = members(schema, name)?;
        let mut open = own.parents.clone();
        let (mut seen, mut family) = (HashSet::new(), vec![own]);
        while let Some(parent) = open.pop() {
            if let Some(above) = members(&parent.0, &parent.1).filter(|_| !seen.contains(&parent)) {
                open.extend(above.parents.iter().cloned());
                family.push(above);
            }
            seen.insert(parent);
        }
        Some(family)
    }

    /// Parts of these objects that the target has and the backup does not. `new_owner` is the role that owns everything
    /// that the restore makes, if it is not the backup's owners.
    pub fn without(&self, traits: Vec<Trait>, objects: &[&Item], new_owner: Option<&str>, lost: &mut Lost) {
        let mut owners: BTreeMap<(String, String), (usize, Trait)> = BTreeMap::new();
        for one in traits {
            let Some(item) = objects.get(one.object) else { continue };
            let about = self.about.get(&item.entry.dump_id);
            let about = about.map(Vec::as_slice).unwrap_or_default();
            let mut grants = about.iter().filter(|about| about.is_grant());
            match one.kind {
                TraitKind::Owner => {
                    let owner = new_owner.unwrap_or(&item.details.owner);
                    if !owner.is_empty() && owner != one.role {
                        let pair = (one.role.clone(), owner.to_owned());
                        owners.entry(pair).or_insert((0, one)).0 += 1;
                    }
                }
                TraitKind::Grant if !grants.any(|grant| is_for(grant, &one.role)) => {
                    let what = format!("grants on {} to {}", one.whole, one.role);
                    lost.add("ACL", what, ON_AN_OBJECT, Some(one.statement));
                }
                TraitKind::Revoke if !grants.any(|grant| grant.details.definition.contains(" FROM PUBLIC")) => {
                    let what = format!("that PUBLIC has no rights on {}", one.whole);
                    lost.add("ACL", what, ON_AN_OBJECT, Some(one.statement));
                }
                TraitKind::Comment if !about.iter().any(|about| about.entry.desc == "COMMENT") => {
                    let what = format!("the comment on {}", one.whole);
                    lost.add("COMMENT", what, ON_AN_OBJECT, Some(one.statement));
                }
                TraitKind::Grant | TraitKind::Revoke | TraitKind::Comment => {}
            }
        }
        for ((old, new), (number, first)) in owners {
            let (objects, statement) = match number {
                1 => (first.whole, first.statement),
                _ => {
                    let objects = format!("{}, such as {}", count(number, "object"), first.whole);
                    (objects, String::new())
                }
            };
            let why = format!("by the backup, or by --no-owner, that belongs to {new}");
            lost.add(
                "OWNER",
                format!("{old} as the owner of {objects}"),
                &why,
                Some(statement),
            );
        }
    }

    /// The same for replaced objects, as `goes` says. `new_owner` is as in [`Self::without`].
    pub fn without_feature(
        &self,
        feature: Feature,
        goes: impl Fn(&Item) -> bool,
        new_owner: Option<&str>,
        lost: &mut Lost,
    ) {
        let things = match feature.kind.as_str() {
            "LARGE OBJECT" => {
                let id = feature.tag.parse().ok();
                id.and_then(|id: u32| self.objects.get(&id))
                    .into_iter()
                    .copied()
                    .collect()
            }
            kind => self.found(kind, &feature.schema, &feature.tag).to_vec(),
        };
        let Some(thing) = things.into_iter().find(|item| goes(item)) else {
            return;
        };
        let definition = &thing.details.definition;
        let by_entry = |(kind, tag): &(String, String)| !self.found(kind, &feature.schema, tag).is_empty();
        let brings = match &feature.owner {
            Some(owner) => {
                let new = new_owner.unwrap_or(&thing.details.owner);
                new.is_empty() || new == owner
            }
            None => {
                feature.entry.as_ref().is_some_and(by_entry)
                    || feature
                        .words
                        .as_ref()
                        .is_some_and(|words| definition.contains(words.as_str()))
            }
        };
        let is_legible = self.is_utf8 || feature.words.as_ref().is_none_or(|words| words.is_ascii());
        if !brings && is_legible {
            let (kind, why) = match feature.owner {
                Some(_) => ("OWNER", "by the backup, or by --no-owner, that belongs to another"),
                None => ("FEATURE", ON_AN_OBJECT),
            };
            lost.add(kind, feature.what, why, Some(feature.statement));
        }
    }

    /// For objects that an extension made and that are made anew with it.
    pub fn without_grant_on_member(&self, grant: MemberGrant, lost: &mut Lost) {
        let mut about = self.found("ACL", &grant.schema, &grant.tag).iter();
        let brings = match grant.is_revoke {
            true => about.any(|item| item.details.definition.contains("REVOKE ") && is_from(item, &grant.role)),
            false => about.any(|item| is_for(item, &grant.role)),
        };
        if !brings {
            lost.add("ACL", grant.what, ON_AN_OBJECT, Some(grant.statement));
        }
    }

    /// For replaced large objects; one line for each role.
    pub fn without_grants(&self, granted: &[(u32, String)], lost: &mut Lost) {
        let mut roles: BTreeMap<&str, (usize, u32)> = BTreeMap::new();
        for (id, role) in granted {
            let groups = self.groups.iter().filter(|(group, _)| group.contains(id));
            let mut grants = self.granted.get(id).into_iter().chain(groups.map(|(_, item)| item));
            if !grants.any(|item| is_for(item, role)) {
                roles.entry(role).or_insert((0, *id)).0 += 1;
            }
        }
        for (role, (number, first)) in roles {
            let what = match number {
                1 => format!("grants on the large object {first} to {role}"),
                _ => format!(
                    "grants on {}, such as {first}, to {role}",
                    count(number, "large object")
                ),
            };
            lost.add("ACL", what, ON_AN_OBJECT, None);
        }
    }
}

/// pg_dump writes the names in some tags in quotes.
fn key(kind: &str, schema: &str, tag: &str) -> String {
    format!("{kind}\0{schema}\0{}", tag.replace('"', ""))
}

/// The large objects that a grant's tag names: `LARGE OBJECT 7`, and from PostgreSQL 17 also `LARGE OBJECTS 7..9`.
fn large_objects(tag: &str) -> Option<RangeInclusive<u32>> {
    if let Some(one) = tag.strip_prefix("LARGE OBJECT ") {
        let one = one.parse().ok()?;
        return Some(one..=one);
    }
    let (first, last) = tag.strip_prefix("LARGE OBJECTS ")?.split_once("..")?;
    Some(first.parse().ok()?..=last.parse().ok()?)
}

/// Whether a grant in the archive gives this role anything.
fn is_for(item: &Item, role: &str) -> bool {
    let definition = &item.details.definition;
    match role {
        "PUBLIC" => definition.contains(" TO PUBLIC"),
        role => grants::roles(definition).iter().any(|named| named == role),
    }
}

/// Whether a grant in the archive takes anything from this role.
fn is_from(item: &Item, role: &str) -> bool {
    match role {
        "PUBLIC" => item.details.definition.contains(" FROM PUBLIC"),
        role => is_for(item, role),
    }
}

/// Whether the text contains these words, with no other word character directly before them.
fn stands(text: &str, words: &str) -> bool {
    text.match_indices(words)
        .any(|(at, _)| text[..at].ends_with([' ', '(']))
}

/// The same, and with no character of a word or a number directly after them.
fn ends(text: &str, words: &str) -> bool {
    text.match_indices(words).any(|(at, _)| {
        let behind = &text[at + words.len()..];
        text[..at].ends_with([' ', '(']) && (behind.is_empty() || behind.starts_with([';', ',', ')', ' ', '\n']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_the_same_only_as_a_whole() {
        let definition = "CREATE TABLE a.t (w int) WITH (fillfactor='50', toast.autovacuum_enabled=off);\n\
                          ALTER TABLE ONLY a.t ALTER COLUMN w SET STATISTICS 77;\n";
        for (words, is_same) in [
            ("ALTER COLUMN w SET STATISTICS 77", true),
            ("ALTER COLUMN w SET STATISTICS 7", false),
            ("fillfactor='50'", true),
            ("fillfactor='5'", false),
            ("toast.autovacuum_enabled=off", true),
            ("autovacuum_enabled=off", false),
        ] {
            assert_eq!(ends(definition, words), is_same, "{words}");
        }
    }

    #[test]
    fn of_one_kind_no_more_is_told_than_a_person_reads() {
        let mut lost = Lost::default();
        for number in 0..100_000 {
            lost.add("COLUMN", number.to_string(), ON_A_TABLE, Some("x".repeat(3)));
        }
        lost.add("ACL", "a grant".into(), ON_A_TABLE, Some("x".repeat(LONGEST + 1)));
        let told = lost.told();
        assert_eq!(told.len(), MOST + 2);
        assert_eq!((&*told[0].what, &*told[0].why), ("a grant", ON_A_TABLE));
        assert!(told[1].why.ends_with(": xxx"), "{}", told[1].why);
        assert_eq!(told[MOST + 1].what, "99900 more of this kind (column)");
    }

    #[test]
    fn the_tags_of_large_objects_and_the_words_of_settings_are_read() {
        assert_eq!(large_objects("LARGE OBJECT 77"), Some(77..=77));
        assert_eq!(large_objects("LARGE OBJECTS 77..80"), Some(77..=80));
        assert_eq!(large_objects("TABLE t"), None);
        let text = "CREATE TABLE a.t (\n)\nWITH (toast.autovacuum_enabled='false', fillfactor='50');";
        assert!(stands(text, "fillfactor=") && stands(text, "toast.autovacuum_enabled="));
        assert!(!stands(text, "autovacuum_enabled=") && !stands(text, "factor="));
    }
}
