//! One object on its way into a folder store.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::JoinHandle;

use super::temporary::{Publish, Published, Temporary};
use super::{Expected, Mark, Stored, Upload, taken};
use crate::error::{Code, Error, Result};
use crate::run::files::{blocking, io_error};

/// Written at once. Twice this is what an upload holds in memory.
const CHUNK: usize = 1 << 20;

/// Dropped without an end, it leaves its temporary file.
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

    /// Waits for the write before, then starts the next: one is in flight at most.
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
                Err(error) => Err(Error::internal("a write into the store's folder was cut off").source(error)),
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
        // Its error was reported by `write`, or does not matter any more.
        let _ = self.settle().await;
        blocking(move || self.temporary.remove()).await
    }
}

/// The file keeps its place on the disk when it gets its name.
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
