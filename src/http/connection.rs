//! One connection: hyper reads and writes it while there is something to do, a deadline watches its
//! progress, the drain ends it. Knows no route.

use std::convert::Infallible;
use std::error::Error;
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
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use warp::http::{Method, Request, Response, StatusCode, Uri};

use crate::access::forwarded_for;
use crate::clock::SharedClock;
use crate::tls::Stream;

use super::handlers::Site;
use super::overload::answer;
use super::progress::{MAX_HEAD_BYTES, NotingStream, Phase, Progress};
use super::routes::{Said, routes};

/// How long a connection is silent before the buffers for its requests and answers are given back.
pub(super) const QUIET: Duration = Duration::from_millis(100);
/// What a client is told whose body does not come.
const BODY_TOO_SLOW: &str = answer!("408 Request Timeout", "26", r#"{"error": "body too slow"}"#);
/// … on a path of `/v1`, in the shape that errors have there.
const V1_BODY_TOO_SLOW: &str = answer!(
    "408 Request Timeout",
    "80",
    r#"{"error":{"code":"too_slow","message":"the body took too long","retry_after":1}}"#
);
/// How long a connection that is over waits for the client to stop sending what we refused.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long half a head may still take once the drain has begun.
const LAST_HEAD: Duration = Duration::from_secs(1);

/// How long a connection may stand still.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// A head, from its first byte or, on a new connection, from the accept.
    pub(super) header: Duration,
    /// Between requests; a body; and an answer that is not taken.
    pub(super) idle: Duration,
}

impl Limits {
    fn of(self, phase: Phase) -> Option<Duration> {
        match phase {
            Phase::Head => Some(self.header),
            Phase::Handler => None,
            Phase::Client | Phase::Body => Some(self.idle),
            Phase::Farewell => Some(FAREWELL),
        }
    }
}

/// Serves one connection to its end. `closing` tells of the drain; it is the connection's own, as
/// each poll locks it.
pub(super) async fn run(
    socket: TcpStream,
    peer: SocketAddr,
    site: Arc<Site>,
    limits: Limits,
    closing: CancellationToken,
) {
    // An answer is one small write; waiting to join it with the next would only delay it.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%peer, %error, "HTTP client left at once");
        return;
    }
    let stream = if site.tls.is_none() {
        Stream::Plain(socket)
    } else {
        // In a box: what a handshake needs is not kept for connections that have none.
        match Box::pin(encrypted(socket, peer, &site, limits, &closing)).await {
            Some(stream) => stream,
            None => return,
        }
    };
    let progress = Arc::new(Progress::default());
    converse(stream, peer, &site, limits, closing, &progress).await;
    if site.tls.is_none()
        && progress.began_with_tls()
        && let Some(unsaid) = site.tls_hellos.spend(site.clock.now())
    {
        tracing::warn!(
            %peer, unsaid,
            "a client speaks TLS on the plain HTTP port; have it use http://, or set http.tls"
        );
    }
}

/// Answers what is asked on a connection.
async fn converse(
    stream: Stream,
    peer: SocketAddr,
    site: &Arc<Site>,
    limits: Limits,
    closing: CancellationToken,
    progress: &Arc<Progress>,
) {
    let mut deadline = Deadline::new(limits, site.clock.clone(), progress);
    let service = service(Arc::clone(site), peer, Arc::clone(progress));
    let mut stream = NotingStream::new(stream, Arc::clone(progress));
    let mut begun = pin!(closing.cancelled());
    let mut draining = false;
    // As long as there is no request, the socket, the deadline and what has arrived are all there is.
    loop {
        let heard =
            wait_for_request(&mut stream, progress, &mut deadline, begun.as_mut(), &mut draining);
        if !heard.await {
            tracing::debug!(%peer, phase = ?progress.phase(), "HTTP connection without a request closed");
            return;
        }
        let serving =
            serve(stream, &service, progress, &mut deadline, begun.as_mut(), &mut draining);
        // Boxed: hyper's state is to take room only while there is something to do.
        match Box::pin(serving).await {
            End::AtRest(rested) => stream = rested,
            End::Closed(Ok(())) => return,
            // hyper's text says what kind of error it was, and nothing of what the client sent.
            End::Closed(Err(error)) => {
                tracing::debug!(%peer, %error, "HTTP connection broke");
                return;
            }
            End::TimedOut(phase) => {
                tracing::debug!(%peer, ?phase, "HTTP connection timed out");
                return;
            }
        }
    }
}

