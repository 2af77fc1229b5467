//! What is fetched, kept and served, from the upstream's socket to a client's.

use std::collections::HashSet;
use std::time::Duration;

use wechat_token_server::sandbox::{Endpoint, Settings};

use crate::support::{
    NO_COOLDOWN, force, get, http, served, server, soon, token, upstream, upstream_at, value,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_and_its_ticket_are_served_over_both_protocols() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let ours = server(wechat.address(), dir.path(), "").await;
    let ticket = served(ours.http, "ticket", None).await;
    let access_token = served(ours.http, "access_token", None).await;
    assert!(wechat.accepts(&access_token).is_live() && wechat.accepts_ticket(&ticket).is_live());
    let body = token(ours.http, "access_token").await;
    // 7200 s of life, renewed 600 s ahead (450 at the latest), and 300 s after that: what a client
    // may rely on.
    let start = format!("{{\"access_token\": \"{access_token}\", \"expires_in\": ");
    let seconds = body.strip_prefix(&start).and_then(|rest| rest.strip_suffix("}")).unwrap();
    assert!((6_890..=7_050).contains(&seconds.parse::<u64>().unwrap()), "{body}");
    let resp = ours.resp.unwrap();
    assert_eq!(get(resp, "access_token").await.unwrap(), access_token);
    assert_eq!(get(resp, "ticket").await.unwrap(), ticket);
    assert_eq!(get(resp, "nothing").await, None);
    assert!(ours.stop().await);
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_the_upstream_gone_serves_over_both_protocols_and_fetches_nothing() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let ours = server(wechat.address(), dir.path(), "").await;
    let access_token = served(ours.http, "access_token", None).await;
    let ticket = served(ours.http, "ticket", None).await;
    assert!(ours.stop().await);
    let address = wechat.address();
    wechat.stop().await;

    let ours = server(address, dir.path(), "").await;
    assert_eq!(value(&token(ours.http, "access_token").await, "access_token"), Some(access_token));
    assert_eq!(get(ours.resp.unwrap(), "ticket").await, Some(ticket));
    assert!(ours.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_while_the_upstream_is_there_fetches_nothing_either() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let ours = server(wechat.address(), dir.path(), "").await;
    served(ours.http, "ticket", None).await;
    assert!(ours.stop().await);
    for _ in 0..3 {
        let ours = server(wechat.address(), dir.path(), "").await;
        served(ours.http, "ticket", None).await;
        assert!(ours.stop().await);
    }
    assert_eq!((wechat.calls(Endpoint::Token), wechat.calls(Endpoint::Ticket)), (1, 1));
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_forced_refreshes_at_once_make_one_call_and_get_the_same_new_token() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let ours = server(wechat.address(), dir.path(), NO_COOLDOWN).await;
    let old = served(ours.http, "access_token", None).await;
    wechat.set(|settings| settings.latency = Duration::from_secs(2));
    let askers = (0..200).map(|_| tokio::spawn(force(ours.http, "access_token")));
    let mut values = HashSet::new();
    for asker in askers.collect::<Vec<_>>() {
        values.insert(value(&soon("an answer", asker).await.unwrap(), "access_token").unwrap());
    }
    assert_eq!(values.len(), 1);
    let new = values.into_iter().next().unwrap();
    assert!(new != old && wechat.accepts(&new).is_live());
    assert_eq!(wechat.calls(Endpoint::Token), 2);
    assert!(ours.stop().await);
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_ticket_call_heals_its_token() {
    let wechat = upstream(Settings { overlap: Some(Duration::ZERO), ..Settings::default() }).await;
    let dir = tempfile::tempdir().unwrap();
    let ours = server(wechat.address(), dir.path(), NO_COOLDOWN).await;
    served(ours.http, "ticket", None).await;
    // Somebody else fetches: our token dies, which the ticket's next call finds out.
    assert!(wechat.rotate(wechat_token_server::sandbox::Account::SANDBOX_APPID));
    let body = force(ours.http, "ticket").await;
    assert!(value(&body, "ticket").is_some(), "{body}");
    let token = served(ours.http, "access_token", None).await;
    assert!(wechat.accepts(&token).is_live());
    assert!(ours.stop().await);
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_refresh_that_fails_says_why_and_names_no_address() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let ours = server(wechat.address(), dir.path(), NO_COOLDOWN).await;
    let old = served(ours.http, "access_token", None).await;
    wechat.inject("kind=errcode&code=40164&endpoint=token&times=1".parse().unwrap());
    let body = force(ours.http, "access_token").await;
    assert_eq!(
        body,
        "{\"errmsg\": \"the upstream answered errcode 40164: add 127.0.0.1 to the IP allow list in the \
         console\"}"
    );
    assert_eq!(served(ours.http, "access_token", None).await, old);
    assert_eq!(http(ours.http, "POST", "/wechat/token/forcerefresh?type=nope").await.1, "{}");
    assert!(ours.stop().await);
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_the_upstream_says_not_found_and_serves_when_it_comes() {
    let wechat = upstream(Settings::default()).await;
    let address = wechat.address();
    wechat.stop().await;
    let dir = tempfile::tempdir().unwrap();
    let ours = server(address, dir.path(), "").await;
    assert_eq!(token(ours.http, "access_token").await, "{\"error\": \"not found\"}");
    assert_eq!(get(ours.resp.unwrap(), "access_token").await, None);
    let wechat = upstream_at(address, Settings::default()).await;
    let ticket = served(ours.http, "ticket", None).await;
    assert!(wechat.accepts_ticket(&ticket).is_live());
    assert!(ours.stop().await);
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_do_not_wait_for_an_upstream_that_hangs() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let ours = server(wechat.address(), dir.path(), NO_COOLDOWN).await;
    let old = served(ours.http, "access_token", None).await;
    let before = wechat.calls(Endpoint::Token);
    wechat.inject("kind=hang&endpoint=token".parse().unwrap());
    let forced = tokio::spawn(force(ours.http, "access_token"));
    soon("the request to hang", wechat.wait_for_calls(Endpoint::Token, before + 1)).await;
    for _ in 0..100 {
        assert_eq!(
            value(&token(ours.http, "access_token").await, "access_token").as_ref(),
            Some(&old)
        );
        assert_eq!(get(ours.resp.unwrap(), "access_token").await.as_ref(), Some(&old));
    }
    assert!(!forced.is_finished(), "it hung all the while");
    wechat.stop().await;
    let body = soon("an answer", forced).await.unwrap();
    assert!(body.starts_with("{\"errmsg\": "), "{body}");
    assert!(ours.stop().await);
}
