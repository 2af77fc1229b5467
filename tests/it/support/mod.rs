//! What the tests share: the sandbox as upstream, our server in this process or as a child, and
//! clients that speak just enough of each protocol.

pub(crate) mod certificates;
pub(crate) mod receiver;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use wechat_token_server::app::{self, Server};
use wechat_token_server::clock::SystemClock;
use wechat_token_server::config::{self, Environment};
use wechat_token_server::sandbox::{Account, Model, Settings, Upstream};

/// The request secret of every server of these tests.
pub(crate) const SECRET: &str = "test-request-secret-0123456789";

/// How long anything may take that is waited for: far longer than it does, so that a slow machine
/// fails no test, and short enough to see a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Ends the test if `future` takes longer than [`PATIENCE`].
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(PATIENCE, future).await;
    outcome.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// A stand-in for WeChat on a free port.
pub(crate) async fn upstream(settings: Settings) -> Upstream {
    upstream_at(SocketAddr::from(([127, 0, 0, 1], 0)), settings).await
}

/// A stand-in for WeChat at this address.
pub(crate) async fn upstream_at(address: SocketAddr, settings: Settings) -> Upstream {
    let listener = TcpListener::bind(address).await.unwrap();
    let model = Model::new(settings, [Account::default()], 1);
    Upstream::start(listener, model, SystemClock::shared()).unwrap()
}

/// A config for the stand-in at `upstream`, with the store in `dir`; `extra` are further groups.
pub(crate) fn config_text(upstream: SocketAddr, dir: &Path, extra: &str) -> String {
    let (appid, secret) = (Account::SANDBOX_APPID, Account::SANDBOX_SECRET);
    format!(
        r#"(
    http: (bind: "127.0.0.1:0"),
    resp: (bind: "127.0.0.1:0"),
    store: (path: {:?}),
    request_secret: "{SECRET}",
    {extra}
    token_sources: {{
        "access_token": (
            url: "http://{upstream}/cgi-bin/token",
            args: {{"grant_type": "client_credential", "appid": "{appid}", "secret": "{secret}"}},
        ),
        "ticket": (
            url: "http://{upstream}/cgi-bin/ticket/getticket",
            args: {{"type": "jsapi", "access_token": "{{{{access_token}}}}"}},
        ),
    }},
)"#,
        dir.join("store").display().to_string()
    )
}

/// No cooldown: what is forced is fetched.
pub(crate) const NO_COOLDOWN: &str = r#"refresh: (cooldown: "0s"),"#;

/// Our server in this process.
pub(crate) async fn server(upstream: SocketAddr, dir: &Path, extra: &str) -> Server {
    let text = config_text(upstream, dir, extra);
    let config = config::parse(&text, Path::new("test.ron"), &Environment::default()).unwrap();
    app::start(config, SystemClock::shared()).await.unwrap()
}

/// Our binary as a child process, serving.
pub(crate) struct Running {
    pub(crate) http: SocketAddr,
    pub(crate) resp: SocketAddr,
    pub(crate) child: Child,
    log: Arc<Mutex<String>>,
}

/// The command of our binary.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wechat-token-server"));
    command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Its words are compared, in English where a test does not ask for another language.
    command.env_remove("RUST_LOG").env("LC_ALL", "C");
    command
}

/// Starts the binary with this config (JSON logs are asked for) and waits until it serves.
pub(crate) async fn run(dir: &Path, upstream: SocketAddr, extra: &str) -> Running {
    run_with(binary(), dir, upstream, extra).await
}

/// As [`run`], with a command that has been prepared.
pub(crate) async fn run_with(
    command: Command,
    dir: &Path,
    upstream: SocketAddr,
    extra: &str,
) -> Running {
    let extra = format!(r#"log: (format: "json"), {extra}"#);
    run_text(command, dir, &config_text(upstream, dir, &extra)).await
}

/// As [`run_with`], with the whole text of the config.
pub(crate) async fn run_text(command: Command, dir: &Path, text: &str) -> Running {
    let file = dir.join("config.ron");
    std::fs::write(&file, text).unwrap();
    serve(command, &file).await
}

/// Starts a command with the config in a file, which asks for JSON logs, and waits until it serves.
pub(crate) async fn serve(mut command: Command, config: &Path) -> Running {
    match try_serve(&mut command, config).await {
        Ok(running) => running,
        Err(log) => panic!("it ended instead of serving:\n{log}"),
    }
}

/// As [`serve`]; the log of one that ends instead.
pub(crate) async fn try_serve(command: &mut Command, config: &Path) -> Result<Running, String> {
    let mut child = command.arg("--config").arg(config).spawn().unwrap();
    let log = Arc::new(Mutex::new(String::new()));
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (ready, served) = tokio::sync::oneshot::channel();
    tokio::spawn({
        let log = Arc::clone(&log);
        async move {
            let mut ready = Some(ready);
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = writeln!(log.lock().unwrap(), "{line}");
                let served = serde_json::from_str::<serde_json::Value>(&line)
                    .ok()
                    .filter(|entry| entry["message"] == "serving");
                if let (Some(entry), Some(_)) = (&served, &ready) {
                    let address = |name: &str| entry[name].as_str().unwrap().parse().unwrap();
                    let _ = ready.take().unwrap().send((address("http"), address("resp")));
                }
            }
        }
    });
    match soon("the server to serve", served).await {
        Ok((http, resp)) => Ok(Running { http, resp, child, log }),
        Err(_) => Err(log.lock().unwrap().clone()),
    }
}

