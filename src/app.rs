//! The composition root: the only file that knows every room. Starts them in order, and ends them.

mod encryption;
mod listening;
mod orders;
mod reload;
mod running;
pub mod sandbox;
mod secret;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::access::{Access, REPORT_EVERY};
use crate::clock::{LOOK_EVERY, SharedClock};
use crate::config::{Advice, Config, HttpConfig, Mistake, OWN_DESCRIPTORS, RespConfig};
use crate::control::{Control, ReloadOrder};
use crate::doctor::Doctor;
use crate::http::{self, Door, HttpParts};
use crate::notify::Webhooks;
use crate::outbound::{Outbound, OutboundSetupError};
use crate::refresh::Shared;
use crate::resp::{self, RespParts};
use crate::shutdown::Drain;
use crate::snapshot::Reader;
use crate::source::HttpUpstream;
use crate::status::Status;
use crate::store::{self, Closing, Keys, Refused, TokenStore};
use crate::supervisor::Sockets;
use crate::token::Secret;

pub use encryption::Certificates;
use encryption::Encryption;
use listening::bind;
use running::{Ready, Running};
pub use secret::advice_on_kept_secret;

/// How long a locked store directory is waited for: longer than the grace period of the server that
/// is being replaced.
pub const STORE_PATIENCE: Duration = Duration::from_secs(15);

/// Connections to the address of the metrics at once: a Prometheus or two, and whoever looks.
const MAX_SCRAPERS: usize = 64;

/// How often the store's directory is looked at: in an hour without a write nobody else would notice that
/// it has been deleted.
const STORE_LOOK_EVERY: Duration = Duration::from_secs(30);

/// Why a server could not start.
#[derive(Debug)]
pub enum StartError {
    /// Another process has the store, or its key is another one.
    Store(Refused),
    /// A listener's address cannot be had.
    Bind {
        /// The setting.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's word.
        error: io::Error,
    },
    /// The socket that was passed for a listener is not where the config says.
    Elsewhere {
        /// The setting.
        setting: &'static str,
        /// What it says.
        address: SocketAddr,
        /// Where the socket listens.
        passed: SocketAddr,
    },
    /// A setting of the outbound client makes no client.
    Outbound(OutboundSetupError),
    /// The files of a certificate cannot be used; every mistake in them.
    Tls(Vec<Mistake>),
    /// There is no thread to be had.
    Thread(io::Error),
    /// The system has no randomness to make a request secret of.
    NoRandomness(io::Error),
    /// The file of the request secret holds no key.
    KeptSecret {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        error: io::Error,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Store(refused) => refused.fmt(f),
            StartError::Bind { setting, address, error } => {
                write!(f, "cannot listen on {address} ({setting}): {error}")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => {
                        f.write_str("; stop what listens there, or choose another port")
                    }
                    io::ErrorKind::PermissionDenied => {
                        f.write_str("; ports below 1024 need a privilege")
                    }
                    _ => Ok(()),
                }
            }
            StartError::Elsewhere { setting, address, passed } => write!(
                f,
                "the socket that is passed listens on {passed}, but {setting} is {address}; change \
                 ListenStream= of its socket unit, or the setting"
            ),
            StartError::Outbound(error) => error.fmt(f),
            StartError::Tls(mistakes) => {
                let lines =
                    mistakes.iter().map(|Mistake { path, message }| format!("{path}: {message}"));
                f.write_str(&lines.collect::<Vec<_>>().join("\n"))
            }
            StartError::Thread(error) => write!(f, "a thread cannot be started: {error}"),
            StartError::NoRandomness(error) => {
                write!(f, "cannot make a request secret: {error}; set request_secret in the config")
            }
            StartError::KeptSecret { path, error } => write!(f, "{} {error}", path.display()),
        }
    }
}

impl std::error::Error for StartError {}

