//! `${env:NAME}` and `${file:PATH}` in any string of the config. Reads the files they name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The environment variables a config may name: the process' own, or a test's.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: HashMap<String, String>,
}

impl Environment {
    /// The variables of this process; those that are not Unicode are left out.
    pub fn of_process() -> Environment {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Environment { variables }
    }

    /// These variables and no others.
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Environment {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Environment { variables: variables.into_iter().map(owned).collect() }
    }

    /// The value of a variable; `None` if it is not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }
}

/// Replaces each `${env:NAME}` and `${file:PATH}` in `text`; `$${` stands for a plain `${`, and any
/// other `$` for itself. Paths are relative to `dir`; the line end that editors put at the end of a
/// file is left out.
///
/// What is wrong goes to `mistakes`, in words that show neither a variable's value nor a file's
/// content; the rest is still replaced.
pub(super) fn expand(
    text: &str,
    environment: &Environment,
    dir: &Path,
    mistakes: &mut Vec<String>,
) -> String {
    let mut expanded = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Text(text) => expanded.push_str(text),
            Piece::Variable(name) => expand_variable(name, environment, &mut expanded, mistakes),
            Piece::File(path) => expand_file(&dir.join(path), &mut expanded, mistakes),
            Piece::Unclosed(kind) => mistakes.push(format!("`{kind}` has no closing `}}`")),
        }
    }
    expanded
}

/// The files that `text` names, in order.
pub(super) fn files(text: &str, dir: &Path) -> Vec<PathBuf> {
    let file = |piece| match piece {
        Piece::File(path) => Some(dir.join(path)),
        _ => None,
    };
    pieces(text).filter_map(file).collect()
}

/// A piece of a text.
enum Piece<'a> {
    /// It stands for itself.
    Text(&'a str),
    /// A variable's name.
    Variable(&'a str),
    /// A file's path.
    File(&'a str),
    /// What is opened by this is not closed; it is the last piece.
    Unclosed(&'static str),
}

const ENV: &str = "${env:";
const FILE: &str = "${file:";

/// Takes a text apart.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if let Some(after) = rest.strip_prefix("$${") {
            rest = after;
            return Some(Piece::Text("${"));
        }
        if let Some((kind, after)) = strip_opening(rest) {
            let Some((name, after)) = after.split_once('}') else {
                rest = "";
                return Some(Piece::Unclosed(kind));
            };
            rest = after;
            return Some(if kind == ENV { Piece::Variable(name) } else { Piece::File(name) });
        }
        // Up to the next `$`; one that opens nothing stands for itself.
        let end = rest.char_indices().skip(1).find(|(_, c)| *c == '$');
        let (piece, after) = rest.split_at(end.map_or(rest.len(), |(at, _)| at));
        rest = after;
        (!piece.is_empty()).then_some(Piece::Text(piece))
    })
}

fn strip_opening(text: &str) -> Option<(&'static str, &str)> {
    [ENV, FILE].into_iter().find_map(|kind| Some((kind, text.strip_prefix(kind)?)))
}

fn expand_variable(
    name: &str,
    environment: &Environment,
    expanded: &mut String,
    mistakes: &mut Vec<String>,
) {
    match environment.get(name) {
        Some("") => mistakes.push(format!("the environment variable {name} is empty; set it")),
        Some(value) => expanded.push_str(value),
        None => mistakes.push(format!("the environment variable {name} is not set; set it")),
    }
}

fn expand_file(path: &Path, expanded: &mut String, mistakes: &mut Vec<String>) {
    match std::fs::read_to_string(path) {
        Ok(content) => expanded.push_str(content.trim_end_matches(['\n', '\r'])),
        Err(error) => mistakes.push(format!("{} cannot be read: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("s"), "from file\r\n").unwrap();
        let environment = Environment::of([("A", "from env"), ("E", ""), ("N", "${env:A}")]);
        let mut mistakes = Vec::new();
        let expanded = expand(text, &environment, dir.path(), &mut mistakes);
        match expected {
            Ok(expected) => {
                assert_eq!((expanded.as_str(), mistakes.len()), (expected, 0), "{text}")
            }
            Err(part) => {
                assert!(mistakes.iter().any(|m| m.contains(part)), "{text}: {mistakes:?}");
            }
        }
    }

    #[test]
    fn strings_are_expanded() {
        check("plain", Ok("plain"));
        check("a${env:A}b${env:A}", Ok("afrom envbfrom env"));
        check("${file:s}!", Ok("from file!"));
        check("costs 5$ or ${x} or $", Ok("costs 5$ or ${x} or $"));
        check("$$$é$${é${env:A}", Ok("$$$é${éfrom env"));
        check("$${env:A}", Ok("${env:A}"));
        check("${env:N}", Ok("${env:A}")); // once, not again
        check("${env:NO}", Err("variable NO is not set"));
        check("${env:E}", Err("variable E is empty"));
        check("${file:none}", Err("none cannot be read"));
        check("${env:A", Err("no closing"));
    }

    #[test]
    fn the_files_of_a_text_are_named_and_not_read() {
        let dir = Path::new("/etc/wts");
        let text = "a${file:key}b${env:A}${file:/run/x}$${file:no}${file:";
        assert_eq!(files(text, dir), [Path::new("/etc/wts/key"), Path::new("/run/x")]);
        assert_eq!(files("plain", dir), [] as [&Path; 0]);
    }

    #[test]
    fn one_mistake_does_not_hide_the_next() {
        let mut mistakes = Vec::new();
        let text = "${env:X} and ${env:Y}";
        expand(text, &Environment::default(), Path::new("."), &mut mistakes);
        assert_eq!(mistakes.len(), 2);
    }
}
