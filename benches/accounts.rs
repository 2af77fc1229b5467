//! Ten thousand accounts in one process, against the stand-in for WeChat in this one: the first
//! fetches and what readers notice of them, the steady state, and accounts that live in step.
//! `cargo bench --bench accounts` (under four minutes; `ACCOUNTS=1000` for fewer)
//!
//! What is reported is the server's alone: memory and processor time by `/proc`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench reports, and may fail")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use wechat_token_server::clock::SystemClock;
use wechat_token_server::sandbox::{Account, Endpoint, Model, Settings, Upstream};

const BINARY: &str = env!("CARGO_BIN_EXE_wechat-token-server");
const PATIENCE: Duration = Duration::from_secs(60);
const LATENCY: Duration = Duration::from_millis(50);
/// How long the steady state is watched.
const STEADY: Duration = Duration::from_secs(60);
/// The life of WeChat's tokens, and when one of them is renewed: the middle of the spread.
const LIFE: u64 = 7_200;
const CYCLE: u64 = 6_675;
/// The life of those that are watched in step: due after 45 s.
const SHORT_LIFE: u64 = 60;
/// What the server is told of the time for which an old token works: less than is true, and so little
/// that it shows when each renewal is due.
const OVERLAP: u64 = 1;
/// Between two questions of a reader.
const READ_PAUSE: Duration = Duration::from_millis(1);
/// Linux counts processor time in these, whatever its timer does.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() {
    // `cargo test --benches` runs this too; then there is nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let accounts = std::env::var("ACCOUNTS").map_or(10_000, |text| text.parse().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    println!("{accounts} accounts, the upstream answers after {LATENCY:?}");
    runtime.block_on(as_after_days(accounts));
    runtime.block_on(together(accounts));
    runtime.block_on(in_step(accounts));
}

/// As after days of service: the first lives differ, so that the renewals come evenly.
async fn as_after_days(accounts: usize) {
    let bench = Bench::start(accounts, LIFE).await;
    println!("\nfirst fetches, the tokens then due evenly over {CYCLE} s:");
    let drawing = tokio::spawn(draw_lives(bench.upstream.clone()));
    bench.first_fetches().await;
    drawing.abort();
    bench.upstream.set(|settings| settings.lifetime = Duration::from_secs(LIFE));
    bench.read_in_calm().await;
    bench.report_due_times(0, CYCLE);
    bench.steady_state().await;
    bench.stop().await;
}

/// As after the first start: all tokens have the same life, and were fetched together.
async fn together(accounts: usize) {
    let bench = Bench::start(accounts, LIFE).await;
    println!("\nfirst fetches, all tokens with a life of {LIFE} s:");
    bench.first_fetches().await;
    bench.report_due_times(CYCLE - 110, CYCLE + 90);
    bench.stop().await;
}

/// The same with a life so short that the renewals can be watched.
async fn in_step(accounts: usize) {
    let bench = Bench::start(accounts, SHORT_LIFE).await;
    println!("\nfirst fetches, all tokens with a life of {SHORT_LIFE} s:");
    bench.first_fetches().await;
    bench.report_due_times(SHORT_LIFE / 2, SHORT_LIFE - 10);
    bench.renewals_over_time(Duration::from_secs(2 * SHORT_LIFE - 20)).await;
    bench.stop().await;
}

