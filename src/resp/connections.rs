//! Who is connected: one card for each connection, for CLIENT LIST, for the idle sweep and for the
//! drain. Locked when a connection comes, goes, renames itself or is looked at; never by a read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Now;
use crate::resp::reply::Protocol;

/// How a session is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Send what is owed, read nothing more.
    Drain,
    /// At once: nobody is there, or nobody reads.
    Cut,
}

/// What a client says of itself.
#[derive(Debug, Default, Clone)]
pub(super) struct Label {
    /// CLIENT SETNAME
    pub(super) name: String,
    /// CLIENT SETINFO LIB-NAME
    pub(super) lib_name: String,
    /// CLIENT SETINFO LIB-VER
    pub(super) lib_ver: String,
}

/// What others may know of a connection.
#[derive(Debug)]
pub(super) struct Card {
    /// Its number, never used twice while the process lives.
    pub(super) id: u64,
    peer: SocketAddr,
    local: SocketAddr,
    since: Now,
    /// Milliseconds of the monotonic clock.
    last_active: AtomicU64,
    /// Whether a reply waits for the peer to read.
    owes: AtomicBool,
    protocol: AtomicU8,
    db: AtomicU8,
    label: Mutex<Label>,
    stop: AtomicU8,
    bell: Notify,
}

const GO_ON: u8 = 0;
const DRAIN: u8 = 1;
const CUT: u8 = 2;

impl Card {
    /// Notes that the peer sent or took something, and whether there is more for it to take.
    pub(super) fn touch(&self, now: Now, owes: bool) {
        self.last_active.store(milliseconds(now.mono), Ordering::Relaxed);
        self.owes.store(owes, Ordering::Relaxed);
    }

    /// Notes which protocol the peer speaks.
    pub(super) fn set_protocol(&self, protocol: Protocol) {
        self.protocol.store(protocol.number(), Ordering::Relaxed);
    }

    /// Notes which database the peer selected.
    pub(super) fn set_db(&self, db: u8) {
        self.db.store(db, Ordering::Relaxed);
    }

    /// What the peer says of itself.
    pub(super) fn label(&self) -> MutexGuard<'_, Label> {
        // A label is three independent texts: a panic between them leaves no nonsense.
        self.label.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the session to end.
    pub(super) fn stop(&self, how: Stop) {
        let how = match how {
            Stop::Drain => DRAIN,
            Stop::Cut => CUT,
        };
        self.stop.fetch_max(how, Ordering::Relaxed);
        // After the store: who is woken must see it.
        self.bell.notify_one();
    }

    /// Whether the session has been asked to end.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed) != GO_ON
    }

    /// Ends when the session is asked to.
    pub(super) async fn stopped(&self) -> Stop {
        loop {
            match self.stop.load(Ordering::Relaxed) {
                GO_ON => self.bell.notified().await,
                DRAIN => return Stop::Drain,
                _ => return Stop::Cut,
            }
        }
    }

    /// How long the peer has neither sent nor taken anything.
    fn idle(&self, now: Now) -> Duration {
        now.mono.saturating_sub(Duration::from_millis(self.last_active.load(Ordering::Relaxed)))
    }

    /// Appends the connection's line of CLIENT LIST. Fields of things we do not have are as they
    /// are in a Redis that does not use them.
    pub(super) fn describe(&self, now: Now, text: &mut String) {
        let Card { id, peer, local, .. } = self;
        let label = self.label().clone();
        let Label { name, lib_name, lib_ver } = label;
        writeln!(
            text,
            "id={id} addr={peer} laddr={local} fd=-1 name={name} age={age} idle={idle} flags=N \
             db={db} sub=0 psub=0 ssub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 \
             rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd=NULL user=default redir=-1 \
             resp={resp} lib-name={lib_name} lib-ver={lib_ver}",
            age = now.since(self.since).as_secs(),
            idle = self.idle(now).as_secs(),
            db = self.db.load(Ordering::Relaxed),
            resp = self.protocol.load(Ordering::Relaxed),
        )
        .expect("a String takes any text");
    }
}

