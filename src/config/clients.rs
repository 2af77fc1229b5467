//! The table of clients: who may connect, with which keys, and what each may see.

use std::collections::BTreeSet;

use super::ClientConfig;
use super::lower::Lowering;
use super::raw::{RawClient, nearest};
use super::setting::Table;
use crate::token::{Secret, SourceName};

/// Whom `AUTH password` and the request secret mean; no client can have this name.
const RESERVED: &str = "default";

/// The longest name of a client, in bytes: it stands in each of its log lines.
const MAX_NAME_BYTES: usize = 64;

/// Checks every client; `sources` are the names of all sources.
///
/// `taken` are the keys that stand elsewhere, by the path of their setting: with a key of two, nobody
/// could say who somebody is.
pub(super) fn lower_clients(
    raw: Table<RawClient>,
    sources: &BTreeSet<String>,
    taken: &[(&str, Option<&Secret>)],
    lowering: &mut Lowering<'_>,
) -> Vec<ClientConfig> {
    let mut seen = BTreeSet::new();
    let elsewhere = taken.iter();
    let mut taken: Vec<(Secret, String)> =
        elsewhere.filter_map(|(path, key)| Some(((*key)?.clone(), (*path).to_owned()))).collect();
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
        let before = lowering.mistakes_so_far();
        let keys = lowering
            .list(&format!("{path}.keys"), client.keys, "a list such as [\"${env:SHOP_KEY}\"]")
            .map_or_else(Vec::new, |items| {
                let mut keys = Vec::new();
                for (at, item) in items {
                    let Some(key) = lowering.key(&at, Some(item)) else { continue };
                    match taken.iter().find(|(other, _)| *other == key) {
                        Some((_, place)) => {
                            lowering.mistake(
                                &at,
                                format!("is the same key as {place}; each needs one of its own"),
                            );
                        }
                        None => {
                            taken.push((key.clone(), at));
                            keys.push(key);
                        }
                    }
                }
                keys
            });
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
        if wanted.as_ref().is_some_and(Vec::is_empty) {
            let what = "is empty, so the client could see nothing; leave it out for all sources";
            lowering.mistake(format!("{path}.sources"), what);
        }
        let sources = wanted.map(|items| {
            let items = items.into_iter();
            items
                .filter_map(|(at, item)| {
                    let name = lowering.text(&at, Some(item))?;
                    known(&at, &name, sources, lowering)
                })
                .collect()
        });
        let addresses_at = format!("{path}.addresses");
        let before = lowering.mistakes_so_far();
        let addresses = lowering.networks(&addresses_at, client.addresses);
        if addresses.as_ref().is_some_and(Vec::is_empty) && lowering.mistakes_so_far() == before {
            let what = "is empty, so the client could come from nowhere; leave it out for anywhere";
            lowering.mistake(addresses_at, what);
        }
        clients.push(ClientConfig { name, keys, sources, addresses });
    }
    clients
}

fn problem_of(name: &str) -> Option<&'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name == RESERVED {
        Some("is whom request_secret and resp.password stand for; choose another name")
    } else if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(is_plain) {
        Some("is no name of a client; use 1 to 64 letters, digits, `_`, `-` and `.`")
    } else {
        None
    }
}

/// The source of this name, which must be one.
pub(super) fn known(
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{self, Environment, Writes};

    const SOURCES: &str = r#"token_sources: {"access_token": (url: "https://h/cgi-bin/token"), "ticket": (url: "https://h/cgi-bin/ticket/getticket")}"#;

    fn parse(groups: &str) -> Result<config::Config, String> {
        let text = format!("({groups} {SOURCES})");
        let environment = Environment::default();
        config::parse(&text, Path::new("c.ron"), &environment).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn a_client_has_keys_and_sources() {
        let config = parse(
            r#"clients: {"shop": (keys: ["a", "b"], sources: ["ticket"], addresses: ["10.1.2.3/8", "::1"]),
                 "all": (keys: ["c"])},
               resp: (bind: "0.0.0.0:6379", writes: Report, notify: false),"#,
        );
        let config = config.unwrap();
        let [shop, all] = &config.clients[..] else { panic!("{:?}", config.clients) };
        assert_eq!((shop.name.as_str(), shop.keys.len()), ("shop", 2));
        let names: Vec<&str> = shop.sources.iter().flatten().map(|name| name.as_str()).collect();
        assert_eq!(names, ["ticket"]);
        let networks: Vec<String> =
            shop.addresses.iter().flatten().map(ToString::to_string).collect();
        assert_eq!(networks, ["10.0.0.0/8", "::1/128"]);
        assert_eq!((all.keys.len(), &all.sources, &all.addresses), (1, &None, &None));
        let resp = config.resp.unwrap();
        assert_eq!((resp.writes, resp.notify), (Writes::Report, false));
    }

    #[test]
    fn every_mistake_is_named_with_its_path() {
        let wrong = parse(
            r#"clients: {
                "default": (keys: ["k"]),
                "a b": (keys: ["k4"]),
                "none": (),
                "empty": (keys: ["", 5]),
                "text": (keys: "k"),
                "shop": (keys: ["k2"], sources: ["tickt", "nope"], source: []),
                "shop": (keys: ["k"]),
                "same": (keys: ["k", "pw", "new", "new"]),
                "blind": (keys: ["k3"], sources: []),
                "nowhere": (keys: ["k6"], addresses: []),
                "astray": (keys: ["rs"], addresses: ["10.0.0.0/33", "here", 5]),
            }, request_secret: "rs", http: (trusted_proxies: ["::1", "x"]), resp: (password: "pw", writes: Reprot, notify: "yes"),"#,
        )
        .unwrap_err();
        for expected in [
            "clients.default: is whom request_secret and resp.password stand for",
            "clients.a b: is no name of a client",
            "clients.none.keys: has no key",
            "clients.empty.keys.0: is empty",
            "clients.empty.keys.1: is a number",
            "clients.text.keys: is a text, but a list",
            "clients.shop.sources.0: no token source is called \"tickt\"; did you mean `ticket`?",
            "clients.shop.sources.1: no token source is called \"nope\"; there are access_token, ticket",
            "clients.shop.source: unknown setting; did you mean `sources`?",
            "clients.shop: is there twice",
            "clients.same.keys.0: is the same key as clients.default.keys.0",
            "clients.same.keys.1: is the same key as resp.password",
            "clients.same.keys.3: is the same key as clients.same.keys.2",
            "clients.blind.sources: is empty",
            "clients.nowhere.addresses: is empty",
            "clients.astray.keys.0: is the same key as request_secret",
            "clients.astray.addresses.0: \"10.0.0.0/33\" is no network",
            "clients.astray.addresses.1: \"here\" is no network",
            "clients.astray.addresses.2: is a number",
            "http.trusted_proxies.1: \"x\" is no network",
            "resp.writes: there is no Reprot; did you mean Report?",
            "resp.notify: is a text, but true or false is needed",
        ] {
            assert!(wrong.contains(expected), "{expected}\n\n{wrong}");
        }
        assert!(!wrong.contains("clients.empty.keys: has no key"), "said once: {wrong}");
    }
}
