//! Reads the content of a plain dump: the rows of its tables, its large objects, and its definitions.
//!
//! [`Screen`] reads it token by token, so that pgstow takes only those texts for a COPY that the server would take for
//! one. Only pg_dump writes comments between statements. Some of them are headers, which name the object of each part:
//! in this form pg_dump prints an archive's table of contents.

mod copy;
mod header;
mod objects;
mod screen;
mod sum;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::format::archive::{BlockContent, BlockDigest, TableDigest};

use copy::{CopyStatement, identifier, through_root};
pub use header::{Header, header_of};
use objects::Objects;
pub use screen::{Edit, Refused, Screen, Watch};
pub(crate) use sum::RowSum;
pub use sum::Sum;

/// The most bytes of definitions that are kept: as much as a table of contents may have.
const DEFINITIONS: usize = 256 << 20;

/// The content of a script.
#[derive(Debug, Default)]
pub struct Contents {
    /// The length of the script.
    pub bytes: u64,
    /// In the script's order.
    pub tables: Vec<Table>,
    pub large_objects: Vec<LargeObjects>,
    /// How many parts hold no data.
    pub headers: u64,
    /// These parts, if the reader gathers them ([`Reader::gathering`]).
    pub definitions: Vec<Definition>,
    /// The tablespaces of tables and indexes, if the reader gathers them.
    pub tablespaces: BTreeSet<Vec<u8>>,
    /// The statements before the first part, if the reader gathers them, without that of the script's encoding.
    pub settings: Vec<Vec<u8>>,
}

/// The rows of one COPY.
#[derive(Debug)]
pub struct Table {
    pub header: Option<Header>,
    /// The table that the COPY names, in the database's encoding. For a partition that is loaded through its root,
    /// this is the root.
    pub target: TablePath,
    pub through_root: bool,
    /// In the order of the fields.
    pub columns: Vec<Vec<u8>>,
    /// The same digest as for a block of an archive.
    pub digest: BlockDigest,
    /// The place of the first row in the script.
    pub offset: u64,
    /// A sum that does not depend on the order of rows and columns, if the reader gathers it.
    pub sum: Sum,
}

/// A table's name, as in the script.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TablePath {
    pub schema: Vec<u8>,
    pub name: Vec<u8>,
}

#[derive(Debug)]
pub struct LargeObjects {
    pub digest: BlockDigest,
    /// A sum that does not depend on the order of the objects, if the reader gathers it.
    pub sum: Sum,
}

/// A part that holds no data: a header, and the statements up to the next header.
#[derive(Debug)]
pub struct Definition {
    pub header: Header,
    /// `None` if they are too long.
    pub statements: Option<Vec<Vec<u8>>>,
}

impl Table {
    pub fn rows(&self) -> u64 {
        match self.digest.content {
            BlockContent::Table { rows } => rows,
            BlockContent::LargeObjects { .. } => 0,
        }
    }

    /// Schema and name. If rows are loaded through a root, only the header names their table; it has spaces instead of
    /// line breaks.
    pub fn name(&self) -> (String, String) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match &self.header {
            Some(header) if self.through_root => (header.schema().unwrap_or_default(), header.name()),
            _ => (text(&self.target.schema), text(&self.target.name)),
        }
    }
}

impl LargeObjects {
    pub fn count(&self) -> u64 {
        match self.digest.content {
            BlockContent::LargeObjects { count } => count,
            BlockContent::Table { .. } => 0,
        }
    }
}

/// Reads a script piece by piece. The memory depends only on the number of its tables, and on its definitions if the
/// reader gathers them.
#[derive(Debug)]
pub struct Reader {
    screen: Screen<Counter>,
}

impl Reader {
    /// For rows, bytes and digests.
    pub fn counting() -> Self {
        Self {
            screen: Screen::watched(Counter::counting()),
        }
    }

    /// Also for the definitions, and for sums that do not depend on an order.
    pub fn gathering() -> Self {
        Self {
            screen: Screen::watched(Counter::gathering()),
        }
    }

    pub fn pass(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        self.screen.pass(bytes)
    }

    pub fn end(self, bytes: u64) -> Result<Contents, Refused> {
        let (_, counter): (Vec<Edit>, Counter) = self.screen.end_watched()?;
        Ok(counter.contents(bytes))
    }
}

/// Collects the content that a [`Screen`] reports.
#[derive(Debug)]
pub struct Counter {
    gathers: bool,
    contents: Contents,
    kept: usize,
    /// The last comment was only two dashes, so the next one may be a header.
    behind_dashes: bool,
    header: Option<Header>,
    through_root: bool,
    open: Option<Open>,
    objects: Option<Objects>,
}

#[derive(Debug)]
struct Open {
    copy: CopyStatement,
    offset: u64,
    digest: TableDigest,
    sum: Option<RowSum>,
}

