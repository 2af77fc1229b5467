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
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::{debug, trace, warn};

use crate::access::User;
use crate::admission::Place;
use crate::resp::command::{self, Answer, Client, Context, Outcome, Wait, dispatch};
use crate::resp::connections::{Card, Stop};
use crate::resp::held::Excess;
use crate::resp::parse::{Parser, ProtocolError};
use crate::resp::reply::Reply;
use crate::resp::{Shared, relieve, tell_of_cut};
use crate::tls::Stream;

/// How much one read takes at most, as in Redis: more than any pipeline of a sane client, and little
/// enough to stay in the processor's cache.
const READ_BYTES: usize = 16 * 1024;

/// A batch whose replies exceed this is sent before it goes on.
const MOST_OWED_BYTES: usize = 256 * 1024;

/// The same before AUTH: a stranger who does not read is to hold next to nothing.
const MOST_OWED_BYTES_BEFORE_AUTH: usize = 4 * 1024;

/// How much room a connection keeps for what it has not sent in full beyond what has arrived; what is
/// above is given back.
const KEPT_CARRIED_BYTES: usize = READ_BYTES;

/// A batch that has done this much work lets other sessions run before it goes on; see
/// [`Context::work`]. No batch of single-key commands gets there.
const MOST_WORK: usize = 20_000;

/// What the thread's reply buffer keeps for the next batch; what is above is given back.
const KEPT_REPLY_BYTES: usize = 64 * 1024;

/// How long a client that has connected just before the drain may take to say something.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// The buffers of a thread. In use within one poll of one session, never across.
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

/// Lends the thread's buffers. The one for replies is empty, whatever became of the session that had
/// it before: what that one was owed is nobody else's business.
fn with_scratch<T>(run: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.output.clear();
        run(scratch)
    })
}

/// How far a batch got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BatchEnd {
    /// Through all requests that have arrived.
    Done,
    /// Not through all: it is time to write, or to let others run.
    Cut,
    /// To a request whose answer is still to come.
    Waits,
    /// To the connection's last request.
    Last,
}

/// Replies that the peer has not taken yet.
#[derive(Default)]
struct Owed {
    bytes: Vec<u8>,
    /// How many of them it has taken.
    sent: usize,
}

impl Owed {
    fn is_nothing(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// One connection.
pub(super) struct Session {
    stream: Stream,
    shared: Arc<Shared>,
    client: Client,
    parser: Parser,
    /// The beginning of a request whose rest has not arrived, and requests that wait for their turn.
    carried: Vec<u8>,
    /// Whether `carried` may hold a whole request: it is to be looked at before the next read.
    look_first: bool,
    /// Whether the client has sent anything yet.
    heard: bool,
    /// What the last request waits for; the requests after it wait with it.
    waits: Option<Wait>,
    /// Replies that the peer has not taken yet.
    owed: Owed,
    /// Whether the connection ends as soon as nothing is owed.
    closing: bool,
    /// Its place among those of its address.
    _place: Place,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.client.leave(&self.shared);
        self.shared.connections.forget(self.client.card.id);
    }
}

impl Session {
    /// Takes over a connection of this user, if it is known who it is.
    pub(super) fn new(
        stream: Stream,
        shared: Arc<Shared>,
        card: Arc<Card>,
        user: Option<Arc<User>>,
        place: Place,
    ) -> Session {
        Session {
            stream,
            shared,
            client: Client::new(card, user),
            parser: Parser::default(),
            carried: Vec::new(),
            look_first: false,
            heard: false,
            waits: None,
            owed: Owed::default(),
            closing: false,
            _place: place,
        }
    }

    /// Serves it to its end.
    pub(super) async fn run(mut self) {
        let card = Arc::clone(&self.client.card);
        let ended = poll_fn(|wakeup| {
            // Before the look: what happens after it wakes this again.
            card.wake(wakeup.waker());
            // At the drain, what has arrived is answered first.
            match self.poll_serve(wakeup) {
                Poll::Ready(ended) => Poll::Ready(Ok(ended)),
                Poll::Pending => {
                    card.stopping().map_or(Poll::Pending, |stop| Poll::Ready(Err(stop)))
                }
            }
        });
        let ended = match ended.await {
            Ok(ended) => ended,
            Err(Stop::Cut) => Ok(()),
            Err(Stop::Drain) => self.finish().await,
        };
        self.stream.farewell().await;
        if let Err(error) = ended {
            debug!(client = card.id, %error, "RESP connection lost");
        }
    }

