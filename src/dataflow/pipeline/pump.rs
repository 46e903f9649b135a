//! The synchronous half: one thread reads, the workers compress, one thread frames, seals and passes the bytes to the
//! stores.

use std::collections::BTreeMap;

use crossbeam_channel::bounded;

use super::earlier::EarlierBlocks;
use super::ended::{Ended, UploadOutcome};
use super::fanout::Outlets;
use super::framing::{BlockPlace, Framing, Written};
use super::inflow::{Delivered, Flow, Inflow, Undelivered};
use super::level::Waited;
use super::passed::{Archive, Block, Passed};
use super::pieces::{Cut, Pieces, Sql, SqlPieces, Workers};
use super::ranges;
use super::seal::Seal;
use super::stage::Stages;
use crate::dataflow::compress::{self, Codec};
use crate::dataflow::read_by::ReadBy;
use crate::error::{Code, Error};
use crate::format::archive::{
    ArchiveError, BlockCompression, BlockContent, BlockDigest, Head, Input, TocEntry, read_blocks,
};
use crate::format::script::Contents;
use crate::format::script::Refused;
use crate::run::progress::Observer;
use crate::run::threads;

/// The threads' results; the uploads are added later.
pub(super) struct Pumped {
    archive: Option<Archive>,
    script: Option<Result<Contents, Refused>>,
    written: Written,
    bytes_read: u64,
    levels: BTreeMap<i32, u64>,
}

impl Pumped {
    pub(super) fn with_uploads(self, copies: Vec<UploadOutcome>) -> Passed {
        Passed {
            archive: self.archive,
            script: self.script,
            expected: self.written.file,
            md5: self.written.md5,
            bytes_read: self.bytes_read,
            levels: self.levels,
            copies,
        }
    }
}

/// Memory: at most `2 × threads + 2` pieces are between reader and framing. Each has its content (2 MiB), its
/// compressed form (about as much at worst) and the window that it shares with the previous piece. This is about 24
/// MiB for two threads, whatever the database's size.
pub(super) fn pump(flow: Flow, outlets: Outlets) -> Result<Pumped, Ended> {
    let Flow {
        input,
        codec,
        threads,
        range,
        stages,
        earlier,
        md5,
        observer,
    } = flow;
    let count = threads.max(1);
    let (jobs, work) = bounded(count);
    let (ordered, in_order) = bounded(2 * count);
    let waited = Waited::default();
    let stages = Stages::new(stages, Seal::new(outlets, waited.clone(), md5));
    let (read, written) = std::thread::scope(|scope| -> Result<_, Ended> {
        for _ in 0..count {
            let work = work.clone();
            let started = threads::builder("compress").spawn_scoped(scope, move || compress::work(&work));
            started.map_err(|error| Ended::Failed(threads::refused(error)))?;
        }
        drop(work);
        let framing = move || Framing::new(stages).run(&in_order);
        let framing = threads::builder("assemble").spawn_scoped(scope, framing);
        let framing = framing.map_err(|error| Ended::Failed(threads::refused(error)))?;
        let workers = Workers { jobs, ordered, waited };
        let read = read(input, &Cutting { codec, range, earlier }, workers, &*observer);
        let died = |_| Err(Ended::Failed(Error::internal("the assembly thread died")));
        Ok((read, framing.join().unwrap_or_else(died)))
    })?;
    match (read, written) {
        (Ok(read), Ok(written)) => read.with(written),
        // The reader only saw that its receiver had ended.
        (Err(Undelivered::Archive(ArchiveError::Stopped)), Err(ended)) | (Ok(_), Err(ended)) => Err(ended),
        (Err(Undelivered::Archive(error)), _) => Err(Ended::Failed(error.into())),
        (Err(Undelivered::Failed(error)), _) => Err(Ended::Failed(error)),
    }
}

/// The input that was read.
struct CameIn {
    bytes: u64,
    levels: BTreeMap<i32, u64>,
    /// The content of an archive.
    blocks: Option<Blocks>,
    /// The content of plain SQL.
    script: Option<Result<Contents, Refused>>,
}

impl CameIn {
    fn with(self, mut written: Written) -> Result<Pumped, Ended> {
        let blocks = self.blocks.map(|blocks| describe(blocks, &mut written));
        Ok(Pumped {
            archive: blocks.transpose()?,
            script: self.script,
            written,
            bytes_read: self.bytes,
            levels: self.levels,
        })
    }
}

struct Blocks {
    head: Head,
    announced: Vec<u8>,
    digests: Vec<BlockDigest>,
    /// By block: the length of the earlier block that stands for it.
    elsewhere: Vec<Option<u64>>,
    /// By block; empty if pg_dump read all of them.
    read_by: Vec<ReadBy>,
}

/// How content is cut and compressed.
struct Cutting {
    codec: Codec,
    range: usize,
    earlier: EarlierBlocks,
}

impl Cutting {
    fn pieces<'o>(&self, workers: Workers, observer: &'o dyn Observer) -> Pieces<'o> {
        Pieces::new(self.codec, self.range, workers, observer)
    }

    /// The blocks that were cut, and the compression of their content.
    fn blocks(
        &self,
        head: Head,
        announced: Vec<u8>,
        cut: Cut,
        read_by: Vec<ReadBy>,
    ) -> (Option<Blocks>, BTreeMap<i32, u64>) {
        let length = |(entry, is_elsewhere): (&TocEntry, &bool)| {
            let earlier = self.earlier.of(entry).filter(|_| *is_elsewhere);
            earlier.map(|earlier| earlier.length)
        };
        let elsewhere = head.data.iter().zip(&cut.elsewhere).map(length).collect();
        let blocks = Blocks {
            head,
            announced,
            digests: cut.digests,
            elsewhere,
            read_by,
        };
        (Some(blocks), cut.levels)
    }
}

