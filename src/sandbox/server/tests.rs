//! The stand-in over real sockets, with a raw client: what each fault puts on the wire.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::clock::SystemClock;
use crate::sandbox::account::Account;
use crate::sandbox::body::HUGE_BYTES;

async fn start() -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Upstream::start(listener, Model::default(), SystemClock::shared()).unwrap()
}

/// Where the default account fetches.
fn token_target() -> String {
    format!(
        "/cgi-bin/token?grant_type=client_credential&appid={}&secret={}",
        Account::SANDBOX_APPID,
        Account::SANDBOX_SECRET
    )
}

/// What came back before the connection ended, and how it ended.
struct Reply {
    bytes: Vec<u8>,
    end: io::Result<()>,
}

impl Reply {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn head(&self) -> String {
        self.text().split("\r\n\r\n").next().unwrap().to_ascii_lowercase()
    }

    fn body(&self) -> String {
        self.text().split_once("\r\n\r\n").map(|parts| parts.1.to_owned()).unwrap_or_default()
    }

    fn json(&self) -> serde_json::Value {
        assert!(self.head().contains("\r\ncontent-length: "), "{}", self.head());
        serde_json::from_str(&self.body()).unwrap()
    }

    fn access_token(&self) -> String {
        self.json()["access_token"].as_str().unwrap().to_owned()
    }
}

async fn connect(upstream: &Upstream, method: &str, target: &str) -> TcpStream {
    let mut stream = TcpStream::connect(upstream.address()).await.unwrap();
    let request =
        format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn request(upstream: &Upstream, method: &str, target: &str) -> Reply {
    let mut stream = connect(upstream, method, target).await;
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).await.map(drop);
    Reply { bytes, end }
}

async fn get(upstream: &Upstream, target: &str) -> Reply {
    request(upstream, "GET", target).await
}

/// Fetches a token while the fault holds for one call.
async fn fetch_with(upstream: &Upstream, fault: &str) -> Reply {
    upstream.inject(fault.parse::<Fault>().unwrap().times(1));
    get(upstream, &token_target()).await
}

#[tokio::test]
async fn a_token_is_fetched_used_and_killed_in_secret() {
    let upstream = start().await;
    let reply = get(&upstream, &token_target()).await;
    assert!(reply.head().starts_with("http/1.1 200 ok"));
    assert!(reply.head().contains("content-type: application/json; encoding=utf-8"));
    assert_eq!(reply.json()["expires_in"], 7200);
    let token = reply.access_token();
    let check = format!("/cgi-bin/getcallbackip?access_token={token}");
    assert!(get(&upstream, &check).await.json()["ip_list"].is_array());
    upstream.set(|settings| settings.overlap = Some(Duration::ZERO));
    assert!(upstream.rotate(Account::SANDBOX_APPID));
    assert_eq!(upstream.accepts(&token), Verdict::Replaced);
    let refused = get(&upstream, &check).await.json();
    assert_eq!(refused["errcode"], 40001);
    let (words, rid) = refused["errmsg"].as_str().unwrap().split_once(" rid: ").unwrap();
    assert_eq!(words, "invalid credential, access_token is invalid or not latest");
    assert!(rid.len() == 26 && rid.split('-').all(|part| part.len() == 8), "{rid}");
}

#[tokio::test]
async fn calls_are_logged_and_counted_and_can_be_waited_for() {
    let upstream = start().await;
    let waiting = tokio::spawn({
        let upstream = upstream.clone();
        async move {
            upstream.wait_for_calls(Endpoint::Token, 2).await;
            upstream.log()
        }
    });
    get(&upstream, &token_target()).await;
    get(&upstream, "/elsewhere").await;
    upstream.inject(Fault::new(FaultKind::Status(502)).times(1));
    get(&upstream, &token_target()).await;
    let log = waiting.await.unwrap();
    let seen: Vec<_> =
        log.iter().map(|c| (c.endpoint, c.appid.as_deref(), c.errcode, c.fault)).collect();
    assert_eq!(
        seen,
        [
            (Endpoint::Token, Some(Account::SANDBOX_APPID), Some(0), None),
            (Endpoint::Unknown, None, Some(40066), None),
            (Endpoint::Token, Some(Account::SANDBOX_APPID), None, Some("status")),
        ]
    );
    assert_eq!((upstream.calls(Endpoint::Token), upstream.calls(Endpoint::Ticket)), (2, 0));
}

