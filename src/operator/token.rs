//! `get` and `refresh`: one token, for a shell.

use std::io::Read;

use serde_json::json;
use zeroize::Zeroizing;

use super::connection::{Ask, Connection, in_seconds};
use super::{Desk, EX_DATAERR, EX_PROTOCOL, EX_TEMPFAIL, EX_USAGE, Failure, print};
use crate::cli::{GetArgs, RefreshArgs};

/// The longest token that is read from standard input, in bytes.
const MAX_STALE_BYTES: u64 = 16 * 1024;

/// Prints a token and a line end, which a shell's `$(…)` takes off again.
pub(super) async fn get(args: &GetArgs, desk: &Desk<'_>) -> Result<u8, Failure> {
    let server = Connection::find(&args.server, desk)?;
    let path = ["v1", "tokens", &args.name];
    let answer = server.ask(Ask { query: Some("format=text"), ..Ask::get(&path) }).await?;
    print_value(std::str::from_utf8(&answer.body).ok())
}

/// Asks for another token, and says what came of it.
pub(super) async fn refresh(args: &RefreshArgs, desk: &Desk<'_>) -> Result<u8, Failure> {
    let stale = match args.stale.as_deref() {
        Some("-") => Some(read_stale()?),
        // A shell's variable that is not set.
        Some(text) if text.trim().is_empty() => {
            return Err(Failure::new(EX_DATAERR, "--stale holds no token"));
        }
        Some(text) => Some(Zeroizing::new(text.to_owned())),
        None => None,
    };
    let server = Connection::find(&args.server, desk)?;
    let wish = match &stale {
        Some(stale) => json!({"stale": stale.as_str(), "force": args.force}),
        None => json!({"force": args.force}),
    };
    let wish = Zeroizing::new(wish.to_string().into_bytes());
    let told = server.json(Ask::post(&["v1", "tokens", &args.name, "refresh"], wish)).await?;
    // Without --stale the current token is the one that another was wanted for.
    if stale.is_none() && told["refreshed"] != true {
        return Err(kept(args, told["retry_after"].as_u64()));
    }
    if args.print {
        return print_value(told["value"].as_str());
    }
    let number = |name: &str| told[name].as_u64().unwrap_or_default();
    let what = match told["refreshed"].as_bool() {
        Some(true) => "has another token now",
        _ => "has another token already",
    };
    print(&format!(
        "{} {what}: generation {}, good for {} seconds\n",
        args.name,
        number("generation"),
        number("expires_in")
    ))?;
    Ok(0)
}

/// Why there is no other token than the current one: a cooldown of so many more seconds, or the upstream.
fn kept(args: &RefreshArgs, retry_after: Option<u64>) -> Failure {
    let name = &args.name;
    let why = match retry_after {
        Some(seconds) => {
            let unforced =
                if args.force { ", and its upstream cannot be asked for more" } else { "" };
            format!(
                "nothing was fetched: it was fetched a moment ago{unforced}; try again in {}. Where its token was \
                 refused, say so: `wechat-token-server get {name} | wechat-token-server refresh {name} --stale -`",
                in_seconds(seconds)
            )
        }
        None => {
            "its upstream gives the same one again, as some do until it is about to end".to_owned()
        }
    };
    Failure::new(EX_TEMPFAIL, format_args!("{name} keeps its token: {why}"))
}

fn print_value(value: Option<&str>) -> Result<u8, Failure> {
    let is_token =
        |value: &&str| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
    let value = value.filter(is_token).ok_or_else(|| {
        Failure::new(EX_PROTOCOL, "the answer holds no token: is that a server of this version?")
    })?;
    print(&Zeroizing::new(format!("{value}\n")))?;
    Ok(0)
}

/// The refused token, from standard input.
fn read_stale() -> Result<Zeroizing<String>, Failure> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_STALE_BYTES as usize));
    std::io::stdin()
        .take(MAX_STALE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(EX_USAGE, format_args!("standard input: {error}")))?;
    match std::str::from_utf8(&bytes).map(str::trim) {
        Ok(text) if !text.is_empty() => Ok(Zeroizing::new(text.to_owned())),
        _ => Err(Failure::new(EX_DATAERR, "--stale -: standard input holds no token")),
    }
}
