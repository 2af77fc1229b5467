//! Why a request is not answered as it was meant: one shape for all of `/v1`, with a code for programs
//! and words for people. Never a value, a key or an address of the upstream.

use std::borrow::Cow;

use serde::Serialize;
use warp::http::StatusCode;
use warp::http::header::{ALLOW, CONNECTION, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use warp::reply::Response;

use crate::config::Mistake;
use crate::refresh::RefreshError;

use super::super::form::MAX_BODY_BYTES;
use super::super::reply::Unserved;
use super::json;
use super::status::Remedy;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::http) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    /// The refresh that failed, which has the same in Chinese, and what to do about it.
    failed: Option<Box<RefreshError>>,
    /// Whole seconds after which it may be tried again.
    retry_after: Option<u64>,
    /// What is wrong with the config.
    mistakes: Vec<Mistake>,
    /// The value of a header that this status asks for.
    header: Option<&'static str>,
    /// Whether nothing can follow on this connection.
    closes: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    error: Words<'a>,
}

#[derive(Serialize)]
struct Words<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_zh: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<Remedy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mistakes: Option<Vec<MistakeWords<'a>>>,
}

#[derive(Serialize)]
struct MistakeWords<'a> {
    setting: &'a str,
    message: &'a str,
}

/// How long to stay away from a server that has no place to wait in, or is about to restart, in
/// seconds.
const SHORT_WAIT: u64 = 5;

impl ApiError {
    fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> ApiError {
        let message = message.into();
        ApiError {
            status,
            code,
            message,
            failed: None,
            retry_after: None,
            mistakes: Vec::new(),
            header: None,
            closes: false,
        }
    }

    fn again_in(self, seconds: u64) -> ApiError {
        ApiError { retry_after: Some(seconds), ..self }
    }

    pub(super) fn bad_request(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// RFC 6750, section 3.1: who shows no key is told no error.
    pub(super) fn unauthorized(has_shown_a_key: bool) -> ApiError {
        let header = if has_shown_a_key {
            r#"Bearer realm="wechat-token-server", error="invalid_token""#
        } else {
            r#"Bearer realm="wechat-token-server""#
        };
        let message = "show a key that may be used from here: Authorization: Bearer KEY";
        let error = ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message);
        ApiError { header: Some(header), ..error }
    }

    pub(super) fn too_many_wrong_keys() -> ApiError {
        let message = "too many wrong keys came from this address";
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_wrong_keys", message);
        ApiError { closes: true, ..error.again_in(60) }
    }

    pub(super) fn not_found() -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "not_found", "there is no such thing, or not for you")
    }

    pub(super) fn no_token() -> ApiError {
        let message = "the source has no live token now; GET /v1/status says why";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no_token", message).again_in(SHORT_WAIT)
    }

    pub(super) fn too_many_waiting() -> ApiError {
        let message = "too many requests wait already; end some, or ask without waiting";
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_waiting", message)
            .again_in(SHORT_WAIT)
    }

    pub(super) fn may_not_force() -> ApiError {
        let message = "force is for the request_secret alone";
        ApiError::new(StatusCode::FORBIDDEN, "may_not_force", message)
    }

    pub(super) fn may_not_order() -> ApiError {
        let message = "this is for the request_secret alone";
        ApiError::new(StatusCode::FORBIDDEN, "may_not_order", message)
    }

    /// Nothing is changed.
    pub(super) fn mistakes(mistakes: &[Mistake]) -> ApiError {
        let message = "the config has mistakes, so nothing has changed";
        let error = ApiError::new(StatusCode::CONFLICT, "config_mistakes", message);
        ApiError { mistakes: mistakes.to_vec(), ..error }
    }

    pub(super) fn no_orders() -> ApiError {
        let message = "this server has no config file, or is shutting down";
        ApiError::new(StatusCode::CONFLICT, "not_reloadable", message)
    }

    pub(super) fn no_reset(code: &'static str, message: Cow<'static, str>) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, code, message)
    }

    pub(super) fn upstream(message: Cow<'static, str>) -> ApiError {
        ApiError::new(StatusCode::BAD_GATEWAY, "upstream", message)
    }

    /// An order that was not carried out.
    pub(super) fn undone(code: &'static str, message: &'static str) -> ApiError {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, message).again_in(SHORT_WAIT)
    }

    pub(super) fn examining() -> ApiError {
        let message = "somebody else has asked for it, and it is not done yet";
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "examining", message).again_in(SHORT_WAIT)
    }

    pub(super) fn not_json() -> ApiError {
        let message = "the body is to be JSON: Content-Type: application/json";
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", message)
    }
}

