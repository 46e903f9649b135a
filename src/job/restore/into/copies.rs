//! What a copy is made of: the table's definition under another name, the blocks with its rows, indexes and keys; and
//! what is left out.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::definition::{Index, Odd, Table, constraint};
use super::destination::LONGEST;
use super::{BlockCopy, Finishing, TableCopy};
use crate::error::{Code, Error, Result};
use crate::format::archive::{Item, Loading};
use crate::job::restore::choice;
use crate::job::restore::plan::LeftOut;
use crate::postgres::ExistingObject;
use crate::postgres::quoting::identifier;
use crate::repository::stored_archive::StoredArchive;

/// A table, and where its copy is made.
pub(super) struct Wanted {
    pub of: (String, String),
    pub entry: i64,
    pub place: (String, String),
    pub replaced: Option<ExistingObject>,
    /// The table in the target has row-level security.
    pub has_row_security: bool,
}

/// The archive, and facts about the target.
pub(super) struct CopySource<'a> {
    pub stored: &'a StoredArchive,
    pub items: &'a [Item],
    /// Entries whose objects the target lacks.
    pub lacking: HashSet<i64>,
    pub excluded: &'a HashSet<i64>,
    pub encoding: String,
    /// The role that restores.
    pub owner: &'a str,
    /// A publication would publish new tables there at once.
    pub is_published: bool,
    /// Names that are not free for a new relation there.
    pub taken: BTreeSet<String>,
    pub left_out: Vec<LeftOut>,
}

/// Encodings in which every ASCII byte stands for itself: a database can have no other.
const ENCODINGS: [&str; 8] = [
    "UTF8",
    "SQL_ASCII",
    "LATIN",
    "WIN1",
    "WIN8",
    "ISO_8859_",
    "KOI8",
    "EUC_",
];
const OF_ITS_OWN: &str = "it belongs to the table itself";

impl<'a> CopySource<'a> {
    pub fn copy(&mut self, wanted: Wanted) -> Result<TableCopy> {
        let Wanted {
            of,
            entry,
            place,
            replaced,
            has_row_security,
        } = wanted;
        let shown = format!("{}.{}", of.0, of.1);
        let item = self.item(entry)?;
        let table = self.table(item, &shown)?;
        let needs: Vec<String> = self
            .needs(item, item)
            .iter()
            .map(|other| other.entry.to_string())
            .collect();
        if !needs.is_empty() {
            let what = format!("{shown} needs {}, which the target lacks", needs.join(", "));
            return Err(Error::new(Code::RestoreErr, what).hint(
                "a copy does not bring what it needs: make that first; or restore the table into another database \
                 without --into, which brings what it needs",
            ));
        }
        let spelt = format!("{}.{}", self.spelt(&place.0), self.spelt(&place.1));
        let unlogged = if table.is_unlogged || self.is_published {
            "UNLOGGED "
        } else {
            ""
        };
        let head = format!("CREATE {unlogged}TABLE {spelt} ");
        let definition = [head.as_bytes(), table.columns, b"\n", table.options].concat();
        if table.has_more {
            let what = format!("how columns of {shown} are stored and sampled");
            self.leave(what, "the copy has its types' own storage and statistics");
        }
        let rows = self.rows(item, table.is_partitioned, &shown, &spelt)?;
        let count = rows.iter().map(|rows| self.count(rows.index)).sum();
        let (finishing, is_guarded) = self.finishing(item, &shown, &spelt, has_row_security)?;
        Ok(TableCopy {
            of: shown,
            place,
            replaced,
            entry,
            definition,
            access_method: item.details.access_method.clone().filter(|name| !name.is_empty()),
            is_guarded,
            rows,
            count,
            finishing,
        })
    }

