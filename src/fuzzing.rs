//! What must hold for any input whatever: one function for each fuzz target of `fuzz/`. It panics where it
//! does not hold. The same functions run over the corpus in `cargo test`.
//!
//! The properties stand in the rooms they are about, in a `fuzzing.rs` each, as tests do: so nothing has to
//! be opened up for them. Compiled for tests, and with the feature `fuzzing`, which is no part of the program.

use std::path::Path;

use crate::check::Plan;
use crate::config::{self, Environment};

/// A property: returns where it holds for these bytes.
pub type Property = fn(&[u8]);

/// Every target by its name, in the order of `fuzz/Cargo.toml`.
pub const TARGETS: &[(&str, Property)] = &[
    ("resp_request", resp_request),
    ("resp_session", resp_session),
    ("http_query", http_query),
    ("http_request", http_request),
    ("config", config),
    ("template", template),
    ("upstream_reply", upstream_reply),
    ("stored_record", stored_record),
];

/// The RESP parser: the same bytes give the same requests and the same error, however they arrive.
pub fn resp_request(input: &[u8]) {
    crate::resp::fuzzing::request(input);
}

/// Whole RESP sessions: replies are well-formed and as many as requests, wherever the bytes are cut, and
/// depend on nothing that the user may not see.
pub fn resp_session(input: &[u8]) {
    crate::resp::fuzzing::session(input);
}

/// Query strings and form bodies: read as the `form_urlencoded` crate reads them.
pub fn http_query(input: &[u8]) {
    crate::http::fuzzing::query(input);
}

/// The bytes of an HTTP connection: no token without the secret, and every answer is one of ours.
pub fn http_request(input: &[u8]) {
    crate::http::fuzzing::request(input);
}

/// The text of a config file: a config that can be shown and compared, or mistakes with words.
pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // What a config may name is the operator's business, and here it could be a device without an end.
    if text.contains("file:") {
        return;
    }
    let environment = Environment::of([("APPSECRET", "s3cr3t"), ("EMPTY", "")]);
    let parse = || config::parse(text, Path::new("/nowhere/config.ron"), &environment);
    match (parse(), parse()) {
        (Ok(config), Ok(again)) => {
            let shown = format!("{config:?}\n{}", Plan(&config));
            assert_eq!(shown, format!("{again:?}\n{}", Plan(&again)), "read differently");
            let written = text.contains("s3cr3t");
            assert!(written || !shown.contains("s3cr3t"), "a secret is shown:\n{shown}");
        }
        (Err(errors), Err(again)) => {
            assert_eq!(errors, again, "read differently");
            assert!(!errors.mistakes().is_empty(), "refused without a mistake");
            for mistake in errors.mistakes() {
                assert!(!mistake.message.trim().is_empty(), "no words for {:?}", mistake.path);
            }
            let shown = errors.to_string();
            let written = text.contains("s3cr3t");
            assert!(written || !shown.contains("s3cr3t"), "a secret is shown:\n{shown}");
        }
        (one, other) => panic!("read differently: {one:?}, {other:?}"),
    }
}

/// A text with placeholders and variables: written out, it reads as the same; only what fills a place is
/// escaped.
pub fn template(input: &[u8]) {
    crate::config::fuzzing::template(input);
}

/// An upstream's answer, read by the sources of every vendor: a whole token with a life, or an error that
/// says nothing of what was sent.
pub fn upstream_reply(input: &[u8]) {
    crate::source::fuzzing::reply(input);
}

/// The bytes of the store: what can be read is written again as the same.
pub fn stored_record(input: &[u8]) {
    crate::store::fuzzing::record(input);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::PathBuf;
    use std::sync::LazyLock;

    /// The folder of the targets; `None` in the published package, which comes without it.
    fn fuzz() -> Option<PathBuf> {
        Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")).filter(|folder| folder.exists())
    }

    #[test]
    fn every_property_holds_for_its_corpus() {
        let Some(fuzz) = fuzz() else { return };
        for (name, property) in TARGETS {
            let mut count = 0;
            for entry in fs::read_dir(fuzz.join("corpus").join(name)).unwrap() {
                let path = entry.unwrap().path();
                // Shown where the property fails.
                println!("{}", path.display());
                property(&fs::read(path).unwrap());
                count += 1;
            }
            assert!(count >= 10, "{name} has a corpus of {count}");
        }
    }

    /// Every target's property and corpus.
    static CORPORA: LazyLock<Vec<(Property, Vec<Vec<u8>>)>> = LazyLock::new(|| {
        let corpus = |(name, property): &(&str, Property)| {
            let files = fs::read_dir(fuzz()?.join("corpus").join(name)).unwrap();
            let mut paths: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
            // A case that fails is found again by its seed.
            paths.sort();
            Some((*property, paths.iter().map(|path| fs::read(path).unwrap()).collect()))
        };
        TARGETS.iter().filter_map(corpus).collect()
    });

    proptest! {
        /// The beginning of one input and the end of another, with a few bytes between them: a little of
        /// what fuzzing does, wherever there is cargo.
        #[test]
        fn every_property_holds_near_its_corpus(
            which: Index,
            inputs: [Index; 2],
            cuts: [Index; 2],
            between in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            if CORPORA.is_empty() {
                return Ok(());
            }
            let (property, corpus) = which.get(&CORPORA);
            let [one, other] = inputs.map(|input| input.get(corpus));
            let begin = &one[..cuts[0].index(one.len() + 1)];
            let end = &other[cuts[1].index(other.len() + 1)..];
            property(&[begin, &between, end].concat());
        }
    }

    #[test]
    fn every_target_runs_the_property_of_its_name() {
        let Some(fuzz) = fuzz() else { return };
        let names: BTreeSet<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        let bins = manifest.split("[[bin]]\nname = \"").skip(1);
        let bins: BTreeSet<&str> = bins.map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!(bins, names);
        for name in names {
            let target = fs::read_to_string(fuzz.join("fuzz_targets").join(format!("{name}.rs")));
            let call = format!("fuzz_target!(|input: &[u8]| fuzzing::{name}(input));");
            assert!(target.unwrap().contains(&call), "{name} runs something else");
        }
    }
}
