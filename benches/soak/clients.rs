//! Clients of every kind on both listeners: those who read, are told, keep a cache, force, come and go, do
//! not know the key, or are slow. What they are answered, the judge is told.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::server::{PASSWORD, REQUEST_SECRET, Server};
use crate::truth::{Breaks, SOURCES, Source, Truth, count};

/// So many of each kind. Those who read do so [`READS_A_SECOND`] times each.
const READERS: u64 = 8;
const READS_A_SECOND: u64 = 25;
const SUBSCRIBERS: u64 = 50;
const CACHES: u64 = 10;
const CHURNERS: u64 = 4;
const SLOW: u64 = 25;
/// A client that waits longer than this has an error to tell.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn spawn_all(server: &Server, truth: &Arc<Truth>) {
    let (http, resp) = (server.http, server.resp);
    for seed in 0..READERS {
        tokio::spawn(over_and_over(Arc::clone(truth), move |truth| read_http(http, truth, seed)));
        tokio::spawn(over_and_over(Arc::clone(truth), move |truth| read_resp(resp, truth, seed)));
    }
    for seed in 0..SUBSCRIBERS {
        tokio::spawn(over_and_over(Arc::clone(truth), move |truth| listen(resp, truth, seed)));
    }
    for seed in 0..CACHES {
        tokio::spawn(over_and_over(Arc::clone(truth), move |truth| cache(resp, truth, seed)));
    }
    for seed in 0..CHURNERS {
        tokio::spawn(over_and_over(Arc::clone(truth), move |truth| churn(http, resp, truth, seed)));
    }
    for seed in 0..SLOW {
        tokio::spawn(drip(
            http,
            b"GET /wechat/token?type=plain HTTP/1.1\r\nhost: ",
            Arc::clone(truth),
            seed,
        ));
        tokio::spawn(drip(resp, b"*2\r\n$4\r\nAUTH\r\n$16000\r\n", Arc::clone(truth), seed));
    }
    tokio::spawn(over_and_over(Arc::clone(truth), move |truth| force(http, resp, truth)));
    tokio::spawn(over_and_over(Arc::clone(truth), move |truth| complain(resp, truth)));
    tokio::spawn(over_and_over(Arc::clone(truth), move |truth| guess(http, resp, truth)));
}

