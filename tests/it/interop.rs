//! Tests with foreign programs: strace, redis-cli, curl. Behind the feature `interop`; there the
//! absence of a program is a failure.

use std::path::Path;

use tokio::process::Command;
use wechat_token_server::sandbox::Settings;

use crate::support::certificates::{Authority, Made};
use crate::support::{
    NO_COOLDOWN, SECRET, binary, force, run, run_text, run_with, served, soon, upstream, value,
};
use crate::tls::text;

/// What a program prints; it must succeed.
async fn output(program: &str, args: &[&str]) -> String {
    let output = soon(program, Command::new(program).args(args).output()).await;
    let output = output.unwrap_or_else(|error| panic!("{program} cannot be run: {error}"));
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_has_a_token_before_a_client_does() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-s", "400", "-e", "trace=recvfrom,sendto,fsync,fdatasync", "-o"]);
    command.arg(&trace).arg(env!("CARGO_BIN_EXE_wechat-token-server")).kill_on_drop(true);
    command.stderr(std::process::Stdio::piped()).env_remove("RUST_LOG");
    let mut ours = run_with(command, dir.path(), wechat.address(), NO_COOLDOWN).await;
    served(ours.http, "access_token", None).await;
    let new = value(&force(ours.http, "access_token").await, "access_token").unwrap();
    // strace passes the signal of its child's end on; it is the child that must be told.
    let traced = output("pgrep", &["-P", &ours.pid().to_string()]).await;
    output("kill", &["-TERM", traced.trim()]).await;
    soon("the end", ours.child.wait()).await.unwrap();

    let trace = std::fs::read_to_string(trace).unwrap();
    let lines: Vec<&str> = trace.lines().collect();
    let first = |what: &str, from: usize, found: &dyn Fn(&str) -> bool| {
        let at = lines[from..].iter().position(|line| found(line));
        from + at.unwrap_or_else(|| panic!("no {what} in the trace:\n{trace}"))
    };
    let arrived =
        first("answer of the upstream", 0, &|line| line.contains("recv") && line.contains(&new));
    let durable = first("fsync that returned", arrived, &|line| {
        line.contains("fsync") && line.trim_end().ends_with("= 0")
    });
    let answered = first("answer to the client", arrived, &|line| {
        line.contains("sendto") && line.contains(&new)
    });
    assert!(arrived < durable && durable < answered, "{arrived}, {durable}, {answered}:\n{trace}");
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_cli_and_curl_read_a_token() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let ours = run(dir.path(), wechat.address(), "").await;
    let token = served(ours.http, "access_token", None).await;
    let port = ours.resp.port().to_string();
    for protocol in ["-2", "-3"] {
        let got = output("redis-cli", &[protocol, "-p", &port, "GET", "access_token"]).await;
        assert_eq!(got.trim(), token);
    }
    let url = format!("http://{}/wechat/token?type=access_token&secret={SECRET}", ours.http);
    let got = output("curl", &["-sS", "--max-time", "10", &url]).await;
    assert_eq!(value(&got, "access_token"), Some(token));
    wechat.stop().await;
}

/// How a program ends that may fail: whether it succeeded, and all that it says.
async fn outcome(program: &str, args: &[&str]) -> (bool, String) {
    let output = soon(program, Command::new(program).args(args).output()).await;
    let output = output.unwrap_or_else(|error| panic!("{program} cannot be run: {error}"));
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// Puts a certificate and its key into files of this name; their paths.
fn files(made: &Made, dir: &Path, name: &str) -> [String; 2] {
    [("pem", &made.cert), ("key", &made.key)].map(|(end, text)| {
        let path = dir.join(format!("{name}.{end}"));
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_and_redis_cli_read_a_token_over_tls_with_and_without_a_certificate_of_their_own() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let ca = ca.to_str().unwrap();
    let [cert, key] = files(&authority.client(), dir.path(), "client");
    let tls = authority.server().setting(dir.path());
    for client_certificates in [false, true] {
        let tls = match client_certificates {
            false => tls.clone(),
            true => tls.replace(')', &format!(", client_ca: {ca:?})")),
        };
        let text = text(wechat.address(), dir.path(), &tls, &tls);
        let mut ours = run_text(binary(), dir.path(), &text).await;
        let (http, resp) = (ours.http, ours.resp.port().to_string());
        let url = format!(
            "https://localhost:{}/wechat/token?type=access_token&secret={SECRET}",
            http.port()
        );
        let curl = ["-sS", "--max-time", "10", "--http1.1", &url];
        let cli = ["-p", &resp, "--tls", "--sni", "localhost", "GET", "access_token"];
        let (trusting, own) = (["--cacert", ca], ["--cert", &cert, "--key", &key]);

        // Nobody who does not know the authority.
        let (done, said) = outcome("curl", &curl).await;
        assert!(!done && said.contains("certificate"), "{said}");
        let (_, said) = outcome("redis-cli", &cli).await;
        assert!(said.contains("certificate verify failed"), "{said}");
        // Who shows no certificate.
        let curled = outcome("curl", &[&trusting[..], &curl].concat()).await;
        let (_, got) = outcome("redis-cli", &[&trusting[..], &cli].concat()).await;
        if client_certificates {
            assert!(!curled.0 && curled.1.contains("certificate required"), "{}", curled.1);
            assert!(!got.contains("ACCESS_TOKEN") && got.contains("rror"), "{got}");
        }
        // Who shows one, needed or not.
        let served = async {
            loop {
                let body = output("curl", &[&trusting[..], &own, &curl].concat()).await;
                if let Some(token) = value(&body, "access_token") {
                    return token;
                }
            }
        };
        let token = soon("a token", served).await;
        let got = output("redis-cli", &[&trusting[..], &own, &cli].concat()).await;
        assert_eq!(got.trim(), token);
        if !client_certificates {
            let body = output("curl", &[&trusting[..], &curl].concat()).await;
            assert_eq!(value(&body, "access_token").as_deref(), Some(&*token));
        }
        ours.signal("-TERM").await;
        soon("the end", ours.child.wait()).await.unwrap();
    }
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_as_openssl_writes_them_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (cert, made, key) = (path("cert.pem"), path("made.key"), path("key.pem"));
    let nobody = "127.0.0.1:1".parse().unwrap();
    let config = path("c.ron");
    let p256 = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    for (kind, rewrite, begin) in [
        (&["-newkey", "rsa:2048"][..], &["pkey"][..], "BEGIN PRIVATE KEY"),
        (&["-newkey", "rsa:2048"], &["rsa", "-traditional"], "BEGIN RSA PRIVATE KEY"),
        (&p256, &["pkey"], "BEGIN PRIVATE KEY"),
        (&p256, &["ec"], "BEGIN EC PRIVATE KEY"),
        (&["-newkey", "ed25519"], &["pkey"], "BEGIN PRIVATE KEY"),
    ] {
        let request = ["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost"];
        let into = ["-keyout", &made, "-out", &cert];
        output("openssl", &[&request[..], kind, &into].concat()).await;
        output("openssl", &[rewrite, &["-in", &made, "-out", &key]].concat()).await;
        assert!(std::fs::read_to_string(&key).unwrap().contains(begin), "{begin}");
        let tls = format!("tls: (cert: {cert:?}, key: {key:?})");
        std::fs::write(&config, text(nobody, dir.path(), &tls, "")).unwrap();
        let binary = env!("CARGO_BIN_EXE_wechat-token-server");
        let said = output(binary, &["--config", &config, "check"]).await;
        assert!(said.contains("http.tls.cert is good until"), "{begin}: {said}");
    }
}