/// Draws the lives so that the renewals are due at any moment of a cycle.
async fn draw_lives(upstream: Upstream) {
    let mut dice = fastrand::Rng::with_seed(1);
    loop {
        let life = Duration::from_secs(dice.u64(30..LIFE));
        upstream.set(|settings| settings.lifetime = life);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A server with its upstream.
struct Bench {
    accounts: usize,
    upstream: Upstream,
    server: Child,
    resp: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn start(accounts: usize, life: u64) -> Bench {
        let settings = Settings {
            latency: LATENCY,
            lifetime: Duration::from_secs(life),
            ..Settings::default()
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let accounts_of_wechat = (0..accounts).map(|n| Account::new(appid(n), secret(n)));
        let model = Model::new(settings, accounts_of_wechat, 1);
        let upstream = Upstream::start(listener, model, SystemClock::shared()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (http, resp) = (free_address(), free_address());
        let config = dir.path().join("config.ron");
        let text = config_text(accounts, upstream.address(), dir.path(), http, resp);
        std::fs::write(&config, text).unwrap();
        let server = Command::new(BINARY)
            .arg("--config")
            .arg(&config)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Bench { accounts, upstream, server, resp, _dir: dir }
    }

    /// Waits until every account has its token, while somebody reads those that are there.
    async fn first_fetches(&self) {
        let begin = Instant::now();
        let (accounts, resp) = (self.accounts, self.resp);
        let done = AtomicBool::new(false);
        let (latencies, took) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| read_until(resp, accounts, &done));
            let mut client = Client::connect(resp);
            while client.live_tokens() < accounts {
                assert!(begin.elapsed() < PATIENCE, "{} tokens", client.live_tokens());
                sleep(Duration::from_millis(50));
            }
            let took = begin.elapsed();
            done.store(true, Ordering::Relaxed);
            (reader.join().unwrap(), took)
        });
        println!("  exec to the last token: {:.1} s", took.as_secs_f64());
        println!("  requests under way at once: {} at most", self.upstream.most_under_way());
        println!("  requests: {}", self.upstream.calls(Endpoint::Token));
        println!("  {:.2} s of processor time", self.processor_time());
        report_latencies("GET meanwhile", latencies);
    }

    /// What a reader sees when nothing is fetched.
    async fn read_in_calm(&self) {
        let done = AtomicBool::new(false);
        let latencies = std::thread::scope(|scope| {
            let reader = scope.spawn(|| read_until(self.resp, self.accounts, &done));
            sleep(Duration::from_secs(5));
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap()
        });
        report_latencies("GET afterwards", latencies);
    }

    /// When the renewals are due, within this many seconds from now: a promise of a rotating token
    /// ends [`OVERLAP`] after that.
    fn report_due_times(&self, from: u64, to: u64) {
        const BARS: u64 = 20;
        let mut client = Client::connect(self.resp);
        let width = (to - from) * 1_000 / BARS;
        let mut bars = BTreeMap::new();
        for n in 0..self.accounts {
            let promised = u64::try_from(client.number(&format!("PTTL {}", name(n)))).unwrap_or(0);
            let due = promised.saturating_sub(OVERLAP * 1_000);
            *bars.entry(due.saturating_sub(from * 1_000) / width).or_insert(0) += 1;
        }
        println!("  renewals due, by seconds from now:");
        for (at, count) in bars {
            let begin = from as f64 + (at * width) as f64 / 1e3;
            println!("  {begin:>8.1}: {count:>5} {}", "*".repeat(count * 60 / self.accounts));
        }
    }

    async fn steady_state(&self) {
        println!("steady state:");
        let (renewals, processor) = (self.upstream.calls(Endpoint::Token), self.processor_time());
        let begin = Instant::now();
        tokio::time::sleep(STEADY).await;
        let seconds = begin.elapsed().as_secs_f64();
        let renewals = self.upstream.calls(Endpoint::Token) - renewals;
        let used = self.processor_time() - processor;
        println!("  renewals: {:.2} a second", renewals as f64 / seconds);
        println!("  processor: {:.2} % of one core over {seconds:.0} s", 100.0 * used / seconds);
        println!(
            "  resident memory: {}, at its peak {}",
            self.status("VmRSS:"),
            self.status("VmHWM:")
        );
    }

    async fn renewals_over_time(&self, watched: Duration) {
        println!("renewals a second, in spans of 2 s:");
        let span = Duration::from_secs(2);
        let begin = Instant::now();
        let (mut seen, processor) = (self.upstream.calls(Endpoint::Token), self.processor_time());
        let first = seen;
        let mut line = String::from(" ");
        while begin.elapsed() < watched {
            tokio::time::sleep(span).await;
            let calls = self.upstream.calls(Endpoint::Token);
            let _ = write!(line, " {}", (calls - seen) / span.as_secs());
            seen = calls;
        }
        println!("{line}");
        let used = self.processor_time() - processor;
        println!("  {:.0} us of processor time per renewal", 1e6 * used / (seen - first) as f64);
        println!("  requests under way at once: {} at most", self.upstream.most_under_way());
        println!(
            "  resident memory: {}, at its peak {}",
            self.status("VmRSS:"),
            self.status("VmHWM:")
        );
    }

    async fn stop(mut self) {
        let pid = self.server.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.server.wait().unwrap().success());
        self.upstream.stop().await;
    }

    /// The seconds that all threads of the server have used.
    fn processor_time(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.server.id())).unwrap();
        // After the name, which may hold spaces; utime and stime are the 14th and 15th field.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
        (ticks(11) + ticks(12)) / TICKS_PER_SECOND
    }

    fn status(&self, field: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line[field.len()..].trim().to_owned()
    }
}

