//! How long the proof of who asks is good. A stream ends with it.

use std::future::pending;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;

/// No proof is taken to be good for longer.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Without an end and a token it lasts as long as the process.
#[derive(Debug, Clone, Default)]
pub(super) struct Lasting {
    pub ends: Option<Instant>,
    /// Cancelled when somebody ends it before.
    pub ended: Option<CancellationToken>,
}

impl Lasting {
    /// Until a second since 1970.
    pub fn until(second: u64) -> Self {
        let ends = Duration::from_secs(second);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let left = ends.saturating_sub(now.unwrap_or_default()).min(LONGEST);
        Self {
            ends: Some(Instant::now() + left),
            ended: None,
        }
    }

    /// Returns when it is no longer good.
    pub async fn over(&self) {
        let ended = async {
            match &self.ended {
                Some(token) => token.cancelled().await,
                None => pending().await,
            }
        };
        let ends = async {
            match self.ends {
                Some(ends) => tokio::time::sleep_until(ends.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = ended => {}
            () = ends => {}
        }
    }
}
