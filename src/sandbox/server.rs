//! Puts the model on a loopback socket: accepts, counts, hits calls with faults, answers.
//! Knows neither WeChat's rules (`model`) nor its wording (`wechat`).

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderValue, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::clock::SharedClock;
use crate::sandbox::body::AnswerBody;
use crate::sandbox::control;
use crate::sandbox::endpoint::{Endpoint, PerEndpoint};
use crate::sandbox::fault::{Fault, FaultKind, Faults, edit};
use crate::sandbox::line::Verdict;
use crate::sandbox::model::Model;
use crate::sandbox::parameters::Parameters;
use crate::sandbox::refusal::Refusal;
use crate::sandbox::settings::Settings;
use crate::sandbox::wechat::{self, Request};
use crate::shutdown::Drain;

/// WeChat's content type, odd parameter included.
const JSON: &str = "application/json; encoding=utf-8";
/// No request to a token endpoint is longer.
const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// How many calls the log remembers: a stand-in may run for weeks.
const LOG_CALLS: usize = 4_096;
/// How long the accept loop rests after an error, which is mostly a want of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// A call as it was logged when it arrived. Holds no value of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What was asked.
    pub endpoint: Endpoint,
    /// When.
    pub at: SystemTime,
    /// For which account, where the call names one that there is.
    pub appid: Option<Box<str>>,
    /// The errcode, 0 for a success; `None` where a fault left the call without effect.
    pub errcode: Option<i32>,
    /// The name of the fault that hit it.
    pub fault: Option<&'static str>,
}

/// What calls and control share. Never held across an await.
struct State {
    model: Model,
    faults: Faults,
    log: VecDeque<Call>,
    random: Rng,
}

struct Shared {
    state: Mutex<State>,
    counts: watch::Sender<PerEndpoint<u64>>,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    clock: SharedClock,
    address: SocketAddr,
    gone: Drain,
}

/// A running stand-in. Cheap to clone; it runs until [`Upstream::stop`].
#[derive(Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("address", &self.shared.address).finish_non_exhaustive()
    }
}

