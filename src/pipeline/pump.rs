//! The synchronous half: one thread reads, the workers compress, one thread assembles.

use std::io::Read;

use crossbeam_channel::bounded;

use super::assembly::{Assembled, Assembly};
use super::fanout::Outlets;
use super::pieces::{Pieces, SqlPieces};
use super::{Archive, Block, Copy, Flow, Passed, Shape};
use crate::archive::{Algorithm, ArchiveError, BlockDigest, Head, Input, read_blocks};
use crate::compress::{self, Codec};
use crate::error::{Code, Error};
use crate::progress::Observer;
use crate::store::Expected;

pub(super) enum Ended {
    Failed(Error),
    /// Nobody takes bytes any more; the fan-out knows why.
    OutletsClosed,
}

/// What the threads know at the end; the uploads are still to be joined to it.
pub(super) struct Pumped {
    archive: Option<Archive>,
    assembled: Assembled,
    bytes_read: u64,
}

impl Pumped {
    pub(super) fn with_copies(self, copies: Vec<Copy>) -> Passed {
        Passed {
            archive: self.archive,
            expected: Expected {
                bytes: self.assembled.bytes,
                sha256: self.assembled.sha256,
            },
            md5: self.assembled.md5,
            bytes_read: self.bytes_read,
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
        shape,
        codec,
        threads,
        md5,
        observer,
    } = flow;
    let threads = threads.max(1);
    let (jobs, work) = bounded(threads);
    let (items, ordered) = bounded(2 * threads);
    let observer = &*observer;

    std::thread::scope(|scope| {
        for _ in 0..threads {
            let work = work.clone();
            scope.spawn(move || compress::work(&work, codec));
        }
        drop(work);
        let assembly = scope.spawn(move || Assembly::new(outlets, md5).run(&ordered));

        let mut input = Input::new(Counted { inner: input, observer });
        let read = match shape {
            Shape::Archive => read_archive(&mut input, codec, Pieces::new(codec, jobs, items, observer)).map(Some),
            Shape::Sql => SqlPieces::new(codec, jobs, items).take_all(&mut input).map(|()| None),
        };
        let bytes_read = input.position();
        // Closing the pipe at once lets pg_dump notice a failure.
        drop(input);
        let assembled = match assembly.join() {
            Ok(assembled) => assembled,
            Err(_) => Err(Ended::Failed(Error::internal("the assembly thread died"))),
        };
        match (read, assembled) {
            (Ok(read), Ok(assembled)) => {
                let archive = match read {
                    Some((head, announced, digests)) => Some(describe(head, announced, digests, &assembled)?),
                    None => None,
                };
                Ok(Pumped {
                    archive,
                    assembled,
                    bytes_read,
                })
            }
            // The reader only saw its receiver go away.
            (Err(ArchiveError::Stopped), Err(ended)) | (Ok(_), Err(ended)) => Err(ended),
            (Err(error), _) => Err(Ended::Failed(error.into())),
        }
    })
}

/// Head first, then the blocks: the head's bytes go out as they came, but for the compression.
fn read_archive<R: Read>(
    input: &mut Input<R>,
    codec: Codec,
    mut pieces: Pieces,
) -> Result<(Head, Vec<u8>, Vec<BlockDigest>), ArchiveError> {
    let head = Head::read(input)?;
    if head.compression != Algorithm::None {
        return Err(ArchiveError::Malformed {
            at: 11,
            what: "its blocks are compressed already".into(),
        });
    }
    let algorithm = match codec {
        Codec::None => Algorithm::None,
        Codec::Zstd(_) if !head.version.names_algorithm() => {
            return Err(ArchiveError::Malformed {
                at: 5,
                what: format!(
                    "archive version {} cannot say zstd: pg_dump 16 or newer can",
                    head.version
                ),
            });
        }
        Codec::Zstd(_) => Algorithm::Zstd,
        Codec::Gzip(_) => Algorithm::Gzip,
    };
    let announced = head.announcing(algorithm, codec.level().unsigned_abs());
    pieces.begin(&head, announced.clone())?;
    read_blocks(input, &head, &mut pieces)?;
    Ok((head, announced, pieces.finish()?))
}

fn describe(
    head: Head,
    announced: Vec<u8>,
    digests: Vec<BlockDigest>,
    assembled: &Assembled,
) -> Result<Archive, Ended> {
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
    let blocks = assembled
        .blocks
        .iter()
        .zip(digests)
        .map(|(place, digest)| Block { place: *place, digest })
        .collect();
    Ok(Archive { head, toc, blocks })
}

/// Tells the observer what comes out of the pipe.
struct Counted<'a> {
    inner: Box<dyn Read + Send>,
    observer: &'a dyn Observer,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.observer.bytes_read(count as u64);
        Ok(count)
    }
}
