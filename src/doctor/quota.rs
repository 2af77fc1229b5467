//! What is left of the day's calls, by our own count.

use super::finding::{Finding, Topic, words};
use crate::account::Account;
use crate::status::CallsToday;

/// The calls of an account and endpoint in this Beijing day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Calls {
    pub(super) account: Account,
    pub(super) made: u32,
    /// How many may be made; `None`: nobody has said.
    pub(super) limit: Option<u32>,
}

impl From<&CallsToday> for Calls {
    fn from(calls: &CallsToday) -> Calls {
        Calls { account: calls.account.clone(), made: calls.made, limit: calls.limit }
    }
}

impl Calls {
    /// Whether none may be made any more.
    pub(super) fn are_spent(&self) -> bool {
        self.limit.is_some_and(|limit| self.made >= limit)
    }
}

/// The part of a day's calls, in percent, from which on there is a warning; the server's log warns there too.
const MUCH: u64 = 80;

/// What is to be said of the calls of an account. Nothing where nobody has set a limit.
pub(super) fn judge(calls: &Calls) -> Option<Finding> {
    let Calls { account, made, limit } = calls;
    let limit = (*limit)?;
    let about = format!("{} {}", account.name, account.endpoint);
    let what = words(
        format!("{made} of {limit} calls made today"),
        format!("今日已调用 {made} 次，上限 {limit} 次"),
    );
    if calls.are_spent() {
        return Some(Finding::problem(Topic::Quota, "calls_spent", about, what).remedy(words(
            "nothing is fetched before midnight in Beijing, or until `quota reset` has WeChat give the calls back (ten \
             times a month). Find out who asks for so many refreshes: the log tells",
            "北京时间零点之前不会再获取，或用 `quota reset` 请微信清零（每月十次）；请查明是谁频繁要求刷新（见日志）",
        )));
    }
    if u64::from(*made) * 100 >= u64::from(limit) * MUCH {
        return Some(Finding::warning(Topic::Quota, "calls_nearly_spent", about, what).remedy(words(
            "the rest is kept for scheduled renewals; find out who asks for so many refreshes (the log tells)",
            "剩余次数保留给定期续期；请查明是谁频繁要求刷新（见日志）",
        )));
    }
    Some(Finding::ok(Topic::Quota, "calls_ok", about, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_of_a_day_are_enough_nearly_spent_or_spent() {
        for (made, limit, code) in [
            (0, None, None),
            (5_000, None, None),
            (0, Some(2_000), Some("calls_ok")),
            (1_599, Some(2_000), Some("calls_ok")),
            (1_600, Some(2_000), Some("calls_nearly_spent")),
            (1_999, Some(2_000), Some("calls_nearly_spent")),
            (2_000, Some(2_000), Some("calls_spent")),
            (u32::MAX, Some(u32::MAX), Some("calls_spent")),
        ] {
            let account = Account { name: "wx".into(), endpoint: "/cgi-bin/token".into() };
            let finding = judge(&Calls { account, made, limit });
            assert_eq!(finding.as_ref().map(|finding| &*finding.code), code, "{made}");
            if let Some(finding) = finding {
                assert_eq!(finding.remedy.is_none(), code == Some("calls_ok"));
                assert!(finding.about.starts_with("wx /cgi-bin"));
            }
        }
    }
}