/// A client that never ends by itself: an end is an error, and it begins anew.
async fn over_and_over<F>(truth: Arc<Truth>, client: impl Fn(Arc<Truth>) -> F)
where
    F: Future<Output = io::Result<()>>,
{
    loop {
        let ended = client(Arc::clone(&truth)).await;
        if truth.is_over() {
            return;
        }
        if let Err(error) = ended {
            count(&truth.counts.errors);
            eprintln!("a client: {error}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::other(format!("unexpected: {what:.80}"))
}

async fn in_time<T>(what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, what).await.unwrap_or_else(|_| Err(wrong("no answer")))
}

// --- what they speak

/// One HTTP connection.
struct Http(BufReader<TcpStream>);

impl Http {
    async fn connect(address: SocketAddr) -> io::Result<Http> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Http(BufReader::new(stream)))
    }

    /// The body of the answer.
    async fn get(&mut self, target: &str) -> io::Result<String> {
        in_time(async {
            let request = format!("GET {target} HTTP/1.1\r\nhost: soak\r\n\r\n");
            self.0.get_mut().write_all(request.as_bytes()).await?;
            let (mut line, mut length) = (String::new(), 0);
            loop {
                line.clear();
                if self.0.read_line(&mut line).await? == 0 {
                    return Err(wrong("the end of the connection"));
                }
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.trim_end().parse().map_err(|_| wrong(value))?;
                }
                if line == "\r\n" {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await?;
            String::from_utf8(body).map_err(|_| wrong("a body that is no text"))
        })
        .await
    }
}

/// One RESP connection.
pub(crate) struct Resp {
    stream: BufReader<TcpStream>,
    /// Whether it was told something between two replies.
    told: bool,
}

impl Resp {
    /// A connection that is let in.
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Resp> {
        let mut client = Resp::stranger(address).await?;
        match &*client.ask(&["AUTH", PASSWORD]).await? {
            "+OK" => Ok(client),
            other => Err(wrong(other)),
        }
    }

    async fn stranger(address: SocketAddr) -> io::Result<Resp> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Resp { stream: BufReader::new(stream), told: false })
    }

    async fn send(&mut self, words: &[&str]) -> io::Result<()> {
        let mut request = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| request.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        self.stream.get_mut().write_all(request.as_bytes()).await
    }

    /// The reply's first line; of a bulk, the bulk with a `$` before it; of what holds more, its parts
    /// with a space between.
    async fn reply(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(wrong("the end of the connection"));
        }
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| wrong(line))?;
        let number = || rest.parse::<i64>().map_err(|_| wrong(line));
        match kind {
            "$" if number()? >= 0 => {
                let length = usize::try_from(number()?).map_err(|_| wrong(line))?;
                let mut bulk = vec![0; length + 2];
                self.stream.read_exact(&mut bulk).await?;
                bulk.truncate(length);
                Ok(format!("${}", String::from_utf8_lossy(&bulk)))
            }
            "*" | ">" | "%" => {
                let parts = number()?.max(0) * if kind == "%" { 2 } else { 1 };
                let mut all = kind.to_owned();
                for _ in 0..parts {
                    all.push(' ');
                    all.push_str(&Box::pin(self.reply()).await?);
                }
                Ok(all)
            }
            _ => Ok(line.to_owned()),
        }
    }

    pub(crate) async fn ask(&mut self, words: &[&str]) -> io::Result<String> {
        in_time(async {
            self.send(words).await?;
            loop {
                let reply = self.reply().await?;
                // What it is told comes whenever it happens.
                if !reply.starts_with('>') {
                    return Ok(reply);
                }
                self.told = true;
            }
        })
        .await
    }
}

fn target(source: &str, secret: &str) -> String {
    format!("/wechat/token?type={source}&secret={secret}")
}

/// Tells the judge what an HTTP answer says.
fn judge_http(
    truth: &Truth,
    source: &'static Source,
    body: &str,
    sent: Instant,
) -> io::Result<bool> {
    count(&truth.counts.requests);
    let json: serde_json::Value = serde_json::from_str(body).map_err(|_| wrong(body))?;
    match (json[source.name].as_str(), json["expires_in"].as_u64()) {
        (Some(value), Some(seconds)) => {
            truth.answered(source, value, sent, Duration::from_secs(seconds));
            Ok(true)
        }
        _ if body == r#"{"error": "not found"}"# => {
            count(&truth.counts.absent);
            Ok(false)
        }
        _ => Err(wrong(body)),
    }
}

/// Reads a token with its promise over RESP.
async fn read(client: &mut Resp, truth: &Truth, source: &'static Source) -> io::Result<()> {
    let sent = Instant::now();
    // The life first: where a renewal comes between the two, it is that of the older token, and less.
    let life = client.ask(&["PTTL", source.name]).await?;
    let value = client.ask(&["GET", source.name]).await?;
    count(&truth.counts.requests);
    match (
        life.strip_prefix(':').and_then(|life| life.parse::<i64>().ok()),
        value.strip_prefix('$'),
    ) {
        (Some(life), Some(value)) if value != "-1" => {
            let life = Duration::from_millis(u64::try_from(life).unwrap_or(0));
            truth.answered(source, value, sent, life);
            Ok(())
        }
        (Some(_), Some(_)) => {
            count(&truth.counts.absent);
            Ok(())
        }
        // The same in RESP3.
        _ if value == "_" => {
            count(&truth.counts.absent);
            Ok(())
        }
        _ => Err(wrong(&format!("{life} {value}"))),
    }
}

