//! Restores that were planned, and wait for the confirmation of those who asked for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::asked::{Asker, RunRequest};
use super::queue::Place;
use super::run::RunId;
use super::{Control, Held};
use crate::command::{AskedMoment, Command, RestoreRequest, manifest_digest};
use crate::error::{Code, Error, Result};
use crate::report::{Report, RestoreReport};
use crate::run::progress::Silent;
use crate::run::stop::Stop;

/// What a plan says may be otherwise afterwards.
const LIFE: SignedDuration = SignedDuration::from_mins(10);
/// How long the making of a plan may take.
const PLANNING: Duration = Duration::from_secs(60);
/// How many may wait.
const MOST: usize = 100;

/// The body of `POST /api/v1/restore-plans`: the options of `pgstow restore`, without those that name a place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// An id or `latest`.
    pub backup: String,
    /// Of which database `latest` is.
    #[serde(default)]
    pub database: Option<String>,
    /// `schema.table`. None: everything.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Where copies of the tables are made.
    #[serde(default)]
    pub into: Option<String>,
    #[serde(default)]
    pub data_only: bool,
    #[serde(default)]
    pub create: bool,
    #[serde(default)]
    pub clean: bool,
    #[serde(default)]
    pub check: bool,
    #[serde(default)]
    pub globals: bool,
    #[serde(default)]
    pub no_owner: bool,
    #[serde(default)]
    pub no_privileges: bool,
    /// A moment, RFC 3339.
    #[serde(default)]
    pub to_time: Option<String>,
    /// A position in the server's log.
    #[serde(default)]
    pub to_lsn: Option<String>,
}

impl PlanRequest {
    /// # Errors
    /// `CONFIG` for a moment that is none, or two of them.
    pub(super) fn restore(&self, now: Timestamp) -> Result<RestoreRequest> {
        let moment = match (&self.to_time, &self.to_lsn) {
            (Some(_), Some(_)) => {
                return Err(Error::config("`to_time` and `to_lsn` name two moments").hint("send one of the two"));
            }
            (Some(time), None) => Some(AskedMoment::at(time, now)?),
            (None, Some(lsn)) => Some(AskedMoment::after(lsn)?),
            (None, None) => None,
        };
        Ok(RestoreRequest {
            backup: self.backup.clone(),
            database: self.database.clone(),
            tables: self.tables.clone(),
            into: self.into.clone(),
            data_only: self.data_only,
            create: self.create,
            clean: self.clean,
            check: self.check,
            globals: self.globals,
            no_owner: self.no_owner,
            no_privileges: self.no_privileges,
            moment,
            ..RestoreRequest::default()
        })
    }
}

/// A restore of exactly this backup, which begins when the one who asked for it confirms it.
#[derive(Debug, Clone, Serialize)]
pub struct RestorePlan {
    pub id: String,
    pub expires_at: Timestamp,
    /// The text that confirms it: the name of the database that it fills.
    pub confirm: String,
    /// Nothing has been changed yet: what would be done, in order, is in `steps`.
    pub report: RestoreReport,
    #[serde(skip)]
    pub(super) by: String,
    #[serde(skip)]
    pub(super) member: usize,
    #[serde(skip)]
    pub(super) request: RestoreRequest,
}

impl RestorePlan {
    /// `request` becomes that of the backup which the dry run found, with the manifest that it had.
    pub(super) fn new(
        (member, by): (usize, &str),
        mut request: RestoreRequest,
        (report, confirm): (RestoreReport, String),
        now: Timestamp,
    ) -> Result<RestorePlan> {
        let mut random = [0; 16];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| Error::internal("the system gives no random numbers"))?;
        request.backup = report.id.to_string();
        request.database = None;
        request.dry_run = false;
        request.expect_manifest = manifest_digest(&report.manifest_sha256);
        if request.expect_manifest.is_none() {
            return Err(Error::internal("the plan does not say which manifest it read"));
        }
        Ok(RestorePlan {
            id: hex::encode(random),
            expires_at: now + LIFE,
            confirm,
            report,
            by: by.to_owned(),
            member,
            request,
        })
    }
}

/// The plans that wait.
#[derive(Debug, Default)]
pub(super) struct RestorePlans(HashMap<String, RestorePlan>);

impl RestorePlans {
    /// # Errors
    /// `BUSY` if too many wait.
    pub fn add(&mut self, plan: RestorePlan, now: Timestamp) -> Result<()> {
        self.0.retain(|_, plan| plan.expires_at > now);
        if self.0.len() >= MOST {
            return Err(Error::new(Code::Busy, format!("{MOST} plans wait already"))
                .hint("each of them ends 10 minutes after it was made: ask again then"));
        }
        self.0.insert(plan.id.clone(), plan);
        Ok(())
    }

    /// Takes a plan out: it is good for one restore, of the one who asked for it.
    ///
    /// # Errors
    /// `NOT_FOUND` for a plan that does not wait for them; `CONFIG` if it is not confirmed, and then it waits on.
    pub fn take(&mut self, id: &str, by: &str, confirm: Option<&str>, now: Timestamp) -> Result<RestorePlan> {
        self.0.retain(|_, plan| plan.expires_at > now);
        let gone = || {
            Error::new(Code::NotFound, "no plan of this id waits for you").hint(
                "a plan is good for one restore, for 10 minutes, and for the one who asked for it: ask POST \
                 /api/v1/restore-plans for another",
            )
        };
        let plan = self.0.get(id).filter(|plan| plan.by == by).ok_or_else(gone)?;
        if confirm != Some(&plan.confirm) {
            return Err(
                Error::config("the confirmation is not the name of the database that the plan fills").hint(format!(
                    "send \"confirm\":{:?} if that database may be changed",
                    plan.confirm
                )),
            );
        }
        self.0.remove(id).ok_or_else(gone)
    }
}

