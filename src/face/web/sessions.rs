//! The people who have logged in: a cookie for each of their browsers, kept in memory until the process ends.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

use super::identity::Identity;
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
}

impl Sessions {
    pub fn new(is_secure: bool) -> Self {
        Self {
            is_secure,
            known: Mutex::default(),
        }
    }

    /// Begins a session, which lasts 12 hours or `longest`: the header `Set-Cookie` of its answer.
    pub fn begin(&self, identity: Identity, now: Instant, longest: Duration) -> Result<String> {
        let mut random = [0; 32];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| Error::internal("the system gives no random numbers"))?;
        let token = hex::encode(random);
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
        let life = LIFE.min(longest);
        let ends = now + life;
        known.insert(Sha256::digest(&token).into(), Session { identity, ends });
        Ok(self.cookie(&token, life))
    }

    /// Who has this session.
    pub fn identity(&self, headers: &HeaderMap, now: Instant) -> Option<Identity> {
        let key = self.key(headers)?;
        let known = self.known();
        known
            .get(&key)
            .filter(|session| session.ends > now)
            .map(|session| session.identity.clone())
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
    use crate::face::web::identity::Role;

    fn ann() -> Identity {
        Identity {
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

    #[test]
    fn a_session_lasts_until_its_end_or_until_it_is_ended() {
        let sessions = Sessions::new(true);
        let now = Instant::now();
        let cookie = sessions.begin(ann(), now, Duration::MAX).unwrap();
        assert!(
            cookie.starts_with("__Host-pgstow=") && cookie.ends_with("; Secure"),
            "{cookie}"
        );
        let headers = sent(&cookie);
        assert_eq!(sessions.identity(&headers, now), Some(ann()));
        assert_eq!(sessions.identity(&headers, now + LIFE), None);
        let mut forged = cookie.clone();
        forged.replace_range(14..15, if cookie.as_bytes()[14] == b'0' { "1" } else { "0" });
        assert_eq!(sessions.identity(&sent(&forged), now), None);
        assert!(sessions.end(&headers).contains("Max-Age=0"));
        assert_eq!(sessions.identity(&headers, now), None);
    }

    #[test]
    fn sessions_are_counted() {
        let sessions = Sessions::new(false);
        let now = Instant::now();
        let first = sessions.begin(ann(), now, Duration::MAX).unwrap();
        for later in 1..=MOST as u64 {
            let now = now + Duration::from_secs(later);
            sessions.begin(ann(), now, Duration::MAX).unwrap();
        }
        assert_eq!(sessions.known().len(), MOST);
        assert_eq!(sessions.identity(&sent(&first), now), None);
    }
}
