//! Whose word a run takes for who it is, and what becomes of it when that changes midway: rotated secrets,
//! tokens of IAM, the files and variables of AWS's users.

mod clouds;
mod iam;
mod rotating;

use serde_json::Value;

use crate::support::database::psql;
use crate::support::program::Run;
use crate::support::services::postgres_url;

const TABLE: &str =
    "CREATE TABLE public.t AS SELECT n FROM generate_series(1, 1000) n; SELECT lo_from_bytea(0, 'large');";

/// Whether a session of this role waits for a lock.
fn waits(major: u32, role: &str) -> bool {
    let asked =
        format!("SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = '{role}' AND wait_event_type = 'Lock'");
    psql(major, &postgres_url(major), &asked) == "t"
}

/// The report of a run that was started and has succeeded.
fn done(run: &Run) -> Value {
    assert!(run.status.success(), "{}\n{}", run.stderr, run.text());
    run.json()
}
