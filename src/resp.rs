//! The RESP listener: takes connections in, watches over them, lets them go at the drain. What
//! is said on a connection is in `resp/`; no token is fetched or kept here.

mod audience;
mod command;
mod connections;
mod glob;
mod herald;
mod inline;
mod parse;
mod reply;
mod session;
mod tracking;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

use crate::access::{Access, Via};
use crate::clock::{Now, SharedClock};
use crate::config::{RespConfig, Writes};
use crate::refresh::RefreshHandle;
use crate::resp::audience::Audience;
use crate::resp::connections::{Connections, Stop};
use crate::resp::session::Session;
use crate::shutdown::Drain;
use crate::snapshot::Reader;
use crate::status::Status;

/// How long a peer may leave its replies unread before it is cut. A minute of a full socket buffer
/// is a peer that hangs, and what it is owed occupies memory.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How often idle and stalled connections are looked for, at most; as Redis, which looks at each
/// of its clients once a second.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How long accepting rests after an error. The usual one is that descriptors have run out, and
/// asking again at once would only burn the processor that could free some.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How long a connection may be silent before the system asks whether the peer is still there, as
/// in Redis. Without it a peer that vanished (a router that forgot it) keeps its place for ever,
/// where `idle_timeout` is 0.
const KEEPALIVE: Duration = Duration::from_secs(300);

/// How many databases SELECT admits. All of them show the same keys, so that a client configured
/// for any of Redis' sixteen works unchanged.
const DATABASES: u8 = 16;

/// What the listener works with.
#[derive(Debug, Clone)]
pub struct RespParts {
    /// What is served.
    pub reader: Reader,
    /// The way to ask for a refresh.
    pub refresh: RefreshHandle,
    /// Who may connect.
    pub access: Arc<Access>,
    /// Where connections are counted.
    pub status: Status,
    /// The time.
    pub clock: SharedClock,
}

/// What all sessions share.
#[derive(Debug)]
struct Shared {
    reader: Reader,
    refresh: RefreshHandle,
    clock: SharedClock,
    access: Arc<Access>,
    status: Status,
    writes: Writes,
    notify: bool,
    max_connections: usize,
    idle_timeout: Duration,
    /// The port we listen on.
    port: u16,
    started: Now,
    connections: Connections,
    audience: Audience,
    counters: Counters,
}

/// What INFO counts.
#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    rejected: AtomicU64,
    commands: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Serves on a thread of its own, as Redis does: one thread takes in what many connections have sent
/// with one system call, and no connection ever moves between processors. Reading a token takes so
/// little that one is enough, and whatever goes on here does not delay HTTP or the engine. The drain
/// waits for its end.
///
/// # Errors
/// There is no thread to be had.
pub fn spawn(
    listener: TcpListener,
    config: RespConfig,
    parts: RespParts,
    drain: &Drain,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = listener.into_std()?;
    let (ended, end) = oneshot::channel();
    let drains = drain.clone();
    std::thread::Builder::new().name("resp".into()).spawn(move || {
        runtime.block_on(async {
            match TcpListener::from_std(listener) {
                Ok(listener) => serve(listener, config, parts, drains).await,
                Err(error) => error!(%error, "RESP cannot be served"),
            }
        });
        // An error: nobody waits for the end any more.
        let _ = ended.send(());
    })?;
    drain.spawn(async {
        // An error: the thread panicked, which is an end as well.
        let _ = end.await;
    });
    Ok(())
}

/// Serves connections until the drain begins; then takes no new ones, lets each session answer what
/// has arrived and send what it owes, and returns when the last has ended. How long that may take is
/// for the caller to say.
pub async fn serve(listener: TcpListener, config: RespConfig, parts: RespParts, drain: Drain) {
    let shared = Arc::new(Shared {
        reader: parts.reader,
        started: parts.clock.now(),
        clock: parts.clock,
        refresh: parts.refresh,
        access: parts.access,
        status: parts.status,
        writes: config.writes,
        notify: config.notify,
        max_connections: config.max_connections,
        idle_timeout: config.idle_timeout,
        port: listener.local_addr().map_or(config.bind.port(), |address| address.port()),
        connections: Connections::default(),
        audience: Audience::new(config.notify),
        counters: Counters::default(),
    });
    let sessions = TaskTracker::new();
    shared.status.traffic(Via::Resp).watch(&sessions);
    let herald = tokio::spawn(herald::announce(Arc::clone(&shared)));
    tokio::select! {
        () = drain.begun() => {}
        () = accept(&listener, &shared, &sessions) => {}
        () = sweep(&shared) => {}
    }
    drop(listener);
    for card in shared.connections.all() {
        card.stop(Stop::Drain);
    }
    sessions.close();
    tokio::select! {
        () = sessions.wait() => {}
        () = sweep(&shared) => {} // a peer that does not read is cut in the drain as well
    }
    herald.abort();
}

/// Takes connections in, for ever.
async fn accept(listener: &TcpListener, shared: &Arc<Shared>, sessions: &TaskTracker) {
    // One warning for each run of errors: a full table of descriptors can last.
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                failing = false;
                admit(stream, shared, sessions);
            }
            Err(error) => {
                if !failing {
                    warn!(%error, "RESP connections cannot be accepted");
                }
                failing = true;
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

fn admit(stream: TcpStream, shared: &Arc<Shared>, sessions: &TaskTracker) {
    shared.counters.connections.fetch_add(1, Ordering::Relaxed);
    shared.status.traffic(Via::Resp).accept();
    let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else {
        return; // it is gone already
    };
    // Each batch of replies is one write; waiting for more to send with it only delays it.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "TCP_NODELAY cannot be set");
    }
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
    if let Err(error) = SockRef::from(&stream).set_tcp_keepalive(&keepalive) {
        debug!(%peer, %error, "keep-alive cannot be set");
    }
    let now = shared.clock.now();
    let user = shared.access.users().at_connect();
    match shared.connections.admit(peer, local, user.clone(), now, shared.max_connections) {
        Some(card) => {
            sessions.spawn(Session::new(stream, Arc::clone(shared), card, user).run());
        }
        None => {
            shared.counters.rejected.fetch_add(1, Ordering::Relaxed);
            shared.status.traffic(Via::Resp).reject();
            sessions.spawn(turn_away(stream));
        }
    }
}

/// Tells a client that there are too many. The socket buffer of a new connection is empty, so this
/// does not wait.
async fn turn_away(mut stream: TcpStream) {
    // An error means that the client is gone, which is what was wanted.
    let _ = stream.write_all(b"-ERR max number of clients reached\r\n").await;
}

/// Cuts idle and stalled connections, for ever.
async fn sweep(shared: &Shared) {
    let every = match shared.idle_timeout {
        Duration::ZERO => SWEEP_EVERY,
        idle => (idle / 4).clamp(Duration::from_millis(1), SWEEP_EVERY),
    };
    let mut turns = tokio::time::interval(every);
    loop {
        turns.tick().await;
        shared.connections.sweep(shared.clock.now(), shared.idle_timeout, STALL_TIMEOUT);
    }
}
