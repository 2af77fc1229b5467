//! Two servers that hold the same keys: ours, and a Redis that refuses writes.
//!
//! Redis is a replica of a master that is not there: of its two ways to be read-only this is the one
//! that answers a write with READONLY (an ACL would say NOPERM), and nothing else is refused. What it
//! says otherwise than a master is its role.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, Command};
use wechat_token_server::app::{self, Server};
use wechat_token_server::clock::SystemClock;
use wechat_token_server::config::{self, Environment};
use wechat_token_server::sandbox::{Account, Settings, Upstream};

use super::differences::OURS_ALONE;
use super::generator::{Catalogue, Request};
use super::wire::Reply;
use crate::support::{soon, upstream};

/// The password of the second pair.
pub(super) const PASSWORD: &str = "s3cret-of-the-pair";

/// The keys that both hold.
pub(super) const KEYS: [&str; 3] = ["access_token", "ticket", "公众号:ticket"];

/// How many connections are spent at the start: their numbers are then nobody's, on both sides.
const SPENT: usize = 20;

/// Ours and the reference.
pub(super) struct Pair {
    ours: Option<(Server, Upstream)>,
    references: Vec<Child>,
    /// Where ours listens.
    pub(super) our_address: SocketAddr,
    /// Where the reference listens.
    pub(super) reference_address: SocketAddr,
    dir: tempfile::TempDir,
}

fn config_text(upstream: SocketAddr, dir: &Path, password: Option<&str>) -> String {
    let (appid, secret) = (Account::SANDBOX_APPID, Account::SANDBOX_SECRET);
    let password = password.map_or(String::new(), |word| format!("password: {word:?},"));
    let ticket = |name: &str, kind: &str| {
        format!(
            r#"{name:?}: (
                url: "http://{upstream}/cgi-bin/ticket/getticket",
                args: {{"type": {kind:?}, "access_token": "{{{{access_token}}}}"}},
            ),"#
        )
    };
    format!(
        r#"(
            http: (bind: "127.0.0.1:0"),
            resp: (bind: "127.0.0.1:0", {password}),
            store: (path: {:?}),
            request_secret: "test-request-secret-0123456789",
            token_sources: {{
                "access_token": (
                    url: "http://{upstream}/cgi-bin/token",
                    args: {{"grant_type": "client_credential", "appid": "{appid}", "secret": "{secret}"}},
                ),
                {}
                {}
            }},
        )"#,
        dir.join("store").display().to_string(),
        ticket(KEYS[1], "jsapi"),
        ticket(KEYS[2], "wx_card"),
    )
}

impl Pair {
    /// Starts both and gives the reference what ours serves. With `twins`, a second Redis then takes
    /// the place of ours.
    pub(super) async fn start(password: Option<&str>, twins: bool) -> Pair {
        let dir = tempfile::tempdir().unwrap();
        let upstream = upstream(Settings::default()).await;
        let text = config_text(upstream.address(), dir.path(), password);
        let config = config::parse(&text, Path::new("test.ron"), &Environment::default()).unwrap();
        let ours = app::start(config, SystemClock::shared()).await.unwrap();
        let our_address = ours.resp.unwrap();
        let (reference, reference_address) = start_reference(dir.path(), password).await;
        let mut pair = Pair {
            ours: Some((ours, upstream)),
            references: vec![reference],
            our_address,
            reference_address,
            dir,
        };
        pair.fill(reference_address, password).await;
        if twins {
            let (twin, address) = start_reference(pair.dir.path(), password).await;
            pair.references.push(twin);
            pair.fill(address, password).await;
            pair.our_address = address;
        }
        for _ in 0..SPENT {
            pair.ask(&[Request::of("PING")]).await;
        }
        pair
    }

