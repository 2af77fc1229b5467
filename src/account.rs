//! The vocabulary of quotas: whose calls of what, and how many. No I/O, no clock.

use std::sync::Arc;
use std::time::SystemTime;

/// Whose calls of what. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Account {
    /// The account: an appid, a corpid …
    pub name: Arc<str>,
    /// The endpoint: the path of the address.
    pub endpoint: Arc<str>,
}

/// The calls of one account and endpoint in one Beijing day; those of the endpoint that resets the others
/// in one month.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Days since the Unix epoch, in Beijing. Of a month, its first day.
    pub day: u64,
    /// All calls of the day, or of the month.
    pub made: u32,
    /// Those that asked for a new value although the old one was good.
    pub forced_new: u32,
    /// When the last of those was, in Unix seconds.
    pub last_forced_new: u64,
}

/// Requests of a source whose outcome is not known: they may have ended the value that is served, or
/// begun the life of the next one. Kept on disk, so that a crash leaves no false promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsettled {
    /// When the first of them was sent.
    pub first: SystemTime,
    /// When the last of them was sent.
    pub last: SystemTime,
}
