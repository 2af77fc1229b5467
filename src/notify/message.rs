//! What is told: one message with everything that happened at about the same time. Never a value, a key
//! or an address of the upstream.

use std::sync::Arc;
use std::time::SystemTime;

use crate::snapshot::{CallsUsed, Trouble};
use crate::token::SourceName;

/// How many items a message has at most; the rest is counted. With ten thousand sources on one upstream
/// all of them fail at once.
pub(super) const MOST_ITEMS: usize = 100;

/// A message to one receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// Which one it is: the same for each attempt to deliver it, so that a receiver knows it again.
    pub id: String,
    /// When it was put together.
    pub at: SystemTime,
    /// The server that tells.
    pub server: Arc<str>,
    /// What happened, what is worst first.
    pub items: Vec<Item>,
    /// How many items there were beyond [`MOST_ITEMS`].
    pub left_out: usize,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// A source's renewals fail.
    Failing {
        /// Whose.
        source: SourceName,
        /// Since when.
        since: SystemTime,
        /// Why the last one did.
        trouble: Arc<Trouble>,
        /// Until when its token works; `None`: it has none that does.
        until: Option<SystemTime>,
    },
    /// A source's renewals come off again.
    Recovered {
        /// Whose.
        source: SourceName,
        /// When they began to fail.
        since: SystemTime,
        /// When they came off again.
        at: SystemTime,
        /// Until when its token works.
        until: Option<SystemTime>,
    },
    /// An account's calls of the day run out.
    Quota(Arc<CallsUsed>),
    /// A value was refused that should have been good.
    Foreign {
        /// Whose.
        source: SourceName,
        /// When, the last time.
        at: SystemTime,
        /// How often since it was told last.
        times: u32,
    },
    /// Nothing: somebody tries whether messages arrive.
    Test,
}

impl Item {
    /// What is worst comes first, then by name.
    pub(super) fn rank(&self) -> (u8, &str) {
        match self {
            Item::Failing { source, until: None, .. } => (0, source.as_str()),
            Item::Failing { source, .. } => (1, source.as_str()),
            Item::Quota(used) => (2, &used.account.name),
            Item::Foreign { source, .. } => (3, source.as_str()),
            Item::Recovered { source, .. } => (4, source.as_str()),
            Item::Test => (5, ""),
        }
    }
}
