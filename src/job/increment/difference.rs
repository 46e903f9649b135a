//! What became of each table since the previous increment, and what is to be done about it: a pure function.

mod alike;

use std::collections::BTreeMap;

use alike::{has_same_values, is_same_rows, key, labels_changed, was_made_as_partition};

use super::facts::{StreamFacts, TableFacts};
use crate::format::Lsn;
use crate::postgres::{
    CatalogTable, Obstacle, PublicationChanges, PublicationKind, Publishing, TableCatalog, TableKind,
};
use crate::repository::manifest::ReplayProof;
use crate::repository::seen_catalog::{SeenCatalog, SeenTable};
use crate::units::human_bytes;

pub(super) use alike::{is_altered, is_changed, is_named_as};

/// Tables without an identity up to this size are read in each increment.
pub(super) const SMALL: u64 = 64 << 20;
/// The most bytes of such tables that one increment reads, the smallest tables first.
const SMALL_TOGETHER: u64 = 256 << 20;

/// The tables as they are now.
pub(super) struct Now<'a> {
    pub catalog: &'a TableCatalog,
    /// As the server's publications have them, before and after they were brought up to date.
    pub publications: &'a PublicationChanges,
    /// What should be published.
    pub publishing: &'a BTreeMap<u32, Publishing>,
    /// The server's counts of rows updated and deleted in tables whose updates do not arrive.
    pub counted: &'a BTreeMap<u32, u64>,
    /// Where the increment begins.
    pub from: Lsn,
}

impl Now<'_> {
    /// How the changes of a table arrive from now on.
    fn published(&self, oid: u32) -> Option<PublicationKind> {
        self.publications.after.get(&oid).copied()
    }
}

/// What is to be done about one table that has rows, or had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub bytes: u64,
    pub action: Action,
    /// The table or columns of it have other names now: the last position at which they surely had the earlier ones.
    pub renamed: Option<Lsn>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing: the stream has all its changes.
    Keep,
    /// Its updates do not arrive. Look whether rows that it had are changed or gone, and then read it whole.
    Probe,
    /// Its updates do not arrive, but as far as the server's counts tell there were none.
    CountInserts {
        why: String,
    },
    /// Rows with values that the older definitions do not know may come behind `last_exact`. The new definitions are
    /// enough.
    Define {
        last_exact: Lsn,
        why: String,
    },
    Read(Reading),
    /// Its rows are in the fulls only. `last_exact`: until here they were in the stream.
    Leave {
        last_exact: Option<Lsn>,
        why: String,
    },
    /// It is gone.
    End {
        last_exact: Option<Lsn>,
        why: String,
    },
    /// Nothing is known about it before this increment.
    Begin,
}

/// A table is to be read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    /// The last exact position before the baseline. `None`: all of them are exact.
    pub last_exact: Option<Lsn>,
    pub proof: Option<ReplayProof>,
    /// Transactions that are older than its publication may change it unseen: they have to end first.
    pub waits: bool,
    pub why: String,
}

/// One decision for each ordinary table of the current catalog whose rows a backup has, and for each that is gone, in
/// the order of the OIDs.
pub(super) fn difference(previous: Option<&SeenCatalog>, now: &Now<'_>, facts: &StreamFacts) -> Vec<Decision> {
    let small = small(now);
    let ordinary = |table: &&CatalogTable| table.kind == TableKind::Ordinary;
    let mut decisions: Vec<Decision> = now
        .catalog
        .saved()
        .filter(ordinary)
        .map(|table| Decision {
            oid: table.oid,
            schema: table.schema.clone(),
            name: table.name.clone(),
            bytes: table.bytes,
            renamed: previous.and_then(|previous| renamed(previous.table(table.oid)?, table, now, facts)),
            action: match previous {
                Some(previous) => Judging {
                    previous,
                    now,
                    facts,
                    small: small.contains_key(&table.oid),
                }
                .action(table),
                None => first(table, now),
            },
        })
        .collect();
    let before = previous.map_or(&[][..], |previous| &previous.tables);
    let is_gone = |seen: &&SeenTable| {
        seen.table.kind == TableKind::Ordinary
            && seen.table.extension.is_none()
            && now.catalog.table(seen.table.oid).is_none()
    };
    decisions.extend(before.iter().filter(is_gone).map(|seen| gone(seen, now, facts)));
    decisions.sort_by_key(|decision| decision.oid);
    decisions
}

