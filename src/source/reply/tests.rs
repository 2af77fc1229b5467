//! Answers as the vendors document them, read by the sources of `docs/vendors.md` as they stand
//! there; and answers that nobody documents.

use std::path::Path;

use super::*;
use crate::config::{self, Environment, Rotation};
use crate::source::FailureClass::{self, *};

const DOCUMENT: &str = include_str!("../../../docs/vendors.md");

/// When every request of these tests was sent.
const SENT_AT: Duration = Duration::from_secs(1_700_000_000);

/// Every source of the document; each of its pieces is a config of its own.
fn documented() -> Vec<TokenSource> {
    let mut sources = Vec::new();
    for piece in DOCUMENT.split("```ron\n").skip(1) {
        let (piece, _) = piece.split_once("```").unwrap();
        let names = piece.split("${env:").skip(1).map(|rest| rest.split('}').next().unwrap());
        let environment = Environment::of(names.map(|name| (name, "c0nfigured")));
        let text = format!("(token_sources: {{ {piece} }})");
        let config = config::parse(&text, Path::new("c.ron"), &environment);
        sources.extend(config.unwrap_or_else(|errors| panic!("{errors}\n{piece}")).sources);
    }
    sources
}

fn source(extra: &str) -> TokenSource {
    let text = format!(r#"(token_sources: {{"t": (url: "https://h/cgi-bin/token", {extra})}})"#);
    let config = config::parse(&text, Path::new("c.ron"), &Environment::default()).unwrap();
    config.sources.into_iter().next().unwrap()
}

fn answer(status: u16, body: &str) -> Answer {
    Answer { status, body: body.as_bytes().to_vec().into(), ..Answer::default() }
}

fn read_from(source: &TokenSource, status: u16, body: &str) -> Result<Fetched, FetchError> {
    read(source, &answer(status, body), UNIX_EPOCH + SENT_AT, &[Secret::new("s3cr3ts3cr3t")])
}

/// What becomes of one answer: the value and the seconds it lives, or the class and a part of what
/// a client is told.
type Expected = Result<(&'static str, u64), (FailureClass, &'static str)>;

fn check(source: &TokenSource, status: u16, body: &str, expected: Expected) {
    let name = &source.name;
    match (read_from(source, status, body), expected) {
        (Ok(fetched), Ok((value, seconds))) => {
            assert_eq!(fetched.value.expose(), value, "{name}: {body}");
            assert_eq!(fetched.expires_in, Duration::from_secs(seconds), "{name}: {body}");
        }
        (Err(error), Err((class, part))) => {
            assert!(error.to_string().contains(part), "{name}: {body}: {error}");
            assert_eq!(error.class(), class, "{name}: {body}");
        }
        (got, expected) => panic!("{name}: {body}: {got:?} instead of {expected:?}"),
    }
}

/// (source of the document, HTTP status, body, what becomes of it), by vendor.
#[rustfmt::skip]
const ANSWERS: &[(&str, u16, &str, Expected)] = &[
    // WeChat
    ("wx:token", 200, r#"{"access_token":"57_abc","expires_in":7200}"#, Ok(("57_abc", 7200))),
    ("wx:token", 200, r#"{"errcode":40013,"errmsg":"invalid appid rid: 6-7-8"}"#, Err((Misconfigured, "errcode 40013: the appid is wrong"))),
    ("wx:token", 200, r#"{"errcode":-1,"errmsg":"system error"}"#, Err((Transient, "WeChat is busy"))),
    ("wx:token", 200, r#"{"errcode":40001,"errmsg":"invalid credential"}"#, Err((Misconfigured, "the AppSecret is wrong"))),
    ("wx:token", 200, r#"{"errcode":40164,"errmsg":"invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist rid: 6-7-8"}"#, Err((Misconfigured, "add 1.2.3.4 to the IP allow list"))),
    ("wx:token", 200, r#"{"errcode":45009,"errmsg":"reach max api daily quota limit"}"#, Err((QuotaSpent, "the day's calls are used up"))),
    ("wx:stable", 200, r#"{"access_token":"57_stable","expires_in":345}"#, Ok(("57_stable", 345))),
    ("wx:stable", 200, r#"{"errcode":45011,"errmsg":"api minute-quota reach limit"}"#, Err((Throttled, "too many calls this minute"))),
    ("wx:jsapi", 200, r#"{"errcode":0,"errmsg":"ok","ticket":"bxLd","expires_in":7200}"#, Ok(("bxLd", 7200))),
    ("wx:jsapi", 200, r#"{"errcode":42001,"errmsg":"access_token expired"}"#, Err((DependencyInvalid, "has expired"))),
    ("wx:card", 200, r#"{"errcode":40001,"errmsg":"invalid credential"}"#, Err((DependencyInvalid, "errcode 40001"))),
    // WeChat's third-party platforms
    ("component", 200, r#"{"component_access_token":"61_c","expires_in":7200}"#, Ok(("61_c", 7200))),
    ("component", 200, r#"{"errcode":61005,"errmsg":"component ticket is expired"}"#, Err((Misconfigured, "component_verify_ticket has expired"))),
    ("component", 200, r#"{"errcode":61004,"errmsg":"access clientip is not registered request ip: 10.1.2.3"}"#, Err((Misconfigured, "add 10.1.2.3 to the IP allow list"))),
    ("authorizer", 200, r#"{"authorizer_access_token":"61_a","expires_in":7200,"authorizer_refresh_token":"refresh@@2"}"#, Ok(("61_a", 7200))),
    ("authorizer", 200, r#"{"errcode":61023,"errmsg":"refresh_token is invalid"}"#, Err((Misconfigured, "authorizer_refresh_token is wrong"))),
    ("authorizer", 200, r#"{"errcode":42001,"errmsg":"access_token expired"}"#, Err((DependencyInvalid, "errcode 42001"))),
    // WeCom
    ("wecom", 200, r#"{"errcode":0,"errmsg":"ok","access_token":"accesstoken000001","expires_in":7200}"#, Ok(("accesstoken000001", 7200))),
    ("wecom", 200, r#"{"errcode":40001,"errmsg":"invalid credential, hint: [1], from ip: 1.2.3.4"}"#, Err((Misconfigured, "the corpsecret is wrong"))),
    ("wecom", 200, r#"{"errcode":45009,"errmsg":"api freq out of limit"}"#, Err((Throttled, "blocked for a minute or for an hour"))),
    ("wecom", 200, r#"{"errcode":60020,"errmsg":"not allow to access from your ip, hint: [16], from ip: 2001:db8::5, more info at https://open.work.weixin.qq.com"}"#, Err((Misconfigured, "add 2001:db8::5 to the app's trusted IP"))),
    ("wecom:jsapi", 200, r#"{"errcode":0,"errmsg":"ok","ticket":"bxLdikRX","expires_in":7200}"#, Ok(("bxLdikRX", 7200))),
    ("wecom:agent", 200, r#"{"errcode":40014,"errmsg":"invalid access_token"}"#, Err((DependencyInvalid, "not valid"))),
    ("wecom:provider", 200, r#"{"provider_access_token":"enLSZ5","expires_in":7200}"#, Ok(("enLSZ5", 7200))),
    ("wecom:suite", 200, r#"{"errcode":0,"errmsg":"ok","suite_access_token":"61W3mE","expires_in":7200}"#, Ok(("61W3mE", 7200))),
    ("wecom:suite", 200, r#"{"errcode":40085,"errmsg":"invalid suite ticket"}"#, Err((Misconfigured, "suite_ticket is wrong"))),
    ("wecom:corp", 200, r#"{"errcode":0,"errmsg":"ok","access_token":"xxxxxx","expires_in":7200}"#, Ok(("xxxxxx", 7200))),
    ("wecom:corp", 200, r#"{"errcode":42009,"errmsg":"suite_token expired"}"#, Err((DependencyInvalid, "errcode 42009"))),
    // DingTalk
    ("dingtalk:old", 200, r#"{"errcode":0,"access_token":"96fc","errmsg":"ok","expires_in":7200}"#, Ok(("96fc", 7200))),
    ("dingtalk:old", 200, r#"{"errcode":40089,"errmsg":"bad corpid or corpsecret"}"#, Err((Unknown, "errcode 40089"))),
    ("dingtalk:jsapi", 200, r#"{"errcode":0,"errmsg":"ok","ticket":"dsf8","expires_in":7200}"#, Ok(("dsf8", 7200))),
    ("dingtalk:jsapi", 200, r#"{"errcode":88,"sub_code":"60011","sub_msg":"x","errmsg":"ding talk error"}"#, Err((DependencyInvalid, "errcode 88"))),
    ("dingtalk", 200, r#"{"accessToken":"fw8ef8we8f76e6f7s8dxxxx","expireIn":7200}"#, Ok(("fw8ef8we8f76e6f7s8dxxxx", 7200))),
    ("dingtalk", 400, r#"{"code":"invalidClientIdOrSecret","requestid":"r","message":"bad secret"}"#, Err((Unknown, "error invalidClientIdOrSecret"))),
    ("dingtalk:corp", 200, r#"{"access_token":"d1","expires_in":7200}"#, Ok(("d1", 7200))),
    ("dingtalk:corp", 401, r#"{"code":"Forbidden","message":"x"}"#, Err((Misconfigured, "error Forbidden"))),
    // Feishu
    ("feishu", 200, r#"{"code":0,"msg":"ok","tenant_access_token":"t-caecc734c2e3328a62489fe0648c4b98779515d3","expire":7200}"#, Ok(("t-caecc734c2e3328a62489fe0648c4b98779515d3", 7200))),
    ("feishu", 200, r#"{"code":10014,"msg":"app secret invalid"}"#, Err((Misconfigured, "the app_secret is wrong"))),
    ("feishu:app", 200, r#"{"app_access_token":"a-1","code":0,"expire":7140,"msg":"ok","tenant_access_token":"t-1"}"#, Ok(("a-1", 7140))),
    ("feishu:store", 200, r#"{"code":0,"msg":"success","tenant_access_token":"t-2","expire":7200}"#, Ok(("t-2", 7200))),
    ("feishu:store", 200, r#"{"code":99991664,"msg":"invalid app token"}"#, Err((DependencyInvalid, "app_access_token is not valid"))),
    ("feishu:oauth", 200, r#"{"code":0,"access_token":"eyJhbGciOi.J.K","expires_in":7200,"token_type":"Bearer"}"#, Ok(("eyJhbGciOi.J.K", 7200))),
    ("feishu:oauth", 400, r#"{"code":20070,"error":"invalid_request","error_description":"two ways"}"#, Err((Misconfigured, "given twice"))),
    ("feishu:jsapi", 200, r#"{"code":0,"msg":"success","data":{"expire_in":7200,"ticket":"0560604568baf296731aa37f0c8ebe3e049c19d7"}}"#, Ok(("0560604568baf296731aa37f0c8ebe3e049c19d7", 7200))),
    ("feishu:jsapi", 400, r#"{"code":99991663,"msg":"Invalid access token for authorization."}"#, Err((DependencyInvalid, "errcode 99991663"))),
    // Douyin
    ("douyin:app", 200, r#"{"err_no":0,"err_tips":"success","data":{"access_token":"0801121***","expires_in":7200}}"#, Ok(("0801121***", 7200))),
    ("douyin:app", 200, r#"{"err_no":40017,"err_tips":"bad secret","data":{"access_token":"","expires_in":0}}"#, Err((Misconfigured, "errcode 40017: the secret is wrong"))),
    ("douyin:app:v1", 200, r#"{"access_token":"v1","expires_in":7200}"#, Ok(("v1", 7200))),
    ("douyin:app:v1", 200, r#"{"errcode":40015,"errmsg":"bad appid","error":1,"message":"bad appid"}"#, Err((Misconfigured, "the appid is wrong"))),
    ("douyin:game", 200, r#"{"err_no":0,"err_tips":"success","data":{"access_token":"g1","expires_in":7200}}"#, Ok(("g1", 7200))),
    ("douyin:game:stable", 200, r#"{"err_no":0,"err_tips":"success","data":{"access_token":"g2","expires_in":345}}"#, Ok(("g2", 345))),
    ("douyin:open", 200, r#"{"data":{"access_token":"clt.75c3","description":"","error_code":0,"expires_in":7200},"message":"success"}"#, Ok(("clt.75c3", 7200))),
    ("douyin:open", 200, r#"{"data":{"captcha":"","desc_url":"","description":"bad","error_code":10003},"message":"error"}"#, Err((Misconfigured, "the client_key is wrong"))),
    ("douyin:open", 200, r#"{"data":{"description":"too often","error_code":10020},"message":"error"}"#, Err((Throttled, "errcode 10020"))),
    ("douyin:open:stable", 200, r#"{"data":{"access_token":"clt.s","description":"","error_code":0,"expires_in":7200},"message":"success"}"#, Ok(("clt.s", 7200))),
    ("douyin:component", 200, r#"{"component_access_token":"c1","expires_in":7200}"#, Ok(("c1", 7200))),
    ("douyin:component", 200, r#"{"err_no":10002,"err_tips":"x"}"#, Err((Misconfigured, "errcode 10002"))),
    // Baidu
    ("baidu", 200, r#"{"refresh_token":"25.b55f","expires_in":2592000,"scope":"public","session_key":"9m","access_token":"24.6c5e","session_secret":"5a"}"#, Ok(("24.6c5e", 2592000))),
    ("baidu", 401, r#"{"error":"invalid_client","error_description":"unknown client id"}"#, Err((Misconfigured, "error invalid_client: the client's id or secret is wrong"))),
    // QQ
    ("qq:mini", 200, r#"{"access_token":"q1","expires_in":7200}"#, Ok(("q1", 7200))),
    ("qq:mini", 200, r#"{"errcode":40013,"errmsg":"invalid appid"}"#, Err((Misconfigured, "the appid is wrong"))),
    ("qq:bot", 200, r#"{"access_token":"b1","expires_in":"7200"}"#, Ok(("b1", 7200))),
    ("qq:bot", 200, r#"{"code":100016,"message":"invalid appid or secret"}"#, Err((Unknown, "errcode 100016"))),
    // Kuaishou
    ("kuaishou", 200, r#"{"result":1,"access_token":"k1","expires_in":172800,"token_type":"bearer"}"#, Ok(("k1", 172800))),
    ("kuaishou", 200, r#"{"result":100200100,"error":"invalid_request","error_msg":"bad secret"}"#, Err((Unknown, "errcode 100200100"))),
    // Huawei
    ("huawei", 200, r#"{"access_token":"CFyJ7eiBUI/1cGHr=","expires_in":3600,"token_type":"Bearer"}"#, Ok(("CFyJ7eiBUI/1cGHr=", 3600))),
    ("huawei", 400, r#"{"error":1101,"sub_error":12304,"error_description":"invalid client"}"#, Err((Unknown, "errcode 1101"))),
    // Tencent Cloud; the 20 minutes are the configured lifetime
    ("kyc", 200, r#"{"code":"0","msg":"ok","transactionTime":"20151022043831","access_token":"KY","expire_time":"20151022043831","expire_in":"7200"}"#, Ok(("KY", 1200))),
    ("kyc", 200, r#"{"code":"15","msg":"app id missing"}"#, Err((Unknown, "errcode 15"))),
    ("kyc:sign", 200, r#"{"code":"0","msg":"ok","transactionTime":"20151022044027","tickets":[{"value":"ticket_string","expire_in":"3600","expire_time":"20151022044027"}]}"#, Ok(("ticket_string", 3600))),
    ("kyc:sign", 200, r#"{"code":"0","msg":"ok","tickets":[]}"#, Err((Transient, "there is no tickets.0.value"))),
    // Youzan: 1700604800000 is seven days after SENT_AT
    ("youzan", 200, r#"{"success":true,"code":200,"data":{"expires":1700604800000,"scope":"x","access_token":"y1","authority_id":"1"},"message":null}"#, Ok(("y1", 604800))),
    ("youzan", 200, r#"{"success":false,"code":4203,"data":null,"message":"bad client"}"#, Err((Unknown, "errcode 4203"))),
    // Another server of ours
    ("hub", 200, r#"{"access_token": "57_abc", "expires_in": 6899}"#, Ok(("57_abc", 6899))),
    ("hub", 200, r#"{"error": "not found"}"#, Err((Transient, "no live token of this type"))),
    ("hub", 200, r#"{"error": "invalid request"}"#, Err((Misconfigured, "request_secret"))),
    // Any other
    ("other", 200, r#"{"status":"OK","result":{"tokens":[{"value":"o1","until":1700000060000}]}}"#, Ok(("o1", 60))),
    ("other", 200, r#"{"status":"NOT_AUTHORIZED","detail":{"text":"go away"}}"#, Err((Unknown, "error NOT_AUTHORIZED"))),
    ("tenant", 200, r#"{"tenant":"t1"}"#, Ok(("t1", 3600))),
    ("tenant", 503, "", Err((Transient, "status 503"))),
];

#[test]
fn every_documented_source_reads_its_vendors_answers() {
    let sources = documented();
    for (at, source) in sources.iter().enumerate() {
        let name = &source.name;
        assert!(!sources[..at].iter().any(|other| other.name == *name), "{name} is there twice");
        let good = ANSWERS.iter().any(|row| row.0 == name.as_str() && row.3.is_ok());
        assert!(
            good || name.as_str() == "wx:card" || name.as_str() == "wecom:agent",
            "{name}: no answer"
        );
    }
    for (name, status, body, expected) in ANSWERS {
        let source = sources.iter().find(|source| source.name.as_str() == *name);
        check(source.unwrap_or_else(|| panic!("{name} is not there")), *status, body, *expected);
    }
}

#[test]
fn every_documented_source_has_its_vendors_rotation() {
    let sticky = |minutes: u64| Rotation::Sticky { window: Duration::from_secs(minutes * 60) };
    let sources = documented();
    for (name, rotation) in [
        ("wx:token", Rotation::Rotating),
        ("wx:stable", sticky(5)),
        ("wx:jsapi", Rotation::Nominal),
        ("component", Rotation::Rotating),
        ("authorizer", Rotation::Rotating),
        ("wecom", Rotation::Nominal),
        ("wecom:jsapi", Rotation::Nominal),
        ("wecom:agent", Rotation::Nominal),
        ("dingtalk:old", Rotation::Sliding),
        ("dingtalk", Rotation::Independent),
        ("feishu", sticky(30)),
        ("feishu:app", sticky(30)),
        ("feishu:store", sticky(30)),
        ("douyin:app", Rotation::Rotating),
        ("douyin:game", Rotation::Rotating),
        ("douyin:game:stable", sticky(5)),
        ("douyin:open", Rotation::Rotating),
        ("douyin:open:stable", Rotation::Nominal),
        ("baidu", Rotation::Independent),
        ("qq:mini", Rotation::Rotating),
        ("kyc", Rotation::Rotating),
        ("hub", sticky(5)),
        ("other", sticky(10)),
    ] {
        let source = sources.iter().find(|source| source.name.as_str() == name).unwrap();
        assert_eq!(source.policy.rotation, rotation, "{name}");
        assert_eq!(source.follow, name == "kyc:sign", "{name}");
        assert_eq!(
            !source.request.force.is_empty(),
            name.ends_with(":stable") && name != "douyin:open:stable",
            "{name}"
        );
    }
}

#[test]
fn every_documented_source_has_an_account_but_the_follower() {
    for source in documented() {
        let expected = match source.name.as_str() {
            "hub" | "tenant" | "wecom:corp" => continue,
            "other" => "example",
            _ => "c0nfigured",
        };
        assert_eq!(&*source.account.name, expected, "{}", source.name);
    }
}

#[test]
fn answers_are_read_by_default() {
    for (extra, body, expected) in [
        ("", r#"{"access_token":"A","expires_in":7200}"#, Ok(("A", 7200))),
        ("", r#"{"errcode":0,"errmsg":"ok","ticket":"B","expires_in":7200}"#, Ok(("B", 7200))),
        ("", r#"{"t":"C","expires_in":"345"}"#, Ok(("C", 345))),
        (
            "",
            r#"{"access_token":"A"}"#,
            Err((Transient, "there is no expires_in or the like; set expires_field")),
        ),
        (r#"lifetime: "7000s""#, r#"{"access_token":"A"}"#, Ok(("A", 7000))),
        (r#"lifetime: "7000s""#, r#"{"access_token":"A","expires_in":7200}"#, Ok(("A", 7000))),
        (r#"lifetime: "7000s""#, r#"{"access_token":"A","expires_in":60}"#, Ok(("A", 60))),
        (
            "",
            r#"{"access_token":"A","expires_in":9,"error":"","code":"0","data":null}"#,
            Ok(("A", 9)),
        ),
        ("", r#"{"access_token":"A","expires_in":9,"error":null,"error_code":0}"#, Ok(("A", 9))),
        (
            "",
            r#"{"access_token":"A","expires_in":9,"error":{"x":1}}"#,
            Err((Unknown, "unreadable")),
        ),
        (
            "",
            "{\"access_token\":\"A\",\"expires_in\":9,\"error\":\"a\\r\\nb\"}",
            Err((Unknown, "unreadable")),
        ),
    ] {
        check(&source(extra), 200, body, expected);
    }
}

#[test]
fn answers_are_read_as_a_source_says() {
    for (extra, body, expected) in [
        (
            r#"value_field: "data.list.0.v""#,
            r#"{"data":{"list":[{"v":"D"}]},"expires_in":9}"#,
            Ok(("D", 9)),
        ),
        (
            r#"value_field: "data.list.1.v""#,
            r#"{"data":{"list":[{"v":"D"}]},"expires_in":9}"#,
            Err((Transient, "there is no data.list.1.v")),
        ),
        (r#"expires_field: "a.b""#, r#"{"t":"D","a":{"b":"12"}}"#, Ok(("D", 12))),
        (r#"expires_unit: "ms""#, r#"{"t":"D","expires_in":12000}"#, Ok(("D", 12))),
        ("expires_is: Absolute", r#"{"t":"D","expires_in":1700000099}"#, Ok(("D", 99))),
        (
            r#"expires_is: Absolute, expires_unit: "ms""#,
            r#"{"t":"D","expires_in":"1700000099000"}"#,
            Ok(("D", 99)),
        ),
        (
            "expires_is: Absolute",
            r#"{"t":"D","expires_in":1700000000}"#,
            Err((Transient, "past already")),
        ),
        (
            r#"success: (field: "ok", value: true)"#,
            r#"{"t":"D","expires_in":9,"ok":true,"code":7}"#,
            Ok(("D", 9)),
        ),
        (
            r#"success: (field: "ok", value: true)"#,
            r#"{"t":"D","expires_in":9,"ok":false}"#,
            Err((Unknown, "error false")),
        ),
        (
            r#"success: (field: "code", value: 200)"#,
            r#"{"t":"D","expires_in":9,"code":"200"}"#,
            Ok(("D", 9)),
        ),
        (
            r#"error_field: "status.code""#,
            r#"{"t":"D","expires_in":9,"status":{"code":3}}"#,
            Err((Unknown, "errcode 3")),
        ),
        (r#"error_field: "status.code""#, r#"{"t":"D","expires_in":9,"code":3}"#, Ok(("D", 9))),
    ] {
        check(&source(extra), 200, body, expected);
    }
    let said = r#"{"errcode":7,"errmsg":"no","why":{"text":"because"}}"#;
    let error = read_from(&source(r#"message_field: "why.text""#), 200, said).unwrap_err();
    assert_eq!(error.for_log(), "because");
}

#[test]
fn an_absolute_end_is_counted_from_the_upstreams_clock_where_it_tells_that() {
    let source = source("expires_is: Absolute");
    let date = Some(UNIX_EPOCH + SENT_AT + Duration::from_secs(3_600));
    let body = br#"{"t":"D","expires_in":1700003660}"#.to_vec().into();
    let answer = Answer { status: 200, body, date, retry_after: None };
    let fetched = read(&source, &answer, UNIX_EPOCH + SENT_AT, &[]).unwrap();
    assert_eq!(fetched.expires_in, Duration::from_secs(60));
    assert_eq!(fetched.upstream_time, date);
}

#[test]
fn bad_answers_are_named() {
    for (body, class, part) in [
        ("", Transient, "not JSON"),
        ("<html>", Transient, "not JSON"),
        (r#"{"access_token":"A","expires_in":72"#, Transient, "not JSON"),
        ("[]", Transient, "there is no access_token or ticket or "),
        (r#"{"expires_in":7200}"#, Transient, "there is no access_token or ticket or "),
        (r#"{"access_token":"","expires_in":7200}"#, Transient, "access_token is empty"),
        (r#"{"access_token":5,"expires_in":7200}"#, Transient, "access_token is not a text"),
        (r#"{"access_token":null,"expires_in":7200}"#, Transient, "access_token is not a text"),
        (r#"{"access_token":"a b","expires_in":7200}"#, Transient, "characters that no token has"),
        (
            r#"{"access_token":"a\r\n+OK","expires_in":7200}"#,
            Transient,
            "characters that no token has",
        ),
        (r#"{"access_token":"A","expires_in":0}"#, Transient, "not positive"),
        (r#"{"access_token":"A","expires_in":-7200}"#, Transient, "not positive"),
        (r#"{"access_token":"A","expires_in":"soon"}"#, Transient, "not a whole number"),
        (r#"{"access_token":"A","expires_in":1.5}"#, Transient, "not a whole number"),
        (r#"{"access_token":"A","expires_in":1893456000}"#, Transient, "longer than ten years"),
        (
            r#"{"errcode":40164,"errmsg":"x"}"#,
            Misconfigured,
            "errcode 40164: add this server's address",
        ),
        (r#"{"errcode":"40013","errmsg":"x"}"#, Misconfigured, "errcode 40013"),
        (r#"{"errcode":987654}"#, Unknown, "errcode 987654"),
        (r#"{"access_token":"A","expires_in":7200,"errcode":-1}"#, Transient, "errcode -1"),
    ] {
        check(&source(""), 200, body, Err((class, part)));
    }
    let long = format!(r#"{{"access_token":"{}","expires_in":1}}"#, "x".repeat(9_000));
    check(&source(""), 200, &long, Err((Transient, "too long")));
}

#[test]
fn a_status_counts_only_without_a_code() {
    let good = r#"{"access_token":"A","expires_in":7200}"#;
    check(&source(""), 429, r#"{"errcode":45009,"errmsg":"x"}"#, Err((QuotaSpent, "45009")));
    check(&source(""), 502, good, Err((Transient, "status 502")));
    check(&source(""), 302, "", Err((Unknown, "status 302")));
    check(&source(""), 403, "<html>", Err((Misconfigured, "status 403")));
    check(&source(""), 201, good, Ok(("A", 7200)));
}

#[test]
fn an_upstream_is_left_alone_as_long_as_it_asks_but_not_for_ever() {
    for (status, asked, expected) in [
        (429, Some(30), Some(30)),
        (503, Some(86_400), Some(3_600)),
        (429, None, None),
        (500, Some(30), None),
    ] {
        let retry_after = asked.map(Duration::from_secs);
        let answer = Answer { status, retry_after, ..Answer::default() };
        let error = read(&source(""), &answer, UNIX_EPOCH, &[]).unwrap_err();
        assert_eq!(error.wait(), expected.map(Duration::from_secs), "{status}");
        assert_eq!(error.wait_again(), error.wait());
    }
    let retry_after = Some(Duration::from_secs(30));
    let body = br#"{"code":"TooFast"}"#.to_vec();
    let answer = Answer { status: 429, body: body.into(), retry_after, date: None };
    let error = read(&source(""), &answer, UNIX_EPOCH, &[]).unwrap_err();
    assert_eq!((error.class(), error.wait()), (Throttled, retry_after));
    let refused = r#"{"errcode":45009,"errmsg":"x"}"#;
    let wecom = documented().into_iter().find(|source| source.name.as_str() == "wecom").unwrap();
    let error = read_from(&wecom, 200, refused).unwrap_err();
    assert_eq!(error.wait(), Some(Duration::from_secs(60)));
    assert_eq!(error.wait_again(), Some(Duration::from_secs(3_600)));
}

#[test]
fn what_is_to_be_sent_back_is_captured() {
    let extra = r#"args: {"r": "{{captured}}"}, capture: "next.0", captured: "first""#;
    let source = source(extra);
    for (body, expected) in [
        (r#"{"t":"A","expires_in":9,"next":["r2"]}"#, Ok(Some("r2"))),
        (r#"{"t":"A","expires_in":9}"#, Ok(None)),
        (r#"{"t":"A","expires_in":9,"next":[null]}"#, Ok(None)),
        (r#"{"t":"A","expires_in":9,"next":["a b"]}"#, Err("next.0 holds characters")),
        (r#"{"t":"A","expires_in":9,"next":[7]}"#, Err("next.0 is not a text")),
    ] {
        match (read_from(&source, 200, body), expected) {
            (Ok(fetched), Ok(text)) => {
                assert_eq!(fetched.captured, text.map(Secret::new), "{body}")
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, expected) => panic!("{body}: {got:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn an_upstreams_message_repeats_nothing_that_was_sent() {
    let body = r#"{"errcode":40013,"errmsg":"bad secret=s3cr3ts3cr3t\nforged line rid: a-b"}"#;
    let error = read_from(&source(""), 200, body).unwrap_err();
    assert_eq!(error.for_log(), "bad secret=*** forged line rid: a-b");
    let long = format!(r#"{{"errcode":40013,"errmsg":"{} rid: 6-7-8"}}"#, "x".repeat(9_000));
    let error = read_from(&source(""), 200, &long).unwrap_err();
    assert!(error.for_log().ends_with("xx … rid: 6-7-8") && error.for_log().len() < 400);
}

#[test]
fn an_upstreams_code_repeats_nothing_that_was_sent() {
    for (code, shown) in [("s3cr3ts3cr3t", "error ***"), ("bad.s3cr3ts3cr3t-1", "error bad.***-1")]
    {
        let body = format!(r#"{{"code":"{code}","access_token":"t","expires_in":7200}}"#);
        let error = read_from(&source(r#"error_field: "code""#), 200, &body).unwrap_err();
        assert_eq!(error.to_string(), format!("the upstream answered {shown}"));
        assert!(!format!("{error:?}").contains("s3cr3ts3cr3t"));
    }
}

#[test]
fn the_address_that_an_upstream_saw_is_read_from_its_message() {
    for (message, address) in [
        ("invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist rid: 6-7-8", Some("1.2.3.4")),
        ("invalid ip ::ffff:1.2.3.4, not in whitelist", Some("1.2.3.4")),
        ("from ip: 2001:db8::5, more info", Some("2001:db8::5")),
        ("not in whitelist: 10.0.0.1.", Some("10.0.0.1")),
        ("access denied rid: 65b2-7a-1c", None),
        ("999.1.1.1", None),
        ("", None),
    ] {
        assert_eq!(address_in(message), address.map(|text| text.parse().unwrap()), "{message}");
    }
}
