//! Turns connections away: a 503 that waits for nobody when all places are taken; and what those are
//! told who speak plain HTTP to a port that speaks TLS.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::clock::Now;

use crate::log_budget::LogBudget;

/// How many refused connections are kept open for a moment; the others are closed at once.
const MAX_LINGERING: usize = 64;
/// That moment: for the answer to be read before a close throws it away.
const LINGER: Duration = Duration::from_secs(1);
/// What is read of a refused request before it is cut off, in bytes.
const LINGER_BYTES: u64 = 64 * 1024;

const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json; charset=UTF-8\r\n\
    cache-control: no-store\r\n\
    content-length: 33\r\n\
    retry-after: 1\r\n\
    connection: close\r\n\
    \r\n\
    {\"error\": \"too many connections\"}";

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
    lingering: Arc<Semaphore>,
    log: LogBudget,
}

impl Overload {
    pub(super) fn new(max_connections: usize) -> Overload {
        Overload {
            max_connections,
            lingering: Arc::new(Semaphore::new(MAX_LINGERING)),
            log: LogBudget::default(),
        }
    }

    /// Answers with a 503, where the client `can_be_told`, and closes. Never waits; what lingers is a
    /// task of `tasks`.
    pub(super) fn refuse(
        &self,
        stream: TcpStream,
        can_be_told: bool,
        now: Now,
        tasks: &TaskTracker,
    ) {
        if let Some(unsaid) = self.log.spend(now) {
            let max_connections = self.max_connections;
            tracing::warn!(
                max_connections,
                unsaid,
                "HTTP connection refused: all places are taken"
            );
        }
        if !can_be_told {
            return;
        }
        // By the plain socket: the runtime does not know yet that a fresh one can be written to.
        let Ok(mut socket) = stream.into_std() else { return };
        if socket.write_all(ANSWER).is_err() {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_state_their_length() {
        for answer in [ANSWER, SPEAKS_TLS] {
            let text = std::str::from_utf8(answer).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{text}");
        }
    }
}
