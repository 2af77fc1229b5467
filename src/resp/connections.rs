//! Who is connected: one card for each connection, for CLIENT LIST, for the idle sweep, for the drain
//! and for what a client is told without asking. Locked when a connection comes, goes, renames itself,
//! is looked at or told something; never by a read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;

use crate::access::User;
use crate::clock::Now;
use crate::resp::held::{Excess, Held, Holding, must_go};
use crate::resp::reply::{Frame, Protocol};
use crate::resp::tracking::{Remembers, Tracking};
use crate::token::SourceName;

/// What may wait for a client that does not take it out, in bytes: thousands of messages. Redis
/// allows its subscribers more, for larger messages.
const MOST_MAIL_BYTES: usize = 1024 * 1024;

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
    /// CLIENT NO-EVICT
    pub(super) no_evict: bool,
}

/// What a connection is told without asking, and what decides about it.
#[derive(Debug)]
pub(super) struct Mail {
    /// Whole frames in the order in which they came, for the session to send.
    frames: Vec<u8>,
    /// Who the client is: of what it may not see it is not told.
    user: Option<Arc<User>>,
    /// What it caches; `None`: it does not want to be told.
    pub(super) tracking: Option<Box<Tracking>>,
}

/// What others may know of a connection, and how they reach it.
#[derive(Debug)]
pub(super) struct Card {
    /// Its number, never used twice while the process lives.
    pub(super) id: u64,
    /// The client's address.
    pub(super) peer: SocketAddr,
    /// Ours.
    pub(super) local: SocketAddr,
    since: Now,
    /// What it holds, beside what waits in `mail`: bytes, and whether by a stranger.
    held: AtomicUsize,
    held_by_stranger: AtomicBool,
    /// What all hold.
    total: Arc<Held>,
    /// Milliseconds of the monotonic clock.
    last_active: AtomicU64,
    /// Whether a reply waits for the peer to read, or a request for the peer to finish it.
    owes: AtomicBool,
    protocol: AtomicU8,
    db: AtomicU8,
    channels: AtomicU32,
    patterns: AtomicU32,
    /// Whether it waits for an answer that is still to come.
    waits: AtomicBool,
    /// How many requests its transaction holds; -1: there is none.
    queued: AtomicI32,
    label: Mutex<Label>,
    mail: Mutex<Mail>,
    has_mail: AtomicBool,
    stop: AtomicU8,
    waker: AtomicWaker,
}

const GO_ON: u8 = 0;
const DRAIN: u8 = 1;
const CUT: u8 = 2;

impl Card {
    /// Notes that the peer sent or took something, and whether there is more for it to take or to send.
    pub(super) fn touch(&self, now: Now, owes: bool) {
        self.last_active.store(milliseconds(now.mono), Ordering::Relaxed);
        self.owes.store(owes, Ordering::Relaxed);
    }

    /// Notes how much memory the session holds for its peer; says who must go for it.
    pub(super) fn hold(&self, bytes: usize, by_stranger: bool) -> Excess {
        let (before, after) = (self.holding(), Holding { bytes, by_stranger });
        // Most hold nothing, before and after.
        if before == after || (before.bytes, bytes) == (0, 0) {
            return Excess::None;
        }
        self.held.store(bytes, Ordering::Relaxed);
        self.held_by_stranger.store(by_stranger, Ordering::Relaxed);
        self.total.change(before, after);
        self.total.excess(after)
    }

    fn holding(&self) -> Holding {
        Holding {
            bytes: self.held.load(Ordering::Relaxed),
            by_stranger: self.held_by_stranger.load(Ordering::Relaxed),
        }
    }

    /// Whether a reply waits for the peer to take it.
    pub(super) fn owes(&self) -> bool {
        self.owes.load(Ordering::Relaxed)
    }

    /// Which protocol the peer speaks.
    pub(super) fn protocol(&self) -> Protocol {
        if self.protocol.load(Ordering::Relaxed) == Protocol::Resp3.number() {
            Protocol::Resp3
        } else {
            Protocol::Resp2
        }
    }

    /// Notes which database the peer selected.
    pub(super) fn set_db(&self, db: u8) {
        self.db.store(db, Ordering::Relaxed);
    }

    /// Which database the peer selected.
    pub(super) fn db(&self) -> u8 {
        self.db.load(Ordering::Relaxed)
    }

    /// Notes to how many channels and patterns the peer subscribes.
    pub(super) fn set_subscriptions(&self, channels: usize, patterns: usize) {
        let short = |count| u32::try_from(count).unwrap_or(u32::MAX);
        self.channels.store(short(channels), Ordering::Relaxed);
        self.patterns.store(short(patterns), Ordering::Relaxed);
    }

    /// Whether the peer subscribes to anything: then it is silent for good reasons.
    pub(super) fn is_subscribed(&self) -> bool {
        self.channels.load(Ordering::Relaxed) > 0 || self.patterns.load(Ordering::Relaxed) > 0
    }

