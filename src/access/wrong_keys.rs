//! Slows those who try wrong keys, by the address they come from. A right key is never slowed, so the
//! honest behind the same proxy notice nothing; what holds guessing off is the length of the keys.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::{Quota, RateLimiter, state::keyed::HashMapStateStore};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::SharedClock;

use super::Manner;

/// How many wrong keys an address may show at once, and how many more in each minute, before it is
/// slowed: more than a person who looks for the right one, or a few clients with an old one.
const PATIENCE: NonZeroU32 = NonZeroU32::new(30).expect("it is not 0");

/// How long the answer to a wrong key takes then.
pub const SLOWNESS: Duration = Duration::from_secs(1);

/// How many may wait for such an answer at once; the others get it at once. Over HTTP each holds 16 kB.
const MOST_SLOWED: usize = 128;

/// How many addresses are remembered before those that have been quiet are forgotten.
const MANY_ADDRESSES: usize = 4096;

/// A place among those who wait.
#[derive(Debug)]
pub struct Slowed(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// The wrong keys of each address.
#[derive(Debug)]
pub(super) struct WrongKeys {
    shown: RateLimiter<IpAddr, HashMapStateStore<IpAddr>, Monotonic, NoOpMiddleware<Duration>>,
    slowed: Arc<Semaphore>,
}

impl WrongKeys {
    pub(super) fn new(clock: SharedClock) -> WrongKeys {
        let quota = Quota::per_minute(PATIENCE);
        WrongKeys {
            shown: RateLimiter::new(quota, HashMapStateStore::default(), Monotonic(clock)),
            slowed: Arc::new(Semaphore::new(MOST_SLOWED)),
        }
    }

    /// Notes a wrong key, and says how to answer it.
    pub(super) fn note(&self, address: IpAddr) -> Manner {
        if self.shown.len() >= MANY_ADDRESSES {
            self.shown.retain_recent();
        }
        // Where all have been busy within the last minute, newcomers are slowed as well.
        let patient = self.shown.len() < 2 * MANY_ADDRESSES
            && self.shown.check_key(&neighbourhood(address)).is_ok();
        if patient {
            Manner::AtOnce
        } else {
            Manner::Slowly(Arc::clone(&self.slowed).try_acquire_owned().ok().map(Slowed))
        }
    }
}

/// What one customer of a provider is given: an IPv4 address, or the 64 bits of an IPv6 network, within
/// which they may choose their address at will.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address => address,
    }
}

/// Our clock, as the limiter wants it.
#[derive(Debug, Clone)]
struct Monotonic(SharedClock);

impl GovernorClock for Monotonic {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.now().mono
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Now};
    use std::sync::Mutex;
    use std::time::SystemTime;

    #[derive(Debug, Default)]
    struct Hand(Mutex<Duration>);

    impl Clock for Hand {
        fn now(&self) -> Now {
            Now { wall: SystemTime::UNIX_EPOCH, mono: *self.0.lock().unwrap() }
        }
    }

    fn is_slowed(keys: &WrongKeys, address: &str) -> bool {
        matches!(keys.note(address.parse().unwrap()), Manner::Slowly(_))
    }

    #[test]
    fn each_address_is_slowed_for_itself_and_only_for_a_while() {
        let hand = Arc::new(Hand::default());
        let keys = WrongKeys::new(Arc::clone(&hand) as SharedClock);
        let shown = (0..100).filter(|_| !is_slowed(&keys, "192.0.2.1")).count();
        assert_eq!(shown, 30);
        assert!(!is_slowed(&keys, "192.0.2.2"));
        *hand.0.lock().unwrap() += Duration::from_secs(2);
        assert!(!is_slowed(&keys, "192.0.2.1"), "one more after two seconds");
        assert!(is_slowed(&keys, "192.0.2.1"));
        *hand.0.lock().unwrap() += Duration::from_secs(60);
        assert!((0..30).all(|_| !is_slowed(&keys, "::ffff:192.0.2.1")), "the same address");
        assert!(is_slowed(&keys, "192.0.2.1"));
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let keys = WrongKeys::new(Arc::new(Hand::default()));
        let slowed = (0..31).map(|at| is_slowed(&keys, &format!("2001:db8::{at}")));
        assert_eq!(slowed.filter(|slowed| *slowed).count(), 1);
        assert!(!is_slowed(&keys, "2001:db8:0:1::1"));
    }

    #[test]
    fn what_waits_and_what_is_remembered_is_bounded() {
        let keys = WrongKeys::new(Arc::new(Hand::default()));
        let waiting: Vec<Manner> =
            (0..1_000).map(|_| keys.note("192.0.2.1".parse().unwrap())).collect();
        let places = waiting.iter().filter(|manner| matches!(manner, Manner::Slowly(Some(_))));
        assert_eq!(places.count(), MOST_SLOWED);
        drop(waiting);
        assert!(matches!(keys.note("192.0.2.1".parse().unwrap()), Manner::Slowly(Some(_))));
        for at in 0..3 * MANY_ADDRESSES {
            let [a, b] = u16::try_from(at).unwrap().to_be_bytes();
            keys.note(IpAddr::from([10, 0, a, b]));
        }
        assert!(keys.shown.len() <= 2 * MANY_ADDRESSES);
    }
}
