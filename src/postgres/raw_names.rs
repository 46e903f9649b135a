//! Names as a script contains them: in the database's encoding.

use tokio_postgres::Row;

use super::Session;
use crate::error::Result;

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
    /// All tables. Call it after the snapshot was exported, so that the names are those of the snapshot. Empty if the
    /// query fails.
    pub async fn raw_tables(&self) -> Vec<RawTable> {
        // In a database without an encoding, names are not text in any encoding.
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

    /// Converts these texts from this encoding to UTF-8; `None` for bytes that are not valid in it.
    pub async fn texts_of(&self, encoding: &str, texts: &[Vec<u8>]) -> Result<Vec<Option<String>>> {
        const QUESTION: &str = "SELECT pg_catalog.convert(one.text, $2::pg_catalog.text::pg_catalog.name, 'UTF8')
             FROM pg_catalog.unnest($1::pg_catalog.bytea[]) WITH ORDINALITY AS one (text, at) ORDER BY one.at";
        if encoding == "SQL_ASCII" {
            return Ok(vec![None; texts.len()]);
        }
        let read = |row: &Row| {
            let text: Option<Vec<u8>> = row.try_get(0).ok();
            text.and_then(|bytes| String::from_utf8(bytes).ok())
        };
        let together = self.client.query(QUESTION, &[&texts, &encoding]).await;
        if let Ok(rows) = together {
            return Ok(rows.iter().map(read).collect());
        }
        let mut all = Vec::with_capacity(texts.len());
        for text in texts {
            match self.client.query(QUESTION, &[&&[text][..], &encoding]).await {
                Ok(rows) => all.push(rows.first().and_then(read)),
                Err(error) if error.is_closed() => {
                    return Err(self.error("cannot read the names in the backup's encoding", &error));
                }
                Err(_) => all.push(None),
            }
        }
        Ok(all)
    }
}
