//! Threads for what blocks for long. The runtime's own pool lets work wait in silence for a thread that the system refuses,
//! and whoever holds the last one may wait for just that work.

use std::io;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::error::{Code, Error, Result};

/// Does it in a thread of its own, from now on; what comes of it can be waited for.
pub fn apart<T: Send + 'static, W: FnOnce() -> T + Send + 'static>(
    name: &str,
    work: W,
) -> impl Future<Output = Result<T>> + Send + use<T, W> {
    let (done, result) = oneshot::channel();
    // It may start the runtime's tasks.
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

/// What it means that the system starts no thread.
pub fn refused(error: io::Error) -> Error {
    Error::new(Code::Config, "the system lets this process start no further thread")
        .source(error)
        .hint("raise what the task may have: processes (ulimit -u, a limit on pids), or memory (ulimit -v)")
}
