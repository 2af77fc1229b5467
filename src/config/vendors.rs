//! What is known of the vendors' endpoints: ONE table of defaults by URL. Every row says where its
//! facts are from; what no row says is the plainest guess, and a source's own settings go before all
//! of it. Error codes are in `source::errcode`.

use std::time::Duration;

use url::Url;

use super::Rotation;
use super::answer::{ExpiresIs, ExpiresUnit};

/// Whose API an endpoint belongs to: decides what its error codes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// WeChat official accounts, mini programs, mini games, shops (微信)
    WeChat,
    /// WeChat's third-party platforms (微信第三方平台)
    Component,
    /// WeCom (企业微信)
    WeCom,
    /// DingTalk (钉钉)
    DingTalk,
    /// Feishu and Lark (飞书)
    Feishu,
    /// Douyin and the other apps of its house (抖音)
    Douyin,
    /// Baidu AI (百度智能云)
    Baidu,
    /// QQ mini programs and bots
    Qq,
    /// Kuaishou (快手)
    Kuaishou,
    /// Huawei (华为)
    Huawei,
    /// Tencent Cloud face recognition (腾讯云人脸核身)
    TencentKyc,
    /// Youzan (有赞)
    Youzan,
    /// Another server of this program
    Hub,
    /// Nobody the table knows
    Unknown,
}

/// The defaults of one endpoint.
#[derive(Debug, Clone)]
pub(super) struct Preset {
    pub vendor: Vendor,
    /// Ends of host names, one of which must fit; empty: any host, since the path tells enough and
    /// a proxy or a stand-in has a host of its own.
    hosts: &'static [&'static str],
    /// What the path ends with, at a slash.
    path: &'static str,
    pub rotation: Rotation,
    /// How long a value works after a fetch has replaced it, where it is not the general setting.
    pub overlap: Option<Duration>,
    /// Calls in a Beijing day.
    pub daily_limit: Option<u32>,
    /// Whether tokens die with the token they were fetched with.
    pub follow: bool,
    /// What is added to a JSON body to ask for a new value although the old one is good.
    pub force: Option<&'static str>,
    pub value: &'static [&'static str],
    pub expires: &'static [&'static str],
    pub expires_unit: ExpiresUnit,
    pub expires_is: ExpiresIs,
    pub code: &'static [&'static str],
    /// The codes that mean success.
    pub accepted: &'static [i64],
    pub message: &'static [&'static str],
}

/// What is assumed of an endpoint nobody knows: the names that most vendors use.
const UNKNOWN: Preset = Preset {
    vendor: Vendor::Unknown,
    hosts: &[],
    path: "",
    rotation: Rotation::Independent,
    overlap: None,
    daily_limit: None,
    follow: false,
    force: None,
    value: &["access_token", "ticket", "accessToken", "data.access_token", "data.ticket"],
    expires: &[
        "expires_in",
        "expire_in",
        "expire",
        "expireIn",
        "expiresIn",
        "data.expires_in",
        "data.expire_in",
        "data.expire",
    ],
    expires_unit: ExpiresUnit::Seconds,
    expires_is: ExpiresIs::Relative,
    code: &["errcode", "code", "err_no", "error_code", "errorCode", "data.error_code", "error"],
    accepted: &[0],
    message: &[
        "errmsg",
        "msg",
        "err_tips",
        "error_description",
        "error_msg",
        "description",
        "data.description",
        "message",
    ],
};

const WECHAT: Preset = Preset { vendor: Vendor::WeChat, ..UNKNOWN };
const COMPONENT: Preset = Preset { vendor: Vendor::Component, ..UNKNOWN };
const WECOM: Preset = Preset { vendor: Vendor::WeCom, ..UNKNOWN };
const FEISHU: Preset = Preset { vendor: Vendor::Feishu, ..UNKNOWN };
const DINGTALK: Preset = Preset { vendor: Vendor::DingTalk, hosts: &["dingtalk.com"], ..UNKNOWN };
const DOUYIN: Preset = Preset { vendor: Vendor::Douyin, ..UNKNOWN };
const QQ: Preset = Preset { vendor: Vendor::Qq, ..UNKNOWN };
const KYC: Preset = Preset {
    vendor: Vendor::TencentKyc,
    hosts: &["kyc.qcloud.com", "kyc1.qcloud.com", "kyc.tencentcloudapi.com"],
    ..UNKNOWN
};