impl From<RefreshError> for ApiError {
    fn from(error: RefreshError) -> ApiError {
        let message = error.to_string();
        let (failed, retry_after) = (Some(Box::new(error.clone())), error.retry_after());
        let told = |status, code, message| ApiError {
            retry_after,
            ..ApiError::new(status, code, message)
        };
        let unavailable =
            |code, message| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        let refusal = match error {
            RefreshError::UnknownSource => ApiError::not_found(),
            RefreshError::Failed { .. } => told(StatusCode::BAD_GATEWAY, "upstream", message),
            RefreshError::TooSoon { .. } => {
                told(StatusCode::TOO_MANY_REQUESTS, "cooldown", message)
            }
            RefreshError::ForcedTooOften { .. } => {
                told(StatusCode::TOO_MANY_REQUESTS, "forced_too_often", message)
            }
            RefreshError::Unchanged => {
                ApiError::new(StatusCode::CONFLICT, "unchanged", message).again_in(SHORT_WAIT)
            }
            RefreshError::TooMany => unavailable("busy", message).again_in(SHORT_WAIT),
            RefreshError::TimedOut => unavailable("timed_out", message).again_in(SHORT_WAIT),
            RefreshError::Draining => unavailable("shutting_down", message).again_in(SHORT_WAIT),
            RefreshError::Lost => unavailable("interrupted", message).again_in(SHORT_WAIT),
        };
        ApiError { failed, ..refusal }
    }
}

impl From<Unserved> for ApiError {
    fn from(unserved: Unserved) -> ApiError {
        let closing = |status, code, message: Cow<'static, str>| {
            let error = ApiError::new(status, code, message);
            // The rest of the body is not read, so nothing can follow it.
            ApiError { closes: true, ..error }
        };
        match unserved {
            Unserved::NotFound => ApiError::not_found(),
            Unserved::Method(allowed) => {
                let message = format!("this path takes {allowed}");
                let error =
                    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
                ApiError { header: Some(allowed), ..error }
            }
            Unserved::BodyTooLarge => closing(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                format!("the body is larger than {} KiB", MAX_BODY_BYTES / 1024).into(),
            ),
            Unserved::BodyTimeout => {
                closing(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body took too long".into())
            }
            Unserved::BodyBroken => {
                closing(StatusCode::BAD_REQUEST, "bad_request", "the body cannot be read".into())
            }
            Unserved::TooManyWrongKeys => ApiError::too_many_wrong_keys(),
        }
    }
}

impl From<ApiError> for Response {
    fn from(error: ApiError) -> Response {
        let ApiError { status, code, message, failed, retry_after, mistakes, header, closes } =
            error;
        let mistakes = (!mistakes.is_empty()).then(|| {
            let words = mistakes
                .iter()
                .map(|Mistake { path, message }| MistakeWords { setting: path, message });
            words.collect()
        });
        let message_zh = failed.as_ref().and_then(|failed| failed.in_chinese());
        let remedy = failed.and_then(|failed| failed.remedy()).map(Remedy::from);
        let words = Words { code, message: &message, message_zh, remedy, retry_after, mistakes };
        let mut answer = json(&Body { error: words });
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Some(value) = header {
            let is_method = status == StatusCode::METHOD_NOT_ALLOWED;
            let name = if is_method { ALLOW } else { WWW_AUTHENTICATE };
            headers.insert(name, HeaderValue::from_static(value));
        }
        if closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}
