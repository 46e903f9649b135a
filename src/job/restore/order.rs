//! In which order rows may be loaded: a pure function of the archive's table of contents.
//!
//! For most tables the order does not matter. An extension's tables may refer to each other, and the archive has them
//! in the right order. And a table's checks, generated columns and partition keys may call functions that look at
//! other tables: such a table is loaded after all others, or in the archive's own order.

use std::collections::{HashMap, HashSet};

use super::load::Load;
use crate::format::archive::Item;

/// The order that loading must keep, by the dump ids of the rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOrder {
    /// Loaded after all others, one after the other.
    pub late: HashSet<i64>,
    /// Those of them with generated columns, which would silently get other values if they were loaded earlier.
    pub computed: HashSet<i64>,
    /// For each, what must be loaded before it.
    pub behind: HashMap<i64, Vec<i64>>,
    /// Rows of extensions' own tables.
    pub of_extensions: HashSet<i64>,
}

impl LoadOrder {
    pub fn of(items: &[Item]) -> LoadOrder {
        let rows: HashSet<i64> = items
            .iter()
            .filter(|item| item.entry.desc == "TABLE DATA")
            .map(|item| item.entry.dump_id)
            .collect();
        let tables = Looking::around(items);
        let mut behind: HashMap<i64, Vec<i64>> = HashMap::new();
        let of_extensions: HashSet<i64> = of_extensions(items).collect();
        let mut before = None;
        for item in items.iter().filter(|item| rows.contains(&item.entry.dump_id)) {
            let needed = item.details.dependencies.iter().copied();
            let mut needed: Vec<i64> = needed.filter(|id| rows.contains(id)).collect();
            // An extension's functions may look at the extension's own tables, and these may refer to each other.
            if of_extensions.contains(&item.entry.dump_id) {
                needed.extend(before.replace(item.entry.dump_id));
            } else if item.details.dependencies.iter().any(|id| tables.extended.contains(id)) {
                needed.extend(&of_extensions);
            }
            if !needed.is_empty() {
                behind.insert(item.entry.dump_id, needed);
            }
        }
        let is_late = |item: &Item| item.details.dependencies.iter().any(|id| tables.looking.contains(id));
        let mut late = HashSet::new();
        let computed = |item: &&Item| item.details.dependencies.iter().any(|id| tables.computed.contains(id));
        let computed = items
            .iter()
            .filter(|item| rows.contains(&item.entry.dump_id))
            .filter(computed);
        let computed = computed.map(|item| item.entry.dump_id).collect();
        // What waits for a late one is late itself; it comes later in the archive.
        for item in items.iter().filter(|item| rows.contains(&item.entry.dump_id)) {
            let id = item.entry.dump_id;
            let waits = behind
                .get(&id)
                .is_some_and(|ids| ids.iter().any(|id| late.contains(id)));
            if is_late(item) || waits {
                late.insert(id);
            }
        }
        LoadOrder {
            late,
            computed,
            behind,
            of_extensions,
        }
    }

    pub fn is_late(&self, load: &Load) -> bool {
        load.list.iter().any(|id| self.late.contains(id))
    }

    pub fn computes(&self, load: &Load) -> bool {
        load.list.iter().any(|id| self.computed.contains(id))
    }
}

/// Rows of tables that the archive does not define: an extension does.
fn of_extensions(items: &[Item]) -> impl Iterator<Item = i64> {
    let tables: HashSet<i64> = items
        .iter()
        .filter(|item| matches!(item.entry.desc.as_str(), "TABLE" | "FOREIGN TABLE"))
        .map(|item| item.entry.dump_id)
        .collect();
    items
        .iter()
        .filter(|item| item.entry.desc == "TABLE DATA")
        .filter(move |item| !item.details.dependencies.iter().any(|id| tables.contains(id)))
        .map(|item| item.entry.dump_id)
}

/// Tables for whose rows functions are called when they are loaded, by the dump ids of their definitions.
struct Looking {
    /// The functions are the database's own and may look at any table.
    looking: HashSet<i64>,
    /// Such functions compute columns.
    computed: HashSet<i64>,
    /// The functions belong to extensions.
    extended: HashSet<i64>,
}

