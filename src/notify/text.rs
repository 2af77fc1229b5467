//! A message as people read it, in Chinese or English: what happened, since when, what to do, until when
//! the token works. Plain text: it looks the same in every group robot, and nothing in it is taken for
//! markup. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::Language;
use crate::snapshot::{CallsUsed, Remedy, Trouble};
use crate::source::FailureClass;
use crate::token::SourceName;

use super::message::{Item, Message};

/// How many names stand in a list.
const MOST_NAMES: usize = 10;

/// Beijing is eight hours ahead of UTC all year.
const BEIJING: Duration = Duration::from_secs(8 * 3_600);

const DAY: u64 = 86_400;

/// What is kept free for the last line, which says how much was left out.
const LAST_LINE_BYTES: usize = 96;

/// The message in `most_bytes` at most; what does not fit is counted in the last line.
pub(super) fn text(message: &Message, language: Language, most_bytes: usize) -> String {
    let words = Words { language };
    let mut text =
        format!("{}wechat-token-server{}{}", words.open(), words.close(), message.server);
    let mut left_out = message.left_out;
    for (paragraph, count) in words.paragraphs(&message.items) {
        if text.len() + 2 + paragraph.len() + LAST_LINE_BYTES <= most_bytes {
            text.push_str("\n\n");
            text.push_str(&paragraph);
        } else {
            left_out += count;
        }
    }
    if left_out > 0 {
        text.push_str("\n\n");
        text.push_str(&match language {
            Language::Chinese => format!("……另有 {left_out} 条，见日志与 /v1/status"),
            Language::English => format!("… and {left_out} more: see the log and /v1/status"),
        });
    }
    // A robot would take it for a command to name somebody.
    text.replace('<', "‹")
}

/// Failures with one cause, which are told together.
struct Alike<'a> {
    sources: Vec<&'a SourceName>,
    since: SystemTime,
    until: Option<SystemTime>,
    trouble: &'a Trouble,
}

struct Words {
    language: Language,
}

