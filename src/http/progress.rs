//! How far a connection is with its request: noted by the socket as bytes pass and by the service
//! around the handler, read by the connection's deadline. Closes nothing itself.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tls::{HANDSHAKE_RECORD, Stream};

use super::form::MAX_BODY_BYTES;

/// What is read and thrown away of a request we refused, in bytes, before the connection closes.
const LINGER_BYTES: usize = 256 * 1024;

/// What a connection is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// The rest of a head; on a new connection also its first byte.
    Head = 0,
    /// The handler, which bounds itself.
    Handler = 1,
    /// The client: to take the answer, then to ask again.
    Client = 2,
    /// The client, to close after it was refused in the middle of a request.
    Farewell = 3,
    /// The rest of a small body, which is gathered with its head.
    Body = 4,
}

/// Where the mark's count begins, above the phase.
const ONE_STEP: u32 = 8;

/// The phase, and a mark that changes with each step. One task writes and reads it, so no ordering
/// is needed; atomic only because the task may move between threads.
#[derive(Debug, Default)]
pub(super) struct Progress {
    steps_and_phase: AtomicU32,
    body_unread: AtomicBool,
    at_rest: AtomicBool,
    tls_hello: AtomicBool,
    is_attended: AtomicBool,
}

/// While it is held, a client that hangs up, or closes its half, is taken for gone: whoever waits for
/// something that may not come for long has nobody else to ask.
#[derive(Debug)]
pub(super) struct Attended(Arc<Progress>);

impl Drop for Attended {
    fn drop(&mut self) {
        self.0.is_attended.store(false, Ordering::Relaxed);
    }
}

impl Progress {
    /// A mark that differs from the last one if anything moved since.
    pub(super) fn mark(&self) -> u32 {
        self.steps_and_phase.load(Ordering::Relaxed)
    }

    pub(super) fn phase(&self) -> Phase {
        match self.mark() % ONE_STEP {
            0 => Phase::Head,
            1 => Phase::Handler,
            2 => Phase::Client,
            3 => Phase::Farewell,
            _ => Phase::Body,
        }
    }

    /// Notes a step into this phase, or within it.
    pub(super) fn step(&self, phase: Phase) {
        let next = (self.mark() & !(ONE_STEP - 1)).wrapping_add(ONE_STEP) | phase as u32;
        self.steps_and_phase.store(next, Ordering::Relaxed);
    }

    /// Whether everything is answered and sent, and no next request is there in full: whoever reads and
    /// writes the connection holds nothing but a part of a head.
    pub(super) fn is_at_rest(&self) -> bool {
        matches!(self.phase(), Phase::Head | Phase::Client) && self.at_rest.load(Ordering::Relaxed)
    }

    /// See [`Attended`].
    pub(super) fn attend(self: &Arc<Progress>) -> Attended {
        self.is_attended.store(true, Ordering::Relaxed);
        Attended(Arc::clone(self))
    }

    /// Notes whether the request that was answered last had a body that was not read.
    pub(super) fn left_body_unread(&self, unread: bool) {
        self.body_unread.store(unread, Ordering::Relaxed);
    }

    /// Whether the first byte was the one that TLS begins with.
    pub(super) fn began_with_tls(&self) -> bool {
        self.tls_hello.load(Ordering::Relaxed)
    }
}

/// The longest head, in bytes. So much is held of each that has not arrived in full, so no more than
/// clients need.
pub(super) const MAX_HEAD_BYTES: usize = 8 * 1024;

thread_local! {
    /// Where it is read to. In use within one poll of one connection, never across.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_HEAD_BYTES].into_boxed_slice());
}

/// The length of the head that `bytes` begin with, of which the last `fresh` were not looked at before;
/// `None` if its end is not there.
fn head_length(bytes: &[u8], fresh: usize) -> Option<usize> {
    // The end may have begun before: `\n\r\n`, or `\n\n` from clients that are careless.
    let unseen = bytes.len().saturating_sub(fresh + 2);
    let ends = |at: &usize| matches!(bytes[*at..], [b'\n', b'\n', ..] | [b'\n', b'\r', b'\n', ..]);
    let end = (unseen..bytes.len()).find(ends)?;
    Some(end + if bytes[end + 1] == b'\n' { 2 } else { 3 })
}

