//! Both listeners over TLS: what is served, to whom, for how long, and how certificates are replaced
//! under them.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustls::HandshakeKind;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use wechat_token_server::app::{self, Server};
use wechat_token_server::clock::SystemClock;
use wechat_token_server::config::{self, Environment};
use wechat_token_server::sandbox::{Settings, Upstream};

use crate::support::certificates::{Authority, Client, Made, self_signed};
use crate::support::{
    Running, SECRET, binary, config_text, resp, run, run_text, soon, upstream, value,
};

/// The text of a config whose listeners have these further settings.
pub(crate) fn text(upstream: SocketAddr, dir: &Path, http: &str, resp: &str) -> String {
    let text = config_text(upstream, dir, r#"log: (format: "json"),"#);
    let bind = r#"bind: "127.0.0.1:0""#;
    text.replacen(&format!("http: ({bind})"), &format!("http: ({bind}, {http})"), 1).replacen(
        &format!("resp: ({bind})"),
        &format!("resp: ({bind}, {resp})"),
        1,
    )
}

/// A server with TLS on both listeners, in this process.
struct World {
    wechat: Upstream,
    dir: tempfile::TempDir,
    authority: Authority,
    server: Server,
}

impl World {
    async fn new() -> World {
        World::with("", "").await
    }

    /// With further settings of the listeners.
    async fn with(http: &str, resp: &str) -> World {
        let wechat = upstream(Settings::default()).await;
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let tls = authority.server().setting(dir.path());
        let [http, resp] = [http, resp].map(|further| format!("{tls}, {further}"));
        let text = text(wechat.address(), dir.path(), &http, &resp);
        World::start(wechat, dir, authority, &text).await
    }

    /// Where clients have to show a certificate of the authority too.
    async fn with_client_certificates() -> World {
        let wechat = upstream(Settings::default()).await;
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let file = dir.path().join("clients.pem");
        std::fs::write(&file, authority.pem()).unwrap();
        let tls = authority.server().setting(dir.path());
        let tls = tls.replace(')', &format!(", client_ca: {file:?})"));
        let text = text(wechat.address(), dir.path(), &tls, &tls);
        World::start(wechat, dir, authority, &text).await
    }

    async fn start(
        wechat: Upstream,
        dir: tempfile::TempDir,
        authority: Authority,
        text: &str,
    ) -> World {
        let config = config::parse(text, Path::new("test.ron"), &Environment::default()).unwrap();
        let server = app::start(config, SystemClock::shared()).await.unwrap();
        World { wechat, dir, authority, server }
    }

    fn client(&self) -> Client {
        Client::new(&self.authority, None)
    }

    fn resp(&self) -> SocketAddr {
        self.server.resp.unwrap()
    }

    async fn stop(self) {
        assert!(soon("the end", self.server.stop()).await);
        soon("the end", self.wechat.stop()).await;
        drop(self.dir);
    }
}

/// A server with TLS as a program, which logs.
struct Program {
    wechat: Upstream,
    dir: tempfile::TempDir,
    authority: Authority,
    running: Running,
}

impl Program {
    async fn new() -> Program {
        let wechat = upstream(Settings::default()).await;
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let tls = authority.server().setting(dir.path());
        let text = text(wechat.address(), dir.path(), &tls, &tls);
        let running = run_text(binary(), dir.path(), &text).await;
        Program { wechat, dir, authority, running }
    }
}

/// Sends bytes and reads as many as `enough` wants of what comes back.
async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &str,
    enough: impl Fn(&str) -> bool,
) -> io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = String::new();
    let mut buffer = [0; 4096];
    while !enough(&answer) {
        let length = soon("an answer", stream.read(&mut buffer)).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
    Ok(answer)
}

/// `PING` over RESP.
async fn ping(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    let answer = exchange(stream, "PING\r\n", |answer| answer.ends_with("\r\n")).await?;
    assert_eq!(answer, "+PONG\r\n");
    Ok(())
}

/// The greeting over HTTP; the connection is kept.
async fn greet(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    let request = "GET / HTTP/1.1\r\nhost: t\r\n\r\n";
    let answer = exchange(stream, request, |answer| answer.ends_with("token server!")).await?;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    Ok(())
}

