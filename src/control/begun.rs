//! A run that has begun: how it is carried out, what is told of it meanwhile, and how it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tracing::Instrument;

use super::Control;
use super::live::Happening;
use super::run::{Run, RunId, RunState};
use super::watched::Watched;
use crate::app::App;
use crate::command::Command;
use crate::error::{Error, ErrorReport, Result};
use crate::report::Report;
use crate::run::progress::{Observer, Progress};
use crate::run::stop::{Reason, Stop};

/// How often progress is told at most.
const TELLING: Duration = Duration::from_millis(500);

impl Control {
    /// Starts the runs whose turn it is.
    pub(super) fn start_what_may(self: &Arc<Self>) {
        loop {
            let started = {
                let mut state = self.state();
                let Some(id) = state.queue.start() else { return };
                let now = (self.clock)();
                state.runs.get_mut(&id).and_then(|held| {
                    held.run.state = RunState::Running;
                    held.run.started_at = Some(now);
                    let command = held.command.take()?;
                    let begun = Begun {
                        app: self.fleet[held.member].app.clone(),
                        command,
                        stop: held.stop.clone(),
                        watched: held.watched.clone(),
                    };
                    Some((begun, held.run.clone()))
                })
            };
            if let Some((begun, run)) = started {
                let control = self.clone();
                self.tasks.spawn(async move { control.carry_out(begun, run).await });
            }
        }
    }

    async fn carry_out(self: Arc<Self>, begun: Begun, run: Run) {
        let id = run.id.clone();
        self.record(&id).await;
        let now = (self.clock)();
        self.live.tell(now, Happening::Started { run: Arc::new(run) });
        let watched = begun.watched.clone();
        let stop = begun.stop.clone();
        let working = tokio::spawn(begun.work().instrument(tracing::info_span!("run", run = %id)));
        let mut working = std::pin::pin!(working);
        let mut told = Progress::default();
        let result = loop {
            tokio::select! {
                result = &mut working => break result,
                () = tokio::time::sleep(TELLING) => {
                    let progress = watched.now();
                    if progress != told {
                        told = progress.clone();
                        self.live.tell((self.clock)(), Happening::Progress { id: id.clone(), progress });
                    }
                }
            }
        };
        let result = result.unwrap_or_else(|error| Err(Error::internal("the run panicked").source(error)));
        self.end(&id, result, &stop).await;
    }

    async fn end(self: &Arc<Self>, id: &RunId, result: Result<Report>, stop: &Stop) {
        let now = (self.clock)();
        let run = self.change(id, |held| {
            // Before anybody can see that it has ended.
            self.runs_ended.fetch_add(1, Relaxed);
            held.run.finished_at = Some(now);
            held.run.progress = Some(held.watched.now());
            held.run.backup = held.run.backup.take().or_else(|| held.watched.backup());
            match result {
                Ok(report) => {
                    held.run.error = report.error().cloned();
                    held.run.state = match held.run.error {
                        None => RunState::Succeeded,
                        Some(_) => RunState::Failed,
                    };
                    held.run.result = serde_json::to_value(&report).ok();
                }
                Err(error) => {
                    held.run.state = match stop.reason() {
                        Some(Reason::Cancelled) => RunState::Cancelled,
                        _ => RunState::Failed,
                    };
                    held.run.error = Some(ErrorReport::from(&error));
                }
            }
        });
        self.state().queue.end(id);
        if let Some(run) = run {
            self.record(id).await;
            let run = Arc::new(run);
            let what = match run.state {
                RunState::Cancelled => Happening::Cancelled { run },
                RunState::Succeeded => Happening::Completed { run },
                _ => Happening::Failed { run },
            };
            self.live.tell(now, what);
            self.live.tell(now, Happening::StatusChanged);
        }
        self.start_what_may();
    }
}

/// A run that begins.
struct Begun {
    app: Arc<App>,
    command: Command,
    stop: Stop,
    watched: Arc<Watched>,
}

impl Begun {
    async fn work(self) -> Result<Report> {
        let observer: Arc<dyn Observer> = self.watched;
        let app = match &self.command {
            // What a drill runs is the database's own code: it finds no password in this process's copy of the settings.
            Command::Verify(request) if request.drill => Arc::new(self.app.without_passwords().await?),
            _ => self.app,
        };
        app.run(self.command, self.stop, observer).await
    }
}
