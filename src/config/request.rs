//! What a source's request is made of: the address, the arguments, the body, all with their
//! placeholders. From what was written to checked templates; `source::request` fills them.

use std::fmt;
use std::sync::Arc;

use url::{Position, Url};
use zeroize::Zeroizing;

use super::Method;
use super::exposure::is_secret_name;
use super::host::Host;
use super::lower::Lowering;
use super::raw::RawBasic;
use super::setting::{Setting, Table};
use super::template::{Placeholder, Template, wipe};
use super::vendors::Preset;
use crate::token::{Secret, SourceName};

/// What a source's request is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestTemplate {
    /// The method.
    pub method: Method,
    /// The whole address without the arguments below; placeholders may stand in its path and query.
    pub address: Arc<Template>,
    /// Arguments of the query string, in the order of the config.
    pub args: Box<[(Arc<str>, Template)]>,
    /// Header fields; the names are sound and none that the client sets itself.
    pub headers: Box<[(Arc<str>, Template)]>,
    /// HTTP Basic authentication.
    pub basic: Option<Box<Basic>>,
    /// The body.
    pub body: Body,
    /// What is added to the body (or put in the place of what is there) to ask for a new value
    /// although the old one is good.
    pub force: Box<[(String, JsonTemplate)]>,
}

/// HTTP Basic authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basic {
    /// The user's name.
    pub user: Template,
    /// The password.
    pub password: Template,
}

/// The body of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// None.
    Empty,
    /// A JSON object.
    Json(Vec<(String, JsonTemplate)>),
    /// Pairs as a web form sends them.
    Form(Vec<(Arc<str>, Template)>),
}

/// A JSON value with placeholders in its texts. A number may be a secret as well as a text may.
#[derive(Clone, PartialEq)]
pub enum JsonTemplate {
    /// A text.
    Text(Template),
    /// A whole number.
    Number(i64),
    /// A number with a fraction; finite.
    Fraction(f64),
    /// true or false
    Bool(bool),
    /// An array.
    List(Vec<JsonTemplate>),
    /// An object.
    Table(Vec<(String, JsonTemplate)>),
}

impl fmt::Debug for JsonTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonTemplate::Text(template) => template.fmt(f),
            JsonTemplate::Number(_) | JsonTemplate::Fraction(_) => f.write_str("Number(..)"),
            JsonTemplate::Bool(value) => value.fmt(f),
            JsonTemplate::List(items) => items.fmt(f),
            JsonTemplate::Table(rows) => rows.fmt(f),
        }
    }
}

/// An account of WeChat's, as a request names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Which account.
    pub appid: Secret,
    /// Its secret.
    pub secret: Secret,
}

impl RequestTemplate {
    /// The arguments `appid` and `secret`, where both stand there as they are.
    pub(super) fn credentials(&self) -> Option<Credentials> {
        let argument = |wanted: &str| {
            let in_query = self.args.iter().find(|(name, _)| &**name == wanted);
            let template = match (in_query, &self.body) {
                (Some((_, template)), _) => template,
                (None, Body::Json(rows)) => match rows.iter().find(|(name, _)| name == wanted)? {
                    (_, JsonTemplate::Text(template)) => template,
                    _ => return None,
                },
                _ => return None,
            };
            Some(Secret::new(template.literal()?.as_str()))
        };
        Some(Credentials { appid: argument("appid")?, secret: argument("secret")? })
    }

    /// Every template in it, with the path of its setting below the source.
    pub(super) fn templates(&self) -> Vec<(String, &Template)> {
        let mut found = vec![("url".to_owned(), &*self.address)];
        for (group, pairs) in [("args", &self.args), ("headers", &self.headers)] {
            found.extend(pairs.iter().map(|(name, value)| (format!("{group}.{name}"), value)));
        }
        if let Some(basic) = &self.basic {
            found.push(("basic.user".into(), &basic.user));
            found.push(("basic.password".into(), &basic.password));
        }
        match &self.body {
            Body::Empty => {}
            Body::Form(pairs) => {
                found.extend(pairs.iter().map(|(name, value)| (format!("form.{name}"), value)));
            }
            Body::Json(rows) => json_templates("json", rows, &mut found),
        }
        json_templates("force", &self.force, &mut found);
        found
    }

