//! The server for half an hour under everything that happens to it at once: renewals every few seconds,
//! faults of the upstream, reloads, clients of every kind on both listeners. Every answered token is
//! checked against the stand-in's rules; memory and descriptors have to stay flat. `cargo bench --bench
//! soak` (`SOAK_MINUTES` changes the length, 30 by default). Ends with 1 if anything is wrong.
//!
//! The upstream and the clients are in this process, the server is the release binary in its own.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench reports, and may fail")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

mod clients;
mod server;
mod trouble;
mod truth;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wechat_token_server::clock::SystemClock;
use wechat_token_server::sandbox::{Account, Endpoint, Model, Settings, Upstream};

use server::{Process, Server};
use truth::{SOURCES, Truth, appid, secret};

/// How often the server is looked at.
const EVERY: Duration = Duration::from_secs(30);
/// The life of a token: the server renews it after three quarters.
const LIFE: Duration = Duration::from_secs(20);
/// How long a replaced token works: more than the server is told.
const OVERLAP: Duration = Duration::from_secs(3);
/// How much memory may have grown over the second half by its regression line, in bytes: noise, in a
/// server that holds ten times as much.
const MOST_GROWTH: f64 = 1024.0 * 1024.0;
/// … and how many descriptors: clients come and go all the time.
const MOST_MORE_DESCRIPTORS: f64 = 8.0;

/// What the server shows of itself at one moment.
struct Row {
    at: Duration,
    process: Process,
}

fn main() -> ExitCode {
    // `cargo test --benches` runs this too; then there is nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let minutes: f64 = std::env::var("SOAK_MINUTES").map_or(30.0, |text| text.parse().unwrap());
    let length = Duration::from_secs_f64(minutes * 60.0);
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(soak(length))
}

async fn soak(length: Duration) -> ExitCode {
    let upstream = upstream().await;
    let truth = Arc::new(Truth::new(upstream.clone()));
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), upstream.address()).await;
    println!(
        "{} s on {} sources; rows every {} s",
        length.as_secs(),
        SOURCES.len(),
        EVERY.as_secs()
    );
    clients::spawn_all(&server, &truth);
    trouble::spawn_all(&server, &upstream, &truth);

    println!(
        "   s   resident   peak kB  descr  threads   requests    tokens  absent  told  errors  wrong"
    );
    let begin = Instant::now();
    let mut rows = Vec::new();
    let mut next = EVERY.min(length);
    loop {
        tokio::time::sleep_until((begin + next).into()).await;
        let process = server.look();
        let at = begin.elapsed();
        println!(
            "{:>4} {:>8} kB {:>9} {:>6} {:>8} {}",
            at.as_secs(),
            process.resident / 1_024,
            process.peak / 1_024,
            process.descriptors,
            process.threads,
            truth.counts()
        );
        rows.push(Row { at, process });
        if next >= length {
            break;
        }
        next = (next + EVERY).min(length);
    }
    println!("\n{}", truth.summary());
    println!(
        "the upstream: {} fetches of tokens, {} of stable ones, {} of tickets",
        upstream.calls(Endpoint::Token),
        upstream.calls(Endpoint::StableToken),
        upstream.calls(Endpoint::Ticket)
    );
    let flat = judge(&rows);
    let right = truth.nothing_was_wrong();
    let stopped = server.stop().await;
    if !stopped {
        println!("the server did not end as it should: NO");
    }
    if flat && right && stopped { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn upstream() -> Upstream {
    let settings = Settings {
        lifetime: LIFE,
        overlap: Some(OVERLAP),
        window: Some(OVERLAP),
        ticket_grace: Some(OVERLAP),
        latency: Duration::from_millis(20),
        token_quota: None,
        stable_quota: None,
        ticket_quota: None,
        ..Settings::default()
    };
    let accounts = (0..SOURCES.len()).map(|at| Account::new(appid(at), secret(at)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let model = Model::new(settings, accounts, 1);
    Upstream::start(listener, model, SystemClock::shared()).unwrap()
}

/// Prints how memory and descriptors went over the second half; whether they stayed flat.
fn judge(rows: &[Row]) -> bool {
    let second_half = &rows[rows.len() / 2..];
    let mut all = true;
    for (name, of, most, unit) in [
        (
            "resident memory",
            (|row: &Row| row.process.resident as f64) as fn(&Row) -> f64,
            MOST_GROWTH,
            1_024.0,
        ),
        ("descriptors", |row: &Row| row.process.descriptors as f64, MOST_MORE_DESCRIPTORS, 1.0),
    ] {
        let points: Vec<(f64, f64)> =
            second_half.iter().map(|row| (row.at.as_secs_f64(), of(row))).collect();
        let slope = slope(&points);
        let span = points.last().unwrap().0 - points[0].0;
        let met = slope * span <= most;
        all &= met;
        println!(
            "{name}: {:+.2} a minute over the second half, {:+.1} in all; at most {:+.0}: {}",
            slope * 60.0 / unit,
            slope * span / unit,
            most / unit,
            if met { "yes" } else { "NO" }
        );
    }
    all
}

/// The slope of the regression line.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (mean_x, mean_y) =
        points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / count, y + p.1 / count));
    let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if variance == 0.0 { 0.0 } else { covariance / variance }
}
