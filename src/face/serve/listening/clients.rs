//! How many connections there are: of all clients, and of one.

use std::net::IpAddr;
use std::sync::Arc;

use crate::face::web::{Place, Places};
use crate::settings::serve::Network;

/// Connections at once.
const MOST: usize = 512;
/// Of one client.
const MOST_OF_ONE: usize = 32;

pub(super) struct Clients {
    places: Arc<Places<IpAddr>>,
    /// Each of them stands for many clients.
    proxies: Vec<Network>,
}

impl Clients {
    pub fn new(proxies: Vec<Network>) -> Self {
        Self {
            places: Places::new(MOST, MOST_OF_ONE),
            proxies,
        }
    }

    /// The place of a connection from this address.
    pub fn take(&self, address: IpAddr) -> Option<Place<IpAddr>> {
        let client = Network::of_client(address);
        // Loopback is a proxy, or the tools of this machine.
        let is_many = client.is_loopback() || self.proxies.iter().any(|proxy| proxy.holds(address));
        self.places.take(client, is_many)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_one_network_and_a_proxy_stands_for_many_clients() {
        let clients = Clients::new(vec![Network::parse("10.0.0.0/8").unwrap()]);
        let take = |address: &str| clients.take(address.parse().unwrap());
        let proxied: Vec<_> = (0..100).map_while(|_| take("10.1.2.3")).collect();
        assert_eq!(proxied.len(), 100);
        let one: Vec<_> = (0..100)
            .map_while(|last| take(&format!("2001:db8::{last:x}")))
            .collect();
        assert_eq!(one.len(), MOST_OF_ONE);
        assert!(take("2001:db8:0:1::1").is_some());
        let far: Vec<_> = (0..100).map_while(|_| take("192.0.2.1")).collect();
        assert_eq!(far.len(), MOST_OF_ONE);
        assert!(take("::ffff:192.0.2.1").is_none() && take("192.0.2.2").is_some());
        let near: Vec<_> = (0..MOST).map_while(|_| take("127.0.0.1")).collect();
        assert!(!near.is_empty() && take("192.0.2.2").is_none());
    }
}
