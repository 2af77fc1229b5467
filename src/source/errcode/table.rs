//! ONE table of error codes, by vendor and endpoint: what each means to us, what an operator does
//! about it in two languages, and where that is from.
//!
//! Which codes pass by themselves WeChat says of -1 and 45011 only; the rest of the classes is our
//! judgement.

use super::FailureClass::{self, Misconfigured, QuotaSpent, Throttled, Transient};
use crate::config::Vendor;

/// A code as the table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Number(i64),
    Text(&'static str),
}

/// Which class of failure a code is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// This one.
    Is(FailureClass),
    /// This one, and not before so many seconds: after the first refusal, after further ones.
    Waits(FailureClass, u64, u64),
    /// A wrong credential: the dependency's token where there is one, else the configured secret.
    Credential,
}

/// What one code means.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// What the path ends with; empty for all of the vendor's endpoints. The first row that fits
    /// counts, so one for an endpoint stands above one for all.
    pub endpoint: &'static str,
    pub code: Key,
    pub kind: Kind,
    pub en: &'static str,
    pub zh: &'static str,
    pub source: &'static str,
}

/// The rows that apply to a vendor, in the order in which they count.
pub(super) fn of(vendor: Vendor) -> &'static [&'static [Row]] {
    match vendor {
        // QQ's mini programs have WeChat's codes and rules, by QQ's own text of getToken.
        Vendor::WeChat | Vendor::Qq => &[WECHAT],
        Vendor::Component => &[COMPONENT, WECHAT],
        Vendor::WeCom => &[WECOM],
        Vendor::DingTalk => &[DINGTALK, OAUTH],
        Vendor::Feishu => &[FEISHU, OAUTH],
        Vendor::Douyin => &[DOUYIN],
        Vendor::Hub => &[HUB],
        Vendor::Baidu
        | Vendor::Kuaishou
        | Vendor::Huawei
        | Vendor::TencentKyc
        | Vendor::Youzan
        | Vendor::Unknown => &[OAUTH],
    }
}

use Key::{Number as N, Text as T};
use Kind::{Credential, Is, Waits};

const fn row(
    code: Key,
    kind: Kind,
    en: &'static str,
    zh: &'static str,
    source: &'static str,
) -> Row {
    Row { endpoint: "", code, kind, en, zh, source }
}

const fn at(endpoint: &'static str, row: Row) -> Row {
    Row { endpoint, ..row }
}

const TOKEN: &str = "developers.weixin.qq.com/doc/store/leagueheadsupplier/API/getaccesstoken.html";
const STABLE: &str = "developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken";
const GLOBAL: &str = "developers.weixin.qq.com/doc/oplatform/developers/errCode/errCode.html";
/// The copy of an older official page.
const OLDER: &str = "github.com/fastwego/offiaccount doc/access_token.md";