/// Whether a head may begin so: with letters, or an empty line, which does no harm. (TLS begins with
/// neither.)
fn may_become_a_head(bytes: &[u8]) -> bool {
    let begins_well =
        bytes.first().is_none_or(|first| first.is_ascii_alphabetic() || b"\r\n".contains(first));
    begins_well && bytes.len() < MAX_HEAD_BYTES
}

/// The length of the body after this head, if it is one that may be read, and that the client sends by
/// itself; else 0. A mistake in it is for hyper to find.
fn body_length(head: &[u8]) -> usize {
    if !head.starts_with(b"POST ") {
        return 0;
    }
    let mut length = 0;
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.eq_ignore_ascii_case(b"content-length") {
            let text = std::str::from_utf8(value.trim_ascii()).unwrap_or_default();
            length = text.parse().unwrap_or(0);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding")
            || name.eq_ignore_ascii_case(b"expect")
        {
            return 0;
        }
    }
    if length <= MAX_BODY_BYTES { length } else { 0 }
}

/// A client's socket that notes its steps.
#[derive(Debug)]
pub(super) struct NotingStream {
    stream: Stream,
    progress: Arc<Progress>,
    /// Whether the client has sent anything yet.
    heard: bool,
    /// Whether it was read in vain last: the reader waits for a next request.
    dry: bool,
    /// What was read before and is to be read again.
    rewound: Vec<u8>,
    /// How many bytes the request has that is gathered, where its head is there in full; else 0.
    wanted: usize,
    lingered: usize,
}

impl NotingStream {
    pub(super) fn new(stream: Stream, progress: Arc<Progress>) -> NotingStream {
        let rewound = Vec::new();
        NotingStream { stream, progress, heard: false, dry: false, rewound, wanted: 0, lingered: 0 }
    }

    /// Whether the request that is gathered is for a path of `/v1`.
    pub(super) fn is_for_v1(&self) -> bool {
        self.rewound.starts_with(b"POST /v1/")
    }

    /// Has these bytes, which were read from here, read again.
    pub(super) fn rewind(&mut self, bytes: &[u8]) {
        // A copy: the bytes may be a corner of a large buffer.
        self.rewound = bytes.to_vec();
    }

    /// Waits until there is a request to read: a whole head with its small body, more than a head may have,
    /// what is none, or the end. What has arrived until then is kept for who reads, in as much room as it
    /// needs.
    pub(super) fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // It rests already.
        self.progress.at_rest.store(false, Ordering::Relaxed);
        loop {
            let read = ready!(self.poll_gather(cx));
            if read > 0 {
                self.hear(self.rewound.first().copied());
            }
            if self.wanted == 0 {
                match head_length(&self.rewound, read) {
                    Some(head) => self.wanted = head + body_length(&self.rewound[..head]),
                    None if read == 0 || !may_become_a_head(&self.rewound) => {
                        return Poll::Ready(());
                    }
                    None => {}
                }
            }
            if self.wanted > 0 && (read == 0 || self.rewound.len() >= self.wanted) {
                self.wanted = 0;
                return Poll::Ready(());
            }
            // On a new connection the time for the head runs from the accept.
            match self.progress.phase() {
                Phase::Head | Phase::Client if self.wanted > 0 => self.progress.step(Phase::Body),
                Phase::Client => self.progress.step(Phase::Head),
                _ => {}
            }
        }
    }

    /// Reads what has come, keeps it for who reads, in as much room as it needs, and says how many bytes
    /// that were. None: the end or an error, which who reads will find again.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            Pin::new(&mut self.stream).poll_read(cx, &mut buffer).map(|_| {
                self.rewound.reserve_exact(buffer.filled().len());
                self.rewound.extend_from_slice(buffer.filled());
                buffer.filled().len()
            })
        })
    }

    /// Whether the client has hung up, or closed its half. Read, and not peeked at: over TLS the end is
    /// seen by who reads alone, and a next request may stand before it. One that sends more than a
    /// head is not read on: it is there.
    fn has_left(&mut self, cx: &mut Context<'_>) -> bool {
        while self.rewound.len() < MAX_HEAD_BYTES {
            match self.poll_gather(cx) {
                Poll::Ready(0) => return true,
                Poll::Ready(_) => {}
                Poll::Pending => return false,
            }
        }
        false
    }

    /// Notes that something has been read, which begins with this byte.
    fn hear(&mut self, first: Option<u8>) {
        if !self.heard {
            self.heard = true;
            let begins_with_tls = first == Some(HANDSHAKE_RECORD);
            self.progress.tls_hello.store(begins_with_tls, Ordering::Relaxed);
        }
    }

    fn written(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.dry = false;
        self.progress.at_rest.store(false, Ordering::Relaxed);
        // Other phases have stricter limits, which bytes of an older answer must not extend.
        if matches!(written, Poll::Ready(Ok(_))) && self.progress.phase() == Phase::Client {
            self.progress.step(Phase::Client);
        }
        written
    }
}

