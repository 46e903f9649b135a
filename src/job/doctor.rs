//! `doctor`: all that a backup will need, tried before one is made. A check that fails does not
//! stop those that do not depend on it.

mod database;
mod programs;
mod report;
mod signing;
mod source;
mod stores;

use std::sync::Arc;

use futures::future::join_all;

use crate::error::Error;
use crate::outside::aws::OPEN_ENDPOINT;
use crate::outside::notify::{Notifier, Topic};
use crate::outside::secrets::Credentials;
use crate::repository::signature::Keyring;
use crate::run::clock::Clock;
use crate::settings::Settings;
use crate::store::Store;

pub use report::{Check, DoctorReport, State};

pub struct Checkup<'a> {
    pub settings: &'a Settings,
    pub credentials: Option<&'a Credentials>,
    pub stores: &'a [Arc<dyn Store>],
    pub notifier: Option<&'a dyn Notifier>,
    pub keyring: &'a Keyring,
    pub clock: Clock,
}

/// Writes nothing but a probe into each store, which is removed or expires by itself.
pub async fn run(checkup: &Checkup<'_>) -> DoctorReport {
    let mut checks = settings(checkup.settings);
    let (found, topic, signing) = futures::join!(
        source::check(checkup),
        notifications(checkup.notifier),
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
    checks.push(topic);
    DoctorReport::of(checks)
}

/// One that is wrong stands at its default for the other checks.
fn settings(settings: &Settings) -> Vec<Check> {
    let failed = |problem: &String| Check::failed("settings", &Error::config(problem.clone()));
    match settings.problems.as_slice() {
        [] => understood(settings),
        problems => problems.iter().map(failed).collect(),
    }
}

/// What was adjusted stands under the tick; what a person should look at, each by itself.
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
            "if the file is yours, say so: --env-file .env, or BACKUP_ENV_FILE=.env; or take the setting out of it"
        } else {
            "correct the setting, or take it away"
        };
        Check::warning(NAME, note.as_str(), hint)
    });
    std::iter::once(Check::ok(NAME, detail))
        .chain(open)
        .chain(others)
        .collect()
}

/// Never by a message: whoever gets those would take it for one about a backup.
async fn notifications(notifier: Option<&dyn Notifier>) -> Check {
    const NAME: &str = "notifications";
    let Some(notifier) = notifier else {
        return Check::skipped(
            NAME,
            "no topic is set (BACKUP_SNS_TOPIC_ARN): nobody will be told of a failure",
        );
    };
    let target = notifier.target();
    match notifier.look().await {
        Ok(Topic::Seen) => Check::ok(NAME, format!("{target} is there; no message was sent")),
        Ok(Topic::Hidden) => Check::warning(
            NAME,
            format!(
                "{target}: this role may not look at the topic, so only a message would tell whether it may publish"
            ),
            "allow sns:GetTopicAttributes beside sns:Publish, or watch for the next backup's message",
        ),
        Err(error) => Check::failed(NAME, &error),
    }
}