#[rustfmt::skip]
const WECHAT: &[Row] = &[
    row(N(-1), Is(Transient), "WeChat is busy", "微信系统繁忙，稍后自动重试", TOKEN),
    row(N(40001), Credential, "the AppSecret is wrong, or the access_token is not the latest", "AppSecret 错误，或 access_token 不是最新", TOKEN),
    row(N(40002), Is(Misconfigured), "grant_type is wrong; set it to client_credential", "grant_type 错误，应为 client_credential", TOKEN),
    row(N(40013), Is(Misconfigured), "the appid is wrong; check it in the console", "appid 不合法，请在公众平台核对", TOKEN),
    row(N(40014), Credential, "the access_token is not valid", "access_token 不合法", GLOBAL),
    row(N(40125), Is(Misconfigured), "the AppSecret is wrong; it may have been reset in the console", "AppSecret 错误，可能已在公众平台重置", TOKEN),
    row(N(40164), Is(Misconfigured), "add {address} to the IP allow list in the console", "请将 {address} 加入公众平台「基本配置 - IP白名单」", TOKEN),
    row(N(40243), Is(Misconfigured), "the AppSecret is frozen; unfreeze it in the console (takes 10 minutes)", "AppSecret 已被冻结，请在公众平台解冻（约 10 分钟生效）", TOKEN),
    row(N(41001), Credential, "the access_token is missing", "缺少 access_token", GLOBAL),
    row(N(41002), Is(Misconfigured), "the appid is missing from the request", "请求中缺少 appid", STABLE),
    row(N(41004), Is(Misconfigured), "the secret is missing from the request", "请求中缺少 secret", TOKEN),
    row(N(42001), Credential, "the access_token has expired", "access_token 已过期", GLOBAL),
    row(N(43002), Is(Misconfigured), "POST is required; set json", "需要 POST 请求，请设置 json", STABLE),
    row(N(45009), Is(QuotaSpent), "the day's calls are used up; they are there again at midnight in Beijing, or after `wechat-token-server quota reset NAME`", "当日调用次数已用完，北京时间零点恢复，或用 wechat-token-server quota reset NAME 重置", STABLE),
    row(N(45011), Is(Throttled), "too many calls this minute", "调用过于频繁，下一分钟重试", STABLE),
    row(N(47001), Is(Misconfigured), "the body is not what the endpoint takes; set json", "请求体格式错误，请设置 json", GLOBAL),
    row(N(48001), Is(Misconfigured), "the account is not authorised for this API", "该账号未获得此接口权限", GLOBAL),
    row(N(48004), Is(Misconfigured), "the API is banned for violations; see the console", "接口因违规被封禁，请登录公众平台查看", GLOBAL),
    row(N(50002), Is(Misconfigured), "the account is frozen or closed", "账号被冻结或注销", GLOBAL),
    row(N(50004), Is(Misconfigured), "the account may not use the token API", "账号被禁止使用 token 接口", TOKEN),
    row(N(50007), Is(Misconfigured), "the account is frozen", "账号已冻结", TOKEN),
    row(N(61004), Is(Misconfigured), "add {address} to the IP allow list in the console", "请将 {address} 加入平台的 IP 白名单", GLOBAL),
    row(N(61024), Is(Misconfigured), "this appid belongs to a third-party platform; use its component endpoint", "该 appid 由第三方平台代管，请使用 component 接口", OLDER),
    row(N(89501), Is(Misconfigured), "{address} waits for an administrator's confirmation", "{address} 正在等待管理员确认", OLDER),
    row(N(89503), Is(Misconfigured), "this call waits for an administrator's confirmation: WeChat has asked for it in a message", "此次调用需要管理员确认，请在微信收到的消息中确认", STABLE),
    row(N(89506), Waits(Misconfigured, 86_400, 86_400), "an administrator refused {address} twice: blocked for 24 hours", "{address} 被管理员拒绝两次，24 小时内不可用", STABLE),
    row(N(89507), Waits(Misconfigured, 3_600, 3_600), "an administrator refused {address}: blocked for an hour", "{address} 被管理员拒绝，1 小时内不可用", STABLE),
];

const PLATFORM: &str = "developers.weixin.qq.com/doc/oplatform/Third-party_Platforms/2.0/api/ThirdParty/token/component_access_token.html";
/// The enumeration of codes in an SDK's source.
const WXJAVA: &str = "github.com/Wechat-Group/WxJava common/error/WxOpenErrorMsgEnum.java";
const COMPONENT_TOKEN: &str = "api_component_token";

#[rustfmt::skip]
const COMPONENT: &[Row] = &[
    // Its dependency, if it has one, is the pushed ticket, which has codes of its own.
    at(COMPONENT_TOKEN, row(N(40001), Is(Misconfigured), "the component_appsecret is wrong", "component_appsecret 错误", PLATFORM)),
    at(COMPONENT_TOKEN, row(N(61005), Credential, "the component_verify_ticket has expired; WeChat pushes a new one every 10 minutes, and api_start_push_ticket starts that again", "component_verify_ticket 已过期；微信每 10 分钟推送一次，可调用 api_start_push_ticket 恢复推送", PLATFORM)),
    at(COMPONENT_TOKEN, row(N(61006), Credential, "the component_verify_ticket is wrong", "component_verify_ticket 错误", PLATFORM)),
    row(N(61003), Is(Misconfigured), "the account has not authorised this platform; ask its owner to", "该账号未授权给本第三方平台，请商家重新授权", WXJAVA),
    row(N(61011), Is(Misconfigured), "the component_appid is wrong", "component_appid 错误", PLATFORM),
    row(N(61023), Is(Misconfigured), "the authorizer_refresh_token is wrong; read it again with api_get_authorizer_list, or have the account authorised anew", "authorizer_refresh_token 无效；可用 api_get_authorizer_list 重新拉取，或请商家重新授权", WXJAVA),
];

