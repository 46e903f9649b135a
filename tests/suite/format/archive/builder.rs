//! Builds archives as pg_dump -Z0 writes them into a pipe, and takes rewritten ones apart again,
//! both without the code under test.

use std::io::Read;

/// What goes into an archive.
#[derive(Debug, Clone)]
pub enum Content {
    /// A table's rows, one chunk each, without newline; pg_dump's terminator is added.
    Table(Vec<Vec<u8>>),
    /// Large objects with their OID and their chunks.
    LargeObjects(Vec<(u32, Vec<Vec<u8>>)>),
}

#[derive(Debug, Clone)]
pub struct Builder {
    pub minor: u8,
    pub blocks: Vec<Content>,
}

pub fn int(value: i64, out: &mut Vec<u8>) {
    out.push(u8::from(value < 0));
    out.extend((value.unsigned_abs() as u32).to_le_bytes());
}

pub fn string(text: Option<&str>, out: &mut Vec<u8>) {
    match text {
        None => int(-1, out),
        Some(text) => {
            int(text.len() as i64, out);
            out.extend(text.as_bytes());
        }
    }
}

impl Builder {
    pub fn head(&self) -> Vec<u8> {
        let mut out = b"PGDMP".to_vec();
        out.extend([1, self.minor, 0, 4, 8, 1]);
        if self.minor >= 15 {
            out.push(0);
        } else {
            int(0, &mut out);
        }
        for value in [1, 2, 3, 4, 5, 126, 0] {
            int(value, &mut out);
        }
        for text in ["shop", "17.1", "17.1"] {
            string(Some(text), &mut out);
        }
        int(self.blocks.len() as i64 + 1, &mut out);
        self.entry(900, false, "ENCODING", "ENCODING", None, &mut out);
        for (index, block) in self.blocks.iter().enumerate() {
            match block {
                Content::Table(_) => {
                    let tag = format!("t{index}");
                    self.entry(index as i64 + 1, true, &tag, "TABLE DATA", Some("public"), &mut out);
                }
                Content::LargeObjects(_) => self.entry(index as i64 + 1, true, "BLOBS", "BLOBS", None, &mut out),
            }
        }
        out
    }

    fn entry(&self, id: i64, data: bool, tag: &str, desc: &str, namespace: Option<&str>, out: &mut Vec<u8>) {
        int(id, out);
        int(i64::from(data), out);
        string(Some("0"), out);
        string(Some("4000000000"), out);
        string(Some(tag), out);
        string(Some(desc), out);
        int(3, out);
        for text in [Some(""), None, Some("COPY … FROM stdin;\n"), namespace, None, None] {
            string(text, out);
        }
        if self.minor >= 16 {
            int(i64::from(b'r'), out);
        }
        string(Some("owner"), out);
        string(Some("false"), out);
        string(Some("900"), out);
        string(None, out);
        out.push(if data { 1 } else { 3 });
        out.extend([0; 8]);
    }

    pub fn build(&self) -> Vec<u8> {
        let mut out = self.head();
        for (index, block) in self.blocks.iter().enumerate() {
            match block {
                Content::Table(rows) => {
                    out.push(1);
                    int(index as i64 + 1, &mut out);
                    for row in rows {
                        int(row.len() as i64 + 1, &mut out);
                        out.extend(row);
                        out.push(b'\n');
                    }
                    int(5, &mut out);
                    out.extend(b"\\.\n\n\n");
                    int(0, &mut out);
                }
                Content::LargeObjects(objects) => {
                    out.push(3);
                    int(index as i64 + 1, &mut out);
                    for (oid, chunks) in objects {
                        // pg_dump writes an OID through a signed integer.
                        int(i64::from(*oid as i32), &mut out);
                        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                            int(chunk.len() as i64, &mut out);
                            out.extend(chunk);
                        }
                        int(0, &mut out);
                    }
                    int(0, &mut out);
                }
            }
        }
        out
    }

    /// The text of each stream in order: tables with pg_dump's terminator, large objects as they are.
    pub fn streams(&self) -> Vec<Vec<u8>> {
        let mut streams = Vec::new();
        for block in &self.blocks {
            match block {
                Content::Table(rows) => {
                    let mut text: Vec<u8> = rows.iter().flat_map(|row| [row.as_slice(), b"\n"].concat()).collect();
                    text.extend(b"\\.\n\n\n");
                    streams.push(text);
                }
                Content::LargeObjects(objects) => {
                    streams.extend(objects.iter().map(|(_, chunks)| chunks.concat()));
                }
            }
        }
        streams
    }
}

/// One stream of a rewritten archive: its chunks, as they are stored.
#[derive(Debug)]
pub struct StoredStream {
    pub block_at: usize,
    pub dump_id: i64,
    pub chunks: Vec<Vec<u8>>,
}

pub fn read_int(bytes: &[u8], at: &mut usize) -> i64 {
    let magnitude = i64::from(u32::from_le_bytes(bytes[*at + 1..*at + 5].try_into().unwrap()));
    let value = if bytes[*at] == 0 { magnitude } else { -magnitude };
    *at += 5;
    value
}

/// Walks the blocks from `at` to the end.
pub fn streams(archive: &[u8], mut at: usize) -> Vec<StoredStream> {
    let mut found = Vec::new();
    while at < archive.len() {
        let block_at = at;
        let block_type = archive[at];
        at += 1;
        let dump_id = read_int(archive, &mut at);
        loop {
            if block_type == 3 && read_int(archive, &mut at) == 0 {
                break;
            }
            let mut chunks = Vec::new();
            loop {
                let length = read_int(archive, &mut at);
                if length == 0 {
                    break;
                }
                chunks.push(archive[at..at + length as usize].to_vec());
                at += length as usize;
            }
            found.push(StoredStream {
                block_at,
                dump_id,
                chunks,
            });
            if block_type == 1 {
                break;
            }
        }
    }
    found
}

pub fn inflate(stream: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut decoder = flate2::bufread::ZlibDecoder::new(stream);
    decoder
        .read_to_end(&mut text)
        .expect("a zlib stream with the right checksum");
    assert!(decoder.into_inner().is_empty(), "bytes after the zlib stream's end");
    text
}
