//! `get` and `refresh`: one token, for a shell.

use std::io::Read;

use serde_json::json;
use zeroize::Zeroizing;

use super::connection::{Ask, Connection, in_seconds};
use super::{Desk, EX_DATAERR, EX_PROTOCOL, EX_TEMPFAIL, EX_USAGE, Failure, print};
use crate::cli::{GetArgs, RefreshArgs};

/// The longest token that is read from standard input, in bytes: it fits into the 8 KiB that the body of a
/// request may have.
const MAX_STALE_BYTES: usize = 8 * 1024 - 64;

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
            return Err(Failure::new(EX_DATAERR, "--stale holds no token").zh("--stale 中没有令牌"));
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
        Some(true) => desk.printer.either("has another token now", "已换用新令牌"),
        _ => desk.printer.either("has another token already", "此前已换用新令牌"),
    };
    let (name, generation, life) = (&args.name, number("generation"), number("expires_in"));
    print(&desk.printer.either(
        format!("{name} {what}: generation {generation}, good for {life} seconds\n"),
        format!("{name} {what}：代次 {generation}，有效期 {life} 秒\n"),
    ))?;
    Ok(0)
}

/// Why there is no other token than the current one: a cooldown of so many more seconds, or the upstream.
fn kept(args: &RefreshArgs, retry_after: Option<u64>) -> Failure {
    let name = &args.name;
    let Some(seconds) = retry_after else {
        let en = "its upstream gives the same one again, as some do until it is about to end";
        let zh = "上游返回的仍是同一令牌，有些上游在令牌即将到期前一直如此";
        return Failure::new(EX_TEMPFAIL, format_args!("{name} keeps its token: {en}"))
            .zh(format_args!("{name} 的令牌未变：{zh}"));
    };
    let wait = in_seconds(seconds);
    let stale =
        format!("`wechat-token-server get {name} | wechat-token-server refresh {name} --stale -`");
    let (unforced, unforced_zh) = match args.force {
        true => (", and its upstream cannot be asked for more", "，且其上游无法强制换新"),
        false => ("", ""),
    };
    Failure::new(
        EX_TEMPFAIL,
        format_args!(
            "{name} keeps its token: nothing was fetched: it was fetched a moment ago{unforced}; try again in {wait}. \
             Where its token was refused, say so: {stale}"
        ),
    )
    .zh(format_args!(
        "{name} 的令牌未变，未发出请求：该令牌刚刚获取{unforced_zh}；请在 {seconds} 秒后重试。若令牌已被拒绝，请运行：{stale}"
    ))
}

fn print_value(value: Option<&str>) -> Result<u8, Failure> {
    let is_token =
        |value: &&str| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
    let value = value.filter(is_token).ok_or_else(|| {
        Failure::new(EX_PROTOCOL, "the answer holds no token: is that a server of this version?")
            .zh("应答中没有令牌：对方是本版本的服务器吗？")
    })?;
    print(&Zeroizing::new(format!("{value}\n")))?;
    Ok(0)
}

/// The refused token, from standard input.
fn read_stale() -> Result<Zeroizing<String>, Failure> {
    // One byte more, which tells that there is more than is read.
    let most = MAX_STALE_BYTES + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(most));
    std::io::stdin().take(most as u64).read_to_end(&mut bytes).map_err(|error| {
        Failure::new(EX_USAGE, format_args!("standard input: {error}"))
            .zh(format_args!("标准输入：{error}"))
    })?;
    if bytes.len() == most {
        let en = "--stale -: standard input holds more than";
        return Err(Failure::new(
            EX_DATAERR,
            format_args!("{en} {MAX_STALE_BYTES} bytes, which no token has"),
        )
        .zh(format_args!("--stale -：标准输入超过 {MAX_STALE_BYTES} 字节，不可能是令牌")));
    }
    match std::str::from_utf8(&bytes).map(str::trim) {
        Ok(text) if !text.is_empty() => Ok(Zeroizing::new(text.to_owned())),
        _ => Err(Failure::new(EX_DATAERR, "--stale -: standard input holds no token")
            .zh("--stale -：标准输入中没有令牌")),
    }
}
