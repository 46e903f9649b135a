//! The header: format, version and compression of the archive, and the size of its numbers.

use std::io::Read;

use super::super::ArchiveError;
use super::super::input::{Input, encode_int};
use super::super::texts::Meeting;
use super::strings::Strings;

/// The place of the compression in every header.
const COMPRESSION_AT: usize = 11;
const FORMAT_CUSTOM: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArchiveVersion {
    pub major: u8,
    pub minor: u8,
    pub revision: u8,
}

impl ArchiveVersion {
    /// From 1.15 the header names an algorithm; before, a zlib level.
    pub fn names_algorithm(self) -> bool {
        self.minor >= 15
    }
}

impl std::fmt::Display for ArchiveVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The compression of the blocks, as the header says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockCompression {
    None,
    /// One zlib stream per table or large object.
    Gzip,
    Lz4,
    /// Concatenated zstd frames, none of them ending inside a chunk.
    Zstd,
}

/// The archive's version, and the sizes of its integers and offsets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub version: ArchiveVersion,
    pub int_size: usize,
    pub offset_size: usize,
}

/// The fields before the table of contents.
pub(super) struct Header {
    pub form: Form,
    pub compression: BlockCompression,
    pub database: String,
    pub server_version: String,
    pub pg_dump_version: String,
}

impl Header {
    pub fn read<R: Read>(input: &mut Input<R>, texts: Meeting<'_>) -> Result<Self, ArchiveError> {
        let form = Form::read(input)?;
        let compression = BlockCompression::read(input, form)?;
        for field in ["second", "minute", "hour", "day", "month", "year", "daylight saving"] {
            input.int(form.int_size, field)?;
        }
        let mut strings = Strings {
            input,
            int_size: form.int_size,
            texts,
        };
        Ok(Self {
            form,
            compression,
            database: strings.text("the database's name")?.unwrap_or_default(),
            server_version: strings.text("the server's version")?.unwrap_or_default(),
            pg_dump_version: strings.text("pg_dump's version")?.unwrap_or_default(),
        })
    }
}

impl Form {
    fn read<R: Read>(input: &mut Input<R>) -> Result<Self, ArchiveError> {
        let magic = input.at_least(COMPRESSION_AT)?;
        if magic.len() < COMPRESSION_AT {
            return Err(if b"PGDMP".starts_with(&magic[..magic.len().min(5)]) {
                input.ends_early("the header is cut")
            } else {
                input.malformed("this is no pg_dump archive")
            });
        }
        if &magic[..5] != b"PGDMP" {
            return Err(input.malformed("this is no pg_dump archive"));
        }
        let (major, minor, revision) = (magic[5], magic[6], magic[7]);
        let (int_size, offset_size, format) = (usize::from(magic[8]), usize::from(magic[9]), magic[10]);
        if major != 1 || !(14..=16).contains(&minor) {
            return Err(ArchiveError::Version(major, minor, revision));
        }
        if !(1..=8).contains(&int_size) || !(1..=8).contains(&offset_size) {
            return Err(input.malformed(format!("integers of {int_size} and offsets of {offset_size} bytes")));
        }
        if format != FORMAT_CUSTOM {
            return Err(input.malformed(format!("archive format {format} is not the custom format")));
        }
        input.consume(COMPRESSION_AT);
        Ok(Self {
            version: ArchiveVersion { major, minor, revision },
            int_size,
            offset_size,
        })
    }
}

impl BlockCompression {
    fn read<R: Read>(input: &mut Input<R>, form: Form) -> Result<Self, ArchiveError> {
        if !form.version.names_algorithm() {
            let level = input.int(form.int_size, "the compression")?;
            return Ok(if level == 0 {
                BlockCompression::None
            } else {
                BlockCompression::Gzip
            });
        }
        match input.byte("the compression")? {
            0 => Ok(BlockCompression::None),
            1 => Ok(BlockCompression::Gzip),
            2 => Ok(BlockCompression::Lz4),
            3 => Ok(BlockCompression::Zstd),
            other => Err(input.malformed(format!("compression {other} is unknown"))),
        }
    }

    /// Overwrites the compression in a header. It has the same length, so nothing moves.
    pub(super) fn write_over(self, form: Form, level: u32, head: &mut [u8]) {
        if form.version.names_algorithm() {
            head[COMPRESSION_AT] = match self {
                BlockCompression::None => 0,
                BlockCompression::Gzip => 1,
                BlockCompression::Lz4 => 2,
                BlockCompression::Zstd => 3,
            };
            return;
        }
        let level = match self {
            BlockCompression::None => 0,
            _ => i64::from(level.max(1)),
        };
        let mut written = Vec::with_capacity(1 + form.int_size);
        encode_int(level, form.int_size, &mut written);
        head[COMPRESSION_AT..COMPRESSION_AT + written.len()].copy_from_slice(&written);
    }
}
