//! The settings for a run's metrics.

use std::path::PathBuf;

/// Where the metrics of a run are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    pub lines: MetricLines,
    /// The namespace in CloudWatch.
    pub namespace: String,
    /// Distinguishes the metrics of this installation from those of others.
    pub service: String,
    /// The file for Prometheus, read by node exporter's textfile collector.
    pub file: Option<PathBuf>,
}

/// The format that is written among the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricLines {
    /// CloudWatch's embedded metric format.
    Emf,
    None,
}
