//! Sessions over real loopback sockets, with a clock that stands still.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

mod encrypted;
mod limits;
mod told;

use super::*;
use crate::access::Access;
use crate::clock::{Clock, Now, SharedClock, SystemClock};
use crate::config::{ClientConfig, RespConfig, Writes};
use crate::refresh::{RequestQueue, queue};
use crate::resp::command::command_names;
use crate::resp::inline;
use crate::resp::{RespParts, exempt, serve_but_for};
use crate::shutdown::Drain;
use crate::snapshot::{Published, Publisher, Roster, Slot};
use crate::status::Status;
use crate::tls::Tls;
use crate::token::{Generation, Secret, SourceIdentity, SourceName, TokenRecord};

/// A test that waits longer than this for bytes will wait for ever.
const PATIENCE: Duration = Duration::from_secs(20);

const VALUES: [(&str, &str, u64); 2] =
    [("access_token", "tokenvalue", 7_200_000), ("ticket", "tick", 7_199_400)];

#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Now {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_250);
        Now { wall, mono: Duration::from_secs(100) }
    }
}

/// A token that was fetched just now.
fn published(now: Now, value: &str, generation: u64, life: Duration) -> Arc<Published> {
    Arc::new(Published {
        record: TokenRecord {
            value: Secret::new(value),
            fetched_at: now.wall,
            expires_at: now.wall + life,
            generation: Generation(generation),
            first_seen: now.wall,
            identity: SourceIdentity([0; 32]),
            captured: None,
        },
        ends_mono: now.mono + life,
        lead: Duration::from_secs(600),
        overlap: None,
        in_doubt_since: None,
    })
}

struct Server {
    address: SocketAddr,
    drain: Drain,
    ended: JoinHandle<()>,
    clock: SharedClock,
    roster: Roster,
    publishers: Vec<Publisher>,
    /// Of the refreshers, in the order of [`VALUES`].
    queues: Vec<RequestQueue>,
}

/// What differs from the default in a test.
struct Setup {
    password: Option<&'static str>,
    max_connections: Option<usize>,
    /// The loopback address is not exempt from it here.
    per_address: Option<usize>,
    idle_timeout: Duration,
    ticking: bool,
    /// What `ticking` says, where this is not set.
    clock: Option<SharedClock>,
    value: Option<String>,
    clients: Vec<ClientConfig>,
    writes: Writes,
    tls: Option<Tls>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            password: None,
            max_connections: None,
            per_address: None,
            idle_timeout: Duration::ZERO,
            ticking: false,
            clock: None,
            value: None,
            clients: Vec::new(),
            writes: Writes::Refuse,
            tls: None,
        }
    }
}

impl Setup {
    async fn start(self) -> Server {
        let clock = match self.clock {
            Some(clock) => clock,
            None if self.ticking => SystemClock::shared(),
            None => Arc::new(Still),
        };
        let now = clock.now();
        let names = VALUES.map(|(name, ..)| SourceName::parse(name).unwrap());
        let mut roster = Roster::default();
        let names = names.into_iter().chain([SourceName::parse("empty").unwrap()]);
        let slots: Vec<Slot> = names.map(|name| roster.slot(name)).collect();
        let publishers: Vec<Publisher> = slots.iter().map(Slot::publisher).collect();
        roster.serve(slots);
        let reader = roster.reader();
        for (publisher, (_, value, life)) in publishers.iter().zip(VALUES) {
            let value = self.value.as_deref().unwrap_or(value);
            publisher.publish(published(now, value, 1, Duration::from_millis(life)));
        }
        let socket = TcpSocket::new_v4().unwrap();
        if self.tls.is_some() {
            // Connections inherit it: with little room, what TLS holds back is seen.
            socket.set_send_buffer_size(4096).unwrap();
        }
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let listener = socket.listen(128).unwrap();
        let address = listener.local_addr().unwrap();
        let config = RespConfig {
            bind: address,
            password: None,
            max_connections: self.max_connections.unwrap_or(10_000),
            max_connections_per_address: self.per_address.unwrap_or(10_000),
            idle_timeout: self.idle_timeout,
            writes: self.writes,
            notify: true,
            tls: None,
        };
        let drain = Drain::new();
        let names = VALUES.map(|(name, ..)| SourceName::parse(name).unwrap());
        let (queues, refresh) = queue(names);
        let (secret, password) = (Secret::new("request-secret"), self.password.map(Secret::new));
        let access = Arc::new(Access::new(secret, password, self.clients, Arc::clone(&clock)));
        let status = Status::apart(Vec::new(), &reader, &access, &clock);
        let (own, tls) = (Arc::clone(&clock), self.tls);
        let parts = RespParts { reader, refresh, access, status, clock: own, tls };
        let exempt = if self.per_address.is_some() { Box::new(|_| false) } else { exempt() };
        let ended = tokio::spawn(serve_but_for(listener, config, parts, drain.clone(), exempt));
        Server { address, drain, ended, clock, roster, publishers, queues }
    }
}

