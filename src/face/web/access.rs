//! Who is let in: the proofs that a request brings, and the role that a handler needs.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::Web;
use super::identity::{Credential, Identity, Role};
use super::jwt::{Demands, Tokens};
use super::lasting::Lasting;
use super::problem::{OldProblem, Problem};
use super::users::Users;
use crate::control::Asked;
use crate::error::{Error, Result};
use crate::settings::serve::Network;

/// Somebody at an address: who asks, from where, and how long the proof of that is good.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub identity: Identity,
    pub from: String,
    pub lasting: Lasting,
}

impl Caller {
    /// Refuses what belongs to the one who has asked for it, if nothing says who that is.
    pub(super) fn must_be_named(&self) -> std::result::Result<(), Problem> {
        if self.identity.name.is_empty() {
            return Err(Problem::http(
                StatusCode::FORBIDDEN,
                "the token does not say whose it is, and a plan is good only for the one who asked for it",
                "use a JSON Web Token with the claim `sub`, or a token of BACKUP_API_TOKENS_FILE",
            ));
        }
        Ok(())
    }

    /// What the journal records of a request before it has an effect.
    pub(super) fn asks(&self, action: &str, what: &str) -> Asked {
        Asked {
            by: self.identity.to_string(),
            role: self.identity.role.to_string(),
            from: self.from.clone(),
            action: action.to_owned(),
            what: what.to_owned(),
            outcome: "asked".to_owned(),
        }
    }
}

/// The address that a connection came from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The client's address: the connection's, unless that is a proxy of ours, which says whose request it passes on.
fn client(web: &Web, peer: Option<&Peer>, headers: &HeaderMap) -> String {
    let Some(Peer(peer)) = peer else {
        return "function".to_owned();
    };
    let mut address = peer.ip();
    let forwarded = headers.get_all("x-forwarded-for").iter();
    let forwarded: Vec<&str> = forwarded
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    // From the last hop back, as long as the one that says it is ours: what stands before may be the client's invention.
    for hop in forwarded.iter().rev() {
        if !web.proxies.iter().any(|proxy| proxy.holds(address)) {
            break;
        }
        let Ok(before) = hop.trim().parse::<IpAddr>() else {
            break;
        };
        address = before;
    }
    address.to_string()
}

/// What attempts from an address are counted by: an IPv6 client has a whole network of addresses.
pub(super) fn network(from: &str) -> String {
    match from.parse() {
        Ok(address) => Network::of_client(address).to_string(),
        Err(_) => from.to_owned(),
    }
}

/// All that can prove who asks.
#[derive(Default)]
pub struct Access {
    /// By the SHA-256 of the token. To find one takes as long for every token that is not there.
    tokens: HashMap<[u8; 32], Identity>,
    jwt: Option<Tokens>,
    users: Option<Users>,
}

impl Access {
    /// Adds the tokens of a file: lines `name:role:sha256-hex-of-token`.
    ///
    /// # Errors
    /// `CONFIG`, with the number of the line. The line is not in the error.
    pub fn read_tokens(&mut self, file: &Path) -> Result<()> {
        let text = fs::read_to_string(file).map_err(|error| {
            Error::config(format!("BACKUP_API_TOKENS_FILE: {} cannot be read", file.display())).source(error)
        })?;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (digest, identity) = token_line(line).ok_or_else(|| {
                Error::config(format!("BACKUP_API_TOKENS_FILE: line {} is not understood", number + 1)).hint(
                    "each line is name:role:sha256, such as ci:operator:9f86d0…, with `printf %s TOKEN | sha256sum`",
                )
            })?;
            self.tokens.insert(digest, identity);
        }
        Ok(())
    }

    /// Adds tokens that others sign with this key.
    ///
    /// # Errors
    /// `CONFIG` for a key that is too short.
    pub fn trust_hs256(&mut self, key: &str, demands: Demands) -> Result<()> {
        if key.len() < super::jwt::SHORTEST_KEY {
            return Err(
                Error::config("BACKUP_JWT_SECRET is shorter than 32 bytes").hint("make one: openssl rand -hex 32")
            );
        }
        self.jwt = Some(Tokens::hs256(key.as_bytes(), demands));
        Ok(())
    }

    /// Adds one token of this process, which may do everything.
    pub fn issue(&mut self, token: &str, name: &str) {
        let identity = Identity {
            credential: Credential::Token,
            name: name.to_owned(),
            role: Role::Admin,
        };
        self.tokens.insert(Sha256::digest(token).into(), identity);
    }

    /// Whether anything can prove who asks.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.jwt.is_none() && self.users.is_none()
    }

    /// Adds the people of a file: lines `name:role:argon2id-hash`.
    ///
    /// # Errors
    /// `CONFIG`, with the number of the line. The line is not in the error.
    pub fn read_users(&mut self, file: &Path) -> Result<()> {
        self.users = Some(Users::read(file)?);
        Ok(())
    }

    /// Whether somebody may log in with a password.
    pub(super) fn has_users(&self) -> bool {
        self.users.is_some()
    }

    /// Who has this name and this password.
    pub(super) async fn by_password(&self, name: &str, password: String) -> Option<Identity> {
        self.users.as_ref()?.identity(name, password).await
    }

    /// Who has the token, and how long it is good.
    pub(super) fn proved(&self, token: &str) -> Option<(Identity, Lasting)> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        match self.tokens.get(&digest) {
            Some(identity) => Some((identity.clone(), Lasting::default())),
            None => self.jwt.as_ref()?.proved(token),
        }
    }
}

