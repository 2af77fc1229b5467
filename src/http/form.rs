//! Reads the body of a form: small, and in time. Says nothing about what is in it.

use std::time::Duration;

use futures_util::{Stream, StreamExt};
use warp::Buf;

use super::reply::Unserved;

/// The longest body that is read, in bytes. A type and a secret need a few hundred.
pub(super) const MAX_BODY_BYTES: usize = 8 * 1024;

/// The whole body, if it is there within `limit` of the head.
///
/// # Errors
/// What the client is answered instead.
pub(super) async fn read(
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
    limit: Duration,
) -> Result<Vec<u8>, Unserved> {
    let whole = async {
        let mut body = std::pin::pin!(body);
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await {
            let mut chunk = chunk.map_err(|_| Unserved::BodyBroken)?;
            if bytes.len() + chunk.remaining() > MAX_BODY_BYTES {
                return Err(Unserved::BodyTooLarge);
            }
            while chunk.has_remaining() {
                let part = chunk.chunk();
                bytes.extend_from_slice(part);
                let length = part.len();
                chunk.advance(length);
            }
        }
        Ok(bytes)
    };
    tokio::time::timeout(limit, whole).await.unwrap_or(Err(Unserved::BodyTimeout))
}
