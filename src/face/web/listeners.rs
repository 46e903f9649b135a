//! The clients that listen to events: how many, and for how long.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::access::Caller;
use super::lasting::Lasting;
use super::places::{Place, Places};
use super::problem::Problem;

/// Streams at once: connections must be left for others.
const MOST: usize = 400;
/// Of one caller.
const MOST_OF_ONE: usize = 100;

pub(super) struct Listeners {
    places: Arc<Places<String>>,
    closing: CancellationToken,
}

/// One client's stream. Dropped, it makes room for another.
pub(super) struct Listener {
    _place: Place<String>,
    lasting: Lasting,
    closing: CancellationToken,
}

impl Listeners {
    pub fn new() -> Self {
        Self {
            places: Places::new(MOST, MOST_OF_ONE),
            closing: CancellationToken::new(),
        }
    }

    pub fn begin(&self, who: &Caller) -> Result<Listener, Problem> {
        let place = self.places.take(who.identity.to_string(), false);
        let place = place.ok_or_else(|| {
            Problem::http(
                StatusCode::TOO_MANY_REQUESTS,
                format!("{MOST} streams are read already, or {MOST_OF_ONE} by you"),
                "close streams that are no longer read, or ask GET /api/v1/runs",
            )
        })?;
        Ok(Listener {
            _place: place,
            lasting: who.lasting.clone(),
            closing: self.closing.clone(),
        })
    }

    /// Ends all of them, as soon as they have told what has happened so far.
    pub fn end(&self) {
        self.closing.cancel();
    }
}

impl Listener {
    /// Returns when it must end: with the process, or with the proof that it began with.
    pub async fn over(&self) {
        tokio::select! {
            () = self.lasting.over() => {}
            () = self.closing.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::web::identity::{Credential, Identity, Role};

    fn caller(name: &str, lasting: Lasting) -> Caller {
        Caller {
            identity: Identity {
                credential: Credential::Token,
                name: name.to_owned(),
                role: Role::Viewer,
            },
            from: "192.0.2.1".to_owned(),
            lasting,
        }
    }

    #[tokio::test]
    async fn a_stream_ends_with_the_proof_of_its_client_or_with_the_process() {
        let listeners = Listeners::new();
        let long = listeners.begin(&caller("ann", Lasting::until(u64::MAX))).unwrap();
        listeners.begin(&caller("ann", Lasting::until(0))).unwrap().over().await;
        let session = CancellationToken::new();
        let lasting = Lasting {
            ends: None,
            ended: Some(session.clone()),
        };
        let of_session = listeners.begin(&caller("ann", lasting)).unwrap();
        session.cancel();
        of_session.over().await;
        assert!(futures::FutureExt::now_or_never(long.over()).is_none());
        listeners.end();
        long.over().await;
    }

    #[test]
    fn one_caller_leaves_room_for_others() {
        let listeners = Listeners::new();
        let greedy = caller("greedy", Lasting::default());
        let all: Vec<_> = (0..MOST).map_while(|_| listeners.begin(&greedy).ok()).collect();
        assert_eq!(all.len(), MOST_OF_ONE);
        assert!(listeners.begin(&caller("ann", Lasting::default())).is_ok());
    }
}
