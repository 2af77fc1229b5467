//! Whatever the upstream does wrong leaves a good token served and a live process.

use std::time::Duration;

use wechat_token_server::sandbox::{Endpoint, Settings};

use crate::support::{NO_COOLDOWN, force, get, run, served, soon, upstream, value};

/// Every fault of the stand-in, and a part of what a client is then told.
const FAULTS: &[(&str, &str)] = &[
    ("kind=errcode&code=-1", "errcode -1"),
    ("kind=errcode&code=40001", "errcode 40001"),
    ("kind=errcode&code=40013", "errcode 40013"),
    ("kind=errcode&code=40125", "errcode 40125"),
    ("kind=errcode&code=40164", "errcode 40164"),
    ("kind=errcode&code=40243", "errcode 40243"),
    ("kind=errcode&code=50002", "errcode 50002"),
    ("kind=errcode&code=89503", "errcode 89503"),
    ("kind=status&code=500", "status 500"),
    ("kind=status&code=502", "status 502"),
    ("kind=status&code=404", "status 404"),
    ("kind=garbage", "not JSON"),
    ("kind=truncated", "broke the connection off"),
    ("kind=missing&field=value", "no access_token"),
    ("kind=missing&field=expires_in", "no expires_in"),
    ("kind=replace&field=value&with=5", "access_token is not a text"),
    ("kind=replace&field=value&with=\"\"", "access_token is empty"),
    ("kind=replace&field=value&with=null", "access_token is not a text"),
    ("kind=replace&field=expires_in&with=\"soon\"", "not a whole number"),
    ("kind=replace&field=expires_in&with=-1", "not positive"),
    ("kind=hang", "did not answer in time"),
    ("kind=reset", "broke the connection off"),
    ("kind=huge", "too large"),
    ("kind=drip&delay=200ms", "did not answer in time"),
];

const MEGABYTES: u64 = 1024;

/// Tries every fourth fault from the `first` on, so that the tests below share them.
async fn every_fault_from(first: usize) {
    // A replaced token dies soon, so that one that is served for longer than it works is seen.
    let settings = Settings { overlap: Some(Duration::from_secs(3)), ..Settings::default() };
    let wechat = upstream(settings).await;
    let dir = tempfile::tempdir().unwrap();
    let extra = r#"refresh: (cooldown: "0s", overlap: "3s", timeout: "1s"),"#;
    let ours = run(dir.path(), wechat.address(), extra).await;
    let mut good = served(ours.http, "access_token", None).await;
    served(ours.http, "ticket", None).await;
    let before = ours.peak_memory();
    for (fault, told) in FAULTS.iter().skip(first).step_by(4) {
        // Once without the work being done, and once with it: the answer alone goes wrong.
        for applied in [false, true] {
            let case = format!("{fault}&endpoint=token&times=1&applied={applied}");
            wechat.inject(case.parse().unwrap());
            let body = force(ours.http, "access_token").await;
            assert!(body.starts_with("{\"errmsg\": ") && body.contains(told), "{case}: {body}");
            // The old one is served, and works; the retry may have come in between.
            let now = served(ours.http, "access_token", None).await;
            assert!(wechat.accepts(&now).is_live(), "{case}");
            assert!(get(ours.resp, "access_token").await.is_some(), "{case}");
            wechat.clear();
            // The next success recovers, whoever it comes from.
            good = soon("a new token", async {
                loop {
                    let body = force(ours.http, "access_token").await;
                    match value(&body, "access_token").filter(|value| *value != good) {
                        Some(value) => return value,
                        None => tokio::time::sleep(Duration::from_millis(50)).await,
                    }
                }
            })
            .await;
            assert!(wechat.accepts(&good).is_live(), "{case}");
        }
    }
    let grown = ours.peak_memory() - before;
    assert!(grown < 16 * MEGABYTES, "peak memory grew by {grown} kB");
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_leaves_a_good_token_served_and_the_next_success_recovers_1_of_4() {
    every_fault_from(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_leaves_a_good_token_served_and_the_next_success_recovers_2_of_4() {
    every_fault_from(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_leaves_a_good_token_served_and_the_next_success_recovers_3_of_4() {
    every_fault_from(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_leaves_a_good_token_served_and_the_next_success_recovers_4_of_4() {
    every_fault_from(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_throttled_or_has_spent_its_day_is_left_alone() {
    for code in [45009, 45011] {
        let wechat = upstream(Settings::default()).await;
        let dir = tempfile::tempdir().unwrap();
        let ours = run(dir.path(), wechat.address(), NO_COOLDOWN).await;
        let good = served(ours.http, "access_token", None).await;
        wechat.inject(format!("kind=errcode&code={code}&endpoint=token").parse().unwrap());
        for _ in 0..20 {
            let body = force(ours.http, "access_token").await;
            assert!(body.contains(&code.to_string()) && body.contains("try again in"), "{body}");
        }
        assert_eq!(wechat.calls(Endpoint::Token), 2, "the first, and one that was refused");
        assert_eq!(served(ours.http, "access_token", None).await, good);
        wechat.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let ours = run(dir.path(), wechat.address(), NO_COOLDOWN).await;
    served(ours.http, "access_token", None).await;
    let to = wechat.url("/elsewhere").replace(':', "%3A").replace('/', "%2F");
    let fault = format!("kind=redirect&to={to}&endpoint=token&times=1");
    wechat.inject(fault.parse().unwrap());
    let body = force(ours.http, "access_token").await;
    assert!(body.contains("status 302"), "{body}");
    assert_eq!(wechat.calls(Endpoint::Unknown), 0);
    wechat.stop().await;
}
