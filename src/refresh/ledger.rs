//! How many calls each account has made of each endpoint today, and whether another may be made.
//! Pure: is handed the time, and what was kept over a restart; days are Beijing's, as WeChat's are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::account::{Account, Calls, Unsettled};
use crate::control::RESETS_A_MONTH;
use crate::token::SourceName;

/// Beijing is eight hours ahead of UTC all year.
const BEIJING: u64 = 8 * 3_600;
const DAY: u64 = 86_400;

/// Forced fetches of a sticky token (`force_refresh` of `stable_token`): how many a day and how far
/// apart, by WeChat's page of `getStableAccessToken`. `FetchError::ForcedTooOften` says so in words.
const FORCES_A_DAY: u32 = 20;
const FORCE_INTERVAL: Duration = Duration::from_secs(30);

/// The part of a day's calls that is kept for scheduled renewals: a fifth.
const RESERVE: u32 = 5;

/// The parts of a day's calls, in percent, at which a warning is due.
const WARN_AT: [u32; 3] = [100, 80, 50];

/// The endpoint of the resets. It is counted by the month, which no other is.
const RESET: &str = "/cgi-bin/clear_quota/v2";

/// Why a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The schedule, or a dependent whose call was refused.
    Scheduled,
    /// A client asked.
    Forced,
    /// A client asked for a new value although the old one is good.
    ForcedNew,
}

/// Why a call may not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The day's calls are used up; the next day begins after this long.
    Spent(Duration),
    /// What is left of the day's calls is kept for the schedule.
    Reserved(Duration),
    /// Forced fetches are too close together, or too many today; the next one may be after this.
    ForcedNew(Duration),
}

/// What a call that may be made tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// The calls with this one, to be kept over a restart.
    pub calls: Calls,
    /// A part of the day's calls, in percent, that is reached by this one.
    pub warn_at: Option<u32>,
}

/// The calls of every account, and the requests of every source whose outcome is not known. One is
/// shared by all refreshers.
#[derive(Debug, Default)]
pub struct Ledger {
    calls: HashMap<Account, Calls>,
    marks: HashMap<SourceName, Unsettled>,
}

impl Ledger {
    /// Begins with what was kept.
    pub fn restore(
        calls: impl IntoIterator<Item = (Account, Calls)>,
        marks: impl IntoIterator<Item = (SourceName, Unsettled)>,
    ) -> Ledger {
        Ledger { calls: calls.into_iter().collect(), marks: marks.into_iter().collect() }
    }

    /// Enters a call, if `limit` calls a day allow one more for this purpose.
    ///
    /// # Errors
    /// Why not, and how long to wait.
    pub fn enter(
        &mut self,
        account: &Account,
        limit: Option<u32>,
        purpose: Purpose,
        wall: SystemTime,
    ) -> Result<Admitted, Denied> {
        let unix = unix_seconds(wall);
        let today = self.today(account, unix);
        if let Some(limit) = limit {
            if today.made >= limit {
                return Err(Denied::Spent(until_next_day(wall)));
            }
            if purpose != Purpose::Scheduled && today.made >= limit - limit.div_ceil(RESERVE) {
                return Err(Denied::Reserved(until_next_day(wall)));
            }
        }
        let mut calls = Calls { made: today.made.saturating_add(1), ..today };
        if purpose == Purpose::ForcedNew {
            let next = today.last_forced_new.saturating_add(FORCE_INTERVAL.as_secs());
            // A clock that was set back must not lock it for long.
            if next > unix && next - unix <= FORCE_INTERVAL.as_secs() {
                return Err(Denied::ForcedNew(Duration::from_secs(next - unix)));
            }
            if today.forced_new >= FORCES_A_DAY {
                return Err(Denied::ForcedNew(until_next_day(wall)));
            }
            calls.forced_new += 1;
            calls.last_forced_new = unix;
        }
        self.calls.insert(account.clone(), calls);
        let warn_at = limit.and_then(|limit| {
            // At the call that reaches the part, and at no other.
            WARN_AT
                .into_iter()
                .find(|part| calls.made == (limit.saturating_mul(*part)).div_ceil(100))
        });
        Ok(Admitted { calls, warn_at })
    }

