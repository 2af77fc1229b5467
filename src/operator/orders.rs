//! `reload` and `quota`: what the running server is told to do, and what it says came of it.

use std::fmt::Write as _;
use std::io::BufRead;

use serde_json::Value;
use zeroize::Zeroizing;

use super::connection::{Ask, Connection, NO_SOURCE, printable};
use super::status::{columns, padded};
use super::{Desk, EX_DATAERR, EX_TEMPFAIL, EX_USAGE, Failure, NOT_ALL_WELL, note, print};
use crate::cli::{QuotaArgs, QuotaCommand, ReloadArgs};

/// Has the server read its config again.
pub(super) async fn reload(args: &ReloadArgs, desk: &Desk<'_>) -> Result<u8, Failure> {
    let server = Connection::find(&args.server, desk)?;
    let told = server.json(Ask::post(&["v1", "reload"], Zeroizing::default())).await?;
    print(&changes(&told))?;
    Ok(0)
}

/// What a reload has changed.
fn changes(told: &Value) -> String {
    let names = |field: &str| {
        let names = told[field].as_array().into_iter().flatten().filter_map(Value::as_str);
        names.map(printable).collect::<Vec<_>>().join(", ")
    };
    let mut text = format!("reloaded; {} sources as before", told["kept"].as_u64().unwrap_or(0));
    for (field, words) in [("changed", "changed"), ("removed", "removed"), ("added", "added")] {
        let names = names(field);
        if !names.is_empty() {
            let _ = write!(text, "\n{words}: {names}");
        }
    }
    let waiting = names("need_restart");
    if !waiting.is_empty() {
        let _ = write!(text, "\nthese settings take effect with the next start: {waiting}");
    }
    text.push('\n');
    text
}

/// Shows the calls of the day, or has them given back.
pub(super) async fn quota(args: &QuotaArgs, desk: &Desk<'_>) -> Result<u8, Failure> {
    match &args.command {
        QuotaCommand::Show { name, server } => {
            let status = Connection::find(server, desk)?.json(Ask::get(&["v1", "status"])).await?;
            print(&table(&status, name.as_deref())?)?;
            Ok(0)
        }
        QuotaCommand::Reset { name, yes, server } => {
            let server = Connection::find(server, desk)?;
            if !yes {
                let status = server.json(Ask::get(&["v1", "status"])).await?;
                confirm(&status, name)?;
            }
            let path = ["v1", "quota", name, "reset"];
            let told = server.json(Ask::post(&path, Zeroizing::default())).await?;
            print(&outcome(&told))?;
            let sources = told["sources"].as_array().into_iter().flatten();
            let all_are_live = sources.into_iter().all(|source| source["live"] == true);
            Ok(if all_are_live { 0 } else { NOT_ALL_WELL })
        }
    }
}

/// The calls of each source, or of one.
fn table(status: &Value, only: Option<&str>) -> Result<String, Failure> {
    let sources = status["sources"].as_array().into_iter().flatten();
    let rows: Vec<[String; 3]> = sources
        .filter(|source| only.is_none_or(|only| source["name"] == only))
        .map(|source| {
            let calls = &source["calls_today"];
            let name = printable(source["name"].as_str().unwrap_or("?"));
            match (calls["made"].as_u64(), calls["limit"].as_u64()) {
                (None, _) => [name, "not counted".into(), "-".into()],
                (Some(made), limit) => {
                    let of = limit.map_or_else(String::new, |limit| format!(" of {limit}"));
                    [name, format!("{made}{of}"), resets(calls)]
                }
            }
        })
        .collect();
    if rows.is_empty()
        && let Some(only) = only
    {
        return Err(no_source(only));
    }
    let width = rows.iter().map(|[name, ..]| columns(name)).max().unwrap_or(0).max(6);
    let mut text =
        format!("{}  {}  RESETS THIS MONTH\n", padded("SOURCE", width), padded("CALLS TODAY", 16));
    for [name, calls, resets] in rows {
        let _ = writeln!(text, "{}  {}  {resets}", padded(&name, width), padded(&calls, 16));
    }
    text.push_str(
        "\nSources of one account and endpoint share their calls; a day ends at Beijing's midnight.\n",
    );
    Ok(text)
}

fn resets(calls: &Value) -> String {
    calls["resets_this_month"].as_u64().map_or("-".into(), |resets| resets.to_string())
}

fn no_source(name: &str) -> Failure {
    Failure::new(EX_DATAERR, format_args!("{}: {NO_SOURCE}", printable(name)))
}

/// Asks whether a reset is meant, and says what it costs.
fn confirm(status: &Value, name: &str) -> Result<(), Failure> {
    let mut sources = status["sources"].as_array().into_iter().flatten();
    let source = sources.find(|source| source["name"] == name).ok_or_else(|| no_source(name))?;
    let used = resets(&source["calls_today"]);
    note(&format!(
        "this asks WeChat to give back all calls of this day to the account of {}. It does that ten times a month \
         for an account; this server has counted {used} this month, and knows of none that were made in the console. \
         Reset it? [y/N]",
        printable(name)
    ));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        "" if !matches!(read, Ok(1..)) => {
            Err(Failure::new(EX_USAGE, "nobody answers; --yes says that it is meant"))
        }
        _ => Err(Failure::new(EX_TEMPFAIL, "nothing was done")),
    }
}

/// What came of a reset.
fn outcome(told: &Value) -> String {
    let number = |field: &str| told[field].as_u64().unwrap_or_default();
    let mut text = format!(
        "the calls of this day count from zero: reset {} of {} this month\n",
        number("resets_this_month"),
        number("resets_a_month")
    );
    for source in told["sources"].as_array().into_iter().flatten() {
        let name = printable(source["name"].as_str().unwrap_or("?"));
        let _ = match source["error"].as_str() {
            None => writeln!(text, "  {name} is live"),
            Some(error) => writeln!(text, "  {name} has no token: {}", printable(error)),
        };
    }
    text
}
