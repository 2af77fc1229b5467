//! What to do about a failure that no table of codes speaks of, in English and in Chinese.

use super::FetchError;

/// What to do, in both languages. Holds nothing of the failure itself: no secret, no address.
pub(super) type Words = (&'static str, &'static str);

/// What sends a reader to `doctor`: the end of the words on failures whose cause lies in between. Who
/// reads them in its report is there already.
pub const SEE_DOCTOR: Words = (
    "; `wechat-token-server doctor` looks at the hosts",
    "；可运行 wechat-token-server doctor 检查上游主机",
);

/// What sends a reader to the server's log. A command has none.
pub const SEE_LOG: Words = (
    "; `detail` in the log has the upstream's message with its rid",
    "；日志的 detail 中有上游的完整信息与 rid",
);

/// What to do about a failure.
pub(super) fn of(error: &FetchError) -> Words {
    match error {
        // Without its name, as in what a client is told.
        FetchError::DependencyAbsent(_) => {
            ("see to the source that it depends on", "请先处理它所依赖的令牌源")
        }
        FetchError::BudgetSpent { .. } => (
            "the calls are there again at midnight in Beijing (16:00 UTC); find out who else fetches for the account \
             (`wechat-token-server quota show` has our count), or change to WeChat's stable_token",
            "调用次数于北京时间零点恢复；请查明还有谁在用该账号获取令牌（wechat-token-server quota show 显示本服务器的计数），\
             或改用微信的 stable_token",
        ),
        FetchError::BudgetReserved { .. } => (
            "find the client that asks for so many refreshes (the log names it), and have it read again, or say with \
             `stale` what was refused",
            "请找出频繁要求刷新的客户端（日志中有其名称），让它重新读取，或用 stale 说明被拒绝的令牌",
        ),
        FetchError::ForcedTooOften { .. } => (
            "use the token that there is; a client whose token was refused says so with `stale`, without `force`",
            "请使用现有令牌；令牌被拒绝的客户端应使用 stale，而不是 force",
        ),
        FetchError::CannotSend(_) => (
            "correct that in the config, or in the value that is filled in there",
            "请修正配置中的该处，或填入该处的值",
        ),
        FetchError::NotConnected(_) => (
            "it is tried again by itself; if it lasts, check DNS, the firewall's outgoing rules and outbound.proxy; \
             `wechat-token-server doctor` looks at the hosts",
            "会自动重试；若持续，请检查 DNS、防火墙出站规则与 outbound.proxy；可运行 wechat-token-server doctor 检查上游主机",
        ),
        FetchError::TimedOut => (
            "it is tried again by itself; if it lasts, check the firewall's outgoing rules, outbound.proxy and \
             refresh.timeout; `wechat-token-server doctor` looks at the hosts",
            "会自动重试；若持续，请检查防火墙出站规则、outbound.proxy 与 refresh.timeout；\
             可运行 wechat-token-server doctor 检查上游主机",
        ),
        FetchError::Broken(_) => (
            "it is tried again by itself; if it lasts, look for a firewall or a proxy in between that does it; \
             `wechat-token-server doctor` looks at the hosts",
            "会自动重试；若持续，多半是中间的防火墙或代理所致；可运行 wechat-token-server doctor 检查上游主机",
        ),
        FetchError::Status(status) | FetchError::ComeBack { status, .. } => of_status(*status),
        FetchError::TooLarge | FetchError::NotJson => (
            "it may not be the API that answers: look for a proxy or a login page in between, and check the source's \
             url",
            "应答的可能不是该 API：请查看中间是否有代理或登录页面，并检查该令牌源的 url",
        ),
        FetchError::NoValue(_) => (
            "check value_field and capture of the source by the endpoint's documentation",
            "请对照接口文档检查该令牌源的 value_field 与 capture",
        ),
        FetchError::NoLifetime(_) => (
            "check expires_field, expires_unit, expires_is and lifetime of the source by the endpoint's \
             documentation, and this machine's clock",
            "请对照接口文档检查该令牌源的 expires_field、expires_unit、expires_is 与 lifetime，并检查本机时钟",
        ),
        FetchError::Refused(_) => (
            "look the code up in the endpoint's documentation; `detail` in the log has the upstream's message with its rid",
            "请在接口文档中查询该错误码；日志的 detail 中有上游的完整信息与 rid",
        ),
    }
}

