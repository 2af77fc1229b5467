//! Killed again and again at random moments under load: readers over both protocols, forced refreshes,
//! rotations every few seconds. After each restart the last token that was answered is served, or a newer
//! one; every token served is one that the upstream has issued and still accepts; each start succeeds.
//!
//! `KILLS=1000 cargo test --features interop,failpoints --test it kills -- --nocapture` for the full
//! count (a quarter of an hour); `KILL_SEED=N` repeats the draws. With the feature `failpoints` two rounds in three have the
//! process abort, or wait before it is killed, at a place of the store's write.

#![allow(clippy::disallowed_methods, reason = "it measures how long a start takes")]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use wechat_token_server::clock::SystemClock;
use wechat_token_server::sandbox::{Account, Model, Settings, Upstream, Verdict};
#[cfg(feature = "failpoints")]
use wechat_token_server::store::PLACES_OF_A_WRITE;

use crate::support::{PATIENCE, Running, SECRET, binary, number, soon, try_serve};

const SOURCES: usize = 6;

fn name(at: usize) -> String {
    format!("source_{at}")
}

fn account(at: usize) -> Account {
    Account::new(format!("wx{at:014}"), "secret")
}

fn config_text(upstream: SocketAddr, dir: &Path) -> String {
    let mut sources = String::new();
    for at in 0..SOURCES {
        let _ = write!(
            sources,
            r#""{}": (url: "http://{upstream}/cgi-bin/token", args:
                {{"grant_type": "client_credential", "appid": "{}", "secret": "secret"}}),"#,
            name(at),
            account(at).appid()
        );
    }
    format!(
        r#"(http: (bind: "127.0.0.1:0"), resp: (bind: "127.0.0.1:0"), store: (path: {:?}),
            refresh: (cooldown: "0s", overlap: "12s", timeout: "1s"),
            request_secret: "{SECRET}", log: (format: "json"), token_sources: {{{sources}}})"#,
        dir.join("store").display().to_string()
    )
}

/// Which of a source's tokens a value is, counted by the upstream.
fn serial(value: &str) -> u64 {
    value.split('_').nth(1).unwrap()[1..].parse().unwrap()
}

/// The highest serial number that was answered of each source, over all restarts.
#[derive(Default)]
struct Answered {
    highest: [AtomicU64; SOURCES],
    count: AtomicU64,
    ended: AtomicBool,
}

impl Answered {
    fn note(&self, at: usize, value: &str) {
        assert!(value.starts_with(&format!("{at}_T")), "{value} is no token of source {at}");
        self.highest[at].fetch_max(serial(value) + 1, Ordering::SeqCst);
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

/// All bytes that come back; `None` if the server is dying.
async fn answer(address: SocketAddr, request: String) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    };
    tokio::time::timeout(PATIENCE, exchange).await.ok()?
}

/// A token over HTTP and the life that it is promised, in seconds. What the kill cut short is no answer.
async fn over_http(address: SocketAddr, path: &str, at: usize) -> Option<(String, u64)> {
    let target = format!("{path}?type={}&secret={SECRET}", name(at));
    let request = format!("GET {target} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n");
    let answer = answer(address, request).await?;
    let body = answer.split_once("\r\n\r\n")?.1;
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    Some((body[name(at)].as_str()?.to_owned(), body["expires_in"].as_u64()?))
}

/// A token over RESP.
async fn over_resp(address: SocketAddr, at: usize) -> Option<String> {
    let answer = answer(address, format!("GET {}\r\nQUIT\r\n", name(at))).await?;
    let whole = answer.starts_with("$1") && answer.ends_with("\r\n+OK\r\n");
    whole.then(|| answer.split("\r\n").nth(1).unwrap().to_owned())
}

