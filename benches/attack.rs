//! What honest clients notice of an attack, and what it costs the server: two thousand slow or half-open
//! connections on each listener and two hundred wrong keys a second, while honest clients on both go on at
//! a constant rate; then a flood of one listener, while the other one and the renewals go on. `cargo bench
//! --bench attack` (two minutes; `CONNECTIONS` and `ROUNDS` change the scale). Ends with 1 if a
//! requirement is not met.
//!
//! The attackers are in a process of their own (this same program, with the lowest priority, as they would
//! be on other machines) and come from several addresses of 127.0.0.0/8. Loopback is exempt from the limit
//! on connections of one address, so that this is an attack from many. A latency counts from when the
//! request was to be sent, so that a server that stands still does not look fast.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench reports, and may fail")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use wechat_token_server::clock::SystemClock;
use wechat_token_server::sandbox::{Account, Endpoint, Model, Settings, Upstream};

const BINARY: &str = env!("CARGO_BIN_EXE_wechat-token-server");
const PATIENCE: Duration = Duration::from_secs(30);
const REQUEST_SECRET: &str = "bench-request-secret";
const PASSWORD: &str = "bench-password";
/// Honest requests a second on each listener, and the connections that they take turns on.
const RATE: u32 = 500;
const HONEST_CONNECTIONS: usize = 10;
/// How long the honest clients are watched, before and during.
const WATCHED: Duration = Duration::from_secs(6);
/// After the last attacker has come: what it does at first is done, and what it goes on doing is measured.
const SETTLE: Duration = Duration::from_secs(3);
/// Wrong keys a second on each listener, and how many take turns at guessing them: each waits for its answer,
/// which takes a second once they are slowed.
const WRONG_KEYS: u32 = 100;
const GUESSERS: u32 = 150;
/// The life of a token. It is due a quarter of it before its end, or up to a sixteenth later.
const LIFE: Duration = Duration::from_secs(8);
const LATEST_DUE: Duration = Duration::from_millis(6_500);
/// The first argument of the program when it is to attack; then come what, both addresses and the count.
const ATTACK: &str = "--attack";
/// The p99 during the attack as a ratio to that before, at most.
const MOST_P99: f64 = 2.0;
/// What the server may hold at its peak, in bytes.
const MOST_RESIDENT: u64 = 40 * 1024 * 1024;
/// The p99 at the one listener while the other is flooded: a few turns of the scheduler on two processors
/// that are both busy.
const MOST_IN_FLOOD: Duration = Duration::from_millis(25);
/// How late a renewal may be in a flood.
const MOST_LATE: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, what, http, resp, count] = &arguments[..]
        && first == ATTACK
    {
        let target = Target { http: http.parse().unwrap(), resp: resp.parse().unwrap() };
        attack(what, target, count.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    // `cargo test --benches` runs this too; then there is nothing to measure.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let connections = setting("CONNECTIONS", 2_000);
    let rounds = setting("ROUNDS", 5);
    // What is set here is handed down to the others.
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    println!(
        "{connections} attackers on each listener, {} wrong keys and {} honest requests a second, {rounds} \
         rounds; load average {}",
        2 * WRONG_KEYS,
        2 * RATE,
        load.trim()
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let upstream = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = Settings { lifetime: LIFE, token_quota: None, ..Settings::default() };
        let model = Model::new(settings, [Account::default()], 1);
        Upstream::start(listener, model, SystemClock::shared()).unwrap()
    });
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), upstream.address());
    watch(&server); // what is done once is not to be counted
    let mut calm = Vec::new();
    let mut attacked = Vec::new();
    for round in 1..=rounds {
        calm.push(watch(&server));
        let attackers = Attackers::start("slow", &server, connections);
        attacked.push(watch(&server));
        println!(
            "round {round}: before {}; during {}; {}; resident {} kB",
            calm.last().unwrap(),
            attacked.last().unwrap(),
            attackers.end(),
            server.status("VmRSS:")
        );
    }
    let resident = server.status("VmHWM:") * 1_024;
    let mut met = judge(&calm, &attacked);
    met &= requirement(
        &format!("peak resident memory {} kB", resident / 1_024),
        resident < MOST_RESIDENT,
        &format!("below {} kB", MOST_RESIDENT / 1_024),
    );
    met &= flood(&server, &upstream);
    runtime.block_on(upstream.stop());
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::cast_possible_truncation, reason = "a number a person wrote")]
fn setting(name: &str, default: u64) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap()) as usize
}

