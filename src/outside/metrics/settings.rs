//! What a user can say of a run's numbers.

use std::path::PathBuf;

/// Where the numbers of a run go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    pub lines: MetricLines,
    /// CloudWatch's.
    pub namespace: String,
    /// What tells this installation's numbers from those of others.
    pub service: String,
    /// For Prometheus, by way of node exporter's textfile collector.
    pub file: Option<PathBuf>,
}

/// What is written among the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricLines {
    /// CloudWatch's embedded metric format.
    Emf,
    None,
}