/// A server that serves.
#[derive(Debug)]
pub struct Server {
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// Where RESP is served, if it is.
    pub resp: Option<SocketAddr>,
    /// Where metrics are served without a key, if they are.
    pub metrics: Option<SocketAddr>,
    drain: Drain,
    running: Running,
    encryption: Encryption,
    webhooks: Webhooks,
    /// What it was started with, but for the sources.
    settings: Config,
    store: Closing,
    /// The orders of clients to read the config again; `None`: taken by whoever carries them out.
    reload_orders: Option<mpsc::Receiver<ReloadOrder>>,
    /// What everything runs on.
    runtimes: Vec<Handle>,
}

/// Starts everything on sockets of its own; see [`start_on`].
///
/// # Errors
/// See [`StartError`].
pub async fn start(config: Config, clock: SharedClock) -> Result<Server, StartError> {
    start_on(Sockets::default(), config, clock).await
}

/// Starts everything, on these sockets where there are any; live tokens of an earlier run are served when this returns.
///
/// # Errors
/// See [`StartError`]. An upstream or a disk that does not work is not one: the server starts, and
/// says so.
pub async fn start_on(
    sockets: Sockets,
    mut config: Config,
    clock: SharedClock,
) -> Result<Server, StartError> {
    log_advice(&config.advice);
    let (http_config, resp_config) = share_descriptors(&config);
    let outbound = Outbound::new(&config.outbound).map_err(StartError::Outbound)?;
    let certificates = Certificates::read(&config).map_err(StartError::Tls)?;
    let dir = config.store.path.clone();
    let (token_store, restored, closing) = in_blocking({
        let (dir, clock) = (dir.clone(), Arc::clone(&clock));
        let keys = Keys::new(config.store.key.as_ref(), &config.store.old_keys);
        move || store::open(&dir, keys, STORE_PATIENCE, &clock)
    })
    .await
    .map_err(StartError::Store)?;
    if let Some(error) = &restored.memory_only {
        tracing::error!(
            dir = %dir.display(), %error,
            "the store cannot be used: tokens are kept in memory only and would be lost in a restart; it is tried again with each write. Free space, or make the directory writable"
        );
    }
    let secret = secret::request_secret(config.request_secret.clone(), dir.clone()).await?;

    let drain = Drain::new();
    let shared = Shared::new(restored.calls, restored.marks);
    let upstream = HttpUpstream::new(outbound.clone(), Arc::clone(&clock));
    // What is in the config needs no file.
    let generated = config.request_secret.is_none().then(|| (secret.clone(), dir.clone()));
    let mut running =
        Running::new(upstream, token_store.clone(), shared, Arc::clone(&clock), drain.clone());
    let sources = std::mem::take(&mut config.sources);
    let refreshers = running.restore(sources, restored.records.into_iter().collect());
    let reader = running.reader();
    let live = reader.view().all_live(clock.now()).count();
    drain.spawn(look_after_the_store(
        token_store,
        reader.clone(),
        generated,
        Arc::clone(&clock),
        drain.clone(),
    ));

    // Every live token is published: now they may be read.
    let (http_listener, http) = bind("http.bind", config.http.bind, sockets.http).await?;
    let resp_listener = match &config.resp {
        None => {
            if sockets.resp.is_some() {
                tracing::warn!(
                    "a socket is passed for RESP, which is switched off (resp.enabled): who connects to it waits \
                     in vain; disable its socket unit"
                );
            }
            None
        }
        Some(resp) => Some(bind("resp.bind", resp.bind, sockets.resp).await?),
    };
    let resp = resp_listener.as_ref().map(|(_, address)| *address);
    let metrics_listener = match &config.metrics {
        None => None,
        Some(metrics) => Some(bind("metrics.bind", metrics.bind, None).await?),
    };
    let metrics = metrics_listener.as_ref().map(|(_, address)| *address);
    let access = {
        let password = config.resp.as_ref().and_then(|resp| resp.password.clone());
        Arc::new(Access::new(secret, password, config.clients.clone(), Arc::clone(&clock)))
    };
    drain.spawn(report_reads(Arc::clone(&access), Arc::clone(&clock), drain.clone()));
    let encryption = Encryption::begin(certificates, &clock, &drain).map_err(StartError::Thread)?;
    // Before anything is fetched, so that the first failure is heard.
    let mut webhooks = Webhooks::new(outbound, reader.clone(), Arc::clone(&clock), drain.clone());
    webhooks.change_to(&config.webhooks);
    let status = Status::new(
        reader.clone(),
        running.catalogue(),
        running.shared(),
        Arc::clone(&access),
        webhooks.deliveries(),
        Arc::clone(&clock),
    );
    let (control, orders) = Control::new();
    drain.spawn(orders::carry_out_resets(orders.resets, running.resets(), drain.clone()));
    let doctor = Doctor::new(status.clone(), reader.clone(), &config, Arc::clone(&clock));
    let parts = HttpParts {
        control,
        reader: reader.clone(),
        refresh: running.handle(),
        clock: Arc::clone(&clock),
        access: Arc::clone(&access),
        tls: encryption.http.clone(),
        status: status.clone(),
        doctor,
        ready: config.ready.clone(),
        door: Door::Main,
    };
    if let Some((listener, address)) = metrics_listener {
        let config = HttpConfig {
            bind: address,
            max_connections: MAX_SCRAPERS,
            tls: None,
            ..http_config.clone()
        };
        let parts = HttpParts { door: Door::Metrics, tls: None, ..parts.clone() };
        drain.spawn(http::serve(listener, config, parts, drain.clone()));
    }
    drain.spawn(http::serve(http_listener, http_config, parts, drain.clone()));
    let mut runtimes = vec![Handle::current()];
    if let (Some((listener, _)), Some(resp_config)) = (resp_listener, resp_config) {
        let parts = RespParts {
            reader,
            refresh: running.handle(),
            access,
            status,
            clock: Arc::clone(&clock),
            tls: encryption.resp.clone(),
        };
        let thread = resp::spawn(listener, resp_config, parts, &drain);
        runtimes.push(thread.map_err(StartError::Thread)?);
    }
    drain.spawn(look_at_the_clocks(clock, drain.clone()));
    let sources = refreshers.len();
    refreshers.into_iter().for_each(Ready::begin);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), %http,
        resp = resp.map_or_else(|| "off".to_owned(), |address| address.to_string()),
        store = %dir.display(), records = if config.store.key.is_some() { "sealed" } else { "plain" },
        sources, restored = live, "serving"
    );
    Ok(Server {
        http,
        resp,
        metrics,
        drain,
        running,
        encryption,
        webhooks,
        settings: config,
        store: closing,
        reload_orders: Some(orders.reloads),
        runtimes,
    })
}