    /// Serves what has arrived, sends what is owed, and waits for nothing else; but for the first word
    /// of who has connected just now.
    async fn finish(&mut self) -> io::Result<()> {
        let mut patience = pin!(tokio::time::sleep(FIRST_WORD));
        // Lets the runtime ask the system what has arrived; until then it does not know.
        tokio::task::yield_now().await;
        let card = Arc::clone(&self.client.card);
        poll_fn(|wakeup| {
            card.wake(wakeup.waker());
            match self.poll_serve(wakeup) {
                _ if card.stopping() == Some(Stop::Cut) => Poll::Ready(Ok(())),
                Poll::Pending if !self.heard => patience.as_mut().poll(wakeup).map(Ok),
                Poll::Pending if self.has_nothing_to_say() => Poll::Ready(Ok(())),
                poll => poll,
            }
        })
        .await
    }

    fn has_nothing_to_say(&self) -> bool {
        self.owed.is_nothing()
            && !self.stream.holds_back()
            && !self.look_first
            && self.waits.is_none()
    }

    /// Serves batches until the connection ends.
    fn poll_serve(&mut self, wakeup: &mut Wakeup<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(wakeup))?;
            if self.closing {
                return Poll::Ready(Ok(()));
            }
            if self.client.card.has_mail() {
                let card = &self.client.card;
                with_scratch(|Scratch { output, .. }| {
                    card.collect(output);
                    reply(&mut self.stream, &self.shared, card, &mut self.owed, wakeup, output)
                })?;
                self.note_held();
                continue;
            }
            if let Some(waits) = &mut self.waits {
                let answer = ready!(waits.as_mut().poll(wakeup));
                self.waits = None;
                self.client.card.set_waiting(false);
                // What came after the request that waited.
                self.look_first = true;
                with_scratch(|scratch| self.answer(wakeup, &mut scratch.output, answer))?;
                continue;
            }
            ready!(with_scratch(|scratch| self.poll_batch(wakeup, scratch)))?;
            if self.look_first {
                wakeup.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Answers the request that was waited for.
    fn answer(
        &mut self,
        wakeup: &mut Wakeup<'_>,
        output: &mut Vec<u8>,
        answer: Answer,
    ) -> io::Result<()> {
        command::answer(&mut Reply::new(output, self.client.protocol), answer);
        let card = &self.client.card;
        card.touch(self.shared.clock.now(), false);
        reply(&mut self.stream, &self.shared, card, &mut self.owed, wakeup, output)?;
        self.note_held();
        Ok(())
    }

    /// Notes how much memory the connection holds; where all together hold too much, those who hold most
    /// are cut, which may be this one.
    fn note_held(&mut self) {
        let Session { client, carried, owed, shared, .. } = self;
        let bytes = carried.capacity() + owed.bytes.capacity() + client.held_bytes();
        match client.card.hold(bytes, client.user.is_none()) {
            Excess::None => {}
            Excess::Own => {
                client.card.stop(Stop::Cut);
                self.closing = true;
                tell_of_cut(shared, 1);
            }
            Excess::OfOthers => relieve(shared),
        }
    }

    /// Sends what is owed.
    fn poll_send(&mut self, wakeup: &mut Wakeup<'_>) -> Poll<io::Result<()>> {
        let owed = &mut self.owed;
        if owed.is_nothing() {
            return self.poll_sent(wakeup);
        }
        while owed.sent < owed.bytes.len() {
            let rest = &owed.bytes[owed.sent..];
            owed.sent += ready!(Pin::new(&mut self.stream).poll_write(wakeup, rest))?;
            self.client.card.touch(self.shared.clock.now(), owed.sent < owed.bytes.len());
        }
        *owed = Owed::default();
        self.note_held();
        self.poll_sent(wakeup)
    }

    /// Sends what TLS has taken over, which is owed until the peer has taken it.
    fn poll_sent(&mut self, wakeup: &mut Wakeup<'_>) -> Poll<io::Result<()>> {
        if !self.stream.holds_back() {
            return Poll::Ready(Ok(()));
        }
        let card = &self.client.card;
        let sent = self.stream.poll_sent(wakeup);
        // Not with each look at it: the peer has a time for all of this.
        if sent.is_ready() || !card.owes() {
            card.touch(self.shared.clock.now(), sent.is_pending());
        }
        sent
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
            self.heard = true;
        }
        let received = &input[..received];
        let fresh = self.carried.is_empty();
        if !fresh {
            // By a quarter, and not twofold as a Vec grows by itself: what is held is bounded by what
            // has arrived.
            if self.carried.capacity() - self.carried.len() < received.len() {
                self.carried.reserve_exact(received.len().max(self.carried.len() / 4));
            }
            self.carried.extend_from_slice(received);
        }
        let input = if fresh { received } else { &self.carried };
        let batch = Batch {
            shared: &self.shared,
            client: &mut self.client,
            parser: &mut self.parser,
            input,
        };
        let (end, waits) = batch.run(output);
        self.client.card.set_waiting(waits.is_some());
        self.waits = waits;
        // A session that never runs dry is told of the drain here; see `run` for the others.
        let drains = end == BatchEnd::Done && self.client.card.stopping().is_some();
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
            self.carried.shrink_to(self.carried.len() + KEPT_CARRIED_BYTES);
        }
        self.parser.shrink();
        let card = &self.client.card;
        if end == BatchEnd::Done && !self.carried.is_empty() {
            // Half a request: its other half is not waited for for ever.
            card.touch(self.shared.clock.now(), true);
        }
        reply(&mut self.stream, &self.shared, card, &mut self.owed, wakeup, output)?;
        self.note_held();
        Poll::Ready(Ok(()))
    }
}

