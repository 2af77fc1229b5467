//! The cards: who is admitted, who is cut, how they are described.

use super::*;
use std::time::SystemTime;

fn at(seconds: u64) -> Now {
    let mono = Duration::from_secs(seconds);
    Now { wall: SystemTime::UNIX_EPOCH + mono, mono }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn only_so_many_are_admitted_and_numbers_are_not_used_twice() {
    let connections = Connections::default();
    let first = connections.admit(address(1), address(2), None, at(0), 1).unwrap();
    assert!(connections.admit(address(1), address(2), None, at(0), 1).is_none());
    connections.forget(first.id);
    let second = connections.admit(address(1), address(2), None, at(0), 1).unwrap();
    assert_eq!((first.id, second.id, connections.len()), (1, 2, 1));
}

#[test]
fn the_sweep_cuts_the_silent_and_the_stalled() {
    let connections = Connections::default();
    let admit = || connections.admit(address(1), address(2), None, at(0), 10).unwrap();
    let (silent, busy, stalled, listening) = (admit(), admit(), admit(), admit());
    listening.set_subscriptions(0, 1);
    busy.touch(at(50), false);
    stalled.touch(at(40), true);
    connections.sweep(at(60), Duration::from_secs(60), Duration::from_secs(20));
    assert_eq!(silent.stopping(), Some(Stop::Cut));
    assert_eq!(stalled.stopping(), Some(Stop::Cut));
    assert_eq!((busy.stopping(), listening.stopping()), (None, None));
    // Zero means for ever.
    connections.sweep(at(6_000), Duration::ZERO, Duration::from_secs(20));
    assert_eq!(busy.stopping(), None);
}

#[test]
fn a_connection_is_described_as_redis_does() {
    let card = Connections::default().admit(address(1), address(2), None, at(0), 1).unwrap();
    card.label().name = "worker".into();
    card.touch(at(3), false);
    let mut text = String::new();
    card.describe(at(5), "NULL", &mut text);
    assert!(text.starts_with(
        "id=1 addr=127.0.0.1:1 laddr=127.0.0.1:2 fd=-1 name=worker age=5 idle=2 flags=N db=0 "
    ));
    assert!(text.ends_with("redir=-1 resp=2 lib-name= lib-ver=\n"));
}