fn requirement(what: &str, met: bool, wanted: &str) -> bool {
    println!("{what}; {wanted}: {}", if met { "yes" } else { "NO" });
    met
}

// --- figures

/// What honest clients saw of one listener.
#[derive(Clone, Copy)]
struct Seen {
    p50: Duration,
    p99: Duration,
    /// Answers that were no token.
    wrong: usize,
}

/// … of both.
struct Figures {
    http: Seen,
    resp: Seen,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let us = |time: Duration| time.as_micros();
        let Figures { http, resp } = self;
        write!(
            f,
            "HTTP p50 {} us, p99 {}, RESP p50 {}, p99 {}",
            us(http.p50),
            us(http.p99),
            us(resp.p50),
            us(resp.p99)
        )
    }
}

/// A name, the figure, and whether something is required of it.
type Row = (&'static str, fn(&Figures) -> Duration, bool);

/// Prints the medians of the rounds; whether all is as required.
fn judge(calm: &[Figures], attacked: &[Figures]) -> bool {
    let mut met = true;
    println!("\nmedians of the rounds, us    before   during   ratio (median of the rounds')");
    let rows: [Row; 4] = [
        ("HTTP p50", |f| f.http.p50, false),
        ("HTTP p99", |f| f.http.p99, true),
        ("RESP p50", |f| f.resp.p50, false),
        ("RESP p99", |f| f.resp.p99, true),
    ];
    for (name, of, required) in rows {
        let us = |figures: &Figures| of(figures).as_secs_f64() * 1e6;
        let before = median(calm.iter().map(us).collect());
        let during = median(attacked.iter().map(us).collect());
        let ratio = median(calm.iter().zip(attacked).map(|(c, a)| us(a) / us(c)).collect());
        print!("  {name:<24} {before:>8.0} {during:>8.0} {ratio:>7.2}");
        let is_met = !required || ratio <= MOST_P99;
        met &= is_met;
        match (required, is_met) {
            (false, _) => println!(),
            (true, true) => println!("   at most {MOST_P99}: yes"),
            (true, false) => println!("   at most {MOST_P99}: NO"),
        }
    }
    let wrong: usize = calm.iter().chain(attacked).map(|f| f.http.wrong + f.resp.wrong).sum();
    met & requirement(&format!("honest requests without a token: {wrong}"), wrong == 0, "none")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

// --- honest clients

/// Watches both listeners for a while.
fn watch(server: &Server) -> Figures {
    std::thread::scope(|scope| {
        let http = scope.spawn(|| ask_at_a_rate(server.http, http_get, http_token));
        let resp = scope.spawn(|| ask_at_a_rate(server.resp, resp_get, resp_token));
        Figures { http: http.join().unwrap(), resp: resp.join().unwrap() }
    })
}

/// Asks at a constant rate, whatever the answers take.
fn ask_at_a_rate(
    address: SocketAddr,
    request: fn() -> String,
    is_token: fn(&mut BufReader<TcpStream>) -> bool,
) -> Seen {
    let mut clients: Vec<BufReader<TcpStream>> = (0..HONEST_CONNECTIONS)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            if request().starts_with('*') {
                write!(stream, "AUTH {PASSWORD}\r\n").unwrap();
                stream.read_exact(&mut [0; 5]).unwrap();
            }
            BufReader::new(stream)
        })
        .collect();
    let request = request();
    let mut took = Vec::new();
    let mut wrong = 0;
    let begin = Instant::now();
    for turn in 0_u32.. {
        let at = begin + turn * (Duration::from_secs(1) / RATE);
        if at > begin + WATCHED {
            break;
        }
        sleep(at.saturating_duration_since(Instant::now()));
        let client = &mut clients[turn as usize % HONEST_CONNECTIONS];
        client.get_mut().write_all(request.as_bytes()).unwrap();
        wrong += usize::from(!is_token(client));
        took.push(at.elapsed());
    }
    took.sort();
    let part = |hundredth: usize| took[(took.len() - 1) * hundredth / 100];
    Seen { p50: part(50), p99: part(99), wrong }
}

fn http_get() -> String {
    format!(
        "GET /wechat/token?type=access_token&secret={REQUEST_SECRET} HTTP/1.1\r\nhost: bench\r\n\r\n"
    )
}

