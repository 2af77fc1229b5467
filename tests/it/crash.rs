//! Killed at the worst moment: what was answered is still there.

use std::time::Duration;

use wechat_token_server::sandbox::Settings;

use crate::support::{NO_COOLDOWN, force, get, run, served, token, upstream, value};

#[tokio::test(flavor = "multi_thread")]
async fn killed_right_after_an_answered_forced_refresh_a_hundred_times_none_is_lost() {
    let wechat = upstream(Settings { token_quota: None, ..Settings::default() }).await;
    let dir = tempfile::tempdir().unwrap();
    let mut ours = run(dir.path(), wechat.address(), NO_COOLDOWN).await;
    served(ours.http, "access_token", None).await;
    for round in 0..100 {
        let answered = value(&force(ours.http, "access_token").await, "access_token").unwrap();
        ours.child.kill().await.unwrap();
        ours = run(dir.path(), wechat.address(), NO_COOLDOWN).await;
        // At once, from disk: what is there when it serves.
        let kept = value(&token(ours.http, "access_token").await, "access_token");
        assert_eq!(kept.as_ref(), Some(&answered), "round {round}");
        assert_eq!(get(ours.resp, "access_token").await, kept, "round {round}");
    }
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_never_share_a_store() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let first = run(dir.path(), wechat.address(), "").await;
    // The second waits for the first to leave, and serves its tokens when it has.
    let answered = served(first.http, "access_token", None).await;
    let path = dir.path().to_owned();
    let address = wechat.address();
    let second = tokio::spawn(async move { run(&path, address, "").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!second.is_finished());
    first.signal("-TERM").await;
    let second = second.await.unwrap();
    assert_eq!(get(second.resp, "access_token").await, Some(answered));
    wechat.stop().await;
}
