//! What is true whatever the engine believes: the time, what goes wrong and until when that is an
//! excuse, and what was found to be wrong with the engine.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use wechat_token_server::clock::{Clock, Now, SharedClock, SystemClock};

const DAY: u64 = 86_400;
/// Beijing is eight hours ahead of UTC all year.
const BEIJING: u64 = 8 * 3_600;

pub(crate) struct Truth {
    seed: u64,
    began: u64,
    clock: SharedClock,
    excused_until: Mutex<Duration>,
    /// What tasks that cannot end the test themselves have found.
    found: Mutex<Vec<String>>,
}

/// The clocks of a process that began some time, with seeds that are the same in each run.
#[derive(Debug)]
struct SeededClock {
    clock: SharedClock,
    dice: Mutex<fastrand::Rng>,
}

impl Clock for SeededClock {
    fn now(&self) -> Now {
        self.clock.now()
    }

    fn seed(&self) -> u64 {
        self.dice.lock().unwrap().u64(..)
    }
}

impl Truth {
    /// A day that begins at this second of a UTC day.
    pub(crate) fn new(seed: u64, second: u64) -> Truth {
        let began = 1_800_000_000 - 1_800_000_000 % DAY + second;
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(began);
        Truth {
            seed,
            began,
            clock: SystemClock::following_tokio(wall),
            excused_until: Mutex::default(),
            found: Mutex::default(),
        }
    }

    /// Since the day began.
    pub(crate) fn now(&self) -> Duration {
        self.clock.now().mono
    }

    pub(crate) fn wall(&self, at: Duration) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.began) + at
    }

    /// The clocks of a process that begins now.
    pub(crate) fn clock_of_process(&self, seed: u64) -> SharedClock {
        let clock = SystemClock::following_tokio(self.wall(self.now()));
        Arc::new(SeededClock { clock, dice: Mutex::new(fastrand::Rng::with_seed(seed)) })
    }

    pub(crate) fn next_beijing_midnight(&self) -> Duration {
        let now = self.now();
        let of_day = (self.began + now.as_secs() + BEIJING) % DAY;
        Duration::from_secs(now.as_secs() + DAY - of_day)
    }

    /// Until then a source may be without a token.
    pub(crate) fn excuse(&self, until: Duration) {
        let mut excused = self.excused_until.lock().unwrap();
        *excused = until.max(*excused);
    }

    pub(crate) fn excused_until(&self) -> Duration {
        *self.excused_until.lock().unwrap()
    }

    /// Fails the test at the next occasion: to be called in tasks.
    pub(crate) fn note(&self, what: &str) {
        let found = self.describe(what);
        self.found.lock().unwrap().push(found);
    }

    pub(crate) fn fail_if_troubled(&self) {
        let found = self.found.lock().unwrap();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    pub(crate) fn fail(&self, what: &str) -> ! {
        panic!("{}", self.describe(what))
    }

    fn describe(&self, what: &str) -> String {
        let (seed, now) = (self.seed, self.now());
        format!("day of seed {seed}, at {now:?}: {what}\nrepeat with SIM_FIRST={seed} SIM_DRIVEN=1")
    }
}