    fn item(&self, entry: i64) -> Result<&'a Item> {
        let found = self.items.iter().find(|item| item.entry.dump_id == entry);
        found.ok_or_else(|| Error::internal("a table that was found is not in the archive"))
    }

    fn table(&self, item: &'a Item, shown: &str) -> Result<Table<'a>> {
        let refused = |why: &str| Error::new(Code::RestoreErr, format!("{} cannot be copied: {why}", item.entry));
        let elsewhere = "restore it into another database, without --into";
        if item.entry.desc != "TABLE" {
            return Err(refused("--into makes copies only of tables").hint(elsewhere));
        }
        if self.excluded.contains(&item.entry.dump_id) {
            return Err(
                Error::config(format!("--exclude leaves {shown} out, but --table names it"))
                    .hint("leave one of the two out"),
            );
        }
        if !ENCODINGS.iter().any(|known| self.encoding.starts_with(known)) {
            let what = format!(
                "the archive is in the encoding {}, which no database has",
                self.encoding
            );
            return Err(Error::new(Code::Integrity, what));
        }
        Table::parse(item.definition(), &item.entry.path()).map_err(|odd| match odd {
            Odd::Heir => refused("it inherits columns from other tables, and a copy would be their child table too")
                .hint(elsewhere),
            Odd::Typed => {
                refused("its columns are those of a type, and a copy would depend on the type").hint(elsewhere)
            }
            Odd::Unknown => Error::new(
                Code::Integrity,
                format!("{}: its definition is not one that pg_dump writes", item.entry),
            ),
        })
    }

    /// What a table, or an index or key of it, needs and the target lacks, besides the table itself and those above
    /// it.
    fn needs(&self, of: &Item, table: &Item) -> Vec<&'a Item> {
        let table = table.entry.dump_id;
        let attaching =
            |other: &&Item| other.entry.desc == "TABLE ATTACH" && other.details.dependencies.contains(&table);
        let above: HashSet<i64> = self
            .items
            .iter()
            .filter(attaching)
            .flat_map(|other| other.details.dependencies.iter().copied())
            .collect();
        let lacks = |other: &&Item| {
            let id = other.entry.dump_id;
            of.details.dependencies.contains(&id)
                && self.lacking.contains(&id)
                && id != table
                && !above.contains(&id)
                // The schema of the table does not matter, nor indexes that this one resembles.
                && !matches!(other.entry.desc.as_str(), "SCHEMA" | "INDEX" | "CONSTRAINT")
                // The target cannot be asked for a name in another encoding.
                && !other.entry.tag.contains(char::REPLACEMENT_CHARACTER)
        };
        self.items.iter().filter(lacks).collect()
    }

    /// A name in a statement that is in the archive's encoding.
    fn spelt(&self, name: &str) -> String {
        if name.is_ascii() || matches!(self.encoding.as_str(), "UTF8" | "SQL_ASCII") {
            return identifier(name);
        }
        let escaped = name.chars().map(|c| match c {
            '"' => "\"\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            _ if c.is_ascii() => c.to_string(),
            _ => format!("\\+{:06x}", u32::from(c)),
        });
        format!("U&\"{}\"", escaped.collect::<String>())
    }

    fn leave(&mut self, what: String, why: impl Into<String>) {
        self.left_out.push(LeftOut { what, why: why.into() });
    }

    fn count(&self, index: usize) -> u64 {
        self.stored.rows(index).unwrap_or_default()
    }

    /// The blocks with its rows. For a partitioned table: those of all its partitions.
    fn rows(&mut self, item: &Item, is_partitioned: bool, shown: &str, spelt: &str) -> Result<Vec<BlockCopy>> {
        let own = HashSet::from([item.entry.dump_id]);
        let family = match is_partitioned {
            true => choice::with_partitions(self.items, own),
            false => own,
        };
        let by_id: HashMap<i64, &Item> = self.items.iter().map(|item| (item.entry.dump_id, item)).collect();
        let copies = self.stored.head.copy_statements();
        let copies = copies.map_err(|error| Error::new(Code::Integrity, error.to_string()))?;
        let (mut rows, mut filled) = (Vec::new(), HashSet::new());
        for (index, data) in self.stored.head.data.iter().enumerate() {
            let of = by_id
                .get(&data.dump_id)
                .filter(|item| item.entry.desc == "TABLE DATA")
                .and_then(|item| item.details.dependencies.iter().find(|id| family.contains(id)));
            let Some(of) = of else { continue };
            filled.insert(*of);
            let loading = Loading::parse(&copies[index]).ok_or_else(|| {
                let what = format!(
                    "{}: its COPY statement is not one that pg_dump writes",
                    self.stored.name(index)
                );
                Error::new(Code::Integrity, what)
            })?;
            rows.push(BlockCopy {
                index,
                statement: Loading {
                    table: spelt.as_bytes(),
                    ..loading
                }
                .statement(),
                // A plain table, with its name spelt so that it fits any encoding.
                place: [b"ONLY ", spelt.as_bytes()].concat(),
                columns: loading.columns.to_vec(),
                names: loading.column_names(),
            });
        }
        let without: Vec<&Item> = self
            .items
            .iter()
            .filter(|item| family.contains(&item.entry.dump_id) && !filled.contains(&item.entry.dump_id))
            .filter(|item| !is_above(item))
            .collect();
        if without.iter().any(|one| one.entry.dump_id == item.entry.dump_id) {
            let what = format!("the backup has no rows of {shown}: they were left out when it was made");
            return Err(
                Error::new(Code::RestoreErr, what).hint("`left_out` in its manifest lists what the backup lacks")
            );
        }
        for lacking in without {
            let what = format!("rows of {}", lacking.entry);
            self.leave(what, "the backup does not have them");
        }
        if is_partitioned {
            let what = format!("the partitions of {shown}");
            self.leave(what, "the copy is one plain table with the rows of all of them");
        }
        Ok(rows)
    }

    /// The indexes and keys that the copy gets. Everything else that belongs to the table is left out and reported.
    /// Also returns whether only the owner may read the copy.
    fn finishing(
        &mut self,
        item: &Item,
        shown: &str,
        spelt: &str,
        has_row_security: bool,
    ) -> Result<(Vec<Finishing>, bool)> {
        let relations = HashSet::from([item.entry.dump_id]);
        let belonging = choice::choose(self.items, &relations, |_| true)?.entries;
        let (mut finishing, mut comments, mut is_guarded) = (Vec::new(), 0, has_row_security);
        for other in self
            .items
            .iter()
            .filter(|other| belonging.contains(&other.entry.dump_id))
        {
            is_guarded |= other.entry.desc == "ROW SECURITY";
            if other.entry.dump_id == item.entry.dump_id {
                continue;
            }
            let what = other.entry.to_string();
            match other.entry.desc.as_str() {
                _ if self.excluded.contains(&other.entry.dump_id) => {
                    self.leave(what, "an option leaves it out");
                }
                "INDEX" | "CONSTRAINT" => match self.finished(item, other, spelt) {
                    Ok(one) => finishing.push(one),
                    Err(why) => self.leave(what, why),
                },
                "TABLE DATA" | "SEQUENCE OWNED BY" | "SEQUENCE SET" | "INDEX ATTACH" | "ROW SECURITY" => {}
                // Those of a partitioned table's partitions are reported together.
                "TABLE ATTACH" if other.entry.tag != item.entry.tag => {}
                "COMMENT" => comments += 1,
                kind => {
                    let why = why_not(kind, self.owner);
                    self.leave(what, why);
                }
            }
        }
        if comments > 0 {
            self.leave(
                format!("comments on {shown} and what belongs to it ({comments})"),
                "a copy's comment names its backup",
            );
        }
        if is_guarded {
            self.leave(
                format!("the rights to rows of {shown}"),
                format!(
                    "the table has row-level security, and so has the copy, without policies: only {} and roles that \
                     bypass it read the copy",
                    self.owner
                ),
            );
        }
        Ok((finishing, is_guarded))
    }

    /// An index or a key under a free name; or the reason why the copy does not get it.
    fn finished(&mut self, item: &Item, other: &Item, spelt: &str) -> std::result::Result<Finishing, String> {
        if let Some(lacking) = self.needs(other, item).first() {
            return Err(format!("the target lacks {}", lacking.entry));
        }
        let (table, [_, written]) = (item.entry.path(), other.entry.path());
        let unknown = || "a copy cannot take over its definition".to_owned();
        let definition = other.definition();
        // The tag of a key begins with its table's name.
        let (index, key, name) = match other.entry.desc.as_str() {
            "CONSTRAINT" => {
                let of_table = format!("{} ", item.entry.tag);
                let name = other.entry.tag.strip_prefix(&of_table).ok_or_else(unknown)?;
                let written = written
                    .strip_prefix(&*table[1])
                    .and_then(|rest| rest.strip_prefix(b" "));
                let written = written.ok_or_else(unknown)?;
                (None, constraint(definition, &table, written).ok_or_else(unknown)?, name)
            }
            _ => {
                let index = Index::parse(definition, &table, &written).ok_or_else(unknown)?;
                (Some(index.is_unique), index.rest, other.entry.tag.as_str())
            }
        };
        let name = free(name, &mut self.taken);
        let named = self.spelt(&name);
        let head = match index {
            Some(true) => format!("CREATE UNIQUE INDEX {named} ON {spelt} "),
            Some(false) => format!("CREATE INDEX {named} ON {spelt} "),
            None => format!("ALTER TABLE ONLY {spelt} ADD CONSTRAINT {named} "),
        };
        Ok(Finishing {
            entry: other.entry.dump_id,
            what: format!("{} as {name}", other.entry),
            statement: [head.as_bytes(), key].concat(),
        })
    }
}

