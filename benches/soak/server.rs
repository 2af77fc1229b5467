//! The server as a process: its config, its start and end, and what the system says of it.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::truth::{SOURCES, Source, appid, secret};

const BINARY: &str = env!("CARGO_BIN_EXE_wechat-token-server");
const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const REQUEST_SECRET: &str = "soak-request-secret";
pub(crate) const PASSWORD: &str = "soak-password";

/// What the system says of the process: bytes and counts.
pub(crate) struct Process {
    pub(crate) resident: u64,
    pub(crate) peak: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: u64,
}

/// The running server; killed when dropped.
pub(crate) struct Server {
    process: Mutex<Child>,
    pid: u32,
    pub(crate) http: SocketAddr,
    pub(crate) resp: SocketAddr,
    pub(crate) config: ConfigFile,
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut process = self.process.lock().unwrap();
        // It may have ended, and nothing of it is kept.
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// Where the config is, and what it always says.
#[derive(Clone)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    dir: PathBuf,
    upstream: SocketAddr,
    http: SocketAddr,
    resp: SocketAddr,
    pub(crate) pid: u32,
}

impl Server {
    /// Returns when every source has a token.
    pub(crate) async fn start(dir: &Path, upstream: SocketAddr) -> Server {
        let (http, resp) = (free_address(), free_address());
        let (path, dir) = (dir.join("config.ron"), dir.to_owned());
        let mut config = ConfigFile { path, dir, upstream, http, resp, pid: 0 };
        config.write(|_| true, Variation::default());
        let process = Command::new(BINARY)
            .arg("--config")
            .arg(&config.path)
            .env("RUST_LOG", "error")
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let pid = process.id();
        config.pid = pid;
        let server = Server { process: Mutex::new(process), pid, http, resp, config };
        let begin = Instant::now();
        while !server.serves_all().await {
            assert!(begin.elapsed() < PATIENCE, "the server does not serve");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server
    }

    async fn serves_all(&self) -> bool {
        let Ok(mut client) = crate::clients::Resp::connect(self.resp).await else { return false };
        client.ask(&["DBSIZE"]).await.is_ok_and(|reply| reply == format!(":{}", SOURCES.len()))
    }

    /// How the process is.
    pub(crate) fn look(&self) -> Process {
        let pid = self.pid;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        Process {
            resident: field("VmRSS:") * 1_024,
            peak: field("VmHWM:") * 1_024,
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            threads: field("Threads:"),
        }
    }

    /// Ends it as an operator does; whether it ended well.
    pub(crate) async fn stop(self) -> bool {
        let pid = self.pid.to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let begin = Instant::now();
        loop {
            if let Some(status) = self.process.lock().unwrap().try_wait().unwrap() {
                return status.success();
            }
            if begin.elapsed() > PATIENCE {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What a reload changes beside the sources that come and go.
#[derive(Clone, Copy, Default)]
pub(crate) struct Variation {
    /// Of the sources that come and go: renewed earlier.
    pub(crate) early: bool,
    /// Of the first source: it is restarted, and nobody may notice.
    pub(crate) patient: bool,
    /// A mistake: nothing is changed.
    pub(crate) is_wrong: bool,
}

impl ConfigFile {
    /// Writes it with the sources that are `wanted`.
    pub(crate) fn write(&self, wanted: impl Fn(&Source) -> bool, variation: Variation) {
        let ConfigFile { path, dir, upstream, http, resp, .. } = self;
        let store = dir.join("store").display().to_string();
        let mut text = format!(
            r#"(
    http: (bind: "{http}"), resp: (bind: "{resp}", password: "{PASSWORD}"), store: (path: {store:?}),
    request_secret: "{REQUEST_SECRET}",
    refresh: (overlap: "2s", cooldown: "1s", timeout: "2s", renew_before: "5s", must_renew_before: "1s"),
    token_sources: {{"#
        );
        for (at, source) in SOURCES.iter().enumerate().filter(|(_, source)| wanted(source)) {
            let (name, endpoint, appid, secret) =
                (source.name, source.endpoint, appid(at), secret(at));
            let account = format!(r#""appid": "{appid}", "secret": "{secret}""#);
            let what = match endpoint {
                "token" => format!(
                    r#"args: {{"grant_type": "client_credential", {account}}}, daily_limit: 0,"#
                ),
                "stable_token" => format!(
                    r#"json: {{"grant_type": "client_credential", {account}}}, rotation: Sticky(window: "3s"),"#
                ),
                _ => r#"args: {"type": "jsapi", "access_token": "{{plain}}"},"#.to_owned(),
            };
            let more = match variation {
                Variation { early: true, .. } if source.comes_and_goes => r#"renew_before: "4s","#,
                Variation { patient: true, .. } if at == 0 => r#"timeout: "3s","#,
                Variation { is_wrong: true, .. } if at == 0 => r#"tiemout: "3s","#,
                _ => "",
            };
            let _ = write!(
                text,
                "\n        \"{name}\": (url: \"http://{upstream}/cgi-bin/{endpoint}\", {what} {more}),"
            );
        }
        text.push_str("\n    },\n)\n");
        std::fs::write(path, text).unwrap();
    }

    /// Has it read again.
    pub(crate) fn reload(&self) {
        let pid = self.pid.to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