impl AsyncRead for NotingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = if self.rewound.is_empty() {
            Pin::new(&mut self.stream).poll_read(cx, buffer)
        } else {
            let length = self.rewound.len().min(buffer.remaining());
            buffer.put_slice(&self.rewound[..length]);
            self.rewound.drain(..length);
            self.rewound.shrink_to_fit();
            Poll::Ready(Ok(()))
        };
        self.dry = read.is_pending();
        ready!(read)?;
        self.progress.at_rest.store(false, Ordering::Relaxed);
        if buffer.filled().len() > before {
            self.hear(Some(buffer.filled()[before]));
            if self.progress.phase() == Phase::Client {
                self.progress.step(Phase::Head);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for NotingStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when all that it had to write is written; so where it has found nothing to read
        // before, it is done.
        self.progress.at_rest.store(self.dry, Ordering::Relaxed);
        // It also flushes each time that it has looked at everything, and reads nothing while an answer
        // is in the making.
        if self.progress.is_attended.load(Ordering::Relaxed) && self.has_left(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Closes our half; and where a body or a head was refused in the middle, goes on reading for a
    /// moment: a socket closed with unread bytes is reset, and a reset may overtake the answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        match self.progress.phase() {
            Phase::Farewell => {}
            Phase::Head if self.heard => self.progress.step(Phase::Farewell),
            _ if self.progress.body_unread.load(Ordering::Relaxed) => {
                self.progress.step(Phase::Farewell);
            }
            _ => return Poll::Ready(Ok(())),
        }
        let mut scratch = [0; 4096];
        while self.lingered < LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            match buffer.filled().len() {
                0 => break,
                length => self.lingered += length,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head_is_found_however_it_comes() {
        for (text, expected) in [
            ("GET / HTTP/1.1\r\nhost: x\r\n", None),
            ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", Some(27)),
            ("GET / HTTP/1.1\r\nhost: x\r\n\r\nGET", Some(27)),
            ("GET / HTTP/1.1\n\n", Some(16)),
        ] {
            let bytes = text.as_bytes();
            assert_eq!(head_length(bytes, bytes.len()), expected, "{text:?}");
            // Byte by byte, it is noticed with its last one.
            let first = (1..=bytes.len()).find_map(|length| head_length(&bytes[..length], 1));
            assert_eq!(first, expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_head_is_not_waited_for() {
        for (bytes, may) in [
            (&b"G"[..], true),
            (b"\r\nGET", true),
            (b"\x16\x03\x01", false),
            (b"\0", false),
            (&[b'a'; MAX_HEAD_BYTES], false),
        ] {
            assert_eq!(may_become_a_head(bytes), may, "{:?}", &bytes[..1]);
        }
    }

    #[test]
    fn small_bodies_are_gathered() {
        for (lines, expected) in [
            ("POST / HTTP/1.1\r\nContent-Length:  12 \r\n", 12),
            ("GET / HTTP/1.1\r\ncontent-length: 12\r\n", 0),
            ("POST / HTTP/1.1\r\ncontent-length: 8193\r\n", 0),
            ("POST / HTTP/1.1\r\ncontent-length: x\r\n", 0),
            ("POST / HTTP/1.1\r\ncontent-length: 12\r\nexpect: 100-continue\r\n", 0),
            ("POST / HTTP/1.1\r\ncontent-length: 12\r\ntransfer-encoding: chunked\r\n", 0),
            ("POST / HTTP/1.1\r\nhost: x\r\n", 0),
        ] {
            assert_eq!(body_length(format!("{lines}\r\n").as_bytes()), expected, "{lines:?}");
        }
    }
}
