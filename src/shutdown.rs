//! Going down in order: the signals, the drain that every room watches, the grace period.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;

/// Tells every room to finish what is in flight and take nothing new. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Drain(Arc<Part>);

#[derive(Debug, Default)]
struct Part {
    token: CancellationToken,
    tasks: TaskTracker,
    /// The tasks of the drain that this one is a part of.
    whole: Option<TaskTracker>,
}

impl Drain {
    /// A drain that has not begun.
    pub fn new() -> Drain {
        Drain::default()
    }

    /// A part of this drain: begins with it, or alone. Its tasks are waited for by both. A part has no
    /// parts of its own: there are as many as sources, and each would keep a list of those above it.
    pub fn part(&self) -> Drain {
        debug_assert!(self.0.whole.is_none(), "its tasks would not be waited for by all above");
        let (token, tasks) = (self.0.token.child_token(), TaskTracker::new());
        Drain(Arc::new(Part { token, tasks, whole: Some(self.0.tasks.clone()) }))
    }

    /// Begins it.
    pub fn begin(&self) {
        self.0.token.cancel();
        self.0.tasks.close();
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.0.token.is_cancelled()
    }

    /// Ends when it begins.
    pub fn begun(&self) -> WaitForCancellationFuture<'_> {
        self.0.token.cancelled()
    }

    /// Starts a task that the drain waits for.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let counted = self.0.whole.as_ref().map(TaskTracker::token);
        // Not an async block, which would have room for the task twice: as given, and as awaited.
        self.0.tasks.spawn(task.map(move |()| drop(counted)));
    }

    /// Waits until every task started with [`Drain::spawn`] has ended.
    pub async fn finished(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Whether every task has ended, once it has begun.
    pub fn has_finished(&self) -> bool {
        self.0.tasks.is_closed() && self.0.tasks.is_empty()
    }
}

/// What the process is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Go down; the signal's name.
    Stop(&'static str),
    /// Read the config again (SIGHUP).
    Reload,
}

/// The signals that are listened to.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    /// Listens from now on: what comes before [`Signals::next`] is called counts.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn listen() -> Result<Signals, std::io::Error> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one that ends the process; a wish to reload is not kept for later.
    pub async fn stop(&mut self) -> &'static str {
        loop {
            if let Signal::Stop(signal) = self.next().await {
                return signal;
            }
        }
    }

    /// The next one. Those of one kind that come together are one; the end goes first.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Signal::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Signal::Stop("SIGINT"),
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_drains_alone_or_with_the_whole_which_waits_for_it() {
        let whole = Drain::new();
        let (one, other) = (whole.part(), whole.part());
        for drain in [&one, &other] {
            let begun = drain.clone();
            drain.spawn(async move { begun.begun().await });
        }
        one.begin();
        one.finished().await;
        assert!(one.has_finished() && !whole.has_begun() && !other.has_begun());
        let second = std::time::Duration::from_secs(1);
        let early = tokio::time::timeout(second, whole.finished()).await;
        assert!(early.is_err(), "the other one is not done");
        whole.begin();
        whole.finished().await;
        assert!(other.has_begun());
    }
}