/// The last position at which a table surely had its earlier names, if it or columns of it have others now, or had others
/// for a while.
fn renamed(before: &SeenTable, table: &CatalogTable, now: &Now<'_>, facts: &StreamFacts) -> Option<Lsn> {
    let facts = facts.table(table.oid);
    let had_others = facts.is_some_and(|facts| facts.is_renamed);
    if !had_others && is_named_as(&before.table, table) {
        return None;
    }
    // A schema gets another name without waiting for those who change the table, and the stream does not describe the
    // table again.
    let as_before = facts.and_then(|facts| facts.as_before);
    let as_before = as_before.filter(|_| before.table.schema == table.schema);
    Some(as_before.unwrap_or(now.from).max(now.from))
}

/// The small tables whose updates do not arrive, as many as one increment reads.
fn small(now: &Now<'_>) -> BTreeMap<u32, u64> {
    let is_keyless = |table: &&CatalogTable| now.published(table.oid) == Some(PublicationKind::Inserts);
    let mut keyless: Vec<(u64, u32)> = now
        .catalog
        .saved()
        .filter(is_keyless)
        .filter(|table| table.kind == TableKind::Ordinary && table.bytes <= SMALL)
        .map(|table| (table.bytes, table.oid))
        .collect();
    keyless.sort_unstable();
    let mut together = 0;
    let fits = |(bytes, oid): (u64, u32)| {
        together += bytes;
        (together <= SMALL_TOGETHER).then_some((oid, bytes))
    };
    keyless.into_iter().map_while(fits).collect()
}

fn first(table: &CatalogTable, now: &Now<'_>) -> Action {
    match now.published(table.oid) {
        Some(_) => Action::Begin,
        None => Action::Leave {
            last_exact: None,
            why: unpublished(table, now),
        },
    }
}

fn gone(seen: &SeenTable, now: &Now<'_>, facts: &StreamFacts) -> Decision {
    let table = &seen.table;
    let last_change = facts.table(table.oid).map(|facts| facts.last_change);
    let was_exact = seen.published.is_some() && seen.lacking.is_none();
    // Of the last change of a table whose updates do not arrive, nothing is known.
    let last_change = last_change.filter(|_| seen.published == Some(PublicationKind::All));
    Decision {
        oid: table.oid,
        schema: table.schema.clone(),
        name: table.name.clone(),
        bytes: 0,
        renamed: None,
        action: Action::End {
            // It existed when it was changed for the last time; when it was dropped is unknown.
            last_exact: was_exact.then(|| last_change.unwrap_or(now.from).max(now.from)),
            why: "it was dropped; the stream does not say when".into(),
        },
    }
}

/// Why the changes of a table do not arrive, or not all of them, with the statement that mends it.
fn unpublished(table: &CatalogTable, now: &Now<'_>) -> String {
    if let Some(postponed) = now.publications.postponed.iter().find(|one| one.oid == table.oid) {
        return format!("it could not be published yet: {}", postponed.why);
    }
    match now
        .publishing
        .get(&table.oid)
        .and_then(|publishing| publishing.obstacle.as_ref())
    {
        Some(obstacle) => with_remedy(obstacle, table, now.catalog.major),
        None if !table.is_ours => format!(
            "it is not published: only a member of its owner {} can do that; `pgstow incremental start --print-sql` \
             prints the statements",
            table.owner
        ),
        None => "it is not published".into(),
    }
}

fn with_remedy(obstacle: &Obstacle, table: &CatalogTable, major: u32) -> String {
    match obstacle.remedy(table, major) {
        Some(remedy) => format!("{}; this mends it: {remedy}", obstacle.why()),
        None => obstacle.why(),
    }
}

