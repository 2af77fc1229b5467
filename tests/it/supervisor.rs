//! The program under a supervisor: a socket that plays systemd's, sockets that outlive the server.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::net::UnixDatagram;
use tokio::process::Command;
use wechat_token_server::sandbox::Settings;

use crate::support::{
    Running, binary, config_text, get, run, run_with, served, soon, token, upstream,
};

/// What a supervisor is told, as it comes.
struct Told(UnixDatagram);

impl Told {
    fn listen(dir: &Path) -> (Told, std::path::PathBuf) {
        let path = dir.join("notify");
        (Told(UnixDatagram::bind(&path).unwrap()), path)
    }

    /// The next message that is not the watchdog's.
    async fn next(&self) -> String {
        loop {
            let message = self.any().await;
            if message != "WATCHDOG=1\n" {
                return message;
            }
        }
    }

    async fn any(&self) -> String {
        let mut bytes = [0; 4096];
        let length = soon("a word to the supervisor", self.0.recv(&mut bytes)).await.unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_is_told_of_start_reload_mistakes_and_stop() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let (told, path) = Told::listen(dir.path());
    let mut command = binary();
    command.env("NOTIFY_SOCKET", &path);
    let mut ours = run_with(command, dir.path(), wechat.address(), "").await;
    let status = format!("STATUS=serving 2 sources; HTTP on {}, RESP on {}", ours.http, ours.resp);
    assert_eq!(told.next().await, format!("READY=1\n{status}\n"));
    ours.signal("-HUP").await;
    let reloading = told.next().await;
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(time.trim_end().parse::<u64>().unwrap() > 0, "{reloading}");
    assert_eq!(told.next().await, format!("READY=1\n{status}\n"));
    std::fs::write(dir.path().join("config.ron"), "(nonsense: 1)").unwrap();
    ours.signal("-HUP").await;
    assert!(told.next().await.starts_with("RELOADING=1\n"));
    let ready = told.next().await;
    assert!(ready.starts_with(&format!("READY=1\n{status}; not reloaded, ")), "{ready}");
    ours.signal("-TERM").await;
    assert_eq!(told.next().await, "STOPPING=1\nSTATUS=finishing what is in flight\n");
    assert_eq!(soon("the end", ours.child.wait()).await.unwrap().code(), Some(0));
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_hears_of_it_as_long_as_it_turns() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let (told, path) = Told::listen(dir.path());
    let mut command = binary();
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let ours = run_with(command, dir.path(), wechat.address(), "").await;
    assert!(told.next().await.starts_with("READY=1\n"));
    for _ in 0..3 {
        assert_eq!(told.any().await, "WATCHDOG=1\n");
    }
    ours.signal("-STOP").await;
    // What is on its way has arrived when nothing has come for longer than twice its period.
    let silence = std::time::Duration::from_millis(500);
    while tokio::time::timeout(silence, told.any()).await.is_ok() {}
    ours.signal("-CONT").await;
    assert_eq!(told.any().await, "WATCHDOG=1\n");
    wechat.stop().await;
}

/// The binary with these sockets passed under these names.
fn passing(names: &str, http: &TcpListener, resp: &TcpListener) -> Command {
    let passed = |socket: &TcpListener| Stdio::from(OwnedFd::from(socket.try_clone().unwrap()));
    let mut command = Command::new("sh");
    // Descriptors 3 and 4, where systemd puts them.
    let script = "exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_PID=$$; exec \"$0\" \"$@\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_wechat-token-server")]);
    command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", names).env_remove("RUST_LOG");
    command.kill_on_drop(true).stdin(passed(http)).stdout(passed(resp)).stderr(Stdio::piped());
    command
}

fn sockets() -> (TcpListener, TcpListener) {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap();
    (free(), free())
}

#[tokio::test(flavor = "multi_thread")]
async fn passed_sockets_are_served_and_a_restart_under_load_refuses_nobody() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let (http, resp) = sockets();
    let start = async || -> Running {
        run_with(passing("http:resp", &http, &resp), dir.path(), wechat.address(), "").await
    };
    let mut ours = start().await;
    assert_eq!((ours.http, ours.resp), (http.local_addr().unwrap(), resp.local_addr().unwrap()));
    let value = served(ours.http, "access_token", None).await;

    let (over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..8)
        .map(|at| {
            let (over, served, value) = (Arc::clone(&over), Arc::clone(&served), value.clone());
            let (http, resp) = (ours.http, ours.resp);
            // Each request on a connection of its own; one that fails fails the test.
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    if at % 2 == 0 {
                        assert!(token(http, "access_token").await.contains(&value));
                    } else {
                        assert_eq!(get(resp, "access_token").await.as_ref(), Some(&value));
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let more = async |least: usize| {
        let before = served.load(Ordering::Relaxed);
        soon("requests", async {
            while served.load(Ordering::Relaxed) < before + least {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        })
        .await;
    };
    for _ in 0..3 {
        more(100).await;
        ours.signal("-TERM").await;
        assert_eq!(soon("the end", ours.child.wait()).await.unwrap().code(), Some(0));
        ours = start().await;
    }
    more(100).await;
    over.store(true, Ordering::Relaxed);
    for client in load {
        client.await.unwrap();
    }
    wechat.stop().await;
}

#[tokio::test]
async fn a_socket_that_is_none_of_ours_or_elsewhere_ends_it_with_78_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.ron");
    let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let (http, resp) = sockets();
    let there = http.local_addr().unwrap();
    for (names, bind, message) in [
        ("http:admin", "127.0.0.1:0", r#"a socket named "admin" is passed; name it http or resp"#),
        ("http", "127.0.0.1:0", r#"a socket named "" is passed; name it http or resp"#),
        ("http:http", "127.0.0.1:0", "two sockets named http are passed"),
        ("http:resp", "127.0.0.1:9", "but http.bind is 127.0.0.1:9; change ListenStream="),
        ("http:resp", "0.0.0.0:0", "but http.bind is 0.0.0.0:0; change ListenStream="),
    ] {
        let text = config_text(nobody, dir.path(), "").replacen("127.0.0.1:0", bind, 1);
        std::fs::write(&file, text).unwrap();
        let mut command = passing(names, &http, &resp);
        let child = command.arg("-c").arg(&file).spawn().unwrap();
        let ended = soon("the end", child.wait_with_output()).await.unwrap();
        let log = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(78), "{log}");
        assert!(log.contains(message), "{names} {bind}: {log}");
        assert!(!bind.contains(":9") || log.contains(&there.to_string()), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_another_process_are_let_alone() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let mut command = binary();
    command.env("LISTEN_PID", "1").env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", "http:resp");
    let ours = run_with(command, dir.path(), wechat.address(), "").await;
    served(ours.http, "access_token", None).await;
    drop(ours);
    // Neither is a supervisor that is not there in its way.
    let ours = run(dir.path(), wechat.address(), "").await;
    assert!(!ours.log().contains("supervisor"), "{}", ours.log());
    wechat.stop().await;
}
