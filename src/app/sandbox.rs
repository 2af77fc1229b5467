//! The `sandbox` sub-command: the stand-in for the WeChat API, a fresh server that fetches from it,
//! and lines to copy. Everything is on loopback and forgotten at the end.

use std::fmt::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::app::{self, Server};
use crate::cli::SandboxArgs;
use crate::clock::{self, SharedClock};
use crate::config::{self, Environment, RefreshPolicy};
use crate::duration::format_duration;
use crate::sandbox::{Account, Model, Rule, Settings, Upstream};

/// A running sandbox.
#[derive(Debug)]
pub struct Sandbox {
    /// What it is and what to try, for the terminal.
    pub greeting: String,
    server: Server,
    upstream: Upstream,
    dir: PathBuf,
}

/// Starts the stand-in and a server with an empty store.
///
/// # Errors
/// The system refuses; in words for the operator.
pub async fn start(args: SandboxArgs, clock: SharedClock) -> Result<Sandbox, String> {
    let settings = settings(&args)?;
    let (upstream_address, upstream_taken) = free(args.upstream);
    let listener = tokio::net::TcpListener::bind(upstream_address)
        .await
        .map_err(|error| format!("cannot listen on {upstream_address}: {error}"))?;
    let model = Model::new(settings.clone(), [Account::default()], clock.seed());
    let upstream = Upstream::start(listener, model, Arc::clone(&clock))
        .map_err(|error| format!("the stand-in cannot start: {error}"))?;
    args.fault.iter().for_each(|fault| upstream.inject(fault.clone()));

    let (http, http_taken) = free(args.http);
    let (resp, resp_taken) = free(args.resp);
    let taken: Vec<String> =
        [upstream_taken, http_taken, resp_taken].into_iter().flatten().collect();
    let secret = random_hex()?;
    let dir = std::env::temp_dir().join(format!("wechat-token-server-sandbox-{}", random_hex()?));
    let text = config_text(&settings, upstream.address(), http, resp, &dir, &secret);
    let config = config::parse(&text, Path::new("sandbox.ron"), &Environment::default())
        .map_err(|errors| errors.to_string())?;
    let mut server = app::start(config, clock).await.map_err(|error| {
        // Nobody is left to remove it.
        let _ = std::fs::remove_dir_all(&dir);
        error.to_string()
    })?;
    // There is no file to read again.
    drop(server.reload_orders());
    let greeting = greeting(&settings, &upstream, &server, &secret, &taken);
    Ok(Sandbox { greeting, server, upstream, dir })
}

impl Sandbox {
    /// Ends everything and removes the store. Says whether all that was in flight was finished.
    pub async fn stop(self) -> bool {
        let finished = self.server.stop().await;
        self.upstream.stop().await;
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "the sandbox's store cannot be removed");
        }
        finished
    }
}

fn settings(args: &SandboxArgs) -> Result<Settings, String> {
    let SandboxArgs { lifetime, latency, rules, .. } = args;
    let mut settings = Settings { lifetime: *lifetime, latency: *latency, ..Settings::default() };
    for Rule { name, value } in rules {
        settings.set(name, value)?;
    }
    Ok(settings)
}

/// The address if nobody has it, else one of the same host with a free port, and a line about it.
fn free(wanted: SocketAddr) -> (SocketAddr, Option<String>) {
    match TcpListener::bind(wanted) {
        Ok(_) => (wanted, None),
        Err(_) => {
            let port = wanted.port();
            (
                SocketAddr::new(wanted.ip(), 0),
                Some(format!("port {port} is taken: a free one is used")),
            )
        }
    }
}

fn random_hex() -> Result<String, String> {
    let mut bytes = [0; 8];
    clock::random(&mut bytes).map_err(|error| format!("no randomness: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The config of the sandbox' server, as a person would write it.
fn config_text(
    settings: &Settings,
    upstream: SocketAddr,
    http: SocketAddr,
    resp: SocketAddr,
    dir: &Path,
    secret: &str,
) -> String {
    let overlap = format_duration(settings.overlap());
    let cooldown = format_duration(Duration::from_secs(30).min(settings.lifetime / 12));
    let (appid, app_secret) = (Account::SANDBOX_APPID, Account::SANDBOX_SECRET);
    let dir = dir.display();
    format!(
        r#"(
    http: (bind: "{http}"),
    resp: (bind: "{resp}"),
    store: (path: {dir:?}),
    request_secret: "{secret}",
    refresh: (overlap: "{overlap}", cooldown: "{cooldown}"),
    token_sources: {{
        "access_token": (
            url: "http://{upstream}/cgi-bin/token",
            args: {{"grant_type": "client_credential", "appid": "{appid}", "secret": "{app_secret}"}},
        ),
        "ticket": (
            url: "http://{upstream}/cgi-bin/ticket/getticket",
            args: {{"type": "jsapi", "access_token": "{{{{access_token}}}}"}},
        ),
    }},
)"#,
        dir = dir.to_string()
    )
}

fn greeting(
    settings: &Settings,
    upstream: &Upstream,
    server: &Server,
    secret: &str,
    taken: &[String],
) -> String {
    let (http, stand_in) = (server.http, upstream.address());
    let (resp_host, resp) = server
        .resp
        .map_or_else(Default::default, |address| (address.ip().to_string(), address.port()));
    let lifetime = format_duration(settings.lifetime);
    let overlap = format_duration(settings.overlap());
    let lead = RefreshPolicy::default().lead(settings.lifetime);
    let renewal = format_duration(settings.lifetime - lead);
    let taken: String = taken.iter().fold(String::new(), |mut lines, line| {
        let _ = writeln!(lines, "  ({line})");
        lines
    });
    format!(
        "\
A stand-in for the WeChat API and a fresh server that fetches from it.
一个模拟的微信接口，和一个从它获取令牌的全新服务器。

  stand-in  http://{stand_in}   tokens live {lifetime}; a replaced one works {overlap} more
  http      http://{http}
  redis     {resp_host}:{resp}
{taken}
Look at it in a browser, with the key {secret}:
  http://{http}/ui

Read a token (renewed every {renewal} or so: watch the log below):
  curl 'http://{http}/wechat/token?type=access_token&secret={secret}'
  curl 'http://{http}/wechat/token?type=ticket&secret={secret}'
  redis-cli -h {resp_host} -p {resp} MGET access_token ticket
  redis-cli -h {resp_host} -p {resp} TTL access_token
  redis-cli -h {resp_host} -p {resp} SUBSCRIBE token:access_token   # told of each new one

Say that a token was refused:
  curl 'http://{http}/wechat/token/forcerefresh?type=access_token&secret={secret}'
  redis-cli -h {resp_host} -p {resp} TOKEN.REFRESH access_token

Let things go wrong, and look:
  curl -X POST 'http://{stand_in}/sandbox/fault?kind=errcode&code=40164&times=3'
  curl -X POST 'http://{stand_in}/sandbox/fault?kind=hang'
  curl -X POST 'http://{stand_in}/sandbox/clear'
  curl -X POST 'http://{stand_in}/sandbox/rotate'      # somebody else fetches a token
  curl 'http://{stand_in}/sandbox'                     # what else there is
  curl 'http://{stand_in}/sandbox/state'

Ctrl-C stops it and forgets everything.
"
    )
}
