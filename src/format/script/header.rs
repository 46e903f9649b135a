//! The comment before each part of a plain dump.

use std::borrow::Cow;

/// `Name: x; Type: TABLE; Schema: public; Owner: o`, or `Data for Name: …`. A name in it has spaces instead of line
/// breaks. It may hold any other text, also the words between the fields, so only the whole line is certain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Header {
    line: Vec<u8>,
}

const DATA: &str = "Data for ";
const NAME: &str = "Name: ";
const TYPE: &str = "; Type: ";
const SCHEMA: &str = "; Schema: ";
const OWNER: &str = "; Owner: ";
const TABLESPACE: &str = "; Tablespace: ";

impl Header {
    /// Reads a whole comment. `None` if it is no header.
    pub fn read(comment: &[u8]) -> Option<Self> {
        let line = comment.strip_prefix(b"-- ")?;
        let fields = line.strip_prefix(DATA.as_bytes()).unwrap_or(line);
        fields.strip_prefix(NAME.as_bytes())?;
        let header = Self { line: line.to_vec() };
        header.fields()?;
        Some(header)
    }

    pub fn line(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.line)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.line
    }

    /// Name, type, schema and owner, searched from the end. If the object's name holds the words between the fields,
    /// it is still whole; the name of a schema or a role with these words is not.
    fn fields(&self) -> Option<[String; 4]> {
        let line = self.line();
        let line = line.strip_prefix(DATA).unwrap_or(&line);
        let (rest, owner) = line.strip_prefix(NAME)?.rsplit_once(OWNER)?;
        let (rest, schema) = rest.rsplit_once(SCHEMA)?;
        let (name, kind) = rest.rsplit_once(TYPE)?;
        let owner = owner.split_once(TABLESPACE).map_or(owner, |(owner, _)| owner);
        Some([name, kind, schema, owner].map(str::to_owned))
    }

    fn field(&self, number: usize) -> String {
        self.fields()
            .map(|mut fields| std::mem::take(&mut fields[number]))
            .unwrap_or_default()
    }

    pub fn name(&self) -> String {
        self.field(0)
    }

    /// `TABLE`, `INDEX` …
    pub fn kind(&self) -> String {
        self.field(1)
    }

    pub fn schema(&self) -> Option<String> {
        Some(self.field(2)).filter(|schema| schema != "-")
    }

    pub fn owner(&self) -> Option<String> {
        Some(self.field(3)).filter(|owner| owner != "-" && !owner.is_empty())
    }

    /// All fields without the tablespace, and without the owner unless `with_owner`.
    pub fn identity(&self, with_owner: bool) -> String {
        let [name, kind, schema, owner] = self.fields().unwrap_or_default();
        let owner = if with_owner { owner } else { String::new() };
        format!("{name}{TYPE}{kind}{SCHEMA}{schema}{OWNER}{owner}")
    }

    pub fn is_of_data(&self) -> bool {
        self.line.starts_with(DATA.as_bytes())
    }

    pub fn is_of_rows(&self) -> bool {
        self.is_of_data() && self.kind() == "TABLE DATA"
    }

    pub fn is_of_large_objects(&self) -> bool {
        self.is_of_data() && self.kind() == "BLOBS"
    }
}

/// For messages: `INDEX public.orders_pkey`.
impl std::fmt::Display for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.schema() {
            Some(schema) => write!(f, "{} {schema}.{}", self.kind(), self.name()),
            None => write!(f, "{} {}", self.kind(), self.name()),
        }
    }
}

/// The header that pg_dump writes before the rows of this table.
pub fn header_of(schema: &[u8], name: &[u8], owner: &[u8]) -> Header {
    let mut line = Vec::new();
    let owner = if owner.is_empty() { b"-" } else { owner };
    for (words, field) in [
        (DATA, &b""[..]),
        (NAME, name),
        (TYPE, b"TABLE DATA"),
        (SCHEMA, schema),
        (OWNER, owner),
    ] {
        line.extend_from_slice(words.as_bytes());
        line.extend(
            field
                .iter()
                .map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }),
        );
    }
    Header { line }
}
