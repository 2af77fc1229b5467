//! What is answered, byte for byte.

use super::*;
use crate::refresh::{RefreshError, Refused, Wish};

const JSON: &str = "application/json; charset=UTF-8";
const FORM: &str = "application/x-www-form-urlencoded";

/// A server whose refreshers behave: `access_token` brings a new value, `ticket` fails, `公众号` is
/// as it was, `ended` brings one that is over already.
async fn server() -> TestServer {
    let now = still();
    let mut server = TestServer::patient().await;
    let life = Duration::from_millis(7_199_999);
    server.publishers[0].publish(Arc::new(published("A-b_C.1", now, life, 7)));
    server.publishers[2].publish(Arc::new(published("a\"\\/\u{7f}é😀", now, life, 8)));
    server.publishers[3].publish(Arc::new(published("X", now, Duration::ZERO, 9)));
    for (name, mut queue) in NAMES.into_iter().zip(std::mem::take(&mut server.queues)) {
        tokio::spawn(async move {
            loop {
                let request = queue.next().await;
                let failed = RefreshError::Failed {
                    what: "40164: \"1.2.3.4\" 不在".into(),
                    more: None,
                    wait: None,
                };
                let (known, answer) = match name {
                    "access_token" => (Some(7), Ok(("NEW", 6_900, 8))),
                    "公众号" => (Some(8), Ok(("a\"", 300, 8))),
                    "ended" => (None, Ok(("X", 0, 10))),
                    _ => (None, Err(failed)),
                };
                let newer_than = known.map(Generation);
                assert_eq!(request.wish, Wish::Any { newer_than, force: false }, "{name}");
                let answer = answer.map(|(value, life, generation)| {
                    Arc::new(published(value, now, Duration::from_secs(life), generation))
                });
                request.reply.send(answer).unwrap();
            }
        });
    }
    server
}

#[tokio::test]
async fn every_route_answers_byte_for_byte() {
    let server = server().await;
    let token = r#"{"access_token": "A-b_C.1", "expires_in": 7199}"#;
    let fresh = r#"{"access_token": "NEW", "expires_in": 6900}"#;
    let foreign = r#"{"\u516c\u4f17\u53f7": "a\"\\/\u007f\u00e9\ud83d\ude00", "expires_in": 7199}"#;
    let (invalid, not_found) = (r#"{"error": "invalid request"}"#, r#"{"error": "not found"}"#);
    let unknown = r#"{"errmsg": "unknown type"}"#;
    let failed = r#"{"errmsg": "40164: \"1.2.3.4\" \u4e0d\u5728"}"#;
    let over = r#"{"errmsg": "the token ended before it could be answered"}"#;
    for (target, body) in [
        // The reading route.
        ("/wechat/token?type=access_token&secret=k3y", token),
        ("/wechat/token?secret=k3y&type=access_token&x=1", token),
        ("/wechat/token?type=x&secret=bad&type=access_token&secret=k3y", token),
        ("/wechat/token?type=+access_token%20&secret=%09k3y%0a", token),
        ("/wechat/token?t%79pe=%61ccess_token&secret=k3%79", token),
        ("http://other/wechat/token?type=access_token&secret=k3y", token),
        ("/wechat/token?type=%E5%85%AC%E4%BC%97%E5%8F%B7&secret=k3y", foreign),
        ("/wechat/token?type=ticket&secret=k3y", not_found),
        ("/wechat/token?type=ended&secret=k3y", not_found),
        ("/wechat/token?type=other&secret=k3y", not_found),
        ("/wechat/token?type=&secret=k3y", not_found),
        ("/wechat/token?type&secret=k3y", not_found),
        ("/wechat/token?type=%ff&secret=k3y", not_found),
        ("/wechat/token?type=access_token&secret=K3Y", invalid),
        ("/wechat/token?type=access_token&secret=k3y&secret=", invalid),
        ("/wechat/token?type=access_token&secret=%ff", invalid),
        ("/wechat/token?type=access_token", invalid),
        ("/wechat/token?type=other&secret=bad", invalid),
        ("/wechat/token?secret=k3y", invalid),
        ("/wechat/token", invalid),
        ("/wechat/token?", invalid),
        // The forced refresh.
        ("/wechat/token/forcerefresh?type=access_token&secret=k3y", fresh),
        (
            "/wechat/token/forcerefresh?type=%e5%85%ac%e4%bc%97%e5%8f%b7&secret=k3y",
            r#"{"\u516c\u4f17\u53f7": "a\"", "expires_in": 300}"#,
        ),
        ("/wechat/token/forcerefresh?type=ticket&secret=k3y", failed),
        ("/wechat/token/forcerefresh?type=ended&secret=k3y", over),
        ("/wechat/token/forcerefresh?type=other&secret=k3y", unknown),
        ("/wechat/token/forcerefresh?type=&secret=k3y", unknown),
        ("/wechat/token/forcerefresh?type=%ff&secret=k3y", unknown),
        ("/wechat/token/forcerefresh?type=access_token&secret=bad", "{}"),
        ("/wechat/token/forcerefresh?type=other&secret=bad", "{}"),
        ("/wechat/token/forcerefresh?type=access_token", "{}"),
        ("/wechat/token/forcerefresh?secret=k3y", "{}"),
        ("/wechat/token/forcerefresh", "{}"),
    ] {
        let answer = server.get(target).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, body), "{target}");
        assert_eq!(answer.header("content-type"), Some(JSON), "{target}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{target}");
    }
}

