//! What ten thousand Redis connections cost: resident memory of the server for each of them, right
//! after one PING on each and after fifteen idle seconds, side by side with redis-server (which has
//! to be installed). `cargo bench --bench connections` (two minutes; `CONNECTIONS` and `ROUNDS` change
//! the scale). Ends with 1 if a requirement is not met.
//!
//! Each round starts both servers anew, since memory once touched tends to stay. What the kernel keeps for a
//! socket is in neither figure.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench reports, and may fail")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use wechat_token_server::clock::SystemClock;
use wechat_token_server::sandbox::{Account, Model, Settings, Upstream};

const BINARY: &str = env!("CARGO_BIN_EXE_wechat-token-server");
const REDIS: &str = "redis-server";
const PATIENCE: Duration = Duration::from_secs(30);
/// Redis gives buffers back in its cron, in steps: a query buffer after two idle seconds, a reply
/// buffer after five.
const IDLE: Duration = Duration::from_secs(15);
/// Descriptors that a process needs beside its connections.
const OTHER_DESCRIPTORS: usize = 200;
/// After the PING: our memory as a part of redis-server's, at most.
const MOST_AFTER_PING: f64 = 0.5;
/// When idle: by how many bytes a connection more than redis-server, at most.
const MOST_MORE_WHEN_IDLE: f64 = 1_024.0;

fn main() -> ExitCode {
    // `cargo test --benches` runs this too; then there is nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let count = setting("CONNECTIONS", 10_000);
    let rounds = setting("ROUNDS", 3);
    // What is set here is handed down to the servers.
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let needed = (count + OTHER_DESCRIPTORS) as u64;
    assert!(limit >= needed, "{needed} descriptors are needed, {limit} allowed: see ulimit -Hn");
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    println!("{count} connections, {rounds} rounds; load average {}", load.trim());

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let upstream = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let model = Model::new(Settings::default(), [Account::default()], 1);
        Upstream::start(listener, model, SystemClock::shared()).unwrap()
    });
    let (mut ours, mut redis) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        for (name, figures) in [("ours", &mut ours), ("redis", &mut redis)] {
            let dir = tempfile::tempdir().unwrap();
            let server = match name {
                "ours" => Server::ours(count, dir.path(), upstream.address()),
                _ => Server::redis(count, dir.path()),
            };
            let cost = server.cost(count);
            println!(
                "round {round}, {name}: {:.0} bytes a connection after the PING, {:.0} when idle",
                cost.after_ping, cost.idle
            );
            figures.push(cost);
        }
    }
    runtime.block_on(upstream.stop());
    if judge(&ours, &redis) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::cast_possible_truncation, reason = "a number a person wrote")]
fn setting(name: &str, default: u64) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap()) as usize
}

/// Bytes of resident memory for each connection.
struct Cost {
    after_ping: f64,
    idle: f64,
}

/// Prints the medians beside what is required; whether all of it is met.
fn judge(ours: &[Cost], redis: &[Cost]) -> bool {
    let (our_ping, redis_ping) = (median(ours, |c| c.after_ping), median(redis, |c| c.after_ping));
    let (our_idle, redis_idle) = (median(ours, |c| c.idle), median(redis, |c| c.idle));
    let small = our_ping <= redis_ping * MOST_AFTER_PING;
    let idle = our_idle <= redis_idle + MOST_MORE_WHEN_IDLE;
    println!("\nmedians, bytes a connection     ours    redis");
    println!(
        "  right after one PING      {our_ping:>8.0} {redis_ping:>8.0}   ratio {:.2}, at most {MOST_AFTER_PING}: {}",
        our_ping / redis_ping,
        yes(small)
    );
    println!(
        "  after {} idle seconds     {our_idle:>8.0} {redis_idle:>8.0}   {:+.0}, at most +{MOST_MORE_WHEN_IDLE}: {}",
        IDLE.as_secs(),
        our_idle - redis_idle,
        yes(idle)
    );
    small && idle
}

fn yes(met: bool) -> &'static str {
    if met { "yes" } else { "NO" }
}

fn median(costs: &[Cost], of: fn(&Cost) -> f64) -> f64 {
    let mut values: Vec<f64> = costs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A running server; killed when dropped.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended, and nothing of it is kept.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn ours(connections: usize, dir: &Path, upstream: SocketAddr) -> Server {
        let (http, address) = (free_address(), free_address());
        let (appid, secret) = (Account::SANDBOX_APPID, Account::SANDBOX_SECRET);
        let text = format!(
            r#"(
    http: (bind: "{http}", max_connections: 16), // the others' share of the descriptors
    store: (path: {:?}),
    resp: (bind: "{address}", max_connections: {}),
    request_secret: "bench-request-secret",
    token_sources: {{"access_token": (
        url: "http://{upstream}/cgi-bin/token",
        args: {{"grant_type": "client_credential", "appid": "{appid}", "secret": "{secret}"}},
    )}},
)"#,
            dir.join("store").display().to_string(),
            connections + 100
        );
        let config = dir.join("config.ron");
        std::fs::write(&config, text).unwrap();
        Server::start(Command::new(BINARY).arg("--config").arg(&config), address)
    }

    fn redis(connections: usize, dir: &Path) -> Server {
        let address = free_address();
        let mut command = Command::new(REDIS);
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
        command.args(["--save", "", "--appendonly", "no"]).arg("--dir").arg(dir);
        command.args(["--maxclients", &(connections + 100).to_string()]);
        Server::start(&mut command, address)
    }

    /// Waits until it answers.
    fn start(command: &mut Command, address: SocketAddr) -> Server {
        let name = command.get_program().to_owned();
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.unwrap_or_else(|error| panic!("{}: {error}", name.display()));
        let mut server = Server { process, address };
        let begin = Instant::now();
        while !TcpStream::connect(address).is_ok_and(|mut stream| ping(&mut stream)) {
            if let Some(status) = server.process.try_wait().unwrap() {
                panic!("{} ended: {status}", name.display());
            }
            assert!(begin.elapsed() < PATIENCE, "{} does not answer", name.display());
            sleep(Duration::from_millis(5));
        }
        server
    }

    /// Opens so many connections and measures.
    fn cost(&self, count: usize) -> Cost {
        // What is done once after the start, and not for a connection, is not to be counted.
        sleep(Duration::from_secs(2));
        let empty = self.resident();
        let mut peers: Vec<TcpStream> = (0..count).map(|_| self.connect()).collect();
        // Not together: each is answered before the next one asks, as with clients that do not know
        // of each other.
        assert!(peers.iter_mut().all(ping), "a PING was not answered");
        let pinged = self.resident();
        sleep(IDLE);
        let idle = self.resident();
        // All of them have to be there still.
        assert!(peers.iter_mut().all(ping), "a connection was lost");
        let each = |bytes: f64| (bytes - empty) / count as f64;
        Cost { after_ping: each(pinged), idle: each(idle) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Bytes of resident memory.
    fn resident(&self) -> f64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let kilobytes: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kilobytes * 1_024.0
    }
}

/// Whether a PING is answered.
fn ping(stream: &mut TcpStream) -> bool {
    const PONG: &[u8] = b"+PONG\r\n";
    let mut answer = [0; PONG.len()];
    stream.write_all(b"*1\r\n$4\r\nPING\r\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer == PONG
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
