//! Findings as a report for people, in 80 columns, and as JSON. Pure.

use std::fmt::Write;

use serde_json::{Value, json};

use super::finding::{Finding, Mark, Topic, Words, count, words};

/// Where the text of a finding begins: behind the longest mark.
const INDENT: usize = 11;

/// How a report looks.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Whether it has colours.
    pub colours: bool,
    /// Whether it is in Chinese.
    pub chinese: bool,
    /// How many columns a line has at most.
    pub columns: usize,
}

impl Look {
    fn text(self, text: &Words) -> &str {
        if self.chinese { &text.zh } else { &text.en }
    }
}

/// The report: by topic, the worst first, what to do beneath each or, where that is the same, beneath all of them, and
/// how many there are at the end.
pub fn text(findings: &[Finding], look: Look) -> String {
    let mut report = String::new();
    for topic in Topic::ALL {
        let mut of_topic: Vec<&Finding> =
            findings.iter().filter(|finding| finding.topic == topic).collect();
        if of_topic.is_empty() {
            continue;
        }
        of_topic.sort_by_key(|finding| std::cmp::Reverse(finding.mark));
        let _ = writeln!(report, "{}", painted(look.text(&topic.title()), "1", look));
        let mut of_topic = of_topic.into_iter().peekable();
        while let Some(finding) = of_topic.next() {
            line(&mut report, finding, look);
            let is_last = of_topic.peek().is_none_or(|next| next.remedy != finding.remedy);
            if let Some(remedy) = finding.remedy.as_ref().filter(|_| is_last) {
                let _ = write!(report, "{:INDENT$}-> ", "");
                wrapped(&mut report, look.text(remedy), INDENT + 3, look.columns);
            }
        }
    }
    let (problems, warnings) = (count(findings, Mark::Problem), count(findings, Mark::Warning));
    let plural = |number: usize, what: &str| match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    };
    let end = match (problems, warnings) {
        (0, 0) => words("All is well.", "一切正常。"),
        _ => words(
            format!("{}, {}.", plural(problems, "problem"), plural(warnings, "warning")),
            format!("{problems} 个问题，{warnings} 个注意事项。"),
        ),
    };
    let _ = writeln!(report, "\n{}", look.text(&end));
    report
}

fn line(report: &mut String, finding: &Finding, look: Look) {
    let (mark, colour) = match finding.mark {
        Mark::Ok => (words("ok", "正常"), "32"),
        Mark::Warning => (words("warning", "注意"), "33"),
        Mark::Problem => (words("problem", "问题"), "31;1"),
    };
    let mark = look.text(&mark);
    let what = look.text(&finding.what);
    let separator = if look.chinese { "：" } else { ": " };
    let what = match finding.about.as_str() {
        "" => what.to_owned(),
        about => format!("{about}{separator}{what}"),
    };
    let gap = INDENT.saturating_sub(2 + mark.chars().map(width).sum::<usize>());
    let _ = write!(report, "  {}{:gap$}", painted(mark, colour, look), "");
    wrapped(report, &what, INDENT, look.columns);
}

fn painted(text: &str, colour: &str, look: Look) -> String {
    if look.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
}

/// How many columns a character has: two if it is East Asian wide, by the blocks that are in use for Chinese.
fn width(c: char) -> usize {
    let is_wide = matches!(u32::from(c), 0x2e80..=0x303e | 0x3041..=0xa4cf | 0xac00..=0xd7a3
        | 0xf900..=0xfaff | 0xfe30..=0xfe4f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x20000..=0x3fffd);
    if is_wide { 2 } else { 1 }
}

/// The pieces between which a line may be broken: behind a space, and on both sides of a wide character.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let end = if width(first) == 2 {
            first.len_utf8()
        } else {
            let mut end = rest.len();
            for (at, c) in rest.char_indices() {
                if width(c) == 2 {
                    end = at;
                    break;
                }
                if c == ' ' {
                    end = at + 1;
                    break;
                }
            }
            end
        };
        let (piece, behind) = rest.split_at(end);
        rest = behind;
        Some(piece)
    })
}

/// Signs that no line begins with.
const CLOSING: &str = "，。；：、）」！？";

/// Writes a text of which the first line begins at `indent`, and the others are indented so far.
fn wrapped(report: &mut String, text: &str, indent: usize, columns: usize) {
    let is_closing = |piece: &str| piece.trim_end().chars().all(|c| CLOSING.contains(c));
    let mut at = indent;
    let mut pieces = pieces(text).peekable();
    while let Some(piece) = pieces.next() {
        let mut piece = piece.to_owned();
        while let Some(closing) = pieces.next_if(|next| !piece.ends_with(' ') && is_closing(next)) {
            piece.push_str(closing);
        }
        let visible: usize = piece.trim_end().chars().map(width).sum();
        if at > indent && at + visible > columns {
            report.truncate(report.trim_end_matches(' ').len());
            let _ = write!(report, "\n{:indent$}", "");
            at = indent;
        }
        report.push_str(&piece);
        at += piece.chars().map(width).sum::<usize>();
    }
    report.push('\n');
}

/// Findings for programs.
pub fn to_json(findings: &[Finding]) -> Value {
    let text = |text: &Words| json!({"en": text.en, "zh": text.zh});
    let of = |finding: &Finding| {
        json!({
            "topic": finding.topic.as_str(),
            "mark": finding.mark.as_str(),
            "code": finding.code,
            "about": finding.about,
            "what": text(&finding.what),
            "remedy": finding.remedy.as_ref().map(text),
        })
    };
    json!({
        "problems": count(findings, Mark::Problem),
        "warnings": count(findings, Mark::Warning),
        "findings": findings.iter().map(of).collect::<Vec<_>>(),
    })
}

