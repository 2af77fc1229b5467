//! The table of token sources: from what was written to checked sources in order of dependency.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::answer::{AnswerRules, FieldPath, RawAnswer, lower_answer};
use super::identity::identity;
use super::lower::Lowering;
use super::raw::{RawRefresh, RawSource, STICKY_NAMES, nearest, unknown_among};
use super::request::{
    Body, RawRequest, RequestTemplate, lower_address, lower_hosts, lower_request,
};
use super::setting::{Choice, Table};
use super::template::{CAPTURED, Template};
use super::vendors::{Vendor, preset};
use super::{RefreshPolicy, Rotation, TokenSource};
use crate::account::Account;
use crate::token::{Secret, SourceIdentity, SourceName};

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
    let mut drafts = Vec::with_capacity(raw.0.len());
    let mut common = Common::default();
    for (name, source) in raw.0 {
        let path = format!("token_sources.{name}");
        if !seen.insert(name.clone()) {
            lowering.mistake(path, "is there twice; remove one or rename it");
            continue;
        }
        match SourceName::parse(&name) {
            Err(message) => {
                lowering.mistake(path.as_str(), message);
                // A wrong name must not hide what else is wrong with the source.
                let name = SourceName::parse("unnamed").expect("it is a name");
                let source = lower_source(name, &path, source, defaults, lowering);
                check_references(&path, &source, &names, lowering);
            }
            Ok(name) => {
                let mut draft = lower_source(name, &path, source, defaults, lowering);
                common.share(&mut draft);
                drafts.push(draft);
            }
        }
    }
    for draft in &drafts {
        check_references(&format!("token_sources.{}", draft.name), draft, &names, lowering);
    }
    in_order(drafts, lowering)
}

/// What sources have said so far that others may say too. Thousands of accounts of one endpoint differ in
/// little, and are kept for as long as the server runs: what is equal is kept once.
#[derive(Default)]
struct Common {
    /// Each with an address as it was written, whose query and placeholders may differ.
    urls: HashMap<Arc<Url>, Arc<Template>>,
    answers: HashSet<Arc<AnswerRules>>,
    policies: HashSet<Arc<RefreshPolicy>>,
    texts: HashSet<Arc<str>>,
}

impl Common {
    fn share(&mut self, source: &mut TokenSource) {
        let address = &mut source.request.address;
        match self.urls.get_key_value(&source.url) {
            Some((url, equal)) => {
                source.url = Arc::clone(url);
                if equal == address {
                    *address = Arc::clone(equal);
                }
            }
            None => drop(self.urls.insert(Arc::clone(&source.url), Arc::clone(address))),
        }
        one_of(&mut self.answers, &mut source.answer);
        one_of(&mut self.policies, &mut source.policy);
        one_of(&mut self.texts, &mut source.account.endpoint);
        let form = match &mut source.request.body {
            Body::Form(pairs) => pairs.as_mut_slice(),
            Body::Empty | Body::Json(_) => &mut [],
        };
        for (name, _) in source.request.args.iter_mut().chain(form) {
            one_of(&mut self.texts, name);
        }
    }
}

/// Puts the known one in the place of its equal.
fn one_of<T: Eq + Hash + ?Sized>(known: &mut HashSet<Arc<T>>, one: &mut Arc<T>) {
    match known.get(one) {
        Some(equal) => *one = Arc::clone(equal),
        None => drop(known.insert(Arc::clone(one))),
    }
}