impl Words {
    fn open(&self) -> &'static str {
        self.either("【", "[")
    }

    fn close(&self) -> &'static str {
        self.either("】", "] ")
    }

    fn either<'a>(&self, zh: &'a str, en: &'a str) -> &'a str {
        match self.language {
            Language::Chinese => zh,
            Language::English => en,
        }
    }

    /// One for each cause, with how many items it stands for.
    fn paragraphs(&self, items: &[Item]) -> Vec<(String, usize)> {
        let mut paragraphs = Vec::new();
        let alike = alike(items);
        paragraphs.extend(alike.iter().map(|alike| (self.failing(alike), alike.sources.len())));
        let mut recovered: Vec<&SourceName> = Vec::new();
        let mut longest = Duration::ZERO;
        for item in items {
            match item {
                Item::Failing { .. } => {}
                Item::Recovered { source, since, at, .. } => {
                    recovered.push(source);
                    longest = longest.max(at.duration_since(*since).unwrap_or_default());
                }
                Item::Quota(used) => paragraphs.push((self.quota(used), 1)),
                Item::Foreign { source, at, times } => {
                    paragraphs.push((self.foreign(source, *at, *times), 1));
                }
                Item::Test => paragraphs.push((self.test().to_owned(), 1)),
            }
        }
        if !recovered.is_empty() {
            let (names, lasted) = (self.names(&recovered), self.duration(longest));
            let paragraph = match self.language {
                Language::Chinese => format!("已恢复：{names}\n故障持续：{lasted}"),
                Language::English => format!("Recovered: {names}\nIt lasted: {lasted}"),
            };
            paragraphs.push((paragraph, recovered.len()));
        }
        paragraphs
    }

    fn failing(&self, alike: &Alike<'_>) -> String {
        let (names, cause) = (self.names(&alike.sources), self.cause(alike.trouble));
        let Remedy { en, zh } = &alike.trouble.remedy;
        let (since, remedy) = (self.time(alike.since), self.either(zh, en));
        match (self.language, alike.until) {
            (Language::Chinese, Some(until)) => format!(
                "续期失败：{names}\n原因：{cause}\n开始：{since}\n处理：{remedy}\n当前令牌有效至：{}",
                self.time(until)
            ),
            (Language::Chinese, None) => {
                format!("没有可用令牌：{names}\n原因：{cause}\n开始：{since}\n处理：{remedy}")
            }
            (Language::English, Some(until)) => format!(
                "Not renewed: {names}\nWhy: {cause}\nSince: {since}\nTo do: {remedy}\nThe token works until: {}",
                self.time(until)
            ),
            (Language::English, None) => {
                format!("No token: {names}\nWhy: {cause}\nSince: {since}\nTo do: {remedy}")
            }
        }
    }

    fn quota(&self, used: &CallsUsed) -> String {
        let CallsUsed { account, made, limit, percent } = used;
        let (name, endpoint) = (&*account.name, &*account.endpoint);
        match self.language {
            Language::Chinese => format!(
                "调用额度：{name} 的 {endpoint} 今日已用 {made}/{limit} 次（{percent}%）\n处理：查找频繁强制刷新的\
                 客户端（日志与 /v1/status），或其他使用同一账号的系统；额度于北京时间零点恢复"
            ),
            Language::English => format!(
                "Calls: {name} has used {made} of {limit} calls of {endpoint} today ({percent} %)\nTo do: look for \
                 clients that force refreshes (the log, /v1/status) and for other systems with this account; \
                 the count begins anew at midnight in Beijing (16:00 UTC)"
            ),
        }
    }

    fn foreign(&self, source: &SourceName, at: SystemTime, times: u32) -> String {
        let at = self.time(at);
        match self.language {
            Language::Chinese => format!(
                "外部获取：{source} 尚未到期的令牌被上游拒绝（{times} 次，最近 {at}）\n处理：有其他系统在用同一账号\
                 获取令牌，请查找持有该 AppSecret 的服务器、SDK 或工具；找不到时重置 AppSecret"
            ),
            Language::English => format!(
                "Fetched elsewhere: a token of {source} that should be good was refused ({times} times, last at \
                 {at})\nTo do: another system fetches tokens for this account. Look for servers, SDKs or tools \
                 that hold its AppSecret; where none can be found, reset the AppSecret"
            ),
        }
    }

    fn test(&self) -> &'static str {
        self.either("测试消息：推送已配置成功", "A test: messages arrive")
    }

    fn names(&self, sources: &[&SourceName]) -> String {
        let shown: Vec<&str> = sources.iter().take(MOST_NAMES).map(|name| name.as_str()).collect();
        let count = sources.len();
        let names = shown.join(self.either("、", ", "));
        match (count > MOST_NAMES, self.language) {
            (false, _) => names,
            (true, Language::Chinese) => format!("{names} 等 {count} 个"),
            (true, Language::English) => format!("{names} and {} more", count - MOST_NAMES),
        }
    }

    fn cause(&self, trouble: &Trouble) -> String {
        if self.language == Language::English {
            return trouble.what.to_string();
        }
        let class = class_words(trouble.class);
        match &trouble.code {
            Some(code) => format!("{class}，错误码 {code}"),
            None => format!("{class}（{}）", trouble.what_zh),
        }
    }

    /// An instant: in Beijing's time, which readers of Chinese messages have on the wall, or in UTC.
    fn time(&self, at: SystemTime) -> String {
        match self.language {
            Language::Chinese => format!("{}（北京时间）", civil(at + BEIJING)),
            Language::English => format!("{} UTC", civil(at)),
        }
    }

    fn duration(&self, lasted: Duration) -> String {
        let minutes = lasted.as_secs() / 60;
        let (hours, rest) = (minutes / 60, minutes % 60);
        match (self.language, hours, minutes) {
            (Language::Chinese, 0, 0) => format!("{} 秒", lasted.as_secs()),
            (Language::Chinese, 0, _) => format!("{minutes} 分钟"),
            (Language::Chinese, ..) => format!("{hours} 小时 {rest} 分钟"),
            (Language::English, 0, 0) => format!("{} s", lasted.as_secs()),
            (Language::English, 0, _) => format!("{minutes} min"),
            (Language::English, ..) => format!("{hours} h {rest} min"),
        }
    }
}

/// The failures of a message by their cause, in the order of the message.
fn alike(items: &[Item]) -> Vec<Alike<'_>> {
    let mut found: Vec<Alike<'_>> = Vec::new();
    let mut places = BTreeMap::new();
    for item in items {
        let Item::Failing { source, since, trouble, until } = item else { continue };
        let cause = (trouble.class, &trouble.code, &trouble.what, until.is_some());
        let place = *places.entry(cause).or_insert(found.len());
        match found.get_mut(place) {
            Some(alike) => {
                alike.sources.push(source);
                alike.since = alike.since.min(*since);
                alike.until = alike.until.min(*until);
            }
            None => {
                found.push(Alike { sources: vec![source], since: *since, until: *until, trouble })
            }
        }
    }
    found
}

/// What a class of failures is, in Chinese.
fn class_words(class: &str) -> &'static str {
    let is = |other: FailureClass| class == other.as_str();
    if is(FailureClass::Transient) {
        "网络或上游故障"
    } else if is(FailureClass::Throttled) {
        "调用过于频繁"
    } else if is(FailureClass::QuotaSpent) {
        "当日调用次数已用完"
    } else if is(FailureClass::Misconfigured) {
        "配置或权限有误"
    } else if is(FailureClass::DependencyInvalid) {
        "所依赖的令牌被拒绝"
    } else {
        "上游的回答无法识别"
    }
}

/// `2026-11-24 15:30:05`, of an instant in the time that it is handed in.
fn civil(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Hinnant, "chrono-compatible low-level date algorithms", civil_from_days: years are counted from
    // 1 March, so that the leap day is the last.
    let days = seconds / DAY + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds % DAY / 3_600, seconds % 3_600 / 60, seconds % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests;
