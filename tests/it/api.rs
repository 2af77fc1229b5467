//! `/v1`, health and metrics of the server as a whole: what a failing upstream, a rotation and a restart
//! look like from there; and that nothing secret is told.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use wechat_token_server::sandbox::{Account, Settings};

use crate::support::{NO_COOLDOWN, SECRET, http, served, server, soon, upstream};

const METRICS: &str = r#"metrics: (bind: "127.0.0.1:0"),"#;

/// The status and body of a request with the key.
async fn ask(address: SocketAddr, method: &str, target: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {SECRET}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn told(address: SocketAddr, target: &str) -> Value {
    serde_json::from_str(&ask(address, "GET", target, "").await.1).unwrap()
}

/// Reads a stream until it holds `end`.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    soon(end, async {
        while !text.contains(end) {
            let mut bytes = [0; 1024];
            let length = stream.read(&mut bytes).await.unwrap();
            assert!(length > 0, "it ended: {text}");
            text.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
        }
    })
    .await;
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_upstream_is_told_with_what_to_do_and_nothing_secret() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let ours = server(wechat.address(), dir.path(), &[NO_COOLDOWN, METRICS].concat()).await;
    let (address, metrics) = (ours.http, ours.metrics.unwrap());
    let ticket = served(address, "ticket", None).await;
    let token = served(address, "access_token", None).await;
    let mut events = TcpStream::connect(address).await.unwrap();
    let listen =
        format!("GET /v1/events HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {SECRET}\r\n\r\n");
    events.write_all(listen.as_bytes()).await.unwrap();
    let mut seen = read_until(&mut events, "listening").await;

    wechat.inject("kind=errcode&code=40164&times=1".parse().unwrap());
    let refresh = "/v1/tokens/access_token/refresh";
    let (status, refused) = ask(address, "POST", refresh, "").await;
    assert_eq!((status, refused.contains(r#""code":"upstream""#)), (502, true), "{refused}");
    let failing = told(address, "/v1/status?source=access_token").await;
    let source = &failing["sources"][0];
    assert_eq!((&source["state"], &source["on_disk"]), (&"failing".into(), &true.into()));
    let error = &source["last_error"];
    assert_eq!((&error["code"], &error["class"]), (&"40164".into(), &"misconfigured".into()));
    assert_eq!(error["over"], false);
    let told_at_once: Value = serde_json::from_str(&refused).unwrap();
    let chinese = told_at_once["error"]["message_zh"].as_str().unwrap();
    assert!(chinese.starts_with("上游返回 errcode 40164"), "{chinese}");
    assert_eq!(told_at_once["error"]["remedy"], error["remedy"]);
    // What to do has its own place.
    assert_eq!(error["message"], "the upstream answered errcode 40164");
    for language in ["en", "zh"] {
        assert!(!error["remedy"][language].as_str().unwrap().is_empty(), "{error}");
    }
    assert_eq!(source["history"].as_array().unwrap().last().unwrap()["code"], 40_164);
    assert!(source["calls_today"]["made"].as_u64().unwrap() >= 2);
    let reader = &source["readers"][0];
    assert_eq!((&reader["client"], &reader["protocol"]), (&"default".into(), &"http".into()));

    // It can be had again: who waits is answered then.
    wechat.clear();
    let generation = source["generation"].as_u64().unwrap();
    let target = format!("/v1/tokens/access_token?wait=60s&after={generation}");
    let waiting = tokio::spawn(async move { told(address, &target).await });
    let body = format!(r#"{{"stale": "{token}"}}"#);
    let renewed = soon("a refresh", async {
        loop {
            let (status, body) = ask(address, "POST", refresh, &body).await;
            if status == 200 {
                break serde_json::from_str::<Value>(&body).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(
        (&renewed["refreshed"], &renewed["generation"]),
        (&true.into(), &(generation + 1).into())
    );
    let waited = soon("who waits", waiting).await.unwrap();
    assert_eq!(waited["value"], renewed["value"]);
    seen += &read_until(&mut events, "event:recovered").await;
    for event in ["event:failing", "event:rotated", r#""code":"40164""#] {
        assert!(seen.contains(event), "{event}: {seen}");
    }
    let over = told(address, "/v1/status?source=access_token").await;
    assert_eq!(over["sources"][0]["last_error"]["over"], true);
    assert_eq!(http(address, "GET", "/readyz").await.0, 200);
    let (status, numbers) = http(metrics, "GET", "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        r#"wechat_token_refresh_failures_total{class="misconfigured",code="40164"} 1"#,
        r#"wechat_token_memory_only{source="ticket"} 0.0"#,
        r#"wechat_token_calls_today{account="#,
    ] {
        assert!(numbers.contains(line), "{line}\n{numbers}");
    }
    for histogram in [
        "wechat_token_upstream_request_duration_seconds",
        "wechat_token_store_write_duration_seconds",
    ] {
        check_histogram(&numbers, histogram);
    }

    let everything = [
        seen,
        numbers,
        failing.to_string(),
        over.to_string(),
        refused,
        told(address, "/v1/tokens").await.to_string(),
        told(address, "/readyz").await.to_string(),
    ];
    let last = renewed["value"].as_str().unwrap();
    for secret in [&token, &ticket, last, SECRET, Account::SANDBOX_SECRET] {
        // Half of it would be too much as well.
        let half = &secret[..secret.len() / 2];
        for text in &everything {
            assert!(!text.contains(half), "{half} is told: {text}");
        }
    }
    drop(events);
    assert!(ours.stop().await);
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_and_its_tag_survive_a_restart() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let ours = server(wechat.address(), dir.path(), "").await;
    served(ours.http, "access_token", None).await;
    let before = told(ours.http, "/v1/tokens/access_token").await;
    assert!(ours.stop().await);
    let ours = server(wechat.address(), dir.path(), "").await;
    let target = format!("/v1/tokens/access_token?after={}", before["generation"]);
    assert_eq!(ask(ours.http, "GET", &target, "").await.0, 204);
    let status = told(ours.http, "/v1/status?source=access_token").await;
    assert_eq!(status["sources"][0]["refreshes"]["succeeded"], 0, "of this run");
    assert_eq!(status["sources"][0]["generation"], before["generation"]);
    assert!(ours.stop().await);
    wechat.stop().await;
}

/// A histogram of times has bounds that a request may take, in order; what comes after the last is all there is.
fn check_histogram(numbers: &str, name: &str) {
    let value = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap();
    let of = |part: &str| {
        let start = format!("{name}_{part}");
        numbers.lines().filter(move |line| line.starts_with(&start)).collect::<Vec<_>>()
    };
    let bound = |line: &str| line.split('"').nth(1).unwrap().parse::<f64>().unwrap();
    let mut buckets: Vec<(f64, u64)> =
        of("bucket").into_iter().map(|line| (bound(line), value(line))).collect();
    assert!(buckets.is_sorted(), "{buckets:?}");
    let [count] = of("count")[..] else { panic!("{numbers}") };
    assert!(value(count) > 0, "{count}");
    assert_eq!(buckets.pop(), Some((f64::INFINITY, value(count))));
    assert!(buckets.len() > 8 && buckets.iter().all(|bucket| bucket.0 < 100.0), "{buckets:?}");
}
