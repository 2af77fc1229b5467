//! Sources of any kind, as they are configured, from their request on the wire to the token.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use wechat_token_server::clock::SystemClock;
use wechat_token_server::config::{self, Environment, TokenSource};
use wechat_token_server::outbound::Outbound;
use wechat_token_server::sandbox::{Account, Endpoint, Settings};
use wechat_token_server::source::{
    FailureClass, FetchError, FetchRequest, Fetched, HttpUpstream, Upstream,
};
use wechat_token_server::token::Secret;

use crate::support::{SECRET, served, server, soon, upstream};

fn fetcher() -> HttpUpstream {
    let config = config::OutboundConfig { ca_file: None, proxy: None };
    HttpUpstream::new(Outbound::new(&config).unwrap(), SystemClock::shared())
}

/// The sources of a text, the last of which is the one that is tested.
fn source(text: &str) -> TokenSource {
    let text = format!("(token_sources: {{{text}}})");
    let config = config::parse(&text, Path::new("c.ron"), &Environment::default()).unwrap();
    config.sources.into_iter().next_back().unwrap()
}

/// An upstream that gives these answers, one a connection, and in the end what it was asked.
async fn saying<const N: usize>(
    answers: [&'static str; N],
) -> (SocketAddr, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = tokio::spawn(async move {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = String::new();
            while !is_whole(&request) {
                let mut part = [0; 4096];
                let length = stream.read(&mut part).await.unwrap();
                assert!(length > 0, "half a request: {request}");
                request.push_str(std::str::from_utf8(&part[..length]).unwrap());
            }
            requests.push(request);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        requests
    });
    (address, asked)
}

fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

async fn fetch(
    fetcher: &HttpUpstream,
    source: &TokenSource,
    with: FetchRequest,
) -> Result<Fetched, FetchError> {
    soon("an answer", fetcher.fetch(source, &with)).await
}

const GOOD: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n{\"access_token\":\"T\",\"expires_in\":60}";
const BUSY: &str =
    "HTTP/1.1 503 x\r\nconnection: close\r\ncontent-length: 0\r\nRetry-After: 120\r\n\r\n";

#[tokio::test]
async fn a_request_goes_out_as_it_is_configured() {
    let (address, asked) = saying([GOOD]).await;
    let source = source(&format!(
        r#"
        "a": (url: "http://h"),
        "t": (
            url: "http://{address}/v1/{{{{a}}}}/token?x={{{{a}}}}",
            args: {{"y": "a b&c", "n": 1}},
            json: {{"n": 1, "quoted": "\"{{{{a}}}}\""}},
            headers: {{"X-Token": "Bearer {{{{a}}}}"}},
            basic: (user: "Aladdin", password: "open sesame"),
        ),"#
    ));
    let mut with = FetchRequest::default();
    with.dependencies.insert(source.dependencies[0].clone(), Secret::new("p/q\"r"));
    let fetched = fetch(&fetcher(), &source, with).await.unwrap();
    assert_eq!(fetched.expires_in, Duration::from_secs(60));
    // The upstream's own clock: 1994.
    assert!(
        fetched.upstream_time.unwrap() < std::time::UNIX_EPOCH + Duration::from_secs(800_000_000)
    );
    let request = asked.await.unwrap().remove(0);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("POST /v1/p%2Fq%22r/token?x=p%2Fq%22r&y=a+b%26c&n=1 HTTP/1.1\r\n"),
        "{head}"
    );
    for line in [
        "content-type: application/json; charset=utf-8",
        "x-token: Bearer p/q\"r",
        // RFC 7617's example.
        "authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
    ] {
        assert!(head.lines().any(|known| known == line), "{line} is not in\n{head}");
    }
    assert_eq!(body, r#"{"n":1,"quoted":"\"p/q\"r\""}"#);
}

#[tokio::test]
async fn a_busy_upstream_says_when_to_come_back() {
    let (address, asked) = saying([BUSY]).await;
    let source = source(&format!(r#""t": (url: "http://{address}")"#));
    let error = fetch(&fetcher(), &source, FetchRequest::default()).await.unwrap_err();
    assert_eq!(error.class(), FailureClass::Transient);
    assert_eq!(error.wait(), Some(Duration::from_secs(120)));
    asked.await.unwrap();
}

#[tokio::test]
async fn a_host_that_fails_is_left_out_from_the_next_attempt_on_and_never_within_one() {
    // Nobody listens at the first host; the second is busy; the third answers.
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (busy, busy_asked) = saying([BUSY]).await;
    let (good, good_asked) = saying([GOOD, GOOD]).await;
    let source = source(&format!(
        r#""t": (url: "http://{dead}/cgi-bin/token", hosts: ["{busy}", "{good}"])"#
    ));
    let fetcher = fetcher();
    let error = fetch(&fetcher, &source, FetchRequest::default()).await.unwrap_err();
    assert!(matches!(error, FetchError::NotConnected(_)), "{error:?}");
    let error = fetch(&fetcher, &source, FetchRequest::default()).await.unwrap_err();
    assert_eq!(error.wait(), Some(Duration::from_secs(120)), "{error:?}");
    // Were another host asked within one attempt, one of the answers for these were gone.
    for _ in 0..2 {
        let fetched = fetch(&fetcher, &source, FetchRequest::default()).await.unwrap();
        assert_eq!(fetched.value, Secret::new("T"));
    }
    assert_eq!(busy_asked.await.unwrap().len(), 1);
    let asked = good_asked.await.unwrap();
    assert!(
        asked.iter().all(|request| request.contains(&format!("host: {good}\r\n"))),
        "{asked:?}"
    );
}

#[tokio::test]
async fn what_an_answer_gave_is_kept_until_another_gives_a_new_one() {
    let next = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"access_token\":\"T\",\"expires_in\":60,\"r\":\"second\"}";
    let (address, asked) = saying([next, GOOD, GOOD]).await;
    let source = source(&format!(
        r#""t": (url: "http://{address}", args: {{"r": "{{{{captured}}}}"}}, capture: "r", captured: "first")"#
    ));
    let fetcher = fetcher();
    let mut captured = None;
    for expected in ["second", "second"] {
        let with = FetchRequest { captured: captured.clone(), ..FetchRequest::default() };
        captured = fetch(&fetcher, &source, with).await.unwrap().captured;
        assert_eq!(captured, Some(Secret::new(expected)));
    }
    // As long as no answer has given any, the first value stands.
    let untold = fetch(&fetcher, &source, FetchRequest::default()).await.unwrap();
    assert_eq!(untold.captured, Some(Secret::new("first")));
    let asked = asked.await.unwrap();
    for (request, sent) in asked.iter().zip(["first", "second", "first"]) {
        assert!(request.starts_with(&format!("GET /?r={sent} ")), "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stable_token_works_by_configuration() {
    let wechat = upstream(Settings::default()).await;
    let (appid, secret) = (Account::SANDBOX_APPID, Account::SANDBOX_SECRET);
    let source = source(&format!(
        r#""t": (
            url: "http://{}/cgi-bin/stable_token",
            json: {{"grant_type": "client_credential", "appid": "{appid}", "secret": "{secret}"}},
        )"#,
        wechat.address()
    ));
    let fetcher = fetcher();
    let ask = |force| fetch(&fetcher, &source, FetchRequest { force, ..FetchRequest::default() });
    let first = ask(false).await.unwrap();
    assert_eq!(ask(false).await.unwrap().value, first.value);
    assert!(first.upstream_time.is_some());
    assert_ne!(ask(true).await.unwrap().value, first.value);
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_shares_another_servers_token_and_never_makes_it_fetch() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let hub = server(wechat.address(), dir.path(), "").await;
    let token = served(hub.http, "access_token", None).await;
    let follower = |name: &str, secret: &str| {
        let hub = hub.http;
        source(&format!(
            r#""t": (url: "http://{hub}/wechat/token", args: {{"type": "{name}", "secret": "{secret}"}})"#
        ))
    };
    let fetcher = fetcher();
    let good = follower("access_token", SECRET);
    for force in [false, true] {
        let with = FetchRequest { force, ..FetchRequest::default() };
        let fetched = fetch(&fetcher, &good, with).await.unwrap();
        assert_eq!(fetched.value, Secret::new(token.clone()));
        let promised = fetched.expires_in.as_secs();
        assert!((6_800..=7_050).contains(&promised), "{promised}");
    }
    for (source, class) in [
        (follower("nothing", SECRET), FailureClass::Transient),
        (follower("access_token", "wrong"), FailureClass::Misconfigured),
    ] {
        let error = fetch(&fetcher, &source, FetchRequest::default()).await.unwrap_err();
        assert_eq!(error.class(), class, "{error}");
    }
    assert_eq!(wechat.calls(Endpoint::Token), 1);
    assert!(hub.stop().await);
    wechat.stop().await;
}
