//! The operator's commands as a person and a shell meet them: what they print, what they end with, and
//! that no secret is in what they say.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use wechat_token_server::sandbox::{Account, Endpoint, Settings, Upstream};

use crate::support::certificates::{Authority, Made, self_signed};
use crate::support::{
    NO_COOLDOWN, Running, SECRET, binary, config_text, get, run_text, serve, served, soon, upstream,
};

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// What it says in words: its result, or why there is none.
    pub(crate) fn words(&self) -> String {
        [&*self.out, &self.err].concat()
    }

    /// It ended with this code, having said this.
    #[track_caller]
    pub(crate) fn is(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for part in words {
            assert!(self.words().contains(part), "{part}: {self:?}");
        }
    }
}

/// A server of the sandbox's account, and the config by which commands find it.
struct World {
    wechat: Upstream,
    dir: tempfile::TempDir,
    server: Running,
}

impl World {
    async fn new() -> World {
        World::with(NO_COOLDOWN, "").await
    }

    /// With further groups, and further settings of the HTTP listener.
    async fn with(extra: &str, http: &str) -> World {
        let wechat = upstream(Settings::default()).await;
        let dir = tempfile::tempdir().unwrap();
        let extra = format!(r#"log: (format: "json"), {extra}"#);
        let text = config_text(wechat.address(), dir.path(), &extra);
        let bind = r#"http: (bind: "127.0.0.1:0""#;
        let text = text.replacen(bind, &format!("{bind}, {http}"), 1);
        let server = run_text(binary(), dir.path(), &text).await;
        // As it is in life: the config says which port it is.
        let known = text.replacen(bind, &format!(r#"http: (bind: "{}""#, server.http), 1);
        std::fs::write(dir.path().join("config.ron"), known).unwrap();
        World { wechat, dir, server }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("config.ron")
    }

    /// Changes the config's text.
    fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        assert!(text.contains(from), "{from}: {text}");
        std::fs::write(self.config(), text.replacen(from, to, 1)).unwrap();
    }

    async fn told(&self, args: &[&str]) -> Ended {
        self.told_with(args, &[], None).await
    }

    /// What a command says. No secret is in it, but for a token that was asked for.
    async fn told_with(
        &self,
        args: &[&str],
        variables: &[(&str, &str)],
        input: Option<&str>,
    ) -> Ended {
        let config = self.config();
        let args = [&["--config", config.to_str().unwrap()], args].concat();
        let ended = command(&args, variables, input).await;
        let words = ended.words();
        for secret in [SECRET, Account::SANDBOX_SECRET] {
            assert!(!words.contains(&secret[..secret.len() / 2]), "{words}");
        }
        ended
    }

    async fn stop(mut self) {
        self.server.child.kill().await.unwrap();
        self.wechat.stop().await;
    }
}

pub(crate) async fn command(
    args: &[&str],
    variables: &[(&str, &str)],
    input: Option<&str>,
) -> Ended {
    let mut command = binary();
    command.args(args).envs(variables.iter().copied());
    for name in ["LANG", "LC_ALL", "LC_MESSAGES", "COLUMNS", "REDISCLI_AUTH"] {
        if !variables.iter().any(|(known, _)| *known == name) {
            command.env_remove(name);
        }
    }
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().unwrap();
    if let Some(input) = input {
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
    }
    let output = soon("the end of a command", child.wait_with_output()).await.unwrap();
    Ended {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn get_prints_the_token_and_nothing_else() {
    let world = World::new().await;
    let token = served(world.server.http, "access_token", None).await;
    let told = world.told(&["get", "access_token"]).await;
    assert_eq!((told.code, &*told.out, &*told.err), (0, &*format!("{token}\n"), ""));
    // The mistakes of others, and what only the server's environment has, do not matter for this.
    world.edit("token_sources:", "grace_period: \"${env:ONLY_THE_SERVERS}\", token_sources:");
    world.edit("http: (bind", "http: (max_connections: 0, bind");
    assert_eq!(world.told(&["get", "access_token"]).await.out, told.out);

    for name in ["nope", "", ".", "..", "a/b", "公众号?#%2f", &"x".repeat(100_000)] {
        let told = world.told(&["get", name]).await;
        told.is(65, &["no such source"]);
        assert_eq!(told.out, "", "{name}");
    }
    world.told(&["get"]).await.is(2, &["NAME"]);
    world.edit("127.0.0.1:", "0.0.0.0:");
    assert_eq!(world.told(&["get", "access_token"]).await.out, told.out, "on loopback");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn get_tells_a_token_that_is_not_there_from_a_server_that_is_not() {
    let mut world = World::new().await;
    served(world.server.http, "ticket", None).await;
    world.wechat.inject("kind=errcode&code=40164".parse().unwrap());
    let text = std::fs::read_to_string(world.config()).unwrap();
    let source = r#""ticket": ("#;
    let another =
        format!(r#""later": (url: "http://{}/cgi-bin/token"), {source}"#, world.wechat.address());
    std::fs::write(world.config(), text.replacen(source, &another, 1)).unwrap();
    world.server.signal("-HUP").await;
    world.server.logged("config reloaded", 1).await;
    let told = world.told(&["get", "later"]).await;
    told.is(75, &["no live token", "`wechat-token-server status` says why", "try again in"]);
    assert_eq!(told.out, "");

    world.server.signal("-KILL").await;
    soon("the end", world.server.child.wait()).await.unwrap();
    let address = world.server.http;
    let told = world.told(&["get", "access_token"]).await;
    told.is(
        69,
        &[
            &format!("http://{address} (http.bind of "),
            "Is it running?",
            "--url",
            "http.bind was changed since",
        ],
    );
    assert_eq!(told.out, "");
    world.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_fetches_another_token_unless_there_is_one() {
    let world = World::new().await;
    let token = served(world.server.http, "access_token", None).await;
    let told = world.told(&["refresh", "access_token"]).await;
    told.is(0, &["access_token has another token now: generation ", "good for "]);
    let second = served(world.server.http, "access_token", Some(&token)).await;
    assert!(!told.words().contains(&second[..20]));
    // What was refused is not the current one any more.
    let told = world.told(&["refresh", "access_token", "--stale", &token]).await;
    told.is(0, &["access_token has another token already: generation "]);
    let input = format!("{second}\n");
    let args = ["refresh", "access_token", "--stale", "-", "--print"];
    let told = world.told_with(&args, &[], Some(&input)).await;
    let third = served(world.server.http, "access_token", Some(&second)).await;
    assert_eq!((told.code, told.out), (0, format!("{third}\n")));
    let told = world.told_with(&args, &[], Some(" \n")).await;
    told.is(65, &["standard input holds no token"]);
    // What is longer is not cut, which could leave something else to be sent.
    let long = format!("{third}{}", " ".repeat(20_000));
    let told = world.told_with(&args, &[], Some(&long)).await;
    told.is(65, &["standard input holds more than 8128 bytes"]);
    let told = world.told_with(&args, &[("LANG", "zh_CN.UTF-8")], Some(&long)).await;
    told.is(65, &["标准输入超过 8128 字节"]);
    let most = "x".repeat(8128);
    world.told_with(&args, &[], Some(&most)).await.is(0, &[]);
    let told = world.told(&["refresh", "access_token", "--stale", ""]).await;
    told.is(65, &["--stale holds no token"]);
    let told = world.told(&["refresh", "access_token", "--stale", &"x".repeat(20_000)]).await;
    told.is(65, &["larger than 8 KiB"]);

    world.wechat.inject("kind=errcode&code=40164&times=1".parse().unwrap());
    let told = world.told(&["refresh", "access_token", "--force"]).await;
    told.is(75, &["errcode 40164", "IP allow list"]);
    world.told(&["refresh", "nope"]).await.is(65, &["no such source"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_says_why_it_keeps_a_token_and_does_not_call_that_done() {
    let world = World::with(r#"refresh: (cooldown: "60s"), "#, "").await;
    let token = served(world.server.http, "access_token", None).await;
    for further in [&[][..], &["--force"], &["--print"]] {
        let told = world.told(&[&["refresh", "access_token"], further].concat()).await;
        let (_, wait) = told.err.split_once("; try again in ").unwrap();
        let seconds: u64 = wait.split_once(" seconds. ").unwrap().0.parse().unwrap();
        assert!((500..=600).contains(&seconds), "ten cooldowns: {told:?}");
        told.is(
            75,
            &[
                "keeps its token: nothing was fetched",
                "get access_token | wechat-token-server refresh access_token --stale -",
            ],
        );
        assert_eq!(told.out, "");
    }
    assert_eq!(served(world.server.http, "access_token", None).await, token);
    let told = world.told(&["refresh", "access_token", "--stale", "another"]).await;
    told.is(0, &["another token already"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_is_asked_with_a_key_of_its_own() {
    let extra = r#"clients: {"shop": (keys: ["a-key-of-the-shop-0123"], sources: ["ticket"])}, refresh: (cooldown: "0s"), "#;
    let world = World::with(extra, "").await;
    let ticket = served(world.server.http, "ticket", None).await;
    let url = format!("http://{}", world.server.http);
    let key = ("WECHAT_TOKEN_SERVER_KEY", "a-key-of-the-shop-0123");
    for (args, variables) in [
        (&["get", "ticket", "--url", &url][..], &[key][..]),
        (&["get", "ticket"], &[key, ("WECHAT_TOKEN_SERVER_URL", &url)]),
        (&["get", "ticket"], &[key]),
    ] {
        let told = world.told_with(args, variables, None).await;
        assert_eq!((told.code, told.out), (0, format!("{ticket}\n")), "{args:?} {variables:?}");
    }
    let as_shop = async |args: &[&str]| world.told_with(args, &[key], None).await;
    as_shop(&["get", "access_token"]).await.is(65, &["not for this key"]);
    as_shop(&["refresh", "ticket", "--force"]).await.is(77, &["request_secret alone"]);
    let wrong = ("WECHAT_TOKEN_SERVER_KEY", "not-the-key");
    let told = world.told_with(&["get", "ticket"], &[wrong], None).await;
    told.is(77, &["refuses the key", "request_secret", "WECHAT_TOKEN_SERVER_KEY"]);
    assert!(!told.err.contains("not-the-key"));
    let broken = ("WECHAT_TOKEN_SERVER_KEY", "not\nthe-key");
    let told = world.told_with(&["get", "ticket"], &[broken], None).await;
    told.is(64, &["the key holds what no request can", "WECHAT_TOKEN_SERVER_KEY"]);
    // The config's own key is sent to no address but the config's.
    let told = world.told(&["get", "ticket", "--url", &url]).await;
    told.is(64, &["--url names a server", "WECHAT_TOKEN_SERVER_KEY"]);
    for more in ["http://user:hunter2@h", "http://h/?secret=hunter2", "http://h/#hunter2"] {
        let told = world.told_with(&["get", "ticket", "--url", more], &[key], None).await;
        told.is(64, &["--url: it holds more than an address"]);
        assert!(!told.words().contains("hunter2"), "{told:?}");
    }
    let no_url = ("WECHAT_TOKEN_SERVER_URL", "ftp://h");
    let told = world.told_with(&["get", "t"], &[key, no_url], None).await;
    told.is(64, &["WECHAT_TOKEN_SERVER_URL: write http://host:port"]);
    // The stand-in for WeChat is no server of ours.
    let other = format!("http://{}", world.wechat.address());
    let told = world.told_with(&["get", "ticket", "--url", &other], &[key], None).await;
    told.is(76, &["server of this version?"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_secret_is_found_in_the_stores_directory() {
    let world = World::new().await;
    served(world.server.http, "ticket", None).await;
    world.edit(&format!(r#"request_secret: "{SECRET}","#), "");
    let told = world.told(&["get", "ticket"]).await;
    let file = world.dir.path().join("store/request_secret");
    told.is(69, &[file.to_str().unwrap(), "makes it at its first start"]);
    let told = world.told_with(&["get", "ticket"], &[("LANG", "zh_CN.UTF-8")], None).await;
    told.is(69, &["不存在或为空"]);
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    world.told(&["get", "ticket"]).await.is(0, &[]);
    // One that only the server can read is no hindrance where there is another.
    world.edit("http: (", "request_secret: \"${env:ONLY_THE_SERVERS}\", http: (");
    world.told(&["get", "ticket"]).await.is(78, &["ONLY_THE_SERVERS", "WECHAT_TOKEN_SERVER_KEY"]);
    let key = ("WECHAT_TOKEN_SERVER_KEY", SECRET);
    world.told_with(&["get", "ticket"], &[key], None).await.is(0, &[]);
    world.edit("http: (", "http (");
    world.told_with(&["get", "ticket"], &[key], None).await.is(78, &["1 mistake in"]);
    world.stop().await;
}

/// Puts texts into files of the world's directory; their paths.
fn files<const N: usize>(world: &World, texts: [(&str, String); N]) -> [String; N] {
    texts.map(|(name, text)| {
        let path = world.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_the_configured_certificate_is_trusted_and_no_other() {
    let files_of = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    // Names and years that nobody would trust: it is the very certificate all the same.
    let made = authority.made("elsewhere.example", [2020, 2021]);
    let world = World::with(NO_COOLDOWN, &made.setting(files_of.path())).await;
    soon("a token", async {
        while get(world.server.resp, "ticket").await.is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    world.told(&["get", "ticket"]).await.is(0, &[]);
    let key = ("WECHAT_TOKEN_SERVER_KEY", SECRET);
    let url = format!("https://{}", world.server.http);
    let other = Authority::new();
    let [ca, own, stranger] = files(
        &world,
        [
            ("ca.pem", authority.pem()),
            ("own.pem", made.cert.clone()),
            ("stranger.pem", other.pem()),
        ],
    );
    let at = async |args: &[&str]| {
        world.told_with(&[&["get", "ticket", "--url", &url], args].concat(), &[key], None).await
    };
    at(&["--ca", &own]).await.is(0, &[]);
    at(&[]).await.is(69, &["invalid peer certificate"]);
    at(&["--ca", &stranger]).await.is(69, &["invalid peer certificate"]);
    // The authority's word is believed for what it says: the certificate has ended.
    at(&["--ca", &ca]).await.is(69, &["clock"]);
    at(&["--ca", "/nowhere.pem"]).await.is(78, &["--ca: /nowhere.pem"]);
    let plain = format!("http://{}", world.server.http);
    let told = world.told_with(&["get", "ticket", "--url", &plain], &[key], None).await;
    told.is(76, &["https:// and http://"]);
    // Somebody else answers at the address of the config.
    let Made { cert, .. } = self_signed("elsewhere.example");
    std::fs::write(files_of.path().join("server.pem"), cert).unwrap();
    world.told(&["get", "ticket"]).await.is(69, &["another certificate than http.tls.cert"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_a_certificate_is_shown_one() {
    let files_of = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let clients = files_of.path().join("clients.pem");
    std::fs::write(&clients, authority.pem()).unwrap();
    let tls = authority.server().setting(files_of.path());
    let tls = tls.replace(')', &format!(", client_ca: {clients:?})"));
    let world = World::with(NO_COOLDOWN, &tls).await;
    soon("a token", async {
        while get(world.server.resp, "ticket").await.is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    world.told(&["get", "ticket"]).await.is(78, &["http.tls.client_ca", "--identity FILE"]);
    let both = |made: Made| [made.cert, made.key].concat();
    let [right, wrong, keyless, ca] = files(
        &world,
        [
            ("right.pem", both(authority.client())),
            ("wrong.pem", both(Authority::new().client())),
            ("keyless.pem", authority.client().cert),
            ("ca.pem", authority.pem()),
        ],
    );
    world.told(&["get", "ticket", "--identity", &right]).await.is(0, &[]);
    world.told(&["get", "ticket", "--identity", &wrong]).await.is(69, &["of --identity"]);
    world.told(&["get", "ticket", "--identity", &keyless]).await.is(78, &["--identity: "]);
    let key = ("WECHAT_TOKEN_SERVER_KEY", SECRET);
    let url = format!("https://{}", world.server.http);
    let args = ["get", "ticket", "--url", &url];
    let told = world.told_with(&args, &[key], None).await;
    told.is(69, &["name its certificate or its authority with --ca"]);
    assert!(!told.err.contains("Is it running?"), "{told:?}");
    let args = ["get", "ticket", "--url", &url, "--ca", &ca];
    world.told_with(&args, &[key], None).await.is(69, &["show one with --identity"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_each_source_and_its_exit_code_says_whether_all_are_live() {
    let mut world = World::new().await;
    let token = served(world.server.http, "access_token", None).await;
    let ticket = served(world.server.http, "ticket", None).await;
    let told = world.told(&["status"]).await;
    told.is(
        0,
        &[
            "2 sources, 2 live\n",
            "\nSOURCE        STATE ",
            "\naccess_token  live     1h59m    in 1h",
            " of 2000\n",
        ],
    );
    assert!(!told.out.contains('\u{1b}'), "it is no terminal");
    for line in told.out.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }

    world.wechat.inject("kind=errcode&code=40164".parse().unwrap());
    world.told(&["refresh", "access_token"]).await.is(75, &["40164"]);
    let told = world.told(&["status"]).await;
    told.is(
        1,
        &["1 live, 1 failing", "failing  1h", "errcode 40164\n    what to do: add 127.0.0.1 to"],
    );
    let chinese = world.told_with(&["status"], &[("LANG", "zh_CN.UTF-8")], None).await;
    chinese.is(1, &["    办法："]);
    let json = world.told(&["status", "--json"]).await;
    let parsed: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((json.code, &parsed["sources"][0]["state"]), (1, &"failing".into()));
    for words in [told.words(), chinese.words(), json.words()] {
        assert!(!words.contains(&token[..20]) && !words.contains(&ticket[..20]), "{words}");
    }

    // Who watches sees it again, and is told when the server goes.
    let mut command = binary();
    command.arg("--config").arg(world.config()).args(["status", "--watch"]);
    let mut watching = command.spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut errors = BufReader::new(watching.stderr.take().unwrap()).lines();
    for _ in 0..2 {
        while !soon("a table", lines.next_line()).await.unwrap().unwrap().starts_with("SOURCE ") {}
    }
    world.server.child.kill().await.unwrap();
    let error = soon("an error", errors.next_line()).await.unwrap().unwrap();
    assert!(error.contains("Is it running?"), "{error}");
    assert!(watching.try_wait().unwrap().is_none());
    watching.kill().await.unwrap();
    world.told(&["status"]).await.is(69, &["Is it running?"]);
    world.wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_printed_is_a_failure_and_what_nobody_reads_ends() {
    let world = World::new().await;
    served(world.server.http, "ticket", None).await;
    let config = world.config();
    let full = || std::fs::File::create("/dev/full").unwrap();
    for args in [&["get", "ticket"][..], &["status"], &["status", "--watch"], &["check"], &["man"]]
    {
        let mut command = binary();
        command.arg("--config").arg(&config).args(args).stdout(full());
        // `output` would put a pipe in its place.
        let child = command.spawn().unwrap();
        let ended = soon("the end of a command", child.wait_with_output()).await.unwrap();
        let words = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(71), "{args:?}: {words}");
        assert!(words.contains("standard output cannot be written"), "{args:?}: {words}");
    }
    // As `status --watch | head -1` does.
    let mut command = binary();
    command.arg("--config").arg(&config).args(["status", "--watch"]);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(soon("the first line", lines.next_line()).await.unwrap().is_some());
    drop(lines);
    let ended = soon("the end of a command that nobody reads", child.wait()).await.unwrap();
    assert_eq!(ended.code(), Some(0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_says_what_has_changed_or_what_is_wrong() {
    let world = World::with(
        r#"clients: {"shop": (keys: ["a-key-of-the-shop-0123"])}, refresh: (cooldown: "0s"), "#,
        "",
    )
    .await;
    served(world.server.http, "ticket", None).await;
    let address = world.server.http.to_string();
    // The port that the server took is another setting than the one that it was started with.
    world.edit(&address, "127.0.0.1:0");
    let key = [("WECHAT_TOKEN_SERVER_KEY", SECRET)];
    let url = format!("http://{address}");
    let reload = async || world.told_with(&["reload", "--url", &url], &key, None).await;
    reload().await.is(0, &["reloaded; 2 sources as before\n"]);
    let another = format!(r#""more": (url: "http://{}/cgi-bin/token"), "#, world.wechat.address());
    world.edit(r#""ticket": ("#, &format!(r#"{another}"ticket": (timeout: "7s", "#));
    world.edit(r#"resp: (bind"#, r#"resp: (max_connections: 7, bind"#);
    let told = reload().await;
    told.is(
        0,
        &[
            "1 sources as before\n",
            "changed: ticket\nadded: more\n",
            "next start: resp.max_connections\n",
        ],
    );
    world.server.logged("config reloaded", 2).await;
    let audit = world.server.log();
    let line = audit.lines().find(|line| line.contains("order given")).unwrap();
    for part in [r#""order":"reload""#, r#""client":"default""#, "1 sources kept"] {
        assert!(audit.contains(part), "{part}: {line}");
    }
    // Nothing changes where there is a mistake.
    world.edit(&another, r#""more": (url: "ftp://h"), "#);
    let told = reload().await;
    told.is(78, &["so nothing has changed", "\n  token_sources.more.url: "]);
    world.told_with(&["get", "ticket", "--url", &url], &key, None).await.is(0, &[]);
    let shop = [("WECHAT_TOKEN_SERVER_KEY", "a-key-of-the-shop-0123")];
    let told = world.told_with(&["reload", "--url", &url], &shop, None).await;
    told.is(77, &["for the request_secret alone"]);
    assert_eq!(world.server.log().matches("config reloaded").count(), 2);
    assert!(world.server.log().contains("orders are for the request_secret"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_gives_the_calls_back_and_lets_go_on_what_had_waited_for_the_next_day() {
    let mut world = World::with(NO_COOLDOWN, "").await;
    served(world.server.http, "ticket", None).await;
    world.wechat.set(|settings| settings.token_quota = Some(1));
    let told = world.told(&["refresh", "access_token"]).await;
    told.is(75, &["45009"]);
    // Who asks again is told at once, and nothing is sent: the next day is waited for.
    let before = world.wechat.calls(Endpoint::Token);
    world.told(&["refresh", "access_token"]).await.is(75, &["45009", "try again in"]);
    assert_eq!(world.wechat.calls(Endpoint::Token), before);
    world.told(&["status"]).await.is(1, &["access_token  failing"]);
    world.told(&["quota", "show"]).await.is(0, &["access_token  2 of 2000         0\n"]);
    world.told(&["quota", "show", "nope"]).await.is(65, &["no such source"]);

    // It is not done unless it is meant.
    let told = world.told(&["quota", "reset", "ticket"]).await;
    told.is(64, &["ten times a month", "has counted 0 this month", "--yes"]);
    let told = world.told_with(&["quota", "reset", "ticket"], &[], Some("n\n")).await;
    told.is(75, &["nothing was done"]);
    assert_eq!(world.wechat.calls(Endpoint::ClearQuota), 0);
    let told = world.told_with(&["quota", "reset", "ticket"], &[], Some("y\n")).await;
    told.is(0, &["reset 1 of 10 this month\n  access_token is live\n  ticket is live\n"]);
    assert_eq!(world.wechat.calls(Endpoint::ClearQuota), 1);
    soon("a renewal", async {
        while world.told(&["status"]).await.code != 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    let log = world.server.log();
    for part in ["the quota is reset", r#""order":"quota reset""#, "reset 1 of 10 this month"] {
        assert!(log.contains(part), "{part}: {log}");
    }

    // A restart remembers, and the month's are used up at ten.
    for _ in 2..=9 {
        world.told(&["quota", "reset", "access_token", "--yes"]).await.is(0, &[]);
    }
    world.server.signal("-TERM").await;
    soon("the end", world.server.child.wait()).await.unwrap();
    world.server = serve(binary(), &world.config()).await;
    world.told(&["quota", "show", "ticket"]).await.is(0, &["  9\n"]);
    world.told(&["quota", "reset", "ticket", "--yes"]).await.is(0, &["reset 10 of 10"]);
    let told = world.told(&["quota", "reset", "ticket", "--yes"]).await;
    told.is(75, &["resets of this month are used up", "midnight in Beijing"]);
    assert_eq!(world.wechat.calls(Endpoint::ClearQuota), 10, "the eleventh is not sent");
    assert!(!world.server.log().contains(Account::SANDBOX_SECRET));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_that_wechat_refuses_changes_nothing() {
    let extra = r#"clients: {"shop": (keys: ["a-key-of-the-shop-0123"], sources: ["ticket"])}, "#;
    let mut world = World::with(extra, "").await;
    served(world.server.http, "ticket", None).await;
    let reset = async |name: &str| world.told(&["quota", "reset", name, "--yes"]).await;
    world.wechat.inject("kind=errcode&code=40125&times=1".parse().unwrap());
    reset("ticket").await.is(75, &["errcode 40125"]);
    // The month's resets are used up elsewhere: in the console, by another server.
    world.wechat.set(|settings| settings.clear_quota = Some(0));
    let told = reset("ticket").await;
    told.is(75, &["resets of this month are used up", "midnight in Beijing"]);
    world.told(&["quota", "show", "ticket"]).await.is(0, &["  10\n"]);
    let shop = [("WECHAT_TOKEN_SERVER_KEY", "a-key-of-the-shop-0123")];
    let as_shop =
        async |name: &str| world.told_with(&["quota", "reset", name, "--yes"], &shop, None).await;
    as_shop("ticket").await.is(77, &["for the request_secret alone"]);
    as_shop("access_token").await.is(65, &["not for this key"]);
    reset("nope").await.is(65, &["no such source"]);
    let another =
        r#""work": (url: "https://h/cgi-bin/gettoken", args: {"corpid": "c"}), "ticket": ("#;
    world.edit(r#""ticket": ("#, another);
    world.told(&["reload"]).await.is(0, &["added: work"]);
    reset("work").await.is(65, &["which alone gives calls back"]);
    let calls = world.wechat.calls(Endpoint::ClearQuota);
    assert_eq!(calls, 2);
    world.server.child.kill().await.unwrap();
    let told = world.told(&["quota", "reset", "ticket", "--yes"]).await;
    told.is(69, &["Is it running?"]);
    world.wechat.stop().await;
}
