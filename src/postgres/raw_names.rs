//! Names as a script has them: in the database's encoding.

use super::Session;

/// A table's names in the database's encoding, as pg_dump writes them, and as UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawTable {
    pub raw_schema: Vec<u8>,
    pub raw_name: Vec<u8>,
    pub raw_owner: Vec<u8>,
    pub schema: String,
    pub name: String,
}

impl Session {
    /// Every table. Ask after the snapshot was exported, so that the names are those of that moment. Empty
    /// where it cannot be asked.
    pub async fn raw_tables(&self) -> Vec<RawTable> {
        // A database without an encoding has names that are no text in any.
        let text = match self.server.encoding.as_str() {
            "SQL_ASCII" => "'SQL_ASCII'",
            _ => "'UTF8'",
        };
        let list = |name: &str, encoding: &str| {
            format!(
                "coalesce(pg_catalog.array_agg(pg_catalog.convert_to({name}::pg_catalog.text, {encoding})), '{{}}')"
            )
        };
        let raw = "pg_catalog.getdatabaseencoding()";
        let question = format!(
            "SELECT {}, {}, {}, {}, {}
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r'",
            list("n.nspname", raw),
            list("c.relname", raw),
            list("pg_catalog.pg_get_userbyid(c.relowner)", raw),
            list("n.nspname", text),
            list("c.relname", text),
        );
        let Ok(Some(row)) = self.attempt(&question).await else {
            return Vec::new();
        };
        let mut lists = Vec::new();
        for column in 0..5 {
            let Ok(list) = row.try_get::<_, Vec<Vec<u8>>>(column) else {
                return Vec::new();
            };
            lists.push(list.into_iter());
        }
        let mut next = || -> Option<[Vec<u8>; 5]> {
            let fields: Vec<Vec<u8>> = lists.iter_mut().map_while(Iterator::next).collect();
            fields.try_into().ok()
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        std::iter::from_fn(|| {
            let [raw_schema, raw_name, raw_owner, schema, name] = next()?;
            Some(RawTable {
                raw_schema,
                raw_name,
                raw_owner,
                schema: text(&schema),
                name: text(&name),
            })
        })
        .collect()
    }
}
