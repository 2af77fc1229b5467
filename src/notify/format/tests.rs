//! The bytes of each kind of receiver, and their signatures against what other programs compute.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::account::Account;
use crate::config::{Language, Topic};
use crate::snapshot::{CallsUsed, Remedy as Advice, Trouble};
use crate::token::SourceName;

const URL: &str = "https://h/robot?key=url-canary";
const SECRET: &str = "SECtest";

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

fn webhook(kind: WebhookKind, secret: Option<&str>) -> WebhookConfig {
    WebhookConfig {
        name: "ops".into(),
        url: Secret::new(URL),
        kind,
        secret: secret.map(Secret::new),
        topics: Topic::ALL.to_vec(),
        quiet: Duration::from_secs(3_600),
        gather: Duration::from_secs(10),
        language: Language::English,
        server_name: None,
    }
}

fn message(items: Vec<Item>) -> Message {
    Message { id: "msg_1".into(), at: at(60), server: "shanghai-1".into(), items, left_out: 3 }
}

fn body(request: &Request) -> Value {
    serde_json::from_slice(&request.body.as_ref().unwrap().bytes).unwrap()
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let found = request.headers.iter().find(|(header, _)| header == name);
    found.map(|(_, value)| value.expose())
}

#[test]
fn a_program_is_told_as_json() {
    let source = || SourceName::parse("access_token").unwrap();
    let trouble = Trouble {
        at: at(1),
        what: "the upstream answered errcode 40164".into(),
        what_zh: "上游返回 errcode 40164".into(),
        class: "misconfigured",
        code: Some("40164".into()),
        remedy: Advice { en: "allow it".into(), zh: "加入白名单".into() },
        is_failure: true,
    };
    let bare = Trouble { code: None, ..trouble.clone() };
    let account = Account { name: "wx0".into(), endpoint: "/cgi-bin/token".into() };
    let used = CallsUsed { account, made: 1_600, limit: 2_000, percent: 80 };
    let until = Some(at(3_600));
    let message = message(vec![
        Item::Failing { source: source(), since: at(0), trouble: Arc::new(bare), until: None },
        Item::Failing { source: source(), since: at(0), trouble: Arc::new(trouble), until },
        Item::Quota(Arc::new(used)),
        Item::Foreign { source: source(), at: at(7), times: 2 },
        Item::Recovered { source: source(), since: at(0), at: at(9), until },
        Item::Test,
    ]);
    let told = body(&request(&webhook(WebhookKind::Json, None), &message, at(61)));
    let expected = json!({
        "id": "msg_1",
        "at": 1_800_000_060,
        "server": "shanghai-1",
        "version": env!("CARGO_PKG_VERSION"),
        "text": text(&message, Language::English, MOST_TEXT_BYTES),
        "events": [
            {
                "event": "failing", "source": "access_token", "since": 1_800_000_000, "class": "misconfigured",
                "code": null, "message": "the upstream answered errcode 40164",
                "remedy": {"en": "allow it", "zh": "加入白名单"}, "token_until": null,
            },
            {
                "event": "failing", "source": "access_token", "since": 1_800_000_000, "class": "misconfigured",
                "code": "40164", "message": "the upstream answered errcode 40164",
                "remedy": {"en": "allow it", "zh": "加入白名单"}, "token_until": 1_800_003_600,
            },
            {"event": "quota", "account": "wx0", "endpoint": "/cgi-bin/token", "made": 1_600, "limit": 2_000, "percent": 80},
            {"event": "foreign", "source": "access_token", "at": 1_800_000_007, "times": 2},
            {
                "event": "recovered", "source": "access_token", "since": 1_800_000_000, "at": 1_800_000_009,
                "token_until": 1_800_003_600,
            },
            {"event": "test"},
        ],
        "left_out": 3,
    });
    assert_eq!(told, expected);
}

#[test]
fn a_program_can_tell_who_sends_and_when() {
    let message = message(vec![Item::Test]);
    let unsigned = request(&webhook(WebhookKind::Json, None), &message, at(61));
    assert_eq!(header(&unsigned, "webhook-id"), Some("msg_1"));
    assert_eq!(header(&unsigned, "webhook-timestamp"), Some("1800000061"));
    assert_eq!(header(&unsigned, "webhook-signature"), None);
    let signed = request(&webhook(WebhookKind::Json, Some("plain")), &message, at(62));
    let bytes = &signed.body.as_ref().unwrap().bytes;
    let expected = standard_signature("plain", "msg_1", 1_800_000_062, bytes);
    assert_eq!(header(&signed, "webhook-signature"), Some(expected.as_str()));
    // The first is the example of the libraries of Standard Webhooks.
    let body = br#"{"test": 2432232314}"#;
    for (secret, signature) in [
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        ("plain", "v1,tgOMx2V+ymftc5zrV4Kwy5UOWZAx1XMh0yu4Sm/6/r0="),
    ] {
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        assert_eq!(standard_signature(secret, id, 1_614_265_330, body), signature);
    }
}

#[test]
fn each_robot_is_told_in_its_form() {
    let message = message(vec![Item::Test]);
    let content = text(&message, Language::English, MOST_TEXT_BYTES);
    let now = at(0) + Duration::from_millis(123);
    let told = |kind, secret| request(&webhook(kind, secret), &message, now);
    let text_of_two = json!({"msgtype": "text", "text": {"content": content}});

    let wecom = told(WebhookKind::WeCom, None);
    assert_eq!((body(&wecom), wecom.url.as_str()), (text_of_two.clone(), URL));

    // Signatures by Python's hmac and base64.
    let dingtalk = told(WebhookKind::DingTalk, Some(SECRET));
    assert_eq!(body(&dingtalk), text_of_two);
    let sign = "ARwD6BPityVQKKdq%2F8Dc4Z0g%2B%2FKwMntHs8dr4Qy%2F6LY%3D";
    assert_eq!(dingtalk.url.as_str(), format!("{URL}&timestamp=1800000000123&sign={sign}"));
    assert_eq!(told(WebhookKind::DingTalk, None).url.as_str(), URL);

    let feishu = told(WebhookKind::Feishu, Some(SECRET));
    let expected = json!({
        "msg_type": "text", "content": {"text": content}, "timestamp": "1800000000",
        "sign": "xRMafYbHsp71swEAHAjVqoO6r9TqN4N5t9grlP1ZlnY=",
    });
    assert_eq!((body(&feishu), feishu.url.as_str()), (expected, URL));
    let unsigned = body(&told(WebhookKind::Feishu, None));
    assert_eq!(unsigned, json!({"msg_type": "text", "content": {"text": content}}));

    for request in [wecom, dingtalk, feishu] {
        let body = String::from_utf8(request.body.unwrap().bytes.to_vec()).unwrap();
        assert!(request.headers.is_empty(), "nobody reads them");
        assert!(!body.contains("canary") && !body.contains(SECRET), "{body}");
    }
}
