//! The settings of the metrics.

use super::Reader;
use crate::settings::{MetricLines, Metrics};

const NAMESPACE: &str = "pgstow";
const SERVICE: &str = "pgstow";
/// The longest name, and the longest value of a dimension, that CloudWatch accepts.
const LONGEST: usize = 255;

impl Reader<'_> {
    pub(super) fn metrics(&mut self) -> Metrics {
        let lines = self.choice(
            "BACKUP_METRICS",
            &[("emf", MetricLines::Emf), ("none", MetricLines::None)],
        );
        let namespace = self.read("BACKUP_METRICS_NAMESPACE", namespace);
        let service = self.read("BACKUP_METRICS_SERVICE", service);
        let working_dir = self.input.working_dir.clone();
        let file = self.read("BACKUP_METRICS_FILE", |text| match text {
            "" => Err("it is empty"),
            text if text.ends_with('/') => Err("it is a folder; name a file in it, such as pgstow.prom"),
            text => Ok(working_dir.join(text)),
        });
        if let Some(file) = &file
            && file.extension().is_none_or(|extension| extension != "prom")
        {
            self.caution(format!(
                "node exporter reads only files whose names end in .prom, so it does not read {}",
                file.display()
            ));
        }
        let function = self.input.env.get("AWS_LAMBDA_FUNCTION_NAME");
        let (lines_default, service_default) = match function {
            Some(function) if self.input.in_lambda => (MetricLines::Emf, function.as_str()),
            _ if self.input.in_lambda => (MetricLines::Emf, SERVICE),
            _ => (MetricLines::None, SERVICE),
        };
        Metrics {
            lines: lines.unwrap_or(lines_default),
            namespace: namespace.unwrap_or_else(|| NAMESPACE.to_owned()),
            service: service.unwrap_or_else(|| service_default.to_owned()),
            file,
        }
    }
}

/// CloudWatch silently drops metrics whose namespace it does not accept.
fn namespace(text: &str) -> Result<String, &'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_/#: ".contains(c);
    let fits = (1..=LONGEST).contains(&text.len()) && text.chars().all(allowed);
    match text {
        text if !fits || text.starts_with(':') => {
            Err("expected 1 to 255 letters, digits, spaces or characters of .-_/#: that do not start with a colon")
        }
        text if text.starts_with("AWS/") => Err("namespaces that start with AWS/ are Amazon's own"),
        text => Ok(text.to_owned()),
    }
}

fn service(text: &str) -> Result<String, &'static str> {
    let printable = text.chars().all(|c| matches!(c, ' '..='~'));
    let fits = (1..=LONGEST).contains(&text.len()) && !text.starts_with(':');
    (printable && fits)
        .then(|| text.to_owned())
        .ok_or("expected 1 to 255 printable ASCII characters that do not start with a colon")
}
