//! How `pgstow serve` is reached, and by whom.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use secrecy::SecretString;

#[derive(Debug, Clone)]
pub struct Serve {
    pub listen: SocketAddr,
    /// Lines `name:role:sha256-of-token`.
    pub tokens_file: Option<PathBuf>,
    /// Lines `name:role:argon2id-hash`.
    pub users_file: Option<PathBuf>,
    /// With which other programs sign their tokens.
    pub jwt_secret: Option<SecretString>,
    /// The role of such a token that names none.
    pub jwt_default_role: String,
    /// For whom such a token must be, and who must have made it.
    pub jwt_audience: Option<String>,
    pub jwt_issuer: Option<String>,
    /// The names under which it is reached.
    pub allowed_hosts: Vec<String>,
    /// Proxies whose word about a client's address counts.
    pub trusted_proxies: Vec<Network>,
    /// In which the schedules are read.
    pub zone: TimeZone,
    /// Where the log is written too, and for how many days its files are kept.
    pub log_dir: Option<PathBuf>,
    pub log_days: usize,
    /// How many runs go on at once.
    pub max_runs: usize,
    /// How long runs get to end when the process is asked to.
    pub shutdown: Duration,
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            tokens_file: None,
            users_file: None,
            jwt_secret: None,
            jwt_default_role: "operator".to_owned(),
            jwt_audience: None,
            jwt_issuer: None,
            allowed_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            zone: TimeZone::UTC,
            log_dir: None,
            log_days: 30,
            max_runs: 1,
            shutdown: Duration::from_secs(90),
        }
    }
}

/// Addresses that begin alike: `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// The network that one client has: an IPv6 client has a whole /64.
    pub fn of_client(address: IpAddr) -> IpAddr {
        match address.to_canonical() {
            IpAddr::V6(address) if !address.is_loopback() => {
                let network = address.to_bits() >> 64 << 64;
                IpAddr::V6(network.into())
            }
            address => address,
        }
    }

    pub fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        let bits: u8 = bits.unwrap_or(most);
        (bits <= most).then_some(Network { address, bits })
    }

    pub fn holds(&self, other: IpAddr) -> bool {
        let (ours, other, length) = match (self.address, other.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(other)) => (u128::from(ours.to_bits()), u128::from(other.to_bits()), 32),
            (IpAddr::V6(ours), IpAddr::V6(other)) => (ours.to_bits(), other.to_bits(), 128),
            _ => return false,
        };
        let free = length - u32::from(self.bits);
        ours.checked_shr(free).unwrap_or_default() == other.checked_shr(free).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_the_addresses_that_begin_like_its_own() {
        let holds = |network: &str, address: &str| Network::parse(network).unwrap().holds(address.parse().unwrap());
        assert!(holds("10.0.0.0/8", "10.200.3.4") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(holds("192.0.2.7", "192.0.2.7") && !holds("192.0.2.7", "192.0.2.8"));
        assert!(holds("0.0.0.0/0", "192.0.2.8") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("fd00::/8", "fd12::1") && !holds("fd00::/8", "fe00::1") && holds("::/0", "fe00::1"));
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "example", "::1/129", "10.0.0.0/-1"] {
            assert_eq!(Network::parse(wrong), None, "{wrong}");
        }
    }
}
