//! The listener from outside: real sockets on loopback, a snapshot made by hand, and a refresher
//! that a test plays itself.

mod accept;
mod admission;
mod bodies;
mod drain;
mod limits;
mod logs;
mod rest;
mod ui;
mod v1;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::access::{Access, Via};
use crate::clock::{Clock, Now, SharedClock, SystemClock};
use crate::config::{self, ClientConfig, Config, Environment, HttpConfig, ReadyConfig};
use crate::control::Control;
use crate::doctor::Doctor;
use crate::refresh::{RequestQueue, queue};
use crate::shutdown::Drain;
use crate::snapshot::{Published, Publisher, snapshot};
use crate::status::Status;
use crate::token::{Generation, Secret, SourceIdentity, SourceName, TokenRecord};

use super::{Door, HttpParts, serve};

/// The sources of every test.
const NAMES: [&str; 4] = ["access_token", "ticket", "公众号", "ended"];
const KEY: &str = "k3y";
/// Stands for a timeout that must not be what ends a test.
const NEVER: Duration = Duration::from_secs(3_600);
const SOON: Duration = Duration::from_millis(60);
/// A test that waits longer than this for its event has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A clock that stands still.
#[derive(Debug)]
struct Still(Now);

impl Clock for Still {
    fn now(&self) -> Now {
        self.0
    }
}

fn still() -> Now {
    Now {
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        mono: Duration::from_secs(1_000),
    }
}

/// A record fetched at `now` that lives for `life`.
fn published(value: &str, now: Now, life: Duration, generation: u64) -> Published {
    Published {
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
    }
}

fn config(max_connections: usize, header_timeout: Duration, idle_timeout: Duration) -> HttpConfig {
    let bind = SocketAddr::from(([127, 0, 0, 1], 0));
    let max_connections_per_address = max_connections;
    HttpConfig {
        bind,
        max_connections,
        max_connections_per_address,
        header_timeout,
        idle_timeout,
        secret_parameter: true,
        ui: true,
        trusted_proxies: Vec::new(),
        tls: None,
    }
}

fn parts(clock: SharedClock) -> (HttpParts, Vec<Publisher>, Vec<RequestQueue>) {
    let names = NAMES.map(|name| SourceName::parse(name).unwrap());
    let (publishers, reader) = snapshot(names.clone());
    let (queues, refresh) = queue(names);
    let named = |name: &str, key: &str, sources: &[&str], addresses: &[&str]| ClientConfig {
        name: name.into(),
        keys: vec![Secret::new(key)],
        sources: Some(sources.iter().map(|name| SourceName::parse(name).unwrap()).collect()),
        addresses: Some(addresses.iter().map(|network| network.parse().unwrap()).collect()),
    };
    let clients = vec![
        named("shop", "shop-key", &["ticket"], &["127.0.0.0/8"]),
        named("far", "far-key", &["ticket"], &["203.0.113.0/24"]),
    ];
    let access = Access::new(Secret::new(KEY), None, clients, Arc::clone(&clock));
    let access = Arc::new(access);
    let config = configured();
    let status = Status::apart(config.sources.clone(), &reader, &access, &clock);
    let doctor = Doctor::new(status.clone(), reader.clone(), &config, Arc::clone(&clock));
    let ready = ReadyConfig { sources: None, life: Duration::ZERO };
    let door = Door::Main;
    let (control, _) = Control::new();
    let parts = HttpParts {
        reader,
        refresh,
        clock,
        access,
        tls: None,
        status,
        control,
        doctor,
        ready,
        door,
    };
    (parts, publishers, queues)
}

/// Where nothing is configured beside the names.
fn configured() -> Config {
    // Nobody listens there, which is all that an examination needs.
    let url = "http://127.0.0.1:1/cgi-bin/token";
    let urls = NAMES.map(|name| format!(r#""{name}": (url: "{url}")"#));
    let text = format!("(token_sources: {{{}}})", urls.join(", "));
    config::parse(&text, Path::new("c.ron"), &Environment::default()).unwrap()
}

struct TestServer {
    address: SocketAddr,
    drain: Drain,
    serving: JoinHandle<()>,
    publishers: Vec<Publisher>,
    queues: Vec<RequestQueue>,
    status: Status,
}

impl TestServer {
    async fn start(config: HttpConfig, clock: SharedClock) -> TestServer {
        let listener = TcpListener::bind(config.bind).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (parts, publishers, queues) = parts(clock);
        let (drain, status) = (Drain::new(), parts.status.clone());
        let serving = tokio::spawn(serve(listener, config, parts, drain.clone()));
        TestServer { address, drain, serving, publishers, queues, status }
    }

    /// One whose timeouts never come, on the still clock.
    async fn patient() -> TestServer {
        TestServer::start(config(100, NEVER, NEVER), Arc::new(Still(still()))).await
    }

    /// One on the real clock, with these timeouts and a token that lives long.
    async fn hasty(header_timeout: Duration, idle_timeout: Duration) -> TestServer {
        let clock = SystemClock::shared();
        let now = clock.now();
        let server = TestServer::start(config(100, header_timeout, idle_timeout), clock).await;
        server.publishers[0].publish(Arc::new(published("VALUE", now, NEVER, 1)));
        server
    }

    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    /// The whole answer to one request on a connection of its own.
    async fn ask(&self, request: &str) -> Answer {
        let mut client = self.connect().await;
        client.send(request).await;
        client.0.shutdown().await.unwrap();
        Answer::parse(&client.rest().await)
    }

    async fn get(&self, target: &str) -> Answer {
        self.ask(&get(target)).await
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n")
}

fn post(target: &str, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {target} HTTP/1.1\r\nhost: x\r\ncontent-type: {content_type}\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

struct Client(TcpStream);

impl Client {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Everything until the server closes. A reset counts as a close: what matters is that it came.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let read = self.0.read_to_end(&mut bytes);
        let _ = tokio::time::timeout(PATIENCE, read).await.expect("the server closes");
        String::from_utf8(bytes).unwrap()
    }

    /// What comes, up to and with this end.
    async fn until(&mut self, end: &str) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end.as_bytes()) {
            let mut byte = [0];
            let read = self.0.read_exact(&mut byte);
            tokio::time::timeout(PATIENCE, read).await.expect("the server answers").unwrap();
            bytes.push(byte[0]);
        }
        String::from_utf8(bytes).unwrap()
    }

    /// The head of an answer.
    async fn head(&mut self) -> Answer {
        Answer::parse(&self.until("\r\n\r\n").await)
    }

    /// The next event of a stream that comes in chunks, one for each.
    async fn event(&mut self) -> String {
        self.until("\r\n").await;
        let chunk = self.until("\r\n").await;
        chunk.trim_end().to_owned()
    }

    /// One answer of a connection that stays open.
    async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        let mut body = vec![0; answer.header("content-length").unwrap().parse().unwrap()];
        self.0.read_exact(&mut body).await.unwrap();
        answer.body = String::from_utf8(body).unwrap();
        answer
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Answer {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}
