//! The numbers in docs/limits.md are those of the config and of the source.

use std::path::{Path, PathBuf};
use std::time::Duration;

use wechat_token_server::config::{self, Config, Environment, HttpConfig, RespConfig};

fn document() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(root.join("docs/limits.md")).unwrap()
}

/// The cells of each row of the document's tables, but for their heads.
fn rows(document: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.map(|row| row.split(" | ").map(str::trim).collect())
}

/// The words between backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_defaults_of_the_limits_are_those_of_the_config() {
    let text = r#"(token_sources: {"t": (url: "https://h/t")})"#;
    let config = config::parse(text, Path::new("c.ron"), &Environment::default()).unwrap();
    let Config { http, resp, .. } = config;
    let HttpConfig {
        max_connections,
        max_connections_per_address,
        header_timeout,
        idle_timeout,
        ..
    } = http;
    let resp: RespConfig = resp.unwrap();
    let seconds = |time: Duration| format!("{}s", time.as_secs());
    let expected = [
        ("http.max_connections", max_connections.to_string()),
        ("http.max_connections_per_address", max_connections_per_address.to_string()),
        ("http.header_timeout", seconds(header_timeout)),
        ("http.idle_timeout", seconds(idle_timeout)),
        ("resp.max_connections", resp.max_connections.to_string()),
        ("resp.max_connections_per_address", resp.max_connections_per_address.to_string()),
        ("resp.idle_timeout", seconds(resp.idle_timeout)),
    ];
    let document = document();
    let stated: Vec<(&str, String)> = rows(&document)
        .filter(|cells| cells[0].starts_with("`http.") || cells[0].starts_with("`resp."))
        .map(|cells| (quoted(cells[0])[0], cells[1].to_owned()))
        .collect();
    assert_eq!(stated, expected);
}

/// What a constant is in the source: a product, or a duration of seconds or milliseconds.
fn constant(text: &str, name: &str) -> Option<String> {
    let value =
        text.split_once(&format!("const {name}: "))?.1.split_once(" = ")?.1.split_once(';')?.0;
    let number = |text: &str| text.trim().replace('_', "").parse::<usize>().unwrap();
    if let Some(rest) = value.strip_prefix("Duration::from_secs(") {
        return Some(format!("{} s", number(rest.trim_end_matches(')'))));
    }
    if let Some(rest) = value.strip_prefix("Duration::from_millis(") {
        return Some(format!("{} ms", number(rest.trim_end_matches(')'))));
    }
    let product: usize = value.split('*').map(number).product();
    let is_bytes = name.contains("BYTES") || name.contains("HELD");
    Some(match product {
        bytes if is_bytes && bytes % (1024 * 1024) == 0 => format!("{} MB", bytes / 1024 / 1024),
        bytes if is_bytes => format!("{} kB", bytes / 1024),
        count => count.to_string(),
    })
}

#[test]
fn the_limits_are_those_of_the_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let document = document();
    let mut complaints = Vec::new();
    let mut count = 0;
    for cells in rows(&document) {
        let [file, name] = quoted(cells.get(2).copied().unwrap_or_default())[..] else { continue };
        if !file.ends_with(".rs") {
            continue;
        }
        count += 1;
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        match constant(&text, name) {
            Some(is) if is == cells[1] => {}
            is => complaints
                .push(format!("{}: {} stated, {file} {name} is {is:?}", cells[0], cells[1])),
        }
    }
    assert!(count > 20, "{count} rows");
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_limit_of_http_is_in_the_document() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let document = document();
    let stated: Vec<String> =
        rows(&document).filter_map(|cells| Some((*cells.get(2)?).to_owned())).collect();
    let mut files = vec![PathBuf::from("http.rs")];
    for folder in ["http", "http/v1"] {
        let entries = std::fs::read_dir(root.join(folder)).unwrap();
        let entries = entries.map(|entry| Path::new(folder).join(entry.unwrap().file_name()));
        files.extend(
            entries.filter(|path| path.extension().is_some_and(|extension| extension == "rs")),
        );
    }
    let mut count = 0;
    for file in files {
        let text = std::fs::read_to_string(root.join(&file)).unwrap();
        let constants =
            text.lines().filter_map(|line| line.split_once("const ")?.1.split_once(": "));
        for (name, _) in constants {
            if ["MAX_", "MOST_", "LONGEST_"].iter().any(|start| name.starts_with(start)) {
                count += 1;
                let held = format!("`{}` `{name}`", file.display());
                assert!(stated.contains(&held), "docs/limits.md has no row for {held}");
            }
        }
    }
    assert!(count >= 8, "{count} limits");
}
