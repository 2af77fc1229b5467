//! The line to one refresher: wishes go in at one end, its refresher takes them out at the other.
//! Carries; decides nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::refresh::handle::RefreshRequest;

/// How many wishes may be on their way to one source's refresher, which takes them in at once.
const MAX_QUEUED: usize = 1_024;

/// The way to one refresher's [`RequestQueue`]. Cheap to clone: each clone leads to the same one.
///
/// Not one of tokio's channels, which are made for a stream of messages and keep room for it: of ten
/// thousand lines, all but a few are silent.
#[derive(Debug, Clone)]
pub struct Line(Arc<Wire>);

/// The receiving end of one source's wishes; its refresher holds it. What still waits in it when it
/// is dropped is not answered.
#[derive(Debug)]
pub struct RequestQueue(Arc<Wire>);

#[derive(Debug, Default)]
struct Wire {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: VecDeque<RefreshRequest>,
    nobody_takes_them: bool,
}

/// Why a wish could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendError {
    /// Too many are on their way.
    Full,
    /// There is no refresher at the other end any more.
    Closed,
}

impl Wire {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Whole after each call, whoever panicked.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// A line and its end. What is asked before a refresher takes the end up waits in it.
    pub fn new() -> (Line, RequestQueue) {
        let wire = Arc::new(Wire::default());
        (Line(Arc::clone(&wire)), RequestQueue(wire))
    }

    /// Puts a wish on its way.
    pub(super) fn send(&self, request: RefreshRequest) -> Result<(), SendError> {
        let mut waiting = self.0.waiting();
        if waiting.nobody_takes_them {
            return Err(SendError::Closed);
        }
        if waiting.requests.len() >= MAX_QUEUED {
            // Those who gave up waiting leave their places to others.
            waiting.requests.retain(|request| !request.reply.is_closed());
        }
        if waiting.requests.len() >= MAX_QUEUED {
            return Err(SendError::Full);
        }
        waiting.requests.push_back(request);
        drop(waiting);
        self.0.arrived.notify_one();
        Ok(())
    }

    /// Whether both lead to the same refresher.
    pub(super) fn is(&self, other: &Line) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl RequestQueue {
    /// The next wish, in the order in which they came; waits for one. Nothing is lost when the wait
    /// is given up.
    pub async fn next(&mut self) -> RefreshRequest {
        loop {
            // What arrives between this look and the wait has left word with `arrived`.
            if let Some(request) = self.take() {
                return request;
            }
            self.0.arrived.notified().await;
        }
    }

    fn take(&mut self) -> Option<RefreshRequest> {
        let mut waiting = self.0.waiting();
        let request = waiting.requests.pop_front();
        if waiting.requests.is_empty() {
            waiting.requests = VecDeque::new();
        }
        request
    }
}

impl Drop for RequestQueue {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.nobody_takes_them = true;
        let left = std::mem::take(&mut waiting.requests);
        drop(waiting);
        // Whoever waits for these is told by their going.
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::refresh::handle::{RefreshError, Wish};
    use crate::snapshot::Published;
    use crate::token::Generation;

    type Answer = oneshot::Receiver<Result<Arc<Published>, RefreshError>>;

    fn request(generation: u64) -> (RefreshRequest, Answer) {
        let (reply, answer) = oneshot::channel();
        let wish = Wish::Newer { generation: Generation(generation) };
        (RefreshRequest { wish, reply }, answer)
    }

    #[tokio::test]
    async fn wishes_come_in_order_and_wake_who_waits_for_them() {
        let (line, mut queue) = Line::new();
        let taker = tokio::spawn(async move {
            let mut taken = Vec::new();
            for _ in 0..3 {
                taken.push(queue.next().await.wish);
            }
            taken
        });
        let mut expected = Vec::new();
        for generation in 0..3 {
            let (request, _) = request(generation);
            expected.push(request.wish);
            line.send(request).unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(taker.await.unwrap(), expected);
    }

    #[test]
    fn a_line_is_bounded() {
        let (line, _queue) = Line::new();
        let mut answers = Vec::new();
        for _ in 0..MAX_QUEUED {
            let (request, answer) = request(0);
            line.send(request).unwrap();
            answers.push(answer);
        }
        assert_eq!(line.send(request(0).0), Err(SendError::Full));
        // One who gives up makes room for one.
        answers.pop();
        let (next, _answer) = request(0);
        line.send(next).unwrap();
        assert_eq!(line.send(request(0).0), Err(SendError::Full));
    }

    #[tokio::test]
    async fn who_waits_is_told_when_nobody_takes_wishes_any_more() {
        let (line, queue) = Line::new();
        let (request_before, answer) = request(0);
        line.send(request_before).unwrap();
        drop(queue);
        assert!(answer.await.is_err());
        assert_eq!(line.send(request(0).0), Err(SendError::Closed));
    }
}