/// The findings of a server, which may be of another version: what is not understood is left out. `None` if they
/// are none.
pub fn from_json(answer: &Value) -> Option<Vec<Finding>> {
    // What a terminal would obey is no part of a finding.
    let plain = |text: &Value| -> Option<String> {
        let text = text.as_str()?;
        Some(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    };
    let text = |text: &Value| Some(words(plain(&text["en"])?, plain(&text["zh"])?));
    let of = |finding: &Value| {
        Some(Finding {
            topic: Topic::ALL.into_iter().find(|topic| finding["topic"] == topic.as_str())?,
            mark: Mark::ALL.into_iter().find(|mark| finding["mark"] == mark.as_str())?,
            code: plain(&finding["code"])?.into(),
            about: plain(&finding["about"])?,
            what: text(&finding["what"])?,
            remedy: text(&finding["remedy"]),
        })
    };
    Some(answer["findings"].as_array()?.iter().filter_map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look { colours: false, chinese: false, columns: 80 };

    fn findings() -> Vec<Finding> {
        let name = "a.b.example";
        vec![
            Finding::ok(Topic::Hosts, "host_ok", name, words("answers in 48 ms", "48 毫秒内应答")),
            Finding::problem(
                Topic::Hosts,
                "dns_failure",
                "x.invalid",
                words("has no address: the name is not known", "无法解析该域名"),
            )
            .remedy(words(
                "check the host in url, and the resolvers of this machine in /etc/resolv.conf, which \
                 have to know the names of the Internet",
                "请检查 url 中的主机名，以及本机 /etc/resolv.conf 中的域名服务器是否可用，它们必须能够解析公网域名",
            )),
            Finding::warning(Topic::Config, "advice", "", words("could be better", "可以更好")),
            // Whatever the width, somewhere two closing signs come at its end.
            Finding::ok(
                Topic::Config,
                "x",
                "",
                words("x", "上游（的）；应（答）；中（没）；有（可）；用（的）；令（牌）；或（有）；效（期）；等等（字）；段"),
            ),
            Finding::ok(
                Topic::Config,
                "x",
                "",
                words("x", "a上游（的）；应（答）；中（没）；有（可）；用（的）；令（牌）；或（有）；效（期）；等等（字）；段"),
            ),
        ]
    }

    #[test]
    fn a_report_is_grouped_with_the_worst_first_and_what_to_do_beneath() {
        let expected = "\
Hosts
  problem  x.invalid: has no address: the name is not known
           -> check the host in url, and the resolvers of this machine in
              /etc/resolv.conf, which have to know the names of the Internet
  ok       a.b.example: answers in 48 ms
Config
  warning  could be better
  ok       x
  ok       x

1 problem, 1 warning.
";
        assert_eq!(text(&findings(), PLAIN), expected);
        assert!(text(&findings()[..1], PLAIN).ends_with("\n\nAll is well.\n"));
    }

    #[test]
    fn what_to_do_about_several_things_is_said_once() {
        let refused = |name| {
            let what = words("not let in", "被拒绝");
            Finding::problem(Topic::Address, "errcode_40164", name, what)
        };
        let allow = || words("add it", "加入白名单");
        let findings = [
            refused("a").remedy(allow()),
            refused("b").remedy(allow()),
            refused("c").remedy(words("another", "其他")),
        ];
        let report = text(&findings, PLAIN);
        let (add, b) = (report.find("-> add it").unwrap(), report.find("b: not let in").unwrap());
        assert!(report.matches("-> ").count() == 2 && b < add, "{report}");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_in_either_language() {
        for chinese in [false, true] {
            for columns in [80, 100] {
                let report = text(&findings(), Look { chinese, columns, ..PLAIN });
                for line in report.lines() {
                    assert!(line.chars().map(width).sum::<usize>() <= columns, "{line}");
                    assert!(!line.ends_with(' '), "{line}|");
                    assert!(!line.trim_start().starts_with(['，', '；', '）']), "{line}");
                }
                assert_eq!(report.contains("无法解析"), chinese);
            }
        }
    }

    #[test]
    fn colours_are_an_addition() {
        let coloured = text(&findings(), Look { colours: true, ..PLAIN });
        assert!(coloured.contains("\x1b[31;1mproblem\x1b[0m"));
        let mut plain = String::new();
        let mut parts = coloured.split('\x1b');
        plain.push_str(parts.next().unwrap());
        parts.for_each(|part| plain.push_str(part.split_once('m').unwrap().1));
        assert_eq!(plain, text(&findings(), PLAIN));
    }

    #[test]
    fn findings_come_through_json_whole_and_harmless() {
        let mut answer = to_json(&findings());
        assert_eq!((&answer["problems"], &answer["warnings"]), (&1.into(), &1.into()));
        assert_eq!(from_json(&answer).unwrap(), findings());
        answer["findings"][0]["about"] = "\x1b[2J".into();
        answer["findings"][1]["mark"] = "of a later version".into();
        let read = from_json(&answer).unwrap();
        assert_eq!((read.len(), read[0].about.as_str()), (findings().len() - 1, " [2J"));
        assert_eq!(from_json(&json!({"error": {}})), None);
    }
}