#[tokio::test]
async fn a_form_may_hold_the_parameters_of_a_forced_refresh() {
    let server = server().await;
    let fresh = r#"{"access_token": "NEW", "expires_in": 6900}"#;
    let path = "/wechat/token/forcerefresh";
    let both = "type=access_token&secret=k3y";
    let with_both = &format!("{path}?{both}");
    for (target, content_type, body, expected) in [
        (path, FORM, both, fresh),
        (path, "Application/X-WWW-Form-Urlencoded; charset=UTF-8", both, fresh),
        ("/wechat/token/forcerefresh?type=access_token", FORM, "secret=k3y", fresh),
        ("/wechat/token/forcerefresh?type=ticket&secret=x", FORM, both, fresh),
        (with_both, FORM, "", fresh),
        (with_both, "application/json", r#"{"type": "ticket"}"#, fresh),
        (with_both, FORM, "secret=bad", "{}"),
        (path, "text/plain", both, "{}"),
        (path, "\u{e9}", both, "{}"),
    ] {
        let answer = server.ask(&post(target, content_type, body)).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, expected), "{target} {body}");
    }
    let chunked = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {FORM}\r\ntransfer-encoding: chunked\r\n\
         \r\n5\r\ntype=\r\n17\r\naccess_token&secret=k3y\r\n0\r\n\r\n"
    );
    assert_eq!(server.ask(&chunked).await.body, fresh);
}

#[tokio::test]
async fn the_banner_is_the_originals() {
    let server = server().await;
    let answer = server.get("/").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, "Welcome to use wechat access token server!");
    assert_eq!(answer.header("content-type"), Some("text/html; charset=UTF-8"));
    assert_eq!(server.get("/?type=access_token").await.status, 200);
}