fn milliseconds(mono: Duration) -> u64 {
    u64::try_from(mono.as_millis()).unwrap_or(u64::MAX)
}

/// Every connection.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    last_id: u64,
    cards: BTreeMap<u64, Arc<Card>>,
}

impl Connections {
    fn open(&self) -> MutexGuard<'_, Open> {
        // Each change is one insertion or removal: a panic leaves nothing half done.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection in, unless there are `most` already.
    pub(super) fn admit(
        &self,
        peer: SocketAddr,
        local: SocketAddr,
        now: Now,
        most: usize,
    ) -> Option<Arc<Card>> {
        let mut open = self.open();
        if open.cards.len() >= most {
            return None;
        }
        open.last_id += 1;
        let card = Arc::new(Card {
            id: open.last_id,
            peer,
            local,
            since: now,
            last_active: AtomicU64::new(milliseconds(now.mono)),
            owes: AtomicBool::new(false),
            protocol: AtomicU8::new(Protocol::Resp2.number()),
            db: AtomicU8::new(0),
            label: Mutex::default(),
            stop: AtomicU8::new(GO_ON),
            bell: Notify::new(),
        });
        open.cards.insert(card.id, Arc::clone(&card));
        Some(card)
    }

    /// Forgets a connection.
    pub(super) fn forget(&self, id: u64) {
        self.open().cards.remove(&id);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.open().cards.len()
    }

    /// The connection with this number.
    pub(super) fn get(&self, id: u64) -> Option<Arc<Card>> {
        self.open().cards.get(&id).cloned()
    }

    /// Every connection, the oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Card>> {
        self.open().cards.values().cloned().collect()
    }

    /// Cuts who has been silent for `idle_timeout` (zero: nobody) and who has not read its replies
    /// for `stall_timeout`.
    pub(super) fn sweep(&self, now: Now, idle_timeout: Duration, stall_timeout: Duration) {
        for card in self.open().cards.values() {
            let idle = card.idle(now);
            let silent = !idle_timeout.is_zero() && idle >= idle_timeout;
            let stalled = card.owes.load(Ordering::Relaxed) && idle >= stall_timeout;
            if silent || stalled {
                card.stop(Stop::Cut);
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
        let first = connections.admit(address(1), address(2), at(0), 1).unwrap();
        assert!(connections.admit(address(1), address(2), at(0), 1).is_none());
        connections.forget(first.id);
        let second = connections.admit(address(1), address(2), at(0), 1).unwrap();
        assert_eq!((first.id, second.id, connections.len()), (1, 2, 1));
    }

    #[tokio::test]
    async fn the_sweep_cuts_the_silent_and_the_stalled() {
        let connections = Connections::default();
        let admit = || connections.admit(address(1), address(2), at(0), 10).unwrap();
        let (silent, busy, stalled) = (admit(), admit(), admit());
        busy.touch(at(50), false);
        stalled.touch(at(40), true);
        connections.sweep(at(60), Duration::from_secs(60), Duration::from_secs(20));
        assert_eq!(silent.stopped().await, Stop::Cut);
        assert_eq!(stalled.stopped().await, Stop::Cut);
        assert_eq!(busy.stop.load(Ordering::Relaxed), GO_ON);
        // Zero means for ever.
        connections.sweep(at(6_000), Duration::ZERO, Duration::from_secs(20));
        assert_eq!(busy.stop.load(Ordering::Relaxed), GO_ON);
    }

    #[test]
    fn a_connection_is_described_as_redis_does() {
        let card = Connections::default().admit(address(1), address(2), at(0), 1).unwrap();
        card.label().name = "worker".into();
        card.touch(at(3), false);
        let mut text = String::new();
        card.describe(at(5), &mut text);
        assert!(text.starts_with(
            "id=1 addr=127.0.0.1:1 laddr=127.0.0.1:2 fd=-1 name=worker age=5 idle=2 flags=N db=0 "
        ));
        assert!(text.ends_with("redir=-1 resp=2 lib-name= lib-ver=\n"));
    }
}