fn of_status(status: u16) -> Words {
    match status {
        300..=399 => (
            "correct the source's url, or look for a login page in between: the answer sends elsewhere, which is not followed",
            "请修正该令牌源的 url，或查看中间是否有登录页面：应答要求跳转，而本服务器不跟随",
        ),
        401 | 403 | 404 => (
            "check url and hosts of the source, and outbound.proxy: it may not be the API that answers",
            "请检查该令牌源的 url 与 hosts，以及 outbound.proxy：应答的可能不是该 API",
        ),
        429 => (
            "it is tried again later; look for other systems that use the account",
            "稍后自动重试；请查找使用同一账号的其他系统",
        ),
        500.. => (
            "it is tried again by itself; if it lasts, look for a proxy in between, or ask the vendor",
            "会自动重试；若持续，请查看中间的代理，或咨询上游厂商",
        ),
        _ => (
            "check the source's url and what it sends by the endpoint's documentation, and outbound.proxy",
            "请对照接口文档检查该令牌源的 url 与请求内容，以及 outbound.proxy",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::FailureClass;
    use crate::token::SourceName;
    use std::collections::HashSet;
    use std::time::Duration;

    /// What a failure may hold that is nobody's business.
    const HIDDEN: &str = "s3cr3t.example";

    fn every_kind() -> Vec<FetchError> {
        let wait = Duration::from_secs(7);
        let mut kinds = vec![
            FetchError::DependencyAbsent(SourceName::parse(HIDDEN).unwrap()),
            FetchError::BudgetSpent { wait },
            FetchError::BudgetReserved { wait },
            FetchError::ForcedTooOften { wait },
            FetchError::CannotSend(HIDDEN.into()),
            FetchError::NotConnected(HIDDEN.into()),
            FetchError::TimedOut,
            FetchError::Broken(HIDDEN.into()),
            FetchError::ComeBack { status: 503, wait },
            FetchError::TooLarge,
            FetchError::NotJson,
            FetchError::NoValue(HIDDEN.into()),
            FetchError::NoLifetime(HIDDEN),
            FetchError::refused(7, FailureClass::Unknown),
        ];
        kinds.extend([204, 302, 400, 401, 403, 404, 429, 500, 502, 999].map(FetchError::Status));
        kinds
    }

    #[test]
    fn every_failure_comes_with_what_to_do_in_both_languages() {
        for error in every_kind() {
            let (en, zh) = error.hint();
            assert!(en.is_ascii() && en.starts_with(|c: char| c.is_ascii_lowercase()), "{en}");
            assert!(!zh.is_ascii(), "{zh}");
            for text in [&en, &zh] {
                assert!(!text.ends_with(['.', '。', '；', ';', ' ']), "{text}");
                assert!(!text.contains(HIDDEN) && !text.contains("  "), "{text}");
            }
            // What a client is told is about the failure only.
            assert!(!error.to_string().contains(&*en), "{error}");
        }
    }

    #[test]
    fn who_cannot_get_through_is_sent_to_doctor() {
        for error in every_kind() {
            let (en, zh) = error.hint();
            let is_between = matches!(
                error,
                FetchError::NotConnected(_) | FetchError::TimedOut | FetchError::Broken(_)
            );
            let ends = (en.ends_with(SEE_DOCTOR.0), zh.ends_with(SEE_DOCTOR.1));
            assert_eq!(ends, (is_between, is_between), "{error:?}");
        }
    }

    #[test]
    fn what_a_failure_is_called_is_in_the_document_for_operators() {
        let document = include_str!("../../docs/operations.md");
        for error in every_kind() {
            let words = error.to_string();
            let words = words.split(':').next().unwrap_or_default();
            let words = words.trim_end_matches(|c: char| c.is_ascii_digit());
            assert!(document.contains(words), "{words}");
        }
    }

    #[test]
    fn a_status_is_answered_by_its_kind() {
        let words: HashSet<_> = [302, 400, 404, 429, 503].map(of_status).into();
        assert_eq!(words.len(), 5);
        for (status, alike) in [(301, 302), (403, 404), (401, 404), (500, 503)] {
            assert_eq!(of_status(status), of_status(alike), "{status}");
        }
    }
}