fn http_token(client: &mut BufReader<TcpStream>) -> bool {
    let (mut line, mut length) = (String::new(), 0);
    while line != "\r\n" {
        line.clear();
        assert!(client.read_line(&mut line).unwrap() > 0, "an honest client was cut");
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim_end().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    client.read_exact(&mut body).unwrap();
    body.starts_with(b"{\"access_token\": ")
}

fn resp_get() -> String {
    "*2\r\n$3\r\nGET\r\n$12\r\naccess_token\r\n".into()
}

fn resp_token(client: &mut BufReader<TcpStream>) -> bool {
    let mut line = String::new();
    assert!(client.read_line(&mut line).unwrap() > 0, "an honest client was cut");
    let Some(length) = line.strip_prefix('$').and_then(|text| text.trim_end().parse().ok()) else {
        return false;
    };
    let length: i64 = length;
    let Ok(length) = usize::try_from(length) else { return false };
    client.read_exact(&mut vec![0; length + 2]).unwrap();
    true
}

/// Floods each listener in turn; whether the other one and the renewals went on.
fn flood(server: &Server, upstream: &Upstream) -> bool {
    println!();
    let mut met = true;
    for flooded in ["HTTP", "RESP"] {
        let attackers = Attackers::start(&format!("flood-{flooded}"), server, 64);
        let begin = std::time::SystemTime::now();
        // Long enough for more than one renewal.
        let rounds = [watch(server), watch(server), watch(server)];
        let asked = attackers.end();
        let calls = upstream.log();
        let calls: Vec<_> =
            calls.iter().filter(|call| call.endpoint == Endpoint::Token).map(|c| c.at).collect();
        let gaps = calls.windows(2).filter(|pair| pair[1] > begin);
        let late = gaps
            .map(|pair| pair[1].duration_since(pair[0]).unwrap().saturating_sub(LATEST_DUE))
            .max()
            .expect("a renewal in the flood");
        let other = |f: &Figures| if flooded == "HTTP" { f.resp } else { f.http };
        let mut p99: Vec<Duration> = rounds.iter().map(|f| other(f).p99).collect();
        p99.sort();
        let wrong: usize = rounds.iter().map(|f| f.http.wrong + f.resp.wrong).sum();
        let p99 = p99[p99.len() / 2];
        met &= requirement(
            &format!("{flooded} flooded ({asked}): p99 of the other listener {p99:.1?}"),
            p99 <= MOST_IN_FLOOD,
            &format!("at most {MOST_IN_FLOOD:?}"),
        );
        met &= requirement(
            &format!("  renewals {late:.0?} late, {wrong} honest requests without a token"),
            late <= MOST_LATE && wrong == 0,
            &format!("at most {MOST_LATE:?} and none"),
        );
    }
    met
}

// --- the server

/// The running server; killed when dropped.
struct Server {
    process: Child,
    http: SocketAddr,
    resp: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended, and nothing of it is kept.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// Returns when it serves a token.
    fn start(dir: &Path, upstream: SocketAddr) -> Server {
        let (http, resp) = (free_address(), free_address());
        let (appid, secret) = (Account::SANDBOX_APPID, Account::SANDBOX_SECRET);
        let text = format!(
            r#"(
    http: (bind: "{http}"), resp: (bind: "{resp}", password: "{PASSWORD}"), store: (path: {:?}),
    request_secret: "{REQUEST_SECRET}", refresh: (overlap: "300ms"),
    token_sources: {{"access_token": (
        url: "http://{upstream}/cgi-bin/token",
        args: {{"grant_type": "client_credential", "appid": "{appid}", "secret": "{secret}"}},
    )}},
)"#,
            dir.join("store").display().to_string()
        );
        let config = dir.join("config.ron");
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(BINARY);
        command.arg("--config").arg(&config).env("RUST_LOG", "error");
        let server = Server { process: command.spawn().unwrap(), http, resp };
        let begin = Instant::now();
        while !server.serves() {
            assert!(begin.elapsed() < PATIENCE, "the server does not serve");
            sleep(Duration::from_millis(10));
        }
        server
    }

    fn serves(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.http) else { return false };
        stream.write_all(http_get().as_bytes()).is_ok() && http_token(&mut BufReader::new(stream))
    }

    /// A figure of the process, as the system gives it (kilobytes, where it is memory).
    fn status(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

// --- the attackers

/// The process of the attackers, as seen from here; killed when dropped.
struct Attackers {
    process: Child,
    _orders: ChildStdin,
    words: BufReader<ChildStdout>,
}

impl Drop for Attackers {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Attackers {
    /// Returns when all of them are at it.
    fn start(what: &str, server: &Server, count: usize) -> Attackers {
        let mut process = Command::new("nice")
            .args(["-n", "19"])
            .arg(std::env::current_exe().unwrap())
            .args([ATTACK, what, &server.http.to_string(), &server.resp.to_string()])
            .arg(count.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let words = BufReader::new(process.stdout.take().unwrap());
        let orders = process.stdin.take().unwrap();
        let mut attackers = Attackers { process, _orders: orders, words };
        assert_eq!(attackers.word(), "ready");
        attackers
    }

    fn word(&mut self) -> String {
        let mut line = String::new();
        self.words.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Ends them; what they have to say.
    fn end(mut self) -> String {
        self._orders.write_all(b"end\n").unwrap();
        self.word()
    }
}

#[derive(Clone, Copy)]
struct Target {
    http: SocketAddr,
    resp: SocketAddr,
}

/// What the attackers have seen.
#[derive(Default)]
struct Tally {
    /// Connections that were made.
    connected: AtomicU64,
    /// … that the server ended.
    cut: AtomicU64,
    /// Wrong keys that were refused; and requests of a flood that were answered.
    refused: AtomicU64,
    answered: AtomicU64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The attackers: says `ready` when all are connected, and a line when it is told to end.
fn attack(what: &str, target: Target, count: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tally = Arc::new(Tally::default());
    runtime.block_on(async {
        let mut wanted = 0;
        if what == "slow" {
            for at in 0..count {
                for (address, plan) in [(target.http, HTTP_PLANS), (target.resp, RESP_PLANS)] {
                    // One after the other within a second, as from many machines: what is done each second
                    // is not to be done by all at the same moment.
                    let first = Duration::from_secs(1) * u32::try_from(at).unwrap() / u32::try_from(count).unwrap();
                    let plan = plan[at % plan.len()];
                    tokio::spawn(be_slow(address, first, plan, at, Arc::clone(&tally)));
                    wanted += 1;
                }
            }
            for at in 0..GUESSERS {
                // One after the other, so that they do not come in waves.
                let first = Duration::from_secs(1) * at / WRONG_KEYS;
                tokio::spawn(guess(target.http, first, at % 2 == 0, http_guess, Arc::clone(&tally)));
                tokio::spawn(guess(target.resp, first, false, resp_guess, Arc::clone(&tally)));
            }
        } else {
            let is_http = what == "flood-HTTP";
            for at in 0..count {
                let address = if is_http { target.http } else { target.resp };
                tokio::spawn(ask_at_once(address, is_http, at, Arc::clone(&tally)));
                wanted += 1;
            }
        }
        while tally.connected.load(Ordering::Relaxed) < wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(SETTLE).await;
        let refused_before = tally.refused.load(Ordering::Relaxed);
        let began = Instant::now();
        println!("ready");
        // On a thread: it waits for the other process.
        tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()))
            .await
            .unwrap()
            .unwrap();
        let Tally { connected, cut, refused, answered } = &*tally;
        let [connected, cut, refused, answered] =
            [connected, cut, refused, answered].map(|count| count.load(Ordering::Relaxed));
        if what == "slow" {
            let refused = refused - refused_before;
            let a_second = refused as f64 / began.elapsed().as_secs_f64();
            println!(
                "{connected} connections, {cut} of them cut, {a_second:.0} wrong keys a second refused"
            );
        } else {
            println!("{answered} requests answered");
        }
    });
}

/// How an attacker goes about it.
#[derive(Clone, Copy)]
enum Plan {
    /// Says nothing.
    Silent,
    /// Sends this, and then a byte a second.
    Drip(&'static str),
    /// Sends this and so many bytes more, of more that it announced, and then nothing.
    Half(&'static str, usize),
    /// Sends this a hundred times, and then once a second, and reads no answer. (It would take fourteen
    /// thousand answers to fill the buffers of the system on the way: that is a flood, and not slow.)
    Deaf(&'static str),
}

const HTTP_PLANS: [Plan; 4] = [
    Plan::Silent,
    Plan::Drip("GET /wechat/token?type=access_token HTTP/1.1\r\nhost: "),
    Plan::Half(
        "POST /wechat/token/forcerefresh HTTP/1.1\r\nhost: x\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: 8000\r\n\r\n",
        4_000,
    ),
    Plan::Deaf("GET /wechat/token?type=access_token&secret=wrong HTTP/1.1\r\nhost: x\r\n\r\n"),
];

const RESP_PLANS: [Plan; 4] = [
    Plan::Silent,
    Plan::Drip("*2\r\n$4\r\nAUTH\r\n$16384\r\n"),
    Plan::Half("*2\r\n$4\r\nAUTH\r\n$16384\r\n", 16_000),
    Plan::Deaf("GET access_token\r\n"),
];

/// A connection from one of a few hundred addresses.
async fn connect(address: SocketAddr, at: usize) -> std::io::Result<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Small, so that one that reads nothing leaves what it is owed with the server.
    socket.set_recv_buffer_size(4_096)?;
    let [high, low] = u16::try_from(at % 400 + 256).unwrap().to_be_bytes();
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 9, high, low), 0)))?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One attacker; when it is cut it comes back.
async fn be_slow(address: SocketAddr, first: Duration, plan: Plan, at: usize, tally: Arc<Tally>) {
    tokio::time::sleep(first).await;
    loop {
        let Ok(mut stream) = connect(address, at).await else {
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        add(&tally.connected);
        // An error is the end that it waits for.
        let _ = carry_out(&mut stream, plan).await;
        add(&tally.cut);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Returns when the server has ended the connection.
async fn carry_out(stream: &mut tokio::net::TcpStream, plan: Plan) -> std::io::Result<()> {
    let mut answer = [0; 512];
    match plan {
        Plan::Silent => {}
        Plan::Drip(begin) => {
            stream.write_all(begin.as_bytes()).await?;
            loop {
                stream.write_all(b"x").await?;
                let read = stream.read(&mut answer);
                match tokio::time::timeout(Duration::from_secs(1), read).await {
                    Err(_) => {}
                    Ok(_) => return Ok(()),
                }
            }
        }
        Plan::Half(begin, more) => {
            stream.write_all(begin.as_bytes()).await?;
            stream.write_all(&vec![b'x'; more]).await?;
        }
        Plan::Deaf(request) => {
            stream.write_all(request.repeat(100).as_bytes()).await?;
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                stream.write_all(request.as_bytes()).await?;
            }
        }
    }
    while stream.read(&mut answer).await? > 0 {}
    Ok(())
}

/// Guesses in turn with the others of its kind, all from one address.
async fn guess(
    address: SocketAddr,
    first: Duration,
    as_header: bool,
    request: fn(u64, bool) -> String,
    tally: Arc<Tally>,
) {
    tokio::time::sleep(first).await;
    let mut turns = tokio::time::interval(Duration::from_secs(1) * GUESSERS / WRONG_KEYS);
    let mut stream = connect(address, 1).await.unwrap();
    let mut answer = [0; 1_024];
    for number in 0_u64.. {
        turns.tick().await;
        let request = request(number, as_header);
        let mut answered = say(&mut stream, &request, &mut answer).await;
        if !answered {
            // It was closed after the guess before.
            stream = connect(address, 1).await.unwrap();
            answered = say(&mut stream, &request, &mut answer).await;
        }
        if answered {
            add(&tally.refused);
        }
    }
}

/// Whether it is answered.
async fn say(stream: &mut tokio::net::TcpStream, request: &str, answer: &mut [u8]) -> bool {
    stream.write_all(request.as_bytes()).await.is_ok()
        && matches!(stream.read(answer).await, Ok(read) if read > 0)
}

/// A guess at the request secret, as a parameter or as a header.
fn http_guess(number: u64, as_header: bool) -> String {
    let (parameter, header) = match as_header {
        true => (String::new(), format!("authorization: Bearer wrong{number}\r\n")),
        false => (format!("&secret=wrong{number}"), String::new()),
    };
    format!("GET /wechat/token?type=access_token{parameter} HTTP/1.1\r\nhost: x\r\n{header}\r\n")
}

/// A guess at the password.
fn resp_guess(number: u64, _as_header: bool) -> String {
    format!("AUTH wrong{number}\r\n")
}

/// Asks again as soon as it is answered, many questions at a time.
async fn ask_at_once(address: SocketAddr, is_http: bool, at: usize, tally: Arc<Tally>) {
    let mut stream = connect(address, at).await.unwrap();
    let mut answer = vec![0; 64 * 1_024];
    let request = match is_http {
        true => http_get(),
        false => {
            stream.write_all(format!("AUTH {PASSWORD}\r\n").as_bytes()).await.unwrap();
            stream.read_exact(&mut answer[..5]).await.unwrap();
            resp_get()
        }
    };
    add(&tally.connected);
    let ending: &[u8] = if is_http { b"}" } else { b"\r\n" };
    loop {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut have = 0;
        // The value comes in one piece with the end of its answer, and holds neither.
        while have < 100 || !answer[..have].ends_with(ending) {
            let read = stream.read(&mut answer[have..]).await.unwrap();
            assert!(read > 0, "a flood is no reason to cut");
            have += read;
        }
        add(&tally.answered);
    }
}