/// The token over HTTP, once there is one.
async fn http_token(client: &Client, address: SocketAddr) -> String {
    let request =
        format!("GET /wechat/token?type=access_token&secret={SECRET} HTTP/1.1\r\nhost: t\r\n\r\n");
    soon("a token", async {
        let mut stream = client.connect(address).await.unwrap();
        loop {
            let answer =
                exchange(&mut stream, &request, |answer| answer.ends_with('}')).await.unwrap();
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            if let Some(token) = value(body, "access_token") {
                return token;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn both_listeners_serve_over_tls_12_and_13() {
    let world = World::new().await;
    let token = http_token(&world.client(), world.server.http).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = Client::of_versions(&world.authority, None, &[version]);
        assert_eq!(http_token(&client, world.server.http).await, token);
        let mut stream = client.connect(world.resp()).await.unwrap();
        let answer = exchange(&mut stream, "GET access_token\r\n", |got| got.lines().count() == 2);
        assert_eq!(answer.await.unwrap().lines().nth(1), Some(&*token));
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_is_agreed_on_over_http_and_none_over_resp() {
    let world = World::new().await;
    let client = world.client().offering(&[b"h2", b"http/1.1"]);
    let agreed = |stream: &tokio_rustls::client::TlsStream<TcpStream>| {
        stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
    };
    assert_eq!(agreed(&client.connect(world.server.http).await.unwrap()).unwrap(), b"http/1.1");
    assert_eq!(agreed(&client.connect(world.resp()).await.unwrap()), None);
    let error = world.client().offering(&[b"h2"]).connect(world.server.http).await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_resumed_with_its_ticket_until_the_certificate_is_another() {
    let program = Program::new().await;
    let client = Client::new(&program.authority, None);
    let kind = async |address, resp: bool| {
        let mut stream = client.connect(address).await.unwrap();
        // A ticket comes with the first answer.
        if resp {
            ping(&mut stream).await.unwrap()
        } else {
            greet(&mut stream).await.unwrap()
        }
        stream.get_ref().1.handshake_kind().unwrap()
    };
    for (address, resp) in [(program.running.http, false), (program.running.resp, true)] {
        assert_eq!(kind(address, resp).await, HandshakeKind::Full);
        assert_eq!(kind(address, resp).await, HandshakeKind::Resumed);
    }
    program.authority.server().setting(program.dir.path());
    program.running.signal("-HUP").await;
    program.running.logged("config reloaded", 1).await;
    for (address, resp) in [(program.running.http, false), (program.running.resp, true)] {
        assert_ne!(kind(address, resp).await, HandshakeKind::Resumed);
    }
    program.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_client_ca_nobody_is_served_without_a_certificate_of_it() {
    let world = World::with_client_certificates().await;
    let (own, strange) = (world.authority.client(), Authority::new().client());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (shown, served) in [(Some(&own), true), (None, false), (Some(&strange), false)] {
            let client = Client::of_versions(&world.authority, shown, &[version]);
            let over_http = async { greet(&mut client.connect(world.server.http).await?).await };
            let over_resp = async { ping(&mut client.connect(world.resp()).await?).await };
            let outcomes = [over_http.await, over_resp.await];
            assert!(outcomes.iter().all(|outcome| outcome.is_ok() == served), "{outcomes:?}");
        }
    }
    world.stop().await;
}

/// Everything that comes until the end, which must be a clean one.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut rest = String::new();
    soon("the end", stream.read_to_string(&mut rest)).await.unwrap();
    rest
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_the_wrong_one_of_plain_text_and_tls_is_told_and_the_operator_too() {
    let program = Program::new().await;
    let mut stream = TcpStream::connect(program.running.http).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.ends_with(r#"{"error": "this port speaks TLS: use https://"}"#), "{answer}");
    let mut stream = TcpStream::connect(program.running.resp).await.unwrap();
    stream.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
    let answer = rest(&mut stream).await;
    assert_eq!(answer, "-ERR this port speaks TLS: connect with rediss:// or --tls\r\n");
    program.running.logged("does not speak TLS on a port that does", 2).await;

    // And the other way round.
    let dir = tempfile::tempdir().unwrap();
    let plain = run(dir.path(), program.wechat.address(), "").await;
    let client = Client::new(&program.authority, None);
    for _ in 0..2 {
        assert!(client.connect(plain.http).await.is_err());
        assert!(client.connect(plain.resp).await.is_err());
    }
    plain.logged("a client speaks TLS on the plain HTTP port", 1).await;
    plain.logged("a client speaks TLS on the plain Redis port", 1).await;
    // A line each, however many come.
    assert_eq!(plain.log().matches("a client speaks TLS").count(), 2, "{}", plain.log());
    program.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_handshake_is_logged_with_what_to_do() {
    let program = Program::new().await;
    let stranger = Client::new(&Authority::new(), None);
    for address in [program.running.http, program.running.resp] {
        let error = stranger.connect(address).await.unwrap_err();
        assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    }
    program.running.logged("the client does not trust our certificate", 2).await;
    // Who says nothing is no cause for a warning, and the next client is served.
    drop(TcpStream::connect(program.running.http).await.unwrap());
    let client = Client::new(&program.authority, None);
    greet(&mut client.connect(program.running.http).await.unwrap()).await.unwrap();
    ping(&mut client.connect(program.running.resp).await.unwrap()).await.unwrap();
    assert_eq!(program.running.log().matches("handshake failed").count(), 2);
    program.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_stands_still_has_a_place_and_a_deadline() {
    let world =
        World::with(r#"max_connections: 1, header_timeout: "2s""#, "max_connections: 1").await;
    for (address, ends_by_itself) in [(world.server.http, true), (world.resp(), false)] {
        // The beginning of a record.
        const BEGINNING: &[u8] = &[0x16, 3, 1];
        let mut stalled = TcpStream::connect(address).await.unwrap();
        stalled.write_all(BEGINNING).await.unwrap();
        let mut another = TcpStream::connect(address).await.unwrap();
        another.write_all(BEGINNING).await.unwrap();
        let mut byte = [0];
        // Refused without a word, as there can be no handshake for it.
        let read = soon("a refusal", another.read(&mut byte)).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        if ends_by_itself {
            let read = soon("the deadline", stalled.read(&mut byte)).await;
            assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        }
        drop(stalled);
        // The place is given back.
        let client = world.client();
        let served = async {
            loop {
                let mut stream = match client.connect(address).await {
                    Ok(stream) => stream,
                    Err(_) => continue,
                };
                let served =
                    if ends_by_itself { greet(&mut stream).await } else { ping(&mut stream).await };
                if served.is_ok() {
                    return;
                }
            }
        };
        soon("the place", served).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_ends_connections_with_a_close_notify_and_handshakes_without() {
    let world = World::new().await;
    let client = world.client();
    let mut http = client.connect(world.server.http).await.unwrap();
    greet(&mut http).await.unwrap();
    let mut resp = client.connect(world.resp()).await.unwrap();
    ping(&mut resp).await.unwrap();
    let mut stalled = TcpStream::connect(world.resp()).await.unwrap();
    stalled.write_all(&[0x16]).await.unwrap();
    world.stop().await;
    // rustls takes an end without a close_notify for an error.
    assert_eq!(rest(&mut http).await, "");
    assert_eq!(rest(&mut resp).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_on_a_change_and_on_a_signal_and_no_connection_is_lost() {
    let mut program = Program::new().await;
    let before = Client::new(&program.authority, None);
    let mut http = before.connect(program.running.http).await.unwrap();
    let mut resp = before.connect(program.running.resp).await.unwrap();
    greet(&mut http).await.unwrap();
    ping(&mut resp).await.unwrap();
    let loaded = "TLS certificate loaded";
    program.running.logged(loaded, 2).await;
    for (round, signal) in [(1, true), (2, false)] {
        // Of another authority, so that a client can tell.
        program.authority = Authority::new();
        program.authority.server().setting(program.dir.path());
        if signal {
            program.running.signal("-HUP").await;
        }
        program.running.logged(loaded, 2 + 2 * round).await;
        let after = Client::new(&program.authority, None);
        greet(&mut after.connect(program.running.http).await.unwrap()).await.unwrap();
        ping(&mut after.connect(program.running.resp).await.unwrap()).await.unwrap();
        assert!(before.connect(program.running.http).await.is_err());
        greet(&mut http).await.unwrap();
        ping(&mut resp).await.unwrap();
    }
    assert!(program.running.log().contains("2100-01-01 00:00:00 UTC"), "the end is told");
    program.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_with_the_wrong_key_changes_nothing() {
    let program = Program::new().await;
    std::fs::write(program.dir.path().join("server.key"), self_signed("other").key).unwrap();
    program.running.signal("-HUP").await;
    program.running.logged("the config is not reloaded; everything goes on as before", 1).await;
    assert!(program.running.log().contains("is not the key of the certificate in"));
    let client = Client::new(&program.authority, None);
    greet(&mut client.connect(program.running.http).await.unwrap()).await.unwrap();
    program.wechat.stop().await;
}

/// How `check` ends: code, output, errors.
async fn check(dir: &Path, made: &Made) -> (Option<i32>, String, String) {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let file = dir.join("c.ron");
    std::fs::write(&file, text(nobody, dir, &made.setting(dir), "")).unwrap();
    let mut command = binary();
    let output = command.arg("--config").arg(&file).arg("check").output();
    let output = soon("the check", output).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn check_and_a_start_read_the_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (code, out, err) = check(dir.path(), &authority.server()).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("http     127.0.0.1:0, TLS, 10000 connections at most\n"), "{out}");
    assert!(
        out.ends_with("tls      http.tls.cert is good until 2100-01-01 00:00:00 UTC\n"),
        "{out}"
    );

    // One that has ended is for the clients to refuse.
    let ended = authority.made("localhost", [2000, 2001]);
    let (code, out, _) = check(dir.path(), &ended).await;
    assert_eq!(code, Some(0));
    assert!(out.contains("has expired: it was good until 2001-01-01 00:00:00 UTC"), "{out}");
    let wechat = upstream(Settings::default()).await;
    let tls = ended.setting(dir.path());
    let running =
        run_text(binary(), dir.path(), &text(wechat.address(), dir.path(), &tls, "")).await;
    running.logged("the certificate has expired, so clients refuse it", 1).await;
    drop(running);
    wechat.stop().await;

    let other = self_signed("other");
    let wrong = Made { key: other.key, ..authority.server() };
    let (code, _, err) = check(dir.path(), &wrong).await;
    assert_eq!(code, Some(78));
    assert!(err.contains("http.tls.key: ") && err.contains("is not the key of"), "{err}");
    let mut start = binary();
    let ended = soon("the end", start.arg("--config").arg(dir.path().join("c.ron")).output()).await;
    let ended = ended.unwrap();
    let err = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(78), "{err}");
    assert!(err.contains("http.tls.key: "), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_clear_on_a_public_address_is_advised_against() {
    let advice = |settings: &str| {
        let text = format!(r#"({settings} token_sources: {{"t": (url: "https://h")}})"#);
        let config = config::parse(&text, Path::new("c.ron"), &Environment::default()).unwrap();
        config.advice.into_iter().map(|advice| advice.path).collect::<Vec<_>>()
    };
    let tls = r#"tls: (cert: "c", key: "k")"#;
    for (settings, paths) in [
        (String::new(), &[][..]),
        (r#"http: (bind: "0.0.0.0:1"),"#.into(), &["http.bind"]),
        (r#"resp: (bind: "[::]:1", password: "${file:/etc/hostname}x"),"#.into(), &["resp.bind"]),
        (format!(r#"http: (bind: "0.0.0.0:1", {tls}),"#), &[]),
    ] {
        let found = advice(&settings);
        let found: Vec<&str> =
            found.iter().map(String::as_str).filter(|path| path.ends_with("bind")).collect();
        assert_eq!(found, paths, "{settings}");
    }
    // A plain port still answers in the clear.
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let plain = run(dir.path(), wechat.address(), "").await;
    assert_eq!(resp(plain.resp, "PING\r\n", 1).await, "+PONG\r\n");
    wechat.stop().await;
}
