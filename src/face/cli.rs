//! The command line: arguments into a [`Command`], a report or an error into text and an exit
//! code. Data goes to stdout, everything else to stderr.

mod arguments;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::command::Command;
use crate::error::{Error, Result, Signal};
use crate::printable;
use crate::report::Report;
use crate::run::confinement;
use crate::run::progress::{LogLine, Observer, TerminalLine};
use crate::run::stop::{Reason, Stop};
use crate::run::telemetry;
use crate::settings::{Input, LogFormat, Settings};
use arguments::Invocation;

const MOMENT: Duration = Duration::from_secs(1);

/// What the process was started with and stands in.
pub struct Process {
    /// With the program's own name first.
    pub args: Vec<OsString>,
    pub env: BTreeMap<String, String>,
    pub working_dir: PathBuf,
    pub cpus: usize,
    pub memory: Option<u64>,
    pub stderr_is_terminal: bool,
}

/// Runs one command line to its end and says the exit code.
pub async fn run(process: Process) -> u8 {
    let json = arguments::wants_json(&process.args);
    match answer(process).await {
        Ok((text, code)) => {
            if let Err(error) = write_out(&text) {
                // What was done is done, so the exit code stays; only the telling of it failed.
                write_err(&format!("warning: stdout could not be written: {error}\n"));
            }
            code
        }
        Err(error) => {
            tell(&error, json);
            error.code().exit_code()
        }
    }
}

/// What belongs on stdout, and the exit code.
async fn answer(process: Process) -> Result<(String, u8)> {
    match arguments::parse(&process.args)? {
        Invocation::Text(text) => Ok((text, 0)),
        Invocation::Run {
            command,
            flags,
            env_file,
            config_file,
            json,
        } => {
            let dumb = process.env.get("TERM").is_some_and(|term| term == "dumb");
            let draw = process.stderr_is_terminal && !dumb;
            let uses = command.uses();
            let settings = Settings::load(&Input {
                flags,
                env: process.env,
                working_dir: process.working_dir,
                env_file,
                config_file,
                cpus: process.cpus,
                memory: process.memory,
                in_lambda: false,
                json,
                uses,
            })?;
            let report = perform(*command, settings, draw).await?;
            let text = if json {
                let document = serde_json::to_string(&report)
                    .map_err(|error| Error::internal("the report is not JSON").source(error))?;
                printable::json(&document)
            } else {
                report.text()
            };
            if let Some(error) = report.error() {
                write_err(&lines(error.code, &error.message, &error.hint));
            }
            if let Report::Backup(report) = &report {
                for (store, error) in report.failed_copies() {
                    let message = printable::line(&format!(
                        "the backup {} is good, but has no copy in {store}: {}: {}",
                        report.id, error.code, error.message
                    ));
                    write_err(&format!(
                        "warning[DEGRADED]: {message}\nhint: {}\n",
                        printable::line(&error.hint)
                    ));
                }
            }
            if let Report::Restore(report) = &report
                && let Some((message, hint)) = report.partial()
            {
                write_err(&format!(
                    "warning[PARTIAL]: {}\nhint: {}\n",
                    printable::line(&message),
                    printable::line(hint)
                ));
            }
            Ok((text + "\n", report.exit_code()))
        }
    }
}

/// What a drill of a folder has no use for.
const AWS_KEYS: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
];

async fn perform(command: Command, mut settings: Settings, draw: bool) -> Result<Report> {
    if matches!(&command, Command::Verify(request) if request.drill) {
        settings.forget_passwords();
        if !settings.uses_aws() {
            confinement::forget_variables(|name| AWS_KEYS.contains(&name));
        }
    }
    let observer: Arc<dyn Observer> = if draw && settings.log.format == LogFormat::Text {
        let line = TerminalLine::start();
        telemetry::start(&settings.log, line.log_writer())?;
        Arc::new(line)
    } else {
        telemetry::start(&settings.log, telemetry::stderr)?;
        Arc::new(LogLine::start())
    };
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    for note in settings.notes.iter().filter(|note| !settings.warnings.contains(note)) {
        tracing::info!("{note}");
    }
    let stop = Stop::new();
    listen_for_signals(&stop)?;
    let watching = observer.clone();
    // A task of its own, so that a panic becomes an error with its code.
    let run = tokio::spawn(async move {
        let app = put_together(settings, &stop).await?;
        app.run(command, stop, watching).await
    });
    let result = run.await;
    observer.finish();
    result.unwrap_or_else(|error| Err(Error::internal("the run panicked").source(error)))
}

/// A stop that comes now finds the notifier made, so that it is told like any other failure;
/// unless the making waits for the network.
async fn put_together(settings: Settings, stop: &Stop) -> Result<App> {
    let making = App::new(settings);
    tokio::pin!(making);
    tokio::select! {
        app = &mut making => app,
        reason = stop.requested() => tokio::time::timeout(MOMENT, making).await.unwrap_or(Err(reason.into())),
    }
}

/// The first signal asks the run to end in good order. Later ones change nothing: the clean-up
/// they would cut short is what keeps the store clean, and SIGKILL is always there.
fn listen_for_signals(stop: &Stop) -> Result<()> {
    let refused = |error: io::Error| Error::internal("signals cannot be listened for").source(error);
    let mut terminate = signal(SignalKind::terminate()).map_err(refused)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            let signal = tokio::select! {
                Some(()) = terminate.recv() => Signal::Terminate,
                Some(()) = interrupt.recv() => Signal::Interrupt,
                else => return,
            };
            if !stop.request(Reason::Signal(signal)) {
                tracing::warn!("stopping already: the clean-up goes on");
            }
        }
    });
    Ok(())
}

/// The document of a failure.
#[derive(Serialize)]
struct Failure<'a> {
    status: &'static str,
    error: Told<'a>,
}

#[derive(Serialize)]
struct Told<'a> {
    code: &'static str,
    message: &'a str,
    hint: &'a str,
}

/// The contract's two shapes of a failure: lines for people on stderr, a document on stdout.
pub fn tell(error: &Error, json: bool) {
    let (code, message, hint) = (error.code().name(), &error.message(), error.hint_text());
    if json {
        let failure = Failure {
            status: "failed",
            error: Told { code, message, hint },
        };
        let document = serde_json::to_string(&failure).unwrap_or_default();
        // Whoever reads stdout may have gone: the exit code and stderr still tell.
        let _ = write_out(&(printable::json(&document) + "\n"));
    }
    write_err(&lines(code, message, hint));
}

fn lines(code: &str, message: &str, hint: &str) -> String {
    format!(
        "error[{code}]: {}\nhint: {}\n",
        printable::line(message),
        printable::line(hint)
    )
}

/// A reader that has had enough (`| head -1`) is no failure.
fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

fn write_err(text: &str) {
    // There is no place left to complain to.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
