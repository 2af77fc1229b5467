//! The table of token sources: from what was written to checked sources in order of dependency.

use std::collections::{BTreeSet, HashMap};

use sha2::{Digest, Sha256};
use url::Url;

use super::lower::Lowering;
use super::raw::{RawRefresh, RawSource, Setting, Table, nearest};
use super::template::Part;
use super::{Method, RefreshPolicy, Rotation, Template, TokenSource};
use crate::token::{SourceIdentity, SourceName};

/// Checks every source and puts them in an order in which each comes after those it depends on.
/// `None` if a mistake leaves no such order.
pub(super) fn lower_sources(
    raw: Table<RawSource>,
    defaults: &RefreshPolicy,
    lowering: &mut Lowering<'_>,
) -> Option<Vec<TokenSource>> {
    if raw.0.is_empty() {
        lowering.mistake("token_sources", "is empty; configure at least one token source");
        return None;
    }
    let names: BTreeSet<String> = raw.0.iter().map(|(name, _)| name.clone()).collect();
    let mut seen = BTreeSet::new();
    let mut drafts = Vec::new();
    for (name, source) in raw.0 {
        let path = format!("token_sources.{name}");
        if !seen.insert(name.clone()) {
            lowering.mistake(path, "is there twice; remove one or rename it");
            continue;
        }
        match SourceName::parse(&name) {
            Err(message) => lowering.mistake(path, message),
            Ok(name) => drafts.push(lower_source(name, &path, source, defaults, lowering)),
        }
    }
    for draft in &drafts {
        check_references(draft, &names, lowering);
    }
    in_order(drafts, lowering)
}

fn lower_source(
    name: SourceName,
    path: &str,
    raw: RawSource,
    defaults: &RefreshPolicy,
    lowering: &mut Lowering<'_>,
) -> TokenSource {
    let at = |setting: &str| format!("{path}.{setting}");
    let url = lower_url(&at("url"), raw.url, lowering);
    let method = match lowering.text(&at("method"), raw.method) {
        None => Method::Get,
        Some(text) if text.eq_ignore_ascii_case("get") => Method::Get,
        Some(text) if text.eq_ignore_ascii_case("post") => Method::Post,
        Some(text) => {
            lowering.mistake(at("method"), format!("{text:?} is no method; write GET or POST"));
            Method::Get
        }
    };
    let args = lower_args(&at("args"), raw.args, lowering);
    let mut dependencies: Vec<SourceName> = Vec::new();
    for dependency in args.iter().flat_map(|(_, template)| template.dependencies()) {
        if !dependencies.contains(dependency) {
            dependencies.push(dependency.clone());
        }
    }
    let value_fields = match lowering.text(&at("value_field"), raw.value_field) {
        Some(field) if field.split('.').all(|name| !name.is_empty()) => vec![field],
        Some(_) => {
            lowering.mistake(
                at("value_field"),
                "is no field; write a name such as ticket or data.ticket",
            );
            Vec::new()
        }
        None => ["access_token", "ticket", name.as_str()].map(str::to_owned).to_vec(),
    };
    let refresh = RawRefresh {
        renew_before: raw.renew_before,
        overlap: raw.overlap,
        cooldown: raw.cooldown,
        timeout: raw.timeout,
    };
    let mut policy = lowering.refresh(path, refresh, defaults);
    policy.lifetime = raw.lifetime.map(|lifetime| {
        lowering.positive_duration(
            &at("lifetime"),
            Some(lifetime),
            std::time::Duration::from_secs(7_200),
        )
    });
    // A wrong address must not hide what else is wrong with the source.
    let url =
        url.unwrap_or_else(|| Url::parse("http://unknown.invalid").expect("it is an address"));
    if url.path().replace("//", "/").ends_with("/cgi-bin/token") {
        // WeChat's (and QQ's) token endpoint: upstream.md, sections 1 and 7.
        policy.rotation = Rotation::Rotating;
    }
    let identity = SourceIdentity([0; 32]); // `in_order` sets it: it needs the dependencies'
    let account = String::new();
    TokenSource { name, method, url, args, dependencies, value_fields, account, policy, identity }
}

/// The address. It is not repeated in messages: a secret may stand in its query.
fn lower_url(path: &str, setting: Option<Setting>, lowering: &mut Lowering<'_>) -> Option<Url> {
    if setting.is_none() {
        lowering.mistake(path, "is missing; write the address that the token is fetched from");
    }
    let text = lowering.text(path, setting)?;
    let problem = match Url::parse(&text) {
        Err(error) => format!("is no address ({error}); write https://host/path"),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            "is no address of the web; write https://host/path".into()
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            "holds a user name or password; put credentials into args".into()
        }
        Ok(url) if url.fragment().is_some() => "holds a `#`, which is never sent; remove it".into(),
        Ok(url) => return Some(url),
    };
    lowering.mistake(path, problem);
    None
}

