//! The HTTP listener: accepts connections up to its limits and lets each be served until the drain.
//! What a connection may do is in `connection`, what is answered in `routes` and below it.

mod connection;
mod form;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handlers;
mod health;
mod metrics;
mod overload;
mod parts;
mod places;
mod progress;
mod query;
mod reply;
mod routes;
#[cfg(test)]
mod tests;
mod ui;
mod v1;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Access, Via};
use crate::admission::{Admission, Exempt};
use crate::clock::SharedClock;
use crate::config::{HttpConfig, ReadyConfig};
use crate::control::Control;
use crate::doctor::Doctor;
use crate::log_budget::LogBudget;
use crate::refresh::RefreshHandle;
use crate::shutdown::Drain;
use crate::snapshot::Reader;
use crate::status::{Status, Traffic};
use crate::tls::{Listener, Tls};

use connection::Limits;
use handlers::Site;
use overload::{Overload, Reason};
use places::Places;

pub use routes::{ROUTES, Route};

/// How long accepting rests after an error that waiting may cure, such as no free descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What TLS needs to know of this listener.
pub const TLS: Listener =
    Listener { setting: "http.tls", alpn: &[b"http/1.1"], in_the_clear: overload::SPEAKS_TLS };

/// How many requests may wait for a token at once, and how many of one client; each holds a connection.
const MAX_WAITS: usize = 4_096;
const MAX_WAITS_OF_ONE: usize = 1_024;

/// How many may be told at once what happens, and how many of one client: each is woken by all of it.
const MAX_STREAMS: usize = 256;
const MAX_STREAMS_OF_ONE: usize = 64;

/// What the listener serves from.
#[derive(Debug, Clone)]
pub struct HttpParts {
    /// The tokens.
    pub reader: Reader,
    /// The way to ask for newer ones.
    pub refresh: RefreshHandle,
    /// The clock that lives and timeouts are measured with.
    pub clock: SharedClock,
    /// Who may be given a token.
    pub access: Arc<Access>,
    /// What connections are encrypted with; `None`: they are not.
    pub tls: Option<Tls>,
    /// How the server is.
    pub status: Status,
    /// The way to have it do something.
    pub control: Control,
    /// What the server finds out about itself.
    pub doctor: Doctor,
    /// What must be there for the server to be ready.
    pub ready: ReadyConfig,
    /// What is served.
    pub door: Door,
}

/// What a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Everything.
    Main,
    /// What tells how the server is (`/metrics`, `/healthz`, `/readyz`), to whoever reaches it.
    Metrics,
}

/// Serves `listener` until the drain begins; then takes no new connection, closes idle ones, lets
/// requests in flight finish, and returns once all connections have ended. The caller bounds that.
pub async fn serve(listener: TcpListener, config: HttpConfig, parts: HttpParts, drain: Drain) {
    accept_from(listener, config, parts, drain).await;
}

/// Where connections come from: a socket, or a test that puts errors in between.
trait Accept {
    fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send;
}

impl Accept for TcpListener {
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        TcpListener::accept(self).await
    }
}

async fn accept_from(source: impl Accept, config: HttpConfig, parts: HttpParts, drain: Drain) {
    let HttpParts { reader, refresh, clock, access, tls, status, control, doctor, ready, door } =
        parts;
    let limits = Limits { header: config.header_timeout, idle: config.idle_timeout };
    let permits = Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS)));
    let addresses =
        Admission::new(config.max_connections_per_address, exempt(&config.trusted_proxies));
    let site = Arc::new(Site {
        reader,
        refresh,
        clock: clock.clone(),
        access,
        status,
        control,
        doctor,
        secret_parameter: config.secret_parameter,
        ui: config.ui,
        trusted_proxies: config.trusted_proxies.clone(),
        body_timeout: config.idle_timeout,
        tls,
        tls_hellos: LogBudget::default(),
        ready,
        door,
        waits: Places::new(MAX_WAITS, MAX_WAITS_OF_ONE),
        streams: Places::new(MAX_STREAMS, MAX_STREAMS_OF_ONE),
        drain: drain.clone(),
    });
    let connections = TaskTracker::new();
    let unwatched = Traffic::default();
    let traffic = match door {
        Door::Main => site.status.traffic(Via::Http),
        Door::Metrics => &unwatched,
    };
    traffic.watch(&connections);
    let overload = Overload::new(&config);
    let accept_errors = LogBudget::default();
    let closing = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            accepted = source.accept() => accepted,
            () = drain.begun() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                traffic.accept();
                let permit = Arc::clone(&permits).try_acquire_owned();
                let admitted = match (permit, addresses.admit(peer.ip())) {
                    (Ok(permit), Some(place)) => Ok((permit, place)),
                    (Err(_), _) => Err(Reason::AllPlacesTaken),
                    (Ok(_), None) => Err(Reason::TooManyOfAddress),
                };
                match admitted {
                    Ok(places) => {
                        let (site, closing) = (Arc::clone(&site), closing.child_token());
                        connections.spawn(async move {
                            connection::run(stream, peer, site, limits, closing).await;
                            drop(places);
                        });
                    }
                    Err(reason) => {
                        traffic.reject();
                        // Who waits for a handshake would take the words for a broken one.
                        let can_be_told = site.tls.is_none();
                        let now = clock.now();
                        overload.refuse(stream, peer, reason, can_be_told, now, &connections);
                    }
                }
            }
            Err(error) if concerns_one_peer(&error) => {
                tracing::debug!(%error, "a client left before it was accepted");
            }
            Err(error) => {
                if let Some(unsaid) = accept_errors.spend(clock.now()) {
                    tracing::warn!(%error, unsaid, "cannot accept HTTP connections, will go on trying");
                }
                tokio::select! {
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    () = drain.begun() => break,
                }
            }
        }
    }
    // Before the wait: what knocks from now on is told so by the kernel instead of left hanging.
    drop(source);
    closing.cancel();
    connections.close();
    connections.wait().await;
}

/// Whose connections are not counted by their address: those from this machine and from proxies, which
/// speak for many clients at once.
fn exempt(proxies: &[IpNet]) -> Exempt {
    let proxies = proxies.to_vec();
    Box::new(move |address| {
        address.is_loopback() || proxies.iter().any(|network| network.contains(&address))
    })
}

/// Whether an accept failed for this one peer, so that the next may succeed at once.
fn concerns_one_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
