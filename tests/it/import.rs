//! The cut-over: the running tokens of an old server, taken over from its Redis, so that the first start
//! fetches none. From our own listener, and from a real Redis in every form that SDKs keep tokens in.

use std::path::{Path, PathBuf};

use wechat_token_server::sandbox::{Account, Endpoint, Settings, Upstream};

use crate::operator::{Ended, command};
use crate::support::{
    Running, SECRET, binary, config_text, files_with, run, run_text, serve, served, upstream,
};

/// The config of the new server in a directory of its own.
fn config(dir: &Path, wechat: &Upstream) -> PathBuf {
    let extra = r#"log: (format: "json"),"#;
    let file = dir.join("config.ron");
    std::fs::write(&file, config_text(wechat.address(), dir, extra)).unwrap();
    file
}

/// An old server that has fetched both tokens.
struct Old {
    server: Running,
    token: String,
    ticket: String,
    _dir: tempfile::TempDir,
}

impl Old {
    async fn start(wechat: &Upstream) -> Old {
        let dir = tempfile::tempdir().unwrap();
        let server = run(dir.path(), wechat.address(), "").await;
        let token = served(server.http, "access_token", None).await;
        let ticket = served(server.http, "ticket", None).await;
        Old { server, token, ticket, _dir: dir }
    }

    /// Where it is taken over from.
    fn url(&self) -> String {
        format!("redis://{}", self.server.resp)
    }

    async fn kill(&mut self) {
        self.server.child.kill().await.unwrap();
    }
}

