//! Checks a whole file: every byte, every message, and every fact of the index.

use std::io::Read;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::error::ChangesError;
use super::head::Head;
use super::index::{Building, Ended, Frame, Index};
use super::reader::Reader;
use super::selection::Selection;
use super::summary::{ChangesSummary, IndexPlace};
use super::track::Track;

/// Reads the whole file, whose index is known, and returns what it holds. The head must be the expected one, and the
/// index must tell the truth of each frame.
pub fn check(mut source: impl Read, head: &Head, index: Index) -> Result<ChangesSummary, ChangesError> {
    let mut begin = [0; Head::LENGTH];
    source.read_exact(&mut begin)?;
    if Head::parse(&begin)? != *head {
        return Err(ChangesError::Head(
            "is of another stream or span than the manifest says",
        ));
    }
    let index = Arc::new(index);
    let mut track = Track::new(head.from);
    let mut building = Building::default();
    let mut reader = Reader::new(&mut source, head.from, Arc::clone(&index), Selection::default())?;
    while let Some(item) = reader.next()? {
        while building.frames() < item.frame {
            end_frame(&mut building, &index, &track);
        }
        let (frame, after) = (item.frame, track.position);
        let taken = track.take(&item.message);
        taken.map_err(|why| ChangesError::Misplaced { frame, after, why })?;
        building.take(&item.message, item.bytes);
    }
    drop(reader);
    while building.frames() < index.frames.len() {
        end_frame(&mut building, &index, &track);
    }
    if index.to < track.position {
        return Err(ChangesError::EndsBefore {
            to: index.to,
            end: track.position,
        });
    }
    let found = building.end(index.offset, index.to);
    compare(&index, &found)?;
    let wanted = index.to_bytes().ok_or(ChangesError::Index("is longer than can be"))?;
    let mut bytes = Vec::new();
    source.take(wanted.len() as u64 + 1).read_to_end(&mut bytes)?;
    if bytes != wanted {
        return Err(ChangesError::Index("is not the one that was read before"));
    }
    Ok(ChangesSummary {
        position: track.position,
        transactions: track.transactions,
        commits: track.commits,
        tables: track.tables(),
        raw_bytes: index.frames.iter().map(|frame| frame.raw).sum(),
        bytes: index.offset + bytes.len() as u64,
        index: IndexPlace {
            offset: index.offset,
            length: bytes.len() as u64,
            sha256: Sha256::digest(&bytes).into(),
            times: index.times(),
        },
    })
}

fn end_frame(building: &mut Building, index: &Index, track: &Track) {
    let Frame {
        offset,
        length,
        raw,
        sha256,
        ..
    } = index.frames[building.frames()];
    // The reader has checked the place, the lengths and the digest.
    let ended = Ended {
        offset,
        length,
        raw,
        sha256,
    };
    building.end_frame(&ended, track.open);
}

/// The first difference between what the index says and what was found.
fn compare(index: &Index, found: &Index) -> Result<(), ChangesError> {
    for (number, (said, found)) in index.frames.iter().zip(&found.frames).enumerate() {
        let what = match () {
            () if said.transactions != found.transactions => "transactions",
            () if said.ends != found.ends => "ends of transactions",
            () if said.times != found.times => "commit times",
            () if said.inside != found.inside => "facts about its first transaction",
            () if said.relids != found.relids => "tables",
            () => continue,
        };
        return Err(ChangesError::Facts { frame: number, what });
    }
    match index.described == found.described {
        true => Ok(()),
        false => Err(ChangesError::Index("has other descriptions of tables than the frames")),
    }
}
