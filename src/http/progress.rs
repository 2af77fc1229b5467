//! How far a connection is with its request: noted by the socket as bytes pass and by the service
//! around the handler, read by the connection's deadline. Closes nothing itself.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

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

    /// See [`Attended`].
    pub(super) fn attend(self: &Arc<Progress>) -> Attended {
        self.is_attended.store(true, Ordering::Relaxed);
        Attended(Arc::clone(self))
    }

    /// Notes whether the request that was answered last had a body that was not read.
    pub(super) fn left_body_unread(&self, unread: bool) {
        self.body_unread.store(unread, Ordering::Relaxed);
    }
}

/// A client's socket that notes its steps.
#[derive(Debug)]
pub(super) struct NotingStream {
    stream: TcpStream,
    progress: Arc<Progress>,
    /// Whether the client has sent anything yet.
    heard: bool,
    lingered: usize,
}

impl NotingStream {
    pub(super) fn new(stream: TcpStream, progress: Arc<Progress>) -> NotingStream {
        NotingStream { stream, progress, heard: false, lingered: 0 }
    }

    fn written(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
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
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.heard = true;
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
        // hyper flushes each time that it has looked at everything, and reads nothing while an answer
        // is in the making.
        if self.progress.is_attended.load(Ordering::Relaxed) {
            let mut byte = [0];
            let seen = self.stream.poll_peek(cx, &mut ReadBuf::new(&mut byte));
            if let Poll::Ready(Ok(0) | Err(_)) = seen {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
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