impl Server {
    /// What it runs on: a runtime that hangs serves nobody.
    pub fn runtimes(&self) -> Vec<Handle> {
        self.runtimes.clone()
    }

    /// The orders of clients to read the config again, for whoever carries them out with
    /// [`Server::reload`]. Dropped, and nobody does.
    pub fn reload_orders(&mut self) -> Option<mpsc::Receiver<ReloadOrder>> {
        self.reload_orders.take()
    }

    /// What is served, and where, in a line.
    pub fn status(&self) -> String {
        let Server { http, resp, running, .. } = self;
        let resp = resp.map_or_else(String::new, |address| format!(", RESP on {address}"));
        let sources = running.count();
        let sources = if sources == 1 { "1 source".into() } else { format!("{sources} sources") };
        format!("serving {sources}; HTTP on {http}{resp}")
    }

    /// Finishes what is in flight and lets go of everything, within the grace period. Says whether
    /// all of it was finished.
    pub async fn stop(self) -> bool {
        self.drain.begin();
        // Who waits for one is answered now.
        drop(self.reload_orders);
        let grace_period = self.settings.grace_period;
        let all = async {
            self.drain.finished().await;
            // It holds the store, which is let go of when nobody does.
            drop(self.running);
            in_blocking(|| self.store.wait()).await;
        };
        let finished = tokio::time::timeout(grace_period, all).await.is_ok();
        if !finished {
            tracing::warn!(?grace_period, "not everything in flight could be finished");
        }
        finished
    }
}

