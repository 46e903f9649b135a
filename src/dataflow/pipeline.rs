//! The data path from pg_dump's pipe to the stores, in one pass and bounded memory:
//!
//! ```text
//! pipe → reader (rows, digest per table) → pieces → compression, all cores → framing (the format's
//! frames around them, places of blocks and ranges) → stages, if any → seal (length, digests of the
//! file and its ranges) → fan-out → one upload per store
//! ```
//!
//! The uploads in the result are open: only the caller, who also knows how pg_dump ended, may complete them. If
//! anything fails here, every upload has been aborted before the error is returned.

mod earlier;
mod ended;
mod fanout;
mod framing;
mod inflow;
mod level;
mod passed;
mod passing;
mod pieces;
mod pump;
mod ranges;
mod seal;
mod spare;
mod stage;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use earlier::{EarlierBlock, EarlierBlocks, HELD};
pub use ended::{Ended, Failure, UploadOutcome};
pub use fanout::{COPYS_PATIENCE, Fanout, Outlets, abort_after, open as fan_out, within};
pub use framing::BlockPlace;
pub use inflow::{BlockSource, Delivered, Flow, Inflow, RANGE, Undelivered};
pub use passed::{Archive, Block, Passed};
pub use passing::{Mark, Passing};
pub use seal::SealedFile;
pub use stage::{Onward, Stage};

use crate::error::{Error, Result};
use crate::run::threads;
use crate::store::Upload;

/// Runs the whole path until the input ends. The first upload is the primary: if it fails, the run fails, but a copy
/// may fail alone. `stop` ends the run at once.
pub async fn run(flow: Flow, uploads: Vec<Box<dyn Upload>>, stop: CancellationToken) -> Result<Passed, Failure> {
    let observer = Arc::clone(&flow.observer);
    let (outlets, fanout) = fanout::open(uploads, &observer, &stop);
    let (answer, pumped) = tokio::sync::oneshot::channel();
    let thread = threads::builder("archive").spawn(move || {
        // The receiver is gone only if the whole run is.
        let _ = answer.send(pump::pump(flow, outlets));
    });
    let pumped = match thread {
        Ok(_) => pumped
            .await
            .unwrap_or_else(|_| Err(Ended::Failed(Error::internal("the archive thread died")))),
        Err(error) => Err(Ended::Failed(threads::refused(error))),
    };
    let copies = fanout.collect().await;
    match (pumped, copies) {
        (Ok(pumped), Ok(copies)) => Ok(pumped.with_uploads(copies)),
        (Ok(_), Err(failure)) => Err(failure),
        // The store that failed is the reason, not the reader that noticed it.
        (Err(Ended::OutletsClosed), Err(failure)) => Err(failure),
        (Err(ended), copies) => {
            let error = match ended {
                Ended::Failed(error) => error,
                Ended::OutletsClosed => Error::internal("the stores stopped taking bytes without a reason"),
            };
            Err(Failure::Source(match copies {
                Ok(copies) => fanout::abort_after(error, copies).await,
                Err(_) => error,
            }))
        }
    }
}