#[tokio::test]
async fn faults_that_replace_the_answer_leave_the_token_alone() {
    let upstream = start().await;
    let token = get(&upstream, &token_target()).await.access_token();
    upstream.set(|settings| settings.overlap = Some(Duration::ZERO));

    let reply = fetch_with(&upstream, "kind=errcode&code=40164").await;
    assert!(reply.head().starts_with("http/1.1 200"));
    let errmsg = reply.json()["errmsg"].to_string();
    assert!(errmsg.starts_with("\"invalid ip 127.0.0.1 ipv6 ::ffff:127.0.0.1, not in whitelist"));

    let reply = fetch_with(&upstream, "kind=status&code=503").await;
    assert!(reply.head().starts_with("http/1.1 503 service unavailable"));
    assert!(reply.body().starts_with("<html>"));

    let reply = fetch_with(&upstream, "kind=garbage").await;
    assert!(reply.head().starts_with("http/1.1 200"));
    assert!(serde_json::from_str::<serde_json::Value>(&reply.body()).is_err());

    let reply = fetch_with(&upstream, "kind=redirect&to=http://127.0.0.1:1/x").await;
    assert!(reply.head().starts_with("http/1.1 302"));
    assert!(reply.head().contains("location: http://127.0.0.1:1/x"));

    let reply = fetch_with(&upstream, "kind=reset").await;
    assert_eq!(reply.end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(reply.bytes.is_empty());

    assert!(upstream.accepts(&token).is_live(), "none of them rotated it");
    let reply = fetch_with(&upstream, "kind=reset&applied=true").await;
    assert!(reply.end.is_err());
    assert_eq!(upstream.accepts(&token), Verdict::Replaced, "the answer is lost, the token gone");
    assert_eq!(upstream.faults(), []);
}

#[tokio::test]
async fn faults_that_spoil_the_answer_have_its_effect() {
    let upstream = start().await;
    let token = get(&upstream, &token_target()).await.access_token();
    upstream.set(|settings| settings.overlap = Some(Duration::ZERO));

    let reply = fetch_with(&upstream, "kind=truncated").await;
    assert_eq!(upstream.accepts(&token), Verdict::Replaced);
    let head = reply.head();
    let (_, length) = head.split_once("content-length: ").unwrap();
    let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
    assert_eq!(reply.body().len(), length / 2);
    assert!(reply.body().starts_with("{\"access_token\":\""));

    let json = fetch_with(&upstream, "kind=missing").await.json();
    assert!(json.get("access_token").is_none() && json["expires_in"] == 7200);
    let json = fetch_with(&upstream, "kind=missing&field=expires_in").await.json();
    assert!(json.get("expires_in").is_none() && json["access_token"].is_string());
    for (field, key, with) in [
        ("value", "access_token", "7"),
        ("value", "access_token", "\"\""),
        ("value", "access_token", "null"),
        ("expires_in", "expires_in", "\"7200\""),
        ("expires_in", "expires_in", "-1"),
        ("expires_in", "expires_in", "[]"),
    ] {
        let reply = fetch_with(&upstream, &format!("kind=replace&field={field}&with={with}")).await;
        assert_eq!(reply.json()[key].to_string(), with);
    }

    let drip = fetch_with(&upstream, "kind=drip&delay=0s").await;
    assert!(upstream.accepts(&drip.access_token()).is_live());
}

#[tokio::test]
async fn a_huge_answer_is_as_long_as_it_is_said_to_be() {
    let upstream = start().await;
    let reply = fetch_with(&upstream, "kind=huge").await;
    assert!(reply.head().contains("transfer-encoding: chunked"));
    assert!(reply.end.is_ok());
    // The sizes of the chunks come on top.
    let body = reply.bytes.len() - reply.head().len() - 4;
    assert!((HUGE_BYTES..HUGE_BYTES + HUGE_BYTES / 1_000).contains(&body), "{body}");
}

#[tokio::test]
async fn a_hanging_call_hangs_until_the_stop() {
    let upstream = start().await;
    upstream.inject(Fault::new(FaultKind::Hang).on(Endpoint::Token));
    let mut hanging = connect(&upstream, "GET", &token_target()).await;
    upstream.wait_for_calls(Endpoint::Token, 1).await;
    // Others are served meanwhile.
    assert_eq!(get(&upstream, "/elsewhere").await.json()["errcode"], 40066);
    let mut bytes = Vec::new();
    tokio::join!(upstream.stop(), async {
        hanging.read_to_end(&mut bytes).await.unwrap();
    });
    assert!(bytes.is_empty());
    let refused = TcpStream::connect(upstream.address()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "measures how long an answer really takes")]
async fn latency_delays_the_answer_but_not_the_effect() {
    let upstream = start().await;
    upstream.set(|settings| settings.latency = Duration::from_millis(40));
    let started = Instant::now();
    let mut stream = connect(&upstream, "GET", &token_target()).await;
    upstream.wait_for_calls(Endpoint::Token, 1).await;
    let used = upstream
        .with_model(|model, now| model.used_today(Account::SANDBOX_APPID, Endpoint::Token, now));
    assert_eq!(used, Some(1));
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(40));

    upstream.set(|settings| settings.latency = Duration::ZERO);
    let started = Instant::now();
    let reply = fetch_with(&upstream, "kind=latency&delay=40ms").await;
    assert!(started.elapsed() >= Duration::from_millis(40));
    assert_eq!(reply.json()["expires_in"], 7200);
}