    /// Takes a call back that was never made: the upstream could not be reached. An outage of a day
    /// must not use up the day.
    pub fn take_back(&mut self, account: &Account, wall: SystemTime) {
        let mut calls = self.today(account, unix_seconds(wall));
        calls.made = calls.made.saturating_sub(1);
        self.calls.insert(account.clone(), calls);
    }

    /// Notes that a request of a source is about to be sent whose outcome matters. An earlier one
    /// whose outcome is not known counts from its own time.
    pub fn mark(&mut self, source: &SourceName, wall: SystemTime) -> Unsettled {
        let first = self.marks.get(source).map_or(wall, |earlier| earlier.first);
        let mark = Unsettled { first, last: wall };
        self.marks.insert(source.clone(), mark);
        mark
    }

    /// Notes that the outcome of every request of a source is known. Says whether one was not.
    pub fn settle(&mut self, source: &SourceName) -> bool {
        self.marks.remove(source).is_some()
    }

    /// The requests of a source whose outcome is not known.
    pub fn unsettled(&self, source: &SourceName) -> Option<Unsettled> {
        self.marks.get(source).copied()
    }

    /// The calls of an account today.
    pub fn calls(&self, account: &Account, wall: SystemTime) -> Calls {
        self.today(account, unix_seconds(wall))
    }

    /// Enters a reset of an account's calls; its page, to be kept over a restart. `None`: the month's are
    /// used up, as far as is known here.
    pub(super) fn enter_reset(
        &mut self,
        name: &Arc<str>,
        wall: SystemTime,
    ) -> Option<(Account, Calls)> {
        let made = self.resets(name, wall);
        (made < RESETS_A_MONTH).then(|| self.set_resets(name, made + 1, wall))
    }

    /// Takes a reset back that was not made.
    pub(super) fn take_reset_back(
        &mut self,
        name: &Arc<str>,
        wall: SystemTime,
    ) -> Option<(Account, Calls)> {
        let made = self.resets(name, wall).saturating_sub(1);
        Some(self.set_resets(name, made, wall))
    }

    /// The upstream says that the month's resets are used up.
    pub(super) fn fill_resets(
        &mut self,
        name: &Arc<str>,
        wall: SystemTime,
    ) -> Option<(Account, Calls)> {
        Some(self.set_resets(name, RESETS_A_MONTH, wall))
    }

    /// The account's calls of today count from zero. The pages that this changes, to be kept.
    pub(super) fn forgive(&mut self, name: &str, wall: SystemTime) -> Vec<(Account, Calls)> {
        let unix = unix_seconds(wall);
        let accounts = self.calls.keys();
        let accounts: Vec<Account> = accounts
            .filter(|account| &*account.name == name && &*account.endpoint != RESET)
            .cloned()
            .collect();
        let forgiven = accounts.into_iter().map(|account| {
            let calls = Calls { made: 0, ..self.today(&account, unix) };
            (account, calls)
        });
        let forgiven: Vec<_> = forgiven.collect();
        self.calls.extend(forgiven.iter().cloned());
        forgiven
    }

    /// How many resets an account has had this month.
    pub fn resets(&self, name: &str, wall: SystemTime) -> u32 {
        let account = Account { name: name.into(), endpoint: RESET.into() };
        let kept = self.calls.get(&account).copied().unwrap_or_default();
        if kept.day == first_of_month(wall) { kept.made } else { 0 }
    }

    fn set_resets(&mut self, name: &Arc<str>, made: u32, wall: SystemTime) -> (Account, Calls) {
        let account = Account { name: Arc::clone(name), endpoint: RESET.into() };
        let calls = Calls { day: first_of_month(wall), made, ..Calls::default() };
        self.calls.insert(account.clone(), calls);
        (account, calls)
    }

    fn today(&self, account: &Account, unix: u64) -> Calls {
        let day = (unix + BEIJING) / DAY;
        let kept = self.calls.get(account).copied().unwrap_or_default();
        if kept.day == day {
            kept
        } else {
            // The interval between forced fetches does not end with the day.
            Calls { day, made: 0, forced_new: 0, ..kept }
        }
    }
}

fn unix_seconds(wall: SystemTime) -> u64 {
    wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The first day of the month, in Beijing, in days since the Unix epoch: by counting the days of the
/// years and months from there.
fn first_of_month(wall: SystemTime) -> u64 {
    let today = (unix_seconds(wall) + BEIJING) / DAY;
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut first, mut year) = (0, 1970);
    loop {
        let february = if is_leap(year) { 29 } else { 28 };
        for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            if today < first + days {
                return first;
            }
            first += days;
        }
        year += 1;
    }
}

