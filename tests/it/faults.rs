//! Whatever the upstream does wrong leaves a good token served and a live process.

use wechat_token_server::sandbox::{Endpoint, Settings};

use crate::support::{NO_COOLDOWN, force, get, run, served, upstream, value};

/// Every fault of the stand-in, and a part of what a client is then told.
const FAULTS: &[(&str, &str)] = &[
    ("kind=errcode&code=-1", "errcode -1"),
    ("kind=errcode&code=40001", "errcode 40001"),
    ("kind=errcode&code=40013", "errcode 40013"),
    ("kind=errcode&code=40125", "errcode 40125"),
    ("kind=errcode&code=40164", "errcode 40164"),
    ("kind=errcode&code=40243", "errcode 40243"),
    ("kind=errcode&code=45009", "errcode 45009"),
    ("kind=errcode&code=45011", "errcode 45011"),
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

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_leaves_a_good_token_served_and_the_next_success_recovers() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let extra = r#"refresh: (cooldown: "0s", timeout: "1s"),"#;
    let ours = run(dir.path(), wechat.address(), extra).await;
    let mut good = served(ours.http, "access_token", None).await;
    served(ours.http, "ticket", None).await;
    let before = ours.peak_memory();
    for (fault, told) in FAULTS {
        wechat.inject(format!("{fault}&endpoint=token&times=1").parse().unwrap());
        let body = force(ours.http, "access_token").await;
        assert!(body.starts_with("{\"errmsg\": ") && body.contains(told), "{fault}: {body}");
        // The engine's own retry may have come in between; then the token is another, and good.
        let now = served(ours.http, "access_token", None).await;
        assert!(wechat.accepts(&now).is_live() || now == good, "{fault}");
        assert_eq!(get(ours.resp, "access_token").await, Some(now.clone()), "{fault}");
        wechat.clear();
        let recovered = value(&force(ours.http, "access_token").await, "access_token");
        assert!(recovered.is_some() && recovered != Some(good), "{fault}");
        good = recovered.unwrap();
    }
    let grown = ours.peak_memory() - before;
    assert!(grown < 16 * MEGABYTES, "peak memory grew by {grown} kB");
    wechat.stop().await;
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
