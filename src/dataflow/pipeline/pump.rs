//! The synchronous half: one thread reads, the workers compress, one thread assembles.

use std::collections::BTreeMap;

use crossbeam_channel::bounded;

use super::assembly::{Assembled, Assembly};
use super::fanout::Outlets;
use super::level::Waited;
use super::pieces::{Pieces, Sql, SqlPieces, Workers};
use super::ranges;
use super::{Archive, Block, Copy, Delivered, Flow, Inflow, Passed, Undelivered};
use crate::dataflow::compress::{self, Codec};
use crate::dataflow::way::Way;
use crate::error::{Code, Error};
use crate::format::archive::{Algorithm, ArchiveError, BlockContent, BlockDigest, Head, Input, read_blocks};
use crate::format::script::Contents;
use crate::format::script::Refused;
use crate::run::progress::Observer;
use crate::run::threads;
use crate::store::Expected;

pub(super) enum Ended {
    Failed(Error),
    /// Nobody takes bytes any more; the fan-out knows why.
    OutletsClosed,
}

/// What the threads know at the end; the uploads are still to be joined to it.
pub(super) struct Pumped {
    archive: Option<Archive>,
    script: Option<Result<Contents, Refused>>,
    assembled: Assembled,
    bytes_read: u64,
    levels: BTreeMap<i32, u64>,
}

impl Pumped {
    pub(super) fn with_copies(self, copies: Vec<Copy>) -> Passed {
        Passed {
            archive: self.archive,
            script: self.script,
            expected: Expected {
                bytes: self.assembled.bytes,
                sha256: self.assembled.sha256,
            },
            md5: self.assembled.md5,
            bytes_read: self.bytes_read,
            levels: self.levels,
            copies,
        }
    }
}

/// Memory: at most `2 × threads + 2` pieces are between reader and assembly, each with its
/// content (2 MiB), its compressed form (about as much at worst) and the window that it shares
/// with the piece before; so about 24 MiB for two threads, whatever the database's size.
pub(super) fn pump(flow: Flow, outlets: Outlets) -> Result<Pumped, Ended> {
    let Flow {
        input,
        codec,
        threads,
        range,
        md5,
        observer,
    } = flow;
    let count = threads.max(1);
    let (jobs, work) = bounded(count);
    let (items, ordered) = bounded(2 * count);
    let observer = &*observer;

    std::thread::scope(|scope| {
        for _ in 0..count {
            let work = work.clone();
            let started = threads::builder("compress").spawn_scoped(scope, move || compress::work(&work));
            started.map_err(|error| Ended::Failed(threads::refused(error)))?;
        }
        drop(work);
        let waited = Waited::default();
        let workers = Workers {
            jobs,
            items,
            waited: waited.clone(),
        };
        let assembling = move || Assembly::new(outlets, waited, md5).run(&ordered);
        let assembly = threads::builder("assemble").spawn_scoped(scope, assembling);
        let assembly = assembly.map_err(|error| Ended::Failed(threads::refused(error)))?;

        let read = read(input, codec, range, workers, observer);
        let assembled = match assembly.join() {
            Ok(assembled) => assembled,
            Err(_) => Err(Ended::Failed(Error::internal("the assembly thread died"))),
        };
        match (read, assembled) {
            (
                Ok(Read {
                    bytes,
                    levels,
                    blocks,
                    script,
                }),
                Ok(mut assembled),
            ) => {
                let archive = match blocks {
                    Some(blocks) => Some(describe(blocks, &mut assembled)?),
                    None => None,
                };
                Ok(Pumped {
                    archive,
                    script,
                    assembled,
                    bytes_read: bytes,
                    levels,
                })
            }
            // The reader only saw its receiver go away.
            (Err(Undelivered::Archive(ArchiveError::Stopped)), Err(ended)) | (Ok(_), Err(ended)) => Err(ended),
            (Err(Undelivered::Archive(error)), _) => Err(Ended::Failed(error.into())),
            (Err(Undelivered::Failed(error)), _) => Err(Ended::Failed(error)),
        }
    })
}

/// What came in.
struct Read {
    bytes: u64,
    levels: BTreeMap<i32, u64>,
    /// Of an archive.
    blocks: Option<Blocks>,
    /// Of plain SQL.
    script: Option<Result<Contents, Refused>>,
}

struct Blocks {
    head: Head,
    announced: Vec<u8>,
    digests: Vec<BlockDigest>,
    /// By block; empty where pg_dump read all of them.
    ways: Vec<Way>,
}

