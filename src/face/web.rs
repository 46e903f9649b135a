//! The HTTP face: requests → runs and reports. One router serves a listening socket and the events of a function.
//!
//! A handler's first argument says which role it needs ([`access`]). What a backup is worth is never judged here: the
//! store is asked ([`overview`]).

mod access;
mod api;
mod download;
mod hosts;
mod identity;
mod jwt;
mod lasting;
mod legacy;
mod listeners;
mod metrics;
mod openapi;
mod overview;
mod pages;
mod part;
mod places;
mod problem;
mod question;
mod rates;
mod refusals;
mod sessions;
mod users;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::control::{Asked, Control};
use crate::run::clock::Clock;
use crate::settings::Serve;
use crate::settings::serve::Network;
use download::Downloads;
use hosts::Hosts;
use listeners::Listeners;
use overview::Overview;
use problem::{OldProblem, Problem};
use rates::Rates;
use refusals::Refusals;
use sessions::Sessions;

pub use access::{Access, Peer};
pub use identity::{NoRole, Role};
pub use jwt::Demands;
pub use places::{Place, Places};
pub use users::hashed;

/// The longest body that a request may have: all of them are small documents.
const LONGEST_BODY: usize = 64 << 10;

/// How often the refused logins without a line are told together, if there are any.
const TELLING: Duration = Duration::from_secs(60);

/// What the handlers share.
pub struct Web {
    control: Arc<Control>,
    access: Access,
    hosts: Hosts,
    /// Their word about a client's address counts.
    proxies: Vec<Network>,
    overview: Overview,
    downloads: Downloads,
    listeners: Listeners,
    /// Wrong tokens, by address.
    wrong_tokens: Rates,
    /// Requests, by who asks.
    requests: Rates,
    /// Attempts to log in, by address and by user.
    logins: Rates,
    refusals: Refusals,
    sessions: Sessions,
}

impl Web {
    pub fn new(control: Arc<Control>, access: Access, serve: &Serve, clock: Clock) -> Arc<Self> {
        let overview = Overview::new(control.clone(), clock);
        Arc::new(Self {
            control,
            access,
            hosts: Hosts::new(serve.allowed_hosts.iter().cloned()),
            proxies: serve.trusted_proxies.clone(),
            overview,
            downloads: Downloads::default(),
            listeners: Listeners::new(),
            wrong_tokens: Rates::new(20, Duration::from_secs(3)),
            requests: Rates::new(600, Duration::from_millis(50)),
            logins: Rates::new(5, Duration::from_secs(12)),
            refusals: Refusals::new(),
            // A proxy of this machine is there for TLS.
            sessions: Sessions::new(!serve.listen.ip().is_loopback() || !serve.trusted_proxies.is_empty()),
        })
    }

    /// Tells now and then how many logins were refused, until it is dropped.
    pub async fn keep_telling(self: Arc<Self>) {
        let mut telling = tokio::time::interval(TELLING);
        loop {
            telling.tick().await;
            self.tell_refusals().await;
        }
    }

    /// Ends the streams, once they have told what has happened, and tells what is not written down yet.
    pub async fn close(&self) {
        self.listeners.end();
        self.tell_refusals().await;
    }

    async fn tell_refusals(&self) {
        let silent = self.refusals.rest();
        if silent > 0 {
            let asked = Asked {
                by: String::new(),
                role: String::new(),
                from: "several".to_owned(),
                action: "login".to_owned(),
                what: String::new(),
                outcome: format!("{silent} refused"),
            };
            api::write_down(self, asked).await;
        }
    }
}

/// Every path that is answered.
pub fn router(web: Arc<Web>) -> Router {
    Router::new()
        .nest("/api/v1", api::routes())
        .merge(legacy::routes())
        .merge(pages::routes())
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi::description))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(web.clone(), access::guard))
        // Health is asked by load balancers, by any name and without a token; it says nothing else.
        .route("/healthz", get(|| async { "ok\n" }))
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
        .layer(middleware::map_response(hardened))
        .with_state(web)
}

/// The paths of the older systems, whose clients read another shape of errors.
fn is_older_path(path: &str) -> bool {
    path.starts_with("/api/") && !path.starts_with("/api/v1/")
}

/// Whether new runs are begun.
async fn ready(State(web): State<Arc<Web>>) -> Response {
    match web.control.is_closing() {
        false => "ok\n".into_response(),
        true => (StatusCode::SERVICE_UNAVAILABLE, "this process ends\n").into_response(),
    }
}

async fn unknown(uri: axum::http::Uri) -> Response {
    let problem = Problem::not_found(format!("there is nothing at {}", uri.path()));
    match is_older_path(uri.path()) {
        true => OldProblem(problem).into_response(),
        false => problem.into_response(),
    }
}

async fn wrong_method(method: axum::http::Method, uri: axum::http::Uri) -> Response {
    let problem = Problem::http(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} does not take {method}", uri.path()),
        "look the path up in /openapi.json",
    );
    match is_older_path(uri.path()) {
        true => OldProblem(problem).into_response(),
        false => problem.into_response(),
    }
}

/// No answer is a page that runs scripts of others, and none is kept by caches on the way.
async fn hardened(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, &str); 5] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action \
             'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
