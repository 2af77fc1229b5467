//! What must hold of whole sessions, whatever is said on them; see `crate::fuzzing`. In memory: the bytes
//! go through the batches of a session, and a herald tells what happens, in virtual time.
//!
//! A session is played twice. The first time request by request, so that replies can be counted. The
//! second time in batches cut anywhere, and in a world that differs in what the client may not see: the
//! value of a token that has ended, and everything about a source that is not for it. Whatever is
//! answered and told must be the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;

use super::{Batch, BatchEnd};
use crate::access::Access;
use crate::clock::{Clock, Now, SharedClock};
use crate::config::{ClientConfig, Writes};
use crate::refresh::{RefreshError, RequestQueue, queue};
use crate::resp::audience::Audience;
use crate::resp::command::{self, Client, Wait};
use crate::resp::connections::Connections;
use crate::resp::fuzzing::{Dialect, frames};
use crate::resp::parse::Parser;
use crate::resp::reply::{Protocol, Reply};
use crate::resp::{Counters, Refusals, Shared, herald};
use crate::snapshot::{Published, Publisher, Roster, Slot};
use crate::status::Status;
use crate::token::{Generation, Secret, SourceIdentity, SourceName, TokenRecord};

/// What separates the steps of a script. A step is one byte that says what happens, then bytes that the
/// client sends.
const STEP: u8 = 0xff;

/// The sources: one that everybody sees, one that a limited client does not, one whose token has ended,
/// one that never had any.
const NAMES: [&str; 4] = ["access_token", "ticket", "ended", "empty"];
const SEEN: usize = 0;
const HIDDEN: usize = 1;
const ENDED: usize = 2;

/// How long a token lives.
const LIFE: Duration = Duration::from_secs(7_200);

/// How often tasks are let run after something happened: a wish goes to its refresher, an answer comes
/// back, the herald tells of it.
const TURNS: usize = 4;

/// A clock that moves when it is told to.
#[derive(Debug, Default)]
struct Stepped(AtomicU64);

impl Clock for Stepped {
    fn now(&self) -> Now {
        let passed = Duration::from_secs(self.0.load(Ordering::Relaxed));
        let start = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_250);
        Now { wall: start + passed, mono: Duration::from_secs(100) + passed }
    }

    fn seed(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The settings of a server, by the first byte of the input.
#[derive(Debug, Clone, Copy)]
struct Setup(u8);

impl Setup {
    fn password(self) -> Option<Secret> {
        (self.0 & 1 != 0).then(|| Secret::new("hush"))
    }

    fn clients(self) -> Vec<ClientConfig> {
        let seen = NAMES.into_iter().enumerate().filter(|(at, _)| *at != HIDDEN);
        let sources = seen.map(|(_, name)| source(name)).collect();
        let shop = || ClientConfig {
            name: "shop".into(),
            keys: vec![Secret::new("shopkey")],
            sources: Some(sources),
            addresses: None,
        };
        (self.0 & 2 != 0).then(shop).into_iter().collect()
    }

    fn writes(self) -> Writes {
        if self.0 & 4 != 0 { Writes::Report } else { Writes::Refuse }
    }

    fn notifies(self) -> bool {
        self.0 & 8 == 0
    }

    /// Whether refreshes come off.
    fn refreshes(self) -> bool {
        self.0 & 16 == 0
    }

    /// How many bytes arrive at once where they arrive in pieces.
    fn piece(self) -> usize {
        [usize::MAX, 1, 2, 3, 5, 8, 13, 64][usize::from(self.0 >> 5)]
    }
}

/// What differs between two runs of a script.
#[derive(Debug, Clone, Copy)]
struct Difference {
    /// The value of the token that has ended.
    ended: &'static str,
    /// Whether there is the source that a limited client does not see.
    hidden: bool,
    /// Whether a request is run alone, and its replies are counted.
    counted: bool,
}

fn source(name: &str) -> SourceName {
    SourceName::parse(name).expect("a name of ours")
}

/// What a client was answered and told.
#[derive(Debug, Default)]
struct Heard {
    replies: Vec<u8>,
    /// What it was told without asking, sorted: of several patterns that match, any may come first.
    told: Vec<Vec<u8>>,
    /// Whether it was hung up on: then what came before in the same batch was not sent.
    hung_up: bool,
}

/// The first byte says how the server is set up; the rest is a script.
pub(crate) fn session(input: &[u8]) {
    let Some((&setup, script)) = input.split_first() else { return };
    let setup = Setup(setup);
    let counted = Difference { ended: "57_ended", hidden: true, counted: true };
    let (heard, saw_all) = play(setup, script, counted);
    let other = Difference { ended: "57_ended_otherwise", hidden: saw_all, counted: false };
    let (again, saw_all_again) = play(setup, script, other);
    assert_eq!(saw_all, saw_all_again, "another user");
    for (one, other) in heard.iter().zip(&again) {
        let why = "it depends on the cuts, or on what may not be seen";
        let [first, second] = [one, other].map(|heard| heard.replies.escape_ascii().to_string());
        if one.hung_up {
            assert!(first.starts_with(&second), "{why}: {first}, {second}");
        } else {
            assert_eq!(first, second, "{why}");
        }
        assert_eq!(one.told, other.told, "{why}");
    }
}

fn play(setup: Setup, script: &[u8], difference: Difference) -> ([Heard; 2], bool) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs nothing");
    runtime.block_on(async move {
        let mut world = World::new(setup, difference);
        world.settle().await;
        for step in script.split(|byte| *byte == STEP) {
            let Some((&what, bytes)) = step.split_first() else { continue };
            world.happen(what).await;
            for piece in bytes.chunks(setup.piece()) {
                world.receive(piece).await;
            }
        }
        let [one, other] = &mut world.peers;
        one.leave(&world.shared);
        other.leave(&world.shared);
        let heard = world.peers.map(|peer| {
            let mut heard = peer.heard;
            heard.told.sort();
            heard
        });
        (heard, world.saw_all)
    })
}

