//! From publication to the message at a thousand subscribers, side by side with redis-server (which
//! has to be installed). `cargo bench --bench subscribers` (two minutes; `SUBSCRIBERS`, `ROUNDS` and
//! `PUBLICATIONS` change the scale). Ends with 1 if a requirement is not met.
//!
//! The subscribers are in a process of their own, one for each server, both of this same program. Each takes
//! the time when it has a message in full. The publisher is here: for redis-server it takes the time
//! before it writes PUBLISH to its socket, for ours before it puts the next token in the snapshot, which
//! the listener in this process serves from. A publication follows when all have the one before.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench reports, and may fail")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use wechat_token_server::access::Access;
use wechat_token_server::clock::{SharedClock, SystemClock};
use wechat_token_server::config::{RespConfig, Writes};
use wechat_token_server::refresh::queue;
use wechat_token_server::resp::{RespParts, spawn};
use wechat_token_server::shutdown::Drain;
use wechat_token_server::snapshot::{Published, Publisher, snapshot};
use wechat_token_server::status::Status;
use wechat_token_server::token::{Generation, Secret, SourceIdentity, SourceName, TokenRecord};

const SOURCE: &str = "access_token";
const CHANNEL: &str = "token:access_token";
/// The length of WeChat's tokens.
const VALUE_BYTES: usize = 136;
/// The generation before the first publication. All that are published have as many digits.
const FIRST: u64 = 1_800_000_000;
const PATIENCE: Duration = Duration::from_secs(20);
/// Between the last message of a publication and the next one: longer than anybody spins.
const PAUSE: Duration = Duration::from_millis(5);
/// Publications that are not counted, before those that are.
const WARM_UP: usize = 10;
/// The first argument of the program when it is to be the subscribers; then come address and count.
const SUBSCRIBE: &str = "--subscribe";
/// Our p99 as a ratio to redis-server's, at most.
const MOST_P99: f64 = 1.0;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, address, count] = &arguments[..]
        && first == SUBSCRIBE
    {
        subscribe(address.parse().unwrap(), count.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    // `cargo test --benches` runs this too; then there is nothing to measure.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let subscribers = setting("SUBSCRIBERS", 1_000);
    let rounds = setting("ROUNDS", 5);
    let publications = setting("PUBLICATIONS", 200);
    // What is set here is handed down to the others.
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    println!(
        "{subscribers} subscribers, {rounds} rounds of {publications} publications; load average {}",
        load.trim()
    );

    let mut redis = Redis::start();
    let mut redis_audience = match Audience::gather(redis.address, subscribers) {
        Ok(audience) => audience,
        Err(answer) => panic!("redis-server answers SUBSCRIBE with {answer}"),
    };
    let ours = Ours::start();
    let mut our_audience = match Audience::gather(ours.address, subscribers) {
        Ok(audience) => Some(audience),
        Err(answer) => {
            println!("ours answers SUBSCRIBE with {answer:?}: it is left out");
            None
        }
    };

    let (mut our_rounds, mut redis_rounds) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        // Who goes first takes turns: a machine that slows down slows both.
        for is_ours in [round % 2 == 1, round % 2 == 0] {
            if !is_ours {
                let figures =
                    measure(&mut redis_audience, publications, |number| redis.publish(number));
                println!("round {round}, redis: {figures}");
                redis_rounds.push(figures);
            } else if let Some(audience) = &mut our_audience {
                let figures = measure(audience, publications, |number| ours.publish(number));
                println!("round {round}, ours:  {figures}");
                our_rounds.push(figures);
            }
        }
    }
    if judge(&our_rounds, &redis_rounds) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::cast_possible_truncation, reason = "a number a person wrote")]
fn setting(name: &str, default: u64) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap()) as usize
}

// --- figures

/// What one round showed, in microseconds.
struct Figures {
    /// Of all messages.
    p50: f64,
    p99: f64,
    /// Of the last message of each publication.
    last_p50: f64,
    last_p99: f64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Figures { p50, p99, last_p50, last_p99 } = self;
        write!(
            f,
            "p50 {p50:.0} us, p99 {p99:.0}; the last one p50 {last_p50:.0}, p99 {last_p99:.0}"
        )
    }
}