/// Waits until there is a request to serve; says whether there is, or the connection is over. Holds nothing
/// but what has arrived.
pub(super) async fn wait_for_request(
    stream: &mut NotingStream,
    progress: &Progress,
    deadline: &mut Deadline,
    mut begun: Pin<&mut WaitForCancellationFuture<'_>>,
    draining: &mut bool,
) -> bool {
    poll_fn(|cx| {
        if stream.poll_request(cx).is_ready() {
            return Poll::Ready(true);
        }
        if !*draining && begun.as_mut().poll(cx).is_ready() {
            *draining = true;
            deadline.drain(progress);
            if progress.phase() == Phase::Client {
                return Poll::Ready(false);
            }
        }
        ready!(deadline.poll(cx, progress));
        if progress.phase() == Phase::Body {
            // As far as the client takes it: it has been waited for long enough.
            let words = if stream.is_for_v1() { V1_BODY_TOO_SLOW } else { BODY_TOO_SLOW };
            let _ = Pin::new(&mut *stream).poll_write(cx, words.as_bytes());
        }
        Poll::Ready(false)
    })
    .await
}

/// What answers the requests of one connection, and notes how far it is with them.
pub(super) fn service(
    site: Arc<Site>,
    peer: SocketAddr,
    progress: Arc<Progress>,
) -> impl Service<
    Request<Incoming>,
    Response = Response<
        impl Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    >,
    Error = Infallible,
    Future: Send,
> + Clone {
    let trusts =
        site.trusted_proxies.iter().any(|proxies| proxies.contains(&peer.ip().to_canonical()));
    let routes = TowerToHyperService::new(warp::service(routes(
        Arc::clone(&site),
        peer,
        Arc::clone(&progress),
    )));
    service_fn(move |mut request: Request<Incoming>| {
        progress.step(Phase::Handler);
        prepare(&mut request, peer, &site, trusts);
        let has_body = !request.body().is_end_stream();
        let may_be_read = request.method() == Method::POST;
        let noting = Arc::clone(&progress);
        // `map_ok` and not an async block, which would hold the future twice and copy it once more.
        routes.call(request).map_ok(move |answer| {
            let was_read = may_be_read && answer.status() == StatusCode::OK;
            noting.left_body_unread(has_body && !was_read);
            noting.step(Phase::Client);
            answer
        })
    })
}

/// Serves what a client sends until the connection ends, or there has been nothing to do for a while.
pub(super) async fn serve<S, B>(
    stream: NotingStream,
    service: &S,
    progress: &Progress,
    deadline: &mut Deadline,
    mut begun: Pin<&mut WaitForCancellationFuture<'_>>,
    draining: &mut bool,
) -> End
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut connection = http1::Builder::new()
        // A client that has sent its request and closed its half is still answered.
        .half_close(true)
        // Ours tells an idle connection from a slow head, and sets no timer for each request.
        .header_read_timeout(None)
        // A longer head is answered with 431. (hyper bounds the number of header lines at 100 by itself.)
        .max_buf_size(MAX_HEAD_BYTES)
        // Head and body in one buffer: for bodies this small the copy is cheaper.
        .writev(false)
        // What was asked before the drain is answered, and is the last.
        .keep_alive(!*draining)
        .serve_connection(TokioIo::new(stream), service.clone());
    let end = poll_fn(|cx| {
        // First: a request that has arrived is served, even if the drain or the deadline is there.
        if let Poll::Ready(end) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(Some(End::Closed(end)));
        }
        if !*draining && begun.as_mut().poll(cx).is_ready() {
            *draining = true;
            deadline.drain(progress);
            Pin::new(&mut connection).graceful_shutdown();
            if let Poll::Ready(end) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(Some(End::Closed(end)));
            }
        }
        deadline.poll(cx, progress).map(|due| match due {
            Due::Rest => None,
            Due::Over(phase) => Some(End::TimedOut(phase)),
        })
    });
    if let Some(end) = end.await {
        return end;
    }
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    stream.rewind(&parts.read_buf);
    End::AtRest(stream)
}

