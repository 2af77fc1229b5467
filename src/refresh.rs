//! The refresh engine: keeps each source's token fresh, ahead of its end.
//!
//! What it promises: a token is on disk before anybody sees it; one request at most is under way
//! for a source; a failure never touches a good token; nothing stops the loop for good.
//! The decisions are in `machine` and `schedule` (pure), the doing is in `driver`.

mod driver;
mod handle;
mod ledger;
mod life;
mod line;
mod machine;
mod meters;
mod places;
mod quota;
mod report;
mod schedule;
mod switchboard;

pub use driver::{Kept, Refresher, Shared, Tools};
pub use handle::{RefreshError, RefreshHandle, RefreshRequest, Refused, Wish, queue};
pub use ledger::{Admitted, Denied, Ledger, Purpose};
pub use line::{Line, RequestQueue};
pub use machine::{Effect, Event, Machine, WaiterId};
pub use meters::{Meters, Timings};
pub use quota::reset_quota;
pub use report::Report;
pub use switchboard::Switchboard;