impl Server {
    async fn connect(&self) -> Peer {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Peer { stream }
    }
}

struct Peer {
    stream: TcpStream,
}

impl Peer {
    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn expect(&mut self, expected: &[u8], why: &str) {
        let mut got = Vec::new();
        let mut part = (&mut self.stream).take(expected.len() as u64);
        let read = tokio::time::timeout(PATIENCE, part.read_to_end(&mut got)).await;
        let (got, expected) = (got.escape_ascii(), expected.escape_ascii());
        assert_eq!(got.to_string(), expected.to_string(), "{why} ({read:?})");
    }

    async fn expect_end(&mut self, why: &str) {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await;
        // A reset counts: the server had not read everything when it closed.
        assert!(read.is_ok() && rest.is_empty(), "{why}: {:?}", rest.escape_ascii().to_string());
    }
}

fn array(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend(*word);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// Undoes the escapes `\r \n \t \\ \" \xHH` of a transcript.
fn unescape(text: &str) -> Vec<u8> {
    let (mut line, mut spans) = (Vec::new(), Vec::new());
    let quoted = format!("\"{}\"", text.replace('"', "\\\""));
    assert!(inline::split(quoted.as_bytes(), &mut line, &mut spans), "{text:?}");
    line
}

/// The words of a transcript's request, by the quoting rules of inline requests.
fn words(text: &str) -> Vec<u8> {
    let (mut line, mut spans) = (Vec::new(), Vec::new());
    assert!(inline::split(text.as_bytes(), &mut line, &mut spans), "{text:?}");
    let words: Vec<&[u8]> = spans
        .iter()
        .map(|span| &line[span.start as usize..(span.start + span.len) as usize])
        .collect();
    array(&words)
}

const TRANSCRIPTS: [(&str, &str); 15] = [
    ("bits", include_str!("../../../tests/golden/resp/bits.txt")),
    ("connection", include_str!("../../../tests/golden/resp/connection.txt")),
    ("foreign", include_str!("../../../tests/golden/resp/foreign.txt")),
    ("handshakes", include_str!("../../../tests/golden/resp/handshakes.txt")),
    ("ours", include_str!("../../../tests/golden/resp/ours.txt")),
    ("password", include_str!("../../../tests/golden/resp/password.txt")),
    ("probes", include_str!("../../../tests/golden/resp/probes.txt")),
    ("protocol", include_str!("../../../tests/golden/resp/protocol.txt")),
    ("reading", include_str!("../../../tests/golden/resp/reading.txt")),
    ("pubsub", include_str!("../../../tests/golden/resp/pubsub.txt")),
    ("refused", include_str!("../../../tests/golden/resp/refused.txt")),
    ("server", include_str!("../../../tests/golden/resp/server.txt")),
    ("tracking", include_str!("../../../tests/golden/resp/tracking.txt")),
    ("transactions", include_str!("../../../tests/golden/resp/transactions.txt")),
    ("users", include_str!("../../../tests/golden/resp/users.txt")),
];

/// One step of a transcript.
enum Step {
    Send(Vec<u8>),
    Expect(Vec<u8>),
    End,
    Reconnect,
}

/// `> words` is sent as an array, `>> bytes` as it is, with escapes; each `< line` is expected with
/// a CR LF after it; `x` is the end of the connection, `---` a new one on a new server.
fn steps(transcript: &str) -> Vec<(usize, Step)> {
    let step = |line: &str| match line.split_once(' ') {
        Some((">", request)) => Some(Step::Send(words(request))),
        Some((">>", bytes)) => Some(Step::Send(unescape(bytes))),
        Some(("<", reply)) => Some(Step::Expect([&unescape(reply)[..], b"\r\n"].concat())),
        _ if line == "<" => Some(Step::Expect(b"\r\n".to_vec())),
        _ if line == "x" => Some(Step::End),
        _ if line == "---" => Some(Step::Reconnect),
        _ if line.starts_with('#') || line.starts_with('@') => None,
        _ => panic!("not a line of a transcript: {line:?}"),
    };
    let numbered = transcript.lines().enumerate();
    numbered.filter_map(|(at, line)| Some((at + 1, step(line)?))).collect()
}

/// What a transcript asks for: `@ password WORD`, `@ client NAME KEY SOURCE ...`, `@ writes report`.
fn setup(transcript: &'static str) -> Setup {
    let mut setup = Setup::default();
    for line in transcript.lines().filter_map(|line| line.strip_prefix("@ ")) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["password", password] => setup.password = Some(password),
            ["writes", "report"] => setup.writes = Writes::Report,
            ["client", name, key, ref sources @ ..] => setup.clients.push(ClientConfig {
                name: name.into(),
                keys: vec![Secret::new(key)],
                sources: Some(sources.iter().map(|n| SourceName::parse(n).unwrap()).collect()),
                addresses: None,
            }),
            _ => panic!("not a setting of a transcript: {line:?}"),
        }
    }
    setup
}

