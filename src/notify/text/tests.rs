//! Messages as they are read, word for word.

use std::sync::Arc;

use super::*;
use crate::account::Account;

/// 2027-01-15 08:00:00 UTC.
fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

fn trouble(class: FailureClass, code: Option<&str>, what: &str) -> Arc<Trouble> {
    let (en, zh) = match code {
        Some(_) => ("allow it", "加入白名单"),
        None => ("wait", "请等待"),
    };
    Arc::new(Trouble {
        at: at(0),
        what: what.into(),
        what_zh: "上游没有及时应答".into(),
        class: class.as_str(),
        code: code.map(Into::into),
        remedy: Remedy { en: en.into(), zh: zh.into() },
        is_failure: true,
    })
}

fn name(name: &str) -> SourceName {
    SourceName::parse(name).unwrap()
}

fn failing(source: &str, trouble: &Arc<Trouble>, until: Option<SystemTime>) -> Item {
    Item::Failing { source: name(source), since: at(5), trouble: Arc::clone(trouble), until }
}

fn message(items: Vec<Item>) -> Message {
    Message { id: "msg_1".into(), at: at(60), server: "shanghai-1".into(), items, left_out: 0 }
}

fn everything() -> Message {
    let refused =
        trouble(FailureClass::Misconfigured, Some("40164"), "the upstream answered errcode 40164");
    let silent = trouble(FailureClass::Transient, None, "the upstream did not answer in time");
    let account = Account { name: "wx0".into(), endpoint: "/cgi-bin/token".into() };
    let used = CallsUsed { account, made: 1_600, limit: 2_000, percent: 80 };
    message(vec![
        failing("card", &silent, None),
        failing("access_token", &refused, Some(at(3_600))),
        failing("ticket", &refused, Some(at(1_800))),
        Item::Quota(Arc::new(used)),
        Item::Foreign { source: name("access_token"), at: at(7), times: 2 },
        Item::Recovered { source: name("other"), since: at(0), at: at(5_400), until: None },
    ])
}

#[test]
fn a_message_in_chinese() {
    let expected = "\
【wechat-token-server】shanghai-1

没有可用令牌：card
原因：网络或上游故障（上游没有及时应答）
开始：2027-01-15 16:00:05（北京时间）
处理：请等待

续期失败：access_token、ticket
原因：配置或权限有误，错误码 40164
开始：2027-01-15 16:00:05（北京时间）
处理：加入白名单
当前令牌有效至：2027-01-15 16:30:00（北京时间）

调用额度：wx0 的 /cgi-bin/token 今日已用 1600/2000 次（80%）
处理：查找频繁强制刷新的客户端（日志与 /v1/status），或其他使用同一账号的系统；额度于北京时间零点恢复

外部获取：access_token 尚未到期的令牌被上游拒绝（2 次，最近 2027-01-15 16:00:07（北京时间））
处理：有其他系统在用同一账号获取令牌，请查找持有该 AppSecret 的服务器、SDK 或工具；找不到时重置 AppSecret

已恢复：other
故障持续：1 小时 30 分钟";
    assert_eq!(text(&everything(), Language::Chinese, 4_096), expected);
}

#[test]
fn a_message_in_english() {
    let expected = "\
[wechat-token-server] shanghai-1

No token: card
Why: the upstream did not answer in time
Since: 2027-01-15 08:00:05 UTC
To do: wait

Not renewed: access_token, ticket
Why: the upstream answered errcode 40164
Since: 2027-01-15 08:00:05 UTC
To do: allow it
The token works until: 2027-01-15 08:30:00 UTC

Calls: wx0 has used 1600 of 2000 calls of /cgi-bin/token today (80 %)
To do: look for clients that force refreshes (the log, /v1/status) and for other systems with this account; the count begins anew at midnight in Beijing (16:00 UTC)

Fetched elsewhere: a token of access_token that should be good was refused (2 times, last at 2027-01-15 08:00:07 UTC)
To do: another system fetches tokens for this account. Look for servers, SDKs or tools that hold its AppSecret; where none can be found, reset the AppSecret

Recovered: other
It lasted: 1 h 30 min";
    assert_eq!(text(&everything(), Language::English, 4_096), expected);
    let test = text(&message(vec![Item::Test]), Language::English, 4_096);
    assert_eq!(test, "[wechat-token-server] shanghai-1\n\nA test: messages arrive");
}

#[test]
fn a_text_has_a_limit_and_says_what_is_left_out() {
    let items = |causes: usize| {
        let item = |n: usize| {
            let trouble = trouble(FailureClass::Unknown, Some(&n.to_string()), "no");
            failing(&format!("s{n}"), &trouble, None)
        };
        (0..causes).map(item).collect::<Vec<_>>()
    };
    for language in [Language::Chinese, Language::English] {
        let mut many = message(items(100));
        many.left_out = 50;
        let text = text(&many, language, 2_048);
        assert!(text.len() <= 2_048 && text.len() > 1_500, "{}", text.len());
        let told = text.matches("\nWhy: ").count() + text.matches("\n原因：").count();
        assert!(text.lines().last().unwrap().contains(&format!(" {} ", 150 - told)), "{text}");
    }
    // Of one cause, names are.
    let alike = trouble(FailureClass::Transient, None, "no");
    let items = (0..100).map(|n| failing(&format!("s{n:02}"), &alike, None)).collect();
    let text = text(&message(items), Language::Chinese, 2_048);
    assert!(text.contains("s08、s09 等 100 个\n") && !text.contains("s10"), "{text}");
}

#[test]
fn nothing_is_taken_for_a_command_of_a_robot() {
    let mut message = message(vec![Item::Test]);
    message.server = "<at user_id=\"all\">".into();
    assert!(!text(&message, Language::Chinese, 2_048).contains('<'));
}

#[test]
fn every_class_of_failures_has_words_of_its_own() {
    use FailureClass as C;
    let classes = [
        C::Transient,
        C::Unknown,
        C::Throttled,
        C::QuotaSpent,
        C::Misconfigured,
        C::DependencyInvalid,
    ];
    let words: std::collections::BTreeSet<&str> =
        classes.iter().map(|class| class_words(class.as_str())).collect();
    assert_eq!(words.len(), classes.len());
}

#[test]
fn days_are_those_of_the_calendar() {
    // By `date -u -d`.
    for (seconds, expected) in [
        (0, "1970-01-01 00:00:00"),
        (951_782_399, "2000-02-28 23:59:59"),
        (951_868_799, "2000-02-29 23:59:59"),
        (1_767_225_600, "2026-01-01 00:00:00"),
        (4_107_542_400, "2100-03-01 00:00:00"),
    ] {
        assert_eq!(civil(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
    }
}