fn lower_source(
    name: SourceName,
    path: &str,
    raw: RawSource,
    defaults: &RefreshPolicy,
    lowering: &mut Lowering<'_>,
) -> TokenSource {
    let at = |setting: &str| format!("{path}.{setting}");
    if name.as_str() == CAPTURED {
        lowering.mistake(path, "is what {{captured}} stands for; give the source another name");
    }
    // A wrong address must not hide what else is wrong with the source.
    let (address, url) = lower_address(&at("url"), raw.url, lowering).unwrap_or_else(|| {
        let nowhere = "http://unknown.invalid";
        (Template::text(nowhere.into()), Url::parse(nowhere).expect("it is an address"))
    });
    let preset = preset(&url);
    let hosts = lower_hosts(&at("hosts"), raw.hosts, lowering);
    let request = RawRequest {
        method: raw.method,
        args: raw.args,
        json: raw.json,
        form: raw.form,
        headers: raw.headers,
        basic: raw.basic,
        force: raw.force,
    };
    let request = lower_request(path, address, request, preset, lowering);
    let dependencies = request.dependencies();
    // A server of ours names the value by its type.
    let own = match preset.vendor {
        Vendor::Hub => request.argument(&["type"]).map(|kind| FieldPath::named(&kind)),
        _ => None,
    };
    let answer = RawAnswer {
        value_field: raw.value_field,
        expires_field: raw.expires_field,
        expires_unit: raw.expires_unit,
        expires_is: raw.expires_is,
        success: raw.success,
        error_field: raw.error_field,
        message_field: raw.message_field,
        capture: raw.capture,
    };
    let own = own.unwrap_or_else(|| FieldPath::named(name.as_str()));
    let (value, answer) = lower_answer(path, answer, preset, own, lowering);
    let captured =
        lowering.secret(&at("captured"), raw.captured).map(|text| Secret::new(text.as_str()));
    check_captured(path, &request, &answer, captured.as_ref(), lowering);
    let follow = lowering.flag(&at("follow"), raw.follow, preset.follow);
    if follow && dependencies.is_empty() {
        lowering.mistake(at("follow"), "follows nothing; the request has no {{other_source}}");
    }
    let account = lowering.text(&at("account"), raw.account).or_else(|| {
        let basic = request.basic.as_ref().and_then(|basic| basic.user.literal());
        request.argument(ACCOUNT_NAMES).or(basic)
    });

    let refresh = RawRefresh {
        renew_before: raw.renew_before,
        must_renew_before: raw.must_renew_before,
        overlap: raw.overlap,
        cooldown: raw.cooldown,
        timeout: raw.timeout,
    };
    let defaults =
        RefreshPolicy { overlap: preset.overlap.unwrap_or(defaults.overlap), ..defaults.clone() };
    let mut policy = lowering.refresh(path, refresh, &defaults);
    policy.lifetime = raw.lifetime.map(|lifetime| {
        lowering.positive_duration(&at("lifetime"), Some(lifetime), Duration::from_secs(7_200))
    });
    policy.rotation = match raw.rotation {
        None => preset.rotation,
        Some(choice) => {
            lower_rotation(&at("rotation"), choice, lowering).unwrap_or(preset.rotation)
        }
    };
    // 0 says that there is no limit.
    policy.daily_limit = match raw.daily_limit {
        None => preset.daily_limit,
        Some(limit) => Some(lowering.daily_limit(&at("daily_limit"), limit)).filter(|n| *n > 0),
    };
    let account = account.as_ref().map_or("", |account| account.as_str());
    let account = Account { name: account.into(), endpoint: url.path().into() };
    TokenSource {
        name,
        vendor: preset.vendor,
        url: Arc::new(url),
        hosts: hosts.into(),
        request,
        dependencies: dependencies.into(),
        value,
        answer: Arc::new(answer),
        captured,
        follow,
        account,
        policy: Arc::new(policy),
        identity: SourceIdentity([0; 32]), // `in_order` sets it: it needs the dependencies'
    }
}

/// Under which names vendors take what a quota belongs to, the more telling first.
const ACCOUNT_NAMES: &[&str] = &[
    "appid",
    "corpid",
    "client_id",
    "client_key",
    "app_id",
    "appkey",
    "appKey",
    "appId",
    "component_appid",
    "suite_id",
];

/// The longest window of a sticky source: a day is longer than any token's of its kind.
const LONGEST_WINDOW: Duration = Duration::from_secs(86_400);

