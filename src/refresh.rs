//! The refresh engine: keeps each source's token fresh, ahead of its end.
//!
//! What it promises: a token is on disk before anybody sees it; one request at most is under way
//! for a source; a failure never touches a good token; nothing stops the loop for good.
//! The decisions are in `machine` and `schedule` (pure), the doing is in `driver`.

mod driver;
mod handle;
mod machine;
mod schedule;
mod switchboard;

pub use driver::{Refresher, Tools};
pub use handle::{Cause, RefreshError, RefreshHandle, RefreshRequest, RequestQueue, queue};
pub use machine::{Effect, Event, Machine, Report, WaiterId};
pub use switchboard::{Line, Switchboard};
