//! The messages of a stream of changes, as PostgreSQL's `src/backend/replication/logical/proto.c` writes them. The
//! benchmarks use this file too.

/// The value of a column; `None`: null.
pub type Text<'a> = Option<&'a str>;

/// 2025-01-31T13:00:00Z, in microseconds since 2000.
pub const NOON: i64 = 791_643_600_000_000;

pub fn begin(final_lsn: u64, time: i64, xid: u32) -> Vec<u8> {
    [b"B", &final_lsn.to_be_bytes()[..], &time.to_be_bytes(), &xid.to_be_bytes()].concat()
}

pub fn commit(lsn: u64, end: u64, time: i64) -> Vec<u8> {
    let [lsn, end] = [lsn, end].map(u64::to_be_bytes);
    [b"C\0", &lsn[..], &end, &time.to_be_bytes()].concat()
}

pub fn origin(lsn: u64, name: &str) -> Vec<u8> {
    [b"O", &lsn.to_be_bytes()[..], name.as_bytes(), b"\0"].concat()
}

/// Columns of text; the first `keys` of them are the identity.
pub fn relation(oid: u32, schema: &str, name: &str, identity: u8, keys: usize, columns: &[&str]) -> Vec<u8> {
    let mut message = [b"R", &oid.to_be_bytes()[..], schema.as_bytes(), b"\0", name.as_bytes(), b"\0"].concat();
    message.push(identity);
    message.extend(i16::try_from(columns.len()).unwrap().to_be_bytes());
    for (at, column) in columns.iter().enumerate() {
        message.push(u8::from(at < keys));
        message.extend(column.bytes());
        message.push(0);
        message.extend(25_u32.to_be_bytes());
        message.extend((-1_i32).to_be_bytes());
    }
    message
}

pub fn described_type(oid: u32, schema: &str, name: &str) -> Vec<u8> {
    let oid = oid.to_be_bytes();
    [b"Y", &oid[..], schema.as_bytes(), b"\0", name.as_bytes(), b"\0"].concat()
}

fn tuple(values: &[Text<'_>]) -> Vec<u8> {
    let mut tuple = i16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        match value {
            None => tuple.push(b'n'),
            Some(text) => {
                tuple.push(b't');
                tuple.extend(i32::try_from(text.len()).unwrap().to_be_bytes());
                tuple.extend(text.bytes());
            }
        }
    }
    tuple
}

pub fn insert(relid: u32, new: &[Text<'_>]) -> Vec<u8> {
    [b"I", &relid.to_be_bytes()[..], b"N", &tuple(new)].concat()
}

/// `old`: the kind of the old row, `K` or `O`, and its values.
pub fn update(relid: u32, old: Option<(u8, &[Text<'_>])>, new: &[Text<'_>]) -> Vec<u8> {
    let old = old.map_or(Vec::new(), |(kind, old)| [&[kind], &tuple(old)[..]].concat());
    [b"U", &relid.to_be_bytes()[..], &old, b"N", &tuple(new)].concat()
}

pub fn delete(relid: u32, kind: u8, old: &[Text<'_>]) -> Vec<u8> {
    [b"D", &relid.to_be_bytes()[..], &[kind], &tuple(old)].concat()
}

pub fn truncate(relids: &[u32], flags: u8) -> Vec<u8> {
    let mut message = b"T".to_vec();
    message.extend(u32::try_from(relids.len()).unwrap().to_be_bytes());
    message.push(flags);
    message.extend(relids.iter().flat_map(|relid| relid.to_be_bytes()));
    message
}

pub fn logical(transactional: bool, lsn: u64, prefix: &str, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [
        &[b'M', u8::from(transactional)],
        &lsn.to_be_bytes()[..],
        prefix.as_bytes(),
        b"\0",
        &length,
        content,
    ]
    .concat()
}

/// Transactions one after the other, each at its position.
pub struct Transactions {
    /// Where the last one ended.
    pub position: u64,
    pub xid: u32,
    pub time: i64,
    pub messages: Vec<Vec<u8>>,
}

impl Transactions {
    /// After the position `from`, at noon.
    pub fn after(from: u64) -> Self {
        Self {
            position: from,
            xid: 700,
            time: NOON,
            messages: Vec::new(),
        }
    }

    /// One more, a second after the last one.
    pub fn add(&mut self, changes: impl IntoIterator<Item = Vec<u8>>) -> &mut Self {
        self.time += 1_000_000;
        self.xid += 1;
        let lsn = self.position + 0x100;
        self.position = lsn + 0x30;
        self.messages.push(begin(lsn, self.time, self.xid));
        self.messages.extend(changes);
        self.messages.push(commit(lsn, self.position, self.time));
        self
    }
}