fn lower_rotation(path: &str, choice: Choice, lowering: &mut Lowering<'_>) -> Option<Rotation> {
    // The window stands in for the one that is read below.
    const WORDS: &[(&str, Rotation)] = &[
        ("Rotating", Rotation::Rotating),
        ("Sticky", Rotation::Sticky { window: Duration::ZERO }),
        ("Nominal", Rotation::Nominal),
        ("Sliding", Rotation::Sliding),
        ("Independent", Rotation::Independent),
    ];
    let rotation = lowering.choice(path, &choice, WORDS)?;
    if !matches!(rotation, Rotation::Sticky { .. }) {
        return Some(rotation);
    }
    let mut window = None;
    for (name, setting) in choice.settings.0 {
        match name.as_str() {
            "window" => window = Some(setting),
            _ => lowering.push(unknown_among(&format!("{path}.{name}"), &name, STICKY_NAMES)),
        }
    }
    let path = format!("{path}.window");
    if window.is_none() {
        lowering.mistake(path, "is missing; write Sticky(window: \"5m\")");
        return None;
    }
    let window = lowering.positive_duration(&path, window, Duration::from_secs(300));
    if window > LONGEST_WINDOW {
        lowering.mistake(path, "is longer than 24h");
        return None;
    }
    Some(Rotation::Sticky { window })
}

/// What the last answer gave is of use only if all three are there: where it stands in the answer,
/// where it goes in the request, and what goes there the first time.
fn check_captured(
    path: &str,
    request: &RequestTemplate,
    answer: &AnswerRules,
    captured: Option<&Secret>,
    lowering: &mut Lowering<'_>,
) {
    let (used, capture) = (request.uses_captured(), answer.capture.is_some());
    let problem = match (used, capture, captured.is_some()) {
        (true, true, true) | (false, false, false) => return,
        (true, false, _) => (
            "capture",
            "is missing: {{captured}} stands for the field of the last answer that it names",
        ),
        (true, true, false) => {
            ("captured", "is missing: it is what {{captured}} stands for before the first answer")
        }
        (false, true, _) => ("capture", "is never sent; put {{captured}} where it belongs"),
        (false, false, true) => ("captured", "is never sent; put {{captured}} where it belongs"),
    };
    lowering.mistake(format!("{path}.{}", problem.0), problem.1);
}

fn check_references(
    path: &str,
    source: &TokenSource,
    names: &BTreeSet<String>,
    lowering: &mut Lowering<'_>,
) {
    for (setting, template) in source.request.templates() {
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
                format!("{path}.{setting}"),
                format!("no source named {dependency:?}; {what_to_do}"),
            );
        }
    }
}

/// Orders the sources by dependency (else by the config), gives each its identity and, where it has
/// none of its own, its first dependency's account; finds cycles.
fn in_order(drafts: Vec<TokenSource>, lowering: &mut Lowering<'_>) -> Option<Vec<TokenSource>> {
    let names: BTreeSet<SourceName> = drafts.iter().map(|draft| draft.name.clone()).collect();
    let mut ordered = Vec::with_capacity(drafts.len());
    let mut waiting = drafts;
    let mut identities: HashMap<SourceName, SourceIdentity> = HashMap::new();
    let mut accounts: HashMap<SourceName, Arc<str>> = HashMap::new();
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
                if source.account.name.is_empty()
                    && let Some(account) = source.dependencies.first().and_then(|d| accounts.get(d))
                {
                    source.account.name = Arc::clone(account);
                }
                accounts.insert(source.name.clone(), Arc::clone(&source.account.name));
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Environment, parse};
    use super::*;

    #[test]
    fn what_sources_say_alike_is_kept_once() {
        let text = r#"(token_sources: {
            "a": (url: "https://h/t", args: {"appid": "wx0"}),
            "b": (url: "https://h/t", args: {"appid": "wx1"}),
            "c": (url: "https://h/t?key=k", args: {"appid": "wx1"}),
        })"#;
        let config = parse(text, Path::new("c.ron"), &Environment::default()).unwrap();
        let [a, b, c] = &config.sources[..] else { panic!("{:?}", config.sources) };
        assert!(Arc::ptr_eq(&a.url, &b.url) && Arc::ptr_eq(&a.policy, &b.policy));
        assert!(Arc::ptr_eq(&a.request.address, &b.request.address));
        assert!(Arc::ptr_eq(&a.request.args[0].0, &b.request.args[0].0));
        assert!(Arc::ptr_eq(&a.url, &c.url), "it is without the query");
        assert_eq!(c.request.address.literal().unwrap().as_str(), "https://h/t?key=k");
    }
}
