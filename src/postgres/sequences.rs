//! The positions of all sequences, as they are now.

use std::fmt::Write as _;

use tokio_postgres::error::SqlState;

use super::Session;
use super::quoting::qualified;
use crate::error::Result;

/// The number of sequences that one query reads.
const AT_ONCE: usize = 250;
/// How often the sequences are listed again if one of them is gone before it is read.
const LISTED: usize = 5;

/// Where a sequence is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceReading {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub last_value: i64,
    pub is_called: bool,
    /// Whether its numbers grow; if not, they fall. `None`: at its end it begins anew (CYCLE).
    pub ascends: Option<bool>,
}

/// All sequences that are not temporary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SequenceReadings {
    /// In the order of the OIDs.
    pub read: Vec<SequenceReading>,
    /// Names of those that the role may not read.
    pub unreadable: Vec<String>,
}

impl Session {
    pub async fn sequence_readings(&self) -> Result<SequenceReadings> {
        let mut left = LISTED;
        loop {
            left -= 1;
            match self.read_sequences().await {
                Ok(readings) => return Ok(readings),
                // It was dropped or renamed since it was listed.
                Err(error) if left > 0 && is_gone(error.code()) => {}
                Err(error) => return Err(self.error("cannot read the sequences", &error)),
            }
        }
    }

    async fn read_sequences(&self) -> Result<SequenceReadings, tokio_postgres::Error> {
        let listed = "SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text,
                             pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                               AND pg_catalog.has_sequence_privilege(c.oid, 'SELECT'),
                             CASE WHEN NOT s.seqcycle THEN s.seqincrement > 0 END
                      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                      JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid
                      WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_'
                        AND n.nspname <> 'information_schema'
                      ORDER BY c.oid";
        let mut readings = SequenceReadings::default();
        let mut readable = Vec::new();
        let mut ascending: Vec<Option<bool>> = Vec::new();
        for row in self.client.query(listed, &[]).await? {
            let (oid, schema, name): (u32, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            match row.try_get(3)? {
                true => {
                    readable.push((oid, schema, name));
                    ascending.push(row.try_get(4)?);
                }
                false => readings.unreadable.push(format!("{schema}.{name}")),
            }
        }
        for (some, ascending) in readable.chunks(AT_ONCE).zip(ascending.chunks(AT_ONCE)) {
            let rows = self.client.query(&question(some), &[]).await?;
            for (((oid, schema, name), row), ascends) in some.iter().zip(&rows).zip(ascending) {
                readings.read.push(SequenceReading {
                    oid: *oid,
                    schema: schema.clone(),
                    name: name.clone(),
                    last_value: row.try_get(1)?,
                    is_called: row.try_get(2)?,
                    ascends: *ascends,
                });
            }
        }
        Ok(readings)
    }
}

/// One row for each of these sequences, in their order.
fn question(sequences: &[(u32, String, String)]) -> String {
    let mut question = "SELECT one.place, one.last_value, one.is_called FROM (".to_owned();
    for (place, (_, schema, name)) in sequences.iter().enumerate() {
        let before = if place == 0 { "" } else { " UNION ALL " };
        let _ = write!(
            question,
            "{before}SELECT {place}, s.last_value, s.is_called FROM {} s",
            qualified(schema, name)
        );
    }
    question.push_str(") AS one (place, last_value, is_called) ORDER BY one.place");
    question
}

fn is_gone(code: Option<&SqlState>) -> bool {
    let states = [
        SqlState::UNDEFINED_TABLE,
        SqlState::INVALID_SCHEMA_NAME,
        SqlState::UNDEFINED_COLUMN,
        SqlState::WRONG_OBJECT_TYPE,
    ];
    code.is_some_and(|code| states.contains(code))
}
