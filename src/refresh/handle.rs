//! The one way back into the engine: "a record newer than generation g, please".
//! Carries messages; decides nothing.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use crate::refresh::switchboard::{Line, Lines, Switchboard};
use crate::snapshot::Published;
use crate::token::{Generation, SourceName};

/// How many requests may wait for one source's refresher. Each is a client that holds a connection;
/// more than this at once is an attack or a loop, and is refused rather than remembered.
pub(super) const MAX_WAITING: usize = 4_096;

/// Why a forced refresh brought no newer token. `Display` is what a client is told: no secret, no
/// address of the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefreshError {
    /// There is no source of this name.
    UnknownSource,
    /// The attempt failed; what went wrong, for the client.
    Failed(Arc<str>),
    /// Too many clients wait for this source already.
    TooMany,
    /// The server is going down.
    Draining,
    /// The refresher broke down before it could answer; it has been restarted.
    Lost,
}

impl fmt::Display for RefreshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RefreshError::UnknownSource => f.write_str("unknown type"),
            RefreshError::Failed(what) => f.write_str(what),
            RefreshError::TooMany => f.write_str("too many refreshes are waiting, try again later"),
            RefreshError::Draining => f.write_str("the server is shutting down"),
            RefreshError::Lost => f.write_str("the refresh was interrupted, try again"),
        }
    }
}

impl std::error::Error for RefreshError {}

/// Who asks for a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A client; subject to the cooldown.
    Client,
    /// The refresher of a dependent, whose request was refused with the token it knows.
    Dependent,
}

/// A wish for a newer token, on its way to the source's refresher.
#[derive(Debug)]
pub struct RefreshRequest {
    /// The generation the client knows; `None` if it knows of no token.
    pub newer_than: Option<Generation>,
    /// Who asks.
    pub cause: Cause,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Arc<Published>, RefreshError>>,
}

/// The receiving end of one source's requests; its refresher holds it.
pub type RequestQueue = mpsc::Receiver<RefreshRequest>;

/// Makes the handle for a set of sources that never changes, and each one's [`RequestQueue`], in the
/// same order.
pub fn queue(names: impl IntoIterator<Item = SourceName>) -> (Vec<RequestQueue>, RefreshHandle) {
    let (queues, lines): (Vec<_>, Vec<_>) = names
        .into_iter()
        .map(|name| {
            let (line, queue) = Line::new();
            (queue, (name, line))
        })
        .unzip();
    let mut switchboard = Switchboard::default();
    switchboard.connect(lines);
    (queues, switchboard.handle())
}

/// The right to ask for a refresh. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RefreshHandle {
    pub(super) lines: Arc<ArcSwap<Lines>>,
}

impl RefreshHandle {
    /// Asks for a token newer than `newer_than`, and waits for the outcome.
    ///
    /// However many ask at once, they share one fetch. Within the cooldown, or when a newer token
    /// is there already, the current one is the answer at once.
    ///
    /// # Errors
    /// See [`RefreshError`]; the current token, if any, goes on being served.
    pub async fn refresh(
        &self,
        source: &str,
        newer_than: Option<Generation>,
    ) -> Result<Arc<Published>, RefreshError> {
        self.ask(source, newer_than, Cause::Client).await
    }

    /// As [`RefreshHandle::refresh`], for whichever cause.
    pub(super) async fn ask(
        &self,
        source: &str,
        newer_than: Option<Generation>,
        cause: Cause,
    ) -> Result<Arc<Published>, RefreshError> {
        loop {
            let line = self.lines.load().get(source).cloned().ok_or(RefreshError::UnknownSource)?;
            let (reply, answer) = oneshot::channel();
            let sent = line.0.try_send(RefreshRequest { newer_than, cause, reply });
            let answer = match sent {
                Ok(()) => answer.await.unwrap_or(Err(RefreshError::Lost)),
                Err(mpsc::error::TrySendError::Full(_)) => Err(RefreshError::TooMany),
                Err(mpsc::error::TrySendError::Closed(_)) => Err(RefreshError::Draining),
            };
            if self.leads_through(source, &line) {
                return answer;
            }
            // A reload let that refresher go meanwhile, so its answer may be of a token that is not
            // served any more: whoever is in its place knows. If nobody is, the source is gone.
        }
    }

    /// Whether a source is still asked through `line`.
    fn leads_through(&self, source: &str, line: &Line) -> bool {
        self.lines.load().get(source).is_some_and(|current| current.0.same_channel(&line.0))
    }
}
