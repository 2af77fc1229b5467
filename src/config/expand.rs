//! `${env:NAME}`, `${file:PATH}` and `${credential:NAME}` in any string of the config. Reads the files
//! they name.

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

/// Replaces each `${env:NAME}`, `${file:PATH}` and `${credential:NAME}` (what systemd's `LoadCredential=`
/// gives a service) in `text`; `$${` stands for a plain `${`, and any other `$` for itself. Paths are relative to `dir`; the line end that editors put at the end of a
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
            Piece::Credential(name) => {
                expand_credential(name, environment, &mut expanded, mistakes);
            }
            Piece::Unclosed(kind) => mistakes.push(format!("`{kind}` has no closing `}}`")),
        }
    }
    expanded
}

/// The files that `text` names, in order. A credential is none: systemd sees to it that nobody else reads
/// it.
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
    /// The name of one of systemd's credentials.
    Credential(&'a str),
    /// What is opened by this is not closed; it is the last piece.
    Unclosed(&'static str),
}

const ENV: &str = "${env:";
const FILE: &str = "${file:";
const CREDENTIAL: &str = "${credential:";

/// Where systemd says in which directory a service's credentials are (systemd.exec(5)).
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

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
            return Some(match kind {
                ENV => Piece::Variable(name),
                FILE => Piece::File(name),
                _ => Piece::Credential(name),
            });
        }
        // Up to the next `$`; one that opens nothing stands for itself.
        let end = rest.char_indices().skip(1).find(|(_, c)| *c == '$');
        let (piece, after) = rest.split_at(end.map_or(rest.len(), |(at, _)| at));
        rest = after;
        (!piece.is_empty()).then_some(Piece::Text(piece))
    })
}

fn strip_opening(text: &str) -> Option<(&'static str, &str)> {
    [ENV, FILE, CREDENTIAL].into_iter().find_map(|kind| Some((kind, text.strip_prefix(kind)?)))
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

fn expand_credential(
    name: &str,
    environment: &Environment,
    expanded: &mut String,
    mistakes: &mut Vec<String>,
) {
    if name.is_empty() || name.contains('/') {
        mistakes.push(format!(
            "{name:?} is no name of a credential; write the one that LoadCredential= gives it"
        ));
        return;
    }
    match environment.get(CREDENTIALS_DIRECTORY) {
        Some(dir) => expand_file(&Path::new(dir).join(name), expanded, mistakes),
        None => mistakes.push(format!(
            "the credential {name} is not there, since {CREDENTIALS_DIRECTORY} is not set; start the service with \
             LoadCredential={name}:PATH (systemd), or write ${{file:PATH}}"
        )),
    }
}

fn expand_file(path: &Path, expanded: &mut String, mistakes: &mut Vec<String>) {
    match std::fs::read_to_string(path) {
        Ok(content) => match content.trim_end_matches(['\n', '\r']) {
            "" => mistakes.push(format!("{} is empty; write the value into it", path.display())),
            content => expanded.push_str(content),
        },
        Err(error) => mistakes.push(format!("{} cannot be read: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("s"), "from file\r\n").unwrap();
        std::fs::write(dir.path().join("blank"), "\n").unwrap();
        let credentials = dir.path().to_str().unwrap();
        let variables = [("A", "from env"), ("E", ""), ("N", "${env:A}")];
        let environment =
            Environment::of(variables.into_iter().chain([(CREDENTIALS_DIRECTORY, credentials)]));
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
        check("${credential:s}!", Ok("from file!"));
        check("costs 5$ or ${x} or $", Ok("costs 5$ or ${x} or $"));
        check("$$$é$${é${env:A}", Ok("$$$é${éfrom env"));
        check("$${env:A}", Ok("${env:A}"));
        check("${env:N}", Ok("${env:A}")); // once, not again
        check("${env:NO}", Err("variable NO is not set"));
        check("${env:E}", Err("variable E is empty"));
        check("${file:none}", Err("none cannot be read"));
        check("${file:blank}", Err("blank is empty; write the value into it"));
        check("${credential:none}", Err("none cannot be read"));
        check("${credential:../s}", Err("is no name of a credential"));
        check("${credential:}", Err("is no name of a credential"));
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
    fn a_credential_needs_a_service_that_was_given_it() {
        let mut mistakes = Vec::new();
        expand("${credential:k}", &Environment::default(), Path::new("."), &mut mistakes);
        let [mistake] = &mistakes[..] else { panic!("{mistakes:?}") };
        assert!(mistake.contains("LoadCredential=k:PATH"), "{mistake}");
    }

    #[test]
    fn one_mistake_does_not_hide_the_next() {
        let mut mistakes = Vec::new();
        let text = "${env:X} and ${env:Y}";
        expand(text, &Environment::default(), Path::new("."), &mut mistakes);
        assert_eq!(mistakes.len(), 2);
    }
}
