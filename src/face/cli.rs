//! The command line: it turns arguments into a [`Command`], and a report or an error into text and an exit code. Data
//! goes to stdout, everything else to stderr.

mod arguments;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::command::Command;
use crate::error::{Code, Error, Failure, Result, Signal};
use crate::face::serve::Systemd;
use crate::face::{serve, web};
use crate::printable;
use crate::report::Report;
use crate::run::confinement;
use crate::run::progress::{LogLine, Observer, TerminalLine};
use crate::run::stop::{Reason, Stop};
use crate::run::telemetry::{self, LogFiles};
use crate::settings::{Input, LogFormat, Settings};
use arguments::Invocation;

const MOMENT: Duration = Duration::from_secs(1);

/// A password's line is not longer.
const LONGEST_LINE: u64 = 4_096;

/// Arguments and environment of the process.
pub struct Process {
    /// With the program's own name first.
    pub args: Vec<OsString>,
    pub env: BTreeMap<String, String>,
    pub working_dir: PathBuf,
    pub cpus: usize,
    pub memory: Option<u64>,
    pub stderr_is_terminal: bool,
}

/// Runs one command line to its end and returns the exit code.
pub async fn run(process: Process) -> u8 {
    let json = arguments::wants_json(&process.args);
    match answer(process).await {
        Ok((text, code)) => {
            if let Err(error) = write_out(&text) {
                // The command has done its work, so the exit code stays; only the printing failed.
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

/// The text for stdout, and the exit code.
async fn answer(process: Process) -> Result<(String, u8)> {
    match arguments::parse(&process.args)? {
        Invocation::Text(text) => Ok((text, 0)),
        Invocation::HashPassword => hash_password().map(|hash| (format!("{hash}\n"), 0)),
        Invocation::Serve {
            flags,
            env_file,
            config_file,
        } => {
            let systemd = Systemd::of(&process.env);
            let settings = Settings::load(&Input {
                flags,
                env: process.env,
                working_dir: process.working_dir,
                env_file,
                config_file,
                cpus: process.cpus,
                memory: process.memory,
                ..Input::default()
            })?;
            start_logging(&settings)?;
            let stop = Stop::new();
            listen_for_signals(&stop)?;
            serve::run(settings, systemd, &stop).await.map(|()| (String::new(), 0))
        }
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
            write_err(&complaints(&report));
            Ok((text + "\n", report.exit_code()))
        }
    }
}

/// The lines on stderr for a run that has a report, but did not do everything that was asked.
fn complaints(report: &Report) -> String {
    let warning = |label: &str, message: &str, hint: &str| {
        let (message, hint) = (printable::line(message), printable::line(hint));
        format!("warning[{label}]: {message}\nhint: {hint}\n")
    };
    let mut out = String::new();
    if let Some(error) = report.error() {
        out.push_str(&lines(error.code, &error.message, &error.hint));
    }
    match report {
        Report::Backup(report) => {
            if let Some(error) = report.broken_chain() {
                let message = format!("the backup {} is good, but {}", report.id, error.message());
                out.push_str(&warning("DEGRADED", &message, error.hint_text()));
            }
            for (store, error) in report.failed_copies() {
                let message = format!(
                    "the backup {} is good, but has no copy in {store}: {}: {}",
                    report.id, error.code, error.message
                );
                out.push_str(&warning("DEGRADED", &message, &error.hint));
            }
        }
        Report::Restore(report) => {
            if let Some((message, hint)) = report.partial() {
                out.push_str(&warning("PARTIAL", &message, hint));
            }
        }
        _ => {}
    }
    out
}

/// A drill of a folder does not need these.
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
    tell_of_settings(&settings);
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

/// The hash of the first line of stdin.
fn hash_password() -> Result<String> {
    let mut line = String::new();
    let read = io::stdin().lock().take(LONGEST_LINE).read_line(&mut line);
    read.map_err(|error| Error::config("the password cannot be read from stdin").source(error))?;
    web::hashed(line.trim_end_matches(['\r', '\n']))
}

/// A process that serves logs what it does, on stderr, and in files if the settings name a folder for them.
fn start_logging(settings: &Settings) -> Result<()> {
    let serve = &settings.serve;
    let days = u32::try_from(serve.log_days).unwrap_or(u32::MAX);
    let files = serve
        .log_dir
        .as_ref()
        .map(|folder| LogFiles::new(folder, serve.zone.clone(), days));
    telemetry::start_with(&settings.log, telemetry::stderr, files.transpose()?)?;
    tell_of_settings(settings);
    Ok(())
}

fn tell_of_settings(settings: &Settings) {
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    for note in settings.notes.iter().filter(|note| !settings.warnings.contains(note)) {
        tracing::info!("{note}");
    }
}

/// If a stop is requested now, pgstow still makes the notifier, so that it can report the stop like any other failure;
/// unless that takes longer than a moment, because it waits for the network.
async fn put_together(settings: Settings, stop: &Stop) -> Result<App> {
    let making = App::new(settings);
    tokio::pin!(making);
    tokio::select! {
        app = &mut making => app,
        reason = stop.requested() => tokio::time::timeout(MOMENT, making).await.unwrap_or(Err(reason.into())),
    }
}

/// The first signal asks the run to stop cleanly. Later ones change nothing: they would interrupt the clean-up of the
/// store. SIGKILL is always possible.
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
                tracing::warn!("stopping already: the clean-up continues");
            }
        }
    });
    Ok(())
}

/// The two forms of a failure in the contract: lines for people on stderr, a document on stdout.
pub fn tell(error: &Error, json: bool) {
    let failure = Failure::from(error);
    if json {
        let document = serde_json::to_string(&failure).unwrap_or_default();
        // The reader of stdout may have gone: the exit code and stderr still report the failure.
        let _ = write_out(&(printable::json(&document) + "\n"));
    }
    write_err(&lines(failure.error.code, &failure.error.message, &failure.error.hint));
}

fn lines(code: Code, message: &str, hint: &str) -> String {
    format!(
        "error[{code}]: {}\nhint: {}\n",
        printable::line(message),
        printable::line(hint)
    )
}

/// It is no failure if the reader closes the pipe early (`| head -1`).
fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

fn write_err(text: &str) {
    // If stderr fails, no place is left to report that.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
