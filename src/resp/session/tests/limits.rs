//! Clients that are many, slow or greedy.

use std::sync::atomic::AtomicU64;

use super::*;
use crate::resp::held::MOST_HELD_BEFORE_AUTH;
use crate::resp::{AUTH_TIMEOUT, STALL_TIMEOUT};

/// A clock that is set forward by hand.
#[derive(Debug, Default)]
struct Jumping(AtomicU64);

impl Jumping {
    fn jump(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::Relaxed);
    }
}

impl Clock for Jumping {
    fn now(&self) -> Now {
        let mono = Duration::from_secs(100 + self.0.load(Ordering::Relaxed));
        Now { wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + mono, mono }
    }
}

#[tokio::test]
async fn the_connection_too_many_of_an_address_is_told_so() {
    let server = Setup { per_address: Some(2), ..Setup::default() }.start().await;
    let mut peers = [server.connect().await, server.connect().await];
    for peer in &mut peers {
        peer.send(b"PING\r\n").await;
        peer.expect(b"+PONG\r\n", "those within the limit").await;
    }
    let mut third = server.connect().await;
    third.expect(b"-ERR max number of clients from this address reached\r\n", "the third").await;
    third.expect_end("the third").await;
    let [mut first, second] = peers;
    first.send(b"PING\r\n").await;
    first.expect(b"+PONG\r\n", "who is in is served").await;
    drop(second);
    // Its place is free once the server has seen the end.
    loop {
        let mut next = server.connect().await;
        let mut answer = [0; 7];
        next.send(b"PING\r\n").await;
        if next.stream.read_exact(&mut answer).await.is_ok() && &answer == b"+PONG\r\n" {
            break;
        }
    }
}

#[tokio::test]
async fn half_a_request_is_not_waited_for_for_ever() {
    let clock = Arc::new(Jumping::default());
    let shared: SharedClock = clock.clone();
    let server = Setup { clock: Some(shared), ..Setup::default() }.start().await;
    let (mut half, mut whole) = (server.connect().await, server.connect().await);
    // In one write, so that the half is there when the answer is.
    half.send(b"PING\r\n*2\r\n$3\r\nGET\r\n$9\r\nacc").await;
    half.expect(b"+PONG\r\n", "the whole one before").await;
    whole.send(b"PING\r\n").await;
    whole.expect(b"+PONG\r\n", "the silent one").await;
    clock.jump(STALL_TIMEOUT);
    half.expect_end("half a request").await;
    whole.send(b"PING\r\n").await;
    whole.expect(b"+PONG\r\n", "silence is no half").await;
}

#[tokio::test]
async fn who_does_not_say_who_it_is_is_not_kept() {
    let clock = Arc::new(Jumping::default());
    let shared: SharedClock = clock.clone();
    let setup = Setup { clock: Some(shared), password: Some("pw"), ..Setup::default() };
    let server = setup.start().await;
    let (mut known, mut stranger) = (server.connect().await, server.connect().await);
    known.send(b"AUTH pw\r\n").await;
    known.expect(b"+OK\r\n", "the known one").await;
    stranger.send(b"GET access_token\r\n").await;
    stranger.expect(b"-NOAUTH Authentication required.\r\n", "the stranger").await;
    clock.jump(AUTH_TIMEOUT);
    stranger.expect_end("the stranger").await;
    known.send(b"PING\r\n").await;
    known.expect(b"+PONG\r\n", "the known one, later").await;
}

#[tokio::test]
async fn strangers_with_half_requests_are_cut_before_they_fill_the_memory() {
    // Each holds a bulk that is complete but for its end.
    const STRANGERS: usize = 150;
    let server = Setup { password: Some("pw"), ..Setup::default() }.start().await;
    let mut known = server.connect().await;
    known.send(b"AUTH pw\r\n").await;
    known.expect(b"+OK\r\n", "the known one").await;
    let value = vec![b'x'; 500_000];
    known.send(b"*2\r\n$4\r\nECHO\r\n$500000\r\n").await;
    known.send(&value).await;
    let mut half = b"*2\r\n$4\r\nAUTH\r\n$16384\r\n".to_vec();
    half.resize(half.len() + 16_384, b'x');
    let mut strangers = Vec::new();
    for _ in 0..STRANGERS {
        let mut stranger = server.connect().await;
        // An error: it has been cut already.
        let _ = stranger.stream.write_all(&half).await;
        strangers.push(stranger);
    }
    // Those who are still there are told that it was no password, or one too many; the others have been
    // cut. All are asked before the first is heard, since who shows many wrong keys is answered later.
    for stranger in &mut strangers {
        let _ = stranger.stream.write_all(b"\r\nQUIT\r\n").await;
    }
    let mut cut = 0;
    for stranger in &mut strangers {
        let mut rest = Vec::new();
        let read = stranger.stream.read_to_end(&mut rest);
        let _ = tokio::time::timeout(PATIENCE, read).await.expect("an end");
        cut += usize::from(rest.is_empty());
    }
    let most_kept = MOST_HELD_BEFORE_AUTH / half.len();
    assert!((STRANGERS - most_kept..STRANGERS / 2).contains(&cut), "{cut} were cut");
    known.send(b"\r\n").await;
    let answer = [b"$500000\r\n", &value[..], b"\r\n"].concat();
    known.expect(&answer, "the known one is served").await;
}
