//! `reload` and `quota`: what the running server is told to do, and what it says came of it.

use std::fmt::Write as _;
use std::io::BufRead;

use serde_json::Value;
use zeroize::Zeroizing;

use super::connection::{Ask, Connection, NO_SOURCE, NO_SOURCE_ZH, printable};
use super::status::{calls as made, columns, padded};
use super::{Desk, EX_DATAERR, EX_TEMPFAIL, EX_USAGE, Failure, NOT_ALL_WELL, Printer, note, print};
use crate::cli::{QuotaArgs, QuotaCommand, ReloadArgs};

/// Has the server read its config again.
pub(super) async fn reload(args: &ReloadArgs, desk: &Desk<'_>) -> Result<u8, Failure> {
    let server = Connection::find(&args.server, desk)?;
    let told = server.json(Ask::post(&["v1", "reload"], Zeroizing::default())).await?;
    print(&changes(&told, &desk.printer))?;
    Ok(0)
}

/// What a reload has changed.
fn changes(told: &Value, printer: &Printer) -> String {
    let names = |field: &str| {
        let names = told[field].as_array().into_iter().flatten().filter_map(Value::as_str);
        names.map(printable).collect::<Vec<_>>().join(printer.either(", ", "，"))
    };
    let kept = told["kept"].as_u64().unwrap_or(0);
    let mut text = printer.either(
        format!("reloaded; {kept} sources as before"),
        format!("已重新加载；{kept} 个令牌源不变"),
    );
    for (field, en, zh) in [
        ("changed", "changed: ", "已变更："),
        ("removed", "removed: ", "已移除："),
        ("added", "added: ", "新增："),
        (
            "need_restart",
            "these settings take effect with the next start: ",
            "以下设置在下次启动时生效：",
        ),
    ] {
        let names = names(field);
        if !names.is_empty() {
            let _ = write!(text, "\n{}{names}", printer.either(en, zh));
        }
    }
    text.push('\n');
    text
}

/// Shows the calls of the day, or has them given back.
pub(super) async fn quota(args: &QuotaArgs, desk: &Desk<'_>) -> Result<u8, Failure> {
    match &args.command {
        QuotaCommand::Show { name, server } => {
            let status = Connection::find(server, desk)?.json(Ask::get(&["v1", "status"])).await?;
            print(&table(&status, name.as_deref(), &desk.printer)?)?;
            Ok(0)
        }
        QuotaCommand::Reset { name, yes, server } => {
            let server = Connection::find(server, desk)?;
            if !yes {
                let status = server.json(Ask::get(&["v1", "status"])).await?;
                confirm(&status, name, &desk.printer)?;
            }
            let path = ["v1", "quota", name, "reset"];
            let told = server.json(Ask::post(&path, Zeroizing::default())).await?;
            print(&outcome(&told, &desk.printer))?;
            let sources = told["sources"].as_array().into_iter().flatten();
            let all_are_live = sources.into_iter().all(|source| source["live"] == true);
            Ok(if all_are_live { 0 } else { NOT_ALL_WELL })
        }
    }
}

/// The calls of each source, or of one.
fn table(status: &Value, only: Option<&str>, printer: &Printer) -> Result<String, Failure> {
    let sources = status["sources"].as_array().into_iter().flatten();
    let rows: Vec<[String; 3]> = sources
        .filter(|source| only.is_none_or(|only| source["name"] == only))
        .map(|source| {
            let calls = &source["calls_today"];
            let name = printable(source["name"].as_str().unwrap_or("?"));
            match calls["made"].as_u64() {
                None => [name, printer.either("not counted", "不计数").into(), "-".into()],
                Some(_) => [name, made(calls, printer), resets(calls)],
            }
        })
        .collect();
    if rows.is_empty()
        && let Some(only) = only
    {
        return Err(no_source(only));
    }
    let width = rows.iter().map(|[name, ..]| columns(name)).max().unwrap_or(0).max(6);
    let [source, today, month] = printer.either(
        ["SOURCE", "CALLS TODAY", "RESETS THIS MONTH"],
        ["令牌源", "今日调用", "本月重置次数"],
    );
    let mut text = format!("{}  {}  {month}\n", padded(source, width), padded(today, 16));
    for [name, calls, resets] in rows {
        let _ = writeln!(text, "{}  {}  {resets}", padded(&name, width), padded(&calls, 16));
    }
    text.push_str(printer.either(
        "\nSources of one account and endpoint share their calls; a day ends at Beijing's midnight.\n",
        "\n同一账号、同一接口的令牌源共用调用次数；每日次数在北京时间零点重新计算。\n",
    ));
    Ok(text)
}

fn resets(calls: &Value) -> String {
    calls["resets_this_month"].as_u64().map_or("-".into(), |resets| resets.to_string())
}

fn no_source(name: &str) -> Failure {
    let name = printable(name);
    Failure::new(EX_DATAERR, format_args!("{name}: {NO_SOURCE}"))
        .zh(format_args!("{name}：{NO_SOURCE_ZH}"))
}

/// Asks whether a reset is meant, and says what it costs.
fn confirm(status: &Value, name: &str, printer: &Printer) -> Result<(), Failure> {
    let mut sources = status["sources"].as_array().into_iter().flatten();
    let source = sources.find(|source| source["name"] == name).ok_or_else(|| no_source(name))?;
    let used = resets(&source["calls_today"]);
    let name = printable(name);
    note(&printer.either(
        format!(
            "this asks WeChat to give back all calls of this day to the account of {name}. It does that ten times a \
             month for an account; this server has counted {used} this month, and knows of none that were made in the \
             console. Reset it? [y/N]"
        ),
        format!(
            "此操作请求微信重置 {name} 所属账号今日的全部调用次数。每个账号每月只能重置十次；本服务器本月已记录 {used} 次，\
             不包括在后台手动重置的次数。确定重置吗？[y/N]"
        ),
    ));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        "" if !matches!(read, Ok(1..)) => {
            Err(Failure::new(EX_USAGE, "nobody answers; --yes says that it is meant")
                .zh("没有人回答；确认请加 --yes"))
        }
        _ => Err(Failure::new(EX_TEMPFAIL, "nothing was done").zh("未做任何更改")),
    }
}

/// What came of a reset.
fn outcome(told: &Value, printer: &Printer) -> String {
    let number = |field: &str| told[field].as_u64().unwrap_or_default();
    let (used, most) = (number("resets_this_month"), number("resets_a_month"));
    let mut text = printer.either(
        format!("the calls of this day count from zero: reset {used} of {most} this month\n"),
        format!("今日调用次数已重新计数：本月第 {used} 次重置，每月最多 {most} 次\n"),
    );
    for source in told["sources"].as_array().into_iter().flatten() {
        let name = printable(source["name"].as_str().unwrap_or("?"));
        let _ = match source["error"].as_str() {
            None => writeln!(text, "  {name} {}", printer.either("is live", "有效")),
            Some(error) => {
                let none = printer.either("has no token: ", "没有令牌：");
                writeln!(text, "  {name} {none}{}", printable(error))
            }
        };
    }
    text
}
