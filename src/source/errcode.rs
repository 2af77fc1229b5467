//! Error codes of the WeChat API: what each means to us and what an operator does about it.
//!
//! Codes and meanings: the error tables of `getAccessToken`, `getStableAccessToken`, `getticket`
//! and the global list at developers.weixin.qq.com. Which of them pass by themselves WeChat says of
//! -1 and 45011 only; the rest of the classes is our judgement. The code decides, never the text.

use super::FailureClass;

/// What to do about an error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hint {
    /// In English.
    pub en: &'static str,
    /// In Chinese.
    pub zh: &'static str,
}

/// Who may mend it, by which the class follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// The class, whatever the source.
    Is(FailureClass),
    /// A wrong credential: the dependency's token where there is one, else the configured secret.
    Credential,
}

use FailureClass::{Misconfigured, QuotaSpent, Throttled, Transient};
use Meaning::{Credential, Is};

/// (code, meaning, hint in English, hint in Chinese), by code.
#[rustfmt::skip]
const ERRCODES: &[(i64, Meaning, &str, &str)] = &[
    (-1, Is(Transient), "WeChat is busy", "微信系统繁忙，稍后自动重试"),
    (40001, Credential, "the AppSecret is wrong, or the access_token is not the latest", "AppSecret 错误，或 access_token 不是最新"),
    (40002, Is(Misconfigured), "grant_type is wrong; set it to client_credential", "grant_type 错误，应为 client_credential"),
    (40013, Is(Misconfigured), "the appid is wrong; check it in the console", "appid 不合法，请在公众平台核对"),
    (40014, Credential, "the access_token is not valid", "access_token 不合法"),
    (40125, Is(Misconfigured), "the AppSecret is wrong; it may have been reset in the console", "AppSecret 错误，可能已在公众平台重置"),
    (40164, Is(Misconfigured), "this server's address is not on the IP allow list; add it in the console", "本服务器 IP 不在白名单中，请在公众平台「基本配置 - IP白名单」添加"),
    (40243, Is(Misconfigured), "the AppSecret is frozen; unfreeze it in the console (takes 10 minutes)", "AppSecret 已被冻结，请在公众平台解冻（约 10 分钟生效）"),
    (41001, Credential, "the access_token is missing", "缺少 access_token"),
    (41002, Is(Misconfigured), "the appid is missing from args", "args 中缺少 appid"),
    (41004, Is(Misconfigured), "the secret is missing from args", "args 中缺少 secret"),
    (42001, Credential, "the access_token has expired", "access_token 已过期"),
    (43002, Is(Misconfigured), "POST is required; set method", "需要 POST 请求，请设置 method"),
    (45009, Is(QuotaSpent), "the day's calls are used up", "当日调用次数已用完，次日恢复"),
    (45011, Is(Throttled), "too many calls this minute", "调用过于频繁，下一分钟重试"),
    (48001, Is(Misconfigured), "the account is not authorised for this API", "该账号未获得此接口权限"),
    (48004, Is(Misconfigured), "the API is banned for violations; see the console", "接口因违规被封禁，请登录公众平台查看"),
    (50002, Is(Misconfigured), "the account is frozen or closed", "账号被冻结或注销"),
    (50004, Is(Misconfigured), "the account may not use the token API", "账号被禁止使用 token 接口"),
    (50007, Is(Misconfigured), "the account is frozen", "账号已冻结"),
    (61004, Is(Misconfigured), "this server's address is not registered; add it in the console", "本服务器 IP 未登记，请在平台添加"),
    (61024, Is(Misconfigured), "this appid belongs to a third-party platform; use its component endpoint", "该 appid 由第三方平台代管，请使用 component 接口"),
    (89501, Is(Misconfigured), "this server's address waits for an administrator's confirmation", "本服务器 IP 正在等待管理员确认"),
    (89503, Is(Misconfigured), "this call waits for an administrator's confirmation", "此次调用需要管理员确认"),
    (89506, Is(Misconfigured), "an administrator refused this server's address twice: blocked for 24 hours", "本服务器 IP 被管理员拒绝两次，24 小时内不可用"),
    (89507, Is(Misconfigured), "an administrator refused this server's address: blocked for an hour", "本服务器 IP 被管理员拒绝，1 小时内不可用"),
];

/// What `errcode` means to a source that depends on others, or does not. An unknown code is
/// transient: it may pass, and the growing waits keep it cheap.
pub(super) fn classify(errcode: i64, has_dependencies: bool) -> (FailureClass, Option<Hint>) {
    let Ok(at) = ERRCODES.binary_search_by_key(&errcode, |row| row.0) else {
        return (Transient, None);
    };
    let (_, meaning, en, zh) = ERRCODES[at];
    let class = match meaning {
        Is(class) => class,
        Credential if has_dependencies => FailureClass::DependencyInvalid,
        Credential => Misconfigured,
    };
    (class, Some(Hint { en, zh }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_says_what_to_do_in_both_languages() {
        assert!(ERRCODES.is_sorted_by(|a, b| a.0 < b.0));
        for (code, _, en, zh) in ERRCODES {
            assert!(!en.is_empty() && en.is_ascii(), "{code}");
            assert!(!zh.is_ascii(), "{code}");
        }
    }

    #[test]
    fn a_refused_token_is_the_dependencys_where_there_is_one() {
        for code in [40001, 40014, 42001] {
            assert_eq!(classify(code, true).0, FailureClass::DependencyInvalid);
            assert_eq!(classify(code, false).0, Misconfigured);
        }
        assert_eq!(classify(45009, true).0, QuotaSpent);
        assert_eq!(classify(45011, false).0, Throttled);
        assert_eq!(classify(-1, false).0, Transient);
        assert_eq!(classify(123_456, false), (Transient, None));
    }
}
