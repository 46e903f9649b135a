//! The description of a table, as its changes need it.

use super::PgoutputError;
use super::input::Input;

/// How a table's changes say which row they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// By the primary key.
    Default,
    /// By a unique index.
    Index,
    /// By all columns.
    Full,
    /// Not at all: only inserts and truncates are sent.
    Nothing,
}

impl Identity {
    /// As the manifest has it.
    pub fn name(self) -> &'static str {
        match self {
            Identity::Default => "default",
            Identity::Index => "index",
            Identity::Full => "full",
            Identity::Nothing => "nothing",
        }
    }

    fn of(byte: u8) -> Option<Self> {
        match byte {
            b'd' => Some(Identity::Default),
            b'i' => Some(Identity::Index),
            b'f' => Some(Identity::Full),
            b'n' => Some(Identity::Nothing),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    pub oid: u32,
    /// Empty for `pg_catalog`.
    pub schema: Vec<u8>,
    pub name: Vec<u8>,
    pub identity: Identity,
    /// Without dropped and generated columns.
    pub columns: Vec<Column>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// It belongs to the replica identity; with `full`, every column does.
    pub is_key: bool,
    pub name: Vec<u8>,
    pub type_oid: u32,
    pub typmod: i32,
}

impl Relation {
    pub(super) fn read(input: &mut Input<'_>) -> Result<Self, PgoutputError> {
        let oid = input.u32()?;
        let (schema, name) = (input.text()?.to_vec(), input.text()?.to_vec());
        let identity = input.u8()?;
        let identity = Identity::of(identity).ok_or(PgoutputError::Identity(identity))?;
        let count = input.count16()?;
        // Grows with the bytes that are really there: the number may be a lie.
        let mut columns = Vec::new();
        for _ in 0..count {
            columns.push(Column {
                is_key: input.u8()? & 1 != 0,
                name: input.text()?.to_vec(),
                type_oid: input.u32()?,
                typmod: input.i32()?,
            });
        }
        Ok(Self {
            oid,
            schema,
            name,
            identity,
            columns,
        })
    }

    /// Schema and name for messages; bytes that are no UTF-8 are replaced.
    pub fn display(&self) -> String {
        let (schema, name) = self.names();
        format!("{schema}.{name}")
    }

    /// Schema and name as text; bytes that are no UTF-8 are replaced.
    pub fn names(&self) -> (String, String) {
        let schema = match &*self.schema {
            [] => b"pg_catalog",
            schema => schema,
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(schema), text(&self.name))
    }
}