impl Looking {
    fn around(items: &[Item]) -> Looking {
        let readers = readers(items);
        let needs = |item: &Item, of: &HashSet<i64>| item.details.dependencies.iter().any(|id| of.contains(id));
        let is_table = |item: &&Item| matches!(item.entry.desc.as_str(), "TABLE" | "FOREIGN TABLE");
        let kind = |desc: &'static str| -> HashSet<i64> {
            let of_kind = items.iter().filter(|item| item.entry.desc == desc);
            of_kind.map(|item| item.entry.dump_id).collect()
        };
        let extensions = kind("EXTENSION");
        let types: HashSet<i64> = kind("DOMAIN").union(&kind("TYPE")).copied().collect();
        let read_by_type: HashSet<i64> = readers.intersection(&types).copied().collect();
        let mut looking = HashSet::new();
        let mut extended = HashSet::new();
        for item in items.iter().filter(is_table) {
            let computes = computes(&item.details.definition);
            if needs(item, &read_by_type) || (computes && needs(item, &readers)) {
                looking.insert(item.entry.dump_id);
            }
            if computes && needs(item, &extensions) {
                extended.insert(item.entry.dump_id);
            }
        }
        // Checks of parents hold for child tables and partitions too.
        loop {
            let mut more = Vec::new();
            for item in items {
                match item.entry.desc.as_str() {
                    "TABLE" | "FOREIGN TABLE" if needs(item, &looking) => more.push(item.entry.dump_id),
                    "TABLE ATTACH" if needs(item, &looking) => more.extend(&item.details.dependencies),
                    _ => {}
                }
            }
            let before = looking.len();
            looking.extend(more);
            if looking.len() == before {
                break;
            }
        }
        let mut computed = HashSet::new();
        // A child table does not repeat what its parent computes, and is loaded after it.
        for item in items.iter().filter(|item| looking.contains(&item.entry.dump_id)) {
            if item.details.definition.contains(GENERATED) || needs(item, &computed) {
                computed.insert(item.entry.dump_id);
            }
        }
        Looking {
            looking,
            computed,
            extended,
        }
    }
}

const GENERATED: &str = "GENERATED ALWAYS AS (";

/// Whether loading a row evaluates something. Defaults do not count, since a COPY names all columns.
fn computes(definition: &str) -> bool {
    let words = ["CHECK (", GENERATED, "PARTITION BY "];
    words.iter().any(|word| definition.contains(word))
}

/// Functions that may look at tables, and objects that use such functions: operators, aggregates, domains, types.
fn readers(items: &[Item]) -> HashSet<i64> {
    const MADE_OF_FUNCTIONS: [&str; 7] = [
        "FUNCTION",
        "PROCEDURE",
        "AGGREGATE",
        "OPERATOR",
        "CAST",
        "DOMAIN",
        "TYPE",
    ];
    let made: Vec<&Item> = items
        .iter()
        .filter(|item| MADE_OF_FUNCTIONS.contains(&item.entry.desc.as_str()))
        .collect();
    let bodies: HashMap<i64, Option<HashSet<String>>> = made
        .iter()
        .filter(|item| is_routine(item))
        .map(|item| (item.entry.dump_id, body(&item.details.definition)))
        .collect();
    let mut readers: HashSet<i64> = bodies
        .iter()
        .filter(|(_, words)| words.is_none())
        .map(|(id, _)| *id)
        .collect();
    let mut names: HashSet<String> = HashSet::new();
    loop {
        let before = (readers.len(), names.len());
        // An operator or a cast is used without its name.
        let unnamed = made.iter().any(|item| {
            matches!(item.entry.desc.as_str(), "OPERATOR" | "CAST") && readers.contains(&item.entry.dump_id)
        });
        for item in &made {
            let id = item.entry.dump_id;
            let calls = bodies
                .get(&id)
                .and_then(Option::as_ref)
                .is_some_and(|words| unnamed || names.iter().any(|name| words.contains(name)));
            if calls || item.details.dependencies.iter().any(|other| readers.contains(other)) {
                readers.insert(id);
            }
            if readers.contains(&id) {
                let name = item.entry.tag.split('(').next().unwrap_or_default();
                names.extend(words(name).map(str::to_lowercase));
            }
        }
        if (readers.len(), names.len()) == before {
            return readers;
        }
    }
}

fn is_routine(item: &Item) -> bool {
    matches!(item.entry.desc.as_str(), "FUNCTION" | "PROCEDURE")
}

