//! Going down in order: the signal, the drain that every room watches, the grace period.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tells every room to finish what is in flight and take nothing new. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    /// A drain that has not begun.
    pub fn new() -> Drain {
        Drain::default()
    }

    /// Begins it.
    pub fn begin(&self) {
        self.token.cancel();
        self.tasks.close();
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Ends when it begins.
    pub async fn begun(&self) {
        self.token.cancelled().await;
    }

    /// Starts a task that the drain waits for.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Waits until every task started with [`Drain::spawn`] has ended.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Ends at the first SIGTERM or SIGINT, and says which it was.
///
/// # Errors
/// The handlers cannot be installed.
pub fn signals() -> Result<impl Future<Output = &'static str>, std::io::Error> {
    // Installed here, not in the future: a signal that comes before it is polled must count.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}
