//! Tells the time and draws the seeds: the only file that asks the machine for either.
//! Everything else is handed a [`Now`], a [`Clock`] or a seed. Knows no other room.

use std::sync::Arc;
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

    /// Draws a seed for jitter. A clock that repeats a run repeats the seeds too.
    fn seed(&self) -> u64 {
        seed(self.now())
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
}

impl SystemClock {
    /// The real clocks.
    #[expect(clippy::disallowed_methods, reason = "this is the room that asks the time")]
    pub fn shared() -> SharedClock {
        Arc::new(SystemClock { started: tokio::time::Instant::now(), wall_at_start: None })
    }

    /// A clock whose wall time starts at `wall` and then follows tokio's clock, which a test may
    /// have paused: both advance together.
    #[expect(clippy::disallowed_methods, reason = "this is the room that asks the time")]
    pub fn following_tokio(wall: SystemTime) -> SharedClock {
        Arc::new(SystemClock { started: tokio::time::Instant::now(), wall_at_start: Some(wall) })
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the room that asks the time")]
    fn now(&self) -> Now {
        let mono = self.started.elapsed();
        let wall = match self.wall_at_start {
            None => SystemTime::now(),
            Some(start) => start + mono,
        };
        Now { wall, mono }
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

    #[tokio::test(start_paused = true)]
    async fn a_following_clock_advances_with_the_runtime() {
        let clock = SystemClock::following_tokio(UNIX_EPOCH + Duration::from_secs(1_000));
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(clock.now(), at(1_007, 7));
    }
}