/// Why a copy does not get an object of this kind, which belongs to the table.
fn why_not(kind: &str, owner: &str) -> String {
    let why = match kind {
        "ACL" => return format!("a copy has no grants: only {owner} has rights on it"),
        "TRIGGER" => "a copy has no triggers: it keeps the rows of the backup",
        "RULE" => "a copy has no rules: it keeps the rows of the backup",
        "POLICY" => "a copy has no policies",
        "STATISTICS" => "a copy has no extended statistics",
        "DEFAULT" => "a copy takes no numbers from the table's own sequence",
        "SEQUENCE" => "it belongs to the table: the copy has its numbers as plain values",
        "FK CONSTRAINT" => "a copy refers to no other table, whose rows it would hold",
        _ => OF_ITS_OWN,
    };
    why.to_owned()
}

/// Whether it is a partitioned table, which has no rows of its own.
fn is_above(item: &Item) -> bool {
    Table::parse(item.definition(), &item.entry.path()).is_ok_and(|table| table.is_partitioned)
}

/// The name itself, or a similar one that is free. It is taken from then on.
fn free(wanted: &str, taken: &mut BTreeSet<String>) -> String {
    let readable = wanted.replace(char::REPLACEMENT_CHARACTER, "_");
    let mut name = readable.clone();
    let mut number = 0_u32;
    while name.len() > LONGEST || !taken.insert(name.clone()) {
        number += 1;
        let ending = format!("_{number}");
        let mut end = readable.len().min(LONGEST - ending.len());
        while !readable.is_char_boundary(end) {
            end -= 1;
        }
        name = format!("{}{ending}", &readable[..end]);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_gets_a_number_and_stays_short() {
        let mut taken = BTreeSet::from(["a".to_owned(), "a_1".to_owned()]);
        assert_eq!(free("a", &mut taken), "a_2");
        assert_eq!(free("a", &mut taken), "a_3");
        assert_eq!(free("b", &mut taken), "b");
        let long = "ü".repeat(31);
        assert_eq!(free(&long, &mut taken), long);
        assert_eq!(free(&long, &mut taken), format!("{}_1", "ü".repeat(30)));
        assert_eq!(free(&"x".repeat(80), &mut taken), format!("{}_1", "x".repeat(61)));
    }
}
