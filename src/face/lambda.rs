//! The Lambda function: it turns events into commands, reports into responses, and errors into function errors whose
//! `errorType` is the code.
//!
//! The function reads the settings and makes the clients once, while Lambda initialises the environment. If that fails,
//! the function does not exit: Lambda would answer every event with `Runtime.ExitError` and start it again and again.
//! It tries again when an event comes, and that event gets the error itself (`CONFIG` and the reason), where alarms and
//! callers see it.

mod events;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use tracing::Instrument;

use crate::app::App;
use crate::command::Command;
use crate::error::{Error, ErrorReport, Result};
use crate::printable;
use crate::report::Report;
use crate::run::progress::{LogLine, Observer};
use crate::run::stop::{Reason, Stop};
use crate::run::telemetry;
use crate::settings::{Input, Log, LogFormat, Settings};
pub use events::parse_event;

/// The time for the clean-up at the end of an invocation: to abort an upload, to release the lease and to send the
/// message takes a few requests each.
const SAFETY_MARGIN: Duration = Duration::from_secs(10);

const MEMORY_SIZE: &str = "AWS_LAMBDA_FUNCTION_MEMORY_SIZE";
/// In megabytes: for pgstow at its peak, pg_dump, and Lambda's runtime.
const LEAST_MEMORY: u64 = 256;

/// The function's environment.
pub struct Process {
    pub env: BTreeMap<String, String>,
    pub working_dir: PathBuf,
    pub cpus: usize,
    pub memory: Option<u64>,
}

/// Serves events until Lambda ends the environment. It returns an error only if Lambda's own interface fails.
pub async fn run(process: Process) -> Result<()> {
    for name in ["AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_VERSION", MEMORY_SIZE] {
        if !process.env.contains_key(name) {
            return Err(Error::config(format!(
                "AWS_LAMBDA_RUNTIME_API is set, but {name} is not: this is not a Lambda environment"
            ))
            .hint("unset AWS_LAMBDA_RUNTIME_API to use the command line"));
        }
    }
    let function = Arc::new(Function {
        input: Input {
            env: process.env,
            working_dir: process.working_dir,
            cpus: process.cpus,
            memory: process.memory,
            in_lambda: true,
            json: true,
            ..Input::default()
        },
        app: Mutex::default(),
    });
    // The next event gets this error.
    if let Err(error) = function.app().await {
        log_failure(&ErrorReport::from(&error));
    }
    let handler = service_fn(move |event: LambdaEvent<Value>| {
        let function = function.clone();
        async move {
            let span = tracing::info_span!("invocation", request_id = %event.context.request_id);
            let result = function.handle(event).instrument(span.clone()).await;
            match outcome(result) {
                Ok(report) => {
                    span.in_scope(|| log_success(&report));
                    response(&report).map_err(|error| {
                        let error = Error::internal("the report is not JSON").source(error);
                        diagnostic(&ErrorReport::from(&error))
                    })
                }
                Err(failed) => {
                    span.in_scope(|| log_failure(&failed));
                    Err(diagnostic(&failed))
                }
            }
        }
    });
    lambda_runtime::run(handler)
        .await
        .map_err(|error| Error::internal("Lambda's runtime interface failed").source(error))
}

/// Escaped, because the caller may show it on a terminal.
fn response(report: &Report) -> serde_json::Result<Box<RawValue>> {
    RawValue::from_string(printable::json(&serde_json::to_string(report)?))
}

struct Function {
    input: Input,
    /// It is kept between events.
    app: Mutex<Option<Arc<App>>>,
}

