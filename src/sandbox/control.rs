//! The control surface under `/sandbox/`: what the Rust handle offers, for people and other
//! processes. Each answer is a small JSON object. Never shows a token.

use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use crate::sandbox::account::Account;
use crate::sandbox::endpoint::Endpoint;
use crate::sandbox::fault::Fault;
use crate::sandbox::line::Verdict;
use crate::sandbox::parameters::Parameters;
use crate::sandbox::server::{Call, Upstream};
use crate::sandbox::settings::Settings;
use crate::token::Secret;

/// How many calls the state shows; `log` shows all that are remembered.
const STATE_CALLS: usize = 20;

/// What a route does; an error is the client's.
type Handler = fn(&Upstream, &Parameters) -> Result<Value, String>;

struct Route {
    name: &'static str,
    /// Changes something, and is therefore a POST.
    changes: bool,
    help: &'static str,
    run: Handler,
}

/// The routes by their name under `/sandbox/`. One more, `wait`, is not of their kind: it awaits.
static ROUTES: &[Route] = &[
    Route { name: "state", changes: false, help: "settings, accounts, faults, calls", run: state },
    Route { name: "log", changes: false, help: "the last calls, oldest first", run: log },
    Route {
        name: "accepts",
        changes: false,
        help: "?access_token=... or ?ticket=...: is it accepted right now",
        run: accepts,
    },
    Route {
        name: "fault",
        changes: true,
        help: "?kind=errcode&code=40164&endpoint=token&times=3: lets calls go wrong; \
               a wrong kind is answered with the list of kinds",
        run: fault,
    },
    Route { name: "clear", changes: true, help: "forgets all faults", run: clear },
    Route {
        name: "settings",
        changes: true,
        help: "?lifetime=60s&latency=200ms: changes settings, by the names in the state",
        run: settings,
    },
    Route {
        name: "rotate",
        changes: true,
        help: "?appid=...: somebody else fetches a token of this account (by default the first)",
        run: rotate,
    },
    Route {
        name: "account",
        changes: true,
        help: "?appid=...&secret=...: adds one or changes its secret; \
               &allow=ADDRESS,ADDRESS or any; &refused_with=40243 or none",
        run: account,
    },
];

/// The route that awaits, with its help.
const WAIT: (&str, &str) =
    ("wait", "?endpoint=token&calls=3: answers once so many calls have arrived");

/// The name of a route, if the path is one of the control surface.
pub(super) fn route(path: &str) -> Option<&str> {
    let path = path.trim_matches('/');
    match path.split_once('/') {
        Some(("sandbox", name)) => Some(name),
        None if path == "sandbox" => Some(""),
        _ => None,
    }
}

/// Answers a request to the control surface, with a line of JSON.
pub(super) async fn answer(
    upstream: &Upstream,
    name: &str,
    is_post: bool,
    parameters: &Parameters,
) -> (StatusCode, String) {
    let (status, value) = decide(upstream, name, is_post, parameters).await;
    (status, format!("{value}\n"))
}

async fn decide(
    upstream: &Upstream,
    name: &str,
    is_post: bool,
    parameters: &Parameters,
) -> (StatusCode, Value) {
    let result = if name == WAIT.0 {
        wait(upstream, parameters).await
    } else if let Some(route) = ROUTES.iter().find(|route| route.name == name) {
        if route.changes && !is_post {
            let error = json!({"error": "changes something: use POST"});
            return (StatusCode::METHOD_NOT_ALLOWED, error);
        }
        (route.run)(upstream, parameters)
    } else {
        let status = if name.is_empty() { StatusCode::OK } else { StatusCode::NOT_FOUND };
        return (status, help());
    };
    match result {
        Ok(value) => (StatusCode::OK, value),
        Err(error) => (StatusCode::BAD_REQUEST, json!({ "error": error })),
    }
}

fn help() -> Value {
    let line = |name: &str, changes, help: &str| {
        let method = if changes { "POST" } else { "GET" };
        (format!("{method} /sandbox/{name}"), help.into())
    };
    let routes = ROUTES.iter().map(|route| line(route.name, route.changes, route.help));
    routes.chain([line(WAIT.0, false, WAIT.1)]).collect::<Map<String, Value>>().into()
}

fn state(upstream: &Upstream, parameters: &Parameters) -> Result<Value, String> {
    parameters.only(&[])?;
    let calls: Map<String, Value> = Endpoint::ALL
        .into_iter()
        .map(|endpoint| (endpoint.name().into(), upstream.calls(endpoint).into()))
        .collect();
    let faults: Vec<String> = upstream.faults().iter().map(Fault::to_string).collect();
    let log = upstream.log();
    let recent: Vec<Value> =
        log[log.len().saturating_sub(STATE_CALLS)..].iter().map(show_call).collect();
    let (settings, accounts) = upstream.with_model(|model, now| {
        let used = |appid, endpoint| model.used_today(appid, endpoint, now);
        let accounts: Vec<Value> = model
            .accounts()
            .map(|account| {
                json!({
                    "appid": account.appid(),
                    "allow": account.allow,
                    "refused_with": account.refused_with,
                    "used_today": {
                        "token": used(account.appid(), Endpoint::Token),
                        "stable_token": used(account.appid(), Endpoint::StableToken),
                        "ticket": used(account.appid(), Endpoint::Ticket),
                    },
                })
            })
            .collect();
        (show_settings(&model.settings), accounts)
    });
    Ok(json!({
        "settings": settings, "accounts": accounts, "faults": faults, "calls": calls,
        "recent": recent,
    }))
}

