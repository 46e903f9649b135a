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
use futures::stream::{self, Stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::control::LiveEvent;
use crate::face::web::Web;
use crate::face::web::access::Viewer;
use crate::face::web::problem::Problem;

/// Proxies close a connection on which nothing comes for a minute.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new().route("/events", get(events))
}

async fn events(_: Viewer, State(web): State<Arc<Web>>, headers: HeaderMap) -> Result<Response, Problem> {
    let place = web.stream()?;
    let last = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let listening = web.control.listen(last);
    let first: Vec<Event> = match listening.missed {
        Some(missed) => missed.iter().map(|event| written(event)).collect(),
        None => vec![reset()],
    };
    let first = stream::iter(first.into_iter().map(Ok));
    let rest = coming(listening.coming, place);
    let stream = futures::StreamExt::chain(first, rest);
    let plainly = [
        // nginx would keep the events back until they fill a buffer.
        (HeaderName::from_static("x-accel-buffering"), "no"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let events = Sse::new(stream).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    Ok((plainly, events).into_response())
}

fn coming(
    receiver: Receiver<Arc<LiveEvent>>,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(Some((receiver, place)), |listening| async {
        let (mut receiver, place) = listening?;
        match receiver.recv().await {
            Ok(event) => Some((Ok(written(&event)), Some((receiver, place)))),
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
