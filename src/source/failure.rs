//! Why a fetch brought no token, in what class of failure, and in which words for whom. What an
//! upstream's codes mean is in `errcode`, what to do about the rest in `remedy`.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::errcode::{Hint, Meaning};
use super::remedy;
use crate::config::Code;
use crate::token::SourceName;

/// What kind of failure it was: all that the engine asks of one, beside a wait of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// Likely to pass: try again, ever more slowly.
    Transient,
    /// An answer that nobody here knows. It may pass, or never: try again, more slowly still.
    Unknown,
    /// Too many calls a minute: not before the next minute.
    Throttled,
    /// The day's calls are used up: the next ones fail too, and count.
    QuotaSpent,
    /// What a client wished for is held back, while the schedule goes on: nothing was sent.
    Reserved,
    /// Will not pass until a person does something: probe slowly.
    Misconfigured,
    /// The token of a source this one depends on was refused.
    DependencyInvalid,
    /// A source this one depends on has no live token: nothing was sent.
    DependencyAbsent,
}

impl FailureClass {
    /// Its name in answers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureClass::Transient => "transient",
            FailureClass::Unknown => "unknown",
            FailureClass::Throttled => "throttled",
            FailureClass::QuotaSpent => "quota_spent",
            FailureClass::Reserved => "reserved",
            FailureClass::Misconfigured => "misconfigured",
            FailureClass::DependencyInvalid => "dependency_invalid",
            FailureClass::DependencyAbsent => "dependency_absent",
        }
    }
}

/// Why a fetch brought no token. `Display` is what a client is told, with what to do where the error
/// code is known; [`FetchError::for_log`] is what the log says beside it. Neither holds a secret or the address of the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchError {
    /// Our own count says that the account has used up the day's calls: nothing was sent.
    BudgetSpent {
        /// When the next day begins.
        wait: Duration,
    },
    /// What a client asked for would use up what the schedule needs: nothing was sent.
    BudgetReserved {
        /// When it may be asked for again.
        wait: Duration,
    },
    /// A client asked for a new value too soon after the last one was forced, or too often today:
    /// nothing was sent.
    ForcedTooOften {
        /// When it may be asked for again.
        wait: Duration,
    },
    /// A source this one depends on has no live token.
    DependencyAbsent(SourceName),
    /// The request could not be made: what fills a placeholder cannot stand there. Names the place.
    CannotSend(String),
    /// The upstream could not be reached; in the transport's words.
    NotConnected(String),
    /// No (whole) answer in time.
    TimedOut,
    /// The connection broke before the answer was whole; in the transport's words.
    Broken(String),
    /// An answer with a status other than success and no error code in it.
    Status(u16),
    /// Such an answer that says when to come back.
    ComeBack {
        /// The status.
        status: u16,
        /// How long to stay away, by the answer's `Retry-After`; an hour at most.
        wait: Duration,
    },
    /// The answer is larger than any token's; it was not read.
    TooLarge,
    /// The answer is not JSON.
    NotJson,
    /// The answer has no usable value; which field is at fault, and how.
    NoValue(String),
    /// The answer has no usable lifetime; how it is at fault.
    NoLifetime(&'static str),
    /// The upstream said no.
    Refused(Box<Refusal>),
}

/// How an upstream said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its error code.
    pub code: Code,
    /// What the code means to us.
    pub class: FailureClass,
    /// How long it asks to be left alone for, where that is known: after a first refusal, and after
    /// each further one in a row.
    pub waits: Option<(Duration, Duration)>,
    /// What to do about it, if that is known.
    pub hint: Option<Hint>,
    /// The address it saw the request come from, where the refusal is about that.
    pub address: Option<IpAddr>,
    /// Its message, for the log: bounded, free of what was sent, with the `rid` that WeChat's
    /// support asks for.
    pub message: String,
}

impl FetchError {
    /// A refusal with this code and class, and nothing more known about it.
    pub fn refused(code: i64, class: FailureClass) -> FetchError {
        FetchError::Refused(Box::new(Refusal {
            code: Code::Number(code),
            class,
            waits: None,
            hint: None,
            address: None,
            message: String::new(),
        }))
    }

    /// The class.
    pub fn class(&self) -> FailureClass {
        match self {
            FetchError::DependencyAbsent(_) => FailureClass::DependencyAbsent,
            FetchError::BudgetSpent { .. } => FailureClass::QuotaSpent,
            FetchError::BudgetReserved { .. } | FetchError::ForcedTooOften { .. } => {
                FailureClass::Reserved
            }
            FetchError::CannotSend(_) => FailureClass::Misconfigured,
            FetchError::Status(status) | FetchError::ComeBack { status, .. } => {
                class_of_status(*status).unwrap_or(FailureClass::Unknown)
            }
            FetchError::Refused(refusal) => refusal.class,
            FetchError::NotConnected(_)
            | FetchError::TimedOut
            | FetchError::Broken(_)
            | FetchError::TooLarge
            | FetchError::NotJson
            | FetchError::NoValue(_)
            | FetchError::NoLifetime(_) => FailureClass::Transient,
        }
    }