/// The one test that waits for [`crate::access::SLOWNESS`].
#[tokio::test]
async fn who_shows_many_wrong_keys_is_answered_later_and_then_as_ever() {
    let setup = Setup { password: Some("pw"), ticking: true, ..Setup::default() };
    let server = setup.start().await;
    let mut peer = server.connect().await;
    let wrong = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    let slow = b"-ERR too many wrong keys from this address, try again later\r\n";
    for _ in 0..30 {
        peer.send(&words("AUTH wrong")).await;
        peer.expect(wrong, "the first thirty").await;
    }
    let asked = server.clock.now();
    peer.send(&[words("HELLO 3 AUTH default wrong"), words("AUTH pw"), words("PING")].concat())
        .await;
    peer.expect(&[&slow[..], b"+OK\r\n+PONG\r\n"].concat(), "the right key is not slowed").await;
    assert!(server.clock.now().since(asked) >= crate::access::SLOWNESS);
    let mut honest = server.connect().await;
    let asked = server.clock.now();
    honest.send(&words("AUTH pw")).await;
    honest.expect(b"+OK\r\n", "from the same address").await;
    assert!(server.clock.now().since(asked) < crate::access::SLOWNESS);
}

/// Replays a transcript, with each request in `pieces` sized so.
async fn replay(name: &str, transcript: &'static str, piece: usize) {
    let start = || setup(transcript).start();
    let mut server = start().await;
    let mut peer = server.connect().await;
    for (line, step) in steps(transcript) {
        let why = format!("{name}.txt, line {line}");
        match step {
            Step::Send(bytes) => {
                for piece in bytes.chunks(piece) {
                    // An error: it was closed on an earlier piece, and that is looked at below.
                    if peer.stream.write_all(piece).await.is_err() {
                        break;
                    }
                    // Lets the server, on the same thread, see each piece alone.
                    tokio::task::yield_now().await;
                }
            }
            Step::Expect(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                let local = peer.stream.local_addr().unwrap().to_string();
                let text =
                    text.replace("PEER", &local).replace("SERVER", &server.address.to_string());
                let bytes = if text.contains('\u{fffd}') { bytes } else { text.into_bytes() };
                peer.expect(&bytes, &why).await;
            }
            Step::End => peer.expect_end(&why).await,
            Step::Reconnect => {
                server = start().await;
                peer = server.connect().await;
            }
        }
    }
    // Nothing more was said than was expected.
    let _ = peer.stream.shutdown().await;
    peer.expect_end(&format!("{name}.txt, at the end")).await;
}

#[tokio::test]
async fn every_transcript_is_replayed() {
    for (name, transcript) in TRANSCRIPTS {
        replay(name, transcript, usize::MAX).await;
    }
}

#[tokio::test]
async fn every_transcript_is_replayed_byte_by_byte() {
    for (name, transcript) in TRANSCRIPTS {
        replay(name, transcript, 1).await;
    }
}

#[test]
fn every_command_has_a_transcript() {
    for name in command_names() {
        let request = format!("\n> {}", name.replace('|', " ").to_uppercase());
        assert!(
            TRANSCRIPTS.iter().any(|(_, transcript)| transcript.contains(&request)),
            "no transcript sends {name}"
        );
    }
}

#[tokio::test]
async fn http_is_cut_off_before_anything_is_said() {
    let server = Setup::default().start().await;
    for head in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut peer = server.connect().await;
        peer.send(head.as_bytes()).await;
        peer.expect_end(head).await;
    }
}

#[tokio::test]
async fn a_pipeline_is_answered_in_order_wherever_it_is_cut() {
    let server = Setup::default().start().await;
    let requests = [
        array(&[b"GET", b"access_token"]),
        b"PING a\r\n".to_vec(),
        array(&[b"NOPE"]),
        array(&[b"GET", b"empty"]),
        array(&[b"STRLEN", b"ticket"]),
    ]
    .concat();
    let replies = b"$10\r\ntokenvalue\r\n$1\r\na\r\n-ERR unknown command 'NOPE', with args \
                    beginning with: \r\n$-1\r\n:4\r\n";
    for cut in 0..=requests.len() {
        let mut peer = server.connect().await;
        peer.send(&requests[..cut]).await;
        tokio::task::yield_now().await;
        peer.send(&requests[cut..]).await;
        peer.expect(replies, &format!("cut at {cut}")).await;
    }
}

