//! The connections: accepted, counted, limited, and closed in the end.

mod clients;
mod timed;

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::face::web::Peer;
use crate::run::stop::Stop;
use crate::settings::serve::Network;
use clients::Clients;
use timed::{TimedBody, TimedStream};

/// The longest head of a request: its line and its headers.
const LONGEST_HEAD: usize = 32 << 10;
/// How long answers may take to end once the process ends.
const ENDING: Duration = Duration::from_secs(3);
/// After an error of the system (too many open files) it waits before it accepts again.
const BREATH: Duration = Duration::from_millis(100);

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// For the head of a request, from the moment at which it could be sent.
    head: Duration,
    /// For its body.
    body: Duration,
    /// For taking some bytes of the answer.
    taking: Duration,
}

const PATIENCE: Patience = Patience {
    head: Duration::from_secs(10),
    body: Duration::from_secs(10),
    taking: Duration::from_secs(60),
};

/// Accepts connections until a stop is asked for. `proxies` stand for many clients.
pub(super) async fn serve(listener: TcpListener, router: Router, proxies: Vec<Network>, stop: Stop) {
    let connections = TaskTracker::new();
    let clients = Clients::new(proxies);
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
        let Some(place) = clients.take(peer.ip()) else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            let _place = place;
            answer(stream, peer, router, &stop, PATIENCE).await;
        });
    }
    drop(listener);
    connections.close();
    let _ = tokio::time::timeout(ENDING, connections.wait()).await;
}

async fn answer<S>(stream: S, peer: SocketAddr, router: Router, stop: &Stop, patience: Patience)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(|body| Body::new(TimedBody::new(body, patience.body)));
        request.extensions_mut().insert(Peer(peer));
        router.clone().oneshot(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(TimedStream::new(stream, patience.taking)), service)
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const SHORT: Patience = Patience {
        head: Duration::from_millis(200),
        body: Duration::from_millis(200),
        taking: Duration::from_millis(200),
    };

    fn connected() -> DuplexStream {
        let router = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/long", get(|| async { "x".repeat(1 << 20) }))
            .route("/", post(|body: String| async move { body }));
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        let peer = "192.0.2.1:1".parse().unwrap();
        tokio::spawn(async move { answer(theirs, peer, router, &Stop::new(), SHORT).await });
        ours
    }

    /// What is answered to some bytes, until the server closes the connection.
    async fn answered(bytes: &[u8]) -> String {
        let mut stream = connected();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let all = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer));
        all.await.expect("the connection stays open").unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn a_client_that_sends_no_head_no_body_or_nothing_after_an_answer_is_left() {
        assert!(!answered(b"").await.contains("200 OK"));
        assert!(!answered(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").await.contains("200 OK"));
        let half = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf";
        assert!(answered(half).await.starts_with("HTTP/1.1 400"));
        let whole = answered(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(whole.starts_with("HTTP/1.1 200") && whole.ends_with("here"), "{whole}");
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_of_its_answer_is_left() {
        let mut stream = connected();
        stream
            .write_all(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        tokio::time::sleep(SHORT.taking * 4).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.len() < 1 << 20, "{}", answer.len());
    }

    #[tokio::test]
    async fn a_head_without_end_is_refused() {
        let begun = Instant::now();
        let mut long = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
        long.resize(LONGEST_HEAD * 2, b'x');
        let mut stream = connected();
        let (mut reading, mut writing) = tokio::io::split(&mut stream);
        let mut answer = Vec::new();
        let (_, read) = tokio::join!(writing.write_all(&long), reading.read_to_end(&mut answer));
        read.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with("HTTP/1.1 431"),
            "{answer} after {:?}",
            begun.elapsed()
        );
    }
}
