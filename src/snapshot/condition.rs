//! How a source is doing, beside its token: why its last renewal failed, when the next one is, whether
//! its token is on disk, and what came of its renewals within a day. Written by its refresher, read
//! when somebody asks. Pure but for its locks.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;

/// How many chapters the histories of all sources have together, and how many each has at least and at
/// most. A chapter is 32 bytes, so that the histories of ten thousand sources take a megabyte at the
/// worst. Where there are so many sources that not each can have the most, a success is a chapter only
/// if it ends a failure: then the histories of those that are well take nothing.
const CHAPTERS_OF_ALL: usize = 16 * 1024;
const FEWEST_CHAPTERS: usize = 3;
const MOST_CHAPTERS: usize = 16;

/// How far back a history is told.
const TOLD: Duration = Duration::from_secs(86_400);

/// Why the last refresh of a source brought no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// When it failed.
    pub at: SystemTime,
    /// What went wrong, as a client may know it: no secret, no address, nor what to do about it.
    pub what: Arc<str>,
    /// The same in Chinese.
    pub what_zh: Arc<str>,
    /// The class of the failure, as it is named in answers and metrics.
    pub class: &'static str,
    /// The upstream's error code, where it gave one that is known to be one.
    pub code: Option<Arc<str>>,
    /// What to do about it.
    pub remedy: Remedy,
    /// Whether it keeps the token from being renewed. A forced refresh that our own count refuses does
    /// not.
    pub is_failure: bool,
}

/// What to do about a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    /// In English.
    pub en: Cow<'static, str>,
    /// In Chinese.
    pub zh: Cow<'static, str>,
}

/// Renewals in a row with the same outcome. A success is a chapter of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chapter {
    /// When the first of them ended, in Unix seconds.
    pub first: u32,
    /// When the last of them ended, in Unix seconds.
    pub last: u32,
    /// How many there were.
    pub count: u16,
    /// The class of their failure; `None`: they brought a token.
    pub failure: Option<&'static str>,
    /// The upstream's error code; 0 where it gave none that is a number.
    pub code: i32,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Condition {
    trouble: ArcSwapOption<Trouble>,
    /// Whether a renewal has come off since the trouble.
    is_over: AtomicBool,
    in_memory_only: AtomicBool,
    /// When the next renewal is due, in Unix seconds; 0: one is under way.
    next_renewal: AtomicU32,
    renewed: AtomicU32,
    failed: AtomicU32,
    /// In a box, since with many sources most have none.
    history: Mutex<Option<Box<History>>>,
}

#[derive(Debug, Default)]
struct History(VecDeque<Chapter>);

/// The condition of a source at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionNow {
    /// The last trouble, also where it is over.
    pub trouble: Option<Arc<Trouble>>,
    /// Whether a renewal has come off since.
    pub is_trouble_over: bool,
    /// Whether renewals fail: the last one did.
    pub is_failing: bool,
    /// Whether the token that is served is on disk.
    pub is_on_disk: bool,
    /// When the next renewal is due, in Unix seconds; `None` while one is under way.
    pub next_renewal: Option<u64>,
    /// How many renewals have come off since the start.
    pub renewed: u32,
    /// How many have failed since the start.
    pub failed: u32,
}

impl Condition {
    /// The trouble that is not over.
    pub(super) fn trouble(&self) -> Option<Arc<Trouble>> {
        if self.is_over.load(Ordering::Acquire) { None } else { self.trouble.load_full() }
    }

    pub(super) fn is_failing(&self) -> bool {
        self.trouble().is_some()
    }