impl Control {
    /// The restore of a plan, which is used up by it.
    pub(super) fn confirmed(
        &self,
        id: &RunId,
        request: &RunRequest,
        by: &Asker,
        now: Timestamp,
    ) -> Result<(Place, Held)> {
        let plan = request.plan()?;
        let confirm = request.confirm.as_deref();
        let plan = self.state().restore_plans.take(plan, &by.name, confirm, now)?;
        let place = Place {
            id: id.clone(),
            lane: format!("into {}", plan.report.target),
            likeness: plan.id.clone(),
            is_due: false,
        };
        let mut run = request.run(id.clone(), &self.fleet[plan.member].name, by, now)?;
        run.target = Some(plan.confirm);
        run.backup = Some(plan.report.id.to_string());
        let command = Command::Restore(plan.request);
        Ok((place, Held::new(run, plan.member, Some(command))))
    }

    /// Finds out what a restore would do, without doing it.
    ///
    /// # Errors
    /// Those of the restore, `BUSY` if too many plans wait, and `CONN_ERR` if the target does not answer.
    pub async fn plan_restore(&self, request: &PlanRequest, by: &str) -> Result<RestorePlan> {
        let member = match self.fleet.len() {
            1 => 0,
            _ => self.place_of(request.database.as_deref())?,
        };
        let app = &self.fleet[member].app;
        let mut restore = request.restore((self.clock)())?;
        restore.dry_run = true;
        let asked = app.run(Command::Restore(restore.clone()), Stop::new(), Arc::new(Silent));
        let planned = tokio::time::timeout(PLANNING, asked).await;
        let Report::Restore(report) =
            planned.unwrap_or_else(|_| Err(Error::new(Code::ConnErr, "the plan was not made in 60 s")))?
        else {
            return Err(Error::internal("a restore was not answered as one"));
        };
        let target = app.target_database();
        let target =
            target.ok_or_else(|| Error::config("the settings do not name the database that is restored into"))?;
        let now = (self.clock)();
        let plan = RestorePlan::new((member, by), restore, (*report, target), now)?;
        self.state().restore_plans.add(plan.clone(), now)?;
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(now: Timestamp) -> RestorePlan {
        let report = json!({
            "status": "planned",
            "id": "shop/20260131T040500Z-full",
            "target": "admin@host:5432/shop_restored",
            "store": "./backups",
            "manifest_sha256": "ab".repeat(32),
            "created_database": false,
            "jobs": 1,
            "bytes_read": 7,
            "duration_seconds": 0.1,
        });
        let report = serde_json::from_value(report).unwrap();
        let request = PlanRequest {
            backup: "latest".to_owned(),
            ..PlanRequest::default()
        };
        let request = request.restore(now).unwrap();
        RestorePlan::new((0, "ann"), request, (report, "shop_restored".to_owned()), now).unwrap()
    }

    #[test]
    fn a_plan_is_of_one_backup_for_one_restore_of_the_one_who_asked_within_ten_minutes() {
        let now: Timestamp = "2026-01-31T04:05:00Z".parse().unwrap();
        let made = plan(now);
        assert_eq!(made.request.backup, "shop/20260131T040500Z-full");
        assert_eq!(made.request.expect_manifest, Some([0xab; 32]));
        let id = made.id.clone();
        let mut plans = RestorePlans::default();
        plans.add(made, now).unwrap();
        let confirm = Some("shop_restored");
        let mut take = |id: &str, by: &str, confirm, now| plans.take(id, by, confirm, now).map(|_| ());
        assert_eq!(take("0", "ann", confirm, now).unwrap_err().code(), Code::NotFound);
        assert_eq!(take(&id, "bob", confirm, now).unwrap_err().code(), Code::NotFound);
        assert_eq!(take(&id, "ann", Some("shop"), now).unwrap_err().code(), Code::Config);
        assert_eq!(take(&id, "ann", None, now).unwrap_err().code(), Code::Config);
        take(&id, "ann", confirm, now).unwrap();
        assert_eq!(
            take(&id, "ann", confirm, now).unwrap_err().code(),
            Code::NotFound,
            "again"
        );
        let made = plan(now);
        let id = made.id.clone();
        plans.add(made, now).unwrap();
        let late = plans.take(&id, "ann", confirm, now + LIFE).unwrap_err();
        assert_eq!(late.code(), Code::NotFound);
    }

    #[test]
    fn plans_that_wait_are_counted_and_those_that_are_over_go() {
        let now: Timestamp = "2026-01-31T04:05:00Z".parse().unwrap();
        let mut plans = RestorePlans::default();
        for _ in 0..MOST {
            plans.add(plan(now), now).unwrap();
        }
        assert_eq!(plans.add(plan(now), now).unwrap_err().code(), Code::Busy);
        plans.add(plan(now), now + LIFE).unwrap();
    }
}