    /// Notes how many requests a transaction holds; `None`: there is no transaction.
    pub(super) fn set_queued(&self, queued: Option<usize>) {
        let queued = queued.map_or(-1, |queued| i32::try_from(queued).unwrap_or(i32::MAX));
        self.queued.store(queued, Ordering::Relaxed);
    }

    /// Notes whether the peer waits for an answer: then it is silent for good reasons.
    pub(super) fn set_waiting(&self, waits: bool) {
        self.waits.store(waits, Ordering::Relaxed);
    }

    /// Whether the peer waits for an answer.
    pub(super) fn is_waiting(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// What the peer says of itself.
    pub(super) fn label(&self) -> MutexGuard<'_, Label> {
        // A label is independent fields: a panic between them leaves no nonsense.
        self.label.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the peer is told. Held for moments only: nobody waits for a peer that is slow.
    pub(super) fn mail(&self) -> MutexGuard<'_, Mail> {
        // Frames are appended whole.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes who the peer is.
    pub(super) fn set_user(&self, user: Option<Arc<User>>) {
        self.mail().user = user;
    }

    /// The name of who the peer is.
    pub(super) fn user_name(&self) -> String {
        self.mail().user.as_ref().map_or("(superuser)", |user| user.name()).to_owned()
    }

    /// Whether the peer is this user.
    pub(super) fn is_of(&self, name: &str) -> bool {
        self.mail().user.as_ref().is_some_and(|user| user.name() == name)
    }

    /// Leaves a frame for the peer, unless it is about a source that the peer may not see. A peer that
    /// takes nothing out is cut before it fills the memory.
    pub(super) fn push(&self, source: Option<&SourceName>, frame: &Frame) {
        let mut mail = self.mail();
        let may_see = |source: &SourceName| {
            mail.user.as_ref().is_some_and(|user| user.may_see(source.as_str().as_bytes()))
        };
        if !source.is_none_or(may_see) {
            return;
        }
        let frame = frame.bytes(self.protocol());
        mail.frames.extend_from_slice(frame);
        self.total.change(Holding::default(), mailed(frame));
        let too_much = mail.frames.len() > MOST_MAIL_BYTES;
        drop(mail);
        self.has_mail.store(true, Ordering::Release);
        if too_much {
            self.stop(Stop::Cut);
        } else {
            self.waker.wake();
        }
    }

    /// Whether there are frames to send.
    pub(super) fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    /// Moves the frames that wait to the end of `out`, and has those after them in this protocol.
    pub(super) fn switch(&self, protocol: Protocol, out: &mut Vec<u8>) {
        // With the lock held: no frame in the old protocol comes after it.
        let mut mail = self.mail();
        self.total.change(mailed(&mail.frames), Holding::default());
        out.append(&mut mail.frames);
        self.protocol.store(protocol.number(), Ordering::Relaxed);
    }

    /// Moves the frames that wait to the end of `out`.
    pub(super) fn collect(&self, out: &mut Vec<u8>) {
        if self.has_mail.swap(false, Ordering::Acquire) {
            // Given back, not kept: most connections are told something once in hours.
            let frames = std::mem::take(&mut self.mail().frames);
            self.total.change(mailed(&frames), Holding::default());
            out.extend_from_slice(&frames);
        }
    }

    /// Asks the session to end.
    pub(super) fn stop(&self, how: Stop) {
        let how = match how {
            Stop::Drain => DRAIN,
            Stop::Cut => CUT,
        };
        self.stop.fetch_max(how, Ordering::Release);
        // After the store: who is woken must see it.
        self.waker.wake();
    }

    /// Has the session woken by what concerns it from now on. To be called before it looks.
    pub(super) fn wake(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// How the session has been asked to end, if it has.
    pub(super) fn stopping(&self) -> Option<Stop> {
        match self.stop.load(Ordering::Acquire) {
            GO_ON => None,
            DRAIN => Some(Stop::Drain),
            _ => Some(Stop::Cut),
        }
    }

    /// How long the peer has neither sent nor taken anything.
    fn idle(&self, now: Now) -> Duration {
        now.mono.saturating_sub(Duration::from_millis(self.last_active.load(Ordering::Relaxed)))
    }

    /// Appends the connection's line of CLIENT LIST, with the `command` that it sent last. Fields of things we do not have are as they
    /// are in a Redis that does not use them.
    pub(super) fn describe(&self, now: Now, command: &str, text: &mut String) {
        let Card { id, peer, local, .. } = self;
        let Label { name, lib_name, lib_ver, no_evict } = self.label().clone();
        let (user, redirect, [tracks, is_broken, broadcasts]) = {
            let mail = self.mail();
            let tracking = mail.tracking.as_ref();
            let is = |what: fn(&Tracking) -> bool| tracking.is_some_and(|tracking| what(tracking));
            let tracks =
                [is(|_| true), is(|t| t.broken), is(|t| t.remembers == Remembers::Broadcast)];
            (mail.user.clone(), tracking.map_or(-1, |tracking| tracking.redirect()), tracks)
        };
        let queued = self.queued.load(Ordering::Relaxed);
        let mut flags = String::new();
        for (flag, applies) in [
            ('P', self.is_subscribed()),
            ('x', queued >= 0),
            ('t', tracks),
            ('R', is_broken),
            ('B', broadcasts),
            ('e', no_evict),
        ] {
            if applies {
                flags.push(flag);
            }
        }
        if flags.is_empty() {
            flags.push('N');
        }
        writeln!(
            text,
            "id={id} addr={peer} laddr={local} fd=-1 name={name} age={age} idle={idle} flags={flags} \
             db={db} sub={sub} psub={psub} ssub=0 multi={queued} qbuf=0 qbuf-free=0 argv-mem=0 \
             multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={command} user={user} \
             redir={redirect} resp={resp} lib-name={lib_name} lib-ver={lib_ver}",
            age = now.since(self.since).as_secs(),
            idle = self.idle(now).as_secs(),
            db = self.db(),
            sub = self.channels.load(Ordering::Relaxed),
            psub = self.patterns.load(Ordering::Relaxed),
            user = user.as_ref().map_or("(superuser)", |user| user.name()),
            resp = self.protocol.load(Ordering::Relaxed),
        )
        .expect("a String takes any text");
    }
}

/// What waits for a client to take it. (What strangers are told is nothing.)
fn mailed(frames: &[u8]) -> Holding {
    Holding { bytes: frames.len(), by_stranger: false }
}

impl Drop for Card {
    fn drop(&mut self) {
        self.total.change(self.holding(), Holding::default());
        self.total.change(mailed(&self.mail().frames), Holding::default());
    }
}

fn milliseconds(mono: Duration) -> u64 {
    u64::try_from(mono.as_millis()).unwrap_or(u64::MAX)
}

/// Every connection.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Mutex<Open>,
    held: Arc<Held>,
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
        user: Option<Arc<User>>,
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
            held: AtomicUsize::new(0),
            held_by_stranger: AtomicBool::new(false),
            total: Arc::clone(&self.held),
            last_active: AtomicU64::new(milliseconds(now.mono)),
            owes: AtomicBool::new(false),
            protocol: AtomicU8::new(Protocol::Resp2.number()),
            db: AtomicU8::new(0),
            label: Mutex::default(),
            channels: AtomicU32::new(0),
            patterns: AtomicU32::new(0),
            waits: AtomicBool::new(false),
            queued: AtomicI32::new(-1),
            mail: Mutex::new(Mail { frames: Vec::new(), user, tracking: None }),
            has_mail: AtomicBool::new(false),
            stop: AtomicU8::new(GO_ON),
            waker: AtomicWaker::new(),
        });
        open.cards.insert(card.id, Arc::clone(&card));
        Some(card)
    }

    /// Forgets a connection.
    pub(super) fn forget(&self, id: u64) {
        self.open().cards.remove(&id);
    }

    /// How many wait for an answer.
    pub(super) fn waiting(&self) -> usize {
        self.open().cards.values().filter(|card| card.is_waiting()).count()
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

    /// Cuts those who hold most, if all together hold too much; says how many.
    pub(super) fn relieve(&self) -> usize {
        if !self.held.is_too_much() {
            return 0;
        }
        let open = self.open();
        // Who has been cut before gives back what it holds as soon as its turn comes.
        let cards: Vec<&Arc<Card>> =
            open.cards.values().filter(|card| card.stopping() != Some(Stop::Cut)).collect();
        let holdings: Vec<Holding> = cards
            .iter()
            .map(|card| {
                let holding = card.holding();
                Holding { bytes: holding.bytes + card.mail().frames.len(), ..holding }
            })
            .collect();
        let gone = must_go(&holdings);
        gone.iter().for_each(|at| cards[*at].stop(Stop::Cut));
        gone.len()
    }

    /// Cuts who has not said within `timeout` who it is.
    pub(super) fn sweep_strangers(&self, now: Now, timeout: Duration) {
        for card in self.open().cards.values() {
            if now.since(card.since) >= timeout && card.mail().user.is_none() {
                card.stop(Stop::Cut);
            }
        }
    }

    /// Cuts who has been silent for `idle_timeout` (zero: nobody) and who has not read its replies,
    /// or finished its request, for `stall_timeout`.
    pub(super) fn sweep(&self, now: Now, idle_timeout: Duration, stall_timeout: Duration) {
        for card in self.open().cards.values() {
            let idle = card.idle(now);
            let silent = !idle_timeout.is_zero()
                && idle >= idle_timeout
                && !card.is_subscribed()
                && !card.is_waiting();
            let stalled = card.owes() && idle >= stall_timeout;
            if silent || stalled {
                card.stop(Stop::Cut);
            }
        }
    }
}

#[cfg(test)]
mod tests;
