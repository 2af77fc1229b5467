//! The request secret: the configured one, or one that is made at the first start and kept.

use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::clock;
use crate::store;
use crate::token::Secret;

use super::{StartError, in_blocking};

/// The configured request secret, or the one that was made at the first start.
pub(super) async fn request_secret(
    configured: Option<Secret>,
    dir: PathBuf,
) -> Result<Secret, StartError> {
    if let Some(secret) = configured {
        return Ok(secret);
    }
    let mut bytes = Zeroizing::new([0; 16]);
    clock::random(&mut *bytes).map_err(StartError::NoRandomness)?;
    let digit = |half: u8| char::from_digit(half.into(), 16);
    let digits = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).flatten();
    let mut fresh = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    fresh.extend(digits);
    let fresh = Secret::new(fresh.as_str());
    let kept = in_blocking({
        let (dir, fresh) = (dir.clone(), fresh.clone());
        move || store::request_secret(&dir, &fresh)
    });
    let path = store::secret_path(&dir);
    Ok(match kept.await {
        Ok(kept) => {
            tracing::info!(path = %path.display(), "the request secret is in this file");
            kept
        }
        Err(error) => {
            tracing::error!(
                path = %path.display(), %error,
                "the request secret cannot be kept, so nobody knows it; set request_secret in the config"
            );
            fresh
        }
    })
}