    /// The sources whose tokens it needs, each once, in the order of first mention.
    pub(super) fn dependencies(&self) -> Vec<SourceName> {
        let mut found: Vec<SourceName> = Vec::new();
        for (_, template) in self.templates() {
            for name in template.dependencies() {
                if !found.contains(name) {
                    found.push(name.clone());
                }
            }
        }
        found
    }

    /// Whether it sends what the last answer gave.
    pub(super) fn uses_captured(&self) -> bool {
        let mut places = self.templates().into_iter().flat_map(|(_, t)| t.placeholders());
        places.any(|place| *place == Placeholder::Captured)
    }

    /// The value of the first of these names that its arguments, form or JSON body give as a plain
    /// text.
    pub(super) fn argument(&self, names: &[&str]) -> Option<Zeroizing<String>> {
        names.iter().find_map(|name| self.named(name).filter(|text| !text.is_empty()))
    }

    fn named(&self, name: &str) -> Option<Zeroizing<String>> {
        if let Some((_, template)) = self.args.iter().find(|(known, _)| **known == *name) {
            return template.literal();
        }
        match &self.body {
            Body::Empty => None,
            Body::Form(pairs) => pairs.iter().find(|(known, _)| **known == *name)?.1.literal(),
            Body::Json(rows) => match &rows.iter().find(|(known, _)| known == name)?.1 {
                JsonTemplate::Text(template) => template.literal(),
                JsonTemplate::Number(number) => Some(number.to_string().into()),
                _ => None,
            },
        }
    }
}

fn json_templates<'a>(
    path: &str,
    rows: &'a [(String, JsonTemplate)],
    found: &mut Vec<(String, &'a Template)>,
) {
    fn value<'a>(path: String, json: &'a JsonTemplate, found: &mut Vec<(String, &'a Template)>) {
        match json {
            JsonTemplate::Text(template) => found.push((path, template)),
            JsonTemplate::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    value(format!("{path}.{at}"), item, found);
                }
            }
            JsonTemplate::Table(rows) => json_templates(&path, rows, found),
            JsonTemplate::Number(_) | JsonTemplate::Fraction(_) | JsonTemplate::Bool(_) => {}
        }
    }
    for (name, json) in rows {
        value(format!("{path}.{name}"), json, found);
    }
}

/// What a source says about its request.
pub(super) struct RawRequest {
    pub method: Option<Setting>,
    pub args: Table<Setting>,
    pub json: Option<Table<Setting>>,
    pub form: Option<Table<Setting>>,
    pub headers: Table<Setting>,
    pub basic: Option<RawBasic>,
    pub force: Option<Table<Setting>>,
}

/// The request of the source whose settings stand under `path`.
pub(super) fn lower_request(
    path: &str,
    address: Template,
    raw: RawRequest,
    preset: &Preset,
    lowering: &mut Lowering<'_>,
) -> RequestTemplate {
    let at = |setting: &str| format!("{path}.{setting}");
    if raw.json.is_some() && raw.form.is_some() {
        lowering.mistake(at("form"), "stands beside json; a request has one body, remove one");
    }
    let body = match (raw.json, raw.form) {
        (Some(json), _) => Body::Json(lower_object(&at("json"), json, lowering)),
        (None, Some(form)) => Body::Form(lower_pairs(&at("form"), form, lowering)),
        (None, None) => Body::Empty,
    };
    let has_body = !matches!(body, Body::Empty);
    let default = if has_body { Method::Post } else { Method::Get };
    let method = match lowering.text(&at("method"), raw.method) {
        None => default,
        Some(text) if text.eq_ignore_ascii_case("get") => {
            if has_body {
                lowering.mistake(at("method"), "is GET, which sends no body; leave it out");
            }
            Method::Get
        }
        Some(text) if text.eq_ignore_ascii_case("post") => Method::Post,
        Some(text) => {
            let text = text.as_str();
            lowering.mistake(at("method"), format!("{text:?} is no method; write GET or POST"));
            default
        }
    };
    let force = match (raw.force, &body, preset.force) {
        (Some(_), Body::Empty, _) => {
            lowering.mistake(at("force"), "is added to a body; set json or form, or remove it");
            Vec::new()
        }
        (Some(force), _, _) => lower_object(&at("force"), force, lowering),
        (None, Body::Json(_), Some(name)) => vec![(name.to_owned(), JsonTemplate::Bool(true))],
        (None, _, _) => Vec::new(),
    };
    if matches!(body, Body::Form(_)) {
        for (name, value) in &force {
            if matches!(value, JsonTemplate::List(_) | JsonTemplate::Table(_)) {
                lowering
                    .mistake(format!("{path}.force.{name}"), "is no single value, as a form takes");
            }
        }
    }
    let args = lower_pairs(&at("args"), raw.args, lowering);
    let headers = lower_headers(&at("headers"), raw.headers, lowering);
    let basic = raw.basic.map(|raw| Box::new(lower_basic(&at("basic"), raw, lowering)));
    if basic.is_some() && headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"))
    {
        lowering.mistake(at("basic"), "stands beside a header Authorization; remove one");
    }
    RequestTemplate {
        method,
        address: Arc::new(address),
        args: args.into(),
        headers: headers.into(),
        basic,
        body,
        force: force.into(),
    }
}

