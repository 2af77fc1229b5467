//! Errors of the accept call: they neither end the listener nor make it spin.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::{ACCEPT_PAUSE, Accept, accept_from};
use super::*;

/// Fails with each of these once, then accepts.
struct Failing {
    errors: &'static [i32],
    tried: AtomicU32,
    listener: TcpListener,
}

impl Accept for Failing {
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let at = self.tried.fetch_add(1, Ordering::Relaxed) as usize;
        match self.errors.get(at) {
            Some(code) => Err(io::Error::from_raw_os_error(*code)),
            None => self.listener.accept().await,
        }
    }
}

#[tokio::test]
async fn accepting_goes_on_after_errors() {
    // EMFILE, ECONNABORTED, ENOBUFS, EPROTO
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let source = Failing { errors: &[24, 103, 105, 71], tried: AtomicU32::new(0), listener };
    let (parts, _publishers, _queues) = parts(Arc::new(Still(still())));
    tokio::spawn(accept_from(source, config(1, NEVER, NEVER), parts, Drain::new()));
    let mut client = Client(TcpStream::connect(address).await.unwrap());
    client.send(&get("/")).await;
    assert_eq!(client.answer().await.status, 200);
}

/// Says of each connection that it comes from the next of these addresses.
struct From {
    peers: &'static [&'static str],
    accepted: AtomicU32,
    listener: TcpListener,
}

impl Accept for From {
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        let at = self.accepted.fetch_add(1, Ordering::Relaxed) as usize;
        let address = self.peers[at % self.peers.len()].parse().unwrap();
        Ok((stream, SocketAddr::new(address, peer.port())))
    }
}

#[tokio::test]
async fn one_address_may_not_take_every_place() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let peers = &["198.51.100.1", "::ffff:198.51.100.1", "198.51.100.2", "127.0.0.1", "127.0.0.1"];
    let source = From { peers, accepted: AtomicU32::new(0), listener };
    let (parts, _publishers, _queues) = parts(Arc::new(Still(still())));
    let config = HttpConfig { max_connections_per_address: 1, ..config(10, NEVER, NEVER) };
    tokio::spawn(accept_from(source, config, parts, Drain::new()));
    let mut kept = Vec::new();
    for (peer, status) in peers.iter().zip([200, 429, 200, 200, 200]) {
        let mut client = Client(TcpStream::connect(address).await.unwrap());
        client.send(&get("/")).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{peer}");
        if status == 429 {
            assert_eq!(answer.body, r#"{"error": "too many connections from this address"}"#);
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert_eq!(client.rest().await, "");
        } else {
            kept.push(client);
        }
    }
    // Who is in is served, and the place is given to the next once the server has seen the close.
    kept[0].send(&get("/")).await;
    assert_eq!(kept[0].answer().await.status, 200);
    drop(kept);
    let served = async {
        loop {
            let mut client = Client(TcpStream::connect(address).await.unwrap());
            client.send(&get("/")).await;
            if client.answer().await.status == 200 {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, served).await.expect("the place is given back");
}

/// Never has a descriptor.
struct Exhausted(Arc<AtomicU32>);

impl Accept for Exhausted {
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Err(io::Error::from_raw_os_error(24))
    }
}

/// No socket here, so the clock may be paused.
#[tokio::test(start_paused = true)]
async fn a_lasting_error_is_tried_again_now_and_then() {
    let (parts, _publishers, _queues) = parts(SystemClock::following_tokio(still().wall));
    let tried = Arc::new(AtomicU32::new(0));
    let drain = Drain::new();
    let source = Exhausted(Arc::clone(&tried));
    let serving = tokio::spawn(accept_from(source, config(1, NEVER, NEVER), parts, drain.clone()));
    tokio::time::sleep(ACCEPT_PAUSE * 20 + ACCEPT_PAUSE / 2).await;
    assert_eq!(tried.load(Ordering::Relaxed), 21);
    drain.begin();
    serving.await.unwrap();
}
