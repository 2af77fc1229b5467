//! Tells the time and draws the seeds: the only file that asks the machine for either.
//! Everything else is handed a [`Now`], a [`Clock`] or a seed. Knows no other room.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One reading of both clocks, taken together.
///
/// The wall clock survives a restart but may be stepped; the monotonic one cannot be stepped but
/// stands still while the machine is suspended. Whoever asks how much of a life is left takes the
/// smaller of the two answers, so that neither a step nor a suspend serves a dead token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Wall-clock time.
    pub wall: SystemTime,
    /// Time since the process started (strictly: since its [`Clock`] was made).
    pub mono: Duration,
}

impl Now {
    /// How long ago `earlier` was, by whichever clock says longer.
    pub fn since(self, earlier: Now) -> Duration {
        let wall = self.wall.duration_since(earlier.wall).unwrap_or(Duration::ZERO);
        wall.max(self.mono.saturating_sub(earlier.mono))
    }

    /// How long until `later`, by whichever clock says less; zero once either has come to it.
    pub fn until(self, later: Now) -> Duration {
        let wall = later.wall.duration_since(self.wall).unwrap_or(Duration::ZERO);
        wall.min(later.mono.saturating_sub(self.mono))
    }

    /// Whole seconds since the Unix epoch; 0 for a clock set before it.
    pub fn unix_seconds(self) -> u64 {
        self.wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// The reading at an earlier wall time, as far as the clocks can tell; this one for a later time.
    pub fn back_to(self, wall: SystemTime) -> Now {
        let ago = self.wall.duration_since(wall).unwrap_or(Duration::ZERO);
        Now { wall: wall.min(self.wall), mono: self.mono.saturating_sub(ago) }
    }

    /// The reading `by` later on both clocks.
    pub fn after(self, by: Duration) -> Now {
        Now { wall: self.wall + by, mono: self.mono + by }
    }
}

/// A source of [`Now`] and of seeds. Shared by every room that serves or schedules.
pub trait Clock: std::fmt::Debug + Send + Sync + 'static {
    /// Reads both clocks.
    fn now(&self) -> Now;

    /// Looks whether time has passed that the monotonic clock has not seen. To be called every
    /// [`LOOK_EVERY`].
    fn look(&self) {}

    /// Draws a seed for jitter. A clock that repeats a run repeats the seeds too.
    fn seed(&self) -> u64 {
        seed(self.now())
    }
}

/// How often somebody has to look for hidden time.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Time that the monotonic clock has not seen: a suspend. It is added to that clock from then on, so
/// that a wall clock that is set back later cannot give it back to a token.
#[derive(Debug, Default)]
pub struct HiddenTime {
    seen: Option<Now>,
    total: Duration,
}

impl HiddenTime {
    /// By how much the clocks drift apart between two looks without a suspend, at most.
    const TOLERANCE: Duration = Duration::from_secs(2);

    /// Looks at a reading of the bare clocks; all hidden time so far.
    pub fn look(&mut self, bare: Now) -> Duration {
        if let Some(seen) = self.seen.replace(bare) {
            let hidden = bare.since(seen).saturating_sub(bare.mono.saturating_sub(seen.mono));
            if hidden > HiddenTime::TOLERANCE {
                self.total += hidden;
            }
        }
        self.total
    }
}

/// The clock of the process, as handed around.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clocks. The monotonic one is tokio's, so that a paused runtime pauses it too.
#[derive(Debug)]
pub struct SystemClock {
    started: tokio::time::Instant,
    /// Set when the runtime's clock is a test's: the wall clock then follows the monotonic one.
    wall_at_start: Option<SystemTime>,
    hidden: Mutex<HiddenTime>,
    /// All hidden time so far, in milliseconds, for readers that take no lock.
    hidden_ms: AtomicU64,
}

impl SystemClock {
    /// The real clocks.
    #[expect(clippy::disallowed_methods, reason = "this is the room that asks the time")]
    pub fn shared() -> SharedClock {
        Arc::new(SystemClock::started_at(tokio::time::Instant::now(), None))
    }

    /// A clock whose wall time starts at `wall` and then follows tokio's clock, which a test may
    /// have paused: both advance together.
    #[expect(clippy::disallowed_methods, reason = "this is the room that asks the time")]
    pub fn following_tokio(wall: SystemTime) -> SharedClock {
        Arc::new(SystemClock::started_at(tokio::time::Instant::now(), Some(wall)))
    }

    fn started_at(started: tokio::time::Instant, wall_at_start: Option<SystemTime>) -> SystemClock {
        SystemClock {
            started,
            wall_at_start,
            hidden: Mutex::default(),
            hidden_ms: AtomicU64::new(0),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this is the room that asks the time")]
    fn bare(&self) -> Now {
        let mono = self.started.elapsed();
        let wall = match self.wall_at_start {
            None => SystemTime::now(),
            Some(start) => start + mono,
        };
        Now { wall, mono }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let bare = self.bare();
        let hidden = Duration::from_millis(self.hidden_ms.load(Ordering::Relaxed));
        Now { mono: bare.mono + hidden, ..bare }
    }

    fn look(&self) {
        // What a panic could leave half done here is one addition.
        let mut hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        let total = hidden.look(self.bare()).as_millis();
        self.hidden_ms.store(u64::try_from(total).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Fills `buffer` with bytes from the operating system's generator.
///
/// # Errors
/// The operating system has no generator to offer (an early boot, a broken chroot).
#[expect(clippy::disallowed_methods, reason = "this is the room that draws randomness")]
pub fn random(buffer: &mut [u8]) -> Result<(), std::io::Error> {
    getrandom::fill(buffer).map_err(std::io::Error::other)
}

/// Falls back on the clock: jitter need not be secret.
fn seed(now: Now) -> u64 {
    let mut bytes = [0; 8];
    match random(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => now.wall.duration_since(UNIX_EPOCH).map_or(1, |d| d.subsec_nanos().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: u64, mono: u64) -> Now {
        Now { wall: UNIX_EPOCH + Duration::from_secs(wall), mono: Duration::from_secs(mono) }
    }

    #[test]
    fn the_longer_of_the_two_clocks_counts() {
        // (later wall, later mono) after an earlier reading of (100, 10)
        for (wall, mono, expected) in [
            (105, 15, 5),       // both agree
            (3_700, 15, 3_600), // suspended, or stepped forwards
            (40, 15, 5),        // stepped backwards
            (100, 10, 0),
        ] {
            assert_eq!(at(wall, mono).since(at(100, 10)), Duration::from_secs(expected));
        }
    }

    #[test]
    fn time_that_was_slept_through_stays_counted() {
        let mut hidden = HiddenTime::default();
        for (wall, mono, total) in [
            (100, 10, 0),
            (110, 20, 0),
            (3_710, 20, 3_600), // suspended for an hour
            (3_720, 30, 3_600),
            (100, 40, 3_600), // set back: nothing is given back
            (111, 50, 3_600), // slewed a little
            (172, 60, 3_651), // set forwards: as if it had been slept through
        ] {
            assert_eq!(hidden.look(at(wall, mono)), Duration::from_secs(total), "{wall}, {mono}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_following_clock_advances_with_the_runtime() {
        let clock = SystemClock::following_tokio(UNIX_EPOCH + Duration::from_secs(1_000));
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(clock.now(), at(1_007, 7));
    }
}