fn token_line(line: &str) -> Option<([u8; 32], Identity)> {
    let mut parts = line.split(':');
    let (name, role, hex) = (parts.next()?, parts.next()?, parts.next()?);
    if name.is_empty() || name.chars().any(char::is_control) || parts.next().is_some() {
        return None;
    }
    let mut digest = [0; 32];
    hex::decode_to_slice(hex.trim().trim_start_matches("sha256-"), &mut digest).ok()?;
    // Of no token at all: what made the line had none.
    if digest == <[u8; 32]>::from(Sha256::digest("")) {
        return None;
    }
    let role = role.trim().parse().ok()?;
    Some((
        digest,
        Identity {
            credential: Credential::Token,
            name: name.trim().to_owned(),
            role,
        },
    ))
}

/// The token of a request: in its header, or for the clients that cannot set one (a browser's WebSocket) in its query.
fn presented(headers: &HeaderMap, uri: &axum::http::Uri) -> Option<String> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let value = value.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned());
    }
    if let Some(value) = headers.get("x-api-key") {
        return value.to_str().ok().map(str::to_owned);
    }
    let is_upgrade = headers.contains_key(header::UPGRADE);
    let query = uri.query().filter(|_| is_upgrade)?;
    let token = query.split('&').find_map(|pair| pair.strip_prefix("token="))?;
    let token = percent_encoding::percent_decode_str(token).decode_utf8().ok()?;
    Some(token.into_owned())
}

/// Finds out who asks, and refuses hosts and origins that are not ours.
pub(super) async fn guard(State(web): State<Arc<Web>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let refused = |problem: Problem| Refused::at(&path, problem).into_response();
    if let Some(problem) = web.hosts.refusal(request.headers(), request.uri()) {
        return refused(problem);
    }
    if let Some(problem) = foreign(request.method(), request.headers()) {
        return refused(problem);
    }
    let from = client(&web, request.extensions().get(), request.headers());
    let proved = if let Some(token) = presented(request.headers(), request.uri()) {
        // A token that is wrong is an error, also where none is needed.
        let Some(proved) = web.access.proved(&token) else {
            return refused(match web.wrong_tokens.take(&network(&from), Instant::now()) {
                true => wrong_token(),
                false => too_often("too many wrong tokens came from this address"),
            });
        };
        Some(proved)
    } else {
        let proved = web.sessions.identity(request.headers(), Instant::now());
        // A browser sends its cookie whoever has written the page; it always says who has.
        if proved.is_some() && !request.method().is_safe() && !says_its_site(request.headers()) {
            return refused(other_site());
        }
        proved
    };
    if let Some((identity, lasting)) = proved {
        if !web.requests.take(&identity.to_string(), Instant::now()) {
            return refused(too_often(&format!("too many requests came from {identity}")));
        }
        request.extensions_mut().insert(Caller {
            identity,
            from,
            lasting,
        });
    }
    next.run(request).await
}

/// A page of another site may not ask for a change in the name of whoever looks at it.
fn foreign(method: &Method, headers: &HeaderMap) -> Option<Problem> {
    let upgrade = headers.contains_key(header::UPGRADE);
    if method.is_safe() && !upgrade {
        return None;
    }
    let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
    let by_site = match site {
        Some("same-origin" | "none") => Some(false),
        Some(_) => Some(true),
        None => None,
    };
    let is_foreign = by_site.unwrap_or_else(|| {
        let Some(origin) = headers.get(header::ORIGIN).and_then(|value| value.to_str().ok()) else {
            // A program, not a page.
            return false;
        };
        let host = headers
            .get(header::HOST)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        origin.split_once("://").is_none_or(|(_, authority)| authority != host)
    });
    is_foreign.then(other_site)
}

fn says_its_site(headers: &HeaderMap) -> bool {
    headers.contains_key("sec-fetch-site") || headers.contains_key(header::ORIGIN)
}

fn other_site() -> Problem {
    Problem::http(
        StatusCode::FORBIDDEN,
        "the request comes from the page of another site",
        "send it from a program with a token, or from pgstow's own page",
    )
}

fn too_often(what: &str) -> Problem {
    Problem::http(StatusCode::TOO_MANY_REQUESTS, what, "wait a minute, and ask less often")
}

fn wrong_token() -> Problem {
    Problem::http(
        StatusCode::UNAUTHORIZED,
        "the token is not known, or its time is over",
        "send Authorization: Bearer with a token of BACKUP_API_TOKENS_FILE, or one signed with BACKUP_JWT_SECRET",
    )
}

