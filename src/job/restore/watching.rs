//! Event triggers of the target, which fire at each change of a definition and may refuse it.

use super::prepared::Prepared;
use super::replacing::UNSATISFIED;
use super::report::RestoreReport;
use super::state::State;
use super::{Job, steps};
use crate::error::{Code, Result};
use crate::job::restore::RestoreRequest;
use crate::postgres::quoting::identifier;

/// If the server refuses something, the error names the target's event triggers, since one of them may have refused
/// it.
pub(super) async fn carry_out(
    job: &Job<'_>,
    request: &RestoreRequest,
    prepared: Prepared,
    state: &State,
) -> Result<RestoreReport> {
    let watching = match request.create {
        true => Vec::new(),
        false => job.stop.or_stop(prepared.target.session.watching()).await?,
    };
    let done = steps::carry_out(job, request, prepared, state).await;
    done.map_err(|error| {
        let said = error.message();
        // They do not fire for rows, and refuse no rows of a constraint.
        let is_refused = error.code() == Code::RestoreErr
            && said.contains("the server says")
            && !said.starts_with("cannot load ")
            && error.hint_text() != UNSATISFIED;
        let Some(first) = watching.first().filter(|_| is_refused) else {
            return error;
        };
        let hint = format!(
            "it may be one of the target's event triggers that refuses this ({}): its owner can disable it meanwhile \
             (ALTER EVENT TRIGGER {} DISABLE); otherwise {}",
            watching.join(", "),
            identifier(first),
            match error.has_own_hint() {
                true => error.hint_text(),
                false =>
                    "correct the cause, or leave the object out, with everything that needs it: --exclude KIND:NAME",
            }
        );
        error.hint(hint)
    })
}
