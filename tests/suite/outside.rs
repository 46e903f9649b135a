//! Other services: the sources of credentials, notifications, and the readers of metrics.

mod credentials;
mod metrics;
mod notify;