    /// Copies the tokens and their ends into every database of the reference (all of ours show the
    /// same), then makes it a replica.
    async fn fill(&self, reference: SocketAddr, password: Option<&str>) {
        let login = password.map(|word| Request::of(&format!("AUTH {word}")));
        let after_login = |mut requests: Vec<Request>| {
            requests.splice(0..0, login.clone());
            requests
        };
        let lives =
            after_login(KEYS.map(|key| Request::of(&format!("PEXPIRETIME {key}"))).to_vec());
        let values = after_login(KEYS.map(|key| Request::of(&format!("GET {key}"))).to_vec());
        let tokens = soon("three tokens", async {
            loop {
                let values = Reply::all(&converse(self.our_address, &joined(&values)).await);
                if values.iter().all(|value| value.text().is_some()) {
                    return values;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        let lives = Reply::all(&converse(self.our_address, &joined(&lives)).await);
        let skip = usize::from(password.is_some());
        let mut requests = Vec::new();
        for database in 0..16 {
            requests.push(Request::of(&format!("SELECT {database}")));
            for ((key, value), life) in KEYS.iter().zip(&tokens[skip..]).zip(&lives[skip..]) {
                let end = life.number().unwrap().to_string();
                let words =
                    [b"SET", key.as_bytes(), value.text().unwrap(), b"PXAT", end.as_bytes()];
                requests.push(Request::new(words.map(<[u8]>::to_vec).to_vec()));
            }
        }
        requests.push(Request::of("REPLICAOF 127.0.0.1 1"));
        let requests = after_login(requests);
        let replies = Reply::all(&converse(reference, &joined(&requests)).await);
        assert!(replies.len() == requests.len() && !replies.iter().any(|reply| reply.is_error("")));
    }

    /// Says the same to both, on a connection each; what they answer to the end.
    pub(super) async fn ask(&self, requests: &[Request]) -> (Vec<u8>, Vec<u8>) {
        let bytes = joined(requests);
        let both = async {
            tokio::join!(
                converse(self.our_address, &bytes),
                converse(self.reference_address, &bytes)
            )
        };
        soon("an answer", both).await
    }

    /// What both say of their commands.
    pub(super) async fn catalogue(&self) -> (Catalogue, Vec<String>) {
        let (ours, reference) = self.ask(&[Request::of("COMMAND LIST")]).await;
        let mut sides = [(ours, Vec::new()), (reference, Vec::new())];
        for (side, (names, commands)) in sides.iter_mut().enumerate() {
            let names = Reply::all(names)[0].elements().to_vec();
            // In portions: see `converse`.
            for names in names.chunks(20) {
                let mut words = vec![b"COMMAND".to_vec(), b"INFO".to_vec()];
                words.extend(names.iter().map(|name| name.text().unwrap().to_vec()));
                let (ours, reference) = self.ask(&[Request::new(words)]).await;
                let said = if side == 0 { ours } else { reference };
                commands.extend(Reply::all(&said)[0].elements().to_vec());
            }
        }
        let [(_, ours), (_, reference)] = sides;
        let name = |command: &Reply| {
            String::from_utf8(command.elements()[0].text().unwrap().to_vec()).unwrap()
        };
        let flagged = |command: &Reply, flag: &[u8]| {
            command.elements()[2].elements().iter().any(|word| word.text() == Some(flag))
        };
        let arity = |command: &Reply| command.elements()[1].number().unwrap();
        let mut writes: Vec<_> = reference
            .iter()
            .filter(|command| flagged(command, b"write"))
            .map(|command| (name(command), arity(command)))
            .collect();
        writes.sort();
        let with_subcommands = |command: &Reply| {
            let subcommands = command.elements().get(9).map(Reply::elements).unwrap_or_default();
            let mut names = vec![name(command)];
            names.extend(subcommands.iter().map(name));
            names
        };
        let mut served: Vec<_> = ours.iter().flat_map(with_subcommands).collect();
        served.retain(|name| !OURS_ALONE.contains(&name.as_str()));
        served.sort();
        let mut reads: Vec<_> =
            reference.iter().filter(|command| flagged(command, b"readonly")).map(name).collect();
        reads.sort();
        (Catalogue { writes, served }, reads)
    }

    /// Ends both.
    pub(super) async fn stop(&mut self) {
        for reference in &mut self.references {
            reference.kill().await.unwrap();
        }
        if let Some((ours, upstream)) = self.ours.take() {
            ours.stop().await;
            upstream.stop().await;
        }
    }
}

fn joined(requests: &[Request]) -> Vec<u8> {
    requests.iter().flat_map(|request| request.bytes.clone()).collect()
}

/// Sends all of it, says that no more will come, and reads to the end. Both servers answer what has
/// arrived before they look at the end of it. But Redis sends 64 kB at a time and looks in between: what
/// is said here must have shorter answers.
async fn converse(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    // From an address of its own each time: who shows many wrong keys is slowed, which Redis does not.
    static CONNECTIONS: AtomicU16 = AtomicU16::new(0);
    let [c, d] = CONNECTIONS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 1, c, d], 0))).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    // An error here or below: it was closed before it had read everything, and said why.
    if stream.write_all(bytes).await.is_ok() {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

/// A redis-server on a free port.
async fn start_reference(dir: &Path, password: Option<&str>) -> (Child, SocketAddr) {
    // A port that was free may be taken a moment later.
    for _ in 0..10 {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new("redis-server");
        command.args(["--port", &free.port().to_string(), "--bind", "127.0.0.1"]);
        // Else it talks to 127.0.0.1 alone of all that is loopback.
        command.args(["--protected-mode", "no"]);
        command
            .args(["--notify-keyspace-events", "AKE", "--save", "", "--appendonly", "no", "--dir"])
            .arg(dir);
        command.args(["--replica-read-only", "yes", "--replica-serve-stale-data", "yes"]);
        command.args(["--slowlog-log-slower-than", "-1", "--loglevel", "warning"]);
        if let Some(password) = password {
            command.args(["--requirepass", password]);
        }
        command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.spawn().expect("redis-server cannot be run");
        loop {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            if TcpStream::connect(free).await.is_ok() {
                return (child, free);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    panic!("redis-server finds no port");
}
