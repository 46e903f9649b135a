//! `--nice`, for less load on the server: pgstow looks at the server once a second, and pauses while replicas lag or
//! other sessions are many.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::SourceDatabase;
use crate::dataflow::throttle::Throttle;
use crate::error::Result;
use crate::postgres::{ServerLoad, Session};
use crate::settings::Nice;

const LOOK: Duration = Duration::from_secs(1);
/// If an answer takes this long, the server is busy. The backup does not wait longer for the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Watches the server until it is dropped. Then the backup does not pause any more.
pub(super) struct ServerWatch {
    throttle: Throttle,
    looking: JoinHandle<()>,
    warnings: Arc<Mutex<Vec<String>>>,
}

impl ServerWatch {
    /// Uses a session of its own, because the others are busy.
    pub(super) async fn start(source: &SourceDatabase, nice: Nice, throttle: &Throttle) -> Result<Self> {
        let session = source.session.beside().await?;
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let looking = tokio::spawn(look(session, nice, throttle.clone(), Arc::clone(&warnings)));
        Ok(Self {
            throttle: throttle.clone(),
            looking,
            warnings,
        })
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for ServerWatch {
    fn drop(&mut self) {
        self.looking.abort();
        self.throttle.open_gate();
    }
}

async fn look(session: Session, nice: Nice, throttle: Throttle, warnings: Arc<Mutex<Vec<String>>>) {
    let warn = |text: String| warnings.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    let mut hidden = false;
    loop {
        match tokio::time::timeout(PATIENCE, session.load()).await {
            Ok(Ok(load)) => {
                if load.lag_is_hidden && !hidden {
                    hidden = true;
                    warn(
                        "--nice watches only the number of sessions: to see how far replicas lag, the role needs pg_monitor".into(),
                    );
                }
                if is_busy(load, nice) {
                    throttle.close_gate();
                } else {
                    throttle.open_gate();
                }
            }
            Ok(Err(error)) => {
                throttle.open_gate();
                return warn(format!(
                    "--nice stopped watching the server's load: {}",
                    error.message()
                ));
            }
            Err(_) => throttle.close_gate(),
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn is_busy(load: ServerLoad, nice: Nice) -> bool {
    load.sessions > nice.max_sessions || load.lag.is_some_and(|lag| lag > nice.max_lag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_limit_makes_it_pause() {
        let nice = Nice {
            max_lag: Duration::from_secs(10),
            max_sessions: 20,
        };
        let load = |seconds: Option<u64>, sessions| ServerLoad {
            lag: seconds.map(Duration::from_secs),
            lag_is_hidden: false,
            sessions,
        };
        assert!(!is_busy(load(None, 20), nice));
        assert!(!is_busy(load(Some(10), 0), nice));
        assert!(is_busy(load(Some(11), 0), nice));
        assert!(is_busy(load(None, 21), nice));
    }
}
