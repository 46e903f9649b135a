//! The WebSocket of the older systems: three messages about backups, in exactly their shapes.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use crate::control::{Action, Happening, LiveEvent, Run};
use crate::face::web::Web;
use crate::face::web::access::{Caller, Viewer, no_token};
use crate::face::web::listeners::Listener;
use crate::face::web::pages::overview;
use crate::face::web::problem::Problem;

/// A client that takes nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(20);
const HEARTBEAT: Duration = Duration::from_secs(30);
/// They send nothing that matters.
const LONGEST_MESSAGE: usize = 4 << 10;

/// The older systems' WebSocket, or for a browser the page.
pub(super) async fn front(
    who: Option<Extension<Caller>>,
    State(web): State<Arc<Web>>,
    query: RawQuery,
    asked: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match (who, asked) {
        (Some(Extension(who)), Ok(asked)) => upgrade(Viewer(who), State(web), query, Ok(asked)).await,
        (None, Ok(_)) => no_token().into_response(),
        (Some(Extension(who)), Err(_)) => overview(&web, &who).await,
        (None, Err(_)) => Redirect::to("/login").into_response(),
    }
}

pub(super) async fn upgrade(
    Viewer(who): Viewer,
    State(web): State<Arc<Web>>,
    RawQuery(query): RawQuery,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else {
        return Problem::not_found("there is nothing here but the WebSocket of older clients").into_response();
    };
    let listener = match web.listeners.begin(&who) {
        Ok(listener) => listener,
        Err(problem) => return problem.into_response(),
    };
    let all = query.is_some_and(|query| query.split('&').any(|pair| pair == "events=all"));
    upgrade
        .max_message_size(LONGEST_MESSAGE)
        .on_upgrade(move |socket| async move {
            serve(socket, web, all, &listener).await;
        })
}

async fn serve(mut socket: WebSocket, web: Arc<Web>, all: bool, listener: &Listener) {
    let mut coming = web.control.listen(None).coming;
    let mut heart = tokio::time::interval(HEARTBEAT);
    loop {
        let message = tokio::select! {
            // What has happened is told first.
            biased;
            event = coming.recv() => match event {
                Ok(event) => match message(&event, all) {
                    Some(message) => Message::Text(message.to_string().into()),
                    None => continue,
                },
                // It was too slow, and would miss messages: it comes back.
                Err(RecvError::Lagged(_) | RecvError::Closed) => return,
            },
            heard = socket.recv() => match heard {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
            () = listener.over() => Message::Close(Some(CloseFrame {
                code: close_code::AWAY,
                reason: "the process ends, or the proof of who you are is no longer good".into(),
            })),
            _ = heart.tick() => Message::Ping(Vec::new().into()),
        };
        let is_last = matches!(message, Message::Close(_));
        match tokio::time::timeout(PATIENCE, socket.send(message)).await {
            Ok(Ok(())) if !is_last => {}
            _ => return,
        }
    }
}

/// What older clients are told of an event; `all`: every event in the API's own shape as well.
fn message(event: &LiveEvent, all: bool) -> Option<Value> {
    let told = match &event.what {
        Happening::Started { run } if run.action == Action::Backup => Some(json!({
            "type": "backup_started",
            "backupType": run.kind,
            "timestamp": event.at,
        })),
        Happening::Completed { run } if run.action == Action::Backup => Some(completed(run)),
        Happening::Failed { run } | Happening::Cancelled { run } if run.action == Action::Backup => {
            let why = run
                .error
                .as_ref()
                .map_or("the backup was cancelled", |error| &error.message);
            Some(json!({
                "type": "backup_failed",
                "backupType": run.kind,
                "error": why,
                "timestamp": event.at,
            }))
        }
        _ => None,
    };
    told.or_else(|| all.then(|| json!(event)))
}

fn completed(run: &Run) -> Value {
    let bytes = run.result.as_ref().and_then(|report| report["bytes_stored"].as_u64());
    json!({
        "type": "backup_completed",
        "backupType": run.kind,
        "backupPath": run.backup,
        "duration": run.duration_ms().unwrap_or_default(),
        "size": bytes.unwrap_or_default(),
    })
}
