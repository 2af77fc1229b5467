//! An account as its owner sees it, and the counts that WeChat keeps of its calls. Pure.

use std::net::IpAddr;
use std::time::SystemTime;

use crate::sandbox::calendar;
use crate::token::Secret;

/// An account of the stand-in.
#[derive(Debug, Clone)]
pub struct Account {
    appid: Box<str>,
    /// The app secret.
    pub secret: Secret,
    /// The addresses that may fetch tokens; `None`: the allow list is switched off.
    pub allow: Option<Vec<IpAddr>>,
    /// The errcode that every fetch of a token is refused with: 40243 for a frozen secret, 50007
    /// for a frozen account, 89503 for an address to be confirmed, and so on.
    pub refused_with: Option<i32>,
}

impl Account {
    /// The account that the stand-in has when nothing else is said: obviously not a real one.
    pub const SANDBOX_APPID: &'static str = "wxsandbox0000000";
    /// The app secret of [`Account::SANDBOX_APPID`].
    pub const SANDBOX_SECRET: &'static str = "sandboxsecret0000000000000000000";

    /// An account in good standing, without an allow list.
    pub fn new(appid: impl Into<Box<str>>, secret: impl Into<String>) -> Account {
        Account {
            appid: appid.into(),
            secret: Secret::new(secret),
            allow: None,
            refused_with: None,
        }
    }

    /// Which account it is.
    pub fn appid(&self) -> &str {
        &self.appid
    }
}

impl Default for Account {
    fn default() -> Account {
        Account::new(Account::SANDBOX_APPID, Account::SANDBOX_SECRET)
    }
}

/// How many calls of one kind are allowed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limit {
    /// In a Beijing day; one more is refused with 45009.
    pub(super) per_day: Option<u32>,
    /// In a minute; one more is refused with 45011.
    pub(super) per_minute: Option<u32>,
}

/// The calls of one kind so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Usage {
    day: Count,
    minute: Count,
}

impl Usage {
    /// Counts a call, or refuses it with an errcode: a refused call is not counted.
    pub(super) fn charge(&mut self, limit: Limit, now: SystemTime) -> Result<(), i32> {
        let (day, minute) = (calendar::day(now), calendar::minute(now));
        if self.day.is_full(limit.per_day, day) {
            return Err(45009);
        }
        if self.minute.is_full(limit.per_minute, minute) {
            return Err(45011);
        }
        self.day.add(day);
        self.minute.add(minute);
        Ok(())
    }

    /// The calls of today.
    pub(super) fn today(&self, now: SystemTime) -> u32 {
        self.day.so_far(calendar::day(now))
    }
}

/// A count that starts anew with each period.
#[derive(Debug, Clone, Default)]
pub(super) struct Count {
    period: u64,
    calls: u32,
}

impl Count {
    /// The count in `period`.
    pub(super) fn so_far(&self, period: u64) -> u32 {
        if self.period == period { self.calls } else { 0 }
    }

    /// Whether one more would be over the limit.
    pub(super) fn is_full(&self, limit: Option<u32>, period: u64) -> bool {
        limit.is_some_and(|limit| self.so_far(period) >= limit)
    }

    /// Counts one.
    pub(super) fn add(&mut self, period: u64) {
        *self = Count { period, calls: self.so_far(period).saturating_add(1) };
    }
}