impl Upstream {
    /// Starts to answer on `listener`. To be called within a runtime.
    ///
    /// # Errors
    /// The listener has no address.
    pub fn start(listener: TcpListener, model: Model, clock: SharedClock) -> io::Result<Upstream> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                model,
                faults: Faults::default(),
                log: VecDeque::new(),
                // Only rids are drawn from it: any seed does.
                random: Rng::with_seed(0),
            }),
            counts: watch::Sender::new(PerEndpoint::default()),
            under_way: AtomicUsize::new(0),
            most_under_way: AtomicUsize::new(0),
            clock,
            address: listener.local_addr()?,
            gone: Drain::new(),
        });
        let upstream = Upstream { shared };
        upstream.shared.gone.spawn(accept(listener, upstream.clone()));
        Ok(upstream)
    }

    /// Closes the listener and every connection, whatever is in flight, and waits until they are
    /// closed.
    pub async fn stop(&self) {
        self.shared.gone.begin();
        // Every task ends at once when it is told, so that no deadline is needed.
        self.shared.gone.finished().await;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// The address of an endpoint or of the control surface: `path` begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.shared.address)
    }

    /// How many calls of `endpoint` have arrived.
    pub fn calls(&self, endpoint: Endpoint) -> u64 {
        self.shared.counts.borrow()[endpoint]
    }

    /// Waits until `calls` calls of `endpoint` have arrived, counted from the start. Whoever is
    /// woken finds them in the log.
    pub async fn wait_for_calls(&self, endpoint: Endpoint, calls: u64) {
        let mut counts = self.shared.counts.subscribe();
        let waited = counts.wait_for(|counts| counts[endpoint] >= calls).await;
        waited.expect("the sender lives as long as `self`");
    }

    /// How many calls were under way at once, at most: taken, and not answered yet.
    pub fn most_under_way(&self) -> usize {
        self.shared.most_under_way.load(Ordering::Relaxed)
    }

    /// The last calls, oldest first.
    pub fn log(&self) -> Vec<Call> {
        self.state().log.iter().cloned().collect()
    }

    /// Lets calls go wrong; faults that were asked for earlier come first.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.add(fault);
    }

    /// The faults in waiting.
    pub fn faults(&self) -> Vec<Fault> {
        self.state().faults.iter().cloned().collect()
    }

    /// Forgets all faults. A call that hangs goes on hanging.
    pub fn clear(&self) {
        self.state().faults.clear();
    }

    /// Changes the settings, for the next calls.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.state().model.settings);
    }

    /// Asks or changes the model, at the clock's time: for all that has no method here. `ask` must
    /// not use this handle: the model is locked meanwhile.
    pub fn with_model<T>(&self, ask: impl FnOnce(&mut Model, SystemTime) -> T) -> T {
        let now = self.shared.clock.now().wall;
        ask(&mut self.state().model, now)
    }

    /// Whether an access token is accepted right now.
    pub fn accepts(&self, access_token: &str) -> Verdict {
        self.with_model(|model, now| model.accepts(access_token, now))
    }

    /// Whether a ticket is accepted right now.
    pub fn accepts_ticket(&self, ticket: &str) -> Verdict {
        self.with_model(|model, now| model.accepts_ticket(ticket, now))
    }

    /// Rotates in secret: somebody else fetches from `cgi-bin/token` for this account. Says whether
    /// there is such an account.
    pub fn rotate(&self, appid: &str) -> bool {
        self.with_model(|model, now| model.rotate(appid, now).is_some())
    }

    /// What time an answer says that it is.
    fn date(&self) -> SystemTime {
        self.shared.clock.now().wall + self.state().model.settings.date_ahead
    }

    /// The state. A panic of a closure that was handed in leaves it whole enough for a stand-in.
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a call: its effect, its log line, its count. What is left is to send the answer.
    fn take(&self, request: &Request) -> Taken {
        let now = self.shared.clock.now().wall;
        let mut state = self.state();
        let fault = state.faults.take(request.endpoint);
        let effect = fault.as_ref().is_none_or(Fault::has_effect);
        let mut result = effect.then(|| wechat::ask(&mut state.model, request, now));
        let kind = fault.map(|fault| fault.kind);
        if let Some(FaultKind::Errcode(code)) = kind {
            result = Some(Err(Refusal { code, caller: Some(request.address) }));
        }
        let call = Call {
            endpoint: request.endpoint,
            at: now,
            appid: wechat::account(&state.model, request),
            errcode: result.as_ref().map(|r| r.as_ref().map_or_else(|refused| refused.code, |_| 0)),
            fault: kind.as_ref().map(FaultKind::name),
        };
        debug!(
            endpoint = call.endpoint.name(),
            appid = call.appid.as_deref(),
            errcode = call.errcode,
            fault = call.fault,
            "call"
        );
        if state.log.len() == LOG_CALLS {
            state.log.pop_front();
        }
        state.log.push_back(call);
        // Counted after it is logged: who is woken must find it there.
        self.shared.counts.send_modify(|counts| counts[request.endpoint] += 1);
        let rid = rid(&mut state.random, now);
        let json = result.map_or_else(Bytes::new, |result| wechat::word(&result, &rid));
        Taken { json, fault: kind, latency: state.model.settings.latency }
    }
}

/// Counts a call for as long as it is under way: one whose client hangs up ends by being dropped.
struct UnderWay<'a>(&'a Shared);

impl UnderWay<'_> {
    fn begin(shared: &Shared) -> UnderWay<'_> {
        // The counts order nothing else.
        let under_way = shared.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        shared.most_under_way.fetch_max(under_way, Ordering::Relaxed);
        UnderWay(shared)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request id as WeChat appends it to an errmsg.
fn rid(random: &mut Rng, now: SystemTime) -> String {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format!("{seconds:08x}-{:08x}-{:08x}", random.u32(..), random.u32(..))
}

/// A call that has had its effect.
struct Taken {
    /// The right answer; empty where the fault needs none.
    json: Bytes,
    fault: Option<FaultKind>,
    latency: Duration,
}

/// The connection is to be reset instead of an answer.
#[derive(Debug)]
struct Reset;

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("reset, as asked")
    }
}

impl std::error::Error for Reset {}

