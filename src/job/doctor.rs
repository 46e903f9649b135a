//! `doctor`: tries everything that a backup needs, before one is made. After a check fails, it continues with those
//! that do not depend on it.

mod database;
mod increments;
mod programs;
mod report;
mod signing;
mod source;
mod stores;

use std::sync::Arc;

use futures::future::join_all;

use crate::error::Error;
use crate::outside::aws::OPEN_ENDPOINT;
use crate::outside::notify::{ChannelState, Notifier};
use crate::outside::secrets::Credentials;
use crate::repository::signature::Keyring;
use crate::run::clock::Clock;
use crate::settings::Settings;
use crate::store::Store;

pub use report::{Check, CheckState, DoctorReport, DoctorStatus};

pub struct Checkup<'a> {
    pub settings: &'a Settings,
    pub credentials: Option<&'a Credentials>,
    pub stores: &'a [Arc<dyn Store>],
    pub notifiers: &'a [Box<dyn Notifier>],
    pub keyring: &'a Keyring,
    pub clock: Clock,
}

/// Writes only a probe into each store, which it removes or which expires by itself.
pub async fn run(checkup: &Checkup<'_>) -> DoctorReport {
    let mut checks = settings(checkup.settings);
    let (found, channels, signing) = futures::join!(
        source::check(checkup),
        notifications(checkup.notifiers),
        signing::check(checkup.keyring)
    );
    let bytes = found.bytes;
    checks.extend(found.checks);
    checks.extend(signing);
    let stores = checkup
        .stores
        .iter()
        .enumerate()
        .map(|(index, store)| stores::check(&**store, index > 0, checkup.settings, bytes, checkup.clock));
    checks.extend(join_all(stores).await.into_iter().flatten());
    checks.extend(channels);
    DoctorReport::of(checks)
}

/// For the other checks, a wrong setting has its default value.
fn settings(settings: &Settings) -> Vec<Check> {
    let failed = |problem: &String| Check::failed("settings", &Error::config(problem.clone()));
    match settings.problems.as_slice() {
        [] => understood(settings),
        problems => problems.iter().map(failed).collect(),
    }
}

/// Adjusted settings are listed under the tick. Each setting that needs a person is a check of its own.
fn understood(settings: &Settings) -> Vec<Check> {
    const NAME: &str = "settings";
    let unsafe_line = |note: &&String| note.contains(OPEN_ENDPOINT);
    let mut looked_at: Vec<&String> = Vec::new();
    for caution in settings.cautions.iter().chain(&settings.warnings) {
        if !looked_at.contains(&caution) {
            looked_at.push(caution);
        }
    }
    let adjusted = settings
        .notes
        .iter()
        .filter(|note| !unsafe_line(note) && !looked_at.contains(note));
    let adjusted: Vec<&str> = adjusted.map(String::as_str).collect();
    let detail = match adjusted.as_slice() {
        [] => "understood".to_owned(),
        notes => notes.join("; "),
    };
    let hint = "set the endpoint (AWS_ENDPOINT_URL_S3, …) to an https:// URL";
    let open = settings.notes.iter().filter(unsafe_line);
    let open = open.map(|note| Check::warning(NAME, note.as_str(), hint));
    let others = looked_at.iter().map(|note| {
        let hint = if note.contains("--env-file") {
            "if the file is yours, name it with --env-file .env or BACKUP_ENV_FILE=.env; else remove the setting from it"
        } else {
            "correct the setting, or remove it"
        };
        Check::warning(NAME, note.as_str(), hint)
    });
    std::iter::once(Check::ok(NAME, detail))
        .chain(open)
        .chain(others)
        .collect()
}

const NOTIFICATIONS: &str = "notifications";

async fn notifications(notifiers: &[Box<dyn Notifier>]) -> Vec<Check> {
    if notifiers.is_empty() {
        return vec![Check::skipped(
            NOTIFICATIONS,
            "no topic is set (BACKUP_SNS_TOPIC_ARN): pgstow sends no message when a run fails",
        )];
    }
    join_all(notifiers.iter().map(|notifier| channel(&**notifier))).await
}

/// Sends no message to try it: its readers would take that for one about a backup.
async fn channel(notifier: &dyn Notifier) -> Check {
    const NAME: &str = NOTIFICATIONS;
    let target = notifier.target();
    match notifier.look().await {
        Ok(ChannelState::Exists) => Check::ok(NAME, format!("{target} exists; no message was sent")),
        Ok(ChannelState::Hidden) => Check::warning(
            NAME,
            format!(
                "{target}: this role may not look at the topic, so only a message would show whether it may publish"
            ),
            "allow sns:GetTopicAttributes beside sns:Publish, or watch for the next backup's message",
        ),
        Err(error) => Check::failed(NAME, &error),
    }
}