#[tokio::test]
async fn a_pipeline_far_beyond_every_buffer_is_answered_in_full() {
    let value = "v".repeat(4_096);
    let server = Setup { value: Some(value.clone()), ..Setup::default() }.start().await;
    let peer = server.connect().await;
    let (mut reader, mut writer) = peer.stream.into_split();
    const REQUESTS: usize = 10_000; // 40 MB of replies
    let sender = tokio::spawn(async move {
        writer.write_all(&b"GET ticket\r\n".repeat(REQUESTS)).await.unwrap();
        writer
    });
    let expected = format!("$4096\r\n{value}\r\n").into_bytes();
    let mut got = vec![0; expected.len()];
    for _ in 0..REQUESTS {
        reader.read_exact(&mut got).await.unwrap();
        assert!(got == expected);
    }
    drop(sender.await.unwrap());
}

#[tokio::test]
async fn costly_requests_take_turns() {
    let server = Setup::default().start().await;
    let mut peer = server.connect().await;
    const REQUESTS: usize = 30_000;
    peer.send(&b"DBSIZE\r\n".repeat(REQUESTS)).await;
    peer.expect(&b":2\r\n".repeat(REQUESTS), "all of them").await;
}

#[tokio::test]
async fn the_connection_too_many_is_told_so() {
    let server = Setup { max_connections: Some(1), ..Setup::default() }.start().await;
    let mut first = server.connect().await;
    first.send(b"PING\r\n").await;
    first.expect(b"+PONG\r\n", "the first").await;
    let mut second = server.connect().await;
    second.expect(b"-ERR max number of clients reached\r\n", "the second").await;
    second.expect_end("the second").await;
    first.send(b"QUIT\r\n").await;
    first.expect(b"+OK\r\n", "the first").await;
    first.expect_end("the first").await;
    // Its place is free once its session has been dropped, which the end above does not wait for.
    loop {
        let mut third = server.connect().await;
        let mut answer = [0; 7];
        third.send(b"PING\r\n").await;
        if third.stream.read_exact(&mut answer).await.is_ok() && &answer == b"+PONG\r\n" {
            break;
        }
    }
}

#[tokio::test]
async fn the_silent_are_cut_after_the_idle_timeout() {
    let idle_timeout = Duration::from_millis(40);
    let server = Setup { idle_timeout, ticking: true, ..Setup::default() }.start().await;
    let mut peer = server.connect().await;
    peer.send(b"PING\r\n").await;
    peer.expect(b"+PONG\r\n", "while it talks").await;
    peer.expect_end("when it is silent").await;
}

#[tokio::test]
async fn the_drain_answers_what_has_arrived_and_ends() {
    let server = Setup::default().start().await;
    let mut idle = server.connect().await;
    idle.send(b"PING\r\n").await;
    idle.expect(b"+PONG\r\n", "before").await;
    let mut half = server.connect().await;
    half.send(b"PING\r\n*2\r\n$3\r\nGET\r\n").await;
    half.expect(b"+PONG\r\n", "before").await;
    let mut asking = server.connect().await;
    asking.send(b"PING\r\n").await;
    asking.expect(b"+PONG\r\n", "before").await;
    // Nothing else runs between these two: the request is there when the session wakes up.
    asking.stream.try_write(b"GET ticket\r\n").unwrap();
    server.drain.begin();
    asking.expect(b"$4\r\ntick\r\n", "during").await;
    for mut peer in [idle, half, asking] {
        peer.expect_end("after").await;
    }
    tokio::time::timeout(PATIENCE, server.ended).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn who_connected_just_before_the_drain_may_still_ask() {
    let server = Setup::default().start().await;
    let mut fresh = server.connect().await;
    let mut later = server.connect().await;
    later.send(b"PING\r\n").await;
    later.expect(b"+PONG\r\n", "both are accepted").await;
    server.drain.begin();
    later.expect_end("the drain is under way").await;
    fresh.send(b"GET ticket\r\n").await;
    fresh.expect(b"$4\r\ntick\r\n", "during").await;
    fresh.expect_end("after").await;
    tokio::time::timeout(PATIENCE, server.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_drain_sends_what_is_owed() {
    let value = "v".repeat(4_096);
    let server = Setup { value: Some(value.clone()), ..Setup::default() }.start().await;
    let mut peer = server.connect().await;
    // More than the socket buffers of both sides hold, in one batch.
    let keys = vec![&b"ticket"[..]; 8_000];
    peer.send(&array(&[&[&b"MGET"[..]], &keys[..]].concat())).await;
    peer.expect(b"*8000\r\n", "it has begun").await;
    server.drain.begin();
    let rest = format!("$4096\r\n{value}\r\n").repeat(8_000);
    peer.expect(rest.as_bytes(), "to the end").await;
    peer.expect_end("after").await;
    tokio::time::timeout(PATIENCE, server.ended).await.unwrap().unwrap();
}
