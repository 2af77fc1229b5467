//! The table of clients: who may connect, with which keys, and what each may see.

use std::collections::BTreeSet;

use super::ClientConfig;
use super::lower::Lowering;
use super::raw::{RawClient, nearest};
use super::setting::Table;
use crate::token::SourceName;

/// Whom `AUTH password` means; no client can have this name.
const RESERVED: &str = "default";

/// The longest name of a client, in bytes: it stands in each of its log lines.
const MAX_NAME_BYTES: usize = 64;

/// Checks every client; `sources` are the names of all sources.
pub(super) fn lower_clients(
    raw: Table<RawClient>,
    sources: &BTreeSet<String>,
    lowering: &mut Lowering<'_>,
) -> Vec<ClientConfig> {
    let mut seen = BTreeSet::new();
    let mut clients = Vec::new();
    for (name, client) in raw.0 {
        let path = format!("clients.{name}");
        if !seen.insert(name.clone()) {
            lowering.mistake(path, "is there twice; remove one or rename it");
            continue;
        }
        if let Some(problem) = problem_of(&name) {
            lowering.mistake(&path, problem);
        }
        let keys = lowering
            .list(&format!("{path}.keys"), client.keys, "a list such as [\"${env:SHOP_KEY}\"]")
            .map_or_else(Vec::new, |items| {
                let keys = items.into_iter().filter_map(|(at, key)| lowering.key(&at, Some(key)));
                keys.collect()
            });
        let before = lowering.mistakes_so_far();
        if keys.is_empty() && lowering.mistakes_so_far() == before {
            lowering.mistake(
                format!("{path}.keys"),
                "has no key; without one nobody can be this client",
            );
        }
        let wanted = lowering.list(
            &format!("{path}.sources"),
            client.sources,
            "a list such as [\"access_token\"]",
        );
        let sources = wanted.map(|items| {
            let items = items.into_iter();
            items
                .filter_map(|(at, item)| {
                    let name = lowering.text(&at, Some(item))?;
                    known(&at, &name, sources, lowering)
                })
                .collect()
        });
        clients.push(ClientConfig { name, keys, sources });
    }
    clients
}

fn problem_of(name: &str) -> Option<&'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name == RESERVED {
        Some("is whom resp.password stands for; choose another name")
    } else if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(is_plain) {
        Some("is no name of a client; use 1 to 64 letters, digits, `_`, `-` and `.`")
    } else {
        None
    }
}

/// The source of this name, which must be one.
fn known(
    path: &str,
    name: &str,
    sources: &BTreeSet<String>,
    lowering: &mut Lowering<'_>,
) -> Option<SourceName> {
    if sources.contains(name) {
        // A name that is none is a mistake where the source is.
        return SourceName::parse(name).ok();
    }
    let what_to_do = match nearest(name, sources.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => {
            let all: Vec<&str> = sources.iter().map(String::as_str).collect();
            format!("there are {}", all.join(", "))
        }
    };
    lowering.mistake(path, format!("no token source is called {name:?}; {what_to_do}"));
    None
}
