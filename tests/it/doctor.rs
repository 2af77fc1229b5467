//! `doctor` as an operator meets it: each thing that goes wrong is named with its cause and its remedy, by a
//! server that runs or without one; no token is fetched for it, none is replaced, and no secret is told.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;
use wechat_token_server::sandbox::{Account, Endpoint, Settings, Upstream};
use wechat_token_server::token::Secret;

use crate::support::certificates::{Authority, NAME};
use crate::support::{
    NO_COOLDOWN, Running, SECRET, binary, config_text, run_text, served, soon, upstream,
};
use crate::upstream_tls::{self, Front};

/// A user who owns nothing.
const NOBODY: u32 = 65_534;

/// Whether another user can be tried, which takes root; says so if not.
fn is_root() -> bool {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !is_root {
        eprintln!("SKIPPED: only root can try what another user sees");
    }
    is_root
}

/// What the command has found.
#[derive(Debug)]
struct Report {
    code: i32,
    findings: Vec<Value>,
    text: String,
}

impl Report {
    /// There is a finding with this mark and code, and both languages say these words: of `what` and of what to
    /// do.
    #[track_caller]
    fn has(&self, mark: &str, code: &str, words: &[&str]) {
        let mut of_code = self.findings.iter().filter(|finding| finding["code"] == code);
        let Some(finding) = of_code.next() else { panic!("no {code}: {}", self.text) };
        assert_eq!(finding["mark"], mark, "{finding}");
        for word in words {
            assert!(finding.to_string().contains(word), "{word}: {finding}");
        }
        if mark != "ok" {
            for language in ["en", "zh"] {
                let remedy = finding["remedy"][language].as_str();
                assert!(remedy.is_some_and(|remedy| !remedy.is_empty()), "{language}: {finding}");
            }
        }
        assert!(self.code == 1 || mark != "problem", "{}", self.text);
    }

    #[track_caller]
    fn has_not(&self, code: &str) {
        assert!(self.findings.iter().all(|finding| finding["code"] != code), "{}", self.text);
    }
}

/// The stand-in for WeChat, and a config that fetches from it.
struct World {
    wechat: Upstream,
    dir: tempfile::TempDir,
    text: String,
}

impl World {
    async fn new() -> World {
        World::with("").await
    }

