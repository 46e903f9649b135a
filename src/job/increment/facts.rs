//! What the stream says about the tables while it is read.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::format::Lsn;
use crate::format::fold::copy_row;
use crate::format::pgoutput::{Commit, Identity, Message, Relation, Tuple};
use crate::format::script::Sum;
use crate::postgres::{CatalogTable, PublicationKind, ReplicaIdentity};
use crate::repository::seen_catalog::SeenCatalog;

/// The facts about the tables of one increment. Memory: a few hundred bytes per table that was changed.
pub(in crate::job) struct StreamFacts {
    /// What the previous increment saw. `Relation` messages that describe something else show that a table was changed.
    before: HashMap<u32, Shape>,
    tables: HashMap<u32, TableFacts>,
    /// A TRUNCATE that was committed before this position is in the previous catalog already.
    known_to: Lsn,
    /// The commit of the transaction that is being heard, and its number.
    commit: Lsn,
    xid: u32,
    /// The tables that it has changed so far.
    touched: Vec<u32>,
    inserted: Insertions,
}

/// The rows that were inserted into tables whose other changes do not arrive: what such a table must have grown by.
#[derive(Default)]
struct Insertions {
    /// Tables of which all changes arrive. `None`: nothing is known of any table.
    keyed: Option<HashSet<u32>>,
    /// Of each other table, by transaction.
    rows: HashMap<u32, Vec<(u32, Sum)>>,
    /// How many entries `rows` has.
    entries: usize,
    /// Tables that were also emptied.
    emptied: HashSet<u32>,
    row: Vec<u8>,
}

/// The most entries: 12 MB. With more of them, no table's growth is known.
const ENTRIES: usize = 200_000;

/// The most TRUNCATEs of one table that are remembered, the last ones.
const TRUNCATES: usize = 64;

/// What was heard about one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TableFacts {
    /// The last TRUNCATEs since the previous catalog: their commits and transactions.
    pub truncates: VecDeque<(Lsn, u32)>,
    /// Up to here the table surely existed: its last change.
    pub last_change: Lsn,
    /// Up to here it surely was as the previous catalog describes it: its last change before it was described otherwise.
    pub as_before: Option<Lsn>,
    /// It was described with other columns or another identity than in the previous catalog.
    pub is_other: bool,
    /// It was described with other names, its own or those of columns.
    pub is_renamed: bool,
    /// The commit of the first transaction that changed it.
    pub first_change: Option<Lsn>,
    /// The last transaction that changed it.
    touched_by: Option<Lsn>,
}

/// The longest commit record of a transaction that changed no definition and had no subtransactions: its head, the time,
/// the flags and the database, without anything optional. Who changes a definition has messages for other sessions in it.
const PLAIN_COMMIT: u64 = 48;

/// What a `Relation` message tells about a table's definition.
struct Shape {
    identity: &'static str,
    /// Its schema and its name.
    name: [Vec<u8>; 2],
    columns: Vec<ShapeColumn>,
}

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
            commit: from,
            xid: 0,
            touched: Vec::new(),
            inserted: Insertions {
                keyed: previous.map(keyed),
                ..Insertions::default()
            },
        }
    }

    /// Hears one message of the stream. Every message has to come here, in order.
    pub fn hear(&mut self, message: &Message<'_>) {
        match message {
            Message::Begin(begin) => {
                (self.commit, self.xid) = (begin.final_lsn, begin.xid);
                self.touched.clear();
            }
            Message::Commit(commit) => self.ends(commit),
            Message::Relation(relation) => self.relation(relation),
            Message::Insert { relid, new } => {
                self.change(*relid);
                self.inserted.add(*relid, self.xid, new);
            }
            Message::Update { relid, .. } | Message::Delete { relid, .. } => {
                self.change(*relid);
            }
            Message::Truncate { relids, .. } => {
                for relid in relids.iter() {
                    self.inserted.emptied.insert(relid);
                    let (commit, xid, is_known) = (self.commit, self.xid, self.commit < self.known_to);
                    let truncates = &mut self.change(relid).truncates;
                    if !is_known {
                        truncates.push_back((commit, xid));
                    }
                    if truncates.len() > TRUNCATES {
                        truncates.pop_front();
                    }
                }
            }
            Message::Origin { .. } | Message::Type { .. } | Message::Logical { .. } => {}
        }
    }

    /// The sum of the rows that these transactions inserted into a table of which only INSERT and TRUNCATE arrive.
    /// `None`: not known, or the table was emptied.
    pub(super) fn inserted(&self, oid: u32, counts: impl Fn(u32) -> bool) -> Option<Sum> {
        let Insertions {
            keyed,
            rows,
            entries,
            emptied,
            ..
        } = &self.inserted;
        let is_known = keyed.as_ref().is_some_and(|keyed| !keyed.contains(&oid)) && !emptied.contains(&oid);
        if !is_known || *entries > ENTRIES {
            return None;
        }
        let mut sum = Sum::default();
        let counted = rows.get(&oid).into_iter().flatten();
        counted
            .filter(|(xid, _)| counts(*xid))
            .for_each(|(_, rows)| sum.merge(*rows));
        Some(sum)
    }

    fn change(&mut self, relid: u32) -> &mut TableFacts {
        let commit = self.commit;
        let table = self.tables.entry(relid).or_default();
        table.first_change.get_or_insert(commit);
        if table.touched_by.replace(commit) != Some(commit) {
            table.last_change = commit;
            self.touched.push(relid);
        }
        table
    }

    /// A change of a definition waits until the transactions that changed the table's rows have ended. So the table is
    /// as it was up to the end of such a transaction, unless that one itself changed the definition.
    fn ends(&mut self, commit: &Commit) {
        let is_plain = commit.end.0.saturating_sub(commit.lsn.0) <= PLAIN_COMMIT;
        let until = if is_plain { commit.end } else { commit.lsn };
        for relid in self.touched.drain(..) {
            let Some(table) = self.tables.get_mut(&relid) else {
                continue;
            };
            table.last_change = until;
            if !table.is_other && !table.is_renamed {
                table.as_before = Some(until);
            }
        }
    }

    fn relation(&mut self, relation: &Relation) {
        let before = self.before.get(&relation.oid);
        let (is_other, is_renamed) = before.map_or((false, false), |before| {
            let now = Shape::of_relation(relation);
            (!before.has_rows_like(&now), !before.is_named_like(&now))
        });
        let commit = self.commit;
        let table = self.tables.entry(relation.oid).or_default();
        let was_as_before = !table.is_other && !table.is_renamed;
        if was_as_before && (is_other || is_renamed) && table.touched_by == Some(commit) {
            // The same transaction changed rows, then the definition, then rows.
            table.as_before = Some(commit);
        }
        table.is_other |= is_other;
        table.is_renamed |= is_renamed;
    }

    pub(super) fn table(&self, oid: u32) -> Option<&TableFacts> {
        self.tables.get(&oid)
    }
}