/// How long until the next Beijing day begins; a day at most, and never zero.
fn until_next_day(wall: SystemTime) -> Duration {
    Duration::from_secs(DAY - (unix_seconds(wall) + BEIJING) % DAY)
}

/// How long to wait when the upstream says that the day's calls are used up: until the next day, and a
/// little more for clocks that differ. `None` in a day's first hour: then it speaks of the day before
/// (or has not begun to count anew), and is asked again as the class says.
pub(super) fn until_calls_again(wall: SystemTime) -> Option<Duration> {
    let wait = until_next_day(wall);
    (wait <= Duration::from_secs(DAY - 3_600)).then(|| wait + Duration::from_secs(120))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account { name: "wx0".into(), endpoint: "/cgi-bin/token".into() }
    }

    /// Unix seconds of a Beijing midnight.
    const MIDNIGHT: u64 = 1_800_000_000 - (1_800_000_000 + BEIJING) % DAY;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(MIDNIGHT + seconds)
    }

    #[test]
    fn forced_calls_end_before_the_reserve_and_all_calls_at_the_limit() {
        let mut ledger = Ledger::default();
        let mut enter = |purpose| ledger.enter(&account(), Some(10), purpose, at(3_600));
        let rest = Duration::from_secs(DAY - 3_600);
        let mut warned = Vec::new();
        for _ in 0..8 {
            warned.push(enter(Purpose::Forced).unwrap().warn_at);
        }
        assert_eq!(warned, [None, None, None, None, Some(50), None, None, Some(80)]);
        assert_eq!(enter(Purpose::Forced), Err(Denied::Reserved(rest)));
        assert_eq!(enter(Purpose::ForcedNew), Err(Denied::Reserved(rest)));
        assert_eq!(enter(Purpose::Scheduled).unwrap().calls.made, 9);
        let last = enter(Purpose::Scheduled).unwrap();
        assert_eq!((last.calls.made, last.warn_at), (10, Some(100)));
        assert_eq!(enter(Purpose::Scheduled), Err(Denied::Spent(rest)));
        // The next Beijing day begins at Beijing's midnight.
        assert_eq!(
            ledger.enter(&account(), Some(10), Purpose::Forced, at(DAY)).unwrap().calls.made,
            1
        );
        assert_eq!(ledger.calls(&account(), at(DAY)).made, 1);
    }

    #[test]
    fn resets_are_counted_by_beijings_month_and_over_a_restart() {
        let name: Arc<str> = "wx0".into();
        // 2026-11-30 23:59:59 in Beijing, by `date -d '2026-11-30 23:59:59 +0800' +%s`.
        let last = UNIX_EPOCH + Duration::from_secs(1_796_054_399);
        let mut ledger = Ledger::default();
        let mut kept = None;
        for made in 1..=RESETS_A_MONTH {
            kept = ledger.enter_reset(&name, last);
            assert_eq!(kept.as_ref().map(|(_, calls)| calls.made), Some(made));
        }
        assert_eq!(ledger.enter_reset(&name, last), None);
        let mut ledger = Ledger::restore(kept, []);
        assert_eq!(ledger.enter_reset(&name, last), None);
        ledger.take_reset_back(&name, last);
        assert_eq!(ledger.resets(&name, last), RESETS_A_MONTH - 1);
        ledger.fill_resets(&name, last);
        assert_eq!(ledger.resets(&name, last), RESETS_A_MONTH);
        assert_eq!(ledger.resets("wx1", last), 0);
        let next = last + Duration::from_secs(1);
        assert_eq!(ledger.resets(&name, next), 0);
        assert_eq!(ledger.enter_reset(&name, next).map(|(_, calls)| calls.made), Some(1));
        // By `date -d '2024-02-29 12:00 +0800' +%s` and `date -d '2024-02-01 UTC' +%s`.
        let leap = UNIX_EPOCH + Duration::from_secs(1_709_179_200);
        assert_eq!(first_of_month(leap), 1_706_745_600 / DAY);
    }

    #[test]
    fn a_reset_forgives_the_calls_of_its_account_and_of_no_other() {
        let mut ledger = Ledger::default();
        let ticket = Account { endpoint: "/cgi-bin/ticket/getticket".into(), ..account() };
        let other = Account { name: "wx1".into(), ..account() };
        for account in [&account(), &ticket, &other] {
            ledger.enter(account, Some(10), Purpose::Scheduled, at(0)).unwrap();
        }
        ledger.enter(&account(), None, Purpose::ForcedNew, at(0)).unwrap();
        ledger.enter_reset(&account().name, at(0)).unwrap();
        let forgiven = ledger.forgive("wx0", at(1));
        assert_eq!(forgiven.len(), 2);
        assert_eq!(ledger.calls(&account(), at(2)).made, 0);
        assert_eq!(ledger.calls(&ticket, at(2)).made, 0);
        assert_eq!(ledger.calls(&other, at(2)).made, 1);
        // Whether WeChat forgives forced ones too is not known; nor is a reset given back.
        assert_eq!(ledger.calls(&account(), at(2)).forced_new, 1);
        assert_eq!(ledger.resets("wx0", at(2)), 1);
    }

    #[test]
    fn an_unknown_outcome_counts_from_the_first_of_its_requests() {
        let mut ledger = Ledger::default();
        let [token, other] = ["a", "b"].map(|name| SourceName::parse(name).unwrap());
        assert_eq!(ledger.unsettled(&token), None);
        ledger.mark(&token, at(10));
        ledger.mark(&other, at(15));
        let mark = ledger.mark(&token, at(20));
        assert_eq!(mark, Unsettled { first: at(10), last: at(20) });
        // What settles one source of an account says nothing of another.
        assert!(ledger.settle(&other) && !ledger.settle(&other));
        assert_eq!(ledger.unsettled(&token), Some(mark));
        assert_eq!(Ledger::restore([], [(token.clone(), mark)]).unsettled(&token), Some(mark));
    }

    #[test]
    fn calls_that_are_used_up_come_back_a_little_after_midnight() {
        for (seconds, wait) in [
            (3_600, Some(DAY - 3_600 + 120)),
            (DAY - 7, Some(127)),
            (1, None), // the upstream's midnight is a little later than ours
            (3_599, None),
        ] {
            assert_eq!(until_calls_again(at(seconds)), wait.map(Duration::from_secs), "{seconds}");
        }
    }

    #[test]
    fn a_call_that_was_never_made_does_not_count() {
        let mut ledger = Ledger::default();
        for _ in 0..5_000 {
            ledger.enter(&account(), Some(10), Purpose::Scheduled, at(0)).unwrap();
            ledger.take_back(&account(), at(1));
        }
        assert_eq!(ledger.calls(&account(), at(2)).made, 0);
    }

    #[test]
    fn accounts_and_endpoints_are_counted_apart() {
        let mut ledger = Ledger::default();
        let other = Account { endpoint: "/cgi-bin/ticket/getticket".into(), ..account() };
        ledger.enter(&account(), Some(1), Purpose::Scheduled, at(0)).unwrap();
        ledger.enter(&other, Some(1), Purpose::Scheduled, at(0)).unwrap();
        assert!(ledger.enter(&account(), Some(1), Purpose::Scheduled, at(0)).is_err());
        assert!(ledger.enter(&account(), None, Purpose::Scheduled, at(0)).is_ok());
    }

    #[test]
    fn new_values_are_forced_thirty_seconds_apart_and_twenty_times_a_day() {
        let mut ledger = Ledger::default();
        let mut enter = |seconds| ledger.enter(&account(), None, Purpose::ForcedNew, at(seconds));
        enter(0).unwrap();
        assert_eq!(enter(29), Err(Denied::ForcedNew(Duration::from_secs(1))));
        for n in 1..20 {
            enter(30 * n).unwrap();
        }
        assert_eq!(enter(600), Err(Denied::ForcedNew(Duration::from_secs(DAY - 600))));
        enter(DAY).unwrap();
        // Over a restart too.
        let kept = ledger.calls(&account(), at(DAY));
        let mut ledger = Ledger::restore([(account(), kept)], []);
        let again = ledger.enter(&account(), None, Purpose::ForcedNew, at(DAY + 10));
        assert_eq!(again, Err(Denied::ForcedNew(Duration::from_secs(20))));
    }
}
