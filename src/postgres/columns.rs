//! The columns of all tables, as COPY and a stream of changes have them.

use std::collections::HashMap;

use super::Session;

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableColumn {
    pub name: String,
    /// As `format_type` prints it.
    pub type_name: String,
    /// Computed from other columns: neither COPY nor a stream has its values.
    pub is_generated: bool,
}

impl Session {
    /// The columns of each table, by the table's OID. Call it after the snapshot was exported, so that they are those
    /// of the snapshot. Empty if the query fails.
    pub async fn columns(&self) -> HashMap<u32, Vec<TableColumn>> {
        let question = "SELECT coalesce(pg_catalog.array_agg(known.attrelid), '{}'),
                               coalesce(pg_catalog.array_agg(known.attname), '{}'),
                               coalesce(pg_catalog.array_agg(known.type_name), '{}'),
                               coalesce(pg_catalog.array_agg(known.is_generated), '{}')
            FROM (SELECT a.attrelid, a.attname::pg_catalog.text AS attname,
                         pg_catalog.format_type(a.atttypid, a.atttypmod) AS type_name,
                         a.attgenerated <> '' AS is_generated
                  FROM pg_catalog.pg_attribute a
                  JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
                  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                  WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND a.attnum > 0 AND NOT a.attisdropped
                    AND n.nspname <> 'pg_catalog' AND n.nspname <> 'information_schema'
                  ORDER BY a.attrelid, a.attnum) AS known";
        let Ok(Some(row)) = self.attempt(question).await else {
            return HashMap::new();
        };
        let (tables, names, types, generated): (Vec<u32>, Vec<String>, Vec<String>, Vec<bool>) =
            match (row.try_get(0), row.try_get(1), row.try_get(2), row.try_get(3)) {
                (Ok(tables), Ok(names), Ok(types), Ok(generated)) => (tables, names, types, generated),
                _ => return HashMap::new(),
            };
        let columns = names.into_iter().zip(types).zip(generated);
        let mut of_tables: HashMap<u32, Vec<TableColumn>> = HashMap::new();
        for (table, ((name, type_name), is_generated)) in tables.into_iter().zip(columns) {
            of_tables.entry(table).or_default().push(TableColumn {
                name,
                type_name,
                is_generated,
            });
        }
        of_tables
    }
}
