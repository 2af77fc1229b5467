//! Turns connections away when all places are taken, or all that one address may have: an answer
//! that waits for nobody; and what those are told who speak plain HTTP to a port that speaks TLS.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::clock::Now;
use crate::config::HttpConfig;
use crate::log_budget::LogBudget;

/// How many refused connections are kept open for a moment; the others are closed at once.
const MAX_LINGERING: usize = 64;
/// That moment: for the answer to be read before a close throws it away.
const LINGER: Duration = Duration::from_secs(1);
/// What is read of a refused request before it is cut off, in bytes.
const LINGER_BYTES: u64 = 64 * 1024;

/// Why a connection is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// There are as many connections as there may be.
    AllPlacesTaken,
    /// There are as many from this address as there may be.
    TooManyOfAddress,
}

/// An answer that is the last of its connection, as text: status, length of the body, body.
macro_rules! answer {
    ($status:literal, $length:literal, $body:literal) => {
        concat!(
            "HTTP/1.1 ",
            $status,
            "\r\ncontent-type: application/json; charset=UTF-8\r\ncache-control: no-store\r\n\
             content-length: ",
            $length,
            "\r\nretry-after: 1\r\nconnection: close\r\n\r\n",
            $body
        )
    };
}

pub(super) use answer;

impl Reason {
    fn answer(self) -> &'static str {
        match self {
            Reason::AllPlacesTaken => {
                answer!("503 Service Unavailable", "33", r#"{"error": "too many connections"}"#)
            }
            Reason::TooManyOfAddress => answer!(
                "429 Too Many Requests",
                "51",
                r#"{"error": "too many connections from this address"}"#
            ),
        }
    }
}

/// To a client in the clear where TLS is spoken.
pub(super) const SPEAKS_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    content-type: application/json; charset=UTF-8\r\n\
    cache-control: no-store\r\n\
    content-length: 47\r\n\
    connection: close\r\n\
    \r\n\
    {\"error\": \"this port speaks TLS: use https://\"}";

/// What is known about the refusals so far.
#[derive(Debug)]
pub(super) struct Overload {
    max_connections: usize,
    max_connections_per_address: usize,
    lingering: Arc<Semaphore>,
    /// One for each reason: a flood from one address must not hide that all places are taken.
    full: LogBudget,
    of_address: LogBudget,
}

impl Overload {
    pub(super) fn new(config: &HttpConfig) -> Overload {
        Overload {
            max_connections: config.max_connections,
            max_connections_per_address: config.max_connections_per_address,
            lingering: Arc::new(Semaphore::new(MAX_LINGERING)),
            full: LogBudget::default(),
            of_address: LogBudget::default(),
        }
    }

    /// Says why, where the client `can_be_told`, and closes. Never waits; what lingers is a task of
    /// `tasks`.
    pub(super) fn refuse(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        reason: Reason,
        can_be_told: bool,
        now: Now,
        tasks: &TaskTracker,
    ) {
        self.log(peer, reason, now);
        if !can_be_told {
            return;
        }
        // By the plain socket: the runtime does not know yet that a fresh one can be written to.
        let Ok(mut socket) = stream.into_std() else { return };
        if socket.write_all(reason.answer().as_bytes()).is_err() {
            return;
        }
        let Ok(place) = Arc::clone(&self.lingering).try_acquire_owned() else { return };
        let Ok(mut stream) = TcpStream::from_std(socket) else { return };
        // A socket closed with unread bytes is reset, and a reset may overtake the answer.
        tasks.spawn(async move {
            let until_closed = async {
                stream.shutdown().await?;
                let mut rest = (&mut stream).take(LINGER_BYTES);
                tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
            };
            // Either way it is closed now, and there is nobody left to tell.
            let _ = tokio::time::timeout(LINGER, until_closed).await;
            drop(place);
        });
    }

    fn log(&self, peer: SocketAddr, reason: Reason, now: Now) {
        let &Overload { max_connections, max_connections_per_address, .. } = self;
        match reason {
            Reason::AllPlacesTaken => {
                if let Some(unsaid) = self.full.spend(now) {
                    tracing::warn!(
                        max_connections,
                        unsaid,
                        "HTTP connection refused: all places are taken"
                    );
                }
            }
            Reason::TooManyOfAddress => {
                if let Some(unsaid) = self.of_address.spend(now) {
                    tracing::warn!(
                        address = %peer.ip(), max_connections_per_address, unsaid,
                        "HTTP connection refused: this address has all the connections it may have; \
                         if many clients share it, raise http.max_connections_per_address"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_state_their_length() {
        let reasons = [Reason::AllPlacesTaken, Reason::TooManyOfAddress].map(Reason::answer);
        for text in reasons.into_iter().chain(std::str::from_utf8(SPEAKS_TLS)) {
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{text}");
        }
    }
}
