//! The stream of events (Server-Sent Events): what happens, as it happens.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::stream::{self, Stream, StreamExt};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::control::LiveEvent;
use crate::face::web::Web;
use crate::face::web::access::Viewer;
use crate::face::web::listeners::Listener;
use crate::face::web::problem::Problem;

/// Proxies close a connection on which nothing comes for a minute.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new().route("/events", get(events))
}

async fn events(Viewer(who): Viewer, State(web): State<Arc<Web>>, headers: HeaderMap) -> Result<Response, Problem> {
    let listener = web.listeners.begin(&who)?;
    let last = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let listening = web.control.listen(last);
    // Each is written when the client takes it: a thousand of them at once, for each client that comes back, would need
    // much memory.
    let first = match listening.missed {
        Some(missed) => stream::iter(missed).map(|event| Ok(written(&event))).left_stream(),
        None => stream::iter([Ok(reset())]).right_stream(),
    };
    let stream = first.chain(coming(listening.coming, listener));
    let plainly = [
        // nginx would keep the events back until they fill a buffer.
        (HeaderName::from_static("x-accel-buffering"), "no"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let events = Sse::new(stream).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    Ok((plainly, events).into_response())
}

fn coming(receiver: Receiver<Arc<LiveEvent>>, listener: Listener) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(Some((receiver, listener)), |listening| async {
        let (mut receiver, listener) = listening?;
        let next = tokio::select! {
            // What has happened is told first.
            biased;
            next = receiver.recv() => next,
            // The client comes back, to another process or with another proof of who it is.
            () = listener.over() => return Some((Ok(reset()), None)),
        };
        match next {
            Ok(event) => Some((Ok(written(&event)), Some((receiver, listener)))),
            // The client was too slow: it reads everything anew, and comes back.
            Err(RecvError::Lagged(_)) => Some((Ok(reset()), None)),
            Err(RecvError::Closed) => None,
        }
    })
}

fn written(event: &LiveEvent) -> Event {
    let document = serde_json::to_string(event).unwrap_or_default();
    Event::default()
        .id(event.id.to_string())
        .event(event.what.name())
        .data(document)
}

/// Events are missing: the client must read everything anew.
fn reset() -> Event {
    Event::default().event("reset").data("{}")
}