/// `stable_token` of WeChat and of Douyin alike.
const FORCE_REFRESH: Option<&str> = Some("force_refresh");

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

/// The table; the first row that fits counts.
static PRESETS: &[Preset] = &[
    // Each call makes a new token, the old one works five more minutes: "getAccessToken" at
    // developers.weixin.qq.com. 2000 calls a day: "API_Call_Limits" there (a test account has 200).
    Preset {
        path: "cgi-bin/token",
        rotation: Rotation::Rotating,
        daily_limit: Some(2_000),
        ..WECHAT
    },
    // The same token with the time left until its last five minutes: "getStableAccessToken" there.
    Preset {
        path: "cgi-bin/stable_token",
        rotation: Rotation::Sticky { window: minutes(5) },
        force: FORCE_REFRESH,
        ..WECHAT
    },
    // The same ticket again and always 7200: developers' reports, the documents are silent.
    Preset { path: "cgi-bin/ticket/getticket", rotation: Rotation::Nominal, ..WECHAT },
    // A repeated call invalidates the token before: staff's answer in the community.
    Preset {
        path: "component/api_component_token",
        rotation: Rotation::Rotating,
        value: &["component_access_token"],
        ..COMPONENT
    },
    // Like cgi-bin/token, which it takes the place of for an authorised account: "api_authorizer_token".
    Preset {
        path: "component/api_authorizer_token",
        rotation: Rotation::Rotating,
        value: &["authorizer_access_token"],
        ..COMPONENT
    },
    // The same token until it ends, by older copies of document/path/91039 at
    // developer.work.weixin.qq.com; whether it still is so is not verified, and Nominal is right in
    // both cases.
    Preset { path: "cgi-bin/gettoken", rotation: Rotation::Nominal, ..WECOM },
    // Tickets as WeChat's: path/96909 there says 7200 and a quota, and no more.
    Preset { path: "cgi-bin/get_jsapi_ticket", rotation: Rotation::Nominal, ..WECOM },
    Preset { path: "cgi-bin/ticket/get", rotation: Rotation::Nominal, ..WECOM },
    // The same token until it ends: path/96237 there.
    Preset {
        path: "service/get_provider_token",
        rotation: Rotation::Nominal,
        value: &["provider_access_token"],
        ..WECOM
    },
    Preset { path: "service/get_suite_token", value: &["suite_access_token"], ..WECOM },
    // The same token with the time left, a new one in the last 30 minutes, then both work:
    // "tenant_access_token_internal", "app_access_token_internal", "tenant_access_token/create" at
    // open.feishu.cn.
    Preset {
        path: "tenant_access_token/internal",
        rotation: Rotation::Sticky { window: minutes(30) },
        value: &["tenant_access_token"],
        ..FEISHU
    },
    Preset {
        path: "app_access_token/internal",
        rotation: Rotation::Sticky { window: minutes(30) },
        value: &["app_access_token"],
        ..FEISHU
    },
    Preset {
        path: "auth/v3/tenant_access_token",
        rotation: Rotation::Sticky { window: minutes(30) },
        value: &["tenant_access_token"],
        ..FEISHU
    },
    // A repeated call gives the same token and lengthens its life: DingTalk's text of gettoken.
    Preset { path: "gettoken", rotation: Rotation::Sliding, ..DINGTALK },
    // A repeated call cuts the old token to five minutes: "get-access-token" at
    // developer.open-douyin.com; v1 by an older copy of it.
    Preset { path: "apps/v2/token", rotation: Rotation::Rotating, ..DOUYIN },
    Preset {
        hosts: &["toutiao.com"],
        path: "api/apps/token",
        rotation: Rotation::Rotating,
        ..DOUYIN
    },
    // As WeChat's of the same name: "gen-stable-access-token" there.
    Preset {
        path: "apps/stable_token",
        rotation: Rotation::Sticky { window: minutes(5) },
        force: FORCE_REFRESH,
        ..DOUYIN
    },
    // Only the two newest tokens live: "client_token" there.
    Preset { path: "oauth/client_token", rotation: Rotation::Rotating, ..DOUYIN },
    // The same token until it ends, then a new one: "generate-stable-client-token" there. Whether
    // the life it states is what is left is not said, and Nominal is right in both cases.
    Preset { path: "oauth/stable_client_token", rotation: Rotation::Nominal, ..DOUYIN },
    Preset { path: "auth/tp/token", value: &["component_access_token"], ..DOUYIN },
    // Tokens are independent, many may live: cloud.baidu.com/doc/NLP/s/Tk6z52d7c.
    Preset {
        vendor: Vendor::Baidu,
        hosts: &["baidubce.com", "baidu.com"],
        path: "oauth/2.0/token",
        ..UNKNOWN
    },
    // "A repeated fetch makes the token before invalid", both work five minutes: getAccessToken of
    // QQ mini programs.
    Preset { path: "api/getToken", rotation: Rotation::Rotating, ..QQ },
    Preset { path: "app/getAppAccessToken", ..QQ },
    // `result` is 1 on success: public clients.
    Preset {
        vendor: Vendor::Kuaishou,
        hosts: &["kuaishou.com"],
        path: "oauth2/access_token",
        code: &["result"],
        accepted: &[1],
        ..UNKNOWN
    },
    Preset {
        vendor: Vendor::Huawei,
        hosts: &["cloud.huawei.com"],
        path: "oauth2/v3/token",
        ..UNKNOWN
    },
    // The old token works one more minute, and tickets die with it: cloud.tencent.com/document/product/1096/37304.
    Preset {
        path: "oauth2/access_token",
        rotation: Rotation::Rotating,
        overlap: Some(minutes(1)),
        ..KYC
    },
    Preset {
        path: "oauth2/api_ticket",
        follow: true,
        value: &["tickets.0.value"],
        expires: &["tickets.0.expire_in"],
        ..KYC
    },
    // `data.expires` is an instant in milliseconds: what developers report.
    Preset {
        vendor: Vendor::Youzan,
        hosts: &["youzanyun.com"],
        path: "auth/token",
        expires: &["data.expires"],
        expires_unit: ExpiresUnit::Milliseconds,
        expires_is: ExpiresIs::Absolute,
        accepted: &[0, 200],
        ..UNKNOWN
    },
    // What it says is how long the token can be relied on, and by default it has the next one five
    // minutes before that runs out: src/snapshot.rs. A fetch from it changes nothing.
    Preset {
        vendor: Vendor::Hub,
        path: "wechat/token",
        rotation: Rotation::Sticky { window: minutes(5) },
        value: &[],
        code: &["error", "errmsg"],
        ..UNKNOWN
    },
    // Other endpoints of known hosts.
    Preset { hosts: &["qyapi.weixin.qq.com"], ..WECOM },
    Preset { hosts: &["weixin.qq.com"], ..WECHAT },
    Preset { hosts: &["feishu.cn", "larksuite.com"], ..FEISHU },
    DINGTALK,
    Preset { hosts: &["open-douyin.com", "douyin.com", "zijieapi.com", "toutiao.com"], ..DOUYIN },
    UNKNOWN,
];

