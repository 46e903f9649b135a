//! Runs as things of their own: they are asked for, wait, run, are cancelled and remembered. The page, the API and the
//! scheduler ask for them here; `App` carries them out.
//!
//! What backups exist and whether they are good is never remembered here: the store says it.

mod asked;
mod begun;
mod journal;
mod live;
mod pauses;
mod queue;
mod rest;
mod restore_plans;
mod run;
pub mod schedule;
mod scheduler;
mod watched;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::task::TaskTracker;

use crate::app::App;
use crate::command::Command;
use crate::error::{Code, Error, ErrorReport, Result};
use crate::repository::trigger::Trigger;
use crate::run::clock::Clock;
use crate::run::files::blocking;
use crate::run::stop::{Reason, Stop};
use crate::run::telemetry::ADMIN;
use pauses::Pauses;
use queue::{Admission, Place, Queue};
use restore_plans::RestorePlans;
use watched::Watched;

pub use asked::{Asker, RunRequest, Submitted};
pub use journal::{Asked, Checked, Entry, Journal, Record};
pub use live::{Happening, Listening, Live, LiveEvent};
pub use pauses::Pause;
pub use restore_plans::{PlanRequest, RestorePlan};
pub use run::{Action, NoRunId, Run, RunId, RunState};
pub use scheduler::{Kind, Newest, Plan, keep};

/// How many runs may wait.
const MAX_WAITING: usize = 100;
/// How the keys of scheduled runs begin.
const OF_SCHEDULES: &str = "schedule-";
/// How many runs that have ended are remembered.
const MAX_OVER: usize = 500;

/// One database with all that can be done with its backups.
pub struct Member {
    /// As people name it. There is one member of a name.
    pub name: String,
    pub app: Arc<App>,
}

/// What a [`Control`] is made of.
pub struct Parts<'a> {
    pub fleet: Vec<Member>,
    /// The folder of the journal, if there is one.
    pub journal: Option<&'a Path>,
    /// How many runs go on at once.
    pub max_runs: usize,
    /// When runs are due.
    pub plans: Vec<Plan>,
    pub clock: Clock,
}

/// The runs of this process.
pub struct Control {
    fleet: Vec<Member>,
    plans: Vec<Plan>,
    state: Mutex<State>,
    live: Live,
    journal: Option<Arc<Journal>>,
    clock: Clock,
    runs_ended: AtomicU64,
    /// Whatever queues, carries out or ends a run, up to its last record.
    tasks: TaskTracker,
    /// Held from the look at a run until that is written down: so the last record of a run has its last state.
    recording: Mutex<()>,
}

struct State {
    queue: Queue,
    runs: BTreeMap<RunId, Held>,
    /// Which run a key of the caller's has asked for.
    keys: HashMap<String, RunId>,
    pauses: Pauses,
    restore_plans: RestorePlans,
    is_closing: bool,
}

struct Held {
    run: Run,
    member: usize,
    /// Until it starts.
    command: Option<Command>,
    stop: Stop,
    watched: Arc<Watched>,
    /// The caller's key.
    key: Option<String>,
}

impl Held {
    fn new(run: Run, member: usize, command: Option<Command>) -> Self {
        Self {
            run,
            member,
            command,
            stop: Stop::new(),
            watched: Arc::default(),
            key: None,
        }
    }

    /// The run with its progress up to now.
    fn now(&self) -> Run {
        let mut run = self.run.clone();
        if run.state == RunState::Running {
            run.progress = Some(self.watched.now());
            run.backup = run.backup.or_else(|| self.watched.backup());
        }
        run
    }
}