#[tokio::test]
async fn paths_and_methods_that_are_not_served_are_named_in_json() {
    let server = server().await;
    for target in ["/wechat", "/wechat/token/", "/wechat//token", "/WECHAT/token", "/favicon.ico"] {
        let answer = server.get(target).await;
        assert_eq!((answer.status, answer.body.as_str()), (404, r#"{"error": "not found"}"#));
        assert_eq!(answer.header("content-type"), Some(JSON));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    for (method, target, allowed) in [
        ("POST", "/wechat/token?type=access_token&secret=k3y", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD"),
        ("HEAD", "/wechat/token/forcerefresh?type=access_token&secret=k3y", "GET, POST"),
        ("OPTIONS", "/wechat/token/forcerefresh", "GET, POST"),
    ] {
        let answer = server.ask(&format!("{method} {target} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{method}");
        assert_eq!(answer.header("content-type"), Some(JSON));
        let body = if method == "HEAD" { "" } else { r#"{"error": "method not allowed"}"# };
        assert_eq!(answer.body, body);
    }
}

#[tokio::test]
async fn a_head_request_is_answered_like_a_get_without_the_body() {
    let server = server().await;
    for target in ["/", "/wechat/token?type=access_token&secret=k3y"] {
        let got = server.get(target).await;
        let head = server.ask(&get(target).replacen("GET", "HEAD", 1)).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        assert_eq!(head.header("content-length"), Some(&*got.body.len().to_string()));
        assert_eq!(head.header("content-type"), got.header("content-type"));
    }
}

#[tokio::test]
async fn a_pipeline_is_answered_in_order_and_the_connection_stays() {
    let server = server().await;
    let mut client = server.connect().await;
    let token = get("/wechat/token?type=access_token&secret=k3y");
    let (half, other_half) = token.split_at(20);
    // The half at the end must not hold the answers before it back.
    client.send(&format!("{token}{}{half}", get("/"))).await;
    assert_eq!(client.answer().await.body, r#"{"access_token": "A-b_C.1", "expires_in": 7199}"#);
    assert_eq!(client.answer().await.body, "Welcome to use wechat access token server!");
    client.send(other_half).await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn a_forced_refresh_while_the_server_goes_down_says_so() {
    let mut server = TestServer::patient().await;
    server.queues.clear();
    let answer = server.get("/wechat/token/forcerefresh?type=ticket&secret=k3y").await;
    assert_eq!(answer.body, r#"{"errmsg": "the server is shutting down"}"#);
}

#[tokio::test]
async fn a_client_may_say_what_was_refused_and_force_a_new_one() {
    let mut server = TestServer::patient().await;
    let mut queue = std::mem::take(&mut server.queues).swap_remove(0);
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let other = |text: &str, force| Wish::Other { refused: Refused::parse(text), force };
    for (parameters, wish) in [
        ("", Wish::Any { newer_than: None, force: false }),
        ("&stale=", Wish::Any { newer_than: None, force: false }),
        ("&force=1", Wish::Any { newer_than: None, force: true }),
        ("&force=yes", Wish::Any { newer_than: None, force: false }),
        ("&stale=old&stale=A-b_C.1", other("A-b_C.1", false)),
        (&format!("&stale={digest}&force=1"), other("abc", true)),
    ] {
        let target = format!("/wechat/token/forcerefresh?type=access_token&secret=k3y{parameters}");
        let asking = server.get(&target);
        let serving = async {
            let request = queue.next().await;
            match (request.wish, wish) {
                // The digest stands for the value.
                (Wish::Other { force, .. }, Wish::Other { force: wished, .. }) => {
                    assert_eq!(force, wished);
                }
                (got, wished) => assert_eq!(got, wished, "{parameters}"),
            }
            let wait = Duration::from_millis(12_001);
            request.reply.send(Err(RefreshError::TooSoon { wait })).unwrap();
        };
        let (answer, ()) = tokio::join!(asking, serving);
        assert!(answer.body.contains("still refused in 13 seconds"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_target_without_a_path_is_not_found() {
    let server = TestServer::patient().await;
    for request in ["GET a", "GET a:80", "CONNECT a:1", "OPTIONS *"] {
        let answer = server.ask(&format!("{request} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert_eq!(answer.status, 404, "{request}: {answer:?}");
    }
}

#[tokio::test]
async fn expires_in_is_what_is_left_and_not_what_was_given() {
    let server = TestServer::patient().await;
    let now = still();
    let fetched = Now {
        wall: now.wall - Duration::from_secs(1_000),
        mono: now.mono - Duration::from_secs(1_000),
    };
    let two_hours = Duration::from_secs(7_200);
    server.publishers[0].publish(Arc::new(published("V", fetched, two_hours, 1)));
    let answer = server.get("/wechat/token?type=access_token&secret=k3y").await;
    assert_eq!(answer.body, r#"{"access_token": "V", "expires_in": 6200}"#);
}

#[tokio::test]
async fn nothing_but_the_secret_stands_for_the_secret() {
    let server = server().await;
    for (target, body) in [
        ("/wechat/token?type=access_token", r#"{"error": "invalid request"}"#),
        ("/wechat/token?type=access_token&secret=", r#"{"error": "invalid request"}"#),
        ("/wechat/token?type=access_token&secret=k3", r#"{"error": "invalid request"}"#),
        ("/wechat/token/forcerefresh?type=access_token&secret=k3y2", "{}"),
    ] {
        for header in [
            "host: localhost",
            "host: 127.0.0.1\r\nx-forwarded-for: 127.0.0.1\r\nx-real-ip: 127.0.0.1",
            "host: x\r\nauthorization: Basic k3y\r\nreferer: http://localhost/?secret=k3y",
        ] {
            let answer = server.ask(&format!("GET {target} HTTP/1.1\r\n{header}\r\n\r\n")).await;
            assert_eq!(answer.body, body, "{target} {header}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_made_at_once_do_not_mix() {
    let server = Arc::new(TestServer::patient().await);
    for (publisher, value) in server.publishers.iter().zip(["A", "B", "C", "D"]) {
        publisher.publish(Arc::new(published(value, still(), NEVER, 1)));
    }
    let clients = (0..20).map(|client| {
        let server = Arc::clone(&server);
        let (name, value) = [("access_token", "A"), ("ticket", "B"), ("ended", "D")][client % 3];
        tokio::spawn(async move {
            let mut connection = server.connect().await;
            for _ in 0..50 {
                connection.send(&get(&format!("/wechat/token?type={name}&secret=k3y"))).await;
                let body = format!("{{\"{name}\": \"{value}\", \"expires_in\": 3600}}");
                assert_eq!(connection.answer().await.body, body);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}
