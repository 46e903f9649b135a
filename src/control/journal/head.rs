//! The last record's number and digest, in a file beside the journal: so it is seen if the end of the journal is cut off
//! while no process has it open.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::error::Result;
use crate::run::files::io_error;

pub(super) type Digest = [u8; 32];

const NAME: &str = "journal.head";
/// A number of 20 digits, a space, 64 hex digits, a line feed.
const LENGTH: usize = 86;

/// A record by its place and its digest, which says what it and all before it are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub seq: u64,
    pub digest: Digest,
}

#[derive(Debug)]
pub(super) struct Head(File);

impl Head {
    /// The head, and what it says. A file that is missing or not understood says nothing.
    pub fn open(folder: &Path) -> Result<(Head, Option<Mark>)> {
        let path = folder.join(NAME);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let file = options.open(&path).map_err(|error| io_error("open", &path, error))?;
        let mut text = [0; LENGTH];
        let mark = file.read_exact_at(&mut text, 0).ok().and_then(|()| read(&text));
        Ok((Head(file), mark))
    }

    /// Names the record, which the disk has already. If this does not reach the disk, the head says less than it could,
    /// and nothing wrong.
    pub fn set(&self, mark: Mark) -> std::io::Result<()> {
        let text = format!("{:020} {}\n", mark.seq, hex::encode(mark.digest));
        self.0.write_all_at(text.as_bytes(), 0)
    }
}

fn read(text: &[u8; LENGTH]) -> Option<Mark> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
    let (seq, hex) = text.split_once(' ')?;
    let mut digest = Digest::default();
    hex::decode_to_slice(hex, &mut digest).ok()?;
    Some(Mark {
        seq: seq.parse().ok()?,
        digest,
    })
}
