//! Webhooks: what a receiver on a real socket is told of a real server, and what it cannot do to it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::Value;
use wechat_token_server::app::{self, Server};
use wechat_token_server::clock::SystemClock;
use wechat_token_server::config::{self, Environment};
use wechat_token_server::sandbox::{Account, Settings, Upstream};

use crate::support::receiver::{Answer, Receiver, Told};
use crate::support::{
    SECRET, binary, config_text, force, http, served, server, soon, upstream, value,
};

/// WeChat refuses this machine: no token until a person does something.
const REFUSED: &str = "kind=errcode&code=40164&endpoint=token";

const KEY: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A webhook of the config that tells at once; `more` are further settings.
fn webhook(name: &str, receiver: &Receiver, more: &str) -> String {
    let address = receiver.address;
    format!(
        r#""{name}": (url: "http://{address}/{name}?key=k", gather: "0s", language: "en",
            server_name: "here", {more}),"#
    )
}

/// The config's groups with these webhooks and no cooldown.
fn groups(webhooks: &str) -> String {
    format!(r#"webhooks: {{{webhooks}}}, refresh: (cooldown: "0s"),"#)
}

fn events(told: &Told) -> Vec<Value> {
    told.json()["events"].as_array().unwrap().clone()
}

/// Lets the next renewal come off.
async fn heal(wechat: &Upstream, server: &Server) {
    wechat.clear();
    soon("a token", async {
        while value(&force(server.http, "access_token").await, "access_token").is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// As a receiver checks it, after the page of Standard Webhooks.
fn is_signed(told: &Told, key: &str) -> bool {
    let header = |name| told.header(name).unwrap();
    let sent: u64 = header("webhook-timestamp").parse().unwrap();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let key = STANDARD.decode(key.strip_prefix("whsec_").unwrap()).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let content = format!("{}.{sent}.{}", header("webhook-id"), told.body);
    let signature = header("webhook-signature").strip_prefix("v1,").unwrap();
    let signature = STANDARD.decode(signature).unwrap();
    now.abs_diff(sent) < 120 && hmac::verify(&key, content.as_bytes(), &signature).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_and_its_end_are_told_and_signed() {
    let wechat = upstream(Settings::default()).await;
    wechat.inject(REFUSED.parse().unwrap());
    let (dir, receiver) = (tempfile::tempdir().unwrap(), Receiver::start(&[]).await);
    let webhooks = webhook("ops", &receiver, &format!("secret: {KEY:?}"));
    let server = server(wechat.address(), dir.path(), &groups(&webhooks)).await;
    let told = receiver.told(1).await;
    let [event] = &events(&told[0])[..] else { panic!("{told:?}") };
    assert_eq!((&event["event"], &event["source"]), (&"failing".into(), &"access_token".into()));
    assert_eq!((&event["class"], &event["code"]), (&"misconfigured".into(), &"40164".into()));
    assert_eq!((&event["token_until"], &told[0].json()["server"]), (&Value::Null, &"here".into()));
    let remedy = &event["remedy"];
    assert!(remedy["en"].is_string() && remedy["zh"].is_string(), "{event}");
    assert_eq!(told[0].target, "/ops?key=k");
    assert!(is_signed(&told[0], KEY) && !is_signed(&told[0], "whsec_AAAA"), "{told:?}");

    heal(&wechat, &server).await;
    let told = receiver.told(2).await;
    let [event] = &events(&told[1])[..] else { panic!("{told:?}") };
    assert_eq!((&event["event"], &event["source"]), (&"recovered".into(), &"access_token".into()));
    assert!(event["token_until"].as_u64() > event["at"].as_u64() && is_signed(&told[1], KEY));
    assert!(server.stop().await);
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_is_not_told_again_and_foreign_fetches_and_quotas_are() {
    let wechat = upstream(Settings::default()).await;
    let (dir, receiver) = (tempfile::tempdir().unwrap(), Receiver::start(&[]).await);
    let text = config_text(wechat.address(), dir.path(), &groups(&webhook("ops", &receiver, "")))
        .replacen("args: {", "daily_limit: 20, args: {", 1);
    let config = config::parse(&text, Path::new("c.ron"), &Environment::default()).unwrap();
    let server = app::start(config, SystemClock::shared()).await.unwrap();
    let token = served(server.http, "access_token", None).await;
    for (failing, expected) in [(true, "failing"), (false, "recovered"), (true, ""), (false, "")] {
        let before = receiver.so_far().len();
        if failing {
            wechat.inject(REFUSED.parse().unwrap());
            assert!(force(server.http, "access_token").await.contains("errmsg"));
        } else {
            heal(&wechat, &server).await;
        }
        if !expected.is_empty() {
            let told = receiver.told(before + 1).await;
            assert_eq!(events(&told[before])[0]["event"], expected);
        }
    }
    // What comes next is not about that failure.
    let current = served(server.http, "access_token", None).await;
    assert_ne!(current, token);
    let stale =
        format!("/wechat/token/forcerefresh?type=access_token&stale={current}&secret={SECRET}");
    http(server.http, "GET", &stale).await;
    let told = receiver.told(3).await;
    let [event] = &events(&told[2])[..] else { panic!("{told:?}") };
    assert_eq!((&event["event"], &event["source"]), (&"foreign".into(), &"access_token".into()));
    while receiver.so_far().len() < 4 {
        force(server.http, "access_token").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let told = receiver.told(4).await;
    let event = &events(&told[3])[0];
    assert_eq!((&event["event"], &event["made"]), (&"quota".into(), &16.into()), "{event}");
    assert_eq!(event["account"], Account::SANDBOX_APPID);
    assert!(server.stop().await);
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_arrived_is_sent_again_with_the_same_id() {
    let wechat = upstream(Settings::default()).await;
    wechat.inject(REFUSED.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[Answer::Says(500, "no"), Answer::Closes]).await;
    let webhooks = webhook("ops", &receiver, &format!("secret: {KEY:?}"));
    let server = server(wechat.address(), dir.path(), &groups(&webhooks)).await;
    let told = receiver.told(3).await;
    for again in &told {
        assert_eq!(again.header("webhook-id"), told[0].header("webhook-id"));
        assert!(again.body == told[0].body && is_signed(again, KEY));
    }
    let metrics = |result: &str| {
        format!(r#"wechat_token_webhook_messages_total{{webhook="ops",result="{result}"}}"#)
    };
    soon("the count", async {
        while !numbers(&server).await.contains(&(metrics("delivered") + " 1")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let numbers = numbers(&server).await;
    assert!(numbers.contains(&(metrics("failed_attempt") + " 2")), "{numbers}");
    assert!(numbers.contains(&(metrics("given_up") + " 0")), "{numbers}");
    assert!(server.stop().await);
    wechat.stop().await;
}

/// The body of `/metrics`.
async fn numbers(server: &Server) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(server.http).await.unwrap();
    let request = format!(
        "GET /metrics HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {SECRET}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn each_robot_is_told_in_its_own_form_and_a_code_in_a_200_is_a_failure() {
    let wechat = upstream(Settings::default()).await;
    wechat.inject(REFUSED.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let refused = [Answer::Says(200, r#"{"errcode":93000,"errmsg":"invalid webhook url"}"#)];
    let wecom = Receiver::start(&refused).await;
    let [dingtalk, feishu] = [Receiver::start(&[]).await, Receiver::start(&[]).await];
    let webhooks = [
        webhook("wecom", &wecom, "kind: WeCom"),
        webhook("dingtalk", &dingtalk, r#"kind: DingTalk, secret: "SECcanary""#),
        webhook("feishu", &feishu, r#"kind: Feishu, secret: "feishu-canary""#),
    ];
    let server = server(wechat.address(), dir.path(), &groups(&webhooks.concat())).await;

    let told = wecom.told(1).await.remove(0);
    assert_eq!((told.target.as_str(), &told.json()["msgtype"]), ("/wecom?key=k", &"text".into()));
    let text = told.json()["text"]["content"].as_str().unwrap().to_owned();
    assert!(text.starts_with("[wechat-token-server] here\n\nNo token: access_token\n"), "{text}");

    let told = dingtalk.told(1).await.remove(0);
    assert_eq!(told.json()["text"]["content"], text);
    let query: Vec<(String, String)> =
        form_urlencoded::parse(told.target.split_once('?').unwrap().1.as_bytes())
            .into_owned()
            .collect();
    let [(_, key), (_, timestamp), (_, sign)] = &query[..] else { panic!("{query:?}") };
    let signed = |key: &str, content: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
        STANDARD.encode(hmac::sign(&key, content.as_bytes()))
    };
    assert_eq!(key, "k");
    assert_eq!(*sign, signed("SECcanary", &format!("{timestamp}\nSECcanary")));

    let told = feishu.told(1).await.remove(0);
    assert_eq!(
        (&told.json()["msg_type"], &told.json()["content"]["text"]),
        (&"text".into(), &text.into())
    );
    let timestamp = told.json()["timestamp"].as_str().unwrap().to_owned();
    assert_eq!(told.json()["sign"], signed(&format!("{timestamp}\nfeishu-canary"), ""));

    // Hopeless, and so not sent again.
    let given_up = r#"{webhook="wecom",result="given_up"} 1"#;
    soon("the count", async {
        while !numbers(&server).await.contains(given_up) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(wecom.so_far().len(), 1);
    assert!(server.stop().await);
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_holds_up_neither_the_engine_nor_the_end() {
    let wechat = upstream(Settings::default()).await;
    wechat.inject(REFUSED.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[Answer::Hangs]).await;
    let server =
        server(wechat.address(), dir.path(), &groups(&webhook("ops", &receiver, ""))).await;
    receiver.told(1).await;
    // Renewals go on while it does.
    heal(&wechat, &server).await;
    let first = served(server.http, "access_token", None).await;
    assert_ne!(value(&force(server.http, "access_token").await, "access_token").unwrap(), first);
    let stopping = tokio::time::timeout(Duration::from_secs(8), server.stop());
    assert!(stopping.await.expect("sooner than the attempt's ten seconds"));
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_adds_changes_and_removes_webhooks() {
    let wechat = upstream(Settings::default()).await;
    wechat.inject(REFUSED.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let [one, other] = [Receiver::start(&[]).await, Receiver::start(&[]).await];
    let file = dir.path().join("config.ron");
    let environment = Environment::default();
    let write = |webhooks: &str| {
        let text = config_text(wechat.address(), dir.path(), &groups(webhooks));
        std::fs::write(&file, text).unwrap();
    };
    write("");
    let config = config::load(&file, &environment).unwrap();
    let mut server = app::start(config, SystemClock::shared()).await.unwrap();
    soon("a failure", async {
        while !numbers(&server).await.contains(r#"wechat_token_failing{source="access_token"} 1"#) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // What has been failing for a while is told to who comes.
    write(&webhook("one", &one, ""));
    let reloaded = server.reload(&file, &environment).unwrap();
    assert!(reloaded.need_restart.is_empty() && reloaded.kept == 2, "{reloaded:?}");
    assert_eq!(events(&one.told(1).await[0])[0]["event"], "failing");
    // One that has not changed is not told anew; one that is new is.
    write(&(webhook("one", &one, "") + &webhook("other", &other, "")));
    server.reload(&file, &environment).unwrap();
    other.told(1).await;
    assert_eq!(one.so_far().len(), 1);
    // One that is gone hears nothing.
    write(&webhook("other", &other, ""));
    server.reload(&file, &environment).unwrap();
    heal(&wechat, &server).await;
    assert_eq!(events(&other.told(2).await[1])[0]["event"], "recovered");
    assert_eq!(one.so_far().len(), 1);
    assert!(server.stop().await);
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_message_says_whether_it_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let [good, bad] = [
        Receiver::start(&[]).await,
        Receiver::start(&[Answer::Says(200, r#"{"errcode":93000}"#)]).await,
    ];
    let try_out = |webhooks: String| {
        let text = config_text(good.address, dir.path(), &groups(&webhooks));
        let file = dir.path().join("config.ron");
        std::fs::write(&file, text).unwrap();
        let mut command = binary();
        command.arg("--config").arg(file).arg("notify-test");
        async move {
            let output = soon("the end", command.output()).await.unwrap();
            let [out, err] =
                [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
            (output.status.code(), out, err)
        }
    };
    let both = webhook("good", &good, "") + &webhook("bad", &bad, "kind: WeCom");
    let (code, out, err) = try_out(both).await;
    assert_eq!((code, out.as_str()), (Some(1), "good: delivered\n"));
    assert!(
        err.contains("bad: not delivered: the robot answered errcode 93000: the key in url"),
        "{err}"
    );
    assert_eq!(events(&good.so_far()[0])[0]["event"], "test");
    let (code, ..) = try_out(webhook("good", &good, "")).await;
    assert_eq!(code, Some(0));
    let (code, _, err) = try_out(String::new()).await;
    assert!(code == Some(78) && err.contains("docs/webhooks.md"), "{err}");
}