impl Control {
    /// Reads the journal, and tells in it which runs were lost with the process before.
    ///
    /// # Errors
    /// `BUSY` if another process has the journal, and what may fail with its folder.
    pub fn new(parts: Parts<'_>) -> Result<Control> {
        let now = (parts.clock)();
        let mut past: BTreeMap<RunId, Run> = BTreeMap::new();
        let mut pauses = Pauses::default();
        let journal = match parts.journal {
            None => None,
            Some(folder) => {
                let journal = Journal::open(folder, now, |record| {
                    match record.entry {
                        Entry::Run { run } => {
                            past.insert(run.id.clone(), *run);
                        }
                        Entry::Paused(pause) => pauses.add(pause),
                        Entry::Resumed { schedule, .. } => pauses.end(schedule),
                        Entry::Asked(_) | Entry::Torn { .. } | Entry::Missing { .. } => {}
                    }
                    while past.len() > MAX_OVER {
                        past.pop_first();
                    }
                })?;
                for run in past.values_mut().filter(|run| !run.state.is_over()) {
                    run.state = RunState::Lost;
                    run.finished_at = Some(now);
                    run.error = Some(lost());
                    let run = Box::new(run.clone());
                    journal.write(now, Entry::Run { run })?;
                }
                Some(Arc::new(journal))
            }
        };
        let held = |run| Held::new(run, 0, None);
        Ok(Control {
            fleet: parts.fleet,
            plans: parts.plans,
            state: Mutex::new(State {
                queue: Queue::new(MAX_WAITING, parts.max_runs.max(1)),
                runs: past.into_iter().map(|(id, run)| (id, held(run))).collect(),
                keys: HashMap::new(),
                pauses,
                restore_plans: RestorePlans::default(),
                is_closing: false,
            }),
            live: Live::new(now),
            journal,
            clock: parts.clock,
            runs_ended: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            recording: Mutex::default(),
        })
    }

    pub fn fleet(&self) -> &[Member] {
        &self.fleet
    }

    /// The member of this name; without a name, the only one.
    ///
    /// # Errors
    /// `NOT_FOUND` for another name, `CONFIG` if a name is needed.
    pub fn member(&self, name: Option<&str>) -> Result<&Member> {
        self.place_of(name).map(|at| &self.fleet[at])
    }

