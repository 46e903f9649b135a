//! Without a terminal: a log line every 30 s, at `info`. So a pipe stays quiet (the CLI logs only warnings), and the
//! log of a function or a container shows that the run makes progress.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Event;
use super::counted::{Counted, Display};
use super::counters::{Counters, Rate};

const EVERY: Duration = Duration::from_secs(30);

pub type LogLine = Counted<LogLines>;

pub struct LogLines {
    /// Dropped to end the thread.
    running: Mutex<Option<mpsc::Sender<()>>>,
}

impl LogLine {
    /// The lines belong to the span that is current at this call (a function's request id).
    pub fn start() -> Self {
        Self::every(EVERY)
    }

    fn every(interval: Duration) -> Self {
        let counters = Arc::new(Counters::default());
        let (running, ended) = mpsc::channel::<()>();
        let watched = counters.clone();
        let span = tracing::Span::current();
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let tell = move || {
            let mut rate = Rate::default();
            // So that the first line has a rate too.
            rate.at(Instant::now(), 0);
            while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let snapshot = watched.snapshot();
                let rate = rate.at(Instant::now(), snapshot.read);
                let progress = snapshot.progress(rate);
                tracing::dispatcher::with_default(&dispatch, || {
                    span.in_scope(|| {
                        tracing::info!(
                            phase = %progress.phase,
                            table = %progress.table.as_deref().unwrap_or_default(),
                            bytes_read = progress.bytes_read,
                            bytes_stored = progress.bytes_stored,
                            bytes_per_second = progress.rate.unwrap_or_default(),
                            "in progress"
                        );
                    });
                });
            }
        };
        // Without the thread the run works as well; only these lines are missing.
        let spawned = thread::Builder::new().name("progress".into()).spawn(tell).is_ok();
        let running = Mutex::new(spawned.then_some(running));
        Self {
            counters,
            display: LogLines { running },
        }
    }
}

impl Display for LogLines {
    fn event(&self, event: &Event) {
        match event {
            Event::Begun { id } => tracing::debug!(%id, "begun"),
            Event::Committed { id } => tracing::debug!(%id, "committed"),
            // Phases and progress are logged every 30 s; warnings and errors have their own lines.
            Event::Phase { .. } | Event::Progress(_) | Event::Warned { .. } | Event::Failed { .. } => {}
        }
    }

    fn finish(&self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use super::*;
    use crate::run::progress::Observer;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<String>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_comes_every_interval_until_the_run_is_over() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let observer = LogLine::every(Duration::from_millis(20));
            observer.table("public.orders");
            observer.bytes_read(7);
            thread::sleep(Duration::from_millis(200));
            observer.finish();
            thread::sleep(Duration::from_millis(50));
            let told = lines.0.lock().unwrap().clone();
            assert!(
                told.contains("public.orders") && told.contains("bytes_read=7"),
                "{told}"
            );
            thread::sleep(Duration::from_millis(100));
            assert_eq!(*lines.0.lock().unwrap(), told);
        });
    }
}
