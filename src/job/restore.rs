//! Restores a backup, or some of its tables, from the store into a database, without a disk in between. [`run`] lists
//! the steps in order: it finds out everything that can be known before it changes anything.

mod allowed;
mod around;
mod asked;
mod check;
mod choice;
mod context;
pub(crate) mod database;
mod denied;
mod exclusion;
mod failed;
pub(crate) mod globals;
mod grants;
mod in_place;
mod inhabited;
mod into;
mod load;
mod loading;
mod making;
mod order;
mod partitions;
mod parts;
mod past;
mod plan;
mod positions;
mod prepared;
mod preparing;
mod queue;
mod ready;
mod refreshing;
mod renewing;
mod replacing;
mod report;
mod request;
mod rows;
pub(crate) mod script;
mod silence;
mod state;
mod steps;
mod tables;
mod unfinished;
mod waiting;
mod watching;

use std::sync::Arc;
use std::time::Instant;

use crate::error::Result;
use crate::outside::secrets::Credentials;
use crate::repository::signature::Trust;
use crate::run::clock::Clock;
use crate::run::progress::Observer;
use crate::run::stop::Stop;
use crate::settings::Settings;
use crate::store::Store;
use state::State;

pub use failed::Failed;
pub(crate) use load::Load;
pub(crate) use loading::Loader;
pub use plan::LeftOut;
pub(crate) use plan::{Plan, Without, everything, plan};
pub use report::{CopyReport, RestoreReport, RestoreStatus};
pub use request::RestoreRequest;
pub(in crate::job) use rows::unread;

/// What a restore works with.
pub struct Job<'a> {
    pub settings: &'a Settings,
    /// The database to restore into.
    pub target: &'a Credentials,
    pub stores: &'a [Arc<dyn Store>],
    /// The database whose `latest` backup is meant, if a setting names one.
    pub database: Option<&'a str>,
    pub trust: &'a Trust,
    pub clock: Clock,
    pub stop: &'a Stop,
    pub observer: &'a Arc<dyn Observer>,
}

/// Restores what the request asks for. An error says in what state the target was left.
pub async fn run(job: &Job<'_>, request: &RestoreRequest) -> Result<RestoreReport> {
    let begun = Instant::now();
    let state = State::default();
    let done = match preparing::prepare(job, request).await {
        Ok(prepared) if request.dry_run => Ok(prepared.planned(job, request)),
        Ok(prepared) => watching::carry_out(job, request, prepared, &state).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(mut report) => {
            report.duration_seconds = begun.elapsed().as_secs_f64();
            Ok(report)
        }
        Err(error) => Err(state.tell(&error)),
    }
}
