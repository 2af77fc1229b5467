//! Places in a write where a test has the process abort, wait, or be refused. Empty in a release: the
//! code is there with the feature `failpoints` only.
//!
//! `STORE_FAILPOINTS` says what happens where: `PLACE=ACTION@N`, separated by `;`. It happens the `N`th
//! time the place is reached (`@N`), up to the `M`th (`@N-M`), or from the `N`th time on (`@N-`). Actions: `abort`, `delay` (of
//! milliseconds: `delay:20`), `fail` (as a disk that refuses). Places: see [`PLACES_OF_A_WRITE`] and
//! [`PLACES_OF_A_REPLACEMENT`].

use std::io;

/// The places of a write, in its order.
pub const PLACES_OF_A_WRITE: [&str; 7] = [
    "before the batch",
    "before the flush",
    "before the sync",
    "before the marks",
    "half a mark",
    "between the marks",
    "before the answer",
];

/// The places where a fresh database is put in the place of the old one, in that order.
const PLACES_OF_A_REPLACEMENT: [&str; 2] = ["fresh database built", "old database aside"];

fn is_known(place: &str) -> bool {
    PLACES_OF_A_WRITE.contains(&place) || PLACES_OF_A_REPLACEMENT.contains(&place)
}

/// Does what is asked for at this place.
///
/// # Errors
/// `fail` is asked for.
#[cfg(not(feature = "failpoints"))]
pub(super) fn reached(place: &'static str) -> io::Result<()> {
    debug_assert!(is_known(place));
    Ok(())
}

#[cfg(feature = "failpoints")]
pub(super) use armed::reached;

#[cfg(feature = "failpoints")]
mod armed {
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex, PoisonError};
    use std::time::Duration;

    use super::{io, is_known};

    #[derive(Clone, Copy)]
    enum Action {
        Abort,
        Delay(Duration),
        Fail,
    }

    struct Failpoint {
        action: Action,
        /// The first and the last time that count, from 1 on.
        times: (u64, u64),
        reached: u64,
    }

    static ARMED: LazyLock<Mutex<HashMap<String, Failpoint>>> = LazyLock::new(|| {
        #[expect(clippy::disallowed_methods, reason = "of a test; no setting of the program")]
        let text = std::env::var("STORE_FAILPOINTS").unwrap_or_default();
        let points = text.split(';').filter(|point| !point.is_empty());
        Mutex::new(
            points.map(|point| parse(point).expect("a failpoint is PLACE=ACTION@N")).collect(),
        )
    });

    fn parse(point: &str) -> Option<(String, Failpoint)> {
        let (place, rest) = point.split_once('=')?;
        let (action, at) = rest.split_once('@')?;
        let action = match action.split_once(':') {
            None if action == "abort" => Action::Abort,
            None if action == "fail" => Action::Fail,
            Some(("delay", ms)) => Action::Delay(Duration::from_millis(ms.parse().ok()?)),
            _ => return None,
        };
        let (first, last) = at.split_once('-').unwrap_or((at, at));
        let last = if last.is_empty() { u64::MAX } else { last.parse().ok()? };
        let failpoint = Failpoint { action, times: (first.parse().ok()?, last), reached: 0 };
        is_known(place).then(|| (place.to_owned(), failpoint))
    }

    /// Does what is asked for at this place.
    ///
    /// # Errors
    /// `fail` is asked for.
    pub(in crate::store) fn reached(place: &'static str) -> io::Result<()> {
        let action = {
            let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(point) = armed.get_mut(place) else { return Ok(()) };
            point.reached += 1;
            let (first, last) = point.times;
            (first..=last).contains(&point.reached).then_some(point.action)
        };
        match action {
            None => Ok(()),
            Some(Action::Abort) => std::process::abort(),
            Some(Action::Delay(delay)) => {
                std::thread::sleep(delay);
                Ok(())
            }
            Some(Action::Fail) => Err(io::Error::other("a failpoint refuses")),
        }
    }
}
