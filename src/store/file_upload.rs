//! An upload into a folder store.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::JoinHandle;

use super::temporary::Temporary;
use super::{Expected, Mark, Stored, Upload, taken};
use crate::error::{Code, Error, Result};
use crate::run::files::{blocking, io_error};
use crate::run::publication::{Publish, Published};

/// The bytes of one write. An upload holds at most twice this in memory.
const CHUNK: usize = 1 << 20;

/// Dropped before its end, it leaves its temporary file.
pub struct FileUpload {
    temporary: Temporary,
    how: Publish,
    file: Arc<File>,
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
    bytes: u64,
    writing: Option<JoinHandle<io::Result<()>>>,
}

impl FileUpload {
    pub fn new(temporary: Temporary, replace: bool) -> Self {
        Self {
            file: temporary.file(),
            temporary,
            how: if replace { Publish::Replace } else { Publish::IfAbsent },
            waiting: Vec::new(),
            waiting_bytes: 0,
            bytes: 0,
            writing: None,
        }
    }

    /// Waits for the previous write, then starts the next: at most one is in progress.
    async fn flush(&mut self) -> Result<()> {
        self.settle().await?;
        if !self.waiting.is_empty() {
            let chunks = std::mem::take(&mut self.waiting);
            self.waiting_bytes = 0;
            let file = Arc::clone(&self.file);
            self.writing = Some(tokio::task::spawn_blocking(move || {
                chunks.iter().try_for_each(|chunk| (&*file).write_all(chunk))
            }));
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<()> {
        match self.writing.take() {
            None => Ok(()),
            Some(writing) => match writing.await {
                Ok(written) => written.map_err(|error| io_error("write", self.temporary.target(), error)),
                Err(error) => Err(Error::internal("the thread that writes into the store's folder died").source(error)),
            },
        }
    }
}

#[async_trait]
impl Upload for FileUpload {
    fn mark(&self) -> Mark {
        mark_of(&self.file)
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.waiting_bytes += bytes.len();
        self.waiting.push(bytes);
        if self.waiting_bytes >= CHUNK {
            self.flush().await?;
        }
        Ok(())
    }

    async fn complete(mut self: Box<Self>, expected: &Expected) -> Result<Stored> {
        let written = match self.flush().await {
            Ok(()) => self.settle().await,
            Err(error) => Err(error),
        };
        let Self {
            temporary, bytes, how, ..
        } = *self;
        let expected = expected.bytes;
        blocking(move || {
            let reviewed = written
                .and_then(|()| temporary.sync())
                .and_then(|()| review(&temporary, bytes, expected));
            if let Err(error) = reviewed {
                return Err(error.with_clean_up(temporary.remove()));
            }
            let (name, folder) = (
                temporary.final_name().to_owned(),
                temporary.folder().path().display().to_string(),
            );
            if temporary.publish(how)? == Published::Exists {
                return Err(taken(&name, &folder));
            }
            Ok(Stored {
                bytes,
                checksum: None,
                parts: Vec::new(),
            })
        })
        .await
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        // `write` has reported its error, or it no longer matters.
        let _ = self.settle().await;
        blocking(move || self.temporary.remove()).await
    }
}

/// Device and inode stay the same when the file gets its final name.
pub(super) fn mark_of(file: &File) -> Mark {
    match rustix::fs::fstat(file) {
        Ok(stat) => Mark(format!("{}:{}", stat.st_dev, stat.st_ino)),
        Err(_) => Mark(String::new()),
    }
}

fn review(temporary: &Temporary, taken: u64, expected: u64) -> Result<()> {
    let length = temporary.length()?;
    if taken != expected || length != expected {
        let what = format!(
            "{} has {length} bytes and was given {taken}, but should have {expected}",
            temporary.target().display()
        );
        return Err(Error::new(Code::Store, what).hint("run again; if it happens again, check the disk"));
    }
    Ok(())
}
