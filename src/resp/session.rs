//! One connection: reads a batch, runs it, writes its replies. Knows no command.
//!
//! A batch is what one read brought: it costs one read, one reading of the clock and one write,
//! however many requests are in it. The bytes are read into, and the replies written from, two
//! buffers that belong to the thread and not to the connection; only a request that has not arrived
//! in full, and replies that the peer does not take yet, are kept with the connection. So ten
//! thousand idle connections hold no buffers at all.
//!
//! While replies are owed nothing is read: a peer that does not read its answers gets no more of
//! them, and what it is owed is bounded by [`MOST_OWED_BYTES`] and one reply.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as Wakeup, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tracing::{debug, trace};

use crate::resp::Shared;
use crate::resp::command::{Client, Context, Outcome, dispatch};
use crate::resp::connections::{Card, Stop};
use crate::resp::parse::{Parser, ProtocolError};
use crate::resp::reply::{Protocol, Reply};

/// How much one read takes at most, as in Redis: more than any pipeline of a sane client, and little
/// enough to stay in the processor's cache.
const READ_BYTES: usize = 16 * 1024;

/// A batch whose replies exceed this is sent before it goes on.
const MOST_OWED_BYTES: usize = 256 * 1024;

/// A batch that has done this much work lets other sessions run before it goes on; see
/// [`Context::work`]. No batch of single-key commands gets there.
const MOST_WORK: usize = 20_000;

/// What the thread's reply buffer keeps for the next batch; what is above is given back.
const KEPT_REPLY_BYTES: usize = 64 * 1024;

/// The buffers of a thread. In use within one poll of one session, never across.
#[derive(Debug)]
struct Scratch {
    input: Box<[u8]>,
    output: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        input: vec![0; READ_BYTES].into_boxed_slice(),
        output: Vec::new(),
    });
}

/// How far a batch got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BatchEnd {
    /// Through all requests that have arrived.
    Done,
    /// Not through all: it is time to write, or to let others run.
    Cut,
    /// To the connection's last request.
    Last,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    stream: TcpStream,
    shared: Arc<Shared>,
    client: Client,
    parser: Parser,
    /// The beginning of a request whose rest has not arrived, and requests that wait for their turn.
    carried: Vec<u8>,
    /// Whether `carried` may hold a whole request: it is to be looked at before the next read.
    look_first: bool,
    /// Replies that the peer has not taken yet, from `sent` on.
    owed: Vec<u8>,
    sent: usize,
    /// Whether the connection ends as soon as nothing is owed.
    closing: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.connections.forget(self.client.card.id);
    }
}

impl Session {
    /// Takes over a connection.
    pub(super) fn new(stream: TcpStream, shared: Arc<Shared>, card: Arc<Card>) -> Session {
        let authenticated = shared.password.is_none();
        Session {
            stream,
            shared,
            client: Client { card, protocol: Protocol::Resp2, authenticated },
            parser: Parser::default(),
            carried: Vec::new(),
            look_first: false,
            owed: Vec::new(),
            sent: 0,
            closing: false,
        }
    }

    /// Serves it to its end.
    ///
    /// Reading, writing and being told things are one select. What is pushed to a client without
    /// being asked for will be a third reason to wake up here.
    pub(super) async fn run(mut self) {
        let card = Arc::clone(&self.client.card);
        let stopped = pin!(card.stopped());
        // Biased: at the drain, what has arrived is answered first.
        let ended = tokio::select! {
            biased;
            ended = poll_fn(|wakeup| self.poll_serve(wakeup)) => ended,
            stop = stopped => match stop {
                Stop::Cut => Ok(()),
                Stop::Drain => self.finish().await,
            },
        };
        if let Err(error) = ended {
            debug!(client = card.id, %error, "RESP connection lost");
        }
    }

    /// Serves what has arrived, sends what is owed, and waits for nothing else.
    async fn finish(&mut self) -> io::Result<()> {
        // Lets the runtime ask the system what has arrived; until then it does not know.
        tokio::task::yield_now().await;
        poll_fn(|wakeup| match self.poll_serve(wakeup) {
            Poll::Pending if self.owed.is_empty() && !self.look_first => Poll::Ready(Ok(())),
            poll => poll,
        })
        .await
    }

