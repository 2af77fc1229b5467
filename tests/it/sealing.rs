//! Records under the operator's key, over restarts: turned on, rotated, lost, and killed in between.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wechat_token_server::sandbox::{Endpoint, Settings};

use crate::support::{
    Running, binary, config_text, files_with, get, serve, served, soon, upstream,
};

const K1: &str = "first-store-key-0123456789";
const K2: &str = "second-store-key-0123456789";

/// Writes the config with these settings of the store beside its path.
fn configure(dir: &Path, upstream: SocketAddr, store: &str) -> PathBuf {
    let text = config_text(upstream, dir, r#"log: (format: "json"),"#);
    let file = dir.join("config.ron");
    assert!(text.contains("store: (path:"));
    std::fs::write(&file, text.replacen("store: (path:", &format!("store: ({store} path:"), 1))
        .unwrap();
    file
}

async fn run(dir: &Path, upstream: SocketAddr, store: &str) -> Running {
    serve(binary(), &configure(dir, upstream, store)).await
}

async fn stop(mut ours: Running) {
    ours.signal("-TERM").await;
    soon("the end", ours.child.wait()).await.unwrap();
}

/// Starts what is expected not to serve; the exit code and what it says.
async fn refused(dir: &Path, upstream: SocketAddr, store: &str) -> (Option<i32>, String) {
    let file = configure(dir, upstream, store);
    let output = soon("the end", binary().arg("--config").arg(file).output()).await.unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_sealed_and_its_key_rotated_without_a_fetch() {
    let wechat = upstream(Settings::default()).await;
    let address = wechat.address();
    let dir = tempfile::tempdir().unwrap();
    let (dir, store) = (dir.path(), dir.path().join("store"));
    let ours = run(dir, address, "").await;
    let tokens =
        [served(ours.http, "access_token", None).await, served(ours.http, "ticket", None).await];
    let secrets = [&tokens[0], &tokens[1], K1, K2];
    assert!(ours.log().contains(r#""records":"plain""#), "{}", ours.log());
    stop(ours).await;
    assert!(!files_with(&store, &secrets).is_empty(), "kept in plain they are found");

    let (k1, k2) = (format!("key: {K1:?},"), format!("key: {K2:?},"));
    for settings in [k1.clone(), k1, format!("{k2} old_keys: [{K1:?}],"), k2.clone(), k2.clone()] {
        let ours = run(dir, address, &settings).await;
        // At once, from disk.
        for (source, token) in ["access_token", "ticket"].into_iter().zip(&tokens) {
            assert_eq!(get(ours.resp, source).await.as_ref(), Some(token), "{settings}");
        }
        assert!(ours.log().contains(r#""records":"sealed""#), "{}", ours.log());
        assert_eq!(files_with(&store, &secrets), [] as [PathBuf; 0], "{settings}");
        stop(ours).await;
        assert_eq!(files_with(&store, &secrets), [] as [PathBuf; 0], "{settings}");
    }

    // The key is lost, or another one: it does not start, and nothing is lost.
    for settings in ["", &format!("key: {K1:?},")] {
        let (code, words) = refused(dir, address, settings).await;
        assert_eq!(code, Some(78), "{words}");
        assert!(words.contains("store.key") && words.contains("nothing was changed"), "{words}");
        assert!(!words.contains(K1) && !words.contains(K2), "{words}");
    }
    let ours = run(dir, address, &k2).await;
    assert_eq!(get(ours.resp, "access_token").await.as_ref(), Some(&tokens[0]));
    stop(ours).await;

    // And back to plain.
    let ours = run(dir, address, &format!("old_keys: [{K2:?}],")).await;
    assert_eq!(get(ours.resp, "ticket").await.as_ref(), Some(&tokens[1]));
    stop(ours).await;
    let ours = run(dir, address, "").await;
    assert_eq!(get(ours.resp, "ticket").await.as_ref(), Some(&tokens[1]));
    stop(ours).await;
    assert_eq!([Endpoint::Token, Endpoint::Ticket].map(|call| wechat.calls(call)), [1, 1]);
    wechat.stop().await;
}

/// At the places where the fresh database takes the place of the old one.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_cut_short_or_refused_is_made_good_by_the_next_start() {
    let wechat = upstream(Settings::default()).await;
    let address = wechat.address();
    let dir = tempfile::tempdir().unwrap();
    let (dir, store) = (dir.path(), dir.path().join("store"));
    let k1 = format!("key: {K1:?},");
    let ours = run(dir, address, &k1).await;
    let token = served(ours.http, "access_token", None).await;
    stop(ours).await;
    let file = configure(dir, address, &format!("key: {K2:?}, old_keys: [{K1:?}],"));
    for place in ["fresh database built", "old database aside"] {
        let mut command = binary();
        command.arg("--config").arg(&file).env("STORE_FAILPOINTS", format!("{place}=abort@1"));
        let output = soon("the end", command.output()).await.unwrap();
        assert!(!output.status.success(), "{place}: {}", String::from_utf8_lossy(&output.stderr));
        let ours = serve(binary(), &file).await;
        assert_eq!(get(ours.resp, "access_token").await.as_ref(), Some(&token), "{}", ours.log());
        assert!(!ours.log().contains("damaged"), "{}", ours.log());
        stop(ours).await;
        // And back, for the next place.
        stop(run(dir, address, &format!("{k1} old_keys: [{K2:?}],")).await).await;
        configure(dir, address, &format!("key: {K2:?}, old_keys: [{K1:?}],"));
    }
    // Where the disk refuses, the old database is used as it is, and what is new is sealed with the new key.
    let mut command = binary();
    command.env("STORE_FAILPOINTS", "fresh database built=fail@1-");
    let ours = serve(command, &file).await;
    assert_eq!(get(ours.resp, "access_token").await.as_ref(), Some(&token), "{}", ours.log());
    assert!(ours.log().contains("leave store.old_keys as they are"), "{}", ours.log());
    assert!(!store.join("tokens.sled.new").exists());
    stop(ours).await;
    let (code, words) = refused(dir, address, &format!("key: {K2:?},")).await;
    assert_eq!(code, Some(78), "{words}");
    stop(
        serve(binary(), &configure(dir, address, &format!("key: {K2:?}, old_keys: [{K1:?}],")))
            .await,
    )
    .await;
    let ours = run(dir, address, &format!("key: {K2:?},")).await;
    assert_eq!(get(ours.resp, "access_token").await.as_ref(), Some(&token), "{}", ours.log());
    stop(ours).await;
    assert_eq!(wechat.calls(Endpoint::Token), 1);
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_of_a_rotation_no_token_is_lost() {
    let wechat = upstream(Settings::default()).await;
    let address = wechat.address();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let ours = run(dir, address, "").await;
    let token = served(ours.http, "access_token", None).await;
    served(ours.http, "ticket", None).await;
    stop(ours).await;
    let (mut settings, mut logs) = (String::new(), String::new());
    for round in 0..30 {
        let [new, old] = if round % 2 == 0 { [K1, K2] } else { [K2, K1] };
        settings = format!("key: {new:?}, old_keys: [{old:?}],");
        let file = configure(dir, address, &settings);
        let mut child = binary().arg("--config").arg(file).spawn().unwrap();
        // Where in the start it is killed is left to chance, from before to after the rotation.
        tokio::time::sleep(Duration::from_millis(3 * round)).await;
        child.start_kill().unwrap();
        let output = soon("the end", child.wait_with_output()).await.unwrap();
        let _ = writeln!(logs, "{round}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let ours = run(dir, address, &settings).await;
    let served = get(ours.resp, "access_token").await;
    assert_eq!(served.as_ref(), Some(&token), "{logs}\n{}", ours.log());
    // A kill is no damage: nobody is told to check the disk.
    assert!(!logs.contains("damaged") && !ours.log().contains("damaged"), "{logs}\n{}", ours.log());
    stop(ours).await;
    assert_eq!(wechat.calls(Endpoint::Token), 1);
    assert_eq!(files_with(&dir.join("store"), &[&token]), [] as [PathBuf; 0]);
    wechat.stop().await;
}
