//! What must hold of HTTP for any bytes; see `crate::fuzzing`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use warp::http::Request;

use crate::access::Access;
use crate::clock::{Clock, Now, SharedClock};
use crate::config::{self, ClientConfig, Environment, ReadyConfig};
use crate::control::Control;
use crate::doctor::Doctor;
use crate::http::Door;
use crate::http::connection::prepare;
use crate::http::handlers::Site;
use crate::http::places::Places;
use crate::http::progress::{MAX_HEAD_BYTES, Progress};
use crate::http::query::Asked;
use crate::http::routes::routes;
use crate::log_budget::LogBudget;
use crate::refresh::{RefreshError, queue};
use crate::shutdown::Drain;
use crate::snapshot::{Published, snapshot};
use crate::status::Status;
use crate::token::{Generation, Secret, SourceIdentity, SourceName, TokenRecord};

/// Where a query ends and a form begins.
const FORM: u8 = b'\n';

/// The query string and, after a line end, the form.
pub(crate) fn query(input: &[u8]) {
    let at = input.iter().position(|byte| *byte == FORM).unwrap_or(input.len());
    let (query, form) = (&input[..at], input.get(at + 1..).unwrap_or_default());
    let asked = Asked::of(query, form);
    let expected = |name: &str| {
        let pairs = form_urlencoded::parse(query).chain(form_urlencoded::parse(form));
        let last = pairs.filter(|(found, _)| found == name).last();
        // White space and control characters around a value are stripped by rules of their own.
        last.map(|(_, value)| value)
            .filter(|value| value.bytes().all(|byte| byte.is_ascii_graphic()))
    };
    if let Some(source) = expected("type") {
        assert_eq!(asked.source_name(), Some(&*source));
    }
    if let Some(secret) = expected("secret") {
        assert_eq!(asked.secret.as_deref(), Some(secret.as_bytes()));
    }
    if let Some(stale) = expected("stale").filter(|stale| !stale.is_empty()) {
        assert_eq!(asked.stale(), Some(&*stale));
    }
    if let Some(force) = expected("force") {
        assert_eq!(asked.force, force == "1");
    }
    for value in [asked.source_name(), asked.stale()].into_iter().flatten() {
        let is_white = |c: char| c.is_whitespace();
        assert!(!value.starts_with(is_white) && !value.ends_with(is_white), "{value:?}");
    }
}

/// A clock that stands still.
#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Now {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        Now { wall, mono: Duration::from_secs(1_000) }
    }
}

fn published(value: &str) -> Arc<Published> {
    let (now, life) = (Still.now(), Duration::from_secs(7_200));
    let record = TokenRecord {
        value: Secret::new(value),
        fetched_at: now.wall,
        expires_at: now.wall + life,
        generation: Generation(1),
        first_seen: now.wall,
        identity: SourceIdentity([0; 32]),
        captured: None,
    };
    let (ends_mono, lead) = (now.mono + life, Duration::from_secs(600));
    Arc::new(Published { record, ends_mono, lead, overlap: None, in_doubt_since: None })
}