fn read(
    input: Inflow,
    codec: Codec,
    range: usize,
    workers: Workers,
    observer: &dyn Observer,
) -> Result<Read, Undelivered> {
    let counted = |inner| Input::new(Counted { inner, observer });
    match input {
        Inflow::Archive(inner) => {
            let mut input = counted(inner);
            let head = Head::read(&mut input)?;
            let mut pieces = Pieces::new(codec, range, workers, observer);
            let announced = begin(&head, codec, &mut pieces)?;
            // Closing the pipe at once lets pg_dump notice a failure.
            read_blocks(&mut input, &head, &mut pieces)?;
            let (digests, levels) = pieces.finish();
            let blocks = Blocks {
                head,
                announced,
                digests,
                ways: Vec::new(),
            };
            Ok(Read {
                bytes: input.position(),
                levels,
                blocks: Some(blocks),
                script: None,
            })
        }
        Inflow::Sql(inner) => {
            let mut input = counted(inner);
            let Sql { levels, contents } = SqlPieces::new(codec, workers).take_all(&mut input)?;
            Ok(Read {
                bytes: input.position(),
                levels,
                blocks: None,
                script: Some(contents),
            })
        }
        Inflow::Blocks { head, mut source } => {
            let mut pieces = Pieces::new(codec, range, workers, observer);
            let announced = begin(&head, codec, &mut pieces)?;
            let Delivered { bytes, rows, ways } = source.deliver(&head, observer, &mut pieces)?;
            let (digests, levels) = pieces.finish();
            compare(&head, &digests, &rows)?;
            let blocks = Blocks {
                head,
                announced,
                digests,
                ways,
            };
            Ok(Read {
                bytes,
                levels,
                blocks: Some(blocks),
                script: None,
            })
        }
    }
}

/// The rows that were written are those that the server says it sent.
fn compare(head: &Head, digests: &[BlockDigest], rows: &[Option<u64>]) -> Result<(), Undelivered> {
    for ((entry, digest), sent) in head.data.iter().zip(digests).zip(rows) {
        if let (BlockContent::Table { rows }, Some(sent)) = (&digest.content, sent)
            && rows != sent
        {
            let text = format!("{entry}: the server sent {sent} rows, and {rows} have arrived");
            return Err(Error::new(Code::PgDumpErr, text).into());
        }
    }
    Ok(())
}

/// The head's bytes go out as they came, but for the compression.
fn begin(head: &Head, codec: Codec, pieces: &mut Pieces<'_>) -> Result<Vec<u8>, ArchiveError> {
    if head.compression != Algorithm::None {
        return Err(ArchiveError::Malformed {
            at: 11,
            what: "its blocks are compressed already".into(),
        });
    }
    let algorithm = match codec {
        Codec::None => Algorithm::None,
        Codec::Zstd(_) | Codec::AutoZstd if !head.version.names_algorithm() => {
            return Err(ArchiveError::Malformed {
                at: 5,
                what: format!(
                    "archive version {} cannot say zstd: pg_dump 16 or newer can",
                    head.version
                ),
            });
        }
        Codec::Zstd(_) | Codec::AutoZstd => Algorithm::Zstd,
        Codec::Gzip(_) | Codec::AutoGzip => Algorithm::Gzip,
    };
    let announced = head.announcing(algorithm, codec.level().unsigned_abs());
    pieces.begin(head, announced.clone())?;
    Ok(announced)
}

fn describe(blocks: Blocks, assembled: &mut Assembled) -> Result<Archive, Ended> {
    let Blocks {
        head,
        announced,
        digests,
        ways,
    } = blocks;
    if assembled.blocks.len() != head.data.len() || digests.len() != head.data.len() {
        return Err(Ended::Failed(Error::new(
            Code::Internal,
            format!(
                "{} blocks written where {} were promised",
                assembled.blocks.len(),
                head.data.len()
            ),
        )));
    }
    let positions: Vec<u64> = assembled.blocks.iter().map(|place| place.offset).collect();
    let toc = head.with_offsets(announced, &positions);
    let ranges = std::mem::take(&mut assembled.ranges);
    let blocks = assembled
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
            way: ways.get(index).copied().unwrap_or_default(),
        })
        .collect();
    Ok(Archive { head, toc, blocks })
}

/// Tells the observer what comes out of the pipe.
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
