//! How many calls each account has made of each endpoint today, and whether another may be made.
//! Pure: is handed the time, and what was kept over a restart; days are Beijing's, as WeChat's are.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::account::{Account, Calls};
use crate::token::SourceName;

/// Beijing is eight hours ahead of UTC all year.
const BEIJING: u64 = 8 * 3_600;
const DAY: u64 = 86_400;

/// Forced fetches of a sticky token (`force_refresh` of `stable_token`): how many a day and how far
/// apart, by WeChat's page of `getStableAccessToken`.
const FORCES_A_DAY: u32 = 20;
const FORCE_INTERVAL: Duration = Duration::from_secs(30);

/// The part of a day's calls that is kept for scheduled renewals: a fifth.
const RESERVE: u32 = 5;

/// The parts of a day's calls, in percent, at which a warning is due.
const WARN_AT: [u32; 2] = [80, 50];

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

/// The calls of every account. One is shared by all refreshers.
#[derive(Debug, Default)]
pub struct Ledger {
    pages: HashMap<Account, Page>,
}

/// What is known of one account and endpoint.
#[derive(Debug, Default)]
struct Page {
    calls: Calls,
    /// Which sources have a request whose outcome is not known, and since when, in Unix milliseconds:
    /// an account's tickets are of one endpoint, and what settles the one says nothing of the other.
    unsettled: Vec<(SourceName, u64)>,
    /// The earliest of those of an earlier process, which does not say of which sources; until the
    /// first word of this one. 0 where there is none.
    unsettled_before: u64,
}

impl Page {
    fn of_before(calls: Calls) -> Page {
        Page { calls, unsettled: Vec::new(), unsettled_before: calls.unsettled_since }
    }

    fn unsettled_since(&self, source: &SourceName) -> Option<u64> {
        self.unsettled.iter().find(|(name, _)| name == source).map(|(_, since)| *since)
    }
}

