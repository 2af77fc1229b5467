//! Who may ask: compares the secret a client sent with ours, in constant time. Knows no source, so
//! that a caller without the secret learns nothing about which exist.

use std::net::SocketAddr;

use crate::clock::Now;
use crate::token::Secret;

use crate::log_budget::LogBudget;

/// The shared secret, and the log of those who do not know it.
#[derive(Debug)]
pub(super) struct Gate {
    secret: Secret,
    refusals: LogBudget,
}

impl Gate {
    pub(super) fn new(secret: Secret) -> Gate {
        Gate { secret, refusals: LogBudget::default() }
    }

    /// Whether a client that sent this (`None`: no secret at all) may go on.
    pub(super) fn admits(&self, sent: Option<&[u8]>) -> bool {
        sent.is_some_and(|sent| self.secret.matches(sent))
    }

    /// Notes that a client was turned away. Reads are noted for debugging only: a client that polls
    /// with an old secret would otherwise be the loudest voice in the log.
    pub(super) fn turned_away(&self, peer: SocketAddr, forced: bool, now: Now) {
        if !forced {
            tracing::debug!(%peer, "HTTP read refused: no type, or not the secret");
        } else if let Some(unsaid) = self.refusals.spend(now) {
            tracing::warn!(%peer, unsaid, "forced refresh refused: no type, or not the secret");
        }
    }
}