/// The row that fits `url`.
pub(super) fn preset(url: &Url) -> &'static Preset {
    // Some SDKs write double slashes, and endpoints answer with or without the last one.
    let path = url.path().replace("//", "/");
    let path = path.trim_end_matches('/');
    let host = url.host_str().unwrap_or_default();
    PRESETS
        .iter()
        .find(|preset| {
            ends_at(path, preset.path, '/')
                && (preset.hosts.is_empty()
                    || preset.hosts.iter().any(|end| ends_at(host, end, '.')))
        })
        .expect("the last row fits everything")
}

/// Whether `text` ends with `end`, from a `separator` or from its beginning on.
fn ends_at(text: &str, end: &str, separator: char) -> bool {
    end.is_empty()
        || text
            .strip_suffix(end)
            .is_some_and(|before| before.is_empty() || before.ends_with(separator))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_known_by_its_path_on_any_host_or_by_its_host() {
        let sticky = |m| Rotation::Sticky { window: minutes(m) };
        for (url, vendor, rotation) in [
            ("https://api.weixin.qq.com/cgi-bin/token", Vendor::WeChat, Rotation::Rotating),
            ("http://127.0.0.1:9//cgi-bin/token/", Vendor::WeChat, Rotation::Rotating),
            ("https://sh.api.weixin.qq.com/cgi-bin/stable_token", Vendor::WeChat, sticky(5)),
            ("http://h/cgi-bin/ticket/getticket?x=1", Vendor::WeChat, Rotation::Nominal),
            ("https://api.weixin.qq.com/other", Vendor::WeChat, Rotation::Independent),
            (
                "http://h/cgi-bin/component/api_component_token",
                Vendor::Component,
                Rotation::Rotating,
            ),
            ("https://qyapi.weixin.qq.com/cgi-bin/gettoken", Vendor::WeCom, Rotation::Nominal),
            ("https://qyapi.weixin.qq.com/cgi-bin/ticket/get", Vendor::WeCom, Rotation::Nominal),
            ("https://qyapi.weixin.qq.com/cgi-bin/x", Vendor::WeCom, Rotation::Independent),
            ("https://oapi.dingtalk.com/gettoken", Vendor::DingTalk, Rotation::Sliding),
            (
                "https://api.dingtalk.com/v1.0/oauth2/accessToken",
                Vendor::DingTalk,
                Rotation::Independent,
            ),
            ("https://h/gettoken", Vendor::Unknown, Rotation::Independent),
            (
                "https://open.larksuite.com/open-apis/auth/v3/tenant_access_token/internal",
                Vendor::Feishu,
                sticky(30),
            ),
            ("https://developer.toutiao.com/api/apps/v2/token", Vendor::Douyin, Rotation::Rotating),
            (
                "https://minigame.zijieapi.com/mgplatform/api/apps/stable_token",
                Vendor::Douyin,
                sticky(5),
            ),
            ("https://aip.baidubce.com/oauth/2.0/token", Vendor::Baidu, Rotation::Independent),
            ("https://notbaidu.com/oauth/2.0/token", Vendor::Unknown, Rotation::Independent),
            ("https://api.q.qq.com/api/getToken", Vendor::Qq, Rotation::Rotating),
            (
                "https://kyc1.qcloud.com/api/oauth2/access_token",
                Vendor::TencentKyc,
                Rotation::Rotating,
            ),
            ("http://hub:12123/wechat/token?type=t", Vendor::Hub, sticky(5)),
            ("https://h/mycgi-bin/token", Vendor::Unknown, Rotation::Independent),
            ("https://h", Vendor::Unknown, Rotation::Independent),
        ] {
            let preset = preset(&Url::parse(url).unwrap());
            assert_eq!((preset.vendor, preset.rotation), (vendor, rotation), "{url}");
        }
    }

    #[test]
    fn no_row_hides_one_below_it() {
        for (at, row) in PRESETS.iter().enumerate() {
            let host = row.hosts.first().copied().unwrap_or("h.example");
            let url = Url::parse(&format!("https://{host}/{}", row.path)).unwrap();
            assert!(std::ptr::eq(preset(&url), row), "row {at}: {}", row.path);
        }
    }
}
