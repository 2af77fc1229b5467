//! `POST /v1/reload` and `POST /v1/quota/{name}/reset`: what the privileged client may have the server do.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;

use serde::Serialize;
use warp::reply::Response;

use crate::access::{User, Via};
use crate::control::{NoReset, QuotaReset, RESETS_A_MONTH, Reloaded, Undone};
use crate::token::SourceName;

use super::{ApiError, Asked, json, visible};

/// Why others than the privileged client are refused.
const FOR_THE_DEFAULT: &str = "orders are for the request_secret";

/// Which order, as the audit calls it.
const RELOAD: &str = "reload";
const RESET: &str = "quota reset";

#[derive(Serialize)]
struct Changes<'a> {
    kept: usize,
    changed: Vec<&'a str>,
    removed: Vec<&'a str>,
    added: Vec<&'a str>,
    /// Settings that wait for a restart.
    need_restart: &'a [&'static str],
}

#[derive(Serialize)]
struct Reset<'a> {
    name: &'a str,
    resets_this_month: u32,
    resets_a_month: u32,
    /// All sources of the account.
    sources: Vec<Tried<'a>>,
}

#[derive(Serialize)]
struct Tried<'a> {
    name: &'a str,
    live: bool,
    /// Why it has no token.
    error: Option<&'a str>,
}

/// Has the config read again.
pub(super) async fn reload(asked: &Asked<'_>, user: &Arc<User>) -> Result<Response, ApiError> {
    privileged(asked, user, "")?;
    let outcome = asked.site.control.reload().await;
    let told = |outcome: &dyn Display| told(asked, user, RELOAD, None, outcome);
    match outcome {
        Ok(Ok(reloaded)) => {
            let Reloaded { kept, changed, removed, added, need_restart } = &reloaded;
            let (changed, removed, added) = (names(changed), names(removed), names(added));
            told(&format_args!(
                "{kept} sources kept, {} changed, {} removed, {} added",
                changed.len(),
                removed.len(),
                added.len()
            ));
            Ok(json(&Changes { kept: *kept, changed, removed, added, need_restart }))
        }
        Ok(Err(errors)) => {
            let mistakes = errors.mistakes();
            told(&format_args!("not reloaded, the config has mistakes ({})", mistakes.len()));
            Err(ApiError::mistakes(mistakes))
        }
        Err(undone) => {
            told(&format_args!("{undone:?}"));
            Err(undone.into())
        }
    }
}

/// Has the calls of a source's account given back.
pub(super) async fn reset_quota(asked: &Asked<'_>, user: &Arc<User>) -> Result<Response, ApiError> {
    let name = visible(asked, user)?;
    privileged(asked, user, name)?;
    let source = SourceName::parse(name).map_err(|_| ApiError::not_found())?;
    let outcome = asked.site.control.reset_quota(source.clone()).await;
    let told = |outcome: &dyn Display| told(asked, user, RESET, Some(&source), outcome);
    match outcome {
        Ok(Ok(QuotaReset { resets, sources })) => {
            told(&format_args!("reset {resets} of {RESETS_A_MONTH} this month"));
            let tried = sources.iter().map(|(name, outcome)| Tried {
                name: name.as_str(),
                live: outcome.is_ok(),
                error: outcome.as_ref().err().map(|words| &**words),
            });
            Ok(json(&Reset {
                name,
                resets_this_month: resets,
                resets_a_month: RESETS_A_MONTH,
                sources: tried.collect(),
            }))
        }
        Ok(Err(error)) => {
            told(&error);
            Err(error.into())
        }
        Err(undone) => {
            told(&format_args!("{undone:?}"));
            Err(undone.into())
        }
    }
}

fn privileged(asked: &Asked<'_>, user: &User, name: &str) -> Result<(), ApiError> {
    if user.is_default() {
        return Ok(());
    }
    asked.site.access.audit().denied(user, name, asked.visitor.address, Via::Http, FOR_THE_DEFAULT);
    Err(ApiError::may_not_order())
}

fn told(
    asked: &Asked<'_>,
    user: &User,
    order: &'static str,
    source: Option<&SourceName>,
    outcome: &dyn Display,
) {
    let address = asked.visitor.address;
    asked.site.access.audit().ordered(user, order, source, address, Via::Http, outcome);
}

fn names(names: &[SourceName]) -> Vec<&str> {
    names.iter().map(SourceName::as_str).collect()
}

impl From<Undone> for ApiError {
    fn from(undone: Undone) -> ApiError {
        match undone {
            Undone::NotHere => ApiError::no_orders(),
            Undone::TooMany => ApiError::undone("busy", "too many orders wait already"),
            Undone::TimedOut => {
                ApiError::undone("timed_out", "it takes long, and may be done yet: look at the log")
            }
            Undone::Draining => ApiError::undone("shutting_down", "the server is shutting down"),
        }
    }
}

impl From<NoReset> for ApiError {
    fn from(error: NoReset) -> ApiError {
        let words: Cow<'static, str> = error.to_string().into();
        match error {
            NoReset::UnknownSource => ApiError::not_found(),
            NoReset::NotOfWeChat(_) => ApiError::no_reset("not_resettable", words),
            NoReset::UsedUp => ApiError::no_reset("resets_used_up", words),
            NoReset::Upstream(_) => ApiError::upstream(words),
        }
    }
}