    /// How long this very failure asks to be left alone for at least, where it does. It goes before
    /// the wait of the class.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            FetchError::ComeBack { wait, .. }
            | FetchError::BudgetSpent { wait }
            | FetchError::BudgetReserved { wait }
            | FetchError::ForcedTooOften { wait } => Some(*wait),
            FetchError::Refused(refusal) => refusal.waits.map(|(first, _)| first),
            _ => None,
        }
    }

    /// As [`FetchError::wait`], when the attempt before failed in the same class: WeCom blocks for a
    /// minute or for an hour, and only a second refusal tells which.
    pub fn wait_again(&self) -> Option<Duration> {
        match self {
            FetchError::Refused(refusal) => refusal.waits.map(|(_, further)| further),
            _ => self.wait(),
        }
    }

    /// Whether the upstream may have made a new token all the same, and with it begun the end of
    /// the one before: the request was sent, and no answer says that it was refused.
    pub fn may_have_replaced(&self) -> bool {
        match self {
            FetchError::DependencyAbsent(_)
            | FetchError::BudgetSpent { .. }
            | FetchError::BudgetReserved { .. }
            | FetchError::ForcedTooOften { .. }
            | FetchError::CannotSend(_)
            | FetchError::NotConnected(_)
            | FetchError::Refused(_) => false,
            // 3xx and 4xx come from something that did not do the work.
            FetchError::Status(status) | FetchError::ComeBack { status, .. } => *status >= 500,
            FetchError::TimedOut
            | FetchError::Broken(_)
            | FetchError::TooLarge
            | FetchError::NotJson
            | FetchError::NoValue(_)
            | FetchError::NoLifetime(_) => true,
        }
    }

    /// Whether a request was made at all, and so counts against the account's calls.
    pub fn was_sent(&self) -> bool {
        !matches!(
            self,
            FetchError::DependencyAbsent(_)
                | FetchError::BudgetSpent { .. }
                | FetchError::BudgetReserved { .. }
                | FetchError::ForcedTooOften { .. }
                | FetchError::CannotSend(_)
                | FetchError::NotConnected(_)
        )
    }

    /// Whether it is the host's failure rather than the API's answer: another host of the same API
    /// may do better.
    pub(super) fn blames_host(&self) -> bool {
        match self {
            FetchError::NotConnected(_) | FetchError::TimedOut | FetchError::Broken(_) => true,
            FetchError::Status(status) | FetchError::ComeBack { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// What the log says beside what the client is told: the transport's words, the upstream's
    /// message. Empty where there is nothing more to say.
    pub fn for_log(&self) -> &str {
        match self {
            FetchError::NotConnected(words) | FetchError::Broken(words) => words,
            FetchError::Refused(refusal) => &refusal.message,
            _ => "",
        }
    }

    /// The upstream's error code, as it is written. A text counts where it is known to be a code: else
    /// nobody can say what an upstream has put there.
    pub fn code(&self) -> Option<String> {
        let FetchError::Refused(refusal) = self else { return None };
        match &refusal.code {
            Code::Number(code) => Some(code.to_string()),
            Code::Text(code) => refusal.hint.map(|_| code.to_string()),
        }
    }

    /// What to do about it, in English and in Chinese.
    pub fn hint(&self) -> (Cow<'static, str>, Cow<'static, str>) {
        if let FetchError::Refused(refusal) = self
            && let Some(hint) = refusal.hint
        {
            return (hint.en(refusal.address), hint.zh(refusal.address));
        }
        let (en, zh) = remedy::of(self);
        (en.into(), zh.into())
    }

    /// What went wrong; never with what to do.
    pub fn in_english(&self) -> String {
        let fixed = match self {
            // Without its name: who may see this source may not see each that it depends on.
            FetchError::DependencyAbsent(_) => {
                "the source that it depends on has no live token now"
            }
            FetchError::BudgetSpent { .. } => "the account's calls of this day are used up",
            FetchError::BudgetReserved { .. } => {
                "the account's remaining calls are kept for scheduled renewals"
            }
            FetchError::ForcedTooOften { .. } => {
                "a new token may be forced every 30 s, and 20 times a day"
            }
            FetchError::NotConnected(_) => "the upstream cannot be reached",
            FetchError::TimedOut => "the upstream did not answer in time",
            FetchError::Broken(_) => "the upstream broke the connection off",
            FetchError::TooLarge => "the upstream's answer is too large",
            FetchError::NotJson => "the upstream's answer is not JSON",
            FetchError::CannotSend(place) => return format!("the request cannot be made: {place}"),
            FetchError::Status(status) => {
                return format!("the upstream answered with status {status}");
            }
            FetchError::ComeBack { status, wait } => {
                let seconds = wait.as_secs();
                return format!(
                    "the upstream answered with status {status}: not before {seconds} s"
                );
            }
            FetchError::NoValue(what) => {
                return format!("the upstream's answer has no usable token: {what}");
            }
            FetchError::NoLifetime(what) => {
                return format!("the upstream's answer has no usable lifetime: {what}");
            }
            FetchError::Refused(refusal) => {
                return match &refusal.code {
                    Code::Number(code) => format!("the upstream answered errcode {code}"),
                    Code::Text(code) => format!("the upstream answered error {code}"),
                };
            }
        };
        fixed.to_owned()
    }

    /// As [`FetchError::in_english`], in Chinese.
    pub fn in_chinese(&self) -> String {
        let fixed = match self {
            FetchError::DependencyAbsent(_) => "它所依赖的令牌源目前没有可用令牌",
            FetchError::BudgetSpent { .. } => "该账号今日的调用次数已用完",
            FetchError::BudgetReserved { .. } => "该账号剩余的调用次数留给定期续期",
            FetchError::ForcedTooOften { .. } => "每 30 秒只能强制换新一次，每日最多 20 次",
            FetchError::NotConnected(_) => "无法连接上游",
            FetchError::TimedOut => "上游没有及时应答",
            FetchError::Broken(_) => "上游中断了连接",
            FetchError::TooLarge => "上游的应答过大",
            FetchError::NotJson => "上游的应答不是 JSON",
            FetchError::CannotSend(place) => return format!("无法构造请求：{place}"),
            FetchError::Status(status) => return format!("上游返回 HTTP 状态 {status}"),
            FetchError::ComeBack { status, wait } => {
                return format!("上游返回 HTTP 状态 {status}，要求 {} 秒后再试", wait.as_secs());
            }
            FetchError::NoValue(what) => return format!("上游的应答中没有可用的令牌：{what}"),
            FetchError::NoLifetime(what) => {
                return format!("上游的应答中没有可用的有效期：{what}");
            }
            FetchError::Refused(refusal) => {
                return match &refusal.code {
                    Code::Number(code) => format!("上游返回 errcode {code}"),
                    Code::Text(code) => format!("上游返回错误 {code}"),
                };
            }
        };
        fixed.to_owned()
    }

    /// What to do about it, in Chinese.
    pub fn hint_zh(&self) -> Cow<'static, str> {
        self.hint().1
    }
}

/// What an HTTP status says, if it says anything: RFC 9110, section 15, and RFC 6585 for 429.
pub(super) fn class_of_status(status: u16) -> Option<FailureClass> {
    match status {
        429 => Some(FailureClass::Throttled),
        401 | 403 | 404 => Some(FailureClass::Misconfigured),
        500..=599 => Some(FailureClass::Transient),
        _ => None,
    }
}

impl Refusal {
    /// A refusal as the table of codes has it.
    pub(super) fn known(
        code: Code,
        meaning: Meaning,
        address: Option<IpAddr>,
        message: String,
    ) -> Refusal {
        let Meaning { class, waits, hint } = meaning;
        Refusal { code, class, waits, hint, address, message }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_english())?;
        if let FetchError::Refused(refusal) = self
            && let Some(hint) = refusal.hint
        {
            write!(f, ": {}", hint.en(refusal.address))?;
        }
        Ok(())
    }
}