const WECOM_CODES: &str = "github.com/Wechat-Group/WxJava common/error/WxCpErrorMsgEnum.java";
const WECOM_LIMITS: &str = "developer.work.weixin.qq.com/document/path/90454";

#[rustfmt::skip]
const WECOM: &[Row] = &[
    row(N(-1), Is(Transient), "WeCom is busy", "企业微信系统繁忙，稍后自动重试", WECOM_CODES),
    row(N(40001), Credential, "the corpsecret is wrong, or the access_token is not valid", "corpsecret 错误，或 access_token 无效", WECOM_CODES),
    row(N(40013), Is(Misconfigured), "the corpid is wrong", "corpid 错误", WECOM_CODES),
    row(N(40014), Credential, "the access_token is not valid", "access_token 无效", WECOM_CODES),
    row(N(40082), Credential, "the suite_access_token is not valid", "suite_access_token 无效", WECOM_CODES),
    row(N(40084), Is(Misconfigured), "the permanent_code is wrong; have the corporation authorise the suite anew", "permanent_code 错误，请企业重新授权", WECOM_CODES),
    row(N(40085), Credential, "the suite_ticket is wrong; WeCom pushes a new one every 10 minutes", "suite_ticket 错误；企业微信每 10 分钟推送一次", WECOM_CODES),
    row(N(40091), Is(Misconfigured), "the corpsecret belongs to another corpid", "corpsecret 与 corpid 不匹配", WECOM_CODES),
    row(N(41001), Credential, "the access_token is missing", "缺少 access_token", WECOM_CODES),
    row(N(41002), Is(Misconfigured), "the corpid is missing from the request", "请求中缺少 corpid", WECOM_CODES),
    row(N(41004), Is(Misconfigured), "the corpsecret is missing from the request", "请求中缺少 corpsecret", WECOM_CODES),
    row(N(42001), Credential, "the access_token has expired", "access_token 已过期", WECOM_CODES),
    row(N(42009), Credential, "the suite_access_token has expired", "suite_access_token 已过期", WECOM_CODES),
    row(N(45009), Waits(Throttled, 60, 3_600), "too many calls: blocked for a minute or for an hour", "调用过于频繁，按分钟或小时封禁", WECOM_LIMITS),
    row(N(45033), Is(Throttled), "too many calls at once", "并发调用超过限制", WECOM_CODES),
    row(N(60020), Is(Misconfigured), "add {address} to the app's trusted IP addresses in the console", "请将 {address} 加入应用的「企业可信IP」", WECOM_CODES),
];

const DINGTALK_CODES: &str = "a copy of DingTalk's list of codes: mabiji.com/dingtalk/errcode.html";

#[rustfmt::skip]
const DINGTALK: &[Row] = &[
    row(N(-1), Is(Transient), "DingTalk is busy", "钉钉系统繁忙，稍后自动重试", DINGTALK_CODES),
    row(N(88), Credential, "the credentials were refused; the log has DingTalk's message", "鉴权异常，详见日志中的错误信息", DINGTALK_CODES),
    row(N(33001), Credential, "the corporation is not known; the access_token may be wrong", "无效的企业 ID，请确认 access_token 是否正确", DINGTALK_CODES),
];

const FEISHU_OAUTH: &str = "open.feishu.cn/document/uAjLw4CM/ukTMukTMukTM/authentication-management/access-token/tenant_access_token.md";
const FEISHU_CLIENTS: &str = "public clients of Feishu; its own list does not name it";

#[rustfmt::skip]
const FEISHU: &[Row] = &[
    row(N(10003), Is(Misconfigured), "a parameter is wrong; check the app_id and the shape of the request", "参数错误，请核对 app_id 与请求格式", FEISHU_CLIENTS),
    row(N(10014), Is(Misconfigured), "the app_secret is wrong", "app_secret 错误", FEISHU_CLIENTS),
    row(N(20070), Is(Misconfigured), "the credentials are given twice; use basic or client_secret, not both", "凭证重复，basic 与 client_secret 只能用一种", FEISHU_OAUTH),
    row(N(99991663), Credential, "the tenant_access_token is not valid", "tenant_access_token 无效", FEISHU_CLIENTS),
    row(N(99991664), Credential, "the app_access_token is not valid", "app_access_token 无效", FEISHU_CLIENTS),
];

