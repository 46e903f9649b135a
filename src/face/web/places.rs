//! Places that are taken and given back: so many in all, and so many for one of those who take them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub struct Places<K> {
    most: usize,
    most_of_one: usize,
    taken: Mutex<HashMap<K, usize>>,
}

/// One place. Dropped, it is free again.
pub struct Place<K: Hash + Eq> {
    places: Arc<Places<K>>,
    of: K,
}

impl<K: Hash + Eq + Clone> Places<K> {
    pub fn new(most: usize, most_of_one: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_of_one,
            taken: Mutex::default(),
        })
    }

    /// A place, if there is one. Who `is_many` may take all of them.
    pub fn take(self: &Arc<Self>, of: K, is_many: bool) -> Option<Place<K>> {
        let mut taken = self.taken();
        let all: usize = taken.values().sum();
        let of_one = taken.get(&of).copied().unwrap_or_default();
        if all >= self.most || (of_one >= self.most_of_one && !is_many) {
            return None;
        }
        taken.insert(of.clone(), of_one + 1);
        Some(Place {
            places: self.clone(),
            of,
        })
    }
}

impl<K> Places<K> {
    fn taken(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(count) = taken.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_does_not_take_all_places_and_gives_its_own_back() {
        let places = Places::new(5, 2);
        let mut ann: Vec<_> = (0..2).map(|_| places.take("ann", false).unwrap()).collect();
        assert!(places.take("ann", false).is_none());
        let bob = places.take("bob", false).unwrap();
        ann.pop();
        ann.push(places.take("ann", false).unwrap());
        let many: Vec<_> = (0..5).map_while(|_| places.take("proxy", true)).collect();
        assert_eq!(many.len(), 2);
        assert!(places.take("eve", false).is_none());
        drop((ann, bob, many));
        assert!(places.taken().is_empty());
    }
}