/// One connection.
struct Peer {
    client: Client,
    parser: Parser,
    /// What has arrived and is not understood yet.
    arrived: Vec<u8>,
    heard: Heard,
    ended: bool,
    /// Whether replies may be missing: CLIENT REPLY was used.
    may_be_silent: bool,
    /// Whether EXEC may answer in two protocols: it has been told to change it.
    switches: bool,
    /// Whether EXEC may have more than one reply: it has been told to subscribe.
    subscribes: bool,
}

impl Peer {
    fn leave(&mut self, shared: &Shared) {
        if !std::mem::replace(&mut self.ended, true) {
            self.client.leave(shared);
            shared.connections.forget(self.client.card.id);
        }
    }

    fn dialect(&self) -> Dialect {
        match self.client.protocol {
            Protocol::Resp2 => Dialect::Resp2,
            Protocol::Resp3 => Dialect::Resp3,
        }
    }

    /// Takes in what it is told.
    fn collect(&mut self) {
        let mut mail = Vec::new();
        self.client.card.collect(&mut mail);
        let told = frames(&mail, self.dialect());
        let kind = if self.dialect() == Dialect::Resp3 { b'>' } else { b'*' };
        assert!(told.iter().all(|frame| frame[0] == kind), "{:?}", mail.escape_ascii().to_string());
        self.heard.told.extend(told);
    }
}

struct World {
    setup: Setup,
    difference: Difference,
    shared: Arc<Shared>,
    clock: Arc<Stepped>,
    roster: Roster,
    slots: Vec<Slot>,
    publishers: Vec<Publisher>,
    queues: Vec<RequestQueue>,
    generation: u64,
    peers: [Peer; 2],
    /// Which of them speaks.
    speaker: usize,
    /// Whether either has been a user that sees everything.
    saw_all: bool,
}

impl World {
    fn new(setup: Setup, difference: Difference) -> World {
        let clock = Arc::new(Stepped::default());
        let mut roster = Roster::default();
        let slots: Vec<Slot> = NAMES.map(|name| roster.slot(source(name))).into();
        let publishers = slots.iter().map(Slot::publisher).collect();
        roster.serve(slots_served(&slots, difference, 0));
        let (queues, refresh) = queue(NAMES.map(source));
        let (secret, own) = (Secret::new("n0b0dy-kn0ws-1t"), Arc::clone(&clock) as SharedClock);
        let access = Arc::new(Access::new(secret, setup.password(), setup.clients(), own));
        let (reader, own) = (roster.reader(), Arc::clone(&clock) as SharedClock);
        let shared = Arc::new(Shared {
            status: Status::apart(Vec::new(), &reader, &access, &own),
            reader,
            refresh,
            started: clock.now(),
            clock: Arc::clone(&clock) as SharedClock,
            access,
            writes: setup.writes(),
            notify: setup.notifies(),
            max_connections: 10,
            max_connections_per_address: 10,
            idle_timeout: Duration::ZERO,
            port: 6379,
            connections: Connections::default(),
            audience: Audience::new(setup.notifies()),
            counters: Counters::default(),
            refusals: Refusals::default(),
            tls: None,
        });
        tokio::spawn(herald::announce(Arc::clone(&shared)));
        let peers = [1, 2].map(|port| {
            let [peer, local] = [port, 6379].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
            let user = shared.access.users().at_connect();
            let card = shared.connections.admit(peer, local, user.clone(), clock.now(), 10);
            Peer {
                client: Client::new(card.expect("there are two"), user),
                parser: Parser::default(),
                arrived: Vec::new(),
                heard: Heard::default(),
                ended: false,
                may_be_silent: false,
                switches: false,
                subscribes: false,
            }
        });
        let user = shared.access.users().at_connect();
        let is_open = user.is_some_and(|user| !user.is_limited());
        let mut world = World {
            setup,
            difference,
            shared,
            clock,
            roster,
            slots,
            publishers,
            queues,
            generation: 0,
            peers,
            speaker: 0,
            saw_all: is_open,
        };
        world.publish(SEEN, LIFE);
        world.publish(HIDDEN, LIFE);
        world.publish(ENDED, Duration::ZERO);
        world
    }