    /// With further groups of settings.
    async fn with(extra: &str) -> World {
        let wechat = upstream(Settings::default()).await;
        let dir = tempfile::tempdir().unwrap();
        let extra = format!(r#"log: (format: "json"), {extra}"#);
        let text = config_text(wechat.address(), dir.path(), &extra);
        World { wechat, dir, text }
    }

    fn edited(mut self, from: &str, to: &str) -> World {
        assert!(self.text.contains(from), "{from}: {}", self.text);
        self.text = self.text.replace(from, to);
        self
    }

    fn account(&self, change: impl FnOnce(&mut Account)) {
        self.wechat
            .with_model(|model, _| change(model.account_mut(Account::SANDBOX_APPID).unwrap()));
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("config.ron")
    }

    /// A server of the config, which says from now on where that is.
    async fn server(&mut self) -> Running {
        let server = run_text(binary(), self.dir.path(), &self.text).await;
        let port = |address: SocketAddr| format!(r#"(bind: "{address}""#);
        let any = r#"(bind: "127.0.0.1:0""#;
        self.text = self.text.replacen(any, &port(server.http), 1);
        self.text = self.text.replacen(any, &port(server.resp), 1);
        server
    }

    /// What the command finds. No secret is in it.
    async fn doctor(&self) -> Report {
        std::fs::write(self.config(), &self.text).unwrap();
        // As an operator keeps it.
        std::fs::set_permissions(
            self.config(),
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .unwrap();
        report(binary(), &self.config()).await
    }

    /// What it finds for a user who may read the config, and nothing that is secret.
    async fn doctor_of_nobody(&self) -> Report {
        let program = self.dir.path().join("wechat-token-server");
        std::fs::copy(env!("CARGO_BIN_EXE_wechat-token-server"), &program).unwrap();
        std::fs::write(self.config(), &self.text).unwrap();
        for (path, mode) in [
            (self.dir.path(), 0o755),
            (&self.config(), 0o644),
            (&self.dir.path().join("server.key"), 0o600),
        ] {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
                .unwrap();
        }
        let mut command = Command::new(program);
        command.uid(NOBODY).gid(NOBODY).stdin(Stdio::null()).kill_on_drop(true);
        report(command, &self.config()).await
    }
}

async fn report(mut command: Command, config: &Path) -> Report {
    command.args(["doctor", "--json", "--config"]).arg(config);
    let output = soon("a report", command.output()).await.unwrap();
    let text = String::from_utf8([output.stdout.clone(), output.stderr].concat()).unwrap();
    for secret in [SECRET, Account::SANDBOX_SECRET] {
        assert!(!text.contains(&secret[..secret.len() / 2]), "{text}");
    }
    let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{text}"));
    let findings = json["findings"].as_array().unwrap().clone();
    let problems = findings.iter().filter(|finding| finding["mark"] == "problem").count();
    assert_eq!(json["problems"], problems);
    let code = output.status.code().unwrap();
    assert_eq!(code == 1, problems > 0, "{text}");
    Report { code, findings, text }
}

/// Kills a server, and returns when it has let go of its store and its ports.
async fn end(mut server: Running) {
    server.child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_well_says_so_and_fetches_nothing_for_it() {
    // So few that a container's limit of descriptors does for them.
    let resp = r#"resp: (bind: "127.0.0.1:0""#;
    let few = format!("{resp}, max_connections: 100");
    let mut world = World::new().await.edited(resp, &few);
    let server = world.server().await;
    let ticket = served(server.http, "ticket", None).await;
    let token = served(server.http, "access_token", None).await;
    let fetches = [Endpoint::Token, Endpoint::StableToken, Endpoint::Ticket, Endpoint::ClearQuota];
    let before = fetches.map(|endpoint| world.wechat.calls(endpoint));
    let report = world.doctor().await;
    assert_eq!(report.code, 0, "{}", report.text);
    for (code, words) in [
        ("server_runs", "version"),
        ("token_ok", "accepts the token"),
        ("host_ok", "127.0.0.1"),
        ("clock_ok", "agrees"),
        ("calls_ok", "1 of 2000"),
        ("store_writable", "store"),
        ("disk_ok", "MiB"),
        ("port_ours", "http.bind"),
        ("descriptors_ok", ""),
        ("config_ok", ""),
    ] {
        report.has("ok", code, &[words]);
    }
    report.has_not("server_does_not_run");
    assert_eq!(fetches.map(|endpoint| world.wechat.calls(endpoint)), before);
    assert_eq!(
        world.wechat.calls(Endpoint::CallbackIp),
        1,
        "one for the token, none for the ticket"
    );
    for secret in [&token, &ticket] {
        assert!(!report.text.contains(&secret[..secret.len() / 2]), "{}", report.text);
    }
    server.logged(r#""order":"doctor""#, 1).await;

    // The token goes on in the store: without a server it is asked about as well, and nothing is tried.
    end(server).await;
    let report = world.doctor().await;
    report.has("ok", "server_does_not_run", &[]);
    report.has("ok", "token_ok", &["accepts the token", "earlier run"]);
    report.has("ok", "calls_ok", &["1 of 2000"]);
    report.has("ok", "port_free", &[]);
    assert_eq!(fetches.map(|endpoint| world.wechat.calls(endpoint)), before);
    world.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_for_people_keeps_to_the_terminal_and_speaks_its_language() {
    let world =
        World::new().await.edited(r#"/cgi-bin/token""#, r#"/cgi-bin/token", hosts: ["x.invalid"]"#);
    world.account(|account| account.allow = Some(vec!["10.1.2.3".parse().unwrap()]));
    world.doctor().await;
    for (language, said) in [("en_US.UTF-8", "IP allow list"), ("zh_CN.UTF-8", "IP白名单")] {
        let mut command = binary();
        command.args(["doctor", "--config"]).arg(world.config());
        command.env("LC_ALL", language).env_remove("COLUMNS");
        let output = soon("a report", command.output()).await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(said) && !text.contains('\x1b'), "{text}");
        assert_eq!(output.status.code(), Some(1));
        let width = |c: char| if u32::from(c) >= 0x2e80 { 2 } else { 1 };
        for line in text.lines().filter(|line| line.contains(' ')) {
            // A word that is longer than a line, such as a path, stands alone.
            let words = line.trim().split(' ').count();
            assert!(words < 3 || line.chars().map(width).sum::<usize>() <= 80, "{line}");
        }
    }
    world.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_not_allowed_is_named_with_the_page_where_it_belongs() {
    let mut world = World::with(NO_COOLDOWN).await;
    world.account(|account| account.allow = Some(vec!["10.1.2.3".parse().unwrap()]));
    let expected =
        ["add 127.0.0.1 to the IP allow list", "Development keys", "127.0.0.1 加入", "开发密钥"];
    // Without a server: tried, and not by a fetch that could replace a token.
    let report = world.doctor().await;
    report.has("problem", "errcode_40164", &expected);
    assert_eq!(world.wechat.calls(Endpoint::Token), 0);
    assert_eq!(world.wechat.calls(Endpoint::StableToken), 1);
    assert!(!world.dir.path().join("store").exists(), "nothing is made");
    // With one: it has met the refusal itself.
    let server = world.server().await;
    server.logged("40164", 1).await;
    let report = world.doctor().await;
    report.has("problem", "errcode_40164", &expected);
    report.has("problem", "errcode_40164", &["no live token"]);
    assert_eq!(world.wechat.calls(Endpoint::StableToken), 1, "a server is not tried beside");
    end(server).await;
    world.account(|account| account.allow = None);
    let report = world.doctor().await;
    report.has("ok", "credentials_ok", &["stable_token"]);
    report.has("ok", "address_ok", &[]);
    world.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_named_with_where_to_get_another() {
    let world = World::new().await;
    world.account(|account| account.secret = Secret::new("reset-in-the-console-0123456789ab"));
    let report = world.doctor().await;
    report.has(
        "problem",
        "errcode_40125",
        &["AppSecret is wrong", "reset it at", "AppSecret 错误"],
    );
    assert_eq!(world.wechat.calls(Endpoint::Token), 0);
    world.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_secret_is_named_by_the_running_server() {
    let mut world = World::new().await;
    world.account(|account| account.refused_with = Some(40243));
    let server = world.server().await;
    server.logged("40243", 1).await;
    let before = world.wechat.calls(Endpoint::Token);
    let report = world.doctor().await;
    report.has(
        "problem",
        "errcode_40243",
        &["unfreeze it in the console", "解冻", "no live token"],
    );
    assert_eq!(world.wechat.calls(Endpoint::Token), before);
    world.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_ten_minutes_late_is_named() {
    let world = World::new().await;
    world.wechat.set(|settings| settings.date_ahead = std::time::Duration::from_secs(600));
    let report = world.doctor().await;
    report.has(
        "problem",
        "clock_off",
        &["is 9 min 5", "behind", "timedatectl", "本机时钟比上游慢"],
    );
    world.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_a_name_is_told_from_one_that_is_down() {
    let world = World::new().await;
    let address = world.wechat.address().to_string();
    let world = world.edited(&format!("http://{address}"), "https://wechat.invalid");
    let report = world.doctor().await;
    report.has("problem", "dns_failure", &["wechat.invalid", "/etc/resolv.conf", "DNS 解析失败"]);
    report.has_not("unreachable");
    let world = world.edited("https://wechat.invalid", "http://127.0.0.1:1");
    let report = world.doctor().await;
    report.has("problem", "unreachable", &["127.0.0.1:1", "firewall"]);
    report.has_not("dns_failure");
    // Another host of the same API does as well.
    let world =
        world.edited(r#"/cgi-bin/token""#, &format!(r#"/cgi-bin/token", hosts: ["{address}"]"#));
    let report = world.doctor().await;
    report.has("problem", "unreachable", &["127.0.0.1:1"]);
    let report = world
        .edited(r#"/getticket""#, &format!(r#"/getticket", hosts: ["{address}"]"#))
        .doctor()
        .await;
    report.has("warning", "unreachable", &["another host of this API answers"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_of_the_upstream_is_named() {
    let authority = Authority::new();
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let front = Front::start(&authority.made(NAME, [2000, 2001]), wechat.address()).await;
    let text = upstream_tls::text(&front, wechat.address(), dir.path(), &authority);
    let world = World { wechat, dir, text };
    let report = world.doctor().await;
    report.has("problem", "certificate_out_of_date", &["expired", "clock", "证书已过期"]);
    front.change_to(&authority.made(NAME, [2020, 2100]));
    world.doctor().await.has("ok", "host_ok", &["TLS"]);
    world.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spent_quota_is_named_by_our_count_and_by_the_upstreams() {
    let mut world =
        World::new().await.edited(r#"/cgi-bin/token""#, r#"/cgi-bin/token", daily_limit: 1"#);
    let server = world.server().await;
    served(server.http, "access_token", None).await;
    let report = world.doctor().await;
    report.has("problem", "calls_spent", &["1 of 1", "midnight in Beijing", "北京时间零点"]);
    end(server).await;
    world.doctor().await.has("problem", "calls_spent", &["1 of 1"]);
    world.wechat.stop().await;

    let mut world = World::new().await;
    world.wechat.set(|settings| settings.token_quota = Some(0));
    let server = world.server().await;
    server.logged("45009", 1).await;
    let report = world.doctor().await;
    report.has(
        "problem",
        "errcode_45009",
        &["calls are used up", "stable_token", "当日调用次数已用完"],
    );
    assert_eq!(world.wechat.calls(Endpoint::Token), 1);
    world.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_written_to_is_named() {
    let world = World::new().await;
    let store = world.dir.path().join("store");
    // What stands in its place is no directory: that keeps root out as well.
    std::fs::write(&store, "").unwrap();
    let report = world.doctor().await;
    report.has("problem", "store_not_writable", &["no directory", "store.path", "不可写"]);
    std::fs::remove_file(&store).unwrap();
    world.doctor().await.has("ok", "store_to_be_made", &[]);

    std::fs::create_dir(&store).unwrap();
    world.doctor().await;
    let mut command = Command::new("unshare");
    let mount = r#"mount -t tmpfs -o ro,mode=700 tmpfs "$0" && exec "$@""#;
    command.args(["--mount", "sh", "-c", mount]).arg(&store);
    command.arg(env!("CARGO_BIN_EXE_wechat-token-server"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let is_permitted = Command::new("unshare")
        .args(["--mount", "sh", "-c", r#"mount -t tmpfs tmpfs "$0""#])
        .arg(&store)
        .stderr(Stdio::null())
        .status()
        .await
        .is_ok_and(|status| status.success());
    if is_permitted {
        let report = report_of(command, &world).await;
        report.has("problem", "store_not_writable", &["read-only", "remount,rw"]);
    } else {
        eprintln!("SKIPPED: no file system can be mounted here (it takes root and unshare)");
    }
    world.wechat.stop().await;
}

async fn report_of(command: Command, world: &World) -> Report {
    report(command, &world.config()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_another_program_has_is_named_with_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let world = World::new().await;
    let first = r#"http: (bind: "127.0.0.1:0""#;
    let world = world.edited(first, &format!(r#"http: (bind: "{address}""#));
    // It hangs up on whoever asks, for as long as the tests run.
    std::thread::spawn(move || while taken.accept().is_ok() {});
    let report = world.doctor().await;
    let own = format!("process {}", std::process::id());
    report.has("problem", "port_taken", &["http.bind", &own, "ss -ltnp", "占用"]);
    report.has("warning", "server_not_asked", &[]);
    report.has("ok", "server_does_not_run", &[]);
    world.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_somebody_else_has_replaced_is_named() {
    let mut world = World::new().await;
    let server = world.server().await;
    served(server.http, "access_token", None).await;
    // A ticket that is fetched with the replaced token would have the server fetch another.
    served(server.http, "ticket", None).await;
    world.wechat.set(|settings| settings.overlap = Some(std::time::Duration::ZERO));
    assert!(world.wechat.rotate(Account::SANDBOX_APPID));
    let report = world.doctor().await;
    let remedy = [
        "somebody else fetched one",
        "wechat-token-server refresh access_token --stale -`",
        "其他程序",
    ];
    report.has("problem", "token_refused", &remedy);
    end(server).await;
    world.doctor().await.has("problem", "token_refused", &remedy);
    world.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_fetch_could_tell_is_not_tried() {
    let world = World::new().await;
    // A rotating endpoint without a twin: WeChat's, by POST with a form.
    let args = r#"args: {"grant_type""#;
    let world = world.edited(args, r#"form: {"grant_type""#);
    let report = world.doctor().await;
    report.has("warning", "credentials_not_tried", &["could end one", "start the server"]);
    assert_eq!(world.wechat.calls(Endpoint::Token) + world.wechat.calls(Endpoint::StableToken), 0);

    // A store in use may hold a live token: nothing is tried then either.
    let mut other = World::new().await;
    let server = other.server().await;
    served(server.http, "access_token", None).await;
    let before = other.wechat.calls(Endpoint::Token);
    let elsewhere = format!(r#"http: (bind: "{}""#, server.http);
    let other = other.edited(&elsewhere, r#"http: (bind: "127.0.0.2:1""#);
    let report = other.doctor().await;
    let pid = format!("process {}", server.pid());
    report.has("problem", "server_elsewhere", &[&pid, "store.path", "--config"]);
    report.has_not("server_does_not_run");
    report.has_not("credentials_not_tried");
    assert_eq!(other.wechat.calls(Endpoint::Token), before);
    assert_eq!(other.wechat.calls(Endpoint::StableToken), 0);
    world.wechat.stop().await;
    other.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_asked_is_seen_all_the_same() {
    // Its key is in the store.
    let mut world = World::new().await.edited(&format!(r#"request_secret: "{SECRET}","#), "");
    let server = world.server().await;
    let pid = format!("process {}", server.pid());
    let store = world.dir.path().join("store");
    server.logged("token renewed", 2).await;
    let before = world.wechat.calls(Endpoint::Token);
    let bind = format!(r#"http: (bind: "{}""#, server.http);
    let mut world = world.edited(&bind, r#"http: (bind: "127.0.0.2:1""#);
    let report = world.doctor().await;
    report.has("problem", "server_elsewhere", &[&pid, "http.bind", "restart it"]);
    report.has("problem", "port_not_served", &["127.0.0.2:1"]);
    report.has_not("server_does_not_run");
    // Which port it took only its log says.
    world = world.edited("127.0.0.2:1", "127.0.0.1:0");
    let report = world.doctor().await;
    report.has("problem", "server_not_asked", &[&pid, "--url"]);
    world = world.edited(r#"http: (bind: "127.0.0.1:0""#, &bind);
    // Without its store it is known by its config.
    let moved = world.dir.path().join("moved");
    std::fs::rename(&store, &moved).unwrap();
    world = world.edited(&bind, r#"http: (bind: "127.0.0.2:1""#);
    let report = world.doctor().await;
    report.has("problem", "server_elsewhere", &[&pid]);
    report.has("problem", "store_gone", &["deleted or moved"]);
    report.has_not("server_does_not_run");
    world = world.edited(r#"http: (bind: "127.0.0.2:1""#, &bind);
    std::fs::rename(&moved, &store).unwrap();
    // One that is gone it holds all the same.
    std::fs::remove_dir_all(&store).unwrap();
    let report = world.doctor().await;
    report.has("problem", "server_not_asked", &[&pid, "request_secret is not there"]);
    report.has("problem", "store_gone", &["written it again"]);
    report.has("ok", "port_ours", &["http.bind"]);
    report.has_not("server_does_not_run");
    report.has_not("port_taken");
    assert_eq!(world.wechat.calls(Endpoint::Token), before);
    assert_eq!(world.wechat.calls(Endpoint::StableToken), 0, "nothing is tried beside a server");
    world.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_config_is_somebody_else() {
    let mut first = World::new().await;
    let server = first.server().await;
    let mut second = World::new().await.edited(SECRET, "a-key-of-its-own-0123456789abcdef");
    for at in [server.http, server.resp] {
        let bind = |address: &dyn std::fmt::Display| format!(r#"(bind: "{address}""#);
        second.text = second.text.replacen(&bind(&"127.0.0.1:0"), &bind(&at), 1);
    }
    let report = second.doctor().await;
    let pid = format!("process {}", server.pid());
    let told = [&*pid, "http.bind of its own", "store.path", "另设 http.bind"];
    report.has("problem", "server_with_another_store", &told);
    report.has_not("server_does_not_run");
    report.has("problem", "port_taken", &["http.bind", &pid]);
    report.has_not("port_ours");
    report.has_not("store_gone");
    assert_eq!(second.wechat.calls(Endpoint::StableToken), 0, "nothing is tried beside a server");
    first.wechat.stop().await;
    second.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_secret_that_keeps_a_server_from_its_start_is_named() {
    let world = World::new().await.edited(&format!(r#"request_secret: "{SECRET}","#), "");
    let store = world.dir.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let keep = |text: &str| std::fs::write(store.join("request_secret"), text).unwrap();
    keep("one-line-of-a-key-0123456789abcdef\nanother\n");
    let report = world.doctor().await;
    report.has("problem", "request_secret_unusable", &["more than one line", "remove the file"]);
    keep("short");
    world.doctor().await.has("warning", "advice", &["request_secret", "fewer than"]);
    keep("one-line-of-a-key-0123456789abcdef\n");
    let report = world.doctor().await;
    report.has_not("request_secret_unusable");
    report.has_not("advice");
    world.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_cannot_be_served_or_is_out_of_date_is_named() {
    let authority = Authority::new();
    let world = World::new().await;
    let tls = authority.server().setting(world.dir.path());
    let first = r#"http: (bind: "127.0.0.1:0""#;
    let mut world = world.edited(first, &format!("{first}, {tls}"));
    let report = world.doctor().await;
    report.has("ok", "certificate_ok", &["http.tls.cert", "2100"]);
    let server = world.server().await;
    let pid = format!("process {}", server.pid());
    server.logged("token renewed", 2).await;
    world.doctor().await.has("ok", "server_runs", &[]);
    std::fs::write(world.dir.path().join("server.pem"), "no certificate").unwrap();
    let report = world.doctor().await;
    report.has("problem", "certificate_unusable", &["http.tls.cert", "PEM"]);
    report.has("problem", "server_not_asked", &[&pid, "http.tls.cert"]);
    report.has_not("server_does_not_run");
    // A file that is missing is a mistake of the config.
    std::fs::remove_file(world.dir.path().join("server.pem")).unwrap();
    let report = world.doctor().await;
    report.has("problem", "config_mistake", &["http.tls.cert", "does not start"]);
    report.has("problem", "server_not_asked", &[&pid]);
    end(server).await;
    authority.made(NAME, [2000, 2001]).setting(world.dir.path());
    let report = world.doctor().await;
    report.has("problem", "certificate_expired", &["http.tls.cert", "2001", "renew"]);
    report.has("warning", "advice", &["http.tls.key", "chmod go="]);
    let key = world.dir.path().join("server.key");
    std::fs::set_permissions(key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    world.doctor().await.has("ok", "key_private", &[]);
    world.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_look_is_told_so_and_not_that_the_server_may_not() {
    if !is_root() {
        return;
    }
    let authority = Authority::new();
    let mut world = World::new().await.edited(&format!(r#"request_secret: "{SECRET}","#), "");
    let tls = authority.server().setting(world.dir.path());
    let resp = r#"resp: (bind: "127.0.0.1:0""#;
    world = world.edited(resp, &format!("{resp}, max_connections: 100, {tls}"));
    let server = world.server().await;
    server.logged("token renewed", 2).await;
    let before = world.wechat.calls(Endpoint::Token);
    let report = world.doctor_of_nobody().await;
    report.has("warning", "server_untold", &["sudo"]);
    report.has("warning", "port_untold", &["sudo"]);
    report.has("warning", "store_not_seen", &["another user"]);
    report.has("warning", "key_not_seen", &["another user"]);
    report.has_not("server_does_not_run");
    assert_eq!(report.code, 0, "{}", report.text);
    // It may run elsewhere.
    let bind = format!(r#"http: (bind: "{}""#, server.http);
    let world = world.edited(&bind, r#"http: (bind: "127.0.0.2:1""#);
    let report = world.doctor_of_nobody().await;
    report.has("warning", "server_untold", &["sudo"]);
    report.has_not("server_does_not_run");
    assert_eq!(world.wechat.calls(Endpoint::Token), before);
    assert_eq!(world.wechat.calls(Endpoint::StableToken), 0, "nothing is tried beside a server");
    world.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_servers_user_may_not_read_is_named_to_that_user_and_to_root() {
    if !is_root() {
        return;
    }
    let world = World::new().await;
    let tls = Authority::new().server().setting(world.dir.path());
    let first = r#"http: (bind: "127.0.0.1:0""#;
    let world = world.edited(first, &format!("{first}, {tls}"));
    let store = world.dir.path().join("store");
    std::fs::create_dir(&store).unwrap();
    std::os::unix::fs::chown(&store, Some(NOBODY), Some(NOBODY)).unwrap();
    let report = world.doctor_of_nobody().await;
    report.has(
        "problem",
        "certificate_unusable",
        &["http.tls.key", "let the server's user read it"],
    );
    let report = world.doctor().await;
    report.has("warning", "key_closed", &["server.key", "chgrp"]);
    report.has_not("key_private");
    world.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_with_mistakes_is_told_and_the_server_asked_all_the_same() {
    let mut world = World::new().await;
    let server = world.server().await;
    served(server.http, "access_token", None).await;
    let world = world
        .edited("token_sources:", r#"grace_period: "${env:ONLY_THE_SERVERS}", token_sources:"#);
    let report = world.doctor().await;
    report.has("warning", "config_mistake", &["ONLY_THE_SERVERS", "only the server has"]);
    report.has("ok", "token_ok", &[]);
    end(server).await;
    world.doctor().await.has("problem", "config_mistake", &["ONLY_THE_SERVERS"]);
    world.wechat.stop().await;
}
