//! A receiver of webhooks on loopback: keeps what it is sent, and answers as a test wants.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::soon;

/// What it does with one request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// A status and a body.
    Says(u16, &'static str),
    /// It closes the connection.
    Closes,
    /// It says nothing.
    Hangs,
}

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// Path and query.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Told {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// See the head of this file. Ends with the runtime of its test.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    told: watch::Receiver<Vec<Told>>,
}

impl Receiver {
    /// Answers by this script, and when that has run out as every receiver likes it.
    pub(crate) async fn start(script: &[Answer]) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(script.iter().cloned().collect::<VecDeque<_>>()));
        let (sender, told) = watch::channel(Vec::new());
        let sender = Arc::new(sender);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&sender), Arc::clone(&script)));
            }
        });
        Receiver { address, told }
    }

    /// All that has come, once there are `count`.
    pub(crate) async fn told(&self, count: usize) -> Vec<Told> {
        let mut told = self.told.clone();
        let told = soon("a webhook", told.wait_for(|told| told.len() >= count)).await;
        told.unwrap().clone()
    }

    /// All that has come so far.
    pub(crate) fn so_far(&self) -> Vec<Told> {
        self.told.borrow().clone()
    }
}

async fn converse(
    stream: TcpStream,
    sender: Arc<watch::Sender<Vec<Told>>>,
    script: Arc<Mutex<VecDeque<Answer>>>,
) {
    let mut stream = BufReader::new(stream);
    while let Some(told) = request(&mut stream).await {
        let answer = script.lock().unwrap().pop_front();
        sender.send_modify(|all| all.push(told));
        match answer.unwrap_or(Answer::Says(200, r#"{"errcode":0,"code":0}"#)) {
            Answer::Says(status, body) => {
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            Answer::Closes => return,
            Answer::Hangs => std::future::pending().await,
        }
    }
}

/// The next request of a connection; `None` when the client has left.
async fn request(stream: &mut BufReader<TcpStream>) -> Option<Told> {
    let mut first = String::new();
    if stream.read_line(&mut first).await.ok()? == 0 {
        return None;
    }
    let target = first.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Told { target, headers, body: String::from_utf8(body).ok()? })
}