    /// Publishes a new token, unless it is one that is not there in this world.
    fn publish(&mut self, at: usize, life: Duration) -> Option<Arc<Published>> {
        self.generation += 1;
        if at == HIDDEN && !self.difference.hidden {
            return None;
        }
        let (now, generation) = (self.clock.now(), Generation(self.generation));
        let value = match at {
            ENDED => self.difference.ended.to_owned(),
            _ => format!("57_{}_{generation}", NAMES[at]),
        };
        let published = Arc::new(Published {
            record: TokenRecord {
                value: Secret::new(value),
                fetched_at: now.wall,
                expires_at: now.wall + life,
                generation,
                first_seen: now.wall,
                identity: SourceIdentity([0; 32]),
                captured: None,
            },
            ends_mono: now.mono + life,
            lead: Duration::from_secs(600),
            overlap: None,
            in_doubt_since: None,
        });
        self.publishers[at].publish(Arc::clone(&published));
        Some(published)
    }

    /// Lets tasks run, and refreshers answer.
    async fn settle(&mut self) {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
            for at in 0..self.queues.len() {
                while let Some(request) = self.queues[at].next().now_or_never() {
                    let refused = || {
                        let what = Arc::from("the upstream\r\nsaid no");
                        Err(RefreshError::Failed { what, more: None, wait: None })
                    };
                    let comes_off = self.setup.refreshes() && at != ENDED;
                    let token = if comes_off { self.publish(at, LIFE) } else { None };
                    // An error: whoever asked has gone.
                    let _ = request.reply.send(token.map_or_else(refused, Ok));
                }
            }
        }
    }

    /// What happens before the client says something.
    async fn happen(&mut self, what: u8) {
        match what {
            b'o' => self.speaker = 1 - self.speaker,
            b'p' => drop(self.publish(SEEN, LIFE)),
            b'h' => drop(self.publish(HIDDEN, LIFE)),
            b't' => {
                let by = Duration::from_secs(3_000);
                self.clock.0.fetch_add(by.as_secs(), Ordering::Relaxed);
                tokio::time::advance(by).await;
            }
            // Reloads, without the first source and with it.
            b'r' => self.roster.serve(slots_served(&self.slots, self.difference, 1)),
            b's' => self.roster.serve(slots_served(&self.slots, self.difference, 0)),
            _ => {}
        }
        self.settle().await;
    }

    /// Bytes arrive from the client that speaks.
    async fn receive(&mut self, bytes: &[u8]) {
        let peer = &mut self.peers[self.speaker];
        if peer.client.card.stopping().is_some() {
            peer.leave(&self.shared);
        }
        if peer.ended {
            return;
        }
        peer.collect();
        peer.arrived.extend_from_slice(bytes);
        let waiting = peer.arrived.len();
        if self.difference.counted {
            while self.run_one().await {}
        } else {
            while self.run_batch().await {}
        }
        if self.peers[self.speaker].arrived.len() < waiting {
            // What a request had done in the background.
            self.settle().await;
        }
        self.peers[self.speaker].collect();
    }

    /// Runs the next request alone and counts its replies; says whether there may be more.
    async fn run_one(&mut self) -> bool {
        let peer = &mut self.peers[self.speaker];
        let mut scout = Parser::default();
        let found = scout.next(&peer.arrived, peer.client.user.is_some());
        let words: Vec<Vec<u8>> = match found {
            Ok(false) => {
                // As a batch does that finds half a request: the client is not idle.
                peer.client.card.touch(self.shared.clock.now(), false);
                return false;
            }
            Ok(true) => scout.args(&peer.arrived).from(0).map(<[u8]>::to_ascii_lowercase).collect(),
            Err(_) => Vec::new(),
        };
        let length = if found.is_ok() { scout.take_consumed() } else { peer.arrived.len() };
        let request: Vec<u8> = peer.arrived.drain(..length).collect();
        let mut output = Vec::new();
        let (end, waits) = run(&self.shared, peer, &mut Parser::default(), &request, &mut output);
        if let Some(wait) = waits {
            self.answer(wait, &mut output).await;
        }
        let peer = &mut self.peers[self.speaker];
        peer.heard.replies.extend_from_slice(&output);
        let name = words.first().map_or(&b""[..], Vec::as_slice);
        let is_subscription =
            [&b"subscribe"[..], b"psubscribe", b"unsubscribe", b"punsubscribe"].contains(&name);
        peer.subscribes |= is_subscription;
        peer.switches |= name == b"hello";
        peer.may_be_silent |= name == b"client" && words.get(1).is_some_and(|sub| sub == b"reply");
        peer.heard.hung_up |= end == BatchEnd::Last && [&b"post"[..], b"host:"].contains(&name);
        let shown = || (request.escape_ascii().to_string(), output.escape_ascii().to_string());
        // The array of an EXEC that ran CLIENT REPLY OFF breaks off, as Redis' does.
        if peer.may_be_silent && name == b"exec" {
            return self.after_batch(end);
        }
        let is_mixed = name == b"exec" && peer.switches;
        let dialect = if is_mixed { Dialect::Mixed } else { peer.dialect() };
        let count = frames(&output, dialect).len();
        match found {
            _ if peer.may_be_silent => {}
            Ok(_) if peer.heard.hung_up => assert_eq!(count, 0, "{:?}", shown()),
            Ok(_) if is_subscription || (name == b"exec" && peer.subscribes) => {
                assert!(count >= 1, "{:?}", shown());
            }
            Ok(_) => assert_eq!(count, 1, "{:?}", shown()),
            Err(error) => {
                let expected = usize::from(error.text().is_some());
                assert_eq!(count, expected, "{:?}", shown());
                assert_eq!(end, BatchEnd::Last, "it goes on after {error:?}");
            }
        }
        self.after_batch(end)
    }

    /// Runs what has arrived, as a session does; says whether there may be more.
    async fn run_batch(&mut self) -> bool {
        let peer = &mut self.peers[self.speaker];
        let input = std::mem::take(&mut peer.arrived);
        let mut parser = std::mem::take(&mut peer.parser);
        let mut output = Vec::new();
        let (end, waits) = run(&self.shared, peer, &mut parser, &input, &mut output);
        let consumed = parser.take_consumed();
        parser.shrink();
        peer.parser = parser;
        peer.arrived = input[consumed..].to_vec();
        if let Some(wait) = waits {
            self.answer(wait, &mut output).await;
        }
        self.peers[self.speaker].heard.replies.extend_from_slice(&output);
        self.after_batch(end) && end != BatchEnd::Done
    }

    /// Waits for what a request waits for, and answers it.
    async fn answer(&mut self, mut wait: Wait, output: &mut Vec<u8>) {
        self.settle().await;
        let answer = match wait.as_mut().now_or_never() {
            Some(answer) => answer,
            // Who shows many wrong keys is made to wait; the time passes as soon as all wait for it.
            None => wait.await,
        };
        let peer = &mut self.peers[self.speaker];
        command::answer(&mut Reply::new(output, peer.client.protocol), answer);
        peer.collect();
    }

    fn after_batch(&mut self, end: BatchEnd) -> bool {
        let peer = &mut self.peers[self.speaker];
        let user = peer.client.user.as_ref();
        self.saw_all |= user.is_some_and(|user| !user.is_limited());
        if end == BatchEnd::Last {
            peer.leave(&self.shared);
        }
        !peer.ended
    }
}

/// The slots from `first` on that there are in this world.
fn slots_served(slots: &[Slot], difference: Difference, first: usize) -> Vec<Slot> {
    let slots = slots.iter().enumerate().skip(first);
    slots
        .filter(|(at, _)| difference.hidden || *at != HIDDEN)
        .map(|(_, slot)| slot.clone())
        .collect()
}

fn run(
    shared: &Arc<Shared>,
    peer: &mut Peer,
    parser: &mut Parser,
    input: &[u8],
    output: &mut Vec<u8>,
) -> (BatchEnd, Option<Wait>) {
    // What INFO counts is added up when a batch ends: that depends on the cuts.
    for counter in [&shared.counters.commands, &shared.counters.hits, &shared.counters.misses] {
        counter.store(0, Ordering::Relaxed);
    }
    Batch { shared, client: &mut peer.client, parser, input }.run(output)
}
