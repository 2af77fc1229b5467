//! `/v1` and what stands beside it, from outside: who is let in, what is answered, who waits, what is
//! told; and that the OpenAPI document says the same.

mod document;
mod numbers;

use serde_json::Value;

use super::*;
use crate::http::ROUTES;
use crate::http::form::MAX_BODY_BYTES;
use crate::http::v1::OPENAPI;
use crate::refresh::{RefreshError, RefreshRequest, Refused, Wish};
use crate::snapshot::{Remedy, Trouble};

const VALUE: &str = "CANARY-TOKEN";
const SHOP: &str = "shop-key";

fn request(method: &str, target: &str, key: Option<&str>, rest: &str) -> String {
    let key = key.map_or_else(String::new, |key| format!("authorization: Bearer {key}\r\n"));
    format!("{method} {target} HTTP/1.1\r\nhost: x\r\n{key}{rest}\r\n")
}

fn with_body(target: &str, key: &str, body: &str) -> String {
    let rest = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    format!("{}{body}", request("POST", target, Some(key), &rest))
}

fn generation(value: &str, generation: u64) -> Arc<Published> {
    Arc::new(published(value, still(), Duration::from_secs(7_200), generation))
}

/// One with two tokens; `公众号` has none and `ended` an old one.
async fn served() -> TestServer {
    let server = TestServer::patient().await;
    server.publishers[0].publish(generation("AT", 7));
    server.publishers[1].publish(generation(VALUE, 1));
    let ended = Published { ends_mono: still().mono, ..(*generation("OLD", 3)).clone() };
    server.publishers[3].publish(Arc::new(ended));
    server
}

fn trouble() -> Trouble {
    Trouble {
        at: still().wall,
        what: "the upstream answered errcode 40164".into(),
        what_zh: "上游返回 errcode 40164".into(),
        class: "misconfigured",
        code: Some("40164".into()),
        remedy: Remedy { en: "add it".into(), zh: "添加".into() },
        is_failure: true,
    }
}

impl TestServer {
    async fn v1(&self, target: &str) -> Answer {
        self.with(target, KEY, "").await
    }

