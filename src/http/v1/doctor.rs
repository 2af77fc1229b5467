//! `GET /v1/doctor`: what is wrong and what to do about it, for the `request_secret` alone: it tells the hosts and
//! the accounts, and asks the upstream.

use warp::reply::Response;

use crate::access::{User, Via};
use crate::doctor::{is_well, to_json};

use super::{ApiError, Asked, json};

/// What the server finds out about itself.
pub(super) async fn doctor(asked: &Asked<'_>, user: &User) -> Result<Response, ApiError> {
    let audit = asked.site.access.audit();
    let address = asked.visitor.address;
    if !user.is_default() {
        audit.denied(user, "", address, Via::Http, "doctor is for the request_secret");
        return Err(ApiError::may_not_order());
    }
    let findings = asked.site.doctor.examine().await.ok_or_else(ApiError::examining)?;
    let outcome = if is_well(&findings) { "all is well" } else { "there are problems" };
    audit.ordered(user, "doctor", None, address, Via::Http, &outcome);
    Ok(json(&to_json(&findings)))
}
