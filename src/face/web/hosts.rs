//! The names under which this server may be asked. Otherwise a page of another site could reach it by a name of its own
//! that leads to this machine (DNS rebinding).

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};

use super::problem::Problem;

/// The allowed names. Addresses and `localhost` are always allowed: no page can take them for its own.
#[derive(Debug, Clone, Default)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// Of `BACKUP_ALLOWED_HOSTS`.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    pub(super) fn refusal(&self, headers: &HeaderMap, uri: &Uri) -> Option<Problem> {
        let mut given = headers.get_all(header::HOST).iter();
        let header = given.next().and_then(|value| value.to_str().ok());
        // HTTP/1.1 has exactly one; two would be read differently by a proxy and by us.
        let named = match (header, given.next()) {
            (Some(header), None) => header.parse::<Authority>().ok(),
            (None, None) => uri.authority().cloned(),
            _ => None,
        };
        match named {
            Some(authority) if self.allow(authority.host()) => None,
            Some(authority) => Some(Problem::http(
                StatusCode::MISDIRECTED_REQUEST,
                format!("this server does not go by the name {:?}", authority.host()),
                "set BACKUP_ALLOWED_HOSTS to the names under which it is reached",
            )),
            None => Some(Problem::http(
                StatusCode::BAD_REQUEST,
                "the request does not name one host",
                "send one Host header",
            )),
        }
    }

    fn allow(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        bare.parse::<IpAddr>().is_ok() || host == "localhost" || self.0.contains(&host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_the_names_of_the_settings_are_allowed() {
        let hosts = Hosts::new(["Backup.Example".to_owned()]);
        for host in [
            "127.0.0.1",
            "[::1]",
            "localhost",
            "LOCALHOST",
            "backup.example",
            "backup.example.",
        ] {
            assert!(hosts.allow(host), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "backup.example.evil",
            "",
        ] {
            assert!(!hosts.allow(host), "{host}");
        }
    }

    #[test]
    fn a_request_must_name_one_host() {
        let hosts = Hosts::default();
        let uri = Uri::from_static("/");
        let mut headers = HeaderMap::new();
        assert!(hosts.refusal(&headers, &uri).is_some());
        headers.append(header::HOST, "127.0.0.1:8080".parse().unwrap());
        assert!(hosts.refusal(&headers, &uri).is_none());
        headers.append(header::HOST, "evil.example".parse().unwrap());
        assert!(hosts.refusal(&headers, &uri).is_some());
    }
}