    async fn with(&self, target: &str, key: &str, rest: &str) -> Answer {
        let mut client = self.connect().await;
        client.send(&request("GET", target, Some(key), rest)).await;
        client.answer().await
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    fn error(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// A path with a source in the place of its name.
fn target(path: &str) -> String {
    path.replace("{name}", "ticket")
}

#[tokio::test]
async fn each_route_takes_its_methods_and_asks_for_a_key_where_it_should() {
    let server = served().await;
    for route in ROUTES {
        let target = target(route.path);
        let is_v1 = target.starts_with("/v1/");
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            if route.methods.split(", ").any(|allowed| allowed == method) {
                continue;
            }
            let answer = server.ask(&request(method, &target, Some(KEY), "")).await;
            assert_eq!(answer.status, 405, "{method} {target}");
            assert_eq!(answer.header("allow"), Some(route.methods), "{method} {target}");
            if is_v1 && method != "HEAD" {
                assert_eq!(answer.error(), "method_not_allowed");
            }
        }
        let method = if route.methods == "POST" { "POST" } else { "GET" };
        let is_open = ["/v1/openapi.json", "/healthz", "/readyz", "/"].contains(&route.path);
        if is_open || target.starts_with("/wechat") {
            assert!([200, 503].contains(&server.get(&target).await.status), "{target}");
            continue;
        }
        if route.is_of_the_page() {
            assert_eq!(server.get(&target).await.status, route.statuses[0], "{target}");
            continue;
        }
        for (key, challenge) in [
            (None, r#"Bearer realm="wechat-token-server""#),
            (Some("wrong"), r#"Bearer realm="wechat-token-server", error="invalid_token""#),
            (Some("far-key"), r#"Bearer realm="wechat-token-server", error="invalid_token""#),
        ] {
            let answer = server.ask(&request(method, &target, key, "")).await;
            assert_eq!((answer.status, answer.error().as_str()), (401, "unauthorized"), "{target}");
            assert_eq!(answer.header("www-authenticate"), Some(challenge));
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
    }
    // A key in the parameter is the original's way.
    assert_eq!(server.get("/v1/tokens/ticket?secret=k3y").await.status, 401);
    assert_eq!(server.v1("/v1/nothing").await.error(), "not_found");
}

#[tokio::test]
async fn many_wrong_keys_are_answered_with_429() {
    let server = served().await;
    let wrong = request("GET", "/v1/tokens", Some("wrong"), "");
    let mut statuses = Vec::new();
    for _ in 0..31 {
        statuses.push(server.ask(&wrong).await.status);
    }
    assert_eq!((statuses[0], statuses[29], statuses[30]), (401, 401, 429));
    assert_eq!(server.v1("/v1/tokens").await.status, 200, "a right key is never slowed");
}

#[tokio::test]
async fn a_token_is_answered_with_its_life_and_its_tag() {
    let server = served().await;
    let answer = server.with("/v1/tokens/ticket", SHOP, "").await;
    let expected = format!(
        r#"{{"name":"ticket","value":"{VALUE}","expires_in":7200,"expires_at":1700007200,"generation":1}}"#
    );
    assert_eq!((answer.status, answer.body.as_str()), (200, expected.as_str()));
    assert_eq!(answer.header("etag"), Some("\"1\""));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let text = server.v1("/v1/tokens/ticket?format=text").await;
    assert_eq!((text.body.as_str(), text.header("etag")), (VALUE, Some("\"1-text\"")));
    let head = server.ask(&request("HEAD", "/v1/tokens/ticket", Some(KEY), "")).await;
    assert_eq!((head.status, head.body.as_str(), head.header("etag")), (200, "", Some("\"1\"")));
    // Encoded or not; and what is not there, not there for this client, or not live.
    for (target, key, status, code) in [
        ("/v1/tokens/%E5%85%AC%E4%BC%97%E5%8F%B7", KEY, 503, "no_token"),
        ("/v1/tokens/ended", KEY, 503, "no_token"),
        ("/v1/tokens/tick%65t", KEY, 200, ""),
        ("/v1/tokens/nobody", KEY, 404, "not_found"),
        ("/v1/tokens/%ff", KEY, 404, "not_found"),
        ("/v1/tokens/access_token", SHOP, 404, "not_found"),
        ("/v1/tokens/nobody", SHOP, 404, "not_found"),
        ("/v1/tokens/ticket?format=xml", KEY, 400, "bad_request"),
        ("/v1/tokens/ticket?wait=5s", KEY, 200, ""),
        ("/v1/tokens/ticket?wait=61s&after=1", KEY, 400, "bad_request"),
        ("/v1/tokens/ticket?wait=5&after=1", KEY, 400, "bad_request"),
        ("/v1/tokens/ticket?after=x", KEY, 400, "bad_request"),
        ("/v1/tokens/ticket?after=0", KEY, 200, ""),
        ("/v1/tokens/ticket?after=18446744073709551615", KEY, 200, ""),
        ("/v1/tokens/ticket?after=18446744073709551616", KEY, 400, "bad_request"),
    ] {
        let answer = server.with(target, key, "").await;
        assert_eq!((answer.status, answer.error().as_str()), (status, code), "{target}");
    }
}

#[tokio::test]
async fn who_has_it_is_told_so() {
    let server = served().await;
    let tags = |tags: &str| format!("if-none-match: {tags}\r\n");
    for (target, tag, status) in [
        ("/v1/tokens/ticket", "\"1\"", 304),
        ("/v1/tokens/ticket", "W/\"1\"", 304),
        ("/v1/tokens/ticket", "\"0\", \"1\"", 304),
        ("/v1/tokens/ticket", "*", 304),
        ("/v1/tokens/ticket", "\"2\"", 200),
        ("/v1/tokens/ticket", "1", 200),
        ("/v1/tokens/ticket", "\"1-text\"", 200),
        ("/v1/tokens/ticket?format=text", "\"1-text\"", 304),
    ] {
        let answer = server.ask(&request("GET", target, Some(KEY), &tags(tag))).await;
        assert_eq!(answer.status, status, "{target} {tag}");
        let is_text = target.ends_with("text");
        assert_eq!(answer.header("etag"), Some(if is_text { "\"1-text\"" } else { "\"1\"" }));
        assert_eq!(answer.body.is_empty(), status == 304);
    }
    let nothing = server.ask(&request("GET", "/v1/tokens/ticket?after=1", Some(KEY), "")).await;
    assert_eq!((nothing.status, nothing.header("etag")), (204, Some("\"1\"")));
}

#[tokio::test]
async fn who_waits_is_answered_at_the_rotation_or_told_that_there_was_none() {
    let server = served().await;
    let mut waits = Vec::new();
    for (target, rest) in [
        ("/v1/tokens/ticket?wait=60s&after=1", ""),
        ("/v1/tokens/ticket?wait=1m", "if-none-match: \"1\"\r\n"),
    ] {
        let mut client = server.connect().await;
        client.send(&request("GET", target, Some(SHOP), rest)).await;
        waits.push(client);
    }
    // More life of the same value is no news.
    server.publishers[1].publish(generation(VALUE, 1));
    // Answers come in order on a connection, and this one is only answered when the handler runs.
    server.v1("/v1/tokens").await;
    server.publishers[1].publish(generation("NEXT", 2));
    for client in &mut waits {
        let answer = client.answer().await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            (answer.json()["value"].as_str(), answer.header("etag")),
            (Some("NEXT"), Some("\"2\""))
        );
    }
    for (target, rest, status) in [
        ("/v1/tokens/ticket?wait=20ms&after=2", "", 204),
        ("/v1/tokens/ticket?wait=20ms", "if-none-match: \"2\"\r\n", 304),
        ("/v1/tokens/ended?wait=20ms&after=2", "", 503),
    ] {
        let mut client = server.connect().await;
        client.send(&request("GET", target, Some(KEY), rest)).await;
        let end = client.head().await;
        assert_eq!(end.status, status, "{target}");
    }
    // To who has nothing, the first is news.
    let mut first = server.connect().await;
    let target = "/v1/tokens/%E5%85%AC%E4%BC%97%E5%8F%B7?wait=60s";
    first.send(&request("GET", target, Some(KEY), "")).await;
    server.v1("/v1/tokens").await;
    server.publishers[2].publish(generation("FIRST", 1));
    assert_eq!(first.answer().await.json()["value"], "FIRST");
    // Who has another one need not wait.
    assert_eq!(server.v1("/v1/tokens/ticket?wait=60s&after=1").await.status, 200);
}

#[tokio::test]
async fn who_waits_and_leaves_gives_the_place_back() {
    let server = served().await;
    let traffic = server.status.traffic(Via::Http);
    let targets = ["/v1/tokens/ticket?wait=60s&after=1", "/v1/events"];
    // Also with a part of a next request behind, which stands before the end.
    for (target, next) in targets.into_iter().flat_map(|target| [(target, ""), (target, "GET /")]) {
        let mut client = server.connect().await;
        client.send(&(request("GET", target, Some(KEY), "") + next)).await;
        if target.ends_with("events") {
            assert_eq!(client.head().await.status, 200);
        }
        let both = server.connect().await;
        until(|| traffic.open() == 2).await;
        drop((client, both));
        until(|| traffic.open() == 0).await;
    }
}

/// Waits until something is so.
async fn until(is_so: impl Fn() -> bool) {
    let turns = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, turns).await.expect("it comes true");
}

#[tokio::test]
async fn the_drain_ends_those_who_wait_and_those_who_listen() {
    let server = served().await;
    let mut waiting = server.connect().await;
    waiting.send(&request("GET", "/v1/tokens/ticket?wait=60s&after=1", Some(KEY), "")).await;
    let mut listening = server.connect().await;
    listening.send(&request("GET", "/v1/events", Some(KEY), "")).await;
    assert_eq!(listening.head().await.status, 200);
    until(|| server.status.traffic(Via::Http).open() == 2).await;
    server.v1("/v1/tokens").await;
    server.drain.begin();
    assert_eq!(Answer::parse(&waiting.rest().await).status, 204);
    assert!(listening.rest().await.ends_with("0\r\n\r\n"), "the stream is whole");
    tokio::time::timeout(PATIENCE, server.serving).await.expect("serving ends").unwrap();
}

#[tokio::test]
async fn listeners_are_told_what_happens_to_their_sources() {
    let server = served().await;
    let mut shop = server.connect().await;
    shop.send(&request("GET", "/v1/events", Some(SHOP), "")).await;
    let head = shop.head().await;
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert_eq!(head.header("cache-control"), Some("no-store"));
    assert!(shop.event().await.contains("retry:3000"));
    server.publishers[0].publish(generation("NOT-FOR-SHOP", 8));
    server.publishers[1].publish(generation(VALUE, 2));
    server.publishers[1].note_failure(trouble());
    server.publishers[1].note_success(still().wall);
    for (kind, data) in [
        ("rotated", r#"{"name":"ticket","generation":2}"#),
        (
            "failing",
            r#"{"name":"ticket","class":"misconfigured","code":"40164","message":"the upstream answered errcode 40164"}"#,
        ),
        ("recovered", r#"{"name":"ticket"}"#),
    ] {
        assert_eq!(shop.event().await, format!("event:{kind}\ndata:{data}"));
    }
}

#[tokio::test]
async fn a_silent_stream_says_that_it_is_alive() {
    // The heart beats twice in what a connection may stand still for.
    let server = TestServer::hasty(NEVER, SOON).await;
    let mut client = server.connect().await;
    client.send(&request("GET", "/v1/events", Some(KEY), "")).await;
    client.head().await;
    client.event().await;
    for _ in 0..4 {
        assert_eq!(client.event().await, ":");
    }
}

#[tokio::test]
async fn one_client_cannot_take_every_stream() {
    let server = served().await;
    let mut streams = Vec::new();
    for _ in 0..super::super::MAX_STREAMS_OF_ONE {
        let mut client = server.connect().await;
        client.send(&request("GET", "/v1/events", Some(SHOP), "")).await;
        assert_eq!(client.head().await.status, 200);
        streams.push(client);
    }
    let refused = server.with("/v1/events", SHOP, "").await;
    assert_eq!((refused.status, refused.error().as_str()), (429, "too_many_waiting"));
    assert_eq!(refused.header("retry-after"), Some("5"));
    let mut other = server.connect().await;
    other.send(&request("GET", "/v1/events", Some(KEY), "")).await;
    assert_eq!(other.head().await.status, 200);
}

/// Has a refresh answered: what was wished for, and the answer to the client.
async fn refreshed(
    body: &str,
    outcome: impl FnOnce(&RefreshRequest) -> Result<Arc<Published>, RefreshError>,
) -> (Wish, Answer) {
    let mut server = served().await;
    let mut client = server.connect().await;
    client.send(&with_body("/v1/tokens/ticket/refresh", KEY, body)).await;
    let request = server.queues[1].next().await;
    let (wish, outcome) = (request.wish, outcome(&request));
    request.reply.send(outcome).unwrap();
    (wish, client.answer().await)
}

#[tokio::test]
async fn a_refresh_is_asked_for_and_its_outcome_told() {
    let newer = Wish::Any { newer_than: Some(Generation(1)), force: false };
    let (wish, answer) = refreshed("", |_| Ok(generation("NEXT", 2))).await;
    assert_eq!((wish, answer.status), (newer, 200));
    assert_eq!(
        answer.body,
        r#"{"name":"ticket","value":"NEXT","expires_in":7200,"expires_at":1700007200,"generation":2,"refreshed":true}"#
    );
    let body = format!(r#"{{"stale": "{VALUE}", "force": true}}"#);
    let (wish, answer) = refreshed(&body, |_| Ok(generation(VALUE, 1))).await;
    assert_eq!(wish, Wish::Other { refused: Refused::parse(VALUE), force: true });
    assert_eq!(answer.json()["refreshed"], false);
    let wait = Duration::from_millis(11_001);
    for (error, status, code, retry_after) in [
        (RefreshError::TooSoon { wait }, 429, "cooldown", Some("12")),
        (RefreshError::ForcedTooOften { wait }, 429, "forced_too_often", Some("12")),
        (RefreshError::Failed { what: "no".into(), more: None, wait: None }, 502, "upstream", None),
        (RefreshError::Unchanged, 409, "unchanged", Some("5")),
        (RefreshError::TooMany, 503, "busy", Some("5")),
        (RefreshError::Draining, 503, "shutting_down", Some("5")),
        (
            RefreshError::Failed { what: "no".into(), more: None, wait: Some(wait) },
            502,
            "upstream",
            Some("12"),
        ),
    ] {
        let (_, answer) = refreshed(r#"{"stale": ""}"#, |_| Err(error.clone())).await;
        assert_eq!((answer.status, answer.error().as_str()), (status, code), "{error:?}");
        assert_eq!(answer.header("retry-after"), retry_after, "{error:?}");
        let told = &answer.json()["error"];
        let seconds = retry_after.map(|seconds| seconds.parse().unwrap());
        assert_eq!(told["retry_after"].as_u64(), seconds);
        assert_eq!(told["message_zh"].as_str(), error.in_chinese().as_deref());
        assert_eq!(told["remedy"]["zh"].as_str(), error.remedy().as_ref().map(|one| &*one.zh));
    }
}

#[tokio::test]
async fn a_refresh_that_nobody_may_ask_for_reaches_nobody() {
    let server = served().await;
    let (ticket, access) = ("/v1/tokens/ticket/refresh", "/v1/tokens/access_token/refresh");
    let stale = |bytes| format!(r#"{{"stale": "{}"}}"#, "x".repeat(bytes));
    let too_large = stale(MAX_BODY_BYTES - stale(0).len() + 1);
    for (target, key, body, status, code) in [
        (ticket, SHOP, r#"{"force": true}"#, 403, "may_not_force"),
        (access, SHOP, "", 404, "not_found"),
        ("/v1/tokens/nobody/refresh", KEY, "", 404, "not_found"),
        (ticket, KEY, "{", 400, "bad_request"),
        (ticket, KEY, "[]", 400, "bad_request"),
        (ticket, KEY, r#"{"force": 1}"#, 400, "bad_request"),
        (ticket, KEY, r#"{"stael": "x"}"#, 400, "bad_request"),
        (ticket, KEY, too_large.as_str(), 413, "too_large"),
    ] {
        let answer = server.ask(&with_body(target, key, body)).await;
        assert_eq!((answer.status, answer.error().as_str()), (status, code), "{body}");
    }
    let told = server.ask(&with_body(ticket, KEY, &too_large)).await.json();
    let words = format!("he body is larger than {} KiB", MAX_BODY_BYTES / 1024);
    assert_eq!(told["error"]["message"], format!("t{words}"));
    assert!(OPENAPI.contains(&format!("T{words}")));
    let form = "content-type: text/plain\r\ncontent-length: 2\r\n";
    let answer = server.ask(&format!("{}{{}}", request("POST", ticket, Some(KEY), form))).await;
    assert_eq!((answer.status, answer.error().as_str()), (415, "not_json"));
}

#[tokio::test]
async fn each_client_is_told_of_its_own_sources_and_never_a_value() {
    let server = served().await;
    server.publishers[1].note_failure(trouble());
    server.publishers[0].note_success(still().wall);
    for _ in 0..3 {
        server.with("/v1/tokens/ticket", SHOP, "").await;
    }
    let all = server.v1("/v1/status").await.json();
    let names: Vec<&str> = all["sources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), NAMES.len());
    assert_eq!(
        all["states"],
        serde_json::json!({"live": 1, "failing": 1, "expired": 1, "absent": 1})
    );
    let own = server.with("/v1/status", SHOP, "").await.json();
    assert_eq!(own["sources"].as_array().unwrap().len(), 1);
    let ticket = &own["sources"][0];
    assert_eq!(
        (ticket["name"].as_str(), ticket["state"].as_str()),
        (Some("ticket"), Some("failing"))
    );
    assert_eq!(ticket["last_error"]["remedy"]["zh"], "添加");
    assert_eq!(ticket["history"][0]["code"], 40_164);
    assert!(ticket.get("readers").is_none(), "who else reads is not for everybody");
    let one = server.v1("/v1/status?source=ticket").await.json();
    let reader = &one["sources"][0]["readers"][0];
    assert_eq!((reader["client"].as_str(), reader["reads"].as_u64()), (Some("shop"), Some(3)));
    for (source, key) in [("nobody", KEY), ("access_token", SHOP)] {
        let answer = server.with(&format!("/v1/status?source={source}"), key, "").await;
        assert_eq!(answer.status, 404);
    }
    let tokens = server.with("/v1/tokens", SHOP, "").await;
    assert_eq!(
        tokens.body,
        r#"{"tokens":[{"name":"ticket","state":"failing","expires_in":7200,"expires_at":1700007200,"generation":1}]}"#
    );
    for target in
        ["/v1/status", "/v1/tokens", "/metrics", "/readyz", "/healthz", "/v1/openapi.json"]
    {
        let body = server.v1(target).await.body;
        for secret in [VALUE, "AT\"", KEY, SHOP, "https://h"] {
            assert!(!body.contains(secret), "{target} tells {secret}");
        }
    }
}

#[tokio::test]
async fn ready_means_that_every_token_is_there_and_names_are_for_clients() {
    let server = served().await;
    let nameless = server.get("/readyz").await;
    assert_eq!((nameless.status, nameless.body.as_str()), (503, r#"{"ready":false}"#));
    let named = server.v1("/readyz").await;
    assert_eq!(named.body, r#"{"ready":false,"not_ready":["公众号","ended"]}"#);
    assert_eq!(server.with("/readyz", SHOP, "").await.body, r#"{"ready":false,"not_ready":[]}"#);
    assert_eq!(server.with("/readyz", "wrong", "").await.status, 401);
    for publisher in &server.publishers {
        publisher.publish(generation("T", 9));
    }
    let ready = server.get("/readyz").await;
    assert_eq!((ready.status, ready.body.as_str()), (200, r#"{"ready":true}"#));
    assert_eq!(server.get("/healthz").await.body, r#"{"alive":true}"#);
}
