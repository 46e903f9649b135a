//! `status`: whether a person has to act, and how. It reads only the settings and the stores, writes nothing, and asks
//! no database.

mod databases;
mod judgement;
mod report;
mod stores;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;

use crate::repository::retention::span_text;
use crate::repository::signature::Trust;
use crate::settings::{CredentialSource, Settings, StoreUrl};
use crate::store::Store;

pub use databases::{DatabaseProof, DatabaseStatus, GapStatus, IncrementsStatus, LastGood};
pub use report::{Judgement, SettingsReport, SourceReport, StatusReport};
pub use stores::{Drift, LeaseStatus, StoreStatus};

pub struct Inquiry<'a> {
    pub settings: &'a Settings,
    pub stores: &'a [Arc<dyn Store>],
    pub trust: &'a Trust,
    /// The database that the settings back up, if they name it.
    pub source: Option<String>,
    /// The only database to report, if set.
    pub database: Option<String>,
    pub now: Timestamp,
}

/// A store that cannot be reached is a problem in the report, not a failure of the command.
pub async fn run(inquiry: &Inquiry<'_>) -> StatusReport {
    let retention = &inquiry.settings.retention;
    let database = inquiry.database.as_deref();
    let looks = inquiry
        .stores
        .iter()
        .map(|store| stores::look(&**store, database, retention, inquiry.trust, inquiry.now));
    let found = join_all(looks).await;
    // The first store that answers is the reference; the others are compared with it.
    let databases = found
        .iter()
        .find(|store| store.status.reachable)
        .map_or_else(Vec::new, |store| databases::sum_up(&store.backups, inquiry.now));
    let problems = judgement::problems(inquiry, &found, &databases);
    StatusReport {
        status: match problems.is_empty() {
            true => Judgement::Ok,
            false => Judgement::Attention,
        },
        problems,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        settings: settings_report(inquiry.settings),
        schedule: inquiry.settings.schedule.clone(),
        databases,
        stores: found.into_iter().map(|store| store.status).collect(),
    }
}

fn settings_report(settings: &Settings) -> SettingsReport {
    let (info, from_secret) = match settings.source() {
        CredentialSource::Direct(info) => (Some(info), false),
        CredentialSource::Secret { overrides, .. } => (Some(overrides), true),
        CredentialSource::None => (None, false),
    };
    SettingsReport {
        source: info.map(|info| SourceReport {
            host: info.host.clone(),
            port: info.port,
            database: info.dbname.clone(),
            user: info.user.clone(),
            from_secret,
        }),
        stores: settings.stores.iter().map(url).collect(),
        retention: settings.retention.policy.to_string(),
        keep_last: settings.retention.keep_last,
        pitr: span_text(settings.retention.pitr),
        max_age_seconds: settings.max_age.as_secs(),
        compression: settings.compression.to_string(),
        notifications: !settings.channels.is_empty(),
        signs: settings.signing.sign_key.is_some(),
        verify_keys: settings.signing.verify_keys.len(),
    }
}

fn url(store: &StoreUrl) -> String {
    match store {
        StoreUrl::Folder(path) => path.display().to_string(),
        StoreUrl::S3 { bucket, prefix } if prefix.is_empty() => format!("s3://{bucket}"),
        StoreUrl::S3 { bucket, prefix } => format!("s3://{bucket}/{prefix}"),
    }
}

/// Whole seconds, for comparison with ages.
fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
