//! Logs: lines of text or JSON, always on stderr. Every module logs through `tracing`; this module decides what is
//! shown, and in which format.

mod daily;
mod files;

use std::fmt;
use std::io::{self, Write};

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, filter};

use crate::error::{Error, Result};
use crate::printable;

pub use files::{ADMIN, BACKUP, LogFiles};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    /// `RUST_LOG`, in tracing's syntax.
    pub filter: String,
}

impl Log {
    /// The filter, completed for the modules that it does not name.
    pub fn directives(&self) -> String {
        log_directives(&self.filter)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// The AWS SDK also returns as errors what it warns about; pgstow reports these in its own words. The SDK's are
/// Rust's debugging output.
const SDK: &str = "aws_config=off,aws_runtime=off,aws_smithy_runtime=off";

/// The directives for tracing's filter. A single level is for our own modules only: hyper and rustls stay at
/// warnings, and the AWS SDK is silent, unless a directive names them.
pub fn log_directives(filter: &str) -> String {
    if filter.contains(['=', ',', '[']) {
        filter.to_owned()
    } else {
        format!("warn,{SDK},pgstow={filter}")
    }
}

fn filter(log: &Log) -> Result<EnvFilter> {
    EnvFilter::builder()
        .parse(log.directives())
        .map_err(|error| Error::config("RUST_LOG is not understood").source(error))
}

/// Which log lines are possible at all. `trace` of other crates contains bytes from the wire, and so secrets: no
/// setting turns it on. Lambda's runtime repeats each failure that the face has logged, which would count every alarm
/// twice.
fn allowed(metadata: &tracing::Metadata<'_>) -> bool {
    let target = metadata.target();
    target.starts_with("pgstow") || (*metadata.level() <= Level::DEBUG && target != "lambda_runtime::layers::panic")
}

/// Starts logging, once per process; a second call (a test's) changes nothing.
pub fn start<W>(log: &Log, writer: W) -> Result<()>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    start_with(log, writer, None)
}

/// The same, with files beside the writer.
pub fn start_with<W>(log: &Log, writer: W, files: Option<LogFiles>) -> Result<()>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Without `log_internal_errors(false)` a closed stderr would be reported to stderr: a panic.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Plainly {
            writer,
            format: log.format,
        })
        .log_internal_errors(false);
    let layer = match log.format {
        LogFormat::Text => lines.with_ansi(false).with_target(false).with_timer(Seconds).boxed(),
        LogFormat::Json => lines.fmt_fields(JsonFields::new()).event_format(JsonLines).boxed(),
    };
    let layer = layer.with_filter(filter(log)?);
    let files = files.map(|files| files.with_filter(filter::filter_fn(LogFiles::has)));
    let _ = tracing_subscriber::registry()
        .with(layer.with_filter(filter::filter_fn(allowed)))
        .with(files)
        .try_init();
    Ok(())
}

/// A time for people, in whole seconds.
struct Seconds;

impl FormatTime for Seconds {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:.0}", jiff::Timestamp::now())
    }
}

/// Makes each entry one line that cannot steer a terminal: it contains names and servers' messages.
struct Plainly<W> {
    writer: W,
    format: LogFormat,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Plainly<W> {
    type Writer = PlainLine<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        PlainLine {
            writer: self.writer.make_writer(),
            format: self.format,
        }
    }
}

struct PlainLine<W> {
    writer: W,
    format: LogFormat,
}

impl<W: Write> Write for PlainLine<W> {
    /// The subscriber writes a whole line at once.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = match self.format {
            LogFormat::Text => printable::line(line),
            LogFormat::Json => printable::json(line),
        };
        self.writer.write_all((line + "\n").as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Stderr, one line per write.
pub fn stderr() -> impl Write {
    io::stderr()
}

/// One JSON object per line: time, level, message, target, the spans' fields (`request_id`) and the event's own
/// fields, all at the top level, so that a log query needs no path.
struct JsonLines;

impl<S> FormatEvent<S, JsonFields> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        line.insert("timestamp".into(), json!(format!("{:.3}", jiff::Timestamp::now())));
        line.insert("level".into(), json!(event.metadata().level().as_str()));
        line.insert("target".into(), json!(event.metadata().target()));
        for span in context
            .event_scope()
            .into_iter()
            .flat_map(tracing_subscriber::registry::Scope::from_root)
        {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<JsonFields>>();
            let fields = fields.and_then(|fields| serde_json::from_str::<Map<String, Value>>(fields).ok());
            line.extend(fields.into_iter().flatten());
        }
        event.record(&mut Fields(&mut line));
        let text = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{text}")
    }
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), json!(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), json!(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().into(), json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), json!(value));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_has_the_spans_fields_at_the_top() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .fmt_fields(JsonFields::new())
            .event_format(JsonLines);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("invocation", request_id = "8476a536-e9f4");
            let _entered = span.enter();
            tracing::info!(bytes = 12_u64, table = %"a\"b", "stored");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["request_id"], "8476a536-e9f4");
        assert_eq!(line["message"], "stored");
        assert_eq!(line["level"], "INFO");
        assert_eq!((line["bytes"].as_u64(), &line["table"]), (Some(12), &json!("a\"b")));
    }

    #[test]
    fn a_level_alone_is_for_our_own_modules() {
        let log = |filter: &str| Log {
            format: LogFormat::Text,
            filter: filter.to_owned(),
        };
        assert_eq!(
            log("debug").directives(),
            "warn,aws_config=off,aws_runtime=off,aws_smithy_runtime=off,pgstow=debug"
        );
        assert_eq!(
            log("pgstow=trace,aws_config=debug").directives(),
            "pgstow=trace,aws_config=debug"
        );
        assert!(filter(&log("no=such=level")).is_err());
    }
}