/// Leaves with a request what the routes look for; `trusts` says whether `peer` is a trusted proxy.
pub(super) fn prepare<B>(request: &mut Request<B>, peer: SocketAddr, site: &Site, trusts: bool) {
    if request.uri().path_and_query().is_none() {
        // `GET host:80` or CONNECT: names no resource of ours, and warp panics without a path.
        *request.uri_mut() = Uri::from_static("*");
    }
    let headers = request.headers();
    let forwarded_for = trusts.then(|| {
        let forwarded = headers.get_all("x-forwarded-for").iter();
        let words = forwarded.map(|line| line.as_bytes());
        forwarded_for(peer.ip(), words, &site.trusted_proxies)
    });
    if let Some(said) = Said::of(headers, forwarded_for) {
        request.extensions_mut().insert(said);
    }
}

/// The connection once its handshake is done. The drain leaves it as long as it leaves a head.
async fn encrypted(
    socket: TcpStream,
    peer: SocketAddr,
    site: &Site,
    limits: Limits,
    closing: &CancellationToken,
) -> Option<Stream> {
    let too_late = async {
        closing.cancelled().await;
        tokio::time::sleep(LAST_HEAD).await;
    };
    tokio::select! {
        stream = site.tls.as_ref()?.accept(socket, peer, limits.header) => stream,
        () = too_late => None,
    }
}

/// How the serving of a connection ends.
pub(super) enum End {
    /// By the client, by an error, or by the drain.
    Closed(hyper::Result<()>),
    /// Not ended: everything is answered, and the client is silent.
    AtRest(NotingStream),
    /// By the deadline, in this phase.
    TimedOut(Phase),
}

/// What a deadline says when its time has come.
enum Due {
    /// The client has been silent for a while.
    Rest,
    /// The phase has taken too long.
    Over(Phase),
}

/// Ends when a connection has made no progress for as long as its phase allows; and before that, when it
/// may as well rest.
///
/// A request moves the deadline without touching the runtime's timers: the one timer is set anew
/// when it fires too early, or when the deadline has come nearer.
#[derive(Debug)]
pub(super) struct Deadline {
    limits: Limits,
    clock: SharedClock,
    /// The mark up to which `ends` accounts for.
    seen: u32,
    /// When the phase must have ended, on the monotonic clock.
    ends: Option<Duration>,
    /// When it may rest if nothing happens until then, on the monotonic clock.
    rests: Option<Duration>,
    timer: Pin<Box<Sleep>>,
    /// When `timer` fires, on the monotonic clock.
    fires: Duration,
}

impl Deadline {
    pub(super) fn new(limits: Limits, clock: SharedClock, progress: &Progress) -> Deadline {
        let now = clock.now().mono;
        let limit = limits.of(progress.phase());
        let first = limit.unwrap_or(limits.idle);
        Deadline {
            limits,
            clock,
            seen: progress.mark(),
            ends: limit.map(|limit| now.saturating_add(limit)),
            rests: None,
            timer: Box::pin(tokio::time::sleep(first)),
            fires: now.saturating_add(first),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, progress: &Progress) -> Poll<Due> {
        let mark = progress.mark();
        if mark != self.seen {
            self.seen = mark;
            let (now, phase) = (self.clock.now().mono, progress.phase());
            self.ends = self.limits.of(phase).map(|limit| now.saturating_add(limit));
            let may_rest = matches!(phase, Phase::Head | Phase::Client);
            self.rests = may_rest.then(|| now.saturating_add(QUIET));
            if self.next().is_some_and(|next| next < self.fires) {
                self.set_timer(now);
            }
        }
        while self.next().is_some() {
            ready!(self.timer.as_mut().poll(cx));
            let now = self.clock.now().mono;
            if self.ends.is_some_and(|ends| ends <= now) {
                return Poll::Ready(Due::Over(progress.phase()));
            }
            let may_rest = self.rests.take_if(|rests| *rests <= now).is_some();
            self.set_timer(now);
            if may_rest && progress.is_at_rest() {
                return Poll::Ready(Due::Rest);
            }
        }
        Poll::Pending
    }

    /// When there is something to do.
    fn next(&self) -> Option<Duration> {
        self.ends.into_iter().chain(self.rests).min()
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
        if let Some(next) = self.next() {
            self.timer.set(tokio::time::sleep(next.saturating_sub(now)));
            self.fires = next;
        }
    }
}