fn read(input: Inflow, cutting: &Cutting, workers: Workers, observer: &dyn Observer) -> Result<CameIn, Undelivered> {
    let counted = |inner| Input::new(Counted { inner, observer });
    match input {
        Inflow::Archive(inner) => {
            let mut input = counted(inner);
            let head = Head::read(&mut input)?;
            let mut pieces = cutting.pieces(workers, observer);
            let announced = begin(&head, cutting, &mut pieces)?;
            // The pipe is closed at once, so that pg_dump notices a failure.
            read_blocks(&mut input, &head, &mut pieces)?;
            let (blocks, levels) = cutting.blocks(head, announced, pieces.finish()?, Vec::new());
            Ok(CameIn {
                bytes: input.position(),
                levels,
                blocks,
                script: None,
            })
        }
        Inflow::Sql(inner) => {
            let mut input = counted(inner);
            let Sql { levels, contents } = SqlPieces::new(cutting.codec, workers).take_all(&mut input)?;
            Ok(CameIn {
                bytes: input.position(),
                levels,
                blocks: None,
                script: Some(contents),
            })
        }
        Inflow::Blocks { head, mut source } => {
            let mut pieces = cutting.pieces(workers, observer);
            let announced = begin(&head, cutting, &mut pieces)?;
            let Delivered { bytes, rows, read_by } = source.deliver(&head, observer, &mut pieces)?;
            let cut = pieces.finish()?;
            compare(&head, &cut.digests, &rows)?;
            let (blocks, levels) = cutting.blocks(head, announced, cut, read_by);
            Ok(CameIn {
                bytes,
                levels,
                blocks,
                script: None,
            })
        }
    }
}

/// Checks that as many rows were written as the server says it sent.
fn compare(head: &Head, digests: &[BlockDigest], rows: &[Option<u64>]) -> Result<(), Undelivered> {
    for ((entry, digest), sent) in head.data.iter().zip(digests).zip(rows) {
        if let (BlockContent::Table { rows }, Some(sent)) = (&digest.content, sent)
            && rows != sent
        {
            let text = format!("{entry}: the server sent {sent} rows, but {rows} have arrived");
            return Err(Error::new(Code::PgDumpErr, text).into());
        }
    }
    Ok(())
}

/// The head's bytes are passed on unchanged, except for the compression.
fn begin(head: &Head, cutting: &Cutting, pieces: &mut Pieces<'_>) -> Result<Vec<u8>, ArchiveError> {
    let codec = cutting.codec;
    if head.compression != BlockCompression::None {
        return Err(ArchiveError::Malformed {
            at: 11,
            what: "its blocks are compressed already".into(),
        });
    }
    let algorithm = match codec {
        Codec::None => BlockCompression::None,
        Codec::Zstd(_) | Codec::AutoZstd if !head.version.names_algorithm() => {
            return Err(ArchiveError::Malformed {
                at: 5,
                what: format!(
                    "archive version {} does not support zstd: pg_dump 16 or newer does",
                    head.version
                ),
            });
        }
        Codec::Zstd(_) | Codec::AutoZstd => BlockCompression::Zstd,
        Codec::Gzip(_) | Codec::AutoGzip => BlockCompression::Gzip,
    };
    let announced = head.announcing(algorithm, codec.level().unsigned_abs());
    pieces.begin(head, announced.clone(), &cutting.earlier)?;
    Ok(announced)
}

fn describe(blocks: Blocks, written: &mut Written) -> Result<Archive, Ended> {
    let Blocks {
        head,
        announced,
        digests,
        elsewhere,
        read_by,
    } = blocks;
    if written.blocks.len() != head.data.len() || digests.len() != head.data.len() {
        return Err(Ended::Failed(Error::new(
            Code::Internal,
            format!(
                "{} blocks were written, but the head lists {}",
                written.blocks.len(),
                head.data.len()
            ),
        )));
    }
    // The offsets are those of the whole archive: with the earlier blocks at their places.
    let mut end = head.length();
    let whole = |(place, elsewhere): (&BlockPlace, &Option<u64>)| {
        let offset = end;
        end = end.saturating_add(elsewhere.unwrap_or(place.length));
        offset
    };
    let positions: Vec<u64> = written.blocks.iter().zip(&elsewhere).map(whole).collect();
    let toc = head.with_offsets(announced, &positions);
    let ranges = std::mem::take(&mut written.ranges);
    let blocks = written
        .blocks
        .iter()
        .zip(digests)
        .zip(ranges)
        .enumerate()
        .map(|(index, ((place, digest), ranges))| Block {
            place: *place,
            ranges: match digest.content {
                BlockContent::Table { rows } => ranges::whole(ranges, rows, digest.bytes),
                BlockContent::LargeObjects { .. } => Vec::new(),
            },
            digest,
            is_elsewhere: elsewhere.get(index).is_some_and(Option::is_some),
            read_by: read_by.get(index).copied().unwrap_or_default(),
        })
        .collect();
    Ok(Archive { head, toc, blocks })
}

/// Reports the bytes from the pipe to the observer.
struct Counted<'a> {
    inner: Box<dyn std::io::Read + Send>,
    observer: &'a dyn Observer,
}

impl std::io::Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.observer.bytes_read(count as u64);
        Ok(count)
    }
}
