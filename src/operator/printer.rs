//! The one way to standard output and standard error for all that is not a log line.

use std::io::{ErrorKind, IsTerminal, Write};

use super::{EX_OSERR, Failure};
use crate::config::Environment;

/// How wide a terminal is that does not say: 80 columns, as everywhere.
const WIDTH: usize = 80;

/// How things are said in a way that suits who reads them.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    /// Whether standard output is a terminal.
    pub is_terminal: bool,
    /// Whether it may have colours: it is a terminal, and `NO_COLOR` (no-color.org) is not set.
    pub colours: bool,
    /// Whether the operator reads Chinese, by the locale.
    pub chinese: bool,
    /// How many columns a line has.
    pub columns: usize,
}

impl Printer {
    /// A printer for the standard output of this process.
    pub fn of(environment: &Environment) -> Printer {
        Printer::on(environment, std::io::stdout().is_terminal())
    }

    /// What the operator reads of two texts that say the same.
    pub fn either<T>(&self, english: T, chinese: T) -> T {
        if self.chinese { chinese } else { english }
    }

    fn on(environment: &Environment, is_terminal: bool) -> Printer {
        // Set but empty means unset, as no-color.org and POSIX have it.
        let variable = |name| environment.get(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().find_map(variable);
        let columns = variable("COLUMNS").and_then(|columns| columns.parse().ok());
        let is_dumb = variable("TERM") == Some("dumb");
        Printer {
            is_terminal,
            colours: is_terminal && !is_dumb && variable("NO_COLOR").is_none(),
            chinese: locale.is_some_and(|locale| locale.starts_with("zh")),
            columns: columns.filter(|columns| *columns >= WIDTH).unwrap_or(WIDTH),
        }
    }
}

/// Writes to standard output, as it stands; whether somebody reads on. Whoever closed the pipe does not want to
/// read it, which is no failure.
///
/// # Errors
/// It cannot be written, so that the command's result is lost: a full disk.
pub fn print(text: &str) -> Result<bool, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            Err(Failure::new(EX_OSERR, format_args!("standard output cannot be written: {error}"))
                .zh(format_args!("无法写入标准输出：{error}")))
        }
    }
}

/// Writes a line to standard error: what is not the command's result.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "wechat-token-server: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printer_suits_who_reads() {
        for (variables, terminal, colours, chinese, columns) in [
            (&[][..], true, true, false, 80),
            (&[], false, false, false, 80),
            (&[("NO_COLOR", "1"), ("LANG", "zh_CN.UTF-8")], true, false, true, 80),
            (&[("NO_COLOR", ""), ("COLUMNS", "120")], true, true, false, 120),
            (&[("LC_ALL", "zh_TW.UTF-8"), ("LANG", "C")], true, true, true, 80),
            (&[("LC_ALL", "C"), ("LANG", "zh_CN.UTF-8"), ("COLUMNS", "20")], true, true, false, 80),
            (&[("LC_ALL", ""), ("LANG", "zh"), ("TERM", "dumb")], true, false, true, 80),
        ] {
            let environment = Environment::of(variables.iter().copied());
            let printer = Printer::on(&environment, terminal);
            let found = (printer.colours, printer.chinese, printer.columns);
            assert_eq!(found, (colours, chinese, columns), "{variables:?}");
        }
    }
}
