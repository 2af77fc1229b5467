//! Where log lines go and how they look. Set up once, before anything can fail.

use std::io::{IsTerminal, Write};

use tracing::level_filters::LevelFilter;
use tracing_appender::rolling::{self, RollingFileAppender};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};

/// What our own lines are logged under.
const OURS: &str = "wechat_token_server";

/// Starts logging; `directives` (the value of `RUST_LOG`) go before the configured level.
///
/// # Errors
/// The directory for log files cannot be used; in words for the operator.
pub fn start(config: &LogConfig, directives: Option<&str>) -> Result<(), String> {
    let filter = filter(directives.unwrap_or(&config.level));
    let files = match &config.dir {
        None => None,
        Some(dir) => Some(daily_files(dir, config.keep)?),
    };
    let terminal = std::io::stderr().is_terminal();
    let stderr = match config.format {
        LogFormat::Pretty => {
            fmt::layer().with_writer(std::io::stderr).with_ansi(terminal).with_target(false).boxed()
        }
        LogFormat::Json => {
            fmt::layer().with_writer(std::io::stderr).json().flatten_event(true).boxed()
        }
    };
    let files = files.map(|files| match config.format {
        LogFormat::Pretty => {
            fmt::layer().with_writer(files).with_ansi(false).with_target(false).boxed()
        }
        LogFormat::Json => fmt::layer().with_writer(files).json().flatten_event(true).boxed(),
    });
    tracing_subscriber::registry()
        .with(stderr)
        .with(files)
        .with(filter)
        .try_init()
        .map_err(|error| error.to_string())?;
    // From now on a panic is a line in the log like any other.
    std::panic::set_hook(Box::new(|panic| tracing::error!(place = place(panic), "panic")));
    Ok(())
}

/// Has a panic tell its place and nothing else: its message may quote what was being worked on, such as
/// a config. To be called first; [`start`] has it logged from then on.
pub fn hush_panics() {
    std::panic::set_hook(Box::new(|panic| {
        // There is nowhere to say that this cannot be said.
        let _ = writeln!(std::io::stderr(), "wechat-token-server: panic at {}", place(panic));
    }));
}

fn place(panic: &std::panic::PanicHookInfo<'_>) -> String {
    panic.location().map(ToString::to_string).unwrap_or_default()
}

/// The filter of these directives. Foreign crates stay at `info` unless one is named: below it they
/// print what passes through them.
fn filter(directives: &str) -> Targets {
    let asked: Targets = directives.parse().unwrap_or_else(|_| {
        // The config's level has been checked; RUST_LOG may be meant for another program.
        Targets::new().with_default(LevelFilter::INFO)
    });
    match asked.default_level() {
        Some(level) if level > LevelFilter::INFO => {
            let ours_named = asked.iter().any(|(target, _)| target.starts_with(OURS));
            let asked = asked.with_default(LevelFilter::INFO);
            if ours_named { asked } else { asked.with_target(OURS, level) }
        }
        _ => asked,
    }
}

fn daily_files(dir: &std::path::Path, keep: usize) -> Result<RollingFileAppender, String> {
    RollingFileAppender::builder()
        .rotation(rolling::Rotation::DAILY)
        .filename_prefix("wechat-token-server")
        .filename_suffix("log")
        .max_log_files(keep)
        .build(dir)
        .map_err(|error| format!("log.dir: {} cannot be used: {error}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn foreign_crates_stay_quiet_unless_named() {
        for (directives, ours, foreign) in [
            ("info", Level::INFO, Level::INFO),
            ("warn", Level::WARN, Level::WARN),
            ("trace", Level::TRACE, Level::INFO),
            ("trace,sled=debug", Level::TRACE, Level::DEBUG),
            ("wechat_token_server=debug,info", Level::DEBUG, Level::INFO),
            ("what=is=this", Level::INFO, Level::INFO),
        ] {
            let filter = filter(directives);
            let most = |target: &str| {
                [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR]
                    .into_iter()
                    .find(|level| filter.would_enable(target, level))
            };
            assert_eq!(most("wechat_token_server::refresh"), Some(ours), "{directives}");
            assert_eq!(most("sled::pagecache"), Some(foreign), "{directives}");
        }
    }
}