/// The address as a template, and for naming it: with the placeholders as written and without the
/// query, in which a secret may stand. For the same reason it is not repeated in messages.
pub(super) fn lower_address(
    path: &str,
    setting: Option<Setting>,
    lowering: &mut Lowering<'_>,
) -> Option<(Template, Url)> {
    if setting.is_none() {
        lowering.mistake(path, "is missing; write the address that the token is fetched from");
    }
    let template = lower_text(path, setting?, lowering)?;
    let problem = match Url::parse(&template.as_written()) {
        Err(error) => format!("is no address ({error}); write https://host/path"),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            "is no address of the web; write https://host/path".into()
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            "holds a user name or password; put credentials into args or basic".into()
        }
        Ok(url) if url.fragment().is_some() => "holds a `#`, which is never sent; remove it".into(),
        // What fills a placeholder comes from outside: it may not choose where secrets are sent.
        Ok(url) if url.host_str().is_some_and(|host| host.contains("{{")) => {
            "has a placeholder in its host; they may stand in the path and the query".into()
        }
        Ok(url) => {
            let named = Url::parse(&url[..Position::AfterPath]);
            wipe(url);
            return Some((template, named.expect("it was an address with its query")));
        }
    };
    lowering.mistake(path, problem);
    None
}

/// Other hosts of the same API, as `host` or `host:port`.
pub(super) fn lower_hosts(
    path: &str,
    setting: Option<Setting>,
    lowering: &mut Lowering<'_>,
) -> Vec<Host> {
    let items = lowering.list(path, setting, "a list such as [\"api2.weixin.qq.com\"]");
    let mut hosts = Vec::new();
    for (path, item) in items.unwrap_or_default() {
        let Some(text) = lowering.text(&path, Some(item)) else { continue };
        match Host::parse(&text) {
            Some(host) if !hosts.contains(&host) => hosts.push(host),
            Some(_) => lowering.mistake(path, "is there twice; remove one"),
            None => lowering.mistake(
                path,
                format!(
                    "{:?} is no host; write one such as \"api2.weixin.qq.com\" or \"h:8443\"",
                    text.as_str()
                ),
            ),
        }
    }
    hosts
}

/// A text with placeholders.
pub(super) fn lower_text(
    path: &str,
    setting: Setting,
    lowering: &mut Lowering<'_>,
) -> Option<Template> {
    let text = lowering.written(path, Some(setting))?;
    if is_secret_name(path.rsplit('.').next().unwrap_or(path)) {
        lowering.is_secret(path, &text);
    }
    let before = lowering.mistakes_so_far();
    match Template::parse(&text, |text| lowering.expanded(path, text)) {
        // What could not be expanded has been said; the remains mean nothing.
        Ok(template) => (lowering.mistakes_so_far() == before).then_some(template),
        Err(message) => {
            lowering.mistake(path, message);
            None
        }
    }
}