/// Sends replies; what the peer does not take at once is owed. Nothing is owed before.
fn reply(
    stream: &mut Stream,
    shared: &Shared,
    card: &Card,
    owed: &mut Owed,
    wakeup: &mut Wakeup<'_>,
    output: &mut Vec<u8>,
) -> io::Result<()> {
    if !output.is_empty() {
        let sent = match Pin::new(stream).poll_write(wakeup, output) {
            Poll::Ready(sent) => sent?,
            Poll::Pending => 0,
        };
        if sent < output.len() {
            *owed = Owed { bytes: mem::take(output), sent };
            card.touch(shared.clock.now(), true);
        }
        output.clear();
        output.shrink_to(KEPT_REPLY_BYTES);
    }
    Ok(())
}

/// The requests of one read, and what they need.
struct Batch<'a> {
    shared: &'a Arc<Shared>,
    client: &'a mut Client,
    parser: &'a mut Parser,
    input: &'a [u8],
}

impl Batch<'_> {
    /// Runs every request that has arrived in full, and writes the replies to `output`.
    fn run(self, output: &mut Vec<u8>) -> (BatchEnd, Option<Wait>) {
        let Batch { shared, client, parser, input } = self;
        let now = shared.clock.now();
        client.card.touch(now, false);
        let reply = Reply::new(output, client.protocol);
        let mut ctx = Context {
            shared,
            client,
            reply,
            now,
            work: 0,
            hits: 0,
            misses: 0,
            view: shared.reader.view(),
            waits: None,
            in_exec: false,
        };
        let mut commands = 0;
        let end = loop {
            let is_known = ctx.client.user.is_some();
            let most_owed = if is_known { MOST_OWED_BYTES } else { MOST_OWED_BYTES_BEFORE_AUTH };
            if ctx.reply.len() > most_owed || ctx.work > MOST_WORK {
                break BatchEnd::Cut;
            }
            match parser.next(input, is_known) {
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
                Outcome::Waits => break BatchEnd::Waits,
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
        (end, ctx.waits)
    }
}

/// Tells a client that its bytes make no sense.
fn give_up(ctx: &mut Context<'_>, error: ProtocolError) {
    let Context { shared, client, now, .. } = ctx;
    debug!(client = client.card.id, ?error, "RESP protocol error: connection closed");
    if error == ProtocolError::TlsHello
        && shared.tls.is_none()
        && let Some(unsaid) = shared.refusals.tls_hellos.spend(*now)
    {
        warn!(
            peer = %client.card.peer, unsaid,
            "a client speaks TLS on the plain Redis port; have it use redis://, or set resp.tls"
        );
    }
    if let Some(text) = error.text() {
        ctx.reply.error_quoting(&[&b"ERR "[..], &text].concat());
    }
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod tests;