impl Function {
    async fn app(&self) -> Result<Arc<App>> {
        let mut kept = self.app.lock().await;
        if let Some(app) = &*kept {
            return Ok(app.clone());
        }
        let settings = Settings::load(&self.input).inspect_err(|_| {
            // Settings that are wrong cannot choose the log's format, so Lambda's defaults do.
            let _ = telemetry::start(&default_log(), telemetry::stderr);
        })?;
        telemetry::start(&settings.log, telemetry::stderr)?;
        for warning in &settings.warnings {
            tracing::warn!("{warning}");
        }
        for note in settings.notes.iter().filter(|note| !settings.warnings.contains(note)) {
            tracing::info!("{note}");
        }
        check_memory(&self.input.env)?;
        let app = Arc::new(App::new(settings).await?);
        *kept = Some(app.clone());
        Ok(app)
    }

    /// The `App` for the command, if an event may ask for it.
    async fn app_for(&self, command: &mut Command) -> Result<Arc<App>> {
        let app = self.app().await?;
        app.check_event(command)?;
        match command {
            Command::Verify(request) if request.drill => {
                // The next event gets a new one, with the passwords.
                *self.app.lock().await = None;
                request.database = request.database.take().or_else(|| app.source_database());
                app.without_passwords().await.map(Arc::new)
            }
            _ => Ok(app),
        }
    }

    async fn handle(self: Arc<Self>, event: LambdaEvent<Value>) -> Result<Report> {
        let (payload, context) = event.into_parts();
        let mut command = parse_event(&payload, &context.request_id)?;
        let now = Timestamp::now();
        let left = left_until(context.deadline, now);
        let stop = Stop::before(now + (left - margin(left)));
        let deadline = tokio::spawn(request_at_deadline(stop.clone(), left));
        let observer: Arc<dyn Observer> = Arc::new(LogLine::start());
        let watching = observer.clone();
        // A task of its own, so that a panic becomes an error with its code.
        let work = async move {
            let app = self.app_for(&mut command).await?;
            app.run(command, stop, watching).await
        };
        let result = tokio::spawn(work.in_current_span()).await;
        deadline.abort();
        observer.finish();
        result.unwrap_or_else(|error| Err(Error::internal("the run panicked").source(error)))
    }
}

/// With less, Lambda would kill the function in the middle of a dump, and report that only in its log.
fn check_memory(env: &BTreeMap<String, String>) -> Result<()> {
    let megabytes: Option<u64> = env.get(MEMORY_SIZE).and_then(|text| text.parse().ok());
    match megabytes {
        Some(megabytes) if megabytes < LEAST_MEMORY => Err(Error::config(format!(
            "the function has {megabytes} MB of memory, but needs at least {LEAST_MEMORY}"
        ))
        .hint("raise MemorySize: 1769 MB give one core, 3538 MB two")),
        _ => Ok(()),
    }
}

/// The response, or the error. A damaged backup that a verification finds is also a failure, for alarms and callers.
fn outcome(result: Result<Report>) -> Result<Report, ErrorReport> {
    match result {
        Ok(report) => match report.error() {
            Some(found) => Err(found.clone()),
            None => Ok(report),
        },
        Err(error) => Err(ErrorReport::from(&error)),
    }
}

fn default_log() -> Log {
    Log {
        format: LogFormat::Json,
        filter: "info".into(),
    }
}

/// The time left of an invocation. Its deadline is in milliseconds since 1970.
fn left_until(deadline: u64, now: Timestamp) -> Duration {
    let now = u64::try_from(now.as_millisecond()).unwrap_or(0);
    Duration::from_millis(deadline.saturating_sub(now))
}

/// The time to keep for the clean-up: [`SAFETY_MARGIN`], but at most a fifth of the time left.
fn margin(left: Duration) -> Duration {
    SAFETY_MARGIN.min(left / 5)
}

async fn request_at_deadline(stop: Stop, left: Duration) {
    let margin = margin(left);
    tokio::time::sleep(left - margin).await;
    stop.request(Reason::Deadline { left: margin });
}

