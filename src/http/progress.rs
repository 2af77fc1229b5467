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
}

/// The phase, and a mark that changes with each step. One task writes and reads it, so no ordering
/// is needed; atomic only because the task may move between threads.
#[derive(Debug, Default)]
pub(super) struct Progress {
    steps_and_phase: AtomicU32,
    body_unread: AtomicBool,
    at_rest: AtomicBool,
    tls_hello: AtomicBool,
}

impl Progress {
    /// A mark that differs from the last one if anything moved since.
    pub(super) fn mark(&self) -> u32 {
        self.steps_and_phase.load(Ordering::Relaxed)
    }

    pub(super) fn phase(&self) -> Phase {
        match self.mark() & 3 {
            0 => Phase::Head,
            1 => Phase::Handler,
            2 => Phase::Client,
            _ => Phase::Farewell,
        }
    }

    /// Notes a step into this phase, or within it.
    pub(super) fn step(&self, phase: Phase) {
        let next = (self.mark() & !3).wrapping_add(4) | phase as u32;
        self.steps_and_phase.store(next, Ordering::Relaxed);
    }

    /// Whether everything is answered and sent, and no next request is there in full: whoever reads and
    /// writes the connection holds nothing but a part of a head.
    pub(super) fn is_at_rest(&self) -> bool {
        matches!(self.phase(), Phase::Head | Phase::Client) && self.at_rest.load(Ordering::Relaxed)
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

/// Whether `bytes`, of which the last `fresh` were not looked at before, are to be read as a request: they
/// hold the empty line at the end of a head, or cannot become one.
fn is_request(bytes: &[u8], fresh: usize) -> bool {
    // The end may have begun before: `\n\r\n`, or `\n\n` from clients that are careless.
    let unseen = &bytes[bytes.len().saturating_sub(fresh + 2)..];
    let has_end = unseen.windows(2).any(|pair| pair == b"\n\n")
        || unseen.windows(3).any(|three| three == b"\n\r\n");
    // A method is letters; and an empty line before it does no harm. TLS begins with neither.
    let is_text =
        bytes.first().is_none_or(|first| first.is_ascii_alphabetic() || b"\r\n".contains(first));
    has_end || !is_text || bytes.len() >= MAX_HEAD_BYTES
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
    lingered: usize,
}

impl NotingStream {
    pub(super) fn new(stream: Stream, progress: Arc<Progress>) -> NotingStream {
        let rewound = Vec::new();
        NotingStream { stream, progress, heard: false, dry: false, rewound, lingered: 0 }
    }

    /// Has these bytes, which were read from here, read again.
    pub(super) fn rewind(&mut self, bytes: &[u8]) {
        // A copy: the bytes may be a corner of a large buffer.
        self.rewound = bytes.to_vec();
    }

    /// Waits until there is a request to read: a whole head, more than a head may have, what is none, or
    /// the end. What has arrived until then is kept for who reads, in as much room as it needs.
    pub(super) fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                // An error is found again by who reads, as is the end.
                let read = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
                let read = read.map(|_| buffer.filled().len());
                self.rewound.reserve_exact(buffer.filled().len());
                self.rewound.extend_from_slice(buffer.filled());
                read
            });
            let read = ready!(read);
            if read == 0 || is_request(&self.rewound, read) {
                return Poll::Ready(());
            }
            self.heard = true;
            // On a new connection the time for the head runs from the accept.
            if self.progress.phase() == Phase::Client {
                self.progress.step(Phase::Head);
            }
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
            if !self.heard {
                self.heard = true;
                let begins_with_tls = buffer.filled()[before] == HANDSHAKE_RECORD;
                self.progress.tls_hello.store(begins_with_tls, Ordering::Relaxed);
            }
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
    fn a_head_is_waited_for_however_it_comes() {
        for (text, whole) in [
            ("G", false),
            ("GET / HTTP/1.1\r\nhost: x\r\n", false),
            ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", true),
            ("GET / HTTP/1.1\n\n", true),
            ("\r\nGET / HTTP/1.1\r\n", false),
            ("\x16\x03\x01", true),
            ("\0", true),
        ] {
            let bytes = text.as_bytes();
            assert_eq!(is_request(bytes, bytes.len()), whole, "{text:?}");
            // Byte by byte: the end is noticed with its last byte, wherever the reads were cut.
            let first = (1..=bytes.len()).find(|length| is_request(&bytes[..*length], 1));
            let expected =
                if bytes[0].is_ascii_control() && bytes[0] != b'\r' { 1 } else { bytes.len() };
            assert_eq!(first, whole.then_some(expected), "{text:?}");
        }
        let long = vec![b'a'; MAX_HEAD_BYTES];
        assert!(is_request(&long, 1) && !is_request(&long[1..], 1));
    }
}
