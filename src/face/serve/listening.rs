//! The connections: accepted, counted, limited, and closed in the end.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::face::web::Peer;
use crate::run::stop::Stop;

/// How long a request's head may take.
const HEADERS: Duration = Duration::from_secs(10);
/// Connections at once, of all and of one address.
const MOST: usize = 512;
const MOST_OF_ONE: usize = 32;
/// How long answers may take to end once the process ends.
const ENDING: Duration = Duration::from_secs(3);
/// After an error of the system (too many open files) it waits before it accepts again.
const BREATH: Duration = Duration::from_millis(100);

/// Accepts connections until a stop is asked for.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: Stop) {
    let connections = TaskTracker::new();
    let counted = Arc::new(Counted::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.requested() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!("a connection was not accepted: {error}");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        // One too many is closed at once: its client sees that, and others are served.
        let Some(place) = Counted::take(&counted, peer.ip()) else {
            continue;
        };
        connections.spawn(answer(stream, peer, router.clone(), stop.clone(), place));
    }
    drop(listener);
    connections.close();
    let _ = tokio::time::timeout(ENDING, connections.wait()).await;
}

async fn answer(stream: TcpStream, peer: SocketAddr, router: Router, stop: Stop, place: Place) {
    let _place = place;
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        router.clone().oneshot(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stop.requested() => {
            // The answer that is on its way is the last one.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}

/// How many connections there are, by address.
#[derive(Default)]
struct Counted(Mutex<HashMap<IpAddr, usize>>);

/// One connection's place.
struct Place {
    counted: Arc<Counted>,
    address: IpAddr,
}

impl Counted {
    fn take(counted: &Arc<Counted>, address: IpAddr) -> Option<Place> {
        let mut places = counted.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = places.values().sum();
        let of_one = places.get(&address).copied().unwrap_or_default();
        // Loopback is a proxy, or the tools of this machine.
        if all >= MOST || (of_one >= MOST_OF_ONE && !address.is_loopback()) {
            return None;
        }
        places.insert(address, of_one + 1);
        Some(Place {
            counted: counted.clone(),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.counted.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = places.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                places.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_take_all_places_and_gives_its_own_back() {
        let counted = Arc::new(Counted::default());
        let far: IpAddr = "192.0.2.1".parse().unwrap();
        let mut places: Vec<Place> = (0..MOST_OF_ONE)
            .map(|_| Counted::take(&counted, far).unwrap())
            .collect();
        assert!(Counted::take(&counted, far).is_none());
        assert!(Counted::take(&counted, "192.0.2.2".parse().unwrap()).is_some());
        places.pop();
        assert!(Counted::take(&counted, far).is_some());
        drop(places);
        assert!(counted.0.lock().unwrap().is_empty());
        let near: IpAddr = "127.0.0.1".parse().unwrap();
        let all: Vec<_> = (0..MOST).map_while(|_| Counted::take(&counted, near)).collect();
        assert_eq!(all.len(), MOST);
        assert!(Counted::take(&counted, far).is_none());
    }
}