/// A number of the environment: how much of a test is run, or from which seed on.
#[expect(clippy::disallowed_methods, reason = "a setting of a test, not of the program")]
pub(crate) fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => otherwise,
    }
}

impl Running {
    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until it has logged this so many times.
    pub(crate) async fn logged(&self, words: &str, times: usize) {
        let logged = async {
            while self.log().matches(words).count() < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon(words, logged).await;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Peak resident memory, in kB.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// The time that it has spent on a processor: on a busy machine much less than has passed.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // After the name in parentheses; in hundredths of a second: user, system.
        let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
        let hundredths: u64 = fields.map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(hundredths * 10)
    }

    pub(crate) async fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
    }
}

/// How often each of these texts is in the memory that a process of ours can write to.
pub(crate) fn copies_in_memory(pid: u32, texts: &[&str]) -> Vec<usize> {
    use std::os::unix::fs::FileExt;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut counts = vec![0; texts.len()];
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (begin, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [begin, end] = [begin, end].map(|hex| u64::from_str_radix(hex, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - begin).unwrap()];
        // What the system maps for itself cannot be read.
        if memory.read_exact_at(&mut bytes, begin).is_err() {
            continue;
        }
        for (count, text) in counts.iter_mut().zip(texts) {
            let first = text.as_bytes()[0];
            let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == first);
            *count += starts.filter(|(at, _)| bytes[*at..].starts_with(text.as_bytes())).count();
        }
    }
    counts
}

/// The files below `dir` that hold any of these texts.
pub(crate) fn files_with(dir: &Path, texts: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, texts));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        if texts.iter().any(|text| holds(text)) {
            found.push(path);
        }
    }
    found
}

/// One HTTP request on a connection of its own: status and body.
pub(crate) async fn http(address: SocketAddr, method: &str, target: &str) -> (u16, String) {
    let mut stream = soon("a connection", TcpStream::connect(address)).await.unwrap();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The body of `GET /wechat/token` for a source.
pub(crate) async fn token(address: SocketAddr, source: &str) -> String {
    http(address, "GET", &format!("/wechat/token?type={source}&secret={SECRET}")).await.1
}

/// The body of a forced refresh of a source.
pub(crate) async fn force(address: SocketAddr, source: &str) -> String {
    http(address, "GET", &format!("/wechat/token/forcerefresh?type={source}&secret={SECRET}"))
        .await
        .1
}

/// The token in a body, if it holds one.
pub(crate) fn value(body: &str, source: &str) -> Option<String> {
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    body[source].as_str().map(str::to_owned)
}

/// Reads a source over HTTP until it has a token, and another than `not`.
pub(crate) async fn served(address: SocketAddr, source: &str, not: Option<&str>) -> String {
    soon("a token", async {
        loop {
            match value(&token(address, source).await, source) {
                Some(value) if Some(value.as_str()) != not => return value,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await
}

/// Sends inline or multibulk bytes and reads `replies` replies, as they came.
pub(crate) async fn resp(address: SocketAddr, request: &str, replies: usize) -> String {
    let mut stream = soon("a connection", TcpStream::connect(address)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reader = BufReader::new(stream);
    let mut answer = String::new();
    for _ in 0..replies {
        let mut line = String::new();
        soon("a reply", reader.read_line(&mut line)).await.unwrap();
        answer.push_str(&line);
        let length = line.strip_prefix('$').and_then(|rest| rest.trim().parse::<usize>().ok());
        if let Some(length) = length {
            let mut bulk = vec![0; length + 2];
            soon("a bulk", reader.read_exact(&mut bulk)).await.unwrap();
            answer.push_str(std::str::from_utf8(&bulk).unwrap());
        }
    }
    answer
}

/// The value of a source over RESP.
pub(crate) async fn get(address: SocketAddr, source: &str) -> Option<String> {
    let answer = resp(address, &format!("GET {source}\r\n"), 1).await;
    let (length, rest) = answer.split_once("\r\n").unwrap();
    (length != "$-1").then(|| rest.trim_end().to_owned())
}
