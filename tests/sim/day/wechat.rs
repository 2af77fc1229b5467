//! The upstream of the day: the sandbox's model behind the weather, and what is known of the values
//! that it has given.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use wechat_token_server::config::TokenSource;
use wechat_token_server::sandbox::{Account, Caller, Model, Settings};
use wechat_token_server::source::{FetchError, FetchRequest, Fetched, Upstream};
use wechat_token_server::token::SourceName;

use crate::fault::{Fault, recovery, refused};

use super::NAMES;
use super::truth::Truth;

/// What a request runs into.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trouble {
    Upstream(Fault),
    /// A mistake of ours: whatever asks breaks down.
    Panics,
}

struct State {
    model: Model,
    /// One for each source: tokio wakes the dependents in an order of its own.
    dice: HashMap<SourceName, fastrand::Rng>,
    trouble: Option<Trouble>,
    ends: Duration,
    under_way: HashSet<SourceName>,
    /// When each value was first given.
    given: HashMap<String, Duration>,
    /// Since when each source's token may be another for reasons that no engine can know.
    tainted: [Option<Duration>; NAMES.len()],
    fetches: u64,
    /// When each request for the access token was sent.
    token_fetches: Vec<Duration>,
}

#[derive(Clone)]
pub(crate) struct Wechat {
    truth: Arc<Truth>,
    requested: Arc<Notify>,
    state: Arc<Mutex<State>>,
}

/// A request as WeChat sees it.
struct Call {
    path: String,
    ticket_type: Option<&'static str>,
    access_token: Option<String>,
    force: bool,
}

impl Call {
    fn of(source: &TokenSource, request: &FetchRequest) -> Call {
        let used = source.dependencies.first().and_then(|name| request.dependencies.get(name));
        Call {
            path: source.url.path().to_owned(),
            ticket_type: match source.name.as_str() {
                "ticket" => Some("jsapi"),
                "card" => Some("wx_card"),
                _ => None,
            },
            access_token: used.map(|token| token.expose().to_owned()),
            force: request.force,
        }
    }
}

