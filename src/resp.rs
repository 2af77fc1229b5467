//! The RESP listener: takes connections in, watches over them, lets them go at the drain. What
//! is said on a connection is in `resp/`; no token is fetched or kept here.

mod audience;
mod command;
mod connections;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod glob;
mod held;
mod herald;
mod inline;
mod parse;
mod reply;
mod session;
mod tracking;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

use crate::access::{Access, User, Via};
use crate::admission::{Admission, Exempt, Place};
use crate::clock::{Now, SharedClock};
use crate::config::{RespConfig, Writes};
use crate::log_budget::LogBudget;
use crate::refresh::RefreshHandle;
use crate::resp::audience::Audience;
use crate::resp::connections::{Card, Connections, Stop};
use crate::resp::session::Session;
use crate::shutdown::Drain;
use crate::snapshot::Reader;
use crate::status::Status;
use crate::tls::{Listener, Stream, Tls};

/// How long a peer may leave its replies unread, or a request half sent, before it is cut. A minute of a full socket buffer
/// is a peer that hangs, and what it is owed occupies memory.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How often idle and stalled connections are looked for, at most; as Redis, which looks at each
/// of its clients once a second.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How long a connection may take to say who it is, where that has to be said: a client does so at
/// once. Without it strangers could have every place for ever, since `idle_timeout` is 0 by default.
const AUTH_TIMEOUT: Duration = Duration::from_secs(60);

/// How long accepting rests after an error. The usual one is that descriptors have run out, and
/// asking again at once would only burn the processor that could free some.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How long a connection may be silent before the system asks whether the peer is still there, as
/// in Redis. Without it a peer that vanished (a router that forgot it) keeps its place for ever,
/// where `idle_timeout` is 0.
const KEEPALIVE: Duration = Duration::from_secs(300);

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What TLS needs to know of this listener.
pub const TLS: Listener = Listener {
    setting: "resp.tls",
    // The Redis protocol has no name there.
    alpn: &[],
    in_the_clear: b"-ERR this port speaks TLS: connect with rediss:// or --tls\r\n",
};

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
    /// What connections are encrypted with; `None`: they are not.
    pub tls: Option<Tls>,
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
    max_connections_per_address: usize,
    idle_timeout: Duration,
    /// The port we listen on.
    port: u16,
    started: Now,
    connections: Connections,
    audience: Audience,
    counters: Counters,
    refusals: Refusals,
    tls: Option<Tls>,
}

/// How often it is said in the log that somebody was turned away or cut.
#[derive(Debug, Default)]
struct Refusals {
    full: LogBudget,
    of_address: LogBudget,
    greedy: LogBudget,
    /// Of clients that speak TLS where it is not spoken.
    tls_hellos: LogBudget,
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
/// waits for its end. What is returned is the runtime of that thread.
///
/// # Errors
/// There is no thread to be had.
pub fn spawn(
    listener: TcpListener,
    config: RespConfig,
    parts: RespParts,
    drain: &Drain,
) -> io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let turning = runtime.handle().clone();
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
    Ok(turning)
}

/// Serves connections until the drain begins; then takes no new ones, lets each session answer what
/// has arrived and send what it owes, and returns when the last has ended. How long that may take is
/// for the caller to say.
pub async fn serve(listener: TcpListener, config: RespConfig, parts: RespParts, drain: Drain) {
    serve_but_for(listener, config, parts, drain, exempt()).await;
}

/// Whose connections are not counted by their address: those from this machine.
fn exempt() -> Exempt {
    Box::new(|address| address.is_loopback())
}

