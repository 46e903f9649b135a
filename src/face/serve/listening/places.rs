//! How many connections there are: of all clients, and of one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::settings::serve::Network;

/// Connections at once.
const MOST: usize = 512;
/// Of one client.
const MOST_OF_ONE: usize = 32;

pub(super) struct Places {
    taken: Mutex<HashMap<IpAddr, usize>>,
    /// Each of them stands for many clients.
    proxies: Vec<Network>,
}

/// One connection's place.
pub(super) struct Place {
    places: Arc<Places>,
    client: IpAddr,
}

impl Places {
    pub fn new(proxies: Vec<Network>) -> Self {
        Self {
            taken: Mutex::default(),
            proxies,
        }
    }

    pub fn take(places: &Arc<Places>, address: IpAddr) -> Option<Place> {
        let client = Network::of_client(address);
        // Loopback is a proxy, or the tools of this machine.
        let is_many = client.is_loopback() || places.proxies.iter().any(|proxy| proxy.holds(address));
        let mut taken = places.taken();
        let all: usize = taken.values().sum();
        let of_one = taken.get(&client).copied().unwrap_or_default();
        if all >= MOST || (of_one >= MOST_OF_ONE && !is_many) {
            return None;
        }
        taken.insert(client, of_one + 1);
        Some(Place {
            places: places.clone(),
            client,
        })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(count) = taken.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Arc<Places>, address: &str) -> Option<Place> {
        Places::take(places, address.parse().unwrap())
    }

    #[test]
    fn one_address_does_not_take_all_places_and_gives_its_own_back() {
        let places = Arc::new(Places::new(Vec::new()));
        let mut far: Vec<Place> = (0..MOST_OF_ONE).map(|_| take(&places, "192.0.2.1").unwrap()).collect();
        assert!(take(&places, "192.0.2.1").is_none() && take(&places, "::ffff:192.0.2.1").is_none());
        assert!(take(&places, "192.0.2.2").is_some());
        far.pop();
        assert!(take(&places, "192.0.2.1").is_some());
        drop(far);
        assert!(places.taken().is_empty());
        let near: Vec<_> = (0..MOST).map_while(|_| take(&places, "127.0.0.1")).collect();
        assert_eq!(near.len(), MOST);
        assert!(take(&places, "192.0.2.1").is_none());
    }

    #[test]
    fn a_client_has_one_network_and_a_proxy_stands_for_many_clients() {
        let proxies = vec![Network::parse("10.0.0.0/8").unwrap()];
        let places = Arc::new(Places::new(proxies));
        let proxied: Vec<_> = (0..100).map_while(|_| take(&places, "10.1.2.3")).collect();
        assert_eq!(proxied.len(), 100);
        let address = |last: usize| format!("2001:db8::{last:x}");
        let one: Vec<_> = (0..100).map_while(|last| take(&places, &address(last))).collect();
        assert_eq!(one.len(), MOST_OF_ONE);
        assert!(take(&places, "2001:db8:0:1::1").is_some());
    }
}
