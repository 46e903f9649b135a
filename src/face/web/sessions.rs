//! The people who have logged in: a cookie for each of their browsers, kept in memory until the process ends.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::identity::Identity;
use super::lasting::Lasting;
use crate::error::{Error, Result};

const LIFE: Duration = Duration::from_secs(12 * 3600);
/// With more of them, the oldest go.
const MOST: usize = 1_000;

pub(super) struct Sessions {
    /// Whether browsers may send the cookie over TLS alone.
    is_secure: bool,
    /// By the SHA-256 of what the cookie has.
    known: Mutex<HashMap<[u8; 32], Session>>,
}

struct Session {
    identity: Identity,
    ends: Instant,
    ended: CancellationToken,
    /// Whatever takes the session out of the map ends its streams.
    _ending: DropGuard,
}

impl Sessions {
    pub fn new(is_secure: bool) -> Self {
        Self {
            is_secure,
            known: Mutex::default(),
        }
    }

    /// Begins a session, which lasts 12 hours, or until the end of the token that it begins with: the header
    /// `Set-Cookie` of its answer.
    pub fn begin(&self, identity: Identity, now: Instant, token: &Lasting) -> Result<String> {
        let mut random = [0; 32];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| Error::internal("the system gives no random numbers"))?;
        let value = hex::encode(random);
        let left = token.ends.map(|ends| ends.saturating_duration_since(now));
        let life = left.map_or(LIFE, |left| LIFE.min(left));
        let mut known = self.known();
        known.retain(|_, session| session.ends > now);
        while known.len() >= MOST {
            let oldest = known
                .iter()
                .min_by_key(|(_, session)| session.ends)
                .map(|(key, _)| *key);
            if let Some(key) = oldest {
                known.remove(&key);
            }
        }
        let ended = CancellationToken::new();
        let session = Session {
            identity,
            ends: now + life,
            _ending: ended.clone().drop_guard(),
            ended,
        };
        known.insert(Sha256::digest(&value).into(), session);
        Ok(self.cookie(&value, life))
    }

    /// Who has this session, and how long.
    pub fn identity(&self, headers: &HeaderMap, now: Instant) -> Option<(Identity, Lasting)> {
        let key = self.key(headers)?;
        let known = self.known();
        let session = known.get(&key).filter(|session| session.ends > now)?;
        let lasting = Lasting {
            ends: Some(session.ends),
            ended: Some(session.ended.clone()),
        };
        Some((session.identity.clone(), lasting))
    }

    /// Ends the session: the header that makes the browser forget it.
    pub fn end(&self, headers: &HeaderMap) -> String {
        if let Some(key) = self.key(headers) {
            self.known().remove(&key);
        }
        self.cookie("", Duration::ZERO)
    }

    fn name(&self) -> &'static str {
        match self.is_secure {
            // No other site, and no page without TLS, can set a cookie of such a name.
            true => "__Host-pgstow",
            false => "pgstow",
        }
    }

    fn cookie(&self, value: &str, life: Duration) -> String {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let (name, life) = (self.name(), life.as_secs());
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={life}{secure}")
    }

    fn key(&self, headers: &HeaderMap) -> Option<[u8; 32]> {
        let cookies = headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let mut pairs = cookies
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='));
        let (_, token) = pairs.find(|(name, _)| *name == self.name())?;
        Some(Sha256::digest(token).into())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<[u8; 32], Session>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::web::identity::{Credential, Role};

    fn ann() -> Identity {
        Identity {
            credential: Credential::Password,
            name: "ann".to_owned(),
            role: Role::Admin,
        }
    }

    fn sent(cookie: &str) -> HeaderMap {
        let pair = cookie.split(';').next().unwrap();
        [(header::COOKIE, format!("a=b; {pair}").parse().unwrap())]
            .into_iter()
            .collect()
    }

    fn begin(sessions: &Sessions, now: Instant) -> String {
        sessions.begin(ann(), now, &Lasting::default()).unwrap()
    }

    fn identity(sessions: &Sessions, cookie: &str, now: Instant) -> Option<Identity> {
        sessions.identity(&sent(cookie), now).map(|(identity, _)| identity)
    }

    #[tokio::test]
    async fn a_session_lasts_until_its_end_or_until_it_is_ended_and_its_streams_end_with_it() {
        let sessions = Sessions::new(true);
        let now = Instant::now();
        let cookie = begin(&sessions, now);
        assert!(
            cookie.starts_with("__Host-pgstow=") && cookie.ends_with("; Secure"),
            "{cookie}"
        );
        let headers = sent(&cookie);
        let (identity_of, lasting) = sessions.identity(&headers, now).unwrap();
        assert_eq!((identity_of, lasting.ends), (ann(), Some(now + LIFE)));
        assert_eq!(identity(&sessions, &cookie, now + LIFE), None);
        let mut forged = cookie.clone();
        forged.replace_range(14..15, if cookie.as_bytes()[14] == b'0' { "1" } else { "0" });
        assert_eq!(identity(&sessions, &forged, now), None);
        assert!(sessions.end(&headers).contains("Max-Age=0"));
        assert_eq!(identity(&sessions, &cookie, now), None);
        lasting.over().await;
    }

    #[test]
    fn a_session_ends_with_the_token_that_it_began_with() {
        let sessions = Sessions::new(true);
        let now = Instant::now();
        let token = Lasting {
            ends: Some(now + Duration::from_secs(60)),
            ended: None,
        };
        let cookie = sessions.begin(ann(), now, &token).unwrap();
        assert!(cookie.contains("Max-Age=60;"), "{cookie}");
        assert_eq!(identity(&sessions, &cookie, now + Duration::from_secs(59)), Some(ann()));
        assert_eq!(identity(&sessions, &cookie, now + Duration::from_secs(60)), None);
    }

    #[test]
    fn sessions_are_counted() {
        let sessions = Sessions::new(false);
        let now = Instant::now();
        let first = begin(&sessions, now);
        for later in 1..=MOST as u64 {
            let now = now + Duration::from_secs(later);
            begin(&sessions, now);
        }
        assert_eq!(sessions.known().len(), MOST);
        assert_eq!(identity(&sessions, &first, now), None);
    }
}