/// As [`serve`], where these are `exempt` from the limit on the connections of an address.
async fn serve_but_for(
    listener: TcpListener,
    config: RespConfig,
    parts: RespParts,
    drain: Drain,
    exempt: Exempt,
) {
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
        max_connections_per_address: config.max_connections_per_address,
        idle_timeout: config.idle_timeout,
        port: listener.local_addr().map_or(config.bind.port(), |address| address.port()),
        connections: Connections::default(),
        audience: Audience::new(config.notify),
        counters: Counters::default(),
        refusals: Refusals::default(),
        tls: parts.tls,
    });
    set_options(&SockRef::from(&listener));
    let addresses = Admission::new(config.max_connections_per_address, exempt);
    let sessions = TaskTracker::new();
    shared.status.traffic(Via::Resp).watch(&sessions);
    let herald = tokio::spawn(herald::announce(Arc::clone(&shared)));
    tokio::select! {
        () = drain.begun() => {}
        () = accept(&listener, &shared, &addresses, &sessions) => {}
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

/// Sets what holds for each connection. On the listener: Linux hands it down to who connects from then on,
/// which saves system calls for each that comes.
fn set_options(socket: &SockRef<'_>) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
    if let Err(error) = socket.set_tcp_keepalive(&keepalive) {
        debug!(%error, "keep-alive cannot be set");
    }
    // Each batch of replies is one write; waiting for more to send with it only delays it. The last one: a
    // connection that has it has all of them.
    if let Err(error) = socket.set_tcp_nodelay(true) {
        debug!(%error, "TCP_NODELAY cannot be set");
    }
}

/// Sets on a connection what its listener did not have yet when it came: the clients of a server that
/// starts have waited at its socket, systemd's for long.
fn complete_options(stream: &TcpStream) {
    // An error: it is gone already.
    if !stream.nodelay().unwrap_or(true) {
        set_options(&SockRef::from(stream));
    }
}

/// Takes connections in, for ever.
async fn accept(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    addresses: &Arc<Admission>,
    sessions: &TaskTracker,
) {
    // One warning for each run of errors: a full table of descriptors can last.
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                failing = false;
                admit(stream, peer, shared, addresses, sessions);
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

fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    shared: &Arc<Shared>,
    addresses: &Arc<Admission>,
    sessions: &TaskTracker,
) {
    shared.counters.connections.fetch_add(1, Ordering::Relaxed);
    shared.status.traffic(Via::Resp).accept();
    let Ok(local) = stream.local_addr() else {
        return; // it is gone already
    };
    let now = shared.clock.now();
    let Some(place) = addresses.admit(peer.ip()) else {
        if let Some(unsaid) = shared.refusals.of_address.spend(now) {
            warn!(
                address = %peer.ip(),
                max_connections_per_address = shared.max_connections_per_address,
                unsaid,
                "RESP connection refused: this address has all the connections it may have; \
                 if many clients share it, raise resp.max_connections_per_address"
            );
        }
        turn_away(stream, TOO_MANY_OF_ADDRESS, shared, sessions);
        return;
    };
    let user = shared.access.users().at_connect();
    match shared.connections.admit(peer, local, user.clone(), now, shared.max_connections) {
        Some(card) => {
            complete_options(&stream);
            let shared = Arc::clone(shared);
            if shared.tls.is_some() {
                sessions.spawn(serve_encrypted(stream, shared, card, user, place));
            } else {
                let stream = Stream::Plain(stream);
                sessions.spawn(Session::new(stream, shared, card, user, place).run());
            }
        }
        None => {
            if let Some(unsaid) = shared.refusals.full.spend(now) {
                let max_connections = shared.max_connections;
                warn!(max_connections, unsaid, "RESP connection refused: all places are taken");
            }
            turn_away(stream, TOO_MANY, shared, sessions);
        }
    }
}

/// What a client is told where there are too many, in Redis' words.
const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";
/// … or too many from its address.
const TOO_MANY_OF_ADDRESS: &[u8] = b"-ERR max number of clients from this address reached\r\n";

/// Serves a connection once its handshake is done. Until then it is one like the others: it has its
/// place, and is cut by who may cut it.
async fn serve_encrypted(
    stream: TcpStream,
    shared: Arc<Shared>,
    card: Arc<Card>,
    user: Option<Arc<User>>,
    place: Place,
) {
    let entry = Entry { shared: &shared, card: &card };
    let encrypted = {
        let tls = shared.tls.as_ref().expect("only a listener with TLS comes here");
        let mut handshake = Box::pin(tls.accept(stream, card.peer, HANDSHAKE_TIMEOUT));
        poll_fn(|wakeup| {
            // Before the look: what happens after it wakes this again.
            card.wake(wakeup.waker());
            match handshake.as_mut().poll(wakeup) {
                Poll::Pending if card.stopping().is_some() => Poll::Ready(None),
                poll => poll,
            }
        })
        .await
    };
    if let Some(stream) = encrypted {
        entry.keep();
        Session::new(stream, Arc::clone(&shared), Arc::clone(&card), user, place).run().await;
    }
}

/// What is known of a connection that is not a session yet; forgotten when dropped.
struct Entry<'a> {
    shared: &'a Shared,
    card: &'a Card,
}

impl Entry<'_> {
    /// Leaves it to a session, which gives it back.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.shared.connections.forget(self.card.id);
    }
}

/// Counts a client that is not served, and tells it why. The socket buffer of a new connection is empty, so this does
/// not wait. Who waits for a handshake is not told: it would take the words for a broken one.
fn turn_away(mut stream: TcpStream, why: &'static [u8], shared: &Shared, sessions: &TaskTracker) {
    shared.counters.rejected.fetch_add(1, Ordering::Relaxed);
    shared.status.traffic(Via::Resp).reject();
    if shared.tls.is_none() {
        sessions.spawn(async move {
            // An error means that the client is gone, which is what was wanted.
            let _ = stream.write_all(why).await;
        });
    }
}

/// Cuts those who hold most, if all together hold too much.
fn relieve(shared: &Shared) {
    let cut = shared.connections.relieve();
    if cut > 0 {
        tell_of_cut(shared, cut);
    }
}

/// Tells the operator that so many were cut for what they held.
fn tell_of_cut(shared: &Shared, cut: usize) {
    if let Some(unsaid) = shared.refusals.greedy.spend(shared.clock.now()) {
        warn!(
            cut,
            unsaid,
            "RESP clients held too much memory with half-sent requests, unread replies and the \
             like: those who held most were cut"
        );
    }
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
        let now = shared.clock.now();
        shared.connections.sweep(now, shared.idle_timeout, STALL_TIMEOUT);
        if !shared.access.users().is_open() {
            shared.connections.sweep_strangers(now, AUTH_TIMEOUT);
        }
        relieve(shared);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_has_its_options_also_if_it_came_before_the_listener_had_them() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _early = TcpStream::connect(address).await.unwrap();
        set_options(&SockRef::from(&listener));
        let _late = TcpStream::connect(address).await.unwrap();
        for (who, inherits) in [("early", false), ("late", true)] {
            let (accepted, _) = listener.accept().await.unwrap();
            assert_eq!(accepted.nodelay().unwrap(), inherits, "{who}");
            complete_options(&accepted);
            let socket = SockRef::from(&accepted);
            assert!(socket.tcp_nodelay().unwrap(), "{who}");
            assert!(socket.keepalive().unwrap(), "{who}");
            assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE, "{who}");
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE / 3, "{who}");
        }
    }
}