#[tokio::test]
async fn the_date_of_an_answer_can_be_ahead() {
    let upstream = start().await;
    for ahead in [0, 600] {
        upstream.set(|settings| settings.date_ahead = Duration::from_secs(ahead));
        let now = SystemClock::shared().now().wall;
        let answer = fetch_with(&upstream, "kind=status&code=502").await.text();
        let date = answer.split("\r\ndate: ").nth(1).unwrap().split("\r\n").next().unwrap();
        let date = httpdate::parse_http_date(date).unwrap();
        // Whole seconds, and the answer took some time.
        let said = date.duration_since(now - Duration::from_secs(1)).unwrap().as_secs();
        assert!((ahead..ahead + 60).contains(&said), "{said}");
    }
}

#[tokio::test]
async fn a_connection_is_kept_and_a_body_is_read() {
    let upstream = start().await;
    let mut stream = TcpStream::connect(upstream.address()).await.unwrap();
    let body = format!(
        r#"{{"grant_type":"client_credential","appid":"{}","secret":"{}"}}"#,
        Account::SANDBOX_APPID,
        Account::SANDBOX_SECRET
    );
    let length = body.len();
    let first = format!(
        "POST /cgi-bin/stable_token HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let second = "GET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all((first + second).as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("\"expires_in\":7200") && text.contains("40066"), "{text}");

    let long = "x".repeat(MAX_REQUEST_BYTES + 1);
    let mut stream = TcpStream::connect(upstream.address()).await.unwrap();
    let head = format!(
        "POST /cgi-bin/stable_token HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        long.len()
    );
    stream.write_all((head + &long).as_bytes()).await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
}

#[tokio::test]
async fn the_control_surface_does_what_the_handle_does() {
    let upstream = start().await;
    let appid = Account::SANDBOX_APPID;
    // (method, target under /sandbox/, status, a part of the answer)
    for (method, target, status, part) in [
        ("POST", "settings?lifetime=60s&latency=1ms", 200, "\"lifetime\":\"1m\""),
        ("POST", "settings?lifetime=61s&latency=1", 400, "latency: \\\"1\\\" is no duration"),
        ("POST", "fault?kind=errcode&code=45009&times=2&endpoint=ticket", 200, "code=45009"),
        ("POST", "fault?kind=nothing", 400, "there are kind=errcode"),
        ("GET", "fault?kind=hang", 405, "use POST"),
        ("POST", "rotate", 200, appid),
        ("POST", "rotate?appid=wxnone", 400, "no such account"),
        ("POST", "account?appid=wx2", 400, "with a secret it is added"),
        ("POST", "account?appid=wx2&secret=s2&allow=::1,10.0.0.1", 200, "[\"::1\",\"10.0.0.1\"]"),
        ("POST", "account?appid=wx2&allow=any&refused_with=40243", 200, "\"allow\":null"),
        ("POST", "account?appid=wx2&allow=x", 400, "is no address"),
        ("GET", "accepts?access_token=x", 200, "\"errcode\":40014"),
        ("GET", "accepts?ticket=x", 200, "\"accepted\":false"),
        ("GET", "accepts", 400, "\\\"access_token\\\" is missing"),
        ("GET", "wait?endpoint=token&calls=0", 200, "\"calls\":0"),
        ("GET", "wait?endpoint=token&calls=x", 400, "is no number"),
        ("GET", "state?x=1", 400, "no parameter"),
        ("GET", "log", 200, "{\"calls\":[]}\n"),
        ("GET", "", 200, "POST /sandbox/fault"),
        ("GET", "nothing", 404, "GET /sandbox/state"),
    ] {
        let reply = request(&upstream, method, &format!("/sandbox/{target}")).await;
        let line = format!("http/1.1 {status}");
        assert!(reply.head().starts_with(&line), "{method} {target}: {}", reply.text());
        assert!(reply.body().contains(part), "{method} {target}: {}", reply.text());
    }
    assert_eq!(upstream.faults().len(), 1);
    let code = upstream.with_model(|model, _| model.account_mut("wx2").unwrap().refused_with);
    assert_eq!(code, Some(40243));

    get(&upstream, &token_target()).await;
    let state = get(&upstream, "/sandbox/state").await.json();
    assert_eq!(state["settings"]["lifetime"], "1m", "a mistake changes nothing");
    assert_eq!(state["calls"]["token"], 1);
    assert_eq!(state["accounts"][0]["used_today"]["token"], 2, "the rotation counts");
    assert_eq!(state["recent"][0]["errcode"], 0);
    assert_eq!(state["faults"][0], "kind=errcode&code=45009&endpoint=ticket&times=2");
    request(&upstream, "POST", "/sandbox/clear").await;
    assert_eq!(upstream.faults(), []);
    assert_eq!(upstream.calls(Endpoint::Unknown), 0, "control is not counted");
}

/// Everything that is logged while it lives.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_log_line_holds_a_secret_or_a_clients_text() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let upstream = start().await;
    let token = get(&upstream, &token_target()).await.access_token();
    get(&upstream, &format!("/cgi-bin/ticket/getticket?type=jsapi&access_token={token}")).await;
    get(&upstream, "/cgi-bin/token?grant_type=client_credential&appid=wxcanary&secret=x").await;
    get(&upstream, &format!("/sandbox/accepts?access_token={token}")).await;
    drop(guard);
    let text = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches("endpoint=\"token\"").count(), 2, "{text}");
    for canary in [&token, Account::SANDBOX_SECRET, "wxcanary"] {
        assert!(!text.contains(canary), "{text}");
    }
    assert!(!format!("{:?} {upstream:?}", upstream.log()).contains(&token));
}

#[tokio::test]
async fn calls_under_way_at_once_are_counted() {
    let upstream = start().await;
    get(&upstream, &token_target()).await;
    assert_eq!(upstream.most_under_way(), 1);
    upstream.inject(Fault::new(FaultKind::Hang));
    let mut hanging = Vec::new();
    for calls in 2..=4 {
        hanging.push(connect(&upstream, "GET", &token_target()).await);
        upstream.wait_for_calls(Endpoint::Token, calls).await;
    }
    assert_eq!(upstream.most_under_way(), 3);
    upstream.stop().await;
}
