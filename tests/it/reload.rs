//! SIGHUP: the config is read again, and what has not changed notices nothing.

use std::time::Duration;

use wechat_token_server::app;
use wechat_token_server::clock::SystemClock;
use wechat_token_server::config::{self, Environment};
use wechat_token_server::sandbox::{Account, Endpoint, Settings, Upstream};
use wechat_token_server::token::Secret;

use crate::support::{
    NO_COOLDOWN, Running, SECRET, config_text, force, get, run, served, soon, token, upstream,
    value,
};

/// A server of its own with its upstream and its config file.
struct World {
    wechat: Upstream,
    dir: tempfile::TempDir,
    server: Running,
    reloads: usize,
}

/// How long a fetch is under way where a test needs it to be: longer than a reload takes.
const LATENCY: Duration = Duration::from_secs(1);

const RELOADED: &str = "config reloaded";
const NOT_RELOADED: &str = "the config is not reloaded; everything goes on as before";

impl World {
    async fn new(extra: &str) -> World {
        let wechat = upstream(Settings::default()).await;
        let dir = tempfile::tempdir().unwrap();
        let server = run(dir.path(), wechat.address(), extra).await;
        World { wechat, dir, server, reloads: 0 }
    }

    /// The text of the config, as [`run`] wrote it.
    fn text(&self, extra: &str) -> String {
        let extra = format!(r#"log: (format: "json"), {extra}"#);
        config_text(self.wechat.address(), self.dir.path(), &extra)
    }

    /// Reloads this config, and gives the log line that says what came of it.
    async fn reload(&mut self, text: &str) -> serde_json::Value {
        std::fs::write(self.dir.path().join("config.ron"), text).unwrap();
        self.server.signal("-HUP").await;
        self.reloads += 1;
        let lines = soon("a reload", async {
            loop {
                let lines = self.lines(&[RELOADED, NOT_RELOADED]);
                if lines.len() >= self.reloads {
                    return lines;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        lines.await.pop().unwrap()
    }

    /// The log lines with one of these messages.
    fn lines(&self, messages: &[&str]) -> Vec<serde_json::Value> {
        let log = self.server.log();
        let lines =
            log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.filter(|line| messages.iter().any(|message| line["message"] == *message)).collect()
    }

    fn calls(&self) -> (u64, u64) {
        (self.wechat.calls(Endpoint::Token), self.wechat.calls(Endpoint::Ticket))
    }

    /// Both tokens, once they are there.
    async fn tokens(&self) -> (String, String) {
        let ticket = served(self.server.http, "ticket", None).await;
        (served(self.server.http, "access_token", None).await, ticket)
    }

    /// Asks for a refresh of a source and returns when its fetch is under way.
    async fn forced_and_under_way(&self, source: &'static str) -> tokio::task::JoinHandle<String> {
        let endpoint = if source == "ticket" { Endpoint::Ticket } else { Endpoint::Token };
        let calls = self.wechat.calls(endpoint);
        self.wechat.set(|settings| settings.latency = LATENCY);
        let asked = tokio::spawn(force(self.server.http, source));
        soon("a fetch", self.wechat.wait_for_calls(endpoint, calls + 1)).await;
        asked
    }

    async fn stop(mut self) {
        self.server.signal("-TERM").await;
        assert_eq!(soon("the end", self.server.child.wait()).await.unwrap().code(), Some(0));
        self.wechat.stop().await;
    }
}

/// `text` without the source `ticket`.
fn without_ticket(text: &str) -> String {
    let (before, rest) = text.split_once("\"ticket\": (").unwrap();
    let (_, after) = rest.split_once("),\n").unwrap();
    format!("{before}{after}")
}

/// Configs to go through in turn: what runs, another schedule, a source less. None of them is a
/// reason to fetch.
fn reloads(text: &str) -> [String; 4] {
    let retimed =
        text.replace("token_sources: {", "refresh: (renew_before: \"5m\"),\n    token_sources: {");
    [retimed.clone(), without_ticket(&retimed), text.to_owned(), without_ticket(text)]
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_has_changed_nothing_happens() {
    let mut world = World::new("").await;
    let tokens = world.tokens().await;
    let line = world.reload(&world.text("")).await;
    assert_eq!((&line["kept"], &line["level"]), (&2.into(), &"INFO".into()));
    for none in ["changed", "removed", "added"] {
        assert_eq!(line[none], "", "{line}");
    }
    assert_eq!(world.tokens().await, tokens);
    assert_eq!(world.calls(), (1, 1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_schedule_keeps_the_token_and_holds_at_once() {
    let mut world = World::new("").await;
    let tokens = world.tokens().await;
    // Within the cooldown the current token is the answer.
    assert_eq!(
        force(world.server.http, "access_token").await,
        token(world.server.http, "access_token").await
    );
    let line = world.reload(&world.text(NO_COOLDOWN)).await;
    assert_eq!(line["changed"], "access_token, ticket");
    assert_eq!(world.tokens().await, tokens);
    assert_eq!(world.calls(), (1, 1));
    let body = force(world.server.http, "access_token").await;
    assert_ne!(value(&body, "access_token").unwrap(), tokens.0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_secret_means_other_tokens_and_those_before_are_not_served() {
    let mut world = World::new("").await;
    let (old, _) = world.tokens().await;
    world.wechat.set(|settings| settings.latency = LATENCY);
    world.wechat.with_model(|model, _| {
        model.account_mut(Account::SANDBOX_APPID).unwrap().secret = Secret::new("another");
    });
    let text = world.text("").replace(Account::SANDBOX_SECRET, "another");
    let line = world.reload(&text).await;
    assert_eq!(line["changed"], "access_token, ticket");
    for source in ["access_token", "ticket"] {
        assert_eq!(token(world.server.http, source).await, "{\"error\": \"not found\"}");
        assert_eq!(get(world.server.resp, source).await, None);
    }
    let (new, _) = world.tokens().await;
    assert!(new != old && world.wechat.accepts(&new).is_live());
    assert_eq!(world.calls(), (2, 2));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_source_is_not_served_and_one_that_comes_back_is_served_from_disk() {
    let mut world = World::new("").await;
    let (access_token, ticket) = world.tokens().await;
    let line = world.reload(&without_ticket(&world.text(""))).await;
    assert_eq!((&line["kept"], &line["removed"]), (&1.into(), &"ticket".into()));
    assert_eq!(token(world.server.http, "ticket").await, "{\"error\": \"not found\"}");
    assert_eq!(force(world.server.http, "ticket").await, "{\"errmsg\": \"unknown type\"}");
    assert_eq!(get(world.server.resp, "ticket").await, None);
    assert_eq!(get(world.server.resp, "access_token").await, Some(access_token));
    let line = world.reload(&world.text("")).await;
    assert_eq!((&line["kept"], &line["added"]), (&1.into(), &"ticket".into()));
    assert_eq!(served(world.server.http, "ticket", None).await, ticket);
    assert_eq!(world.calls(), (1, 1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_source_is_fetched_and_served() {
    let mut world = World::new("").await;
    let tokens = world.tokens().await;
    let ticket = world.text("");
    let (_, ticket) = ticket.split_once("\"ticket\": (").unwrap();
    let (ticket, _) = ticket.split_once("),\n").unwrap();
    let card = ticket.replace("\"jsapi\"", "\"wx_card\"");
    let text =
        world.text("").replace("\"ticket\": (", &format!("\"card\": ({card}),\n\"ticket\": ("));
    let line = world.reload(&text).await;
    assert_eq!((&line["kept"], &line["added"]), (&2.into(), &"card".into()));
    let card = served(world.server.http, "card", None).await;
    assert_eq!(get(world.server.resp, "card").await, Some(card));
    assert_eq!(world.tokens().await, tokens);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_config_changes_nothing_and_every_mistake_is_in_the_log() {
    let mut world = World::new("").await;
    let tokens = world.tokens().await;
    let bad = without_ticket(&world.text(r#"refresh: (cooldown: "soon"), grace_period: "never","#))
        .replace("cgi-bin/token\"", "cgi-bin/token#\"");
    for (text, settings) in [
        (bad.as_str(), &["refresh.cooldown", "grace_period", "token_sources.access_token.url"][..]),
        ("(", &[""]),
    ] {
        let before = world.lines(&["config mistake"]).len();
        let line = world.reload(text).await;
        assert_eq!((&line["message"], &line["level"]), (&NOT_RELOADED.into(), &"ERROR".into()));
        assert_eq!(line["mistakes"], settings.len());
        let mistakes = world.lines(&["config mistake"]).split_off(before);
        let mut named: Vec<_> =
            mistakes.iter().map(|line| line["setting"].as_str().unwrap()).collect();
        let mut settings = settings.to_vec();
        named.sort_unstable();
        settings.sort_unstable();
        assert_eq!(named, settings);
        assert!(mistakes.iter().all(|line| line["level"] == "ERROR" && line["mistake"] != ""));
    }
    assert_eq!(world.tokens().await, tokens);
    assert_eq!(world.calls(), (1, 1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_named_and_the_rest_is_applied() {
    let mut world = World::new("").await;
    let tokens = world.tokens().await;
    let text = without_ticket(&world.text(r#"outbound: (proxy: "http://127.0.0.1:1"),"#))
        .replace(SECRET, "another-request-secret-0123456789");
    let line = world.reload(&text).await;
    assert_eq!(line["removed"], "ticket");
    let warned = world
        .lines(&["these settings have changed and need a restart; until then the old ones hold"]);
    assert_eq!(warned.len(), 1);
    assert_eq!(warned[0]["settings"], "request_secret, outbound.proxy");
    assert_eq!(warned[0]["level"], "WARN");
    assert_eq!(served(world.server.http, "access_token", None).await, tokens.0);
    assert!(!world.server.log().contains("another-request-secret"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_refresh_under_way_is_answered_whatever_becomes_of_its_source() {
    let mut world = World::new(NO_COOLDOWN).await;
    let (first, _) = world.tokens().await;
    // Unchanged, while another source goes.
    let asked = world.forced_and_under_way("access_token").await;
    let line = world.reload(&without_ticket(&world.text(NO_COOLDOWN))).await;
    assert_eq!((&line["kept"], &line["removed"]), (&1.into(), &"ticket".into()));
    let second = value(&soon("an answer", asked).await.unwrap(), "access_token").unwrap();
    assert_ne!(second, first);
    assert_eq!(world.calls().0, 2);
    // Restarted: by what was under way, which is not sent twice.
    let asked = world.forced_and_under_way("access_token").await;
    let schedule = r#"refresh: (cooldown: "0s", renew_before: "5m"),"#;
    let line = world.reload(&without_ticket(&world.text(schedule))).await;
    assert_eq!(line["changed"], "access_token");
    assert!(get(world.server.resp, "access_token").await.is_some(), "it is served all the time");
    let third = value(&soon("an answer", asked).await.unwrap(), "access_token").unwrap();
    assert_ne!(third, second);
    assert_eq!(served(world.server.http, "access_token", None).await, third);
    assert_eq!(world.calls().0, 3);
    // Replaced: by the new source, once the old one's request, whose token is not wanted any more,
    // has ended.
    let asked = world.forced_and_under_way("access_token").await;
    let other =
        without_ticket(&world.text(schedule)).replace("\"grant_type\"", "\"n\": 1, \"grant_type\"");
    world.reload(&other).await;
    assert_eq!(token(world.server.http, "access_token").await, "{\"error\": \"not found\"}");
    let fourth = value(&soon("an answer", asked).await.unwrap(), "access_token").unwrap();
    assert_eq!(served(world.server.http, "access_token", None).await, fourth);
    let calls: Vec<_> = world.wechat.log().into_iter().map(|call| call.at).collect();
    let gap = calls[calls.len() - 1].duration_since(calls[calls.len() - 2]).unwrap();
    assert!(gap >= LATENCY, "two requests were under way");
    assert_eq!(world.calls().0, 5);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_refresh_that_has_no_turn_any_more_is_told_by_the_next_one() {
    let mut world = World::new(NO_COOLDOWN).await;
    let (first, _) = world.tokens().await;
    let both = world.text(NO_COOLDOWN);
    let asked = world.forced_and_under_way("access_token").await;
    // The next refresher waits for that fetch, and its first client for it ...
    let noted = |n: u8| both.replace("\"grant_type\"", &format!("\"n\": {n}, \"grant_type\""));
    world.reload(&noted(1)).await;
    let waiting = tokio::spawn(force(world.server.http, "access_token"));
    // ... but neither has its turn: there is a third one already.
    world.reload(&noted(2)).await;
    let answers = [soon("an answer", asked).await, soon("an answer", waiting).await];
    let [second, third] = answers.map(|body| value(&body.unwrap(), "access_token").unwrap());
    assert!(first != second && second == third);
    let line = world
        .reload(
            &both
                .replace("access_token\": (", "token\": (")
                .replace("{{access_token}}", "{{token}}"),
        )
        .await;
    assert_eq!((&line["removed"], &line["added"]), (&"access_token".into(), &"token".into()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_source_that_is_removed_is_told_so() {
    let mut world = World::new(NO_COOLDOWN).await;
    world.tokens().await;
    let asked = world.forced_and_under_way("ticket").await;
    // The next refresher waits for that fetch, and a client for the next refresher.
    world.reload(&world.text(r#"refresh: (cooldown: "0s", renew_before: "5m"),"#)).await;
    let waiting = tokio::spawn(force(world.server.http, "ticket"));
    world.reload(&without_ticket(&world.text(NO_COOLDOWN))).await;
    for waiter in [asked, waiting] {
        let body = soon("an answer", waiter).await.unwrap();
        assert_eq!(body, "{\"errmsg\": \"unknown type\"}");
    }
    // What was under way is on disk, should the source come back.
    world.reload(&world.text(NO_COOLDOWN)).await;
    served(world.server.http, "ticket", None).await;
    assert_eq!(world.calls().1, 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_reloads_leave_no_descriptor_and_no_thread_behind() {
    let mut world = World::new("").await;
    let tokens = world.tokens().await;
    let texts = reloads(&world.text(""));
    let count = |what: &str| {
        std::fs::read_dir(format!("/proc/{}/{what}", world.server.pid())).unwrap().count()
    };
    let before = (count("fd"), count("task"));
    for text in texts.iter().cycle().take(100) {
        world.reload(text).await;
    }
    world.reload(&world.text("")).await;
    assert_eq!(world.tokens().await, tokens);
    assert_eq!(world.calls(), (1, 1), "no reload has fetched what was on disk");
    let count = |what: &str| {
        std::fs::read_dir(format!("/proc/{}/{what}", world.server.pid())).unwrap().count()
    };
    // Connections of clients that have hung up are closed a moment later.
    soon("the descriptors to be closed", async {
        while count("fd") > before.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(count("task") <= before.1 + 1, "threads");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_reloads_leave_no_task_behind() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.ron");
    let text = config_text(wechat.address(), dir.path(), "");
    let environment = Environment::default();
    let config = config::parse(&text, &file, &environment).unwrap();
    // A runtime of its own, so that its tasks are those of the server alone.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut server =
        runtime.spawn(app::start(config, SystemClock::shared())).await.unwrap().unwrap();
    served(server.http, "ticket", None).await;
    let tasks = || runtime.metrics().num_alive_tasks();
    // With those of connections, which end when they have been idle for a minute: far less than a reload
    // that leaves one behind would add.
    let before = tasks();
    for text in reloads(&text).iter().cycle().take(100).chain([&text]) {
        std::fs::write(&file, text).unwrap();
        let _within = runtime.enter();
        server.reload(&file, &environment).unwrap();
    }
    soon("what was let go to end", async {
        while tasks() > before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!((wechat.calls(Endpoint::Token), wechat.calls(Endpoint::Ticket)), (1, 1));
    assert!(runtime.spawn(server.stop()).await.unwrap());
    runtime.shutdown_background();
    wechat.stop().await;
}
