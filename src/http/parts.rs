//! Answers that are made bit by bit while they are sent: those about every source, which with ten
//! thousand of them are megabytes that nobody needs to hold at once.

use std::convert::Infallible;

use futures_util::stream;
use warp::Reply;
use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::reply::Response;

use super::v1::with;

/// How many sources a part tells of.
pub(super) const SOURCES_OF_A_PART: usize = 256;

/// How many bytes are sent together, at least.
const TOGETHER: usize = 64 * 1024;

/// An answer of these parts; a short one is sent with its length.
pub(super) fn in_parts(
    kind: &'static str,
    mut parts: impl Iterator<Item = String> + Send + Sync + 'static,
) -> Response {
    let mut pieces = std::iter::from_fn(move || {
        let mut piece = parts.next()?;
        while piece.len() < TOGETHER
            && let Some(part) = parts.next()
        {
            piece.push_str(&part);
        }
        Some(piece)
    });
    let first = pieces.next().unwrap_or_default();
    let answer = match pieces.next() {
        None => Response::new(first.into()),
        Some(second) => {
            let all = [first, second].into_iter().chain(pieces).map(Ok::<_, Infallible>);
            warp::reply::stream(stream::iter(all)).into_response()
        }
    };
    with(answer, CONTENT_TYPE, HeaderValue::from_static(kind))
}
