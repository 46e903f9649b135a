//! Runs: asking for them, looking at them, cancelling them.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::{carried_out, must_write_down, write_down};
use crate::command::is_event_id;
use crate::control::{Action, Asker, Run, RunId, RunRequest, RunState, Submitted};
use crate::face::web::Web;
use crate::face::web::access::{Caller, Operator, Viewer, lacking};
use crate::face::web::identity::Role;
use crate::face::web::problem::Problem;
use crate::repository::trigger::Trigger;

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
        .route("/runs", get(list).post(submit))
        .route("/runs/{id}", get(one))
        .route("/runs/{id}/log", get(log))
        .route("/runs/{id}/cancel", post(cancel))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    database: Option<String>,
    action: Option<Action>,
    state: Option<RunState>,
    /// Older than this run.
    before: Option<RunId>,
    limit: Option<usize>,
}

const DEFAULT_LIMIT: usize = 50;
const MOST: usize = 500;

async fn list(
    _: Viewer,
    State(web): State<Arc<Web>>,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(wanted) =
        wanted.map_err(|error| Problem::http(StatusCode::BAD_REQUEST, error.body_text(), PARAMETERS))?;
    let is_wanted = |run: &Run| {
        wanted
            .database
            .as_ref()
            .is_none_or(|name| run.database.as_ref() == Some(name))
            && wanted.action.is_none_or(|action| run.action == action)
            && wanted.state.is_none_or(|state| run.state == state)
            && wanted.before.as_ref().is_none_or(|before| run.id < *before)
    };
    let limit = wanted.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MOST);
    let mut runs: Vec<Run> = web.control.runs();
    runs.retain(is_wanted);
    runs.truncate(limit);
    // A list tells how runs went; their reports are at their own paths.
    for run in &mut runs {
        run.result = None;
    }
    Ok(Json(json!({"runs": runs})).into_response())
}

const PARAMETERS: &str = "the parameters are database, action, state, before and limit";

async fn submit(
    Operator(who): Operator,
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    body: Result<Json<RunRequest>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(request) = body.map_err(|error| {
        Problem::http(
            error.status(),
            error.body_text(),
            "send a JSON document such as {\"action\":\"backup\"}, with Content-Type: application/json",
        )
    })?;
    let key = match headers.get("idempotency-key") {
        None => None,
        Some(value) => match value.to_str() {
            Ok(key) if is_event_id(key) => Some(key.to_owned()),
            _ => {
                return Err(Problem::http(
                    StatusCode::BAD_REQUEST,
                    "the Idempotency-Key is not understood",
                    "it has 1 to 256 printable ASCII characters, without spaces",
                ));
            }
        },
    };
    let submitted = ask(&web, &who, &request, key).await?;
    let id = submitted.id();
    let place = format!("/api/v1/runs/{id}");
    let run = web.control.run(id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, place)], Json(run)).into_response())
}

/// Asks for a run in somebody's name, and writes down that they asked.
pub(in crate::face::web) async fn ask(
    web: &Web,
    who: &Caller,
    request: &RunRequest,
    key: Option<String>,
) -> Result<Submitted, Problem> {
    let by = Asker {
        name: who.identity.to_string(),
        trigger: Trigger::Api,
    };
    let asked = match request.action {
        Action::Restore => {
            if let Some(problem) = lacking(who, Role::Admin) {
                return Err(problem);
            }
            who.must_be_named()?;
            let asked = who.asks("restore", request.plan.as_deref().unwrap_or_default());
            must_write_down(web, asked.clone()).await?;
            asked
        }
        action => {
            let asked = who.asks(action.name(), request.database.as_deref().unwrap_or_default());
            write_down(web, asked.clone()).await;
            asked
        }
    };
    carried_out(web, asked, web.control.submit(request, &by, key)).await
}

fn known(web: &Web, id: &str) -> Result<Run, Problem> {
    let run = id.parse().ok().and_then(|id: RunId| web.control.run(&id));
    run.ok_or_else(|| Problem::not_found("no run of this id is known"))
}

async fn one(_: Viewer, State(web): State<Arc<Web>>, Path(id): Path<String>) -> Result<Json<Run>, Problem> {
    known(&web, &id).map(Json)
}

async fn log(_: Viewer, State(web): State<Arc<Web>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let run = known(&web, &id)?;
    let lines = web.control.lines(&run.id).unwrap_or_default();
    Ok(Json(json!({"id": run.id, "lines": lines})).into_response())
}

async fn cancel(
    Operator(who): Operator,
    State(web): State<Arc<Web>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let run = cancelled(&web, &who, &id).await?;
    Ok((StatusCode::ACCEPTED, Json(run)).into_response())
}

/// Asks a run to end, in somebody's name.
pub(in crate::face::web) async fn cancelled(web: &Web, who: &Caller, id: &str) -> Result<Run, Problem> {
    let run = known(web, id)?;
    let asked = who.asks("cancel", run.id.as_str());
    write_down(web, asked.clone()).await;
    carried_out(web, asked, web.control.cancel(&run.id)).await
}