// --- who reads

async fn read_http(http: SocketAddr, truth: Arc<Truth>, seed: u64) -> io::Result<()> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut client = Http::connect(http).await?;
    let mut turns = tokio::time::interval(Duration::from_millis(1_000 / READS_A_SECOND));
    loop {
        turns.tick().await;
        let source = &SOURCES[dice.usize(..SOURCES.len())];
        let sent = Instant::now();
        let body = client.get(&target(source.name, REQUEST_SECRET)).await?;
        judge_http(&truth, source, &body, sent)?;
    }
}

async fn read_resp(resp: SocketAddr, truth: Arc<Truth>, seed: u64) -> io::Result<()> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut client = Resp::connect(resp).await?;
    let mut turns = tokio::time::interval(Duration::from_millis(1_000 / READS_A_SECOND));
    loop {
        turns.tick().await;
        read(&mut client, &truth, &SOURCES[dice.usize(..SOURCES.len())]).await?;
    }
}

/// Is told of every new token, for some minutes.
async fn listen(resp: SocketAddr, truth: Arc<Truth>, seed: u64) -> io::Result<()> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut client = Resp::connect(resp).await?;
    let words: &[&str] = match seed % 3 {
        0 => &["PSUBSCRIBE", "token:*"],
        1 => &["SUBSCRIBE", "token:plain", "token:ticket", "token:stable"],
        _ => &["PSUBSCRIBE", "__key*__:*"],
    };
    client.send(words).await?;
    let until = Instant::now() + Duration::from_secs(dice.u64(60..240));
    while let Ok(told) = tokio::time::timeout_at(until.into(), client.reply()).await {
        if told?.contains("message") {
            count(&truth.counts.told);
        }
    }
    Ok(())
}