impl std::error::Error for FetchError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_a_class() {
        for (status, class) in [
            (429, FailureClass::Throttled),
            (401, FailureClass::Misconfigured),
            (403, FailureClass::Misconfigured),
            (404, FailureClass::Misconfigured),
            (500, FailureClass::Transient),
            (503, FailureClass::Transient),
            (302, FailureClass::Unknown),
            (400, FailureClass::Unknown),
        ] {
            assert_eq!(FetchError::Status(status).class(), class, "{status}");
        }
    }

    #[test]
    fn only_what_may_have_been_carried_out_may_have_replaced_the_token() {
        let wait = Duration::from_secs(1);
        for (error, replaced, host) in [
            (FetchError::TimedOut, true, true),
            (FetchError::Broken("x".into()), true, true),
            (FetchError::NotConnected("x".into()), false, true),
            (FetchError::Status(502), true, true),
            (FetchError::ComeBack { status: 503, wait }, true, true),
            (FetchError::ComeBack { status: 429, wait }, false, false),
            (FetchError::NotJson, true, false),
            (FetchError::CannotSend("x".into()), false, false),
            (FetchError::ForcedTooOften { wait }, false, false),
            (FetchError::refused(-1, FailureClass::Transient), false, false),
        ] {
            assert_eq!(error.may_have_replaced(), replaced, "{error:?}");
            assert_eq!(error.blames_host(), host, "{error:?}");
        }
    }

    #[test]
    fn what_our_own_count_holds_back_was_not_sent_and_says_when_it_may_be() {
        let wait = Duration::from_secs(7);
        for (error, class) in [
            (FetchError::BudgetSpent { wait }, FailureClass::QuotaSpent),
            (FetchError::BudgetReserved { wait }, FailureClass::Reserved),
            (FetchError::ForcedTooOften { wait }, FailureClass::Reserved),
        ] {
            let told = (error.class(), error.wait(), error.was_sent());
            assert_eq!(told, (class, Some(wait), false), "{error:?}");
        }
    }
}
