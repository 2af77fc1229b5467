//! How many connections one address may have at a listener, so that nobody takes all its places.
//! Counts at the accept and at the close; answers nobody and knows no protocol.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whose connections are not counted: those of an address for which this says yes.
pub type Exempt = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// What is counted as one: an IPv4 address, or the first 64 bits of an IPv6 one, since whoever has one
/// address of a /64 has all of them (RFC 6177: a site is given no less).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Block {
    V4(u32),
    V6(u64),
}

impl Block {
    /// The block of an address. An IPv4 address that is written as IPv6 (`::ffff:a.b.c.d`, as a socket
    /// for both sees it) is the IPv4 address.
    fn of(address: IpAddr) -> Block {
        match address.to_canonical() {
            IpAddr::V4(address) => Block::V4(address.to_bits()),
            IpAddr::V6(address) => Block::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// The connections of each address at one listener. Holds an entry for an address that has any, and
/// none for the others, so that it never has more entries than the listener has connections.
pub struct Admission {
    most: usize,
    exempt: Exempt,
    counts: Mutex<HashMap<Block, usize>>,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("most", &self.most).finish_non_exhaustive()
    }
}

/// The place of one connection, given back when it is dropped.
#[derive(Debug)]
#[must_use = "dropped, it counts for nothing"]
pub struct Place {
    /// `None` where the address is exempt: there is nothing to give back.
    taken: Option<(Arc<Admission>, Block)>,
}

impl Admission {
    /// Admits `most` connections of one address at a time, and as many as there are of the exempt.
    pub fn new(most: usize, exempt: Exempt) -> Arc<Admission> {
        Arc::new(Admission { most, exempt, counts: Mutex::default() })
    }

    /// Takes a place for a connection from `peer`; `None` if it has as many as it may.
    pub fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        if (self.exempt)(peer.to_canonical()) {
            return Some(Place { taken: None });
        }
        let block = Block::of(peer);
        let mut counts = self.counts();
        let count = counts.entry(block).or_default();
        if *count >= self.most {
            // (The entry is not new: `most` is at least 1.)
            return None;
        }
        *count += 1;
        Some(Place { taken: Some((Arc::clone(self), block)) })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Block, usize>> {
        // Each change is one number or one entry: a panic leaves nothing half done.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((admission, block)) = self.taken.take() else { return };
        let mut counts = admission.counts();
        if let Some(count) = counts.get_mut(&block) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&block);
                // A flood of addresses leaves no room behind that nobody needs.
                if counts.capacity() > 1_024 && counts.len() < counts.capacity() / 8 {
                    counts.shrink_to_fit();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn admission(most: usize) -> Arc<Admission> {
        Admission::new(most, Box::new(|address| address.is_loopback()))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_has_so_many_places_and_others_have_theirs() {
        let admission = admission(2);
        let first = admission.admit(address("203.0.113.7")).unwrap();
        let _second = admission.admit(address("203.0.113.7")).unwrap();
        // The same address as a socket for both families sees it.
        assert!(admission.admit(address("::ffff:203.0.113.7")).is_none());
        let _other = admission.admit(address("203.0.113.8")).unwrap();
        drop(first);
        let _third = admission.admit(address("203.0.113.7")).unwrap();
        assert!(admission.admit(address("203.0.113.7")).is_none());
    }

    #[test]
    fn a_64_of_ipv6_counts_as_one_address() {
        let admission = admission(1);
        let _place = admission.admit(address("2001:db8:0:1::1")).unwrap();
        assert!(admission.admit(address("2001:db8:0:1:ffff::2")).is_none());
        let _next = admission.admit(address("2001:db8:0:2::1")).unwrap();
    }

    #[test]
    fn the_exempt_are_not_counted() {
        let admission = admission(1);
        let places: Vec<Place> = ["127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.1"]
            .iter()
            .cycle()
            .take(100)
            .map(|peer| admission.admit(address(peer)).unwrap())
            .collect();
        assert!(admission.counts().is_empty());
        drop(places);
    }

    proptest! {
        /// Whatever comes and goes: nobody has more than he may, and the table holds who is there.
        #[test]
        fn the_table_holds_those_who_are_there(
            steps in proptest::collection::vec((0_u32..40, any::<bool>(), any::<usize>()), 0..400)
        ) {
            let admission = admission(3);
            let mut there: Vec<(u32, Place)> = Vec::new();
            for (peer, comes, which) in steps {
                if comes {
                    let before = there.iter().filter(|(other, _)| *other == peer).count();
                    let place = admission.admit(IpAddr::V4((0x0a00_0000 + peer).into()));
                    prop_assert_eq!(place.is_some(), before < 3);
                    there.extend(place.map(|place| (peer, place)));
                } else if !there.is_empty() {
                    let _gone = there.swap_remove(which % there.len());
                }
                let mut peers: Vec<u32> = there.iter().map(|(peer, _)| *peer).collect();
                peers.sort_unstable();
                peers.dedup();
                prop_assert_eq!(admission.counts().len(), peers.len());
            }
            drop(there);
            prop_assert!(admission.counts().is_empty());
        }
    }
}