    /// Serves batches until the connection ends.
    fn poll_serve(&mut self, wakeup: &mut Wakeup<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(wakeup))?;
            if self.closing {
                return Poll::Ready(Ok(()));
            }
            ready!(SCRATCH.with_borrow_mut(|scratch| self.poll_batch(wakeup, scratch)))?;
            if self.look_first {
                wakeup.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Sends what is owed.
    fn poll_send(&mut self, wakeup: &mut Wakeup<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.owed.len() {
            let rest = &self.owed[self.sent..];
            let sent = ready!(Pin::new(&mut self.stream).poll_write(wakeup, rest))?;
            self.sent += sent;
            let owes = self.sent < self.owed.len();
            self.client.card.touch(self.shared.clock.now(), owes);
        }
        if self.sent > 0 {
            self.owed = Vec::new();
            self.sent = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads a batch, runs it, and sends its replies as far as the peer takes them at once.
    fn poll_batch(
        &mut self,
        wakeup: &mut Wakeup<'_>,
        scratch: &mut Scratch,
    ) -> Poll<io::Result<()>> {
        let Scratch { input, output } = scratch;
        let mut received = 0;
        if !mem::take(&mut self.look_first) {
            let mut buffer = ReadBuf::new(input);
            ready!(Pin::new(&mut self.stream).poll_read(wakeup, &mut buffer))?;
            received = buffer.filled().len();
            if received == 0 {
                self.closing = true;
                return Poll::Ready(Ok(()));
            }
        }
        let received = &input[..received];
        let fresh = self.carried.is_empty();
        if !fresh {
            self.carried.extend_from_slice(received);
        }
        let input = if fresh { received } else { &self.carried };
        let batch = Batch {
            shared: &self.shared,
            client: &mut self.client,
            parser: &mut self.parser,
            input,
        };
        let end = batch.run(output);
        // A session that never runs dry is told of the drain here; see `run` for the others.
        let drains = end == BatchEnd::Done && self.client.card.is_stopping();
        self.closing = end == BatchEnd::Last || drains;
        self.look_first = end == BatchEnd::Cut;

        let consumed = self.parser.take_consumed();
        if fresh {
            if consumed < received.len() {
                self.carried = received[consumed..].to_vec();
            }
        } else if consumed == self.carried.len() {
            self.carried = Vec::new();
        } else {
            self.carried.drain(..consumed);
        }
        self.parser.shrink();
        self.reply(wakeup, output)
    }

    /// Sends the replies of a batch; what the peer does not take at once is owed.
    fn reply(&mut self, wakeup: &mut Wakeup<'_>, output: &mut Vec<u8>) -> Poll<io::Result<()>> {
        if !output.is_empty() {
            let sent = match Pin::new(&mut self.stream).poll_write(wakeup, output) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => 0,
            };
            if sent < output.len() {
                self.sent = sent;
                self.owed = mem::take(output);
                self.client.card.touch(self.shared.clock.now(), true);
            }
            output.clear();
            output.shrink_to(KEPT_REPLY_BYTES);
        }
        Poll::Ready(Ok(()))
    }
}

/// The requests of one read, and what they need.
struct Batch<'a> {
    shared: &'a Shared,
    client: &'a mut Client,
    parser: &'a mut Parser,
    input: &'a [u8],
}

impl Batch<'_> {
    /// Runs every request that has arrived in full, and writes the replies to `output`.
    fn run(self, output: &mut Vec<u8>) -> BatchEnd {
        let Batch { shared, client, parser, input } = self;
        let now = shared.clock.now();
        client.card.touch(now, false);
        let reply = Reply::new(output, client.protocol);
        let mut ctx = Context { shared, client, reply, now, work: 0, hits: 0, misses: 0 };
        let mut commands = 0;
        let end = loop {
            if ctx.reply.len() > MOST_OWED_BYTES || ctx.work > MOST_WORK {
                break BatchEnd::Cut;
            }
            match parser.next(input, ctx.client.authenticated) {
                Ok(false) => break BatchEnd::Done,
                Ok(true) => {}
                Err(error) => {
                    give_up(&mut ctx, error);
                    break BatchEnd::Last;
                }
            }
            commands += 1;
            match dispatch(&mut ctx, parser.args(input)) {
                Outcome::Replied => {}
                Outcome::Last => break BatchEnd::Last,
                Outcome::HangUp => {
                    debug!(client = ctx.client.card.id, "HTTP on the RESP port: connection cut");
                    ctx.reply.discard();
                    break BatchEnd::Last;
                }
            }
        };
        trace!(client = ctx.client.card.id, commands, "batch");
        let counters = &shared.counters;
        for (counter, count) in [
            (&counters.commands, commands),
            (&counters.hits, ctx.hits),
            (&counters.misses, ctx.misses),
        ] {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
        end
    }
}

/// Tells a client that its bytes make no sense.
fn give_up(ctx: &mut Context<'_>, error: ProtocolError) {
    debug!(client = ctx.client.card.id, ?error, "RESP protocol error: connection closed");
    if let Some(text) = error.text() {
        ctx.reply.error_quoting(&[b"ERR ", text.as_bytes()].concat());
    }
}

#[cfg(test)]
mod tests;