const DOUYIN_APPS: &str = "developer.open-douyin.com interface-request-credential/get-access-token";
const DOUYIN_OPEN: &str = "developer.open-douyin.com local-life/develop/preparation/client_token";

#[rustfmt::skip]
const DOUYIN: &[Row] = &[
    row(N(-1), Is(Transient), "Douyin is busy", "抖音系统繁忙，稍后自动重试", DOUYIN_APPS),
    row(N(10002), Is(Misconfigured), "a parameter is wrong or missing", "参数错误或缺失", DOUYIN_OPEN),
    row(N(10003), Is(Misconfigured), "the client_key is wrong", "client_key 不存在", DOUYIN_OPEN),
    row(N(10013), Is(Misconfigured), "the client_key or the client_secret is wrong", "client_key 或 client_secret 错误", DOUYIN_OPEN),
    // More than 500 calls in 5 minutes.
    row(N(10020), Waits(Throttled, 300, 300), "too many calls in five minutes", "5 分钟内调用过于频繁", DOUYIN_OPEN),
    row(N(40015), Is(Misconfigured), "the appid is wrong", "appid 错误", DOUYIN_APPS),
    row(N(40017), Is(Misconfigured), "the secret is wrong", "secret 错误", DOUYIN_APPS),
    row(N(40020), Is(Misconfigured), "grant_type is wrong; set it to client_credential", "grant_type 错误，应为 client_credential", DOUYIN_APPS),
];

const HUB_ANSWERS: &str = "src/http/reply.rs";

/// Another server of this program.
#[rustfmt::skip]
const HUB: &[Row] = &[
    row(T("not found"), Is(Transient), "that server has no live token of this type now, or no such type", "该服务器暂无此类型的有效令牌，或没有此类型", HUB_ANSWERS),
    row(T("invalid request"), Is(Misconfigured), "the secret is not the request_secret of that server, or type is missing", "secret 与该服务器的 request_secret 不符，或缺少 type", HUB_ANSWERS),
];

const RFC_6749: &str = "datatracker.ietf.org/doc/html/rfc6749#section-5.2";

/// The codes of OAuth 2, which many vendors use.
#[rustfmt::skip]
const OAUTH: &[Row] = &[
    row(T("invalid_client"), Is(Misconfigured), "the client's id or secret is wrong", "client_id 或密钥错误", RFC_6749),
    row(T("invalid_grant"), Is(Misconfigured), "the grant or the refresh token is not valid", "授权或 refresh_token 无效", RFC_6749),
    row(T("invalid_request"), Is(Misconfigured), "the request lacks a parameter or has a wrong one", "请求缺少参数或参数错误", RFC_6749),
    row(T("invalid_scope"), Is(Misconfigured), "the scope is wrong", "scope 错误", RFC_6749),
    row(T("unauthorized_client"), Is(Misconfigured), "the client may not use this grant", "该应用无权使用此授权方式", RFC_6749),
    row(T("unsupported_grant_type"), Is(Misconfigured), "grant_type is wrong", "grant_type 错误", RFC_6749),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_be_reached_and_says_what_to_do_in_both_languages() {
        for rows in [WECHAT, COMPONENT, WECOM, DINGTALK, FEISHU, DOUYIN, HUB, OAUTH] {
            for (at, row) in rows.iter().enumerate() {
                let Row { code, en, zh, source, .. } = row;
                assert!(!en.is_empty() && en.is_ascii(), "{code:?}");
                assert!(!zh.is_ascii(), "{code:?}");
                assert!(!source.is_empty() && source.is_ascii(), "{code:?}");
                assert_eq!(en.contains("{address}"), zh.contains("{address}"), "{code:?}");
                let hidden = rows[..at]
                    .iter()
                    .any(|above| above.code == *code && row.endpoint.ends_with(above.endpoint));
                assert!(!hidden, "{code:?} is hidden by a row above it");
                // Success must not have a row.
                assert_ne!(*code, Key::Number(0));
            }
        }
    }
}
