//! Starting: from exec to the first cached token answered on RESP with the upstream down, in the
//! median of 20 starts; then the memory of an idle server and the size of the binary.
//! `cargo bench --bench start`
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench reports, and may fail")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use wechat_token_server::clock::SystemClock;
use wechat_token_server::sandbox::{Account, Model, Settings, Upstream};

const BINARY: &str = env!("CARGO_BIN_EXE_wechat-token-server");
const STARTS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    // `cargo test --benches` runs this too; then there is nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (http, resp) = (free_address(), free_address());
    let upstream = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let model = Model::new(Settings::default(), [Account::default()], 1);
        Upstream::start(listener, model, SystemClock::shared()).unwrap()
    });
    let config = dir.path().join("config.ron");
    std::fs::write(&config, config_text(upstream.address(), dir.path(), http, resp)).unwrap();

    let first = start(&config);
    first_token(resp);
    stop(first);
    runtime.block_on(upstream.stop());

    let mut starts: Vec<Duration> = (0..STARTS)
        .map(|_| {
            let begin = Instant::now();
            let server = start(&config);
            first_token(resp);
            let took = begin.elapsed();
            stop(server);
            took
        })
        .collect();
    starts.sort();
    println!("exec to first cached token on RESP, upstream down, {STARTS} starts:");
    println!(
        "  median {:?}, fastest {:?}, slowest {:?}",
        starts[STARTS / 2],
        starts[0],
        starts[STARTS - 1]
    );

    let idle = start(&config);
    first_token(resp);
    std::thread::sleep(Duration::from_secs(5));
    println!("idle resident memory: {}", status(&idle, "VmRSS:"));
    stop(idle);
    println!("binary: {} bytes", std::fs::metadata(BINARY).unwrap().len());
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn config_text(upstream: SocketAddr, dir: &Path, http: SocketAddr, resp: SocketAddr) -> String {
    let (appid, secret) = (Account::SANDBOX_APPID, Account::SANDBOX_SECRET);
    format!(
        r#"(
    http: (bind: "{http}"), resp: (bind: "{resp}"), store: (path: {:?}),
    request_secret: "bench-request-secret",
    token_sources: {{"access_token": (
        url: "http://{upstream}/cgi-bin/token",
        args: {{"grant_type": "client_credential", "appid": "{appid}", "secret": "{secret}"}},
    )}},
)"#,
        dir.join("store").display().to_string()
    )
}

fn start(config: &Path) -> Child {
    Command::new(BINARY).arg("--config").arg(config).stderr(Stdio::null()).spawn().unwrap()
}

/// Asks until a token is answered.
fn first_token(resp: SocketAddr) {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if let Ok(mut stream) = TcpStream::connect(resp) {
            stream.write_all(b"GET access_token\r\n").unwrap();
            let mut answer = [0; 512];
            let length = stream.read(&mut answer).unwrap_or(0);
            if length > 5 && answer[0] == b'$' && answer[1] != b'-' {
                return;
            }
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    panic!("no token within {PATIENCE:?}");
}

fn stop(mut server: Child) {
    let pid = server.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(server.wait().unwrap().success());
}

fn status(server: &Child, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line[field.len()..].trim().to_owned()
}
