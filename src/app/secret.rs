//! The request secret: the configured one, or one that is made at the first start and kept.

use std::io;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::clock;
use crate::config::{self, Advice, Config};
use crate::store;
use crate::token::Secret;

use super::{StartError, in_blocking, log_advice};

/// What a start with this config would say of the request secret that an earlier one has kept.
///
/// # Errors
/// It would not start with it.
pub fn advice_on_kept_secret(config: &Config) -> Result<Option<Advice>, StartError> {
    if config.request_secret.is_some() {
        return Ok(None);
    }
    let (dir, path) = (&config.store.path, store::secret_path(&config.store.path));
    match store::kept_secret(dir) {
        Ok(kept) => Ok(kept.and_then(|kept| config::advice_on_kept(&kept, &path))),
        Err(error) if is_no_key(&error) => Err(StartError::KeptSecret { path, error }),
        // Others than the server may not be able to read it.
        Err(_) => Ok(None),
    }
}

/// Has a request secret that was made at the first start written again where it is gone; whether another start
/// would take what is in the file.
pub(super) async fn put_again(secret: Secret, dir: PathBuf, was_well: bool) -> bool {
    let path = store::secret_path(&dir);
    match in_blocking(move || store::request_secret(&dir, &secret)).await {
        Err(error) if is_no_key(&error) => {
            if was_well {
                tracing::warn!(
                    path = %path.display(), %error,
                    "the next start will fail: the file of the request secret holds no key; this server goes on with the \
                     one that it has"
                );
            }
            false
        }
        // Where the disk refuses, the store has said so.
        _ => true,
    }
}

/// Whether it can be read, and is none.
fn is_no_key(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

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
            log_advice(config::advice_on_kept(&kept, &path).as_slice());
            kept
        }
        Err(error) if is_no_key(&error) => return Err(StartError::KeptSecret { path, error }),
        Err(error) => {
            tracing::error!(
                path = %path.display(), %error,
                "the request secret cannot be kept, so nobody knows it; set request_secret in the config"
            );
            fresh
        }
    })
}
