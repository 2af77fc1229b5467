//! Clients that are slow, silent, greedy or many.

use super::*;
use crate::refresh::RefreshError;

const TOKEN: &str = "/wechat/token?type=access_token&secret=k3y";
const REFRESH: &str = "/wechat/token/forcerefresh?type=access_token&secret=k3y";
const FORM: &str = "application/x-www-form-urlencoded";

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let server = TestServer::hasty(SOON, NEVER).await;
    assert_eq!(server.connect().await.rest().await, "");
}

#[tokio::test]
async fn half_a_head_is_not_waited_for() {
    let server = TestServer::hasty(SOON, NEVER).await;
    let mut first = server.connect().await;
    first.send("GET / HTTP/1.1\r\nhost:").await;
    assert_eq!(first.rest().await, "");
    // On a connection that has served a request, too.
    let mut second = server.connect().await;
    second.send(&get("/")).await;
    assert_eq!(second.answer().await.status, 200);
    second.send("GET").await;
    assert_eq!(second.rest().await, "");
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_own_timeout() {
    let server = TestServer::hasty(NEVER, SOON).await;
    let mut client = server.connect().await;
    client.send(&get(TOKEN)).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn an_idle_connection_outlives_the_head_timeout() {
    let server = TestServer::hasty(SOON, NEVER).await;
    let mut idle = server.connect().await;
    idle.send(&get(TOKEN)).await;
    assert_eq!(idle.answer().await.status, 200);
    // These two spend the head timeout, one after the other.
    assert_eq!(server.connect().await.rest().await, "");
    assert_eq!(server.connect().await.rest().await, "");
    idle.send(&get(TOKEN)).await;
    assert_eq!(idle.answer().await.status, 200);
}

#[tokio::test]
async fn a_forced_refresh_may_take_longer_than_any_timeout() {
    let mut server = TestServer::hasty(SOON, SOON).await;
    let mut waiting = server.connect().await;
    waiting.send(&get(REFRESH)).await;
    let request = server.queues[0].next().await;
    assert_eq!(server.connect().await.rest().await, "");
    assert_eq!(server.connect().await.rest().await, "");
    let newer = published("NEW", SystemClock::shared().now(), NEVER, 2);
    let newer = Published { ends_mono: NEVER, ..newer };
    request.reply.send(Ok(Arc::new(newer))).unwrap();
    assert!(waiting.answer().await.body.starts_with(r#"{"access_token": "NEW", "#));
}

#[tokio::test]
async fn half_a_body_is_not_waited_for() {
    let server = TestServer::hasty(NEVER, SOON).await;
    let mut client = server.connect().await;
    let request = post(REFRESH, FORM, "secret=k3y");
    client.send(&request[..request.len() - 3]).await;
    let answer = Answer::parse(&client.rest().await);
    assert_eq!((answer.status, answer.body.as_str()), (408, r#"{"error": "body too slow"}"#));
    assert_eq!(answer.header("connection"), Some("close"));
    // In the shape of its interface.
    let mut newer = server.connect().await;
    let v1 = "POST /v1/tokens/access_token/refresh HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    newer.send(&format!("{v1}content-length: 9\r\n\r\n{{")).await;
    let answer = Answer::parse(&newer.rest().await);
    let expected =
        r#"{"error":{"code":"too_slow","message":"the body took too long","retry_after":1}}"#;
    assert_eq!((answer.status, answer.body.as_str()), (408, expected));
    // On a connection that has served a request, too; and one that comes in chunks.
    let mut second = server.connect().await;
    second.send(&get("/")).await;
    assert_eq!(second.answer().await.status, 200);
    second.send(&request[..request.len() - 3]).await;
    assert_eq!(Answer::parse(&second.rest().await).status, 408);
    let mut third = server.connect().await;
    let head = format!("POST {REFRESH} HTTP/1.1\r\nhost: x\r\ncontent-type: {FORM}\r\n");
    third.send(&format!("{head}transfer-encoding: chunked\r\n\r\n9\r\nsec")).await;
    assert_eq!(Answer::parse(&third.rest().await).status, 408);
}

#[tokio::test]
async fn a_body_may_come_in_pieces() {
    let mut server = TestServer::hasty(NEVER, NEVER).await;
    let request = post(REFRESH, FORM, "secret=k3y&type=access_token");
    for cut in [10, request.len() - 20, request.len() - 1] {
        let mut client = server.connect().await;
        client.send(&request[..cut]).await;
        // Another one is served meanwhile, so that there was time to read the piece.
        assert_eq!(server.get("/").await.status, 200);
        client.send(&request[cut..]).await;
        let wish = server.queues[0].next().await;
        wish.reply.send(Err(RefreshError::TooMany)).unwrap();
        let answer = client.answer().await;
        assert!(answer.body.starts_with(r#"{"errmsg": "too many"#), "{answer:?}");
    }
}

#[tokio::test]
async fn a_client_that_takes_no_answers_is_closed() {
    let server = TestServer::hasty(NEVER, SOON).await;
    let value = "v".repeat(256 * 1024);
    let now = SystemClock::shared().now();
    let big = Published { ends_mono: NEVER, ..published(&value, now, NEVER, 2) };
    server.publishers[0].publish(Arc::new(big));
    let mut client = server.connect().await;
    let asking = async {
        let request = get(TOKEN);
        while client.0.write_all(request.as_bytes()).await.is_ok() {}
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("the server closes");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_and_the_answer_arrives() {
    let server = TestServer::hasty(NEVER, NEVER).await;
    for length in [super::super::form::MAX_BODY_BYTES + 1, 300_000] {
        let body = "x".repeat(length);
        let mut client = server.connect().await;
        client.send(&post(REFRESH, FORM, &body)).await;
        let answer = Answer::parse(&client.rest().await);
        assert_eq!((answer.status, answer.body.as_str()), (413, r#"{"error": "body too large"}"#));
    }
    // Nor does a body where none is expected cost more than its connection.
    let mut client = server.connect().await;
    client.send(&post("/nowhere", FORM, &"x".repeat(200_000))).await;
    assert_eq!(Answer::parse(&client.rest().await).status, 404);
}

#[tokio::test]
async fn a_broken_body_is_refused() {
    let server = TestServer::hasty(NEVER, NEVER).await;
    let request = format!(
        "POST {REFRESH} HTTP/1.1\r\nhost: x\r\ncontent-type: {FORM}\r\n\
         transfer-encoding: chunked\r\n\r\nnonsense\r\n"
    );
    let answer = server.ask(&request).await;
    assert_eq!((answer.status, answer.body.as_str()), (400, r#"{"error": "body unreadable"}"#));
}

#[tokio::test]
async fn a_head_beyond_the_limits_is_refused() {
    let server = TestServer::hasty(NEVER, NEVER).await;
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(17_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
    let endless = format!("GET / HTTP/1.1\r\na: {}", "x".repeat(200_000));
    for (request, status) in [(long, 431), (many, 431), (endless, 431), ("\0\r\n\r\n".into(), 400)]
    {
        let mut client = server.connect().await;
        client.send(&request).await;
        assert_eq!(Answer::parse(&client.rest().await).status, status, "{:.20}", request);
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_to_come_back() {
    let clock = Arc::new(Still(still()));
    let server = TestServer::start(config(1, NEVER, NEVER), clock).await;
    let mut first = server.connect().await;
    first.send(&get("/")).await;
    assert_eq!(first.answer().await.status, 200);
    for _ in 0..100 {
        let answer = server.get("/").await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.body, r#"{"error": "too many connections"}"#);
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    first.send(&get("/")).await;
    assert_eq!(first.answer().await.status, 200);
    drop(first);
    // The place is free once the server has seen the close.
    let served = async { while server.get("/").await.status != 200 {} };
    tokio::time::timeout(PATIENCE, served).await.expect("the place is given to the next");
}