    fn place_of(&self, name: Option<&str>) -> Result<usize> {
        let names = || {
            self.fleet
                .iter()
                .map(|member| member.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        match name {
            Some(name) => self.fleet.iter().position(|member| member.name == name).ok_or_else(|| {
                Error::new(Code::NotFound, format!("no database {name:?} is in the settings"))
                    .hint(format!("the settings have: {}", names()))
            }),
            None if self.fleet.len() == 1 => Ok(0),
            None => Err(Error::config("which database is meant?").hint(format!("name one of: {}", names()))),
        }
    }

    /// Asks for a run. A request with a `key` that was used before gets the run of that time.
    ///
    /// # Errors
    /// `CONFIG` and `NOT_FOUND` for what is asked; `BUSY` if too many runs wait, or this process ends.
    pub async fn submit(self: &Arc<Self>, request: &RunRequest, by: &Asker, key: Option<String>) -> Result<Submitted> {
        // Else somebody could take a scheduled backup's key, and it would not be made.
        if by.trigger != Trigger::Schedule && key.as_ref().is_some_and(|key| key.starts_with(OF_SCHEDULES)) {
            let text = format!("keys that begin with {OF_SCHEDULES:?} are those of schedules");
            return Err(Error::config(text).hint("use another key, such as a UUID"));
        }
        if let Some(same) = key.as_ref().and_then(|key| self.state().keys.get(key).cloned()) {
            return Ok(Submitted::Same(same));
        }
        let now = (self.clock)();
        let id = RunId::new(now)?;
        let (place, held) = match request.action {
            Action::Restore => self.confirmed(&id, request, by, now)?,
            _ => self.asked(&id, request, by, key.as_deref(), now)?,
        };
        let held = Held { key, ..held };
        if let Some(same) = self.state().admit(place, held)? {
            return Ok(Submitted::Same(same));
        }
        let (control, queued) = (self.clone(), id.clone());
        // A task of its own: the run that was admitted starts, even if the caller no longer waits for the answer.
        let queued = self.tasks.spawn(async move {
            control.record(&queued).await;
            // It may have been cancelled meanwhile.
            if let Some(run) = control.run(&queued).filter(|run| run.state == RunState::Queued) {
                control.live.tell(now, Happening::Queued { run: Arc::new(run) });
            }
            control.start_what_may();
        });
        queued
            .await
            .map_err(|error| Error::internal("the run was not queued").source(error))?;
        Ok(Submitted::New(id))
    }

    fn asked(
        &self,
        id: &RunId,
        request: &RunRequest,
        by: &Asker,
        key: Option<&str>,
        now: Timestamp,
    ) -> Result<(Place, Held)> {
        let member = self.place_of(request.database.as_deref())?;
        let name = &self.fleet[member].name;
        let command = request.command(key.unwrap_or(id.as_str()), by.trigger)?;
        let place = Place {
            id: id.clone(),
            lane: name.clone(),
            likeness: format!("{member} {}", request.likeness()),
            is_due: by.trigger == Trigger::Schedule,
        };
        let run = request.run(id.clone(), name, by, now)?;
        Ok((place, Held::new(run, member, Some(command))))
    }

    /// When runs are due.
    pub fn plans(&self) -> &[Plan] {
        &self.plans
    }

    async fn write(&self, entry: Entry) -> Result<()> {
        let Some(journal) = self.journal.clone() else {
            return Ok(());
        };
        let now = (self.clock)();
        blocking(move || journal.write(now, entry)).await
    }

    /// The moment of this process's clock.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The runs, newest first.
    pub fn runs(&self) -> Vec<Run> {
        self.state().runs.values().rev().map(Held::now).collect()
    }

    /// One run.
    pub fn run(&self, id: &RunId) -> Option<Run> {
        self.state().runs.get(id).map(Held::now)
    }

    /// How many runs have ended: what the stores said when it was less may be otherwise now.
    pub fn runs_ended(&self) -> u64 {
        self.runs_ended.load(Relaxed)
    }

    /// The last lines of a run's log.
    pub fn lines(&self, id: &RunId) -> Option<Vec<String>> {
        self.state().runs.get(id).map(|held| held.watched.lines())
    }

    /// Asks a run to end. It ends when it has cleaned up; what waited ends at once.
    ///
    /// # Errors
    /// `NOT_FOUND` for a run that is not known, `CONFIG` for one that is over.
    pub async fn cancel(self: &Arc<Self>, id: &RunId) -> Result<Run> {
        let now = (self.clock)();
        let run = {
            let mut state = self.state();
            let waited = state.queue.withdraw(id);
            let Some(held) = state.runs.get_mut(id) else {
                return Err(Error::new(Code::NotFound, format!("no run {id} is known"))
                    .hint("GET /api/v1/runs lists the runs that are"));
            };
            if held.run.state.is_over() {
                return Err(Error::config(format!("the run {id} is over")).hint("it needs no cancelling"));
            }
            if !waited {
                held.stop.request(Reason::Cancelled);
                return Ok(held.now());
            }
            held.command = None;
            held.run.state = RunState::Cancelled;
            held.run.finished_at = Some(now);
            held.run.clone()
        };
        let control = self.clone();
        let told = run.clone();
        let cancelled = self.tasks.spawn(async move {
            control.record(&told.id).await;
            let run = Arc::new(told);
            control.live.tell(now, Happening::Cancelled { run });
            control.start_what_may();
        });
        cancelled
            .await
            .map_err(|error| Error::internal("the end of the run was not told").source(error))?;
        Ok(run)
    }

    /// Whether no more runs are begun.
    pub fn is_closing(&self) -> bool {
        self.state().is_closing
    }

    /// The events from now on, and those since `last`.
    pub fn listen(&self, last: Option<u64>) -> Listening {
        self.live.listen(last)
    }

    pub fn journal(&self) -> Option<&Arc<Journal>> {
        self.journal.as_ref()
    }

    /// Writes into the journal what somebody asked for, before it has an effect.
    ///
    /// # Errors
    /// What may fail with the journal's folder; then it must not have that effect.
    pub async fn audit(&self, asked: Asked) -> Result<()> {
        tracing::info!(
            target: ADMIN, by = asked.by, role = asked.role, from = asked.from, what = asked.what,
            outcome = asked.outcome, "{}", asked.action
        );
        self.write(Entry::Asked(asked)).await
    }

    /// Begins no more runs, asks those that run to end, and waits for them, at most so long. Returns whether all ended.
    pub async fn close(self: &Arc<Self>, reason: Reason, patience: Duration) -> bool {
        let waited = {
            let mut state = self.state();
            state.is_closing = true;
            for held in state.runs.values().filter(|held| held.run.state == RunState::Running) {
                held.stop.request(reason);
            }
            state.queue.drain()
        };
        let now = (self.clock)();
        for id in waited {
            let run = self.change(&id, |held| {
                held.run.state = RunState::Cancelled;
                held.run.finished_at = Some(now);
            });
            if let Some(run) = run {
                self.record(&id).await;
                let run = Arc::new(run);
                self.live.tell(now, Happening::Cancelled { run });
            }
        }
        self.tasks.close();
        tokio::time::timeout(patience, self.tasks.wait()).await.is_ok()
    }

    fn change(&self, id: &RunId, change: impl FnOnce(&mut Held)) -> Option<Run> {
        let mut state = self.state();
        let held = state.runs.get_mut(id)?;
        change(held);
        Some(held.run.clone())
    }

    /// Writes down a run as it is now. A backup is made even if the journal cannot be written: a person hears of that.
    async fn record(self: &Arc<Self>, id: &RunId) {
        let Some(journal) = self.journal.clone() else { return };
        let (control, id) = (self.clone(), id.clone());
        let write = move || {
            let _alone = control.recording.lock().unwrap_or_else(PoisonError::into_inner);
            let run = control.state().runs.get(&id).map(|held| Box::new(held.run.clone()));
            let now = (control.clock)();
            run.map_or(Ok(()), |run| journal.write(now, Entry::Run { run }))
        };
        if let Err(error) = blocking(write).await {
            tracing::error!("the journal was not written: {error}: {}", error.hint_text());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No change is left half done by a panic: all of them are assignments.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lets a run wait for its turn. Returns the run that stands for it already, if there is one.
    fn admit(&mut self, place: Place, held: Held) -> Result<Option<RunId>> {
        if self.is_closing {
            return Err(Error::new(Code::Busy, "this process ends, and begins no more runs")
                .hint("ask again when it has started anew"));
        }
        if let Some(same) = held.key.as_ref().and_then(|key| self.keys.get(key)) {
            return Ok(Some(same.clone()));
        }
        // A schedule that comes round while its run goes on leaves that moment out.
        if held.run.trigger == Trigger::Schedule
            && let Some(same) = self.queue.has_like(&place.likeness)
        {
            return Ok(Some(same.clone()));
        }
        match self.queue.admit(place) {
            Admission::Same(same) => return Ok(Some(same)),
            Admission::Full => return Err(too_many()),
            Admission::Queued => {}
        }
        if let Some(key) = &held.key {
            self.keys.insert(key.clone(), held.run.id.clone());
        }
        self.runs.insert(held.run.id.clone(), held);
        self.forget();
        Ok(None)
    }

    /// Only so many runs that have ended are remembered: the oldest go first.
    fn forget(&mut self) {
        let over = self.runs.values().filter(|held| held.run.state.is_over()).count();
        let mut surplus = over.saturating_sub(MAX_OVER);
        let keys = &mut self.keys;
        self.runs.retain(|_, held| {
            let goes = surplus > 0 && held.run.state.is_over();
            if goes {
                surplus -= 1;
                if let Some(key) = &held.key {
                    keys.remove(key);
                }
            }
            !goes
        });
    }
}

fn lost() -> ErrorReport {
    let error = Error::new(
        Code::Interrupted(crate::error::Signal::Terminate),
        "the process ended before the run did",
    )
    .hint("look at the store for what the run made, and ask for it again");
    ErrorReport::from(&error)
}

fn too_many() -> Error {
    Error::new(Code::Busy, format!("{MAX_WAITING} runs wait already")).hint("ask again when some of them have ended")
}