/// What the decision about a table is based on, if there is a previous catalog.
struct Judging<'a> {
    previous: &'a SeenCatalog,
    now: &'a Now<'a>,
    facts: &'a StreamFacts,
    /// It is one of the tables that every increment reads.
    small: bool,
}

impl Judging<'_> {
    fn action(&self, table: &CatalogTable) -> Action {
        match (self.of_table(table), self.now.published(table.oid)) {
            // Updates that do not arrive may come before the change that is to be read, and that the same rows are there
            // in the end proves nothing; only that there was nothing before its first row.
            (Action::Read(reading), Some(PublicationKind::Inserts)) => Action::Read(Reading {
                last_exact: Some(self.now.from),
                proof: reading
                    .proof
                    .filter(|proof| *proof == ReplayProof::FromNothing && was_made_as_partition(table)),
                ..reading
            }),
            (action, _) => action,
        }
    }

    fn of_table(&self, table: &CatalogTable) -> Action {
        let before = self.previous.table(table.oid);
        let Some(published) = self.now.published(table.oid) else {
            return Action::Leave {
                last_exact: before.filter(|seen| seen.published.is_some()).map(|_| self.now.from),
                why: unpublished(table, self.now),
            };
        };
        let Some(before) = before else {
            return self.of_new(table);
        };
        let has_stayed = self.has_stayed(before, published);
        if let Some(why) = &before.lacking {
            return Action::Read(Reading {
                proof: before
                    .proof
                    .filter(|_| has_stayed && has_same_values(&before.table, table)),
                ..self.lost(why.clone())
            });
        }
        if let Some(defined) = before.defined.as_deref()
            && (is_changed(defined, table, true) || !is_named_as(defined, table))
        {
            return Action::Read(self.lost("its definition changed, and changed back".into()));
        }
        match before.published {
            None => return Action::Read(self.lost("its changes arrive since this increment".into())),
            Some(earlier) if earlier == published => {
                if !has_stayed {
                    return Action::Read(self.lost("it was not published for a while".into()));
                }
            }
            Some(PublicationKind::Inserts) => {
                return Action::Read(self.lost("its updates arrive since this increment".into()));
            }
            Some(PublicationKind::All) => return self.without_identity(table),
        }
        let changed = self.changed(&before.table, table);
        match changed {
            Action::Keep | Action::Define { .. } if published == PublicationKind::Inserts => {
                match (changed, self.keyless(before, table)) {
                    (define @ Action::Define { .. }, Action::CountInserts { .. }) => define,
                    (_, keyless) => keyless,
                }
            }
            changed => changed,
        }
    }

    /// Whether the changes of a table have arrived in this way without a pause.
    fn has_stayed(&self, before: &SeenTable, published: PublicationKind) -> bool {
        let (publications, oid) = (self.now.publications, before.table.oid);
        let by = before.membership.as_ref();
        publications.before.get(&oid) == Some(&published)
            && by.is_none_or(|by| publications.memberships.0.get(&oid) == Some(by))
            && !publications.interrupted.contains(&oid)
    }

    /// The same of a new partition and a table above it.
    fn has_been_published_with(&self, table: &CatalogTable, above: &SeenTable) -> bool {
        let publications = self.now.publications;
        let has_stayed = above
            .published
            .is_some_and(|published| self.has_stayed(above, published));
        has_stayed && publications.before.contains_key(&table.oid) && !publications.interrupted.contains(&table.oid)
    }

    /// A table that the previous catalog does not have.
    fn of_new(&self, table: &CatalogTable) -> Action {
        let mut above = table.parent;
        // The bound is for a catalog whose parents go round in a circle.
        for _ in 0..=self.now.catalog.tables.len() {
            let Some(parent) = above else { break };
            let parents = self.previous.table(parent).zip(self.now.catalog.table(parent));
            if let Some((before, parent)) = parents.filter(|(before, _)| before.published.is_some()) {
                if !self.has_been_published_with(table, before) {
                    let why = "it is a new partition that was not published for a while";
                    return Action::Read(self.lost(why.into()));
                }
                return Action::Read(Reading {
                    // A partition's columns are changed with those of its parent only.
                    proof: Some(ReplayProof::FromNothing).filter(|_| has_same_values(&before.table, parent)),
                    // Its changes are published since it is a partition, and ATTACH waits for those who write it before.
                    waits: false,
                    ..self.lost(
                        "it is a new partition; rows that it had before it was attached are not in the stream".into(),
                    )
                });
            }
            above = self.now.catalog.table(parent).and_then(|table| table.parent);
        }
        Action::Read(self.lost("it is a new table".into()))
    }

    /// A baseline without which nothing is known since the increment's beginning.
    fn lost(&self, why: String) -> Reading {
        Reading {
            last_exact: Some(self.now.from),
            proof: None,
            waits: true,
            why,
        }
    }

    /// It lost the identity of its rows, and so it left the publication of all operations.
    fn without_identity(&self, table: &CatalogTable) -> Action {
        let why = unpublished(table, self.now);
        if self.small {
            return Action::Read(self.lost(why));
        }
        Action::Leave {
            last_exact: Some(self.now.from),
            why,
        }
    }

    /// The differences between two descriptions of the same table whose changes arrive as before.
    fn changed(&self, before: &CatalogTable, table: &CatalogTable) -> Action {
        let facts = self.facts.table(table.oid);
        let read = |last_exact, proof, why: &str| {
            Action::Read(Reading {
                last_exact,
                proof,
                waits: false,
                why: why.into(),
            })
        };
        let is_rewritten = before.filenode != table.filenode;
        let lost = Some(self.now.from);
        // Of two rewrites, the first may have left the columns as they were, and the stream does not show it.
        let as_before = facts.and_then(|facts| facts.as_before).filter(|_| !is_rewritten);
        let as_before = Some(as_before.unwrap_or(self.now.from).max(self.now.from));
        if !is_same_rows(before, table) {
            return read(as_before, None, "its columns changed");
        }
        // The stream does not show which rows came after the change of a type.
        if before.types != table.types {
            return read(lost, None, "a type of its columns changed");
        }
        if labels_changed(before, table) {
            return read(lost, None, "a label of an enum was renamed or removed");
        }
        if is_rewritten && facts.is_none_or(|facts| !facts.is_truncated(self.now.from, before, table)) {
            // If ALTER TABLE may have rewritten values, no replay can show that it did not: all rows with such values may
            // be gone again.
            // The writes of a partition that was UNLOGGED for a while are not in the stream either.
            let proof = Some(ReplayProof::FromBase).filter(|_| !is_altered(before, table) && table.parent.is_none());
            let why = "it was rewritten, and the stream does not say how (ALTER TABLE, VACUUM FULL, CLUSTER)";
            return read(lost, proof, why);
        }
        if before.identity != table.identity || key(before) != key(table) {
            return read(as_before, None, "the identity of its rows changed");
        }
        if facts.is_some_and(|facts| facts.is_other) {
            return read(as_before, None, "its columns or its identity changed, and changed back");
        }
        match facts.and_then(|facts: &TableFacts| facts.first_change) {
            Some(last_exact) if before.labels.len() < table.labels.len() => Action::Define {
                last_exact,
                why: "an enum got a label, which the older definitions do not have".into(),
            },
            _ => Action::Keep,
        }
    }

    /// A table of which only INSERT and TRUNCATE arrive, and whose definition is as before.
    fn keyless(&self, before: &SeenTable, table: &CatalogTable) -> Action {
        if self.small {
            return Action::Probe;
        }
        let why = unpublished(table, self.now);
        let counted = self.now.counted.get(&table.oid).copied();
        // A count that is lower was reset, and then it says nothing.
        if counted.is_some() && counted == before.counted {
            return Action::CountInserts { why };
        }
        Action::Leave {
            last_exact: None,
            why: format!(
                "rows of it may have been updated or deleted, and it has {}, more than the {} up to which increments read \
                 such tables: {why}",
                human_bytes(table.bytes),
                human_bytes(SMALL)
            ),
        }
    }
}

#[cfg(test)]
mod tests;
