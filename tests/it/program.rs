//! The program as a person meets it: help, exit codes, messages, the sandbox.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use wechat_token_server::sandbox::Settings;

use crate::support::{binary, config_text, get, run, serve, served, soon, upstream};

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

async fn ended(args: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = binary();
    command.args(args).env_remove("WECHAT_APPID").env_remove("WECHAT_SECRET");
    command.envs(variables.iter().copied()).current_dir(env!("CARGO_MANIFEST_DIR"));
    outcome(&mut command).await
}

async fn outcome(command: &mut Command) -> Ended {
    let output = soon("the end", command.output()).await.unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test]
async fn without_the_variables_it_names_them_and_the_sandbox() {
    let ended = ended(&[], &[]).await;
    assert_eq!(ended.code, Some(78));
    for part in
        ["WECHAT_APPID is not set", "WECHAT_SECRET is not set", "wechat-token-server sandbox"]
    {
        assert!(ended.err.contains(part), "{}", ended.err);
    }
}

#[tokio::test]
async fn check_says_what_a_config_would_do_and_shows_no_secret() {
    let variables = [("WECHAT_APPID", "wx0"), ("WECHAT_SECRET", "hunter2")];
    let ended = ended(&["check"], &variables).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert_eq!(ended.out, include_str!("../golden/check.txt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn advice_is_printed_by_check_and_logged_at_the_start() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let ours = run(dir.path(), wechat.address(), "").await;
    let file = dir.path().join("config.ron");
    let command = format!("run `chmod go= {}`", file.display());
    assert!(ours.log().contains(&command), "{}", ours.log());
    let check = async || ended(&["--config", file.to_str().unwrap(), "check"], &[]).await;
    let told = check().await;
    assert_eq!(told.code, Some(0), "advice is no mistake");
    let line = "advice   request_secret: is a secret in a file that others may read; ";
    assert!(told.out.contains(line) && told.out.contains(&command), "{}", told.out);
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, private).unwrap();
    assert!(!check().await.out.contains("advice"));
    wechat.stop().await;
}

#[tokio::test]
async fn help_and_version_are_there() {
    let help = ended(&["--help"], &[]).await;
    assert_eq!(help.code, Some(0));
    for word in ["serve", "check", "sandbox", "--config", "config.ron"] {
        assert!(help.out.contains(word), "{}", help.out);
    }
    let version = ended(&["--version"], &[]).await;
    assert_eq!(version.out, concat!("wechat-token-server ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[tokio::test]
async fn every_command_is_in_the_manual_page_and_completed() {
    let help = ended(&["--help"], &[]).await.out;
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let names = commands.lines().take_while(|line| !line.is_empty());
    let names: Vec<&str> = names.map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(names.len() >= 11 && names.contains(&"import"), "{names:?}");
    let page = ended(&["man"], &[]).await;
    assert_eq!((page.code, &*page.err), (Some(0), ""));
    assert!(page.out.contains(".TH wechat-token-server 1 "));
    assert_eq!(page.out.matches("\n.ie ").count(), 0, "one page, with one beginning");
    for shell in ["bash", "zsh", "fish"] {
        let script = ended(&["completions", shell], &[]).await;
        assert_eq!((script.code, &*script.err), (Some(0), ""));
        for name in &names {
            assert!(script.out.contains(name), "{shell} {name}");
            let heading = format!(".SH \"{}\"\n", name.to_uppercase());
            assert!(page.out.contains(&heading), "{heading}");
        }
    }
    // A password in `ps` is warned of where the flag is explained.
    for words in ["REDISCLI_AUTH", "WECHAT_TOKEN_SERVER_KEY", "EXIT STATUS", "standard input"] {
        assert!(page.out.contains(words), "{words}");
    }
}

/// The binary's command in `here`, with `etc` in the place of /etc. It takes a mount namespace.
fn binary_with_etc(here: &Path, etc: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c"]);
    command.arg(r#"mount --bind "$0" /etc && exec "$@""#).arg(etc);
    command.arg(env!("CARGO_BIN_EXE_wechat-token-server")).current_dir(here);
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

#[tokio::test]
async fn commands_find_the_installed_config_where_none_is_named_or_here() {
    let dir = tempfile::tempdir().unwrap();
    let [here, etc] = ["here", "etc"].map(|name| dir.path().join(name));
    let [at_hand, named, installed] = [
        here.join("config.ron"),
        here.join("named.ron"),
        etc.join("wechat-token-server/config.ron"),
    ];
    // Told apart by the port of HTTP, where nothing listens.
    for (file, port) in [(&at_hand, "1"), (&named, "2"), (&installed, "3")] {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let text = config_text("127.0.0.1:9".parse().unwrap(), dir.path(), "");
        std::fs::write(file, text.replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1))
            .unwrap();
    }
    let permitted = Command::new("unshare").args(["--map-root-user", "--mount", "true"]).status();
    if !permitted.await.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: nothing can be mounted here (it takes unshare, and user namespaces)");
        return;
    }
    let run = async |args: &[&str]| outcome(binary_with_etc(&here, &etc).args(args)).await;
    let reads = async |args: &[&str], port: &str| {
        let told = run(args).await;
        assert_eq!(told.code, Some(0), "{args:?}: {}", told.err);
        assert!(
            told.out.contains(&format!("http     127.0.0.1:{port},")),
            "{args:?}: {}",
            told.out
        );
    };
    reads(&["check"], "1").await;
    reads(&["check", "--config", "named.ron"], "2").await;
    std::fs::remove_file(&at_hand).unwrap();
    reads(&["check"], "3").await;
    reads(&["check", "--config", "named.ron"], "2").await;
    let asked = run(&["get", "access_token"]).await;
    assert_eq!(asked.code, Some(69));
    let place = "http://127.0.0.1:3 (http.bind of /etc/wechat-token-server/config.ron)";
    assert!(asked.err.contains(place), "{}", asked.err);
    // What serves takes nothing but what is here or named: it would be a second server on one store.
    for args in [&[][..], &["serve"]] {
        let told = run(args).await;
        assert_eq!(told.code, Some(78), "{args:?}: {}", told.err);
        assert!(told.err.contains("config.ron") && !told.err.contains("/etc/"), "{}", told.err);
    }
    std::fs::remove_file(&installed).unwrap();
    let told = run(&["check"]).await;
    assert_eq!(told.code, Some(78), "{}", told.out);
    assert!(told.err.contains("config.ron") && !told.err.contains("/etc/"), "{}", told.err);
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.ron");
    let text = config_text("127.0.0.1:1".parse().unwrap(), dir.path(), "").replacen(
        "http: (bind: \"127.0.0.1:0\")",
        &format!("http: (bind: \"{address}\")"),
        1,
    );
    std::fs::write(&file, text).unwrap();
    let ended = ended(&["--config", file.to_str().unwrap()], &[]).await;
    assert_eq!(ended.code, Some(71));
    assert!(
        ended.err.contains(&format!("cannot listen on {address} (http.bind)")),
        "{}",
        ended.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_secret_is_made_at_the_first_start_and_logs_go_to_daily_files() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.ron");
    let extra = r#"log: (dir: "logs", keep: 2),"#;
    let text = config_text(wechat.address(), dir.path(), extra);
    let text = text.lines().filter(|line| !line.contains("request_secret")).collect::<String>();
    std::fs::write(&file, text).unwrap();
    let mut secrets = Vec::new();
    for _ in 0..2 {
        let mut child = binary().arg("--config").arg(&file).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut told = false;
        let http: std::net::SocketAddr = loop {
            let line = soon("the start", lines.next_line()).await.unwrap().unwrap();
            told |= line.contains("the request secret is in this file");
            if let Some((_, rest)) = line.split_once("serving") {
                let field = rest.split_whitespace().find_map(|field| field.strip_prefix("http="));
                break field.unwrap().parse().unwrap();
            }
        };
        assert!(told);
        let path = dir.path().join("store/request_secret");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&path).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        let secret = std::fs::read_to_string(path).unwrap();
        let target = format!("/wechat/token?type=nope&secret={}", secret.trim());
        assert_eq!(
            crate::support::http(http, "GET", &target).await.1,
            "{\"error\": \"not found\"}"
        );
        secrets.push(secret);
    }
    assert!(secrets[0] == secrets[1] && secrets[0].trim().len() == 32);
    let log = std::fs::read_dir(dir.path().join("logs")).unwrap().next().unwrap().unwrap().path();
    let name = log.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("wechat-token-server.") && name.ends_with(".log"), "{name}");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("serving") && !log.contains(secrets[0].trim()));
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_request_secret_that_is_no_key_is_refused_and_a_short_one_advised_against() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.ron");
    let text = config_text(wechat.address(), dir.path(), "");
    let text = text.lines().filter(|line| !line.contains("request_secret")).collect::<String>();
    std::fs::write(&file, text).unwrap();
    let kept = dir.path().join("store/request_secret");
    std::fs::create_dir(kept.parent().unwrap()).unwrap();
    let told = async |command: &[&str]| {
        ended(&[&["--config", file.to_str().unwrap()], command].concat(), &[]).await
    };

    std::fs::write(&kept, "hunter2-hunter2-1\nhunter2-hunter2-2\n").unwrap();
    for (command, code) in [(&["serve"][..], 78), (&["check"], 78), (&["status"], 78)] {
        let told = told(command).await;
        assert_eq!(told.code, Some(code), "{command:?}: {}", told.err);
        for words in [kept.to_str().unwrap(), "more than one line", "remove the file"] {
            assert!(told.err.contains(words), "{command:?}: {}", told.err);
        }
        assert!(!(told.err + &told.out).contains("hunter2"), "{command:?}");
    }

    std::fs::write(&kept, "hunter2\n").unwrap();
    let advice = format!("in {}: has fewer than 16 characters", kept.display());
    let checked = told(&["check"]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.err);
    assert!(checked.out.contains(&format!("advice   request_secret: {advice}")), "{}", checked.out);
    for (content, words) in
        [("hunter2\n", &*advice), ("", "the file of the request secret was empty")]
    {
        std::fs::write(&kept, content).unwrap();
        let mut child = binary().arg("--config").arg(&file).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut log = String::new();
        while !log.contains("serving") {
            log += &soon("the start", lines.next_line()).await.unwrap().expect("it serves");
        }
        assert!(log.contains(words) && log.contains("WARN"), "{log}");
        assert!(!log.contains("hunter2"), "{log}");
        child.kill().await.unwrap();
    }
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_advice_on_a_weak_kept_request_secret_can_be_followed() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.ron");
    let text = config_text(wechat.address(), dir.path(), r#"log: (format: "json"),"#);
    let text = text.lines().filter(|line| !line.contains("request_secret")).collect::<String>();
    std::fs::write(&file, text).unwrap();
    let kept = dir.path().join("store/request_secret");
    std::fs::create_dir(kept.parent().unwrap()).unwrap();
    std::fs::write(&kept, "hunter2\n").unwrap();
    let mut ours = serve(binary(), &file).await;
    let log = ours.log();
    let steps = ["stop the server", "remove the file", "start it"];
    let places = steps.map(|step| log.find(step).unwrap_or_else(|| panic!("{step}: {log}")));
    assert!(places.is_sorted(), "{log}");

    ours.signal("-TERM").await;
    soon("the end", ours.child.wait()).await.unwrap();
    std::fs::remove_file(&kept).unwrap();
    let ours = serve(binary(), &file).await;
    assert_eq!(std::fs::read_to_string(&kept).unwrap().trim().len(), 32);
    assert!(!ours.log().contains("fewer than 16 characters"), "{}", ours.log());
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_use_ends_the_second_server_with_75_and_names_the_directory() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let _first = run(dir.path(), wechat.address(), "").await;
    let file = dir.path().join("config.ron");
    let second = ended(&["--config", file.to_str().unwrap()], &[]).await;
    assert_eq!(second.code, Some(75));
    assert!(second.err.contains(dir.path().join("store").to_str().unwrap()), "{}", second.err);
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_it_with_0_and_what_is_in_flight_is_finished() {
    for signal in ["-TERM", "-INT"] {
        let wechat = upstream(Settings::default()).await;
        let dir = tempfile::tempdir().unwrap();
        let mut ours = run(dir.path(), wechat.address(), crate::support::NO_COOLDOWN).await;
        served(ours.http, "access_token", None).await;
        wechat.set(|settings| settings.latency = Duration::from_secs(1));
        let before = wechat.calls(wechat_token_server::sandbox::Endpoint::Token);
        let forced = tokio::spawn(crate::support::force(ours.http, "access_token"));
        soon(
            "the call",
            wechat.wait_for_calls(wechat_token_server::sandbox::Endpoint::Token, before + 1),
        )
        .await;
        ours.signal(signal).await;
        let body = forced.await.unwrap();
        assert!(body.contains("expires_in"), "{body}");
        assert_eq!(soon("the end", ours.child.wait()).await.unwrap().code(), Some(0));
        wechat.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_whatever_the_log_level_is() {
    let wechat = upstream(Settings::default()).await;
    for level in ["error", "off", ""] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.ron");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        drop(taken);
        let text = config_text(wechat.address(), dir.path(), "");
        let text = text.replacen(
            "http: (bind: \"127.0.0.1:0\")",
            &format!("http: (bind: \"{address}\")"),
            1,
        );
        std::fs::write(&file, text).unwrap();
        let mut child = binary().env("RUST_LOG", level).arg("-c").arg(&file).spawn().unwrap();
        soon("the listener", async {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        served(address, "access_token", None).await;
        assert!(child.try_wait().unwrap().is_none(), "it runs on at level {level:?}");
        child.kill().await.unwrap();
    }
    wechat.stop().await;
}

/// The greeting of a sandbox, up to its last line.
async fn greeting(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut text = String::new();
    while let Some(line) = soon("the greeting", lines.next_line()).await.unwrap() {
        text.push_str(&line);
        text.push('\n');
        if line.starts_with("Ctrl-C") {
            return text;
        }
    }
    panic!("it ended after:\n{text}");
}

#[tokio::test]
async fn wrong_words_of_the_sandbox_are_refused_with_the_right_ones() {
    for (flag, word, right) in [
        ("--lifetime", "0s", "at least 1s"),
        ("--lifetime", "1", "write 500ms, 30s, 10m or 2h"),
        ("--latency", "fast", "write 500ms, 30s, 10m or 2h"),
        ("--set", "foo=1", "there are lifetime, overlap, window"),
        ("--set", "overlap", "write NAME=VALUE, such as overlap=2s"),
        ("--set", "value_bytes=8", "from 32 to 65536"),
        ("--fault", "kind=x", "there are kind="),
        ("--http", "0.0.0.0:0", "write a loopback address"),
    ] {
        let told = ended(&["sandbox", flag, word], &[]).await;
        assert_eq!(told.code, Some(2), "{flag} {word}: {}", told.err);
        let is_told = told.err.contains(flag) && told.err.contains(right);
        assert!(is_told && told.out.is_empty(), "{flag} {word}: {}", told.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_finds_free_ports_renews_in_sight_and_leaves_nothing_behind() {
    let places = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut command = binary();
    command.env("TMPDIR", places.path()).args([
        "sandbox",
        "--lifetime",
        "4s",
        "--upstream",
        "127.0.0.1:0",
    ]);
    command.args(["--http", &format!("127.0.0.1:{port}"), "--resp", "127.0.0.1:0"]);
    let mut child = command.spawn().unwrap();
    let greeting = greeting(&mut child).await;
    assert!(greeting.contains(&format!("port {port} is taken")), "{greeting}");
    let resp = greeting.lines().find_map(|line| line.trim().strip_prefix("redis")).unwrap();
    let resp = resp.trim().parse().unwrap();
    let mut values = std::collections::BTreeSet::new();
    soon("two renewals", async {
        while values.len() < 3 {
            values.extend(get(resp, "access_token").await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(std::fs::read_dir(places.path()).unwrap().count(), 1);
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    assert_eq!(soon("the end", child.wait()).await.unwrap().code(), Some(0));
    assert_eq!(std::fs::read_dir(places.path()).unwrap().count(), 0);
}