impl Counter {
    pub fn counting() -> Self {
        Self {
            gathers: false,
            contents: Contents::default(),
            kept: 0,
            behind_dashes: false,
            header: None,
            through_root: false,
            open: None,
            objects: None,
        }
    }

    pub fn gathering() -> Self {
        Self {
            gathers: true,
            ..Self::counting()
        }
    }

    /// The content of a script with this many bytes.
    pub fn contents(mut self, bytes: u64) -> Contents {
        self.end_objects();
        Contents { bytes, ..self.contents }
    }

    fn end_objects(&mut self) {
        if let Some(objects) = self.objects.take() {
            self.contents.large_objects.push(objects.finish());
        }
    }

    fn begin_part(&mut self, header: Header) {
        self.end_objects();
        self.through_root = false;
        if header.is_of_large_objects() {
            self.objects = Some(Objects::new(self.gathers));
        } else if !header.is_of_data() {
            self.contents.headers += 1;
            if self.gathers {
                self.contents.definitions.push(Definition {
                    header: header.clone(),
                    statements: Some(Vec::new()),
                });
            }
        }
        self.header = Some(header);
    }
}

/// As many parts as a manifest may have.
const PARTS: usize = 500_000;

const TABLESPACE: &[u8] = b"SET default_tablespace = ";

/// Whether a statement sets something for the parts after it (so it belongs to no part), or the script's own encoding.
fn is_ambient(sql: &[u8]) -> bool {
    let settings: [&[u8]; 3] = [
        TABLESPACE,
        b"SET default_table_access_method = ",
        b"SET client_encoding = ",
    ];
    settings.iter().any(|setting| sql.starts_with(setting))
}

impl Watch for Counter {
    /// A COPY of 1,600 columns has a quarter of a megabyte, a piece of a large object 32 KiB.
    const KEEPS: usize = 4 << 20;

    fn comment(&mut self, text: &[u8]) -> Result<(), String> {
        let behind_dashes = std::mem::replace(&mut self.behind_dashes, text == b"--");
        if behind_dashes && let Some(header) = Header::read(text) {
            if self.contents.headers >= PARTS as u64 {
                return Err(format!("it has more than {PARTS} parts"));
            }
            self.begin_part(header);
        }
        self.through_root |= through_root(text);
        Ok(())
    }

    fn statement(&mut self, sql: &[u8], whole: bool) -> Result<(), String> {
        self.behind_dashes = false;
        if let Some(objects) = &mut self.objects {
            return objects.statement(sql);
        }
        if !self.gathers {
            return Ok(());
        }
        if is_ambient(sql) {
            let tablespace = sql.strip_prefix(TABLESPACE).and_then(|mut rest| identifier(&mut rest));
            if self.contents.tablespaces.len() < PARTS {
                self.contents.tablespaces.extend(tablespace);
            }
            return Ok(());
        }
        self.kept += sql.len();
        let fits = whole && self.kept <= DEFINITIONS;
        match (&self.header, self.contents.definitions.last_mut()) {
            (None, _) if fits => self.contents.settings.push(sql.to_vec()),
            (Some(header), Some(definition)) if !header.is_of_data() => match &mut definition.statements {
                Some(statements) if fits => statements.push(sql.to_vec()),
                statements => *statements = None,
            },
            _ => {}
        }
        Ok(())
    }

    fn rows_begin(&mut self, sql: &[u8], at: u64) -> Result<(), String> {
        self.behind_dashes = false;
        let copy = CopyStatement::read(sql).ok_or("has a COPY that pg_dump does not write")?;
        let sum = self.gathers.then(|| RowSum::of(&copy.columns));
        self.open = Some(Open {
            copy,
            offset: at,
            digest: TableDigest::default(),
            sum,
        });
        Ok(())
    }

    fn rows(&mut self, bytes: &[u8]) {
        if let Some(open) = &mut self.open {
            open.digest.update(bytes);
            if let Some(sum) = &mut open.sum {
                sum.update(bytes);
            }
        }
    }

    fn rows_end(&mut self) -> Result<(), String> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        // pg_dump writes this after the line that ends the rows. In an archive it is in the block.
        open.digest.update(b"\n\n");
        let (rows, bytes, sha256) = open
            .digest
            .finish()
            .ok_or("ends a table's rows differently from pg_dump")?;
        if self.contents.tables.len() >= PARTS {
            return Err(format!("it has more than {PARTS} tables"));
        }
        let header = self.header.clone().filter(Header::is_of_rows);
        self.contents.tables.push(Table {
            through_root: self.through_root && header.is_some(),
            header,
            target: open.copy.target,
            columns: open.copy.columns,
            digest: BlockDigest {
                content: BlockContent::Table { rows },
                bytes,
                sha256,
            },
            offset: open.offset,
            sum: open.sum.map(RowSum::finish).unwrap_or_default(),
        });
        Ok(())
    }
}