async fn accept(listener: TcpListener, upstream: Upstream) {
    let gone = upstream.shared.gone.clone();
    loop {
        let accepted = tokio::select! {
            () = gone.begun() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (upstream, gone) = (upstream.clone(), gone.clone());
                upstream.shared.gone.clone().spawn(async move {
                    tokio::select! {
                        () = gone.begun() => {}
                        () = serve(stream, peer, upstream) => {}
                    }
                });
            }
            Err(error) => {
                warn!(%error, "the sandbox cannot accept a connection");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// One connection, to its end.
async fn serve(stream: TcpStream, peer: SocketAddr, upstream: Upstream) {
    // A dripping answer is to drip. Failing this, it comes in lumps.
    let _ = stream.set_nodelay(true);
    let address = peer.ip().to_canonical();
    let service = service_fn(move |request| -> Pin<Box<dyn Future<Output = _> + Send>> {
        Box::pin(answer(upstream.clone(), address, request))
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let end = std::future::poll_fn(|context| connection.poll_without_shutdown(context)).await;
    if end.is_err_and(|error| std::error::Error::source(&error).is_some_and(|e| e.is::<Reset>())) {
        // Closing with zero linger sends RST in place of FIN. Should it fail, the client sees
        // the connection closed without an answer.
        let _ = connection.into_parts().io.into_inner().set_zero_linger();
    }
}

async fn answer(
    upstream: Upstream,
    address: IpAddr,
    request: hyper::Request<Incoming>,
) -> Result<Response<AnswerBody>, Reset> {
    let (head, body) = request.into_parts();
    let parameters = Parameters::parse(head.uri.query().unwrap_or_default());
    let is_post = head.method == Method::POST;
    if let Some(name) = control::route(head.uri.path()) {
        let (status, json) = control::answer(&upstream, name, is_post, &parameters).await;
        return Ok(response(status, JSON, AnswerBody::whole(json)));
    }
    let Some(body) = read(body).await else {
        return Ok(html(StatusCode::PAYLOAD_TOO_LARGE));
    };
    let endpoint = Endpoint::at(head.uri.path());
    let _under_way = UnderWay::begin(&upstream.shared);
    let taken = upstream.take(&Request { endpoint, is_post, parameters, body, address });
    tokio::time::sleep(taken.latency).await;
    let mut answer = send(taken).await?;
    let date = httpdate::fmt_http_date(upstream.date());
    answer.headers_mut().insert(DATE, HeaderValue::try_from(date).expect("a date is plain text"));
    Ok(answer)
}

/// Sends the answer, or what the fault makes of it.
async fn send(taken: Taken) -> Result<Response<AnswerBody>, Reset> {
    let json = taken.json;
    let good = |body| Ok(response(StatusCode::OK, JSON, body));
    let edited = |field, with| {
        let mut fields = wechat::fields(&json);
        edit(&mut fields, field, with);
        AnswerBody::whole(serde_json::Value::from(fields).to_string())
    };
    match taken.fault {
        None | Some(FaultKind::Errcode(_)) => good(AnswerBody::whole(json)),
        Some(FaultKind::Status(code)) => {
            Ok(html(StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY)))
        }
        Some(FaultKind::Garbage) => {
            good(AnswerBody::whole(&b"\xff\xfe\x00{\"access_token\": <garbage>"[..]))
        }
        Some(FaultKind::Truncated) => {
            let mut answer = response(StatusCode::OK, JSON, AnswerBody::half_of(&json));
            answer.headers_mut().insert(CONTENT_LENGTH, json.len().into());
            Ok(answer)
        }
        Some(FaultKind::Missing(field)) => good(edited(field, None)),
        Some(FaultKind::Replace(field, with)) => good(edited(field, Some(&with))),
        Some(FaultKind::Hang) => std::future::pending().await,
        Some(FaultKind::Reset) => Err(Reset),
        Some(FaultKind::Huge) => good(AnswerBody::huge()),
        Some(FaultKind::Drip(delay)) => good(AnswerBody::dripping(json, delay)),
        Some(FaultKind::Redirect(to)) => {
            let mut answer = html(StatusCode::FOUND);
            // A fault made in code may hold what no header can: it then redirects nowhere.
            if let Ok(to) = HeaderValue::try_from(to) {
                answer.headers_mut().insert(LOCATION, to);
            }
            Ok(answer)
        }
        Some(FaultKind::Latency(delay)) => {
            tokio::time::sleep(delay).await;
            good(AnswerBody::whole(json))
        }
    }
}

fn response(status: StatusCode, kind: &'static str, body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A page as a gateway shows it.
fn html(status: StatusCode) -> Response<AnswerBody> {
    let page = format!("<html><head><title>{status}</title></head><body>{status}</body></html>");
    response(status, "text/html", AnswerBody::whole(page))
}

/// Reads a request's body; `None` if it is too long. One that breaks off counts as what came.
async fn read(mut body: Incoming) -> Option<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(Ok(frame)) =
        std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > MAX_REQUEST_BYTES {
                return None;
            }
            bytes.extend_from_slice(&data);
        }
    }
    Some(bytes.freeze())
}

#[cfg(test)]
mod tests;
