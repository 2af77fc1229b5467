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