async fn import(file: &Path, args: &[&str], variables: &[(&str, &str)]) -> Ended {
    let args = [&["--config", file.to_str().unwrap(), "import"], args].concat();
    let ended = command(&args, variables, None).await;
    for secret in [SECRET, Account::SANDBOX_SECRET, "hunter2"] {
        assert!(!ended.words().contains(secret), "{ended:?}");
    }
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_serves_what_was_taken_over_and_fetches_nothing() {
    let wechat = upstream(Settings::default()).await;
    let mut old = Old::start(&wechat).await;
    let new_dir = tempfile::tempdir().unwrap();
    let file = config(new_dir.path(), &wechat);
    let from = old.url();
    let told = import(&file, &[&from], &[]).await;
    told.is(
        0,
        &[
            "access_token: the token of access_token is taken over, good for 1h",
            "ticket: the token of ticket is taken over",
            "stop the old server, then start this one",
        ],
    );
    assert!(!told.words().contains(&old.token[..12]) && !told.words().contains(&old.ticket[..12]));
    let calls = wechat.calls(Endpoint::Token) + wechat.calls(Endpoint::Ticket);

    let mut new = serve(binary(), &file).await;
    assert_eq!(served(new.http, "access_token", None).await, old.token);
    assert_eq!(served(new.http, "ticket", None).await, old.ticket);
    assert_eq!(wechat.calls(Endpoint::Token) + wechat.calls(Endpoint::Ticket), calls);
    assert!(wechat.accepts(&old.token).is_live());

    // The server that runs has the store, and is told apart from a mistake.
    let told = import(&file, &[&from], &[]).await;
    told.is(75, &["the server is running, or another import is", "stop it first"]);
    new.child.kill().await.unwrap();
    old.kill().await;
    import(&file, &[&from], &[]).await.is(69, &["no Redis answers at 127.0.0.1:"]);
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_stores_own_is_not_replaced_unless_that_is_meant() {
    let wechat = upstream(Settings::default()).await;
    let new_dir = tempfile::tempdir().unwrap();
    let file = config(new_dir.path(), &wechat);
    let mut new = serve(binary(), &file).await;
    served(new.http, "ticket", None).await;
    new.signal("-TERM").await;
    new.child.wait().await.unwrap();
    let mut old = Old::start(&wechat).await;
    let from = format!("{}/0", old.url());
    let told = import(&file, &[&from], &[]).await;
    told.is(65, &["nothing is taken over", "has a token of its own for access_token", "--replace"]);
    import(&file, &[&from, "--replace"], &[]).await.is(0, &["access_token: the token"]);
    let mut new = serve(binary(), &file).await;
    assert_eq!(served(new.http, "access_token", None).await, old.token);
    new.signal("-TERM").await;
    new.child.wait().await.unwrap();
    // Once more is no harm: it is the same token.
    import(&file, &[&from, "access_token=access_token"], &[]).await.is(0, &["good for 1h"]);

    for (args, code, words) in [
        (&["http://h"][..], 64, "neither redis:// nor rediss://"),
        (&["redis://:hunter2@h?x"], 64, "something behind its path"),
        (&[], 2, "<URL>"),
        (&[&*from, "ticket=nope"], 65, "nope: there is no such source"),
        (&[&*from, "redis://:hunter2@h"], 64, "has to be written KEY=SOURCE"),
        (&[&*from, "no-key=ticket"], 65, "no-key is not taken over: the old Redis has no such key"),
        (&[&*from, "ticket=ticket", "no-key=access_token"], 65, "no-key is not taken over"),
    ] {
        let told = import(&file, args, &[]).await;
        told.is(code, &[words]);
        assert!(!told.words().contains("hunter2"), "{told:?}");
    }
    // TLS where it is not spoken: what answers has taken the hello for a command that goes on.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tls = format!("rediss://{}", silent.local_addr().unwrap());
    import(&file, &[&tls], &[]).await.is(69, &["does not speak TLS at that port; write redis://"]);
    // What answers is no Redis.
    let http = format!("redis://{}", old.server.http);
    import(&file, &[&http], &[]).await.is(76, &["is no Redis"]);
    std::fs::write(&file, "()").unwrap();
    import(&file, &[&from], &[]).await.is(78, &["token_sources"]);
    old.kill().await;
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_comes_from_the_environment_or_the_address() {
    let wechat = upstream(Settings::default()).await;
    let [old_dir, new_dir] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let text = config_text(wechat.address(), old_dir.path(), r#"log: (format: "json"),"#);
    let text = text.replacen("resp: (", r#"resp: (password: "hunter2-0123456789", "#, 1);
    let mut old = run_text(binary(), old_dir.path(), &text).await;
    served(old.http, "ticket", None).await;
    let file = config(new_dir.path(), &wechat);
    let bare = format!("redis://{}", old.resp);
    import(&file, &[&bare], &[]).await.is(77, &["put it into the variable REDISCLI_AUTH"]);
    let wrong = ("REDISCLI_AUTH", "hunter2-wrong");
    import(&file, &[&bare], &[wrong]).await.is(77, &["refuses the password"]);
    let right = ("REDISCLI_AUTH", "hunter2-0123456789");
    let told = import(&file, &[&bare], &[right]).await;
    told.is(0, &["access_token: "]);
    assert_eq!(told.err, "");
    let open = format!("redis://:hunter2-0123456789@{}", old.resp);
    // The one in the address goes before.
    let told = import(&file, &[&open], &[wrong]).await;
    told.is(0, &["can be seen by everybody", "REDISCLI_AUTH hides it"]);
    old.child.kill().await.unwrap();
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_over_is_sealed_where_the_store_is() {
    let wechat = upstream(Settings::default()).await;
    let mut old = Old::start(&wechat).await;
    let new_dir = tempfile::tempdir().unwrap();
    let file = config(new_dir.path(), &wechat);
    let text = std::fs::read_to_string(&file).unwrap();
    let sealed =
        text.replacen("store: (", r#"store: (key: "0123456789abcdef0123456789abcdef", "#, 1);
    std::fs::write(&file, &sealed).unwrap();
    import(&file, &[&old.url()], &[]).await.is(0, &["taken over"]);
    let store = new_dir.path().join("store");
    assert_eq!(files_with(&store, &[&old.token, &old.ticket]), Vec::<PathBuf>::new());
    let mut new = serve(binary(), &file).await;
    assert_eq!(served(new.http, "ticket", None).await, old.ticket);
    new.child.kill().await.unwrap();
    // Without the key nothing is put over what is there.
    std::fs::write(&file, text).unwrap();
    let told = import(&file, &[&old.url(), "--replace"], &[]).await;
    told.is(78, &["key"]);
    old.kill().await;
    wechat.stop().await;
}

/// With a real Redis.
#[cfg(feature = "interop")]
mod real {
    use std::net::SocketAddr;
    use std::process::Stdio;
    use std::time::Duration;

    use tokio::net::TcpStream;
    use tokio::process::{Child, Command};

    use super::*;
    use crate::support::certificates::Authority;
    use crate::support::soon;

    struct Redis {
        address: SocketAddr,
        _child: Child,
    }

    impl Redis {
        /// One on a free port, with further arguments; `tls`: on that port it speaks TLS alone.
        async fn start(dir: &Path, tls: bool, further: &[&str]) -> Redis {
            for _ in 0..10 {
                let free =
                    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
                let port = free.port().to_string();
                let mut command = Command::new("redis-server");
                let ports = if tls {
                    ["--port", "0", "--tls-port", &port]
                } else {
                    ["--port", &port, "--bind", "127.0.0.1"]
                };
                command.args(ports).args(["--save", "", "--appendonly", "no", "--dir"]).arg(dir);
                command.args(further).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null());
                let mut child = command.spawn().expect("redis-server cannot be run");
                let up = async {
                    while child.try_wait().unwrap().is_none() {
                        if TcpStream::connect(free).await.is_ok() {
                            return true;
                        }
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    false
                };
                if soon("redis-server", up).await {
                    return Redis { address: free, _child: child };
                }
            }
            panic!("redis-server finds no port");
        }

        /// Runs commands, by redis-cli.
        async fn run(&self, further: &[&str], commands: &[&[&str]]) {
            for words in commands {
                let port = self.address.port().to_string();
                let mut command = Command::new("redis-cli");
                command.args(["-h", "127.0.0.1", "-p", &port]).args(further).args(*words);
                let output = soon("redis-cli", command.output()).await.unwrap();
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                let error = String::from_utf8_lossy(&output.stderr);
                assert!(
                    output.status.success() && !said.contains("ERR"),
                    "{words:?}: {said}{error}"
                );
            }
        }
    }

    const TOKEN: &str = "70_canary-token-0123456789abcdefghijklmnopqrstuvwxyz";
    const TICKET: &str = "canary-ticket-kgt8ON7yVITDhtdwci0qeZ0123456789abcdef";

    #[tokio::test(flavor = "multi_thread")]
    async fn tokens_are_found_in_every_form_that_sdks_keep_them_in() {
        let wechat = upstream(Settings::default()).await;
        let dir = tempfile::tempdir().unwrap();
        let redis = Redis::start(dir.path(), false, &[]).await;
        let json = format!("\"{TOKEN}\"");
        let php = format!("s:{}:\"{TOKEN}\";", TOKEN.len());
        let object = format!(r#"{{"access_token":"{TOKEN}","expires_in":7200}}"#);
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let (end, end_ms) = ((now + 3_600).to_string(), ((now + 3_600) * 1_000).to_string());
        redis
            .run(
                &[],
                &[
                    &["SETEX", "access_token", "7000", TOKEN],
                    &["SETEX", "wx:access_token:wx0", "7000", TOKEN],
                    &["SETEX", "easywechat", "7000", &php],
                    &["SETEX", "powerwechat", "7000", &object],
                    &["SET", "wechatpy:wx0_access_token", &json],
                    &["SET", "wechatpy:wx0_access_token_expires_at", &end],
                    &["HSET", "maConfig:accessToken", "value", TOKEN, "expire", &end_ms],
                    &["SET", "for-ever", TOKEN],
                    &["SETEX", "ending", "30", TOKEN],
                    &["SETEX", "short", "300", TOKEN],
                    &["SETEX", "long", "86400", TOKEN],
                    &["SETEX", "words", "7000", "hunter2 is no token at all"],
                    &["LPUSH", "list", TOKEN],
                    &["HSET", "hash", "token", TOKEN],
                    &["-n", "3", "SETEX", "elsewhere", "7000", TOKEN],
                ],
            )
            .await;
        let from = format!("redis://{}", redis.address);
        let other = format!("{from}/3");
        for (address, key, code, words) in [
            (&from, "wx:access_token:wx0", 0, "good for 1h56m"),
            (&from, "easywechat", 0, "good for 1h56m"),
            (&from, "powerwechat", 0, "good for 1h56m"),
            (&from, "wechatpy:wx0_access_token", 0, "good for 59m"),
            (&from, "maConfig:accessToken", 0, "good for 59m"),
            (&other, "elsewhere", 0, "good for 1h56m"),
            (&from, "short", 0, "be quick"),
            (&from, "for-ever", 65, "no TTL"),
            (&from, "ending", 65, "it ends in "),
            (&from, "long", 65, "longer than WeChat's tokens live"),
            (&from, "words", 65, "characters that no token has"),
            (&from, "list", 65, "it is a list, not a token"),
            (&from, "hash", 65, "it is a hash without the field `value`"),
            (&other, "short", 65, "no such key"),
        ] {
            let new = tempfile::tempdir().unwrap();
            let file = config(new.path(), &wechat);
            let told = import(&file, &[address, &format!("{key}=access_token")], &[]).await;
            told.is(code, &[words]);
            assert!(!told.words().contains("canary"), "{told:?}");
            // Nothing is kept of what is refused.
            let kept = new.path().join("store").exists()
                && !files_with(&new.path().join("store"), &[TOKEN]).is_empty();
            assert_eq!(kept, code == 0, "{key}");
        }

        // The original's keys; one that is not there is fetched.
        let new = tempfile::tempdir().unwrap();
        let file = config(new.path(), &wechat);
        let told = import(&file, &[&from], &[]).await;
        told.is(
            0,
            &[
                "the old Redis has no ticket; ticket is fetched at the first start",
                "access_token: the token",
            ],
        );
        let calls = wechat.calls(Endpoint::Token);
        let mut server = serve(binary(), &file).await;
        assert_eq!(served(server.http, "access_token", None).await, TOKEN);
        assert_eq!(wechat.calls(Endpoint::Token), calls);
        server.child.kill().await.unwrap();
        redis.run(&[], &[&["FLUSHALL"]]).await;
        import(&file, &[&from], &[]).await.is(65, &["has no access_token or ticket"]);
        wechat.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_redis_with_tls_and_users_is_read() {
        let wechat = upstream(Settings::default()).await;
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let made = authority.server();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(path);
        for (file, text) in [(&ca, authority.pem()), (&cert, made.cert), (&key, made.key)] {
            std::fs::write(file, text).unwrap();
        }
        let tls = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
        let users = "--tls-auth-clients no --user mover on >hunter2-0123 ~* +get +pttl +type";
        let users: Vec<&str> = users.split(' ').collect();
        let redis = Redis::start(dir.path(), true, &[&tls[..], &users[..]].concat()).await;
        let with = ["--tls", "--insecure"];
        redis
            .run(
                &with,
                &[
                    &["SETEX", "access_token", "7000", TOKEN],
                    &["SETEX", "ticket", "7000", TICKET],
                    &["ACL", "SETUSER", "default", "off"],
                ],
            )
            .await;
        let new = tempfile::tempdir().unwrap();
        let file = config(new.path(), &wechat);
        let port = redis.address.port();
        let from = format!("rediss://mover@localhost:{port}");
        let password = [("REDISCLI_AUTH", "hunter2-0123")];
        import(&file, &[&from], &password)
            .await
            .is(69, &["name its certificate or its authority with --ca"]);
        import(&file, &[&from, "--ca", &ca], &password).await.is(0, &["ticket: the token"]);
        import(&file, &[&from, "--ca", &cert], &password).await.is(0, &["ticket: the token"]);
        import(&file, &[&from, "--ca", &ca], &[]).await.is(77, &["REDISCLI_AUTH"]);
        let wrong = [("REDISCLI_AUTH", "hunter2-wrong")];
        import(&file, &[&from, "--ca", &ca], &wrong).await.is(77, &["refuses the password"]);
        let plain = format!("redis://mover@localhost:{port}");
        let told = import(&file, &[&plain], &password).await;
        assert!([69, 76].contains(&told.code), "{told:?}");
        wechat.stop().await;
    }
}
