//! Tests with foreign programs: strace, redis-cli, curl. Behind the feature `interop`; there the
//! absence of a program is a failure.

use tokio::process::Command;
use wechat_token_server::sandbox::Settings;

use crate::support::{NO_COOLDOWN, SECRET, force, run, run_with, served, soon, upstream, value};

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
