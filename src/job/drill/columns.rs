//! The table of each block's rows, and the order in which its columns are compared. A dump does not always keep the
//! order of columns: in a table with child tables, or a typed table, it may change. And rows that are loaded through
//! the root of their partitions may come back in another partition.

use std::collections::{BTreeSet, HashMap};

use crate::format::archive::{ArchiveError, BlockKind, Head, Loading};

/// Schema and name, in the database's encoding.
pub(super) type Path = Vec<Vec<u8>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub table: Path,
    /// The table that its rows are loaded into, if that is another one.
    pub root: Option<Path>,
    columns: Vec<Vec<u8>>,
}

/// The layout of every block, in the order of [`Head::data`]; none for large objects.
pub(super) fn layouts(head: &Head) -> Result<Vec<Option<Layout>>, ArchiveError> {
    let copies = head.copy_statements()?;
    let layout = |(entry, copy): (&crate::format::archive::TocEntry, &Vec<u8>)| {
        if entry.block_kind() == BlockKind::LargeObjects {
            return None;
        }
        let own = || entry.path();
        let Some(loading) = Loading::parse(copy) else {
            return Some(Layout {
                table: own().into(),
                root: None,
                columns: Vec::new(),
            });
        };
        let path = loading.path();
        let (table, root) = if loading.is_through_another(entry) {
            (own().into(), Some(path))
        } else {
            (path, None)
        };
        Some(Layout {
            table,
            root,
            columns: loading.column_names(),
        })
    };
    Ok(head.data.iter().zip(&copies).map(layout).collect())
}

/// The order in which to read a row's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ColumnOrder {
    AsTheyAre,
    /// The positions of the columns that must come first, second, and so on.
    Of(Vec<usize>),
    /// The columns are not the same, with the difference.
    Other(String),
}

/// The order of columns in the backup: of each table, and one for all the partitions of a root.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted(HashMap<Path, Vec<Vec<u8>>>);

impl Wanted {
    pub fn of(layouts: &[Option<Layout>]) -> Wanted {
        let mut of_roots: HashMap<&Path, &Vec<Vec<u8>>> = HashMap::new();
        let mut wanted = HashMap::new();
        for layout in layouts.iter().flatten() {
            let columns = match &layout.root {
                Some(root) => *of_roots.entry(root).or_insert(&layout.columns),
                None => &layout.columns,
            };
            wanted.insert(layout.table.clone(), columns.clone());
        }
        Wanted(wanted)
    }

    pub fn order(&self, layout: &Layout) -> ColumnOrder {
        let Some(wanted) = self.0.get(&layout.table) else {
            return ColumnOrder::AsTheyAre;
        };
        if *wanted == layout.columns {
            return ColumnOrder::AsTheyAre;
        }
        let places: HashMap<&[u8], usize> = layout.columns.iter().map(Vec::as_slice).zip(0..).collect();
        let order: Option<Vec<usize>> = wanted.iter().map(|name| places.get(name.as_slice()).copied()).collect();
        match order {
            Some(order) if order.len() == layout.columns.len() => ColumnOrder::Of(order),
            _ => ColumnOrder::Other(difference(wanted, &layout.columns)),
        }
    }
}

fn difference(wanted: &[Vec<u8>], there: &[Vec<u8>]) -> String {
    let (wanted, there): (BTreeSet<_>, BTreeSet<_>) = (wanted.iter().collect(), there.iter().collect());
    let list = |names: Vec<&&Vec<u8>>| {
        let quoted = |name: &&&Vec<u8>| format!("{:?}", String::from_utf8_lossy(name));
        names.iter().map(quoted).collect::<Vec<_>>().join(", ")
    };
    let (lost, new) = (
        list(wanted.difference(&there).collect()),
        list(there.difference(&wanted).collect()),
    );
    match (lost.as_str(), new.as_str()) {
        (lost, "") => format!("lacks the columns {lost}"),
        ("", new) => format!("has columns that the backup lacks: {new}"),
        (lost, new) => format!("lacks the columns {lost}, and has others: {new}"),
    }
}

/// Writes a row of COPY's text format, without its end, in this order of columns. In this format a tab occurs only
/// between columns, whatever they hold. A line that is no such row stays as it is.
pub(super) fn reorder(row: &[u8], order: &[usize], out: &mut Vec<u8>) {
    let columns: Vec<&[u8]> = row.split(|byte| *byte == b'\t').collect();
    if columns.len() != order.len() {
        out.extend_from_slice(row);
        return;
    }
    for (number, place) in order.iter().enumerate() {
        if number > 0 {
            out.push(b'\t');
        }
        out.extend_from_slice(columns[*place]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(table: &str, root: Option<&str>, columns: &[&str]) -> Layout {
        let path = |name: &str| vec![b"s".to_vec(), name.as_bytes().to_vec()];
        Layout {
            table: path(table),
            root: root.map(path),
            columns: columns.iter().map(|name| name.as_bytes().to_vec()).collect(),
        }
    }

    #[test]
    fn columns_are_found_by_their_names_and_others_are_named() {
        let wanted = Wanted::of(&[Some(layout("t", None, &["a", "b,c", "d"]))]);
        assert_eq!(
            wanted.order(&layout("t", None, &["a", "b,c", "d"])),
            ColumnOrder::AsTheyAre
        );
        assert_eq!(
            wanted.order(&layout("t", None, &["d", "a", "b,c"])),
            ColumnOrder::Of(vec![1, 2, 0])
        );
        for (columns, difference) in [
            (&["a", "d"][..], "lacks the columns \"b,c\""),
            (&["a", "b,c", "d", "e"], "has columns that the backup lacks: \"e\""),
            (&["a", "b", "d"], "lacks the columns \"b,c\", and has others: \"b\""),
        ] {
            assert_eq!(
                wanted.order(&layout("t", None, columns)),
                ColumnOrder::Other(difference.into())
            );
        }
    }

    #[test]
    fn the_partitions_of_a_root_have_one_order() {
        let wanted = Wanted::of(&[
            Some(layout("one", Some("root"), &["a", "b"])),
            None,
            Some(layout("two", Some("root"), &["b", "a"])),
            Some(layout("three", Some("other"), &["b", "a"])),
        ]);
        let order = |table, root| wanted.order(&layout(table, Some(root), &["b", "a"]));
        assert_eq!(order("two", "root"), ColumnOrder::Of(vec![1, 0]));
        assert_eq!(order("three", "other"), ColumnOrder::AsTheyAre);
    }

    #[test]
    fn a_row_is_taken_apart_where_its_columns_end() {
        let reordered = |row: &str, order: &[usize]| {
            let mut out = Vec::new();
            reorder(row.as_bytes(), order, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(reordered("1\ta\\tb\\\\\t\\N", &[2, 0, 1]), "\\N\t1\ta\\tb\\\\");
        assert_eq!(reordered("\t\t", &[2, 0, 1]), "\t\t");
        assert_eq!(reordered("\\.", &[1, 0]), "\\.");
    }
}
