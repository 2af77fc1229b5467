//! `${env:NAME}`, `${file:PATH}` and `${credential:NAME}` in any string of the config. Reads the files
//! they name.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::read_text;

/// The environment variables a config may name: the process' own, or a test's.
#[derive(Clone, Default)]
pub struct Environment {
    variables: HashMap<String, Zeroizing<String>>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What they hold is as secret as a config.
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl Environment {
    /// The variables of this process; those that are not Unicode are left out.
    pub fn of_process() -> Environment {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.into_string().ok()?.into()))
            })
            .collect();
        Environment { variables }
    }

    /// These variables and no others.
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Environment {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned().into());
        Environment { variables: variables.into_iter().map(owned).collect() }
    }

    /// The value of a variable; `None` if it is not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|value| value.as_str())
    }
}

/// Replaces each `${env:NAME}`, `${file:PATH}` and `${credential:NAME}` (what systemd's `LoadCredential=`
/// gives a service; for a command in a shell, which is given nothing, the file of that name in
/// `credentials` below `dir`, where the packages keep them) in `text`; `$${` stands for a plain `${`, and
/// any other `$` for itself. Paths are relative to `dir`; the line end that editors put at the end of a file
/// is left out.
///
/// What is wrong goes to `mistakes`, in words that show neither a variable's value nor a file's
/// content; the rest is still replaced.
pub(super) fn expand(
    text: &str,
    environment: &Environment,
    dir: &Path,
    mistakes: &mut Vec<String>,
) -> Expanded {
    let mut whole = Vec::new();
    let mut taken = Vec::new();
    for piece in pieces(text) {
        let value = match piece {
            Piece::Text(text) => {
                whole.push(Zeroizing::new(text.to_owned()));
                continue;
            }
            Piece::Variable(name) => variable(name, environment),
            Piece::File(path) => content(&dir.join(path)),
            Piece::Credential(name) => credential(name, environment, dir),
            Piece::Unclosed(kind) => Err(format!("`{kind}` has no closing `}}`")),
        };
        match value {
            Ok(value) => {
                taken.push(value.clone());
                whole.push(value);
            }
            Err(mistake) => mistakes.push(mistake),
        }
    }
    // As large as it will be, so that no copy is left behind by growing.
    let mut text = Zeroizing::new(String::with_capacity(whole.iter().map(|part| part.len()).sum()));
    whole.iter().for_each(|part| text.push_str(part));
    Expanded { text, taken }
}

/// A text with its `${…}` replaced.
pub(super) struct Expanded {
    /// The whole text.
    pub text: Zeroizing<String>,
    /// What was put into it: nobody expects to see that in a message.
    pub taken: Vec<Zeroizing<String>>,
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

/// Where they are for whoever was not started by systemd, beside the config.
const CREDENTIALS: &str = "credentials";

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

fn variable(name: &str, environment: &Environment) -> Result<Zeroizing<String>, String> {
    match environment.get(name) {
        Some("") => Err(format!("the environment variable {name} is empty; set it")),
        Some(value) => Ok(value.to_owned().into()),
        None => Err(format!("the environment variable {name} is not set; set it")),
    }
}

fn credential(
    name: &str,
    environment: &Environment,
    dir: &Path,
) -> Result<Zeroizing<String>, String> {
    if name.is_empty() || name.contains('/') {
        return Err(format!(
            "{name:?} is no name of a credential; write the one that LoadCredential= gives it"
        ));
    }
    let beside = dir.join(CREDENTIALS);
    match environment.get(CREDENTIALS_DIRECTORY) {
        Some(dir) => content(&Path::new(dir).join(name)),
        None if beside.is_dir() => content(&beside.join(name)),
        None => Err(format!(
            "the credential {name} is not there, since {CREDENTIALS_DIRECTORY} is not set; start the service with \
             LoadCredential={name}:PATH (systemd), or write ${{file:PATH}}"
        )),
    }
}

fn content(path: &Path) -> Result<Zeroizing<String>, String> {
    match read_text(path) {
        Ok(content) => match content.trim_end_matches(['\n', '\r']) {
            "" => Err(format!("{} is empty; write the value into it", path.display())),
            content => Ok(content.to_owned().into()),
        },
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
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
        let expanded = expand(text, &environment, dir.path(), &mut mistakes).text;
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
    fn a_command_reads_the_credentials_beside_the_config() {
        let dir = tempfile::tempdir().unwrap();
        let [beside, given] = ["credentials", "given"].map(|name| dir.path().join(name));
        for (place, value) in [(&beside, "beside"), (&given, "given")] {
            std::fs::create_dir(place).unwrap();
            std::fs::write(place.join("k"), value).unwrap();
        }
        let mut mistakes = Vec::new();
        let service = Environment::of([(CREDENTIALS_DIRECTORY, given.to_str().unwrap())]);
        for (environment, value) in [(Environment::default(), "beside"), (service, "given")] {
            let expanded = expand("${credential:k}", &environment, dir.path(), &mut mistakes);
            assert_eq!(expanded.text.as_str(), value);
        }
        assert_eq!(mistakes, [] as [&str; 0]);
        expand("${credential:none}", &Environment::default(), dir.path(), &mut mistakes);
        assert!(mistakes[0].contains("credentials/none cannot be read"), "{mistakes:?}");
    }

    #[test]
    fn one_mistake_does_not_hide_the_next() {
        let mut mistakes = Vec::new();
        let text = "${env:X} and ${env:Y}";
        expand(text, &Environment::default(), Path::new("."), &mut mistakes);
        assert_eq!(mistakes.len(), 2);
    }
}
