//! How many files and connections a process may have open, and whether that is enough for what the config allows.

use std::fs;

use super::finding::{Finding, Topic, words};

/// What a process may have open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    /// As it is now.
    soft: u64,
    /// As far as the process can raise it; a server does.
    hard: u64,
}

/// The limit of this process, as /proc tells it.
pub(super) fn observe() -> Option<Limit> {
    parse(&fs::read_to_string("/proc/self/limits").ok()?)
}

/// The line `Max open files  SOFT  HARD  files`: proc_pid_limits(5).
fn parse(limits: &str) -> Option<Limit> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut numbers = line.split_whitespace().map(|number| match number {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    });
    Some(Limit { soft: numbers.next()??, hard: numbers.next()?? })
}

/// What is to be said of it, where `wanted` are wanted; `of_server`: of the server itself, which has raised it.
pub(super) fn judge(limit: Limit, wanted: usize, of_server: bool) -> Finding {
    let (there_are, whose) = match of_server {
        true => (limit.soft, words("the server", "服务器")),
        false => (limit.hard, words("a server that is started from here", "从此处启动的服务器")),
    };
    let what = words(
        format!("{} may open {there_are} files; its connections may want {wanted}", whose.en),
        format!("{}最多可打开 {there_are} 个文件，连接数上限需要 {wanted} 个", whose.zh),
    );
    if there_are >= wanted as u64 {
        return Finding::ok(Topic::Descriptors, "descriptors_ok", "", what);
    }
    Finding::warning(Topic::Descriptors, "descriptors_few", "", what).remedy(words(
        "raise LimitNOFILE of its unit (or `ulimit -Hn`), or lower http.max_connections and resp.max_connections; \
         until then both listeners share what there is",
        "请提高服务单元的 LimitNOFILE（或 `ulimit -Hn`），或调低 http.max_connections 与 resp.max_connections；在此之前两个监听器按比例分用",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_read_and_judged() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             63704                63704                processes \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(parse(text), Some(Limit { soft: 1_024, hard: 524_288 }));
        let unlimited = parse("Max open files  unlimited  unlimited  files");
        assert_eq!(unlimited, Some(Limit { soft: u64::MAX, hard: u64::MAX }));
        assert_eq!(parse("Max open files  many"), None);
        assert!(observe().is_some());
        let limit = Limit { soft: 1_024, hard: 4_096 };
        for (wanted, of_server, code) in [
            (1_024, true, "descriptors_ok"),
            (1_025, true, "descriptors_few"),
            (4_096, false, "descriptors_ok"),
            (4_097, false, "descriptors_few"),
        ] {
            let finding = judge(limit, wanted, of_server);
            assert_eq!((&*finding.code, finding.remedy.is_some()), (code, code.ends_with("few")));
        }
    }
}