/// The answer to an asynchronous event is lost, so the log must have it too.
fn log_success(report: &Report) {
    match report {
        Report::Backup(report) => tracing::info!(
            backup = %report.id,
            repeated = report.repeated,
            tables = report.tables,
            rows = report.rows,
            bytes_read = report.bytes_read,
            bytes_stored = report.bytes_stored,
            duration_seconds = report.duration_seconds,
            manifest_sha256 = report.manifest_sha256.as_deref().unwrap_or_default(),
            warnings = report.warnings.len(),
            "the backup is stored"
        ),
        Report::HandedOver(report) => tracing::info!(
            task = report.task,
            reason = report.reason,
            "the backup is handed over to a container task"
        ),
        Report::Verify(_) | Report::Restore(_) => tracing::info!("{}", report.to_string().trim_end()),
        _ => {}
    }
}

fn log_failure(failed: &ErrorReport) {
    tracing::error!(code = failed.code.name(), hint = failed.hint, "{}", failed.message);
}

fn diagnostic(failed: &ErrorReport) -> Diagnostic {
    Diagnostic {
        error_type: failed.code.name().to_owned(),
        error_message: printable::line(&format!("{}; hint: {}", failed.message, failed.hint)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outside::handover::{HandoverReport, HandoverStatus};

    #[test]
    fn an_answer_cannot_steer_the_terminal_on_which_it_is_shown_and_says_the_same() {
        let report = Report::HandedOver(HandoverReport {
            status: HandoverStatus::HandedOver,
            task: "a\u{9b}2J".into(),
            cluster: "b\u{202e}\n".into(),
            reason: "c".into(),
        });
        let told = response(&report).unwrap();
        assert!(!told.get().chars().any(printable::steers), "{told}");
        let back: Value = serde_json::from_str(told.get()).unwrap();
        assert_eq!(
            (back["task"].as_str(), back["cluster"].as_str()),
            (Some("a\u{9b}2J"), Some("b\u{202e}\n"))
        );
    }

    #[test]
    fn the_margin_is_ten_seconds_but_a_fifth_of_a_short_run() {
        let margins = [900, 60, 50, 10, 3].map(|seconds| margin(Duration::from_secs(seconds)).as_millis());
        assert_eq!(margins, [10_000, 10_000, 10_000, 2_000, 600]);
        assert_eq!(margin(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_function_with_too_little_memory_says_so_before_it_is_killed() {
        let with = |text: &str| BTreeMap::from([(MEMORY_SIZE.to_owned(), text.to_owned())]);
        let error = check_memory(&with("128")).unwrap_err();
        assert!(error.message().contains("128 MB") && error.hint_text().contains("MemorySize"));
        assert!(check_memory(&with("256")).is_ok());
    }

    #[test]
    fn a_deadline_that_has_passed_leaves_nothing() {
        let now = Timestamp::from_millisecond(10_000).unwrap();
        assert_eq!(left_until(12_500, now), Duration::from_millis(2_500));
        assert_eq!(left_until(9_000, now), Duration::ZERO);
    }

    #[test]
    fn a_function_error_has_the_code_as_its_type_and_the_hint_in_its_message() {
        let error = Error::config("BACKUP_STORE is not set").hint("name s3://bucket");
        let shown = serde_json::to_value(diagnostic(&ErrorReport::from(&error))).unwrap();
        assert_eq!(shown["errorType"], "CONFIG");
        assert_eq!(shown["errorMessage"], "BACKUP_STORE is not set; hint: name s3://bucket");
    }

    #[tokio::test]
    async fn the_stop_is_requested_before_the_deadline() {
        let stop = Stop::new();
        let left = Duration::from_secs(1);
        tokio::spawn(request_at_deadline(stop.clone(), left));
        assert_eq!(stop.reason(), None);
        let reason = tokio::select! {
            biased;
            reason = stop.requested() => reason,
            () = tokio::time::sleep(left) => panic!("the deadline came first"),
        };
        let left = Duration::from_millis(200);
        assert_eq!(reason, Reason::Deadline { left });
    }
}