fn name(n: usize) -> String {
    format!("account-{n}")
}

fn appid(n: usize) -> String {
    format!("wxbench{n:09}")
}

fn secret(n: usize) -> String {
    format!("benchsecret{n:021}")
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn config_text(
    accounts: usize,
    upstream: SocketAddr,
    dir: &Path,
    http: SocketAddr,
    resp: SocketAddr,
) -> String {
    let mut text = format!(
        r#"(
    http: (bind: "{http}"), resp: (bind: "{resp}"), store: (path: {:?}),
    request_secret: "bench-request-secret", refresh: (overlap: "{OVERLAP}s"),
    token_sources: {{"#,
        dir.join("store").display().to_string()
    );
    for n in 0..accounts {
        let (name, appid, secret) = (name(n), appid(n), secret(n));
        let _ = write!(
            text,
            r#"
        "{name}": (
            url: "http://{upstream}/cgi-bin/token",
            args: {{"grant_type": "client_credential", "appid": "{appid}", "secret": "{secret}"}},
        ),"#
        );
    }
    text + "\n    },\n)\n"
}

/// Speaks as much RESP as is needed here.
struct Client {
    stream: BufReader<TcpStream>,
    line: String,
}

impl Client {
    /// Tries until the server listens.
    fn connect(resp: SocketAddr) -> Client {
        let begin = Instant::now();
        loop {
            match TcpStream::connect(resp) {
                Ok(stream) => {
                    stream.set_nodelay(true).unwrap();
                    return Client { stream: BufReader::new(stream), line: String::new() };
                }
                Err(error) => assert!(begin.elapsed() < PATIENCE, "nobody listens: {error}"),
            }
            sleep(Duration::from_millis(1));
        }
    }

    /// Sends a command; the first line of its reply, without its end.
    fn ask(&mut self, command: &str) -> &str {
        self.stream.get_mut().write_all(format!("{command}\r\n").as_bytes()).unwrap();
        self.line.clear();
        self.stream.read_line(&mut self.line).unwrap();
        self.line.trim_end()
    }

    fn number(&mut self, command: &str) -> i64 {
        self.ask(command).strip_prefix(':').unwrap().parse().unwrap()
    }

    fn live_tokens(&mut self) -> usize {
        usize::try_from(self.number("DBSIZE")).unwrap()
    }

    /// Reads a token; whether there is one.
    fn get(&mut self, source: &str) -> bool {
        let length: i64 =
            self.ask(&format!("GET {source}")).strip_prefix('$').unwrap().parse().unwrap();
        let Ok(length) = usize::try_from(length) else { return false };
        let mut value = vec![0; length + 2];
        self.stream.read_exact(&mut value).unwrap();
        true
    }
}

/// Reads one account's token after the other; how long each answer with a token took.
fn read_until(resp: SocketAddr, accounts: usize, done: &AtomicBool) -> Vec<Duration> {
    let mut client = Client::connect(resp);
    let mut latencies = Vec::new();
    for n in (0..accounts).cycle() {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let begin = Instant::now();
        if client.get(&name(n)) {
            latencies.push(begin.elapsed());
        }
        sleep(READ_PAUSE);
    }
    latencies
}

fn report_latencies(what: &str, mut latencies: Vec<Duration>) {
    latencies.sort();
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    println!(
        "  {what}: p50 {:?}, p99 {:?}, slowest {:?} of {}",
        at(0.5),
        at(0.99),
        at(1.0),
        latencies.len()
    );
}
