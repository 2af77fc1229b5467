//! `status`: the server's own account of its sources as a table for people, in 80 columns.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::connection::{Ask, Connection, printable};
use super::{Desk, EX_PROTOCOL, Failure, NOT_ALL_WELL, Printer, note, print};
use crate::cli::StatusArgs;

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Where errors and remedies begin under the row of their source.
const INDENT: &str = "    ";

/// Shows how the sources are; whether all are live.
pub(super) async fn status(args: &StatusArgs, desk: &Desk<'_>) -> Result<u8, Failure> {
    let server = Connection::find(&args.server, desk)?;
    loop {
        match look(&server, args, desk).await {
            Ok((text, code)) => {
                // Cleared only when the new one is there: a screen that flickers cannot be read.
                let clear = args.watch && desk.printer.is_terminal && !args.json;
                let is_read = print(&[if clear { "\x1b[H\x1b[2J" } else { "" }, &text].concat())?;
                if !args.watch || !is_read {
                    return Ok(code);
                }
            }
            // Who watches wants to see it come back.
            Err(failure) if args.watch => note(failure.told(&desk.printer)),
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// What there is to see now, and the exit code that says whether all sources are live.
async fn look(
    server: &Connection,
    args: &StatusArgs,
    desk: &Desk<'_>,
) -> Result<(String, u8), Failure> {
    let status = server.json(Ask::get(&["v1", "status"])).await?;
    let text = if args.json { format!("{status}\n") } else { table(&status, &desk.printer)? };
    Ok((text, if all_are_live(&status) { 0 } else { NOT_ALL_WELL }))
}

fn all_are_live(status: &Value) -> bool {
    sources(status).iter().all(|source| source["state"] == "live")
}

fn sources(status: &Value) -> &[Value] {
    status["sources"].as_array().map_or(&[], Vec::as_slice)
}

/// The columns after the name: heading and width. As wide together in either language.
type Columns = [(&'static str, usize); 5];

const ENGLISH: Columns =
    [("STATE", 7), ("LIFE", 7), ("RENEWAL", 9), ("GENERATION", 10), ("CALLS TODAY", 14)];

const CHINESE: Columns =
    [("状态", 8), ("剩余", 7), ("下次续期", 9), ("代次", 10), ("今日调用", 13)];

/// The whole table.
fn table(status: &Value, printer: &Printer) -> Result<String, Failure> {
    let (Some(now), Some(version)) = (status["now"].as_u64(), status["version"].as_str()) else {
        return Err(Failure::new(
            EX_PROTOCOL,
            "the answer is no status: is that a server of this version?",
        )
        .zh("应答不是状态信息：对方是本版本的服务器吗？"));
    };
    let names = sources(status).iter().map(|source| columns(&name_of(source)));
    let others = printer.either(ENGLISH, CHINESE);
    let first = printer.either("SOURCE", "令牌源");
    let room = printer.columns - others.iter().map(|(_, width)| width + 2).sum::<usize>();
    let name_width = names.filter(|width| *width <= room).max().unwrap_or(0).max(columns(first));
    let (version, up) = (printable(version), life(status["uptime"].as_u64().unwrap_or_default()));
    let states = states(&status["states"], printer);
    let mut text = printer.either(
        format!("wechat-token-server {version}, up {up}: {states}\n\n"),
        format!("wechat-token-server {version} 已运行 {up}：{states}\n\n"),
    );
    let mut headings = padded(first, name_width);
    for (heading, width) in others {
        let _ = write!(headings, "  {}", padded(heading, width));
    }
    let _ = writeln!(text, "{}", headings.trim_end());
    for source in sources(status) {
        row(source, now, name_width, printer, &mut text);
    }
    Ok(text)
}

fn name_of(source: &Value) -> String {
    printable(source["name"].as_str().unwrap_or("?"))
}

/// The states, in English as the server names them, and in Chinese as the page does.
const STATES: [(&str, &str); 4] =
    [("live", "有效"), ("failing", "续期失败"), ("expired", "已过期"), ("absent", "无令牌")];

/// How many sources there are of each state.
fn states(states: &Value, printer: &Printer) -> String {
    let count = |state: &str| states[state].as_u64().unwrap_or_default();
    let total: u64 = STATES.iter().map(|(state, _)| count(state)).sum();
    let there = STATES.iter().filter(|(state, _)| count(state) > 0);
    let parts: Vec<String> =
        there.map(|(en, zh)| format!("{} {}", count(en), printer.either(en, zh))).collect();
    if parts.is_empty() {
        return printer.either("no sources", "没有令牌源").into();
    }
    let sources = if total == 1 { "source" } else { "sources" };
    printer.either(
        format!("{total} {sources}, {}", parts.join(", ")),
        format!("{total} 个令牌源，{}", parts.join("，")),
    )
}

/// One source: its row, and below it what is wrong.
fn row(source: &Value, now: u64, name_width: usize, printer: &Printer, text: &mut String) {
    let name = name_of(source);
    if columns(&name) > name_width {
        // Names are up to 256 bytes long: the row begins below it.
        let _ = write!(text, "{name}\n{}", " ".repeat(name_width));
    } else {
        text.push_str(&padded(&name, name_width));
    }
    let state = source["state"].as_str().unwrap_or("?");
    let colour = match state {
        "live" => "32",
        "failing" => "33",
        _ => "31",
    };
    let renewal = match source["next_renewal_at"].as_u64() {
        Some(at) if at > now => {
            let span = life(at - now);
            printer.either(format!("in {span}"), format!("{span}后"))
        }
        _ => printer.either("now", "现在").into(),
    };
    let memory_only = source["on_disk"] == false;
    let number = |n: u64| n.to_string();
    let [(_, state_width), (_, life_width), (_, renewal_width), (_, generation_width), _] =
        printer.either(ENGLISH, CHINESE);
    let cells = [
        coloured(&padded(&word(state, printer), state_width), colour, printer),
        padded(&source["life_left"].as_u64().map_or("-".into(), life), life_width),
        padded(&renewal, renewal_width),
        padded(&source["generation"].as_u64().map_or("-".into(), number), generation_width),
        calls(&source["calls_today"], printer),
    ];
    for cell in cells {
        let _ = write!(text, "  {cell}");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    if memory_only {
        text.push_str(INDENT);
        text.push_str(printer.either(
            "kept in memory only: the disk refuses it; the server's log says why\n",
            "仅保存在内存中：磁盘拒绝写入，原因见服务器日志\n",
        ));
    }
    let error = &source["last_error"];
    if error.is_object() && error["over"] != true {
        trouble(error, now, printer, text);
    }
}

/// A state, which a later version may name as this one does not.
fn word(state: &str, printer: &Printer) -> String {
    let known = STATES.iter().find(|(en, _)| *en == state);
    known.map_or_else(|| printable(state), |(en, zh)| printer.either(*en, *zh).to_owned())
}

/// The calls of the account and endpoint: how many were made, of how many.
pub(super) fn calls(calls: &Value, printer: &Printer) -> String {
    match (calls["made"].as_u64(), calls["limit"].as_u64()) {
        (None, _) => "-".into(),
        (Some(made), None) => made.to_string(),
        (Some(made), Some(limit)) => {
            printer.either(format!("{made} of {limit}"), format!("{made} / {limit}"))
        }
    }
}

/// Why the last renewal failed, and what to do.
fn trouble(error: &Value, now: u64, printer: &Printer, text: &mut String) {
    let ago = life(now.saturating_sub(error["at"].as_u64().unwrap_or(now)));
    let message = printable(error["message"].as_str().unwrap_or_default());
    let remedy = |language: &str| error["remedy"][language].as_str().map(printable);
    let english = remedy("en").unwrap_or_default();
    // A server of a version before has it in English alone.
    let chinese = error["message_zh"].as_str().map_or(message.clone(), printable);
    let failed = printer.either(format!("{ago} ago: {message}"), format!("{ago}前：{chinese}"));
    wrapped(&failed, "", printer.columns, text);
    let remedy = if printer.chinese { remedy("zh").map(|zh| ("办法：", zh)) } else { None };
    let remedy = remedy.or((!english.is_empty()).then_some(("what to do: ", english)));
    if let Some((heading, words)) = remedy {
        wrapped(&words, heading, printer.columns, text);
    }
}

/// Breaks a text into lines of at most `width` columns, indented; between words, or between any two
/// characters of a script without spaces.
fn wrapped(words: &str, heading: &str, width: usize, text: &mut String) {
    let mut line = format!("{INDENT}{heading}");
    let empty = columns(&line);
    let mut used = empty;
    let mut pieces = Vec::new();
    for word in words.split_whitespace() {
        let mut begin = 0;
        for (at, c) in word.char_indices() {
            let end = at + c.len_utf8();
            if width_of(c) == 2 || end == word.len() {
                pieces.push((&word[begin..end], end == word.len()));
                begin = end;
            }
        }
    }
    let mut space = false;
    for (piece, ends_word) in pieces {
        let wide = columns(piece) + usize::from(space);
        if used > empty && used + wide > width {
            text.push_str(&line);
            text.push('\n');
            line = INDENT.to_owned();
            used = INDENT.len();
            space = false;
        }
        if space {
            line.push(' ');
            used += 1;
        }
        line.push_str(piece);
        used += columns(piece);
        space = ends_word;
    }
    text.push_str(&line);
    text.push('\n');
}

fn coloured(text: &str, colour: &str, printer: &Printer) -> String {
    if printer.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Text of at least this many columns.
pub(super) fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

/// How many columns a text takes on a terminal.
pub(super) fn columns(text: &str) -> usize {
    text.chars().map(width_of).sum()
}

/// The columns of a character: two for the scripts of China, Japan and Korea and their punctuation
/// (Unicode's East Asian Width, by its blocks), which are all the wide ones that names and remedies hold.
fn width_of(c: char) -> usize {
    match u32::from(c) {
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff => 2,
        0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x2_0000..=0x3_fffd => 2,
        _ => 1,
    }
}

/// A length of time in at most seven columns: its two largest units.
pub(super) fn life(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        0..MINUTE => format!("{seconds}s"),
        MINUTE..HOUR => format!("{}m{:02}s", seconds / MINUTE, seconds % MINUTE),
        HOUR..DAY => format!("{}h{:02}m", seconds / HOUR, seconds % HOUR / MINUTE),
        _ if seconds < 1_000 * DAY => format!("{}d{:02}h", seconds / DAY, seconds % DAY / HOUR),
        _ => format!("{}d", seconds / DAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn printer(colours: bool, chinese: bool) -> Printer {
        Printer { is_terminal: colours, colours, chinese, columns: 80 }
    }

    fn source(name: &str, state: &str) -> Value {
        json!({
            "name": name, "state": state, "generation": 1_764_000_000_u64, "life_left": 7_140,
            "next_renewal_at": 1_764_006_400_u64, "on_disk": true, "last_error": null,
            "calls_today": {"made": 3, "limit": 2_000},
        })
    }

    fn status(sources: &[Value]) -> Value {
        let mut states = json!({"live": 0, "failing": 0, "expired": 0, "absent": 0});
        for source in sources {
            let count = &mut states[source["state"].as_str().unwrap()];
            *count = (count.as_u64().unwrap() + 1).into();
        }
        json!({
            "version": "0.1.0", "now": 1_764_000_000_u64, "uptime": 273_600, "states": states,
            "sources": sources,
        })
    }

    #[test]
    fn a_table_fits_into_eighty_columns() {
        let mut failing = source("ticket", "failing");
        failing["last_error"] = json!({
            "at": 1_763_999_910_u64, "class": "misconfigured", "code": "40164", "over": false,
            "message": "the upstream answered errcode 40164",
            "message_zh": "上游返回 errcode 40164",
            "remedy": {
                "en": "add 203.0.113.7 to the IP allow list in the console",
                "zh": "请在微信公众平台的“设置与开发—基本配置”中把 203.0.113.7 加入 IP 白名单，保存后等待几分钟再试一次",
            },
        });
        let mut absent = source("公众号:a-name-that-is-longer-than-there-is-room-for", "absent");
        for field in ["generation", "life_left", "on_disk", "next_renewal_at"] {
            absent[field] = Value::Null;
        }
        absent["calls_today"] = json!({"made": 7, "limit": null});
        let mut memory = source("a.b", "live");
        memory["on_disk"] = json!(false);
        memory["calls_today"] = Value::Null;
        memory["last_error"] = json!({"at": 1, "message": "long past", "over": true});
        let all = status(&[source("access_token", "live"), failing, absent, memory]);
        let english = table(&all, &printer(false, false)).unwrap();
        let expected = "\
wechat-token-server 0.1.0, up 3d04h: 4 sources, 2 live, 1 failing, 1 absent

SOURCE        STATE    LIFE     RENEWAL    GENERATION  CALLS TODAY
access_token  live     1h59m    in 1h46m   1764000000  3 of 2000
ticket        failing  1h59m    in 1h46m   1764000000  3 of 2000
    1m30s ago: the upstream answered errcode 40164
    what to do: add 203.0.113.7 to the IP allow list in the console
公众号:a-name-that-is-longer-than-there-is-room-for
              absent   -        now        -           7
a.b           live     1h59m    in 1h46m   1764000000  -
    kept in memory only: the disk refuses it; the server's log says why
";
        assert_eq!(english, expected);
        let chinese = table(&all, &printer(false, true)).unwrap();
        let expected = "\
wechat-token-server 0.1.0 已运行 3d04h：4 个令牌源，2 有效，1 续期失败，1 无令牌

令牌源        状态      剩余     下次续期   代次        今日调用
access_token  有效      1h59m    1h46m后    1764000000  3 / 2000
ticket        续期失败  1h59m    1h46m后    1764000000  3 / 2000
";
        assert!(chinese.starts_with(expected), "{chinese}");
        assert!(
            chinese.contains("\n              无令牌    -        现在       -           7\n"),
            "{chinese}"
        );
        assert!(chinese.contains("    仅保存在内存中："), "{chinese}");
        assert!(
            chinese.contains("    1m30s前：上游返回 errcode 40164\n    办法：请在微信公众平台"),
            "{chinese}"
        );
        for line in english.lines().chain(chinese.lines()) {
            assert!(columns(line) <= 80, "{line}");
        }
        // Nothing is lost where a line breaks.
        let joined: String = chinese.lines().map(str::trim_start).collect();
        assert!(joined.contains("加入 IP 白名单，保存后等待几分钟再试一次"), "{joined}");
        let colours = table(&all, &printer(true, false)).unwrap();
        assert!(colours.contains("\x1b[33mfailing\x1b[0m"));
        let plain = ["32", "33", "31", "0"]
            .iter()
            .fold(colours, |text, code| text.replace(&format!("\x1b[{code}m"), ""));
        assert_eq!(plain, english, "colours move nothing");
    }

    #[test]
    fn an_exit_code_says_whether_all_are_live() {
        let live = source("a", "live");
        assert!(all_are_live(&status(std::slice::from_ref(&live))));
        for state in ["failing", "expired", "absent"] {
            assert!(!all_are_live(&status(&[live.clone(), source("b", state)])), "{state}");
        }
        let none = table(&status(&[]), &printer(false, false)).unwrap();
        assert!(none.contains("no sources"));
        assert_eq!(table(&json!({}), &printer(false, false)).unwrap_err().code, EX_PROTOCOL);
    }

    #[test]
    fn a_terminal_is_not_told_what_to_do() {
        let mut evil = source("a", "failing");
        evil["last_error"] =
            json!({"at": 1, "message": "x\u{1b}[2J\u{7}y\nz", "over": false, "remedy": null});
        let text = table(&status(&[evil]), &printer(false, false)).unwrap();
        assert!(!text.contains(['\u{1b}', '\u{7}']) && text.contains("x [2J y z"), "{text}");
    }

    #[test]
    fn lengths_of_time_are_short() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m00s"),
            (3_599, "59m59s"),
            (7_140, "1h59m"),
            (86_399, "23h59m"),
            (273_600, "3d04h"),
            (86_400_000, "1000d"),
        ] {
            assert_eq!(life(seconds), text);
            assert!(text.len() <= ENGLISH[1].1);
        }
    }
}
