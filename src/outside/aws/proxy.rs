//! The proxies that the environment names: which one a request uses, and how errors name it.

use std::error::Error as StdError;
use std::fmt;
use std::net::IpAddr;

use aws_smithy_runtime_api::client::result::ConnectorError;

pub(super) const BEHIND_PROXY: &str = "check the proxy that this variable names; or add the endpoint's host to \
                                       NO_PROXY, to reach it directly";

/// A proxy, without the password that its URL may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proxy {
    place: String,
    variable: &'static str,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.place, self.variable)
    }
}

/// Read as the SDK's connector reads them: of two names, the first that is set counts; an empty value means no proxy.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    /// `NO_PROXY`.
    not_for: Vec<String>,
}

impl Proxies {
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        // In a CGI program, HTTP_PROXY is a header of the request.
        if variable("REQUEST_METHOD").is_some() {
            return Self::default();
        }
        let first = |names: [&'static str; 2]| {
            let found = names.into_iter().find_map(|name| Some((name, variable(name)?)));
            found.filter(|(_, text)| !text.is_empty())
        };
        let proxy = |names| {
            let (variable, url) = first(names)?;
            Some(Proxy {
                place: place(&url).to_owned(),
                variable,
            })
        };
        let all = proxy(["ALL_PROXY", "all_proxy"]);
        let none = first(["NO_PROXY", "no_proxy"]).map_or_else(String::new, |(_, text)| text);
        Self {
            http: proxy(["HTTP_PROXY", "http_proxy"]).or_else(|| all.clone()),
            https: proxy(["HTTPS_PROXY", "https_proxy"]).or(all),
            not_for: none.split(',').map(|part| part.trim().to_lowercase()).collect(),
        }
    }

    /// `NO_PROXY=*`. The connector applies it to names only, not to addresses.
    pub fn are_for_nobody(&self) -> bool {
        self.not_for.iter().any(|part| part == "*")
    }

    pub fn on_the_way_to(&self, uri: &str) -> Option<&Proxy> {
        let (scheme, _) = uri.split_once("://")?;
        let proxy = match scheme.eq_ignore_ascii_case("https") {
            true => self.https.as_ref(),
            false => self.http.as_ref(),
        };
        let host = host(uri).to_lowercase();
        proxy.filter(|_| !self.not_for.iter().any(|part| covers(part, &host)))
    }
}

/// Host and port of a URL.
fn place(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    // A password may contain a slash that is not encoded.
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// Without the brackets of an IPv6 address.
pub(super) fn host(uri: &str) -> &str {
    let authority = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => authority.split(':').next(),
    };
    host.unwrap_or_default()
}

/// Whether a part of `NO_PROXY` matches this host: a domain with its subdomains, an address, or a network.
fn covers(part: &str, host: &str) -> bool {
    if part == "*" {
        return true;
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return match part.split_once('/') {
            Some((network, length)) => match (network.parse::<IpAddr>(), length.parse::<u32>()) {
                (Ok(network), Ok(length)) => is_within(address, network, length),
                _ => false,
            },
            None => part.parse::<IpAddr>() == Ok(address),
        };
    }
    let domain = part.trim_start_matches('.');
    let before = host.strip_suffix(domain);
    !domain.is_empty() && before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

fn is_within(address: IpAddr, network: IpAddr, length: u32) -> bool {
    let (one, other, bits) = match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (u128::from(u32::from(one)), u128::from(u32::from(other)), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => (u128::from(one), u128::from(other), 128),
        _ => return false,
    };
    let rest = bits - length.min(bits);
    // No host bits are left to compare if the prefix is the whole address.
    one.checked_shr(rest) == other.checked_shr(rest)
}

/// A failure on the way through a proxy.
#[derive(Debug)]
pub(super) struct Through {
    pub proxy: Proxy,
    source: Box<dyn StdError + Send + Sync>,
}

impl fmt::Display for Through {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by way of the proxy {}", self.proxy)
    }
}

impl StdError for Through {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self.source.as_ref())
    }
}

/// The same failure, of the same kind, with the name of the proxy.
pub(super) fn through(proxy: Proxy, error: ConnectorError) -> ConnectorError {
    let (timeout, io, user, kind) = (error.is_timeout(), error.is_io(), error.is_user(), error.as_other());
    let connection = error.connection_metadata().cloned();
    let source = Box::new(Through {
        proxy,
        source: error.into_source(),
    });
    let told = match (timeout, io, user) {
        (true, ..) => ConnectorError::timeout(source),
        (_, true, _) => ConnectorError::io(source),
        (.., true) => ConnectorError::user(source),
        _ => ConnectorError::other(source, kind),
    };
    match connection {
        Some(connection) => told.with_connection(connection),
        None => told,
    }
}

/// The proxy that a failed request went through.
pub(super) fn on_the_way<'a>(error: Option<&'a (dyn StdError + 'static)>) -> Option<&'a Proxy> {
    let mut next = error;
    while let Some(error) = next {
        if let Some(through) = error.downcast_ref::<Through>() {
            return Some(&through.proxy);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(pairs: &[(&str, &str)]) -> Proxies {
        let pairs: Vec<(String, String)> = pairs
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        Proxies::of(move |name| {
            let found = pairs.iter().find(|(known, _)| known == name);
            found.map(|(_, text)| text.clone())
        })
    }

    #[test]
    fn the_proxy_on_the_way_is_named_without_its_password() {
        let found = proxies(&[
            ("HTTPS_PROXY", "http://ada:hunter/2@proxy.example:3128/"),
            ("NO_PROXY", "localhost, .internal,10.0.0.0/8,192.0.2.1"),
        ]);
        let told = |uri: &str| found.on_the_way_to(uri).map(ToString::to_string);
        let named = Some("proxy.example:3128 (HTTPS_PROXY)".to_owned());
        assert_eq!(told("https://sns.eu-west-1.amazonaws.com/"), named);
        assert_eq!(told("https://192.0.2.2:8443/x"), named);
        for straight in [
            "http://s3.example/",
            "https://localhost:9000/a",
            "https://s3.internal/",
            "https://10.1.2.3/",
            "https://192.0.2.1/",
        ] {
            assert_eq!(told(straight), None, "{straight}");
        }
        let all = proxies(&[("HTTP_PROXY", ""), ("all_proxy", "proxy:1")]);
        let told = all.on_the_way_to("http://s3.example/").map(ToString::to_string);
        assert_eq!(told.as_deref(), Some("proxy:1 (all_proxy)"));
    }

    #[test]
    fn a_star_means_addresses_too() {
        let none = proxies(&[("HTTP_PROXY", "http://proxy:1"), ("NO_PROXY", "*")]);
        assert!(none.are_for_nobody());
        for uri in ["http://127.0.0.1:9000/", "http://[::1]:9000/", "http://s3.example/"] {
            assert_eq!(none.on_the_way_to(uri), None, "{uri}");
        }
        assert!(!proxies(&[("NO_PROXY", "a,b")]).are_for_nobody());
    }

    #[test]
    fn a_failure_keeps_its_kind_and_its_cause() {
        let proxy = Proxy {
            place: "proxy:1".into(),
            variable: "HTTPS_PROXY",
        };
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let told = through(proxy.clone(), ConnectorError::io(refused.into()));
        assert!(told.is_io() && !told.is_timeout());
        assert_eq!(on_the_way(Some(&told)), Some(&proxy));
        let told = through(proxy, ConnectorError::timeout("slow".into()));
        assert!(told.is_timeout());
    }
}