fn lower_args(
    path: &str,
    raw: Table<Setting>,
    lowering: &mut Lowering<'_>,
) -> Vec<(String, Template)> {
    let mut args: Vec<(String, Template)> = Vec::new();
    for (name, setting) in raw.0 {
        let path = format!("{path}.{name}");
        if args.iter().any(|(known, _)| *known == name) {
            lowering.mistake(path, "is there twice; remove one");
            continue;
        }
        let text = match setting {
            // Typed arguments look the same in a query string.
            Setting::Number(number) => Some(number.to_string()),
            Setting::Bool(value) => Some(value.to_string()),
            other => lowering.written(&path, Some(other)),
        };
        let Some(text) = text else { continue };
        match Template::parse(&text, |text| lowering.expanded(&path, text)) {
            Ok(template) => args.push((name, template)),
            Err(message) => lowering.mistake(path, message),
        }
    }
    args
}

fn check_references(source: &TokenSource, names: &BTreeSet<String>, lowering: &mut Lowering<'_>) {
    for (arg, template) in &source.args {
        for dependency in template.dependencies().map(SourceName::as_str) {
            if names.contains(dependency) {
                continue;
            }
            let what_to_do = match nearest(dependency, names.iter().map(String::as_str)) {
                Some(meant) => format!("did you mean {{{{{meant}}}}}?"),
                None => {
                    format!("there are {}", names.iter().cloned().collect::<Vec<_>>().join(", "))
                }
            };
            lowering.mistake(
                format!("token_sources.{}.args.{arg}", source.name),
                format!("no source named {dependency:?}; {what_to_do}"),
            );
        }
    }
}

/// Orders the sources by dependency (else by the config), gives each its identity, and finds cycles.
fn in_order(drafts: Vec<TokenSource>, lowering: &mut Lowering<'_>) -> Option<Vec<TokenSource>> {
    let known: HashMap<SourceName, SourceIdentity> = HashMap::new();
    let names: BTreeSet<SourceName> = drafts.iter().map(|draft| draft.name.clone()).collect();
    let (mut waiting, mut ordered, mut identities) = (drafts, Vec::new(), known);
    loop {
        let before = waiting.len();
        let mut still_waiting = Vec::new();
        for mut source in waiting {
            // An unknown dependency has been reported; it must not look like a cycle.
            let mut missing = source.dependencies.iter().filter(|name| names.contains(*name));
            if missing.any(|name| !identities.contains_key(name)) {
                still_waiting.push(source);
            } else {
                source.identity = identity(&source, &identities);
                identities.insert(source.name.clone(), source.identity);
                ordered.push(source);
            }
        }
        waiting = still_waiting;
        if waiting.is_empty() {
            return Some(ordered);
        }
        if waiting.len() == before {
            report_cycle(&waiting, lowering);
            return None;
        }
    }
}

/// Names one cycle among `stuck`, each of which waits for another of them.
fn report_cycle(stuck: &[TokenSource], lowering: &mut Lowering<'_>) {
    let next =
        |source: &TokenSource| stuck.iter().find(|other| source.dependencies.contains(&other.name));
    let mut chain: Vec<&TokenSource> = Vec::new();
    let mut at = stuck.first();
    while let Some(source) = at {
        if let Some(start) = chain.iter().position(|seen| seen.name == source.name) {
            let mut names: Vec<&str> =
                chain[start..].iter().map(|source| source.name.as_str()).collect();
            names.push(source.name.as_str());
            lowering.mistake(
                format!("token_sources.{}", source.name),
                format!("depends on itself: {}; break the circle", names.join(" -> ")),
            );
            return;
        }
        chain.push(source);
        at = next(source);
    }
}

/// The digest of what fetches a source's tokens: path and arguments, its own and its dependencies'.
/// The host is not part of it, nor are timeouts and schedule: they may change and the tokens stay.
fn identity(source: &TokenSource, known: &HashMap<SourceName, SourceIdentity>) -> SourceIdentity {
    let mut digest = Sha256::new();
    let mut feed = |bytes: &[u8]| {
        // The length first, so that no two different sources feed the same bytes.
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    feed(source.url.path().as_bytes());
    feed(source.url.query().unwrap_or_default().as_bytes());
    let mut args: Vec<&(String, Template)> = source.args.iter().collect();
    args.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, template) in args {
        feed(name.as_bytes());
        for part in template.parts() {
            match part {
                Part::Text(text) => feed(&text.sha256()),
                Part::Token(name) => {
                    feed(b"token");
                    feed(known.get(name).map_or(&[][..], |identity| &identity.0));
                }
            }
        }
        feed(b"end");
    }
    SourceIdentity(digest.finalize().into())
}
