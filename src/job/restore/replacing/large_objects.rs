//! Writes the contents of large objects in the session that makes everything else: pg_restore would do it in another
//! transaction.

use bytes::Bytes;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::super::Job;
use super::super::rows::{self, BackupRows, changed_on_the_way, refused, unread};
use crate::error::{Code, Result};
use crate::format::archive::{ArchiveError, BlockSink};
use crate::postgres::{Refusal, Wire};

/// A multiple of a large object's page, so that no page is written twice.
const PIECE: usize = 256 << 10;
/// How many pieces may wait for the server.
const AHEAD: usize = 4;
/// Small objects are sent together, up to so many bytes of statements.
const STATEMENTS: usize = 512 << 10;

/// A part of one object.
struct Stretch {
    oid: u32,
    offset: u64,
    bytes: Bytes,
}

/// Writes the content of one block into existing, empty objects.
pub(super) async fn load(job: &Job<'_>, backup: BackupRows<'_>, wire: &mut Wire, index: usize) -> Result<()> {
    let name = backup.stored.name(index);
    job.observer.table(&name);
    let (stretches, mut received) = mpsc::channel(AHEAD);
    let writing = async move {
        let written = write(wire, &mut received).await;
        // Dropped, so that the reader stops.
        drop(received);
        written
    };
    let (fed, written) = tokio::join!(read(job, backup, index, Some(stretches)), writing);
    match (fed?, written) {
        (_, Err(refusal)) => Err(refused(&format!("cannot load {name}"), refusal)),
        (Ok(()), Ok(())) => Ok(()),
        (Err(error), Ok(())) => {
            let told = unread(backup.stored, index, error);
            // Read it again without writing it.
            let is_stored_so = told.code() != Code::Integrity || read(job, backup, index, None).await?.is_err();
            Err(if is_stored_so { told } else { changed_on_the_way(&told) })
        }
    }
}

async fn read(
    job: &Job<'_>,
    backup: BackupRows<'_>,
    index: usize,
    stretches: Option<Sender<Stretch>>,
) -> Result<std::result::Result<(), ArchiveError>> {
    let sink = Objects {
        stretches,
        oid: 0,
        offset: 0,
        batch: Vec::new(),
    };
    rows::read_into(job, backup, index, sink, Objects::send).await
}

async fn write(wire: &mut Wire, stretches: &mut Receiver<Stretch>) -> std::result::Result<(), Refusal> {
    let mut statements = String::new();
    while let Some(Stretch { oid, offset, bytes }) = stretches.recv().await {
        statements.push_str(&format!(
            "SELECT pg_catalog.lo_put({oid}::pg_catalog.oid, {offset}, pg_catalog.decode('{}', 'hex'));",
            hex::encode(&bytes)
        ));
        if statements.len() >= STATEMENTS {
            wire.execute(statements.as_bytes()).await?;
            statements.clear();
        }
    }
    match statements.is_empty() {
        true => Ok(()),
        false => wire.execute(statements.as_bytes()).await,
    }
}

/// Cuts a block's objects into stretches.
struct Objects {
    stretches: Option<Sender<Stretch>>,
    oid: u32,
    /// Where the batch begins in its object.
    offset: u64,
    batch: Vec<u8>,
}

impl Objects {
    fn send(&mut self) -> Result<(), ArchiveError> {
        let bytes = std::mem::take(&mut self.batch);
        let offset = self.offset;
        self.offset += bytes.len() as u64;
        let Some(stretches) = self.stretches.as_ref().filter(|_| !bytes.is_empty()) else {
            return Ok(());
        };
        let stretch = Stretch {
            oid: self.oid,
            offset,
            bytes: bytes.into(),
        };
        stretches.blocking_send(stretch).map_err(|_| ArchiveError::Stopped)
    }
}

impl BlockSink for Objects {
    fn begin(&mut self, _index: usize) -> Result<(), ArchiveError> {
        Ok(())
    }
    fn begin_object(&mut self, oid: i64) -> Result<(), ArchiveError> {
        self.oid = oid as u32;
        self.offset = 0;
        Ok(())
    }
    fn data(&mut self, mut bytes: &[u8]) -> Result<(), ArchiveError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.batch.len()));
            self.batch.extend_from_slice(now);
            bytes = later;
            if self.batch.len() == PIECE {
                self.send()?;
            }
        }
        Ok(())
    }
    fn end_object(&mut self) -> Result<(), ArchiveError> {
        self.send()
    }
    fn end(&mut self, _at: u64) -> Result<(), ArchiveError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_cut_into_stretches_that_follow_one_another() {
        let (sender, mut received) = mpsc::channel(9);
        let mut sink = Objects {
            stretches: Some(sender),
            oid: 0,
            offset: 0,
            batch: Vec::new(),
        };
        sink.begin(0).unwrap();
        for (oid, length) in [(7, 0), (8, PIECE + 3), (i64::from(u32::MAX), 5)] {
            sink.begin_object(oid).unwrap();
            for chunk in vec![1; length].chunks(1000) {
                sink.data(chunk).unwrap();
            }
            sink.end_object().unwrap();
        }
        sink.end(0).unwrap();
        sink.send().unwrap();
        drop(sink);
        let mut seen = Vec::new();
        while let Ok(stretch) = received.try_recv() {
            seen.push((stretch.oid, stretch.offset, stretch.bytes.len()));
        }
        assert_eq!(seen, [(8, 0, PIECE), (8, PIECE as u64, 3), (u32::MAX, 0, 5)]);
    }
}