impl Wechat {
    pub(crate) fn new(truth: Arc<Truth>, sources: &[TokenSource], seed: u64) -> Wechat {
        let settings = Settings { value_bytes: 32, ..Settings::default() };
        let state = State {
            model: Model::new(settings, [Account::default()], seed),
            dice: (seed.rotate_left(32)..)
                .zip(sources)
                .map(|(seed, source)| (source.name.clone(), fastrand::Rng::with_seed(seed)))
                .collect(),
            trouble: None,
            ends: Duration::ZERO,
            under_way: HashSet::new(),
            given: HashMap::new(),
            tainted: [None; NAMES.len()],
            fetches: 0,
            token_fetches: Vec::new(),
        };
        Wechat { truth, requested: Arc::default(), state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Lets this go wrong, instead of what went wrong before.
    pub(crate) fn trouble(&self, trouble: Trouble, until: Duration) {
        let mut state = self.state();
        (state.trouble, state.ends) = (Some(trouble), until);
    }

    /// When what goes wrong, or went wrong last, ends.
    pub(crate) fn fault_ends(&self) -> Duration {
        self.state().ends
    }

    /// Somebody else fetches a token for this account.
    pub(crate) fn rotate_for_others(&self) {
        let wall = self.truth.wall(self.truth.now());
        self.state().model.rotate(Account::SANDBOX_APPID, wall);
    }

    pub(crate) fn taint(&self, source: usize) {
        self.state().tainted[source] = Some(self.truth.now());
    }

    /// Whether a source's token may have been replaced behind our back since it gave this one.
    pub(crate) fn is_tainted(&self, source: usize, value: &str) -> bool {
        let state = self.state();
        let given = state.given.get(value).copied().unwrap_or_default();
        state.tainted[source].is_some_and(|at| at >= given)
    }

    pub(crate) fn accepts(&self, source: usize, value: &str, at: Duration) -> bool {
        let (state, wall) = (self.state(), self.truth.wall(at));
        let verdict = match source {
            0 => state.model.accepts(value, wall),
            _ => state.model.accepts_ticket(value, wall),
        };
        verdict.is_live()
    }

    /// All requests, and those for the access token.
    pub(crate) fn fetches(&self) -> (u64, u64) {
        let state = self.state();
        (state.fetches, state.token_fetches.len() as u64)
    }

    /// When we first sent a request for the access token, from then on.
    pub(crate) fn first_sent_since(&self, since: Duration) -> Option<Duration> {
        self.state().token_fetches.iter().copied().find(|at| *at >= since)
    }

    /// Ends when a request is sent.
    pub(crate) async fn requested(&self) {
        self.requested.notified().await;
    }

    /// A request comes: what it runs into, and how long its answer takes.
    fn weather(&self, source: &SourceName) -> (Option<Trouble>, Duration) {
        let (mut state, now) = (self.state(), self.truth.now());
        state.fetches += 1;
        if source.as_str() == NAMES[0] {
            state.token_fetches.push(now);
        }
        let trouble = state.trouble.filter(|_| state.ends > now);
        let dice = state.dice.get_mut(source).expect("each source has dice");
        let milliseconds = match trouble {
            Some(Trouble::Upstream(Fault::Slow)) => dice.u64(1_000..9_500),
            _ => dice.u64(40..600),
        };
        self.requested.notify_waiters();
        (trouble, Duration::from_millis(milliseconds))
    }

    /// Does a call's work.
    fn work(&self, call: &Call) -> Result<Fetched, FetchError> {
        let now = self.truth.now();
        let wall = self.truth.wall(now);
        let caller = Caller::new(Account::SANDBOX_APPID, Account::SANDBOX_SECRET);
        let mut state = self.state();
        let granted = match call.path.as_str() {
            "/cgi-bin/token" => state.model.token(caller, wall),
            "/cgi-bin/stable_token" => state.model.stable_token(caller, call.force, wall),
            _ => state.model.ticket(call.access_token.as_deref(), call.ticket_type, wall),
        };
        match granted {
            Ok(grant) => {
                state.given.entry(grant.value.expose().to_owned()).or_insert(now);
                Ok(Fetched {
                    value: grant.value,
                    expires_in: grant.expires_in,
                    captured: None,
                    upstream_time: Some(wall),
                })
            }
            Err(refusal) => {
                let error = refused(refusal.code, call.access_token.is_some());
                self.truth.excuse(now + recovery(error.class()));
                Err(error)
            }
        }
    }

    /// Sends a call: it arrives, whatever becomes of who sent it.
    async fn send(&self, call: Call, after: Duration) -> Result<Fetched, FetchError> {
        let wechat = self.clone();
        let arrival = tokio::spawn(async move {
            tokio::time::sleep(after).await;
            wechat.work(&call)
        });
        arrival.await.expect("the model does not panic")
    }
}

/// A place for a source's request; the next one needs it back.
struct UnderWay<'a>(&'a Wechat, SourceName);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.state().under_way.remove(&self.1);
    }
}

impl Upstream for Wechat {
    async fn fetch(
        &self,
        source: &TokenSource,
        request: &FetchRequest,
    ) -> Result<Fetched, FetchError> {
        if !self.state().under_way.insert(source.name.clone()) {
            self.truth.note("two requests of one source are under way");
        }
        let _under_way = UnderWay(self, source.name.clone());
        let (trouble, latency) = self.weather(&source.name);
        let call = Call::of(source, request);
        let fault = match trouble {
            Some(Trouble::Upstream(fault)) => Some(fault),
            Some(Trouble::Panics) => {
                tokio::time::sleep(latency).await;
                // A panic like any other, but for what it would print.
                std::panic::resume_unwind(Box::new("scripted"));
            }
            None => None,
        };
        match fault {
            None | Some(Fault::Slow) => {
                let outcome = self.send(call, latency / 2).await;
                tokio::time::sleep(latency / 2).await;
                outcome
            }
            Some(Fault::AnswersLost) => {
                let _ = self.send(call, latency).await;
                if latency.as_millis() % 2 == 0 {
                    return Err(FetchError::Broken("scripted".into()));
                }
                // The engine gives up.
                std::future::pending().await
            }
            Some(Fault::Silent) => std::future::pending().await,
            Some(Fault::Unreachable) => {
                tokio::time::sleep(latency).await;
                Err(FetchError::NotConnected("scripted".into()))
            }
            Some(Fault::Refuses(code)) => {
                tokio::time::sleep(latency).await;
                Err(refused(code, call.access_token.is_some()))
            }
        }
    }
}