/// Names and texts, as a query or a form takes them; numbers and flags look there as they do here.
fn lower_pairs(
    path: &str,
    raw: Table<Setting>,
    lowering: &mut Lowering<'_>,
) -> Vec<(Arc<str>, Template)> {
    let pairs = once_each(path, raw, lowering, |path, setting, lowering| match setting {
        Setting::Number(number) => Some(Template::text(number.to_string())),
        Setting::Bool(value) => Some(Template::text(value.to_string())),
        other => lower_text(path, other, lowering),
    });
    pairs.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

/// The rows of a table through `lower`; what is there twice or wrong is left out, and said.
fn once_each<T>(
    path: &str,
    raw: Table<Setting>,
    lowering: &mut Lowering<'_>,
    lower: impl Fn(&str, Setting, &mut Lowering<'_>) -> Option<T>,
) -> Vec<(String, T)> {
    let mut rows: Vec<(String, T)> = Vec::with_capacity(raw.0.len());
    for (name, setting) in raw.0 {
        let path = format!("{path}.{name}");
        if rows.iter().any(|(known, _)| *known == name) {
            lowering.mistake(path, "is there twice; remove one");
        } else if let Some(value) = lower(&path, setting, lowering) {
            rows.push((name, value));
        }
    }
    rows
}

fn lower_object(
    path: &str,
    raw: Table<Setting>,
    lowering: &mut Lowering<'_>,
) -> Vec<(String, JsonTemplate)> {
    once_each(path, raw, lowering, lower_json)
}

/// From here on, 2^53, a fraction does not hold every whole number.
const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;

fn lower_json(path: &str, setting: Setting, lowering: &mut Lowering<'_>) -> Option<JsonTemplate> {
    let number = match setting {
        Setting::Number(number) => i64::try_from(number).ok().map(JsonTemplate::Number),
        // A whole number that no integer holds arrives as a fraction, without its last digits.
        Setting::Fraction(number) => {
            (number.abs() < LARGEST_EXACT).then_some(JsonTemplate::Fraction(number))
        }
        Setting::Bool(value) => return Some(JsonTemplate::Bool(value)),
        Setting::List(items) => {
            let items = items.into_iter().enumerate();
            let lower = |(at, item)| lower_json(&format!("{path}.{at}"), item, lowering);
            // All of them, whatever is wrong with one.
            let lowered: Vec<Option<JsonTemplate>> = items.map(lower).collect();
            return lowered.into_iter().collect::<Option<_>>().map(JsonTemplate::List);
        }
        Setting::Table(rows) => {
            return Some(JsonTemplate::Table(lower_object(path, rows, lowering)));
        }
        other => return lower_text(path, other, lowering).map(JsonTemplate::Text),
    };
    if number.is_none() {
        lowering.mistake(path, "is too large a number; write it as a text");
    }
    number
}

/// Header fields that belong to the connection, not to the request: the client sets them.
const OWN_HEADERS: &[&str] =
    &["host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer"];

fn lower_headers(
    path: &str,
    raw: Table<Setting>,
    lowering: &mut Lowering<'_>,
) -> Vec<(Arc<str>, Template)> {
    let headers = lower_pairs(path, raw, lowering);
    for (name, template) in &headers {
        let path = format!("{path}.{name}");
        // RFC 9110, section 5.6.2: a field's name is a token.
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(is_token) {
            lowering.mistake(path, "is no name of a header");
        } else if OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name)) {
            lowering.mistake(path, "is set by the client itself; remove it");
        } else if !template.texts_are(is_header_text) {
            lowering.mistake(path, "holds a line break or another character that no header has");
        }
    }
    headers
}

/// Whether a text can stand in a header: printable ASCII in one line. RFC 9110, section 5.5.
pub fn is_header_text(text: &str) -> bool {
    text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
}

fn lower_basic(path: &str, raw: RawBasic, lowering: &mut Lowering<'_>) -> Basic {
    let mut part = |name: &str, setting: Option<Setting>| {
        let path = format!("{path}.{name}");
        let template = match setting {
            Some(setting) => lower_text(&path, setting, lowering),
            None => {
                lowering.mistake(path, "is missing");
                None
            }
        };
        template.unwrap_or_else(|| Template::text(String::new()))
    };
    let basic = Basic { user: part("user", raw.user), password: part("password", raw.password) };
    // RFC 7617, section 2: the first colon ends the user's name.
    if !basic.user.texts_are(|text| !text.contains(':')) {
        lowering.mistake(format!("{path}.user"), "holds a `:`, which no user name can");
    }
    basic
}

/// The query of an address as it was written; empty if it has none. Not for showing.
pub(super) fn written_query(address: &Template) -> Zeroizing<String> {
    let Ok(url) = Url::parse(&address.as_written()) else { return Zeroizing::default() };
    let query = Zeroizing::new(url.query().unwrap_or_default().to_owned());
    wipe(url);
    query
}