fn show_settings(settings: &Settings) -> Map<String, Value> {
    settings.list().map(|(name, text)| (name.into(), text.into())).collect()
}

fn show_call(call: &Call) -> Value {
    let at = call.at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    json!({
        "endpoint": call.endpoint.name(), "at_ms": at, "appid": call.appid,
        "errcode": call.errcode, "fault": call.fault,
    })
}

fn log(upstream: &Upstream, parameters: &Parameters) -> Result<Value, String> {
    parameters.only(&[])?;
    Ok(json!({"calls": upstream.log().iter().map(show_call).collect::<Vec<_>>()}))
}

fn accepts(upstream: &Upstream, parameters: &Parameters) -> Result<Value, String> {
    parameters.only(&["access_token", "ticket"])?;
    let verdict = match parameters.get("ticket") {
        Some(ticket) => upstream.accepts_ticket(ticket),
        None => upstream.accepts(parameters.require("access_token")?),
    };
    let left = match verdict {
        Verdict::Live { left } => Some(left.as_secs()),
        Verdict::Replaced | Verdict::Expired | Verdict::Unknown => None,
    };
    Ok(json!({"accepted": verdict.is_live(), "left_s": left, "errcode": verdict.errcode()}))
}

fn fault(upstream: &Upstream, parameters: &Parameters) -> Result<Value, String> {
    let fault = Fault::read(parameters)?;
    let text = fault.to_string();
    upstream.inject(fault);
    Ok(json!({"fault": text}))
}

fn clear(upstream: &Upstream, parameters: &Parameters) -> Result<Value, String> {
    parameters.only(&[])?;
    upstream.clear();
    Ok(json!({"faults": []}))
}

fn settings(upstream: &Upstream, parameters: &Parameters) -> Result<Value, String> {
    upstream.with_model(|model, _| {
        // All or nothing: a mistake in the second leaves the first as it was.
        let mut changed = model.settings.clone();
        for (name, text) in parameters.iter() {
            changed.set(name, text)?;
        }
        model.settings = changed;
        Ok(json!({"settings": show_settings(&model.settings)}))
    })
}

fn rotate(upstream: &Upstream, parameters: &Parameters) -> Result<Value, String> {
    parameters.only(&["appid"])?;
    let first = || upstream.with_model(|model, _| Some(model.accounts().next()?.appid().into()));
    let appid: Option<Box<str>> = parameters.get("appid").map(Into::into).or_else(first);
    match appid {
        Some(appid) if upstream.rotate(&appid) => Ok(json!({"rotated": appid})),
        _ => Err("there is no such account".into()),
    }
}

fn account(upstream: &Upstream, parameters: &Parameters) -> Result<Value, String> {
    parameters.only(&["appid", "secret", "allow", "refused_with"])?;
    let appid = parameters.require("appid")?;
    upstream.with_model(|model, _| {
        let secret = parameters.get("secret");
        let mut account = match (model.account(appid), secret) {
            (Some(known), _) => known.clone(),
            (None, Some(secret)) => Account::new(appid, secret),
            (None, None) => return Err("no such account; with a secret it is added".into()),
        };
        if let Some(secret) = secret {
            account.secret = Secret::new(secret);
        }
        match parameters.get("allow") {
            None => {}
            Some("any") => account.allow = None,
            Some(list) => account.allow = Some(addresses(list)?),
        }
        match parameters.get("refused_with") {
            None => {}
            Some("none") => account.refused_with = None,
            Some(code) => {
                let wrong = || format!("refused_with: {code:?} is neither an errcode nor none");
                account.refused_with = Some(code.parse().map_err(|_| wrong())?);
            }
        }
        let answer = json!({
            "appid": account.appid(), "allow": account.allow, "refused_with": account.refused_with,
        });
        model.add(account);
        Ok(answer)
    })
}

fn addresses(list: &str) -> Result<Vec<IpAddr>, String> {
    let parse = |text: &str| text.parse().map_err(|_| format!("allow: {text:?} is no address"));
    list.split(',').map(parse).collect()
}

async fn wait(upstream: &Upstream, parameters: &Parameters) -> Result<Value, String> {
    parameters.only(&["endpoint", "calls"])?;
    let name = parameters.require("endpoint")?;
    let endpoint = Endpoint::named(name).ok_or_else(|| format!("no endpoint {name:?}"))?;
    let calls = parameters.require("calls")?;
    let calls = calls.parse().map_err(|_| format!("calls: {calls:?} is no number"))?;
    upstream.wait_for_calls(endpoint, calls).await;
    Ok(json!({"endpoint": name, "calls": upstream.calls(endpoint)}))
}
