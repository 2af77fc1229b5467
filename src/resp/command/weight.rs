//! How much memory a client's own doing takes, beside what is read and sent: about, and in constant
//! time, since it is asked after each batch.

use crate::resp::command::transaction::Transaction;
use crate::resp::command::{Client, Extra};

/// What a name or key costs beside its own bytes: its place in a tree or table, there and in the
/// audience.
const ROW_BYTES: usize = 128;

impl Client {
    /// How much memory it holds, in bytes; nothing, for one that just reads.
    pub(in crate::resp) fn held_bytes(&self) -> usize {
        let Some(extra) = &self.extra else { return 0 };
        let Extra { transaction, watched, channels, patterns, subscribed_bytes, tracks, .. } =
            &**extra;
        let rows = channels.len() + patterns.len() + watched.len();
        let transaction = transaction.as_ref().map_or(0, Transaction::size);
        let cached = match tracks {
            true => self.card.mail().tracking.as_ref().map_or(0, |tracking| tracking.size()),
            false => 0,
        };
        transaction + subscribed_bytes + rows * ROW_BYTES + cached
    }
}
