//! A run of everything at TRACE, searched for what must never be in a log, an error or a file; what is left
//! in memory; what a panic says.

use std::collections::BTreeSet;

use wechat_token_server::config::LogConfig;
use wechat_token_server::logging;
use wechat_token_server::sandbox::{Account, Settings};

use crate::support::receiver::{Answer, Receiver};
use crate::support::{
    SECRET, binary, config_text, copies_in_memory, files_with, force, get, http, resp, serve,
    served, soon, upstream, value,
};

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_and_no_token_is_in_a_log_at_any_level_in_an_error_or_in_a_file() {
    const STORE_KEY: &str = "store-key-canary-0123456789";
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let mut command = binary();
    // Foreign crates too, by name: they are held at `info` otherwise.
    let targets =
        "hyper reqwest hyper_util rustls sled tokio warp mio want h2 serde ron wechat_token_server";
    let directives: String = targets.split(' ').map(|target| format!("{target}=trace,")).collect();
    command.env("RUST_LOG", format!("{directives}trace"));
    let receiver = Receiver::start(&[Answer::Says(500, "no"), Answer::Closes]).await;
    let webhooks: String = [("Json", "json-secret-canary"), ("DingTalk", "SEC-secret-canary")]
        .map(|(kind, secret)| {
            let url = format!(
                "http://user:password-canary@{}/{kind}/path-canary?key=url-key-canary",
                receiver.address
            );
            format!(r#""{kind}": (kind: {kind}, url: "{url}", secret: "{secret}", gather: "0s"),"#)
        })
        .concat();
    let extra = format!(
        r#"log: (format: "json"), refresh: (cooldown: "0s", timeout: "1s"), webhooks: {{{webhooks}}},"#
    );
    let text = config_text(wechat.address(), dir.path(), &extra);
    let file = dir.path().join("config.ron");
    std::fs::write(&file, text.replacen("(path:", &format!("(key: {STORE_KEY:?}, path:"), 1))
        .unwrap();
    let ours = serve(command, &file).await;

    let mut canaries: BTreeSet<String> =
        [SECRET, STORE_KEY, Account::SANDBOX_SECRET, "wrong-secret-canary"]
            .map(str::to_owned)
            .into();
    let of_webhooks = ["json-sec", "SEC-sec", "password-canary", "path-canary", "url-key-canary"];
    let mut errors = String::new();
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
        for source in ["access_token", "ticket"] {
            wechat.inject(format!("{fault}&times=1").parse().unwrap());
            let answer = force(ours.http, source).await;
            // Some faults are made good by another request.
            if value(&answer, source).is_none() {
                errors.push_str(&answer);
            }
            errors.push_str(&resp(ours.resp, &format!("TOKEN.INFO {source}\r\n"), 19).await);
        }
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
        errors.push_str(&http(ours.http, "GET", target).await.1);
        errors.push_str(&http(ours.http, "POST", target).await.1);
    }
    for request in [
        "AUTH wrong-secret-canary\r\n",
        "HELLO 3 AUTH default wrong-secret-canary\r\n",
        "wrong-secret-canary\r\n",
        "*1\r\n$x\r\n",
    ] {
        errors.push_str(&resp(ours.resp, request, 1).await);
    }
    get(ours.resp, "access_token").await;
    get(ours.resp, "wrong-secret-canary").await;
    // Failures, recoveries and foreign fetches have been told by now, to both.
    let told = receiver.told(6).await;
    ours.signal("-TERM").await;
    let mut ours = ours;
    ours.child.wait().await.unwrap();

    assert!(canaries.len() > 8, "the tokens were collected");
    assert!(errors.contains("errmsg") && errors.contains("unknown command"), "{errors}");
    let halves = canaries.iter().map(|canary| &canary[..canary.len() / 2]);
    let held = files_with(&dir.path().join("store"), &halves.collect::<Vec<_>>());
    assert!(held.is_empty(), "{held:?}");
    let log = ours.log();
    assert!(log.contains("\"TRACE\"") && log.contains("token renewed"), "everything was logged");
    for canary in of_webhooks {
        assert!(!log.contains(canary), "{canary} is in the log");
        assert!(!told.iter().any(|told| told.body.contains(canary)), "{canary} is told");
    }
    for canary in canaries {
        // Half of it would be too much as well.
        let half = &canary[..canary.len() / 2];
        if let Some(line) = log.lines().find(|line| line.contains(half)) {
            panic!("{half}… is in the log: {line}");
        }
        let told = told.iter().find(|told| {
            told.body.contains(half) || told.headers.iter().any(|(_, value)| value.contains(half))
        });
        assert!(told.is_none(), "{half}… is told: {told:?}");
        // Redis, too, repeats the name of a command that it does not know.
        assert!(canary.starts_with("wrong-") || !errors.contains(half), "{half}…: {errors}");
    }
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_secret_was_read_from_is_wiped() {
    const SOURCES: usize = 300;
    let wechat = upstream(Settings::default()).await;
    // Nothing is sent that holds one of them: what is found was left by the reading of the config.
    wechat.inject("kind=hang".parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let kinds = ["argument", "form", "header", "file", "captured", "client"];
    // In memory that is given back the first bytes are overwritten at once: those are not looked for.
    let canaries = kinds.map(|kind| format!("canary-of-{kind}-0123456789abcdef"));
    let begin = "_".repeat(64);
    let [argument, form, header, file, captured, client] =
        canaries.each_ref().map(|canary| format!("{begin}{canary}"));
    let (mut sources, mut clients) = (String::new(), String::new());
    for n in 0..SOURCES {
        std::fs::write(dir.path().join(n.to_string()), format!("{file}{n}\n")).unwrap();
        sources += &format!(
            r#""s{n}": (
                url: "https://h/{{{{access_token}}}}", args: {{"secret": "{argument}{n}"}},
                form: {{"secret": "{form}{n}", "kept": "{{{{captured}}}}"}},
                headers: {{"X-A": "{header}{n}", "X-B": "x${{file:{n}}}"}},
                capture: "kept", captured: "{captured}{n}",
            ),"#
        );
        clients += &format!(r#""c{n}": (keys: ["{client}{n}"]),"#);
    }
    let extra = format!(r#"log: (format: "json"), clients: {{{clients}}},"#);
    let text = config_text(wechat.address(), dir.path(), &extra);
    let text = text.replacen("token_sources: {", &format!("token_sources: {{{sources}"), 1);
    let path = dir.path().join("config.ron");
    std::fs::write(&path, text).unwrap();
    let ours = serve(binary(), &path).await;
    let counts = copies_in_memory(ours.pid(), &canaries.each_ref().map(String::as_str));
    // One for each source, where it is used; a client's key once more, for a reload to compare with.
    let expected = [1, 1, 1, 1, 1, 2].map(|copies| copies * SOURCES);
    assert_eq!(counts, expected, "copies of {kinds:?}");
    wechat.stop().await;
}

/// Set where this test runs once more, as a process of its own.
const CHILD: &str = "WTS_TEST_CHILD";

#[tokio::test]
async fn a_panic_tells_its_place_and_nothing_of_what_it_was_about() {
    if std::env::var_os(CHILD).is_some() {
        let panics = || {
            let canary = "panic-canary".to_owned();
            assert!(std::panic::catch_unwind(|| panic!("{canary}")).is_err());
            let wrong: Result<(), String> = canary.parse::<u8>().map(|_| ()).map_err(|_| canary);
            assert!(std::panic::catch_unwind(|| wrong.unwrap()).is_err());
        };
        // Before the log is there, as while the config is read, and after.
        logging::hush_panics();
        panics();
        logging::start(&LogConfig::default(), None).unwrap();
        panics();
        return;
    }
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    let name = "secrets::a_panic_tells_its_place_and_nothing_of_what_it_was_about";
    command.args(["--exact", name, "--nocapture"]).env(CHILD, "1").env("RUST_BACKTRACE", "full");
    let output = soon("the end", command.output()).await.unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success() && out.contains("1 passed"), "{out}{err}");
    assert_eq!(err.matches("panic at tests/it/secrets.rs:").count(), 2, "{err}");
    assert_eq!(err.matches("place=\"tests/it/secrets.rs:").count(), 2, "{err}");
    assert!(!out.contains("canary") && !err.contains("canary"), "{out}{err}");
}