/// A client that reads or forces until the server is gone.
async fn client(seed: u64, http: SocketAddr, resp: SocketAddr, answered: Arc<Answered>) {
    let mut dice = fastrand::Rng::with_seed(seed);
    while !answered.ended.load(Ordering::SeqCst) {
        let at = dice.usize(..SOURCES);
        let value = match dice.u8(..8) {
            0..3 => over_http(http, "/wechat/token", at).await.map(|answer| answer.0),
            3..5 => over_http(http, "/wechat/token/forcerefresh", at).await.map(|answer| answer.0),
            _ => over_resp(resp, at).await,
        };
        match value {
            Some(value) => answered.note(at, &value),
            None => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

/// What a round does to the server besides killing it.
#[cfg(feature = "failpoints")]
fn failpoints(dice: &mut fastrand::Rng) -> String {
    let place = PLACES_OF_A_WRITE[dice.usize(..PLACES_OF_A_WRITE.len())];
    match dice.u8(..3) {
        0 => String::new(),
        1 => format!("{place}=abort@{}", dice.u8(1..30)),
        _ => format!("{place}=delay:{}@{}-", dice.u8(1..100), dice.u8(1..10)),
    }
}

#[cfg(not(feature = "failpoints"))]
fn failpoints(_: &mut fastrand::Rng) -> String {
    String::new()
}

/// Everything served right after a start is whole, live, and not older than what was answered. (One that a
/// request has replaced whose answer the kills have eaten may be served when it is dead, but then nothing
/// is promised of it.) False if the server died by a failpoint before it had said all of it.
async fn check(case: &str, ours: &mut Running, wechat: &Upstream, answered: &Answered) -> bool {
    for at in 0..SOURCES {
        let least = answered.highest[at].load(Ordering::SeqCst);
        let over_resp = over_resp(ours.resp, at).await;
        let over_http = over_http(ours.http, "/wechat/token", at).await;
        let promise = over_http.as_ref().map_or(0, |answer| answer.1);
        let over_http = over_http.map(|answer| answer.0);
        for value in [&over_resp, &over_http].into_iter().flatten() {
            let verdict = wechat.accepts(value);
            let good = verdict.is_live() || verdict == Verdict::Replaced && promise == 0;
            assert!(good, "{case}: source {at}: {verdict:?}, {promise} s\n{}", ours.log());
            assert!(serial(value) + 1 >= least, "{case}: an older token is back\n{}", ours.log());
            answered.note(at, value);
        }
        if least > 0 && (over_resp.is_none() || over_http.is_none()) {
            let died =
                tokio::time::timeout(Duration::from_secs(1), ours.child.wait()).await.is_ok();
            assert!(died && case.contains("abort"), "{case}: {at} was lost\n{}", ours.log());
            return false;
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_under_load_no_answered_token_is_lost() {
    let (kills, seed) = (number("KILLS", 20), number("KILL_SEED", 1));
    println!("KILLS={kills} KILL_SEED={seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    // A life of some restarts, so that the schedule renews as well. What a request in a crash has replaced
    // works for longer than the requests after it are held back: what is dead is not of the crash.
    let settings = Settings {
        lifetime: Duration::from_secs(30),
        overlap: Some(Duration::from_secs(12)),
        token_quota: None,
        ..Settings::default()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let model = Model::new(settings, (0..SOURCES).map(account), seed);
    let wechat = Upstream::start(listener, model, SystemClock::shared()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.ron");
    std::fs::write(&config, config_text(wechat.address(), dir.path())).unwrap();
    let answered = Arc::new(Answered::default());
    let (mut starts, mut aborted) = (Vec::new(), 0);
    for kill in 0..kills {
        let points = failpoints(&mut dice);
        let case = format!("KILL_SEED={seed}, kill {kill}, {points:?}");
        let mut command = binary();
        command.env("STORE_FAILPOINTS", &points);
        let begun = Instant::now();
        let mut ours = match try_serve(&mut command, &config).await {
            Ok(ours) => ours,
            Err(log) => {
                // It may reach the place while it starts: the next start is one after a crash in a start.
                assert!(points.contains("abort"), "{case}: it does not start\n{log}");
                aborted += 1;
                continue;
            }
        };
        starts.push(begun.elapsed());
        if !check(&case, &mut ours, &wechat, &answered).await {
            aborted += 1;
            continue;
        }
        let mut clients = JoinSet::new();
        for _ in 0..6 {
            clients.spawn(client(dice.u64(..), ours.http, ours.resp, Arc::clone(&answered)));
        }
        // Until it aborts by itself, or to a random moment.
        let moment = Duration::from_millis(dice.u64(1..900));
        if tokio::time::timeout(moment, ours.child.wait()).await.is_ok() {
            aborted += 1;
        } else {
            ours.child.kill().await.unwrap();
        }
        answered.ended.store(true, Ordering::SeqCst);
        soon("the clients", async {
            while clients.join_next().await.is_some_and(|end| {
                end.unwrap();
                true
            }) {}
        })
        .await;
        answered.ended.store(false, Ordering::SeqCst);
    }
    starts.sort();
    let answers = answered.count.load(Ordering::Relaxed);
    println!(
        "{kills} kills, {aborted} of them by a failpoint, {answers} answers: none lost, none wrong; \
         starts: median {:?}, worst {:?}",
        starts[starts.len() / 2],
        starts[starts.len() - 1]
    );
    assert!(answers > kills, "the clients were answered: {answers}");
    wechat.stop().await;
}
