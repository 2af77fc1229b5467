//! A run of everything at TRACE, searched for what must never be in a log.

use std::collections::BTreeSet;

use wechat_token_server::sandbox::{Account, Settings};

use crate::support::{SECRET, binary, force, get, http, resp, run_with, served, upstream};

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_and_no_token_is_in_a_log_at_any_level() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let mut command = binary();
    // Foreign crates too, by name: they are held at `info` otherwise.
    let targets =
        "hyper reqwest hyper_util rustls sled tokio warp mio want h2 serde ron wechat_token_server";
    let directives: String = targets.split(' ').map(|target| format!("{target}=trace,")).collect();
    command.env("RUST_LOG", format!("{directives}trace"));
    let extra = r#"refresh: (cooldown: "0s", timeout: "1s"),"#;
    let ours = run_with(command, dir.path(), wechat.address(), extra).await;

    let mut canaries: BTreeSet<String> =
        [SECRET, Account::SANDBOX_SECRET, "wrong-secret-canary"].map(str::to_owned).into();
    canaries.insert(served(ours.http, "ticket", None).await);
    canaries.insert(served(ours.http, "access_token", None).await);
    for fault in [
        "kind=errcode&code=40013",
        "kind=errcode&code=40001",
        "kind=garbage",
        "kind=hang",
        "kind=reset",
        "kind=truncated",
        "kind=status&code=500",
        "kind=replace&field=value&with=5",
    ] {
        wechat.inject(format!("{fault}&times=1").parse().unwrap());
        force(ours.http, "access_token").await;
        wechat.inject(format!("{fault}&times=1").parse().unwrap());
        force(ours.http, "ticket").await;
        wechat.clear();
        let before = served(ours.http, "access_token", None).await;
        crate::support::soon("a new token", async {
            while served(ours.http, "access_token", None).await == before {
                force(ours.http, "access_token").await;
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        })
        .await;
        canaries.insert(served(ours.http, "access_token", None).await);
    }
    force(ours.http, "access_token").await;
    canaries.insert(served(ours.http, "access_token", None).await);
    for target in [
        "/wechat/token?type=access_token&secret=wrong-secret-canary",
        "/wechat/token/forcerefresh?type=access_token&secret=wrong-secret-canary",
        "/nowhere?secret=wrong-secret-canary",
        &format!("/wechat/token?secret={SECRET}&secret={SECRET}"),
        &format!("/wechat/token/forcerefresh?type=nope&secret={SECRET}"),
    ] {
        http(ours.http, "GET", target).await;
        http(ours.http, "POST", target).await;
    }
    for request in [
        "AUTH wrong-secret-canary\r\n",
        "HELLO 3 AUTH default wrong-secret-canary\r\n",
        "wrong-secret-canary\r\n",
        "*1\r\n$x\r\n",
    ] {
        resp(ours.resp, request, 1).await;
    }
    get(ours.resp, "access_token").await;
    get(ours.resp, "wrong-secret-canary").await;
    ours.signal("-TERM").await;
    let mut ours = ours;
    ours.child.wait().await.unwrap();

    assert!(canaries.len() > 8, "the tokens were collected");
    let log = ours.log();
    assert!(log.contains("\"TRACE\"") && log.contains("token renewed"), "everything was logged");
    for canary in canaries {
        // Half of it would be too much as well.
        let half = &canary[..canary.len() / 2];
        if let Some(line) = log.lines().find(|line| line.contains(half)) {
            panic!("{half}… is in the log: {line}");
        }
    }
    wechat.stop().await;
}