    pub(super) fn now(&self) -> ConditionNow {
        let next = self.next_renewal.load(Ordering::Relaxed);
        ConditionNow {
            trouble: self.trouble.load_full(),
            is_trouble_over: self.is_over.load(Ordering::Acquire),
            is_failing: self.is_failing(),
            is_on_disk: !self.in_memory_only.load(Ordering::Relaxed),
            next_renewal: (next != 0).then_some(next.into()),
            renewed: self.renewed.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    /// Notes a failure. Says whether it is news: the one before was of another kind, or none.
    pub(super) fn fail(&self, trouble: &Arc<Trouble>, sources: usize) -> bool {
        if !trouble.is_failure {
            // Nothing is wrong with the source. Who wished for more has been told, and the log has it.
            return false;
        }
        let before = self.trouble();
        self.trouble.store(Some(Arc::clone(trouble)));
        self.is_over.store(false, Ordering::Release);
        self.failed.fetch_add(1, Ordering::Relaxed);
        let code = trouble.code.as_deref().and_then(|code| code.parse().ok()).unwrap_or(0);
        self.write(Some(trouble.class), code, trouble.at, sources);
        before.is_none_or(|before| (before.class, &before.code) != (trouble.class, &trouble.code))
    }

    /// Notes a success. Says whether it ends a failure.
    pub(super) fn succeed(&self, at: SystemTime, sources: usize) -> bool {
        let was_failing = self.is_failing();
        self.is_over.store(true, Ordering::Release);
        self.renewed.fetch_add(1, Ordering::Relaxed);
        self.write(None, 0, at, sources);
        was_failing
    }

    pub(super) fn set_next_renewal(&self, at: Option<SystemTime>) {
        let at = at.map_or(0, |at| u32_seconds(at).max(1));
        self.next_renewal.store(at, Ordering::Relaxed);
    }

    pub(super) fn set_on_disk(&self, is_on_disk: bool) {
        self.in_memory_only.store(!is_on_disk, Ordering::Relaxed);
    }

    /// What came of the renewals of the last day, the oldest first; the oldest are missing where there
    /// were many.
    pub(super) fn history(&self, now: SystemTime) -> Vec<Chapter> {
        let begin = u32_seconds(now.checked_sub(TOLD).unwrap_or(UNIX_EPOCH));
        let history = self.lock();
        let chapters = history.iter().flat_map(|history| &history.0);
        chapters.filter(|chapter| chapter.last >= begin).copied().collect()
    }

    fn write(&self, failure: Option<&'static str>, code: i32, at: SystemTime, sources: usize) {
        let most = (CHAPTERS_OF_ALL / sources.max(1)).clamp(FEWEST_CHAPTERS, MOST_CHAPTERS);
        let at = u32_seconds(at);
        let mut history = self.lock();
        let ends_a_failure = || {
            let last = history.as_ref().and_then(|history| history.0.back());
            last.is_some_and(|last| last.failure.is_some())
        };
        if failure.is_none() && most < MOST_CHAPTERS && !ends_a_failure() {
            return;
        }
        let History(chapters) = &mut **history.get_or_insert_default();
        if let Some(last) = chapters.back_mut()
            && failure.is_some()
            && (last.failure, last.code) == (failure, code)
        {
            last.last = at;
            last.count = last.count.saturating_add(1);
            return;
        }
        while chapters.len() >= most {
            chapters.pop_front();
        }
        // One by one: most sources have few, and room in advance would be most of what they take.
        chapters.reserve_exact(1);
        chapters.push_back(Chapter { first: at, last: at, count: 1, failure, code });
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<History>>> {
        // Whole after each change, whoever panicked in between.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn u32_seconds(at: SystemTime) -> u32 {
    u32::try_from(unix(at)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    fn trouble(seconds: u64, class: &'static str, code: Option<&str>) -> Arc<Trouble> {
        Arc::new(Trouble {
            at: at(seconds),
            what: "no".into(),
            what_zh: "否".into(),
            class,
            code: code.map(Into::into),
            remedy: Remedy { en: "wait".into(), zh: "等待".into() },
            is_failure: class != "reserved",
        })
    }

    #[test]
    fn failures_alike_are_one_chapter_and_news_once() {
        let condition = Condition::default();
        assert!(!condition.succeed(at(0), 1));
        assert!(condition.fail(&trouble(10, "transient", None), 1));
        assert!(!condition.fail(&trouble(20, "transient", None), 1));
        assert!(condition.fail(&trouble(30, "misconfigured", Some("40125")), 1));
        assert!(condition.now().is_failing);
        assert!(condition.succeed(at(40), 1) && !condition.succeed(at(50), 1));
        let now = condition.now();
        assert_eq!((now.renewed, now.failed, now.is_failing), (3, 3, false));
        assert_eq!(now.trouble.unwrap().code.as_deref(), Some("40125"), "the last one is known");
        assert_eq!(condition.trouble(), None);
        let told: Vec<_> = condition
            .history(at(60))
            .iter()
            .map(|told| (told.last - told.first, told.count, told.failure, told.code))
            .collect();
        assert_eq!(
            told,
            [
                (0, 1, None, 0),
                (10, 2, Some("transient"), 0),
                (0, 1, Some("misconfigured"), 40_125),
                (0, 1, None, 0),
                (0, 1, None, 0),
            ]
        );
    }

    #[test]
    fn a_refused_wish_is_no_trouble_of_the_source_and_hides_none() {
        let condition = Condition::default();
        assert!(!condition.fail(&trouble(0, "reserved", None), 1));
        assert_eq!((condition.trouble(), condition.now().trouble), (None, None));
        condition.fail(&trouble(1, "transient", None), 1);
        condition.fail(&trouble(2, "reserved", None), 1);
        assert_eq!(condition.trouble().unwrap().class, "transient");
        assert_eq!(condition.now().failed, 1);
    }

    #[test]
    fn a_history_is_bounded_and_ends_after_a_day() {
        for (sources, chapters) in [(1, 16), (1_024, 16), (4_096, 4), (10_000, 3), (1 << 20, 3)] {
            let condition = Condition::default();
            for hour in 0..20 {
                condition.fail(&trouble(hour * 3_600, "transient", None), sources);
                condition.succeed(at(hour * 3_600), sources);
            }
            assert_eq!(condition.history(at(20 * 3_600)).len(), chapters, "{sources}");
            let capacity = condition.lock().as_ref().unwrap().0.capacity();
            assert!(capacity <= MOST_CHAPTERS);
        }
        let condition = Condition::default();
        for hour in 0..20 {
            condition.succeed(at(hour * 3_600), 1);
        }
        assert_eq!(condition.history(at((24 + 18) * 3_600)).len(), 2, "those of the last day");
    }

    #[test]
    fn ten_thousand_sources_that_are_well_have_no_history() {
        let condition = Condition::default();
        condition.succeed(at(0), 10_000);
        assert!(condition.lock().is_none());
        condition.fail(&trouble(1, "transient", None), 10_000);
        condition.succeed(at(2), 10_000);
        condition.succeed(at(3), 10_000);
        let told = condition.history(at(4));
        assert_eq!(
            told.iter().map(|one| one.failure).collect::<Vec<_>>(),
            [Some("transient"), None]
        );
        assert!(size_of::<Chapter>() <= 32 && size_of::<Condition>() <= 40);
    }
}