/// The words in the body of a function that looks at no table itself; `None` for one that may.
fn body(definition: &str) -> Option<HashSet<String>> {
    /// SQL and PL/pgSQL read rows, sequences or large objects only with one of these words.
    const READING: [&str; 13] = [
        "from",
        "table",
        "execute",
        "call",
        "into",
        "update",
        "nextval",
        "currval",
        "lastval",
        "lo_get",
        "query_to_xml",
        "table_to_xml",
        "loread",
    ];
    let language = definition.split(" LANGUAGE ").nth(1)?;
    let language = language.split_whitespace().next()?;
    if !matches!(language, "sql" | "plpgsql") {
        return None;
    }
    let words: HashSet<String> = words(definition).map(str::to_lowercase).collect();
    READING.iter().all(|word| !words.contains(*word)).then_some(words)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: i64, desc: &str, tag: &str, definition: &str, dependencies: &[i64]) -> Item {
        Item::sample(id, desc, tag).defined(definition).needing(dependencies)
    }

    fn function(id: i64, name: &str, language: &str, body: &str) -> Item {
        let text = format!(
            "CREATE FUNCTION s.{name}(a integer) RETURNS boolean\n    LANGUAGE {language} IMMUTABLE\n    AS $$ {body} $$;"
        );
        item(id, "FUNCTION", &format!("{name}(integer)"), &text, &[])
    }

    #[test]
    fn tables_whose_functions_may_look_at_others_come_late() {
        let check = "CREATE TABLE s.t (a integer, CONSTRAINT c CHECK (s.f(a)));";
        for (what, functions, late) in [
            (
                "a query",
                vec![function(1, "f", "sql", "SELECT EXISTS (SELECT FROM s.u)")],
                true,
            ),
            ("an expression", vec![function(1, "f", "sql", "SELECT $1 > 0")], false),
            (
                "another language",
                vec![function(1, "f", "plpython3u", "return True")],
                true,
            ),
            (
                "through another",
                vec![
                    function(1, "f", "plpgsql", "BEGIN RETURN s.g(a); END"),
                    function(2, "g", "sql", "SELECT count(*) > 0 FROM s.u"),
                ],
                true,
            ),
            (
                "through an operator",
                vec![
                    function(1, "f", "sql", "SELECT a ## 1"),
                    function(2, "g", "sql", "SELECT count(*) > 0 FROM s.u"),
                    item(3, "OPERATOR", "##", "CREATE OPERATOR s.## (FUNCTION = s.g);", &[2]),
                ],
                true,
            ),
        ] {
            let mut items = functions;
            items.push(item(10, "TABLE", "t", check, &[1]));
            items.push(item(
                11,
                "TABLE",
                "d",
                "CREATE TABLE s.d (a integer DEFAULT s.f(1));",
                &[1],
            ));
            items.push(item(20, "TABLE DATA", "t", "", &[10]));
            items.push(item(21, "TABLE DATA", "d", "", &[11]));
            let order = LoadOrder::of(&items);
            assert_eq!(
                order.late,
                if late { HashSet::from([20]) } else { HashSet::new() },
                "{what}"
            );
        }
    }

    #[test]
    fn heirs_partitions_and_columns_of_such_a_domain_come_late_too_and_what_waits_for_them() {
        let items = [
            function(1, "f", "sql", "SELECT EXISTS (SELECT FROM s.u)"),
            item(
                2,
                "DOMAIN",
                "d",
                "CREATE DOMAIN s.d AS int CONSTRAINT c CHECK (s.f(VALUE));",
                &[1],
            ),
            item(3, "TABLE", "a", "CREATE TABLE s.a (a s.d);", &[2]),
            item(
                4,
                "TABLE",
                "b",
                "CREATE TABLE s.b (a int) PARTITION BY RANGE (s.f(a));",
                &[1],
            ),
            item(5, "TABLE", "b1", "CREATE TABLE s.b1 (a int);", &[]),
            item(6, "TABLE ATTACH", "b1", "", &[5, 4]),
            item(7, "TABLE", "c", "CREATE TABLE s.c () INHERITS (s.a);", &[3]),
            item(8, "TABLE", "e", "CREATE TABLE s.e (a int, CHECK ((a > 0)));", &[]),
            item(13, "TABLE DATA", "a", "", &[3]),
            item(15, "TABLE DATA", "b1", "", &[5]),
            item(17, "TABLE DATA", "c", "", &[7]),
            item(18, "TABLE DATA", "e", "", &[8]),
            item(19, "TABLE DATA", "config", "", &[15]),
        ];
        let order = LoadOrder::of(&items);
        assert_eq!(order.late, HashSet::from([13, 15, 17, 19]));
        assert!(order.computed.is_empty());
        assert_eq!(order.behind, HashMap::from([(19, vec![15])]));
    }

    #[test]
    fn columns_that_are_computed_by_such_a_function_are_known_with_their_heirs() {
        let columns = "CREATE TABLE s.a (a integer, b boolean GENERATED ALWAYS AS (s.f(a)) STORED);";
        let items = [
            function(1, "f", "sql", "SELECT EXISTS (SELECT FROM s.u)"),
            item(2, "TABLE", "a", columns, &[1]),
            item(3, "TABLE", "b", "CREATE TABLE s.b () INHERITS (s.a);", &[2]),
            item(12, "TABLE DATA", "a", "", &[2]),
            item(13, "TABLE DATA", "b", "", &[3]),
        ];
        assert_eq!(LoadOrder::of(&items).computed, HashSet::from([12, 13]));
    }

    #[test]
    fn what_an_extensions_function_checks_waits_for_the_extensions_rows() {
        let items = [
            item(1, "EXTENSION", "postgis", "", &[]),
            item(
                2,
                "TABLE",
                "t",
                "CREATE TABLE s.t (CONSTRAINT c CHECK (x.st_srid(a) = 1));",
                &[1],
            ),
            item(3, "TABLE DATA", "t", "", &[2]),
            item(4, "TABLE DATA", "spatial_ref_sys", "", &[1]),
        ];
        let order = LoadOrder::of(&items);
        assert_eq!(order.behind, HashMap::from([(3, vec![4])]));
        assert!(order.late.is_empty());
    }
}
