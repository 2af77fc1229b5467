//! One connection: hyper reads and writes it, a deadline watches its progress, the drain ends it.
//! Knows no route.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::TryFutureExt;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use warp::http::{Method, Request, StatusCode, Uri};

use crate::access::forwarded_for;
use crate::clock::SharedClock;

use super::handlers::Site;
use super::progress::{NotingStream, Phase, Progress};
use super::routes::{ForwardedFor, routes};

/// The longest head, in bytes; a longer one is answered with 431. (hyper bounds the number of
/// header lines at 100 by itself.)
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How long a connection that is over waits for the client to stop sending what we refused.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long half a head may still take once the drain has begun.
const LAST_HEAD: Duration = Duration::from_secs(1);

/// How long a connection may stand still.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// A head, from its first byte or, on a new connection, from the accept.
    pub(super) header: Duration,
    /// Between requests, and an answer that is not taken.
    pub(super) idle: Duration,
}

impl Limits {
    fn of(self, phase: Phase) -> Option<Duration> {
        match phase {
            Phase::Head => Some(self.header),
            Phase::Handler => None,
            Phase::Client => Some(self.idle),
            Phase::Farewell => Some(FAREWELL),
        }
    }
}

/// Serves one connection to its end. `closing` tells of the drain; it is the connection's own, as
/// each poll locks it.
pub(super) async fn run(
    stream: TcpStream,
    peer: SocketAddr,
    site: Arc<Site>,
    limits: Limits,
    closing: CancellationToken,
) {
    // An answer is one small write; waiting to join it with the next would only delay it.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "HTTP client left at once");
        return;
    }
    let progress = Arc::new(Progress::default());
    let mut deadline = Deadline::new(limits, site.clock.clone(), &progress);
    let trusts =
        site.trusted_proxies.iter().any(|proxies| proxies.contains(&peer.ip().to_canonical()));
    let routes = TowerToHyperService::new(warp::service(routes(
        Arc::clone(&site),
        peer,
        Arc::clone(&progress),
    )));
    let noting = Arc::clone(&progress);
    let service = service_fn(move |mut request: Request<Incoming>| {
        noting.step(Phase::Handler);
        if request.uri().path_and_query().is_none() {
            // `GET host:80` or CONNECT: names no resource of ours, and warp panics without a path.
            *request.uri_mut() = Uri::from_static("*");
        }
        if trusts {
            let forwarded = request.headers().get_all("x-forwarded-for").iter();
            let words = forwarded.map(|line| line.as_bytes());
            let address = forwarded_for(peer.ip(), words, &site.trusted_proxies);
            request.extensions_mut().insert(ForwardedFor(address));
        }
        let has_body = !request.body().is_end_stream();
        let may_be_read = request.method() == Method::POST;
        let noting = Arc::clone(&noting);
        // `map_ok` and not an async block, which would hold the future twice and copy it once more.
        routes.call(request).map_ok(move |answer| {
            let was_read = may_be_read && answer.status() == StatusCode::OK;
            noting.left_body_unread(has_body && !was_read);
            noting.step(Phase::Client);
            answer
        })
    });
    let connection = http1::Builder::new()
        // A client that has sent its request and closed its half is still answered.
        .half_close(true)
        // Ours tells an idle connection from a slow head, and sets no timer for each request.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD_BYTES)
        // Head and body in one buffer: for bodies this small the copy is cheaper.
        .writev(false)
        .serve_connection(TokioIo::new(NotingStream::new(stream, Arc::clone(&progress))), service);
    let mut connection = pin!(connection);
    let mut begun = pin!(closing.cancelled());
    let mut draining = false;
    let end = poll_fn(|cx| {
        // First: a request that has arrived is served, even if the drain or the deadline is there.
        if let Poll::Ready(end) = connection.as_mut().poll(cx) {
            return Poll::Ready(End::Closed(end));
        }
        if !draining && begun.as_mut().poll(cx).is_ready() {
            draining = true;
            deadline.drain(&progress);
            connection.as_mut().graceful_shutdown();
            if let Poll::Ready(end) = connection.as_mut().poll(cx) {
                return Poll::Ready(End::Closed(end));
            }
        }
        deadline.poll(cx, &progress).map(End::TimedOut)
    })
    .await;
    match end {
        End::Closed(Ok(())) => {}
        // hyper's text says what kind of error it was, and nothing of what the client sent.
        End::Closed(Err(error)) => tracing::debug!(%peer, %error, "HTTP connection broke"),
        End::TimedOut(phase) => tracing::debug!(%peer, ?phase, "HTTP connection timed out"),
    }
}

enum End {
    Closed(hyper::Result<()>),
    TimedOut(Phase),
}

/// Ends when a connection has made no progress for as long as its phase allows.
///
/// A request moves the deadline without touching the runtime's timers: the one timer is set anew
/// when it fires too early, or when the deadline has come nearer.
#[derive(Debug)]
struct Deadline {
    limits: Limits,
    clock: SharedClock,
    /// The mark up to which `ends` accounts for.
    seen: u32,
    /// When the phase must have ended, on the monotonic clock.
    ends: Option<Duration>,
    timer: Pin<Box<Sleep>>,
    /// When `timer` fires, on the monotonic clock.
    fires: Duration,
}

impl Deadline {
    fn new(limits: Limits, clock: SharedClock, progress: &Progress) -> Deadline {
        let now = clock.now().mono;
        let limit = limits.of(progress.phase());
        let first = limit.unwrap_or(limits.idle);
        Deadline {
            limits,
            clock,
            seen: progress.mark(),
            ends: limit.map(|limit| now.saturating_add(limit)),
            timer: Box::pin(tokio::time::sleep(first)),
            fires: now.saturating_add(first),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, progress: &Progress) -> Poll<Phase> {
        let mark = progress.mark();
        if mark != self.seen {
            self.seen = mark;
            let now = self.clock.now().mono;
            self.ends = self.limits.of(progress.phase()).map(|limit| now.saturating_add(limit));
            if self.ends.is_some_and(|ends| ends < self.fires) {
                self.set_timer(now);
            }
        }
        while self.ends.is_some() {
            ready!(self.timer.as_mut().poll(cx));
            let now = self.clock.now().mono;
            if self.ends.is_some_and(|ends| ends <= now) {
                return Poll::Ready(progress.phase());
            }
            self.set_timer(now);
        }
        Poll::Pending
    }

    /// Shortens the wait for heads: one that is under way may be finished, but not at leisure.
    fn drain(&mut self, progress: &Progress) {
        self.limits.header = self.limits.header.min(LAST_HEAD);
        if progress.phase() == Phase::Head {
            let now = self.clock.now().mono;
            let last = now.saturating_add(self.limits.header);
            self.ends = Some(self.ends.map_or(last, |ends| ends.min(last)));
            self.set_timer(now);
        }
    }

    fn set_timer(&mut self, now: Duration) {
        if let Some(ends) = self.ends {
            self.timer.set(tokio::time::sleep(ends.saturating_sub(now)));
            self.fires = ends;
        }
    }
}