fn log_advice(advice: &[Advice]) {
    for Advice { path, message, .. } in advice {
        tracing::warn!(setting = path, advice = message, "the config could be better");
    }
}

/// Notices a suspend soon after it, whatever the refreshers do.
async fn look_at_the_clocks(clock: SharedClock, drain: Drain) {
    loop {
        clock.look();
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = drain.begun() => return,
        }
    }
}

/// Tells each minute who has read what; at the end, what has not been told.
async fn report_reads(access: Arc<Access>, clock: SharedClock, drain: Drain) {
    let audit = access.audit();
    loop {
        tokio::select! {
            () = tokio::time::sleep(REPORT_EVERY) => audit.report(clock.now().wall),
            () = drain.begun() => break,
        }
    }
    // Twice: a page is told when the next one is full.
    for _ in 0..2 {
        audit.report(clock.now().wall);
    }
}

/// Notices a store directory that was deleted, and has what it held written again: the tokens, and the
/// request secret if it was generated. Now and then, and when the server stops.
async fn look_after_the_store(
    tokens: TokenStore,
    reader: Reader,
    generated: Option<(Secret, PathBuf)>,
    clock: SharedClock,
    drain: Drain,
) {
    let mut missing = false;
    let mut secret_is_well = true;
    loop {
        // Once more at the end: there is no later look.
        let is_last = tokio::select! {
            () = tokio::time::sleep(STORE_LOOK_EVERY) => false,
            () = drain.begun() => true,
        };
        missing |= tokens.look().await;
        if missing {
            missing = !put_again(&tokens, &reader, &clock).await;
        }
        if let Some((secret, dir)) = generated.clone() {
            secret_is_well = secret::put_again(secret, dir, secret_is_well).await;
        }
        if is_last {
            return;
        }
    }
}

/// Writes what is served of sources that the store has nothing of; whether nothing is left to be written.
/// While a request is under way its outcome is what is to be kept.
async fn put_again(tokens: &TokenStore, reader: &Reader, clock: &SharedClock) -> bool {
    let view = reader.view();
    let (doubted, sure): (Vec<_>, Vec<_>) = view
        .all_live(clock.now())
        .map(|(name, token)| (name.clone(), token.record().clone(), token.is_in_doubt()))
        .partition(|(.., in_doubt)| *in_doubt);
    let puts = sure.iter().map(|(name, record, _)| tokens.put_missing(name, record));
    let put = futures_util::future::join_all(puts).await;
    doubted.is_empty() && put.iter().all(Result::is_ok)
}

/// Runs what blocks where it may.
async fn in_blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(run).await.expect("what blocks does not panic, nor is it aborted")
}

/// Each connection takes a descriptor, and the default soft limit is a small one. Where even the hard
/// one is too small for both listeners, they share what there is: connections to one must not keep
/// the other, or the upstream, from having any.
fn share_descriptors(config: &Config) -> (HttpConfig, Option<RespConfig>) {
    let (mut http, mut resp) = (config.http.clone(), config.resp.clone());
    let limit = match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
        Err(error) => {
            tracing::warn!(%error, "the limit on open descriptors cannot be raised");
            return (http, resp);
        }
    };
    let wanted_by_resp = resp.as_ref().map_or(0, |resp| resp.max_connections);
    let wanted = http.max_connections + wanted_by_resp;
    let there_are = limit.saturating_sub(OWN_DESCRIPTORS).max(2);
    if wanted > there_are {
        let share = |wanted_by_one: usize| (wanted_by_one * there_are / wanted).max(1);
        http.max_connections = share(http.max_connections);
        if let Some(resp) = &mut resp {
            resp.max_connections = share(resp.max_connections);
        }
        tracing::warn!(
            descriptors = limit,
            http = http.max_connections,
            resp = resp.as_ref().map_or(0, |resp| resp.max_connections),
            "max_connections is more than the limit on descriptors (ulimit -n, LimitNOFILE) allows; \
             these are served at most"
        );
    }
    (http, resp)
}
