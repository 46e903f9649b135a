//! A plain dump, read for what it holds: the rows of its tables, its large objects, and what it defines.
//!
//! It is looked through token by token ([`Screen`]), so that only what the server would take for a COPY is
//! one. Of the comments between statements, which are pg_dump's alone, the headers say whose each part is:
//! the way in which pg_dump prints an archive's table of contents.

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

/// Of all definitions, in bytes: as much as a table of contents may have.
const DEFINITIONS: usize = 256 << 20;

/// What a script holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// Of the script.
    pub bytes: u64,
    /// In its order.
    pub tables: Vec<Table>,
    pub large_objects: Vec<LargeObjects>,
    /// How many parts are none of data.
    pub headers: u64,
    /// These parts, where they were asked for.
    pub definitions: Vec<Definition>,
    /// That tables and indexes are kept in, likewise.
    pub tablespaces: BTreeSet<Vec<u8>>,
    /// Statements before the first part, likewise; but for the encoding that the script is in.
    pub settings: Vec<Vec<u8>>,
}

/// The rows of one COPY.
#[derive(Debug)]
pub struct Table {
    pub header: Option<Header>,
    /// The table that the COPY names, in the database's encoding: of a partition that is loaded through its
    /// root, the root.
    pub target: TablePath,
    pub through_root: bool,
    /// In the order of the fields.
    pub columns: Vec<Vec<u8>>,
    /// The same as of a block of an archive.
    pub digest: BlockDigest,
    /// The first row's place in the script.
    pub offset: u64,
    /// Of its rows in any order, and of its columns in any, where that was asked for.
    pub sum: Sum,
}

/// A table's name as the script has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TablePath {
    pub schema: Vec<u8>,
    pub name: Vec<u8>,
}

#[derive(Debug)]
pub struct LargeObjects {
    pub digest: BlockDigest,
    /// Of the objects in any order, where that was asked for.
    pub sum: Sum,
}

/// What follows a header that is none of data, to the next one.
#[derive(Debug)]
pub struct Definition {
    pub header: Header,
    /// `None` where they are too long.
    pub statements: Option<Vec<Vec<u8>>>,
}

impl Table {
    pub fn rows(&self) -> u64 {
        match self.digest.content {
            BlockContent::Table { rows } => rows,
            BlockContent::LargeObjects { .. } => 0,
        }
    }

    /// Schema and name. Where rows are loaded through a root, only the header says whose they are, and has
    /// spaces for line breaks.
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

/// Reads a script piece by piece. Memory depends on the number of its tables alone, or on its definitions
/// where those are asked for.
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

    /// For sums that do not depend on an order, and for the definitions too.
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

/// Counts what a [`Screen`] tells.
#[derive(Debug)]
pub struct Counter {
    gathers: bool,
    contents: Contents,
    kept: usize,
    /// The comment before was two dashes alone: what follows may be a header.
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

    /// All that it was told of a script of so many bytes.
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

/// As many as a manifest tells of.
const PARTS: usize = 500_000;

const TABLESPACE: &[u8] = b"SET default_tablespace = ";

/// Of a statement that stands before the part that wants it, and behind another's; or that says how the
/// script's own bytes are read.
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
        // What pg_dump puts behind the line that ends them: in an archive it stands in the block.
        open.digest.update(b"\n\n");
        let (rows, bytes, sha256) = open
            .digest
            .finish()
            .ok_or("ends a table's rows otherwise than pg_dump does")?;
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
