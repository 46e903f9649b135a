//! Threads for long blocking work. If the system refuses a new thread, work in the runtime's own pool waits silently
//! for a free one, and the task that holds the last one may be waiting for that very work.

use std::io;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::error::{Code, Error, Result};

/// Starts `work` in a new thread at once; the future returns its result.
pub fn apart<T: Send + 'static, W: FnOnce() -> T + Send + 'static>(
    name: &str,
    work: W,
) -> impl Future<Output = Result<T>> + Send + use<T, W> {
    let (done, result) = oneshot::channel();
    // The work may start tasks of the runtime.
    let runtime = Handle::try_current();
    let started = builder(name).spawn(move || {
        let _entered = runtime.as_ref().map(Handle::enter);
        let _ = done.send(work());
    });
    let (started, name) = (started.map(drop), name.to_owned());
    async move {
        started.map_err(refused)?;
        let died = |_| Error::internal(format!("the thread {name:?} died"));
        result.await.map_err(died)
    }
}

pub fn builder(name: &str) -> std::thread::Builder {
    std::thread::Builder::new().name(name.to_owned())
}

/// The error if the system starts no thread.
pub fn refused(error: io::Error) -> Error {
    Error::new(Code::Config, "the system lets this process start no further thread")
        .source(error)
        .hint("raise the task's limit on processes (ulimit -u, a limit on pids) or on memory (ulimit -v)")
}