impl Ledger {
    /// Begins with what was kept.
    pub fn restore(kept: impl IntoIterator<Item = (Account, Calls)>) -> Ledger {
        let pages = kept.into_iter().map(|(account, calls)| (account, Page::of_before(calls)));
        Ledger { pages: pages.collect() }
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
            if purpose != Purpose::Scheduled && today.made >= limit - limit / RESERVE {
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
        self.page(account).calls = calls;
        let warn_at = limit.and_then(|limit| {
            // At the call that reaches the part, and at no other.
            WARN_AT
                .into_iter()
                .find(|part| calls.made == (limit.saturating_mul(*part)).div_ceil(100))
        });
        Ok(Admitted { calls, warn_at })
    }

    /// Notes that a request of `source` which may replace the token is about to be sent (an earlier
    /// one whose outcome is not known counts from its own time), or that there is none any more.
    pub fn settle(
        &mut self,
        account: &Account,
        source: &SourceName,
        unsettled: bool,
        wall: SystemTime,
    ) -> Calls {
        let today = self.today(account, unix_seconds(wall));
        let page = self.page(account);
        match (unsettled, page.unsettled_since(source)) {
            (true, None) => page.unsettled.push((source.clone(), unix_milliseconds(wall))),
            (true, Some(_)) => {}
            (false, _) => page.unsettled.retain(|(name, _)| name != source),
        }
        if page.unsettled.is_empty() {
            // Mostly: of ten thousand accounts none keeps room for it.
            page.unsettled = Vec::new();
        }
        page.unsettled_before = 0;
        let earliest = page.unsettled.iter().map(|(_, since)| *since).min();
        page.calls = Calls { unsettled_since: earliest.unwrap_or(0), ..today };
        page.calls
    }

    /// Notes that the outcome of a request of `source` in an earlier process matters still. To be
    /// called for every source before the first is settled.
    pub fn carry_over(&mut self, account: &Account, source: &SourceName) {
        let page = self.page(account);
        if page.unsettled_before != 0 && page.unsettled_since(source).is_none() {
            page.unsettled.push((source.clone(), page.unsettled_before));
        }
    }

    /// Since when the token of a source may have been replaced without anybody's knowing. After a
    /// restart it may be another source's of the same account and endpoint.
    pub fn unsettled_since(&self, account: &Account, source: &SourceName) -> Option<SystemTime> {
        let page = self.pages.get(account)?;
        let since = page.unsettled_since(source).unwrap_or(page.unsettled_before);
        (since != 0).then(|| UNIX_EPOCH + Duration::from_millis(since))
    }

    /// The calls of an account today.
    pub fn calls(&self, account: &Account, wall: SystemTime) -> Calls {
        self.today(account, unix_seconds(wall))
    }

    fn page(&mut self, account: &Account) -> &mut Page {
        if !self.pages.contains_key(account) {
            self.pages.insert(account.clone(), Page::default());
        }
        self.pages.get_mut(account).expect("it is there, or has just been put there")
    }

    fn today(&self, account: &Account, unix: u64) -> Calls {
        let day = (unix + BEIJING) / DAY;
        let kept = self.pages.get(account).map(|page| page.calls).unwrap_or_default();
        if kept.day == day {
            kept
        } else {
            // Neither the interval between forced fetches nor a doubt ends with the day.
            Calls { day, made: 0, forced_new: 0, ..kept }
        }
    }
}

fn unix_milliseconds(wall: SystemTime) -> u64 {
    let since = wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    u64::try_from(since).unwrap_or(u64::MAX)
}

fn unix_seconds(wall: SystemTime) -> u64 {
    wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// How long until the next Beijing day begins; a day at most, and never zero.
pub(super) fn until_next_day(wall: SystemTime) -> Duration {
    Duration::from_secs(DAY - (unix_seconds(wall) + BEIJING) % DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account { name: "wx0".into(), endpoint: "/cgi-bin/token".into() }
    }

    fn source(name: &str) -> SourceName {
        SourceName::parse(name).unwrap()
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
        assert_eq!(enter(Purpose::Scheduled).unwrap().calls.made, 10);
        assert_eq!(enter(Purpose::Scheduled), Err(Denied::Spent(rest)));
        // The next Beijing day begins at Beijing's midnight.
        assert_eq!(
            ledger.enter(&account(), Some(10), Purpose::Forced, at(DAY)).unwrap().calls.made,
            1
        );
        assert_eq!(ledger.calls(&account(), at(DAY)).made, 1);
    }

    #[test]
    fn an_unknown_outcome_counts_from_the_first_of_its_requests() {
        let mut ledger = Ledger::default();
        let token = source("access_token");
        assert_eq!(ledger.unsettled_since(&account(), &token), None);
        ledger.settle(&account(), &token, true, at(10));
        ledger.settle(&account(), &token, true, at(20));
        ledger.enter(&account(), None, Purpose::Scheduled, at(DAY + 1)).unwrap();
        assert_eq!(ledger.unsettled_since(&account(), &token), Some(at(10)));
        assert_eq!(ledger.settle(&account(), &token, false, at(30)).unsettled_since, 0);
        assert_eq!(ledger.unsettled_since(&account(), &token), None);
    }

    #[test]
    fn what_settles_one_ticket_of_an_account_does_not_settle_the_other() {
        let (ticket, card) = (source("ticket"), source("card"));
        let milliseconds = |at| unix_milliseconds(at);
        let mut ledger = Ledger::default();
        ledger.settle(&account(), &card, true, at(10));
        ledger.settle(&account(), &ticket, true, at(20));
        let kept = ledger.settle(&account(), &ticket, false, at(21));
        assert_eq!(kept.unsettled_since, milliseconds(at(10)));
        assert_eq!(ledger.unsettled_since(&account(), &ticket), None);

        // After a restart it may be either's; the ticket's record says that it is not the ticket's.
        let mut ledger = Ledger::restore([(account(), kept)]);
        for name in [&ticket, &card] {
            assert_eq!(ledger.unsettled_since(&account(), name), Some(at(10)));
        }
        ledger.carry_over(&account(), &card);
        let kept = ledger.settle(&account(), &ticket, false, at(40));
        assert_eq!(kept.unsettled_since, milliseconds(at(10)));
        assert_eq!(ledger.unsettled_since(&account(), &ticket), None);
        assert_eq!(ledger.settle(&account(), &card, false, at(50)).unsettled_since, 0);
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
        let mut ledger = Ledger::restore([(account(), kept)]);
        let again = ledger.enter(&account(), None, Purpose::ForcedNew, at(DAY + 10));
        assert_eq!(again, Err(Denied::ForcedNew(Duration::from_secs(20))));
    }
}
