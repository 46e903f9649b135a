//! What the stream says about the tables while it is read.

use std::collections::HashMap;

use crate::format::Lsn;
use crate::format::pgoutput::{Identity, Message, Relation};
use crate::postgres::{CatalogTable, ReplicaIdentity};
use crate::repository::seen_catalog::SeenCatalog;

/// The facts about the tables of one increment. Memory: a few hundred bytes per table that was changed.
pub(in crate::job) struct StreamFacts {
    /// What the previous increment saw. `Relation` messages that describe something else show that a table was changed.
    before: HashMap<u32, Shape>,
    tables: HashMap<u32, TableFacts>,
    /// A TRUNCATE that was committed before this position is in the previous catalog already.
    known_to: Lsn,
    /// The end of the last transaction that was heard whole.
    end: Lsn,
    /// The commit of the transaction that is being heard.
    commit: Lsn,
}

/// What was heard about one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TableFacts {
    /// The commit of the last TRUNCATE since the previous catalog.
    pub last_truncate: Option<Lsn>,
    /// The commit of the last transaction that changed it.
    pub last_change: Lsn,
    /// The end of the transaction before the first one that described it otherwise than the previous catalog.
    pub first_other: Option<Lsn>,
    /// The end of the transaction before the first one that changed it.
    pub first_change: Option<Lsn>,
}

/// What a `Relation` message tells about a table's definition.
#[derive(PartialEq, Eq)]
struct Shape {
    identity: &'static str,
    columns: Vec<ShapeColumn>,
}

#[derive(PartialEq, Eq)]
struct ShapeColumn {
    name: Vec<u8>,
    type_oid: u32,
    modifier: i32,
    is_key: bool,
}

impl StreamFacts {
    /// `from`: where the increment begins.
    pub fn new(previous: Option<&SeenCatalog>, from: Lsn) -> Self {
        let tables = previous.map_or(&[][..], |previous| &previous.tables);
        Self {
            before: tables
                .iter()
                .map(|seen| (seen.table.oid, Shape::of_table(&seen.table)))
                .collect(),
            tables: HashMap::new(),
            known_to: previous.map_or(from, |previous| previous.at),
            end: from,
            commit: from,
        }
    }

    /// Hears one message of the stream. Every message has to come here, in order.
    pub fn hear(&mut self, message: &Message<'_>) {
        match message {
            Message::Begin(begin) => self.commit = begin.final_lsn,
            Message::Commit(commit) => self.end = commit.end,
            Message::Relation(relation) => self.relation(relation),
            Message::Insert { relid, .. } | Message::Update { relid, .. } | Message::Delete { relid, .. } => {
                self.change(*relid);
            }
            Message::Truncate { relids, .. } => {
                for relid in relids.iter() {
                    let commit = self.commit;
                    self.change(relid).last_truncate = Some(commit).filter(|commit| *commit >= self.known_to);
                }
            }
            Message::Origin { .. } | Message::Type { .. } | Message::Logical { .. } => {}
        }
    }

    fn change(&mut self, relid: u32) -> &mut TableFacts {
        let (end, commit) = (self.end, self.commit);
        let table = self.tables.entry(relid).or_default();
        table.last_change = commit;
        table.first_change.get_or_insert(end);
        table
    }

    fn relation(&mut self, relation: &Relation) {
        let end = self.end;
        let is_other = self
            .before
            .get(&relation.oid)
            .is_some_and(|before| *before != Shape::of_relation(relation));
        let table = self.tables.entry(relation.oid).or_default();
        if is_other {
            table.first_other.get_or_insert(end);
        }
    }

    pub(super) fn table(&self, oid: u32) -> Option<&TableFacts> {
        self.tables.get(&oid)
    }
}

impl Shape {
    fn of_table(table: &CatalogTable) -> Self {
        let sent = table.columns.iter().filter(|column| column.generated.is_none());
        Self {
            identity: match table.identity {
                ReplicaIdentity::Default => Identity::Default.name(),
                ReplicaIdentity::Index => Identity::Index.name(),
                ReplicaIdentity::Full => Identity::Full.name(),
                ReplicaIdentity::Nothing => Identity::Nothing.name(),
            },
            columns: sent
                .map(|column| ShapeColumn {
                    name: column.name.clone().into_bytes(),
                    type_oid: column.type_oid,
                    modifier: column.modifier,
                    is_key: table.identity == ReplicaIdentity::Full || table.key.contains(&column.name),
                })
                .collect(),
        }
    }

    fn of_relation(relation: &Relation) -> Self {
        Self {
            identity: relation.identity.name(),
            columns: relation
                .columns
                .iter()
                .map(|column| ShapeColumn {
                    name: column.name.clone(),
                    type_oid: column.type_oid,
                    modifier: column.typmod,
                    is_key: column.is_key,
                })
                .collect(),
        }
    }
}