/// Keeps what it has read until it is told that it has changed, and relies on it meanwhile.
async fn cache(resp: SocketAddr, truth: Arc<Truth>, seed: u64) -> io::Result<()> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut client = Resp::connect(resp).await?;
    client.ask(&["HELLO", "3"]).await?;
    client.ask(&["CLIENT", "TRACKING", "ON"]).await?;
    let source = &SOURCES[dice.usize(..3)];
    let until = Instant::now() + Duration::from_secs(dice.u64(60..240));
    while Instant::now() < until {
        // With its life, which is checked as long as it lasts.
        read(&mut client, &truth, source).await?;
        if std::mem::take(&mut client.told) {
            count(&truth.counts.told);
            continue;
        }
        match tokio::time::timeout_at(until.into(), client.reply()).await {
            Ok(pushed) => {
                let pushed = pushed?;
                if !pushed.contains("invalidate") {
                    return Err(wrong(&pushed));
                }
                count(&truth.counts.told);
            }
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

// --- who does more

/// Says of good tokens that they were refused.
async fn force(http: SocketAddr, resp: SocketAddr, truth: Arc<Truth>) -> io::Result<()> {
    let source = SOURCES.iter().find(|source| source.breaks == Breaks::ByForce).unwrap();
    let mut client = Http::connect(http).await?;
    let mut other = Resp::connect(resp).await?;
    loop {
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        let Some(stale) = truth.last(source.name) else { continue };
        count(&truth.counts.forced);
        count(&truth.counts.requests);
        let sent = Instant::now();
        let path = "/wechat/token/forcerefresh";
        let secret = REQUEST_SECRET;
        let body = client
            .get(&format!("{path}?type={}&secret={secret}&stale={stale}", source.name))
            .await?;
        if !body.starts_with(r#"{"errmsg": "#) && judge_http(&truth, source, &body, sent)? {
            if body.contains(&stale) {
                return Err(wrong("the refused token"));
            }
            count(&truth.counts.forced_anew);
        }
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        count(&truth.counts.forced);
        let reply = other.ask(&["TOKEN.REFRESH", source.name]).await?;
        if reply.starts_with('$') {
            count(&truth.counts.forced_anew);
        } else if !reply.starts_with("-ERR ") {
            return Err(wrong(&reply));
        }
    }
}

/// Notices that another system has replaced a token, and says so, as a business server does.
async fn complain(resp: SocketAddr, truth: Arc<Truth>) -> io::Result<()> {
    let source = SOURCES.iter().find(|source| source.breaks == Breaks::ByOthers).unwrap();
    let mut client = Resp::connect(resp).await?;
    loop {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let value = client.ask(&["GET", source.name]).await?;
        let Some(value) = value.strip_prefix('$').filter(|value| *value != "-1") else { continue };
        if truth.is_refused(value) {
            count(&truth.counts.forced);
            let reply = client.ask(&["TOKEN.REFRESH", source.name, "STALE", value]).await?;
            if reply.starts_with('$') {
                count(&truth.counts.forced_anew);
            } else if !reply.starts_with("-ERR ") {
                return Err(wrong(&reply));
            }
        }
    }
}

/// Does not know the key.
async fn guess(http: SocketAddr, resp: SocketAddr, truth: Arc<Truth>) -> io::Result<()> {
    let mut client = Http::connect(http).await?;
    let mut other = Resp::stranger(resp).await?;
    let mut turns = tokio::time::interval(Duration::from_millis(100));
    for guess in 0..200 {
        turns.tick().await;
        let body = client.get(&target("plain", &format!("wrong{guess}"))).await?;
        match body.as_str() {
            r#"{"error": "invalid request"}"# => {}
            // Slowed, and the connection is closed.
            r#"{"error": "too many wrong keys"}"# => client = Http::connect(http).await?,
            _ => return Err(wrong(&body)),
        }
        let reply = other.ask(&["AUTH", &format!("wrong{guess}")]).await?;
        if reply.starts_with("-ERR too many wrong keys") {
            // Slowed, and closed where too many are being slowed.
            other = Resp::stranger(resp).await?;
        } else if !reply.starts_with("-WRONGPASS") {
            return Err(wrong(&reply));
        }
        count(&truth.counts.wrong_keys);
        count(&truth.counts.wrong_keys);
    }
    Ok(())
}

/// Connects for one question, again and again.
async fn churn(http: SocketAddr, resp: SocketAddr, truth: Arc<Truth>, seed: u64) -> io::Result<()> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut turns = tokio::time::interval(Duration::from_millis(100));
    loop {
        turns.tick().await;
        let source = &SOURCES[dice.usize(..SOURCES.len())];
        if dice.bool() {
            let sent = Instant::now();
            let body = Http::connect(http).await?.get(&target(source.name, REQUEST_SECRET)).await?;
            judge_http(&truth, source, &body, sent)?;
        } else {
            read(&mut Resp::connect(resp).await?, &truth, source).await?;
        }
        count(&truth.counts.churned);
    }
}

/// Sends half a request, byte by byte, until it is cut or gives up.
async fn drip(address: SocketAddr, begin: &'static [u8], truth: Arc<Truth>, seed: u64) {
    let mut dice = fastrand::Rng::with_seed(seed);
    loop {
        tokio::time::sleep(Duration::from_millis(dice.u64(0..5_000))).await;
        let Ok(mut stream) = TcpStream::connect(address).await else {
            count(&truth.counts.errors);
            continue;
        };
        let dripping = async {
            stream.write_all(begin).await?;
            for _ in 0..dice.u32(5..30) {
                stream.write_all(b"x").await?;
                let mut byte = [0];
                match tokio::time::timeout(Duration::from_secs(1), stream.read(&mut byte)).await {
                    Err(_) => {}
                    Ok(_) => return Err(io::Error::from(io::ErrorKind::ConnectionReset)),
                }
            }
            io::Result::Ok(())
        };
        if dripping.await.is_err() {
            count(&truth.counts.cut);
        }
    }
}