fn keyed(previous: &SeenCatalog) -> HashSet<u32> {
    let tables = previous.tables.iter();
    tables
        .filter(|seen| seen.published == Some(PublicationKind::All))
        .map(|seen| seen.table.oid)
        .collect()
}

impl Insertions {
    fn add(&mut self, relid: u32, xid: u32, new: &Tuple<'_>) {
        let is_wanted = self.keyed.as_ref().is_some_and(|keyed| !keyed.contains(&relid));
        if !is_wanted || self.entries > ENTRIES {
            return;
        }
        let of_table = self.rows.entry(relid).or_default();
        if of_table.last().is_none_or(|(last, _)| *last != xid) {
            of_table.push((xid, Sum::default()));
            self.entries += 1;
        }
        copy_row(new.values(), &mut self.row);
        if let Some((_, sum)) = of_table.last_mut() {
            sum.add(&self.row);
        }
        if self.entries > ENTRIES {
            self.rows = HashMap::new();
        }
    }
}

impl TableFacts {
    /// Whether a TRUNCATE behind this position is the reason for which the table's file is another one than before. After
    /// a TRUNCATE, ALTER TABLE may have rewritten the new rows, of which the stream says nothing.
    pub fn is_truncated(&self, since: Lsn, before: &CatalogTable, table: &CatalogTable) -> bool {
        if before.traces.columns_changed_by != table.traces.columns_changed_by {
            return false;
        }
        let mut truncates = self.truncates.iter().filter(|(commit, _)| *commit >= since);
        match (before.traces.toast, table.traces.toast) {
            // A partition may have been UNLOGGED for a while, which makes another file too.
            (Some(0), _) | (_, Some(0)) if table.parent.is_some() => false,
            (Some(0), _) | (_, Some(0)) => match table.traces.changed_by {
                // A TRUNCATE within a savepoint has another number: then nothing is sure.
                Some(changed_by) => truncates.any(|(_, xid)| *xid == changed_by),
                None => truncates.next().is_some(),
            },
            (before, now) => before == now && truncates.next().is_some(),
        }
    }
}

/// Whether the stream's name of something can be the catalog's, which is in UTF-8.
fn is_same_name(catalog: &[u8], sent: &[u8]) -> bool {
    let in_another_encoding = || !catalog.is_ascii() && !sent.is_ascii() && std::str::from_utf8(sent).is_err();
    catalog == sent || in_another_encoding()
}

impl Shape {
    /// Whether rows of both have the same columns, apart from their names, and are found in the same way.
    fn has_rows_like(&self, now: &Self) -> bool {
        let form = |column: &ShapeColumn| (column.type_oid, column.modifier, column.is_key);
        self.identity == now.identity && self.columns.iter().map(form).eq(now.columns.iter().map(form))
    }

    /// `now` is of the stream.
    fn is_named_like(&self, now: &Self) -> bool {
        let own = self.name.iter().zip(&now.name);
        let columns = self.columns.iter().zip(&now.columns);
        let columns = columns.map(|(column, now)| (&column.name, &now.name));
        own.chain(columns).all(|(name, now)| is_same_name(name, now))
    }

    fn of_table(table: &CatalogTable) -> Self {
        let sent = table.columns.iter().filter(|column| column.generated.is_none());
        Self {
            identity: match table.identity {
                ReplicaIdentity::Default => Identity::Default.name(),
                ReplicaIdentity::Index => Identity::Index.name(),
                ReplicaIdentity::Full => Identity::Full.name(),
                ReplicaIdentity::Nothing => Identity::Nothing.name(),
            },
            name: [table.schema.clone(), table.name.clone()].map(String::into_bytes),
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
            name: [relation.schema.clone(), relation.name.clone()],
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