pub(super) fn no_token() -> Problem {
    Problem::http(
        StatusCode::UNAUTHORIZED,
        "this needs a token",
        "send Authorization: Bearer with a token of BACKUP_API_TOKENS_FILE, or one signed with BACKUP_JWT_SECRET",
    )
}

/// Somebody who may look. A handler that takes this is for viewers, and so on.
pub(super) struct Viewer(pub Caller);
pub(super) struct Operator(pub Caller);
pub(super) struct Admin(pub Caller);

/// Why a handler is not reached, in the shape that its path's clients read.
pub(super) enum Refused {
    Problem(Problem),
    Older(OldProblem),
}

impl Refused {
    fn at(path: &str, problem: Problem) -> Self {
        match super::is_older_path(path) {
            true => Refused::Older(OldProblem(problem)),
            false => Refused::Problem(problem),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Refused::Problem(problem) => problem.into_response(),
            Refused::Older(problem) => problem.into_response(),
        }
    }
}

fn at_least(parts: &Parts, role: Role) -> std::result::Result<Caller, Refused> {
    let caller = parts.extensions.get::<Caller>();
    let problem = caller.map_or_else(|| Some(no_token()), |caller| lacking(caller, role));
    match (problem, caller) {
        (None, Some(caller)) => Ok(caller.clone()),
        (problem, _) => Err(Refused::at(parts.uri.path(), problem.unwrap_or_else(no_token))),
    }
}

/// Why somebody may not do what this role may.
pub(super) fn lacking(caller: &Caller, role: Role) -> Option<Problem> {
    let own = caller.identity.role;
    (own < role).then(|| {
        Problem::http(
            StatusCode::FORBIDDEN,
            format!("this needs the role {role}, and {} has the role {own}", caller.identity),
            format!("use a token with the role {role}"),
        )
    })
}

impl<S: Sync> FromRequestParts<S> for Viewer {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, Refused> {
        at_least(parts, Role::Viewer).map(Viewer)
    }
}

impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, Refused> {
        at_least(parts, Role::Operator).map(Operator)
    }
}

impl<S: Sync> FromRequestParts<S> for Admin {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, Refused> {
        at_least(parts, Role::Admin).map(Admin)
    }
}

/// The address that a request comes from.
pub(super) struct Address(pub String);

impl FromRequestParts<Arc<Web>> for Address {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, web: &Arc<Web>) -> std::result::Result<Self, Infallible> {
        Ok(Address(client(web, parts.extensions.get(), &parts.headers)))
    }
}

/// Somebody who may look, or a program of this machine: the scraper of metrics.
pub(super) struct Scraper;

impl<S: Sync> FromRequestParts<S> for Scraper {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, Refused> {
        let peer = parts.extensions.get::<Peer>();
        // Whose request a proxy of this machine passes on is not this machine's.
        let is_passed_on = parts.headers.contains_key("x-forwarded-for") || parts.headers.contains_key("forwarded");
        match peer {
            Some(Peer(peer)) if peer.ip().to_canonical().is_loopback() && !is_passed_on => Ok(Scraper),
            _ => at_least(parts, Role::Viewer).map(|_| Scraper),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()));
        pairs.collect()
    }

    #[test]
    fn a_line_of_the_file_gives_a_token_its_name_and_role() {
        let digest = hex::encode(Sha256::digest("secret"));
        let (found, identity) = token_line(&format!("ci:operator:{digest}")).unwrap();
        assert_eq!(found, <[u8; 32]>::from(Sha256::digest("secret")));
        assert_eq!((identity.name.as_str(), identity.role), ("ci", Role::Operator));
        for line in [
            format!("ci:root:{digest}"),
            format!(":admin:{digest}"),
            "ci:admin:secret".into(),
            format!("ci:admin:{}", hex::encode(Sha256::digest(""))),
            format!("ci:admin:{digest}:x"),
        ] {
            assert_eq!(token_line(&line), None, "{line}");
        }
    }

    #[test]
    fn pages_of_other_sites_may_not_ask_for_changes() {
        let ours = [("host", "backup.example"), ("origin", "https://backup.example")];
        let theirs = [("host", "backup.example"), ("origin", "https://evil.example")];
        assert!(foreign(&Method::POST, &headers(&ours)).is_none());
        assert!(foreign(&Method::POST, &headers(&theirs)).is_some());
        assert!(
            foreign(&Method::POST, &headers(&[("host", "backup.example")])).is_none(),
            "a program"
        );
        assert!(foreign(&Method::POST, &headers(&[("host", "b"), ("origin", "null")])).is_some());
        assert!(foreign(&Method::POST, &headers(&[("sec-fetch-site", "cross-site")])).is_some());
        assert!(foreign(&Method::POST, &headers(&[("sec-fetch-site", "same-site")])).is_some());
        assert!(foreign(&Method::GET, &headers(&theirs)).is_none());
        let socket = [
            ("host", "b"),
            ("origin", "https://evil.example"),
            ("upgrade", "websocket"),
        ];
        assert!(foreign(&Method::GET, &headers(&socket)).is_some());
    }
}