/// The first byte says whether the secret is one that the input may know, whether a refresh comes off, and
/// whether the client is a trusted proxy; the rest is what a client sends. With the other key, which it may
/// know, there is only the source that has no token until it is refreshed.
pub(crate) fn request(input: &[u8]) {
    let Some((&setup, bytes)) = input.split_first() else { return };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs nothing");
    let digest = Sha256::digest(input);
    let unknown: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let secret = if setup & 1 == 0 { unknown.as_str() } else { "k3y" };
    let answers = runtime.block_on(answers(bytes, secret, setup));
    check(&answers);
    if setup & 1 == 0 && !contains(bytes, b"57_TOKEN") {
        assert!(!contains(&answers, b"57_TOKEN"), "a token without its key");
    }
    assert!(!contains(&answers, unknown.as_bytes()), "the secret is told");
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Everything that the server says to a client that sends `bytes` and then listens.
async fn answers(bytes: &[u8], secret: &str, setup: u8) -> Vec<u8> {
    let (refreshes, trusts) = (setup & 2 != 0, setup & 4 != 0);
    let names = ["access_token", "absent"].map(|name| SourceName::parse(name).expect("a name"));
    let (publishers, reader) = snapshot(names.clone());
    publishers[0].publish(published("57_TOKEN"));
    let (queues, refresh) = queue(names);
    let fresh = ["57_TOKEN2", "58_FRESH"];
    for ((mut queue, publisher), value) in queues.into_iter().zip(publishers).zip(fresh) {
        tokio::spawn(async move {
            loop {
                let request = queue.next().await;
                let answer = if refreshes {
                    let token = published(value);
                    publisher.publish(Arc::clone(&token));
                    Ok(token)
                } else {
                    Err(RefreshError::Failed { what: "no \"luck\"".into(), more: None, wait: None })
                };
                // An error: whoever asked has gone.
                let _ = request.reply.send(answer);
            }
        });
    }
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let clock: SharedClock = Arc::new(Still);
    let shop = ClientConfig {
        name: "shop".into(),
        keys: vec![Secret::new("shop-key")],
        sources: Some(vec![SourceName::parse("absent").expect("a name")]),
        addresses: Some(vec![IpNet::from(peer.ip())]),
    };
    let access = Access::new(Secret::new(secret), None, vec![shop], Arc::clone(&clock));
    let access = Arc::new(access);
    let drain = Drain::new();
    let status = Status::apart(Vec::new(), &reader, &access, &clock);
    let text = r#"(token_sources: {"t": (url: "https://h")})"#;
    let config = config::parse(text, Path::new("c.ron"), &Environment::default());
    // Its status has no sources, so that an examination sends nothing.
    let config = config.expect("it is a config");
    let site = Arc::new(Site {
        control: Control::new().0,
        doctor: Doctor::new(status.clone(), reader.clone(), &config, Arc::clone(&clock)),
        status,
        reader,
        refresh,
        clock,
        access,
        secret_parameter: true,
        ui: true,
        trusted_proxies: trusts.then(|| IpNet::from(peer.ip())).into_iter().collect(),
        body_timeout: Duration::from_secs(10),
        tls: None,
        tls_hellos: LogBudget::default(),
        ready: ReadyConfig { sources: None, life: Duration::ZERO },
        door: Door::Main,
        waits: Places::new(2, 1),
        streams: Places::new(2, 1),
        drain: drain.clone(),
    });
    let progress = Arc::new(Progress::default());
    let routes = routes(Arc::clone(&site), peer, progress);
    let routes = TowerToHyperService::new(warp::service(routes));
    let service = service_fn(move |mut request: Request<Incoming>| {
        prepare(&mut request, peer, &site, trusts);
        routes.call(request)
    });
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let connection = http1::Builder::new()
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(server), service);
    // An error: the bytes are no HTTP.
    let serving = tokio::spawn(async { drop(connection.await) });
    let (mut reading, mut writing) = tokio::io::split(&mut client);
    let send = async {
        // An error: the server has hung up.
        let _ = writing.write_all(bytes).await;
        let _ = writing.shutdown().await;
        // After the longest wait, and a few words of a stream, which ends with the server alone.
        tokio::time::sleep(Duration::from_secs(90)).await;
        drain.begin();
    };
    let mut said = Vec::new();
    let (_, read) = tokio::join!(send, reading.read_to_end(&mut said));
    read.expect("a pipe in memory does not fail");
    serving.await.expect("the connection does not panic");
    said
}

/// The statuses that answers may have; 505 and the like are hyper's own.
const STATUSES: &[&str] = &[
    "100", "200", "204", "304", "400", "401", "403", "404", "405", "408", "409", "413", "414",
    "415", "429", "431", "502", "503", "505",
];

/// The last part of an answer that is sent in parts.
const LAST_PART: &[u8] = b"0\r\n\r\n";

/// Every answer has one of our statuses, and says where it ends.
fn check(mut answers: &[u8]) {
    while !answers.is_empty() {
        let head_end = answers.windows(4).position(|end| end == b"\r\n\r\n");
        let (head, rest) = answers.split_at(head_end.expect("an answer has a whole head") + 4);
        let head = std::str::from_utf8(head).expect("a head of ours is text").to_ascii_lowercase();
        let status = head.split(' ').nth(1).expect("a status");
        assert!(STATUSES.contains(&status), "{head}");
        let length = head.lines().find_map(|line| {
            line.strip_prefix("content-length: ").map(|length| length.parse::<usize>())
        });
        let length = match length {
            Some(length) => length.expect("a length is a number"),
            None if head.contains("transfer-encoding: chunked") => {
                let last = rest.windows(LAST_PART.len()).position(|part| part == LAST_PART);
                last.map_or(0, |at| at + LAST_PART.len())
            }
            // It ends with the connection: HTTP/1.0 knows no parts.
            None if head.contains("text/event-stream") => rest.len(),
            None => 0,
        };
        // An answer to HEAD has a length and no body.
        answers = if rest.starts_with(b"HTTP/1.") { rest } else { &rest[length.min(rest.len())..] };
    }
}
