//! The body of an answer on its way out: whole, cut off, dripping or huge. Decides nothing.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

/// How much a huge answer brings.
pub(super) const HUGE_BYTES: usize = 64 * 1024 * 1024;
/// It is sent in pieces that share one buffer, so that it costs its sender nothing.
const HUGE_PIECE: usize = 64 * 1024;

/// The body was cut off on purpose.
#[derive(Debug)]
pub(super) struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut off, as asked")
    }
}

impl std::error::Error for Cut {}

/// See the head of this file.
pub(super) enum AnswerBody {
    /// All at once.
    Whole(Bytes),
    /// These bytes, then a broken connection.
    Broken {
        /// What is still to be sent.
        bytes: Bytes,
        /// Whether what was sent has had its chance to leave.
        flushed: bool,
    },
    /// One byte at a time.
    Drip {
        /// What is still to be sent.
        rest: Bytes,
        /// The pause before each byte.
        delay: Duration,
        /// Until the next byte.
        pause: Pin<Box<Sleep>>,
    },
    /// A beginning, then the same piece over and over.
    Huge {
        /// What comes before the pieces.
        start: Bytes,
        /// The piece.
        piece: Bytes,
        /// Bytes still to be sent after the start.
        left: usize,
    },
}

impl AnswerBody {
    /// All at once.
    pub(super) fn whole(bytes: impl Into<Bytes>) -> AnswerBody {
        AnswerBody::Whole(bytes.into())
    }

    /// The first half of `bytes`, then a broken connection.
    pub(super) fn half_of(bytes: &Bytes) -> AnswerBody {
        AnswerBody::Broken { bytes: bytes.slice(..bytes.len() / 2), flushed: false }
    }

    /// One byte at a time with this pause before each.
    pub(super) fn dripping(rest: Bytes, delay: Duration) -> AnswerBody {
        AnswerBody::Drip { rest, delay, pause: Box::pin(tokio::time::sleep(delay)) }
    }

    /// [`HUGE_BYTES`], beginning like a right answer.
    pub(super) fn huge() -> AnswerBody {
        let start = Bytes::from_static(b"{\"access_token\":\"");
        let left = HUGE_BYTES - start.len();
        AnswerBody::Huge { start, piece: vec![b'x'; HUGE_PIECE].into(), left }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let some = |bytes| Poll::Ready(Some(Ok(Frame::data(bytes))));
        match self.get_mut() {
            AnswerBody::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            AnswerBody::Whole(bytes) => some(std::mem::take(bytes)),
            AnswerBody::Broken { bytes, .. } if !bytes.is_empty() => some(std::mem::take(bytes)),
            AnswerBody::Broken { flushed: true, .. } => Poll::Ready(Some(Err(Cut))),
            AnswerBody::Broken { flushed, .. } => {
                // An error discards what is still buffered: one turn lets the connection send it.
                *flushed = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            AnswerBody::Drip { rest, .. } if rest.is_empty() => Poll::Ready(None),
            AnswerBody::Drip { rest, delay, pause } => {
                std::task::ready!(pause.as_mut().poll(context));
                let next = pause.deadline() + *delay;
                pause.as_mut().reset(next);
                some(rest.split_to(1))
            }
            AnswerBody::Huge { start, .. } if !start.is_empty() => some(std::mem::take(start)),
            AnswerBody::Huge { left: 0, .. } => Poll::Ready(None),
            AnswerBody::Huge { piece, left, .. } => {
                let next = piece.slice(..piece.len().min(*left));
                *left -= next.len();
                some(next)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            AnswerBody::Drip { rest, .. } => SizeHint::with_exact(rest.len() as u64),
            // The one's length is a lie that its header tells, the other's is not announced.
            AnswerBody::Broken { .. } | AnswerBody::Huge { .. } => SizeHint::default(),
        }
    }
}