/// Publishes so often, each time when all have the message before.
fn measure(
    audience: &mut Audience,
    publications: usize,
    mut publish: impl FnMut(u64) -> u64,
) -> Figures {
    let (mut all, mut last) = (Vec::new(), Vec::new());
    for turn in 0..WARM_UP + publications {
        sleep(PAUSE);
        let begin = publish(audience.next);
        let took: Vec<f64> =
            audience.arrivals().iter().map(|at| at.saturating_sub(begin) as f64 / 1e3).collect();
        if turn >= WARM_UP {
            last.push(took.iter().copied().fold(0.0, f64::max));
            all.extend(took);
        }
    }
    all.sort_by(f64::total_cmp);
    last.sort_by(f64::total_cmp);
    Figures {
        p50: part(&all, 0.5),
        p99: part(&all, 0.99),
        last_p50: part(&last, 0.5),
        last_p99: part(&last, 0.99),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
fn part(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    part(&values, 0.5)
}

/// A name, the figure, and whether something is required of it.
type Row = (&'static str, fn(&Figures) -> f64, bool);

/// Prints the medians of the rounds beside what is required; whether all of it is met.
fn judge(ours: &[Figures], redis: &[Figures]) -> bool {
    let rows: [Row; 4] = [
        ("p50 of all messages", |f| f.p50, false),
        ("p99 of all messages", |f| f.p99, true),
        ("p50 of the last message", |f| f.last_p50, false),
        ("p99 of the last message", |f| f.last_p99, true),
    ];
    println!("\nmedians of the rounds, us      ours    redis   ratio (median of the rounds')");
    let mut all_met = true;
    for (name, of, required) in rows {
        let theirs = median(redis.iter().map(of).collect());
        if ours.is_empty() {
            println!("  {name:<24} {:>8} {theirs:>8.0}", "-");
            continue;
        }
        let mine = median(ours.iter().map(of).collect());
        let ratio =
            median(ours.iter().zip(redis).map(|(mine, theirs)| of(mine) / of(theirs)).collect());
        let met = !required || ratio <= MOST_P99;
        all_met &= met;
        let verdict = match (required, met) {
            (false, _) => String::new(),
            (true, true) => format!("   at most {MOST_P99:.2}: yes"),
            (true, false) => format!("   at most {MOST_P99:.2}: NO"),
        };
        println!("  {name:<24} {mine:>8.0} {theirs:>8.0} {ratio:>7.2}{verdict}");
    }
    all_met
}

// --- the two that publish

/// redis-server, and a connection that publishes; killed when dropped.
struct Redis {
    process: Child,
    address: SocketAddr,
    stream: TcpStream,
    _dir: tempfile::TempDir,
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended, and nothing of it is kept.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Redis {
    fn start() -> Redis {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        let begin = Instant::now();
        let stream = loop {
            match TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(error) => assert!(begin.elapsed() < PATIENCE, "redis-server: {error}"),
            }
            sleep(Duration::from_millis(5));
        };
        stream.set_nodelay(true).unwrap();
        Redis { process, address, stream, _dir: dir }
    }

    /// Publishes the number; when.
    fn publish(&mut self, number: u64) -> u64 {
        let number = number.to_string();
        let (channel, length) = (CHANNEL.len(), number.len());
        let request =
            format!("*3\r\n$7\r\nPUBLISH\r\n${channel}\r\n{CHANNEL}\r\n${length}\r\n{number}\r\n");
        let begin = nanoseconds();
        self.stream.write_all(request.as_bytes()).unwrap();
        // How many subscribers there were: not of interest, but not to be left in the socket.
        let mut answer = String::new();
        BufReader::new(&self.stream).read_line(&mut answer).unwrap();
        assert!(answer.starts_with(':'), "{answer}");
        begin
    }
}

/// Our listener in this process, on its thread, and a runtime like that of the server.
struct Ours {
    address: SocketAddr,
    /// Serves as long as it lives.
    _runtime: Runtime,
    /// To the task that publishes, as a refresher does: inside the runtime.
    wanted: mpsc::Sender<u64>,
    published: std::sync::Mutex<mpsc::Receiver<u64>>,
}

impl Ours {
    fn start() -> Ours {
        let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
        let (publishers, reader) = snapshot([SourceName::parse(SOURCE).unwrap()]);
        let [publisher] = publishers.try_into().unwrap();
        let (wanted, wishes) = mpsc::channel(1);
        let (done, published) = mpsc::channel(1);
        let address = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let clock = SystemClock::shared();
            publisher.publish(token(&clock, FIRST));
            let config = RespConfig {
                bind: address,
                password: None,
                max_connections: 10_000,
                max_connections_per_address: 10_000,
                idle_timeout: Duration::ZERO,
                writes: Writes::Refuse,
                notify: true,
                tls: None,
            };
            let (_, refresh) = queue([]);
            let secret = Secret::new("request-secret");
            let access = Arc::new(Access::new(secret, None, Vec::new(), Arc::clone(&clock)));
            let status = Status::apart(Vec::new(), &reader, &access, &clock);
            let own = Arc::clone(&clock);
            let parts = RespParts { reader, refresh, access, status, clock: own, tls: None };
            spawn(listener, config, parts, &Drain::new()).unwrap();
            tokio::spawn(refresher(publisher, clock, wishes, done));
            address
        });
        Ours { address, _runtime: runtime, wanted, published: published.into() }
    }

    /// Publishes a token of this generation; when.
    fn publish(&self, number: u64) -> u64 {
        self.wanted.blocking_send(number).unwrap();
        self.published.lock().unwrap().blocking_recv().unwrap()
    }
}

/// Publishes on demand.
async fn refresher(
    publisher: Publisher,
    clock: SharedClock,
    mut wishes: mpsc::Receiver<u64>,
    done: mpsc::Sender<u64>,
) {
    while let Some(number) = wishes.recv().await {
        let token = token(&clock, number);
        let begin = nanoseconds();
        publisher.publish(token);
        done.send(begin).await.unwrap();
    }
}

fn token(clock: &SharedClock, number: u64) -> Arc<Published> {
    let (now, life) = (clock.now(), Duration::from_secs(7_200));
    Arc::new(Published {
        record: TokenRecord {
            value: Secret::new(format!("{number:0VALUE_BYTES$}")),
            fetched_at: now.wall,
            expires_at: now.wall + life,
            generation: Generation(number),
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

// --- the subscribers

/// The process of the subscribers, as seen from the publisher; killed when dropped.
struct Audience {
    process: Child,
    words: BufReader<ChildStdout>,
    subscribers: usize,
    /// The number of the next publication.
    next: u64,
}

impl Drop for Audience {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Audience {
    /// Returns when all have subscribed.
    ///
    /// # Errors
    /// What the server answered instead.
    fn gather(address: SocketAddr, subscribers: usize) -> Result<Audience, String> {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([SUBSCRIBE, &address.to_string(), &subscribers.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let words = BufReader::new(process.stdout.take().unwrap());
        let mut audience = Audience { process, words, subscribers, next: FIRST + 1 };
        let mut line = String::new();
        audience.words.read_line(&mut line).unwrap();
        match line.trim_end() {
            "ready" => Ok(audience),
            "" => panic!("the subscribers ended"),
            other => Err(other.to_owned()),
        }
    }

    /// When each of them had the message.
    fn arrivals(&mut self) -> Vec<u64> {
        self.next += 1;
        let mut bytes = vec![0; self.subscribers * size_of::<u64>()];
        self.words.read_exact(&mut bytes).expect("the subscribers say when they were told");
        bytes.as_chunks().0.iter().map(|at| u64::from_le_bytes(*at)).collect()
    }
}

/// The subscribers: one thread, as many connections. Says `ready` (or what the server answered
/// instead) on standard output, and then, for each publication, when each one had the message.
fn subscribe(address: SocketAddr, count: usize) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (told, mut arrivals) = mpsc::unbounded_channel();
        let mut output = std::io::stdout();
        let confirmation =
            format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{CHANNEL}\r\n:1\r\n", CHANNEL.len());
        for _ in 0..count {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let request = format!("*2\r\n$9\r\nSUBSCRIBE\r\n${}\r\n{CHANNEL}\r\n", CHANNEL.len());
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = answer(&mut stream, confirmation.len()).await;
            if answer != confirmation.as_bytes() {
                writeln!(output, "{}", answer.trim_ascii_end().escape_ascii()).unwrap();
                return;
            }
            tokio::spawn(listen(stream, told.clone()));
        }
        writeln!(output, "ready").unwrap();
        loop {
            let mut bytes = Vec::with_capacity(count * size_of::<u64>());
            for _ in 0..count {
                // Its own time, not the one at which it is read from here.
                let at: u64 = arrivals.recv().await.unwrap();
                bytes.extend(at.to_le_bytes());
            }
            if output.write_all(&bytes).and_then(|()| output.flush()).is_err() {
                return; // the publisher is done
            }
        }
    });
}

/// So many bytes, or a line that begins with `-`.
async fn answer(stream: &mut tokio::net::TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < length && !(bytes.first() == Some(&b'-') && bytes.ends_with(b"\r\n")) {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut bytes)).await;
        assert!(read.expect("an answer in time").unwrap() > 0, "the server hung up");
    }
    bytes
}

/// One subscriber: every message has to come, in order and once.
async fn listen(mut stream: tokio::net::TcpStream, told: mpsc::UnboundedSender<u64>) {
    let mut bytes = [0; 256];
    for number in FIRST + 1.. {
        let number = number.to_string();
        let (channel, length) = (CHANNEL.len(), number.len());
        let expected =
            format!("*3\r\n$7\r\nmessage\r\n${channel}\r\n{CHANNEL}\r\n${length}\r\n{number}\r\n");
        let mut have = 0;
        while have < expected.len() {
            let read = stream.read(&mut bytes[have..]).await.unwrap_or(0);
            if read == 0 {
                std::process::exit(0); // the server is gone: so is the publisher
            }
            have += read;
        }
        let at = nanoseconds();
        let got = &bytes[..have];
        if got != expected.as_bytes() {
            eprintln!("expected {expected:?}, got {}", got.escape_ascii());
            std::process::exit(1);
        }
        // The publisher is done where nobody takes it.
        let _ = told.send(at);
    }
}

/// The monotonic clock, by the same zero in every process of this bench: the wall clock is read once in
/// each, when it starts.
fn nanoseconds() -> u64 {
    static ZERO: std::sync::OnceLock<(u64, Instant)> = std::sync::OnceLock::new();
    let (wall, then) = ZERO.get_or_init(|| {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        (u64::try_from(wall.as_nanos()).unwrap(), Instant::now())
    });
    wall + u64::try_from(then.elapsed().as_nanos()).unwrap()
}
