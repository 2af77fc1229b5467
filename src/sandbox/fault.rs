//! Faults on demand: what can go wrong, how it is written, and which call it hits.
//! Carries none of them out: the server does.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::duration::{format_duration, parse_duration};
use crate::sandbox::endpoint::Endpoint;
use crate::sandbox::parameters::Parameters;

/// A field of a successful answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The token or ticket.
    Value,
    /// The stated life.
    ExpiresIn,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum FaultKind {
    /// A refusal with this errcode, in a 200 answer.
    Errcode(i32),
    /// This HTTP status, with an HTML body.
    Status(u16),
    /// A 200 answer whose body is neither JSON nor text.
    Garbage,
    /// The right answer, cut off half-way: fewer bytes than its length says, then the end.
    Truncated,
    /// The right answer without a field.
    Missing(Field),
    /// The right answer with another value, of whatever type, in a field.
    Replace(Field, Value),
    /// No answer for as long as the client waits.
    Hang,
    /// The connection is reset instead of an answer.
    Reset,
    /// A body of 64 MiB that begins like a right one, its length not announced.
    Huge,
    /// The right answer, one byte at a time with this pause before each.
    Drip(Duration),
    /// A redirect to this address.
    Redirect(String),
    /// The right answer, so much later.
    Latency(Duration),
}

impl FaultKind {
    /// Whether it spoils the right answer, which is therefore needed; the others replace it.
    fn spoils(&self) -> bool {
        use FaultKind::{Drip, Latency, Missing, Replace, Truncated};
        matches!(self, Truncated | Missing(_) | Replace(..) | Drip(_) | Latency(_))
    }

    /// Its name, and what is said with it.
    fn parts(&self) -> (&'static str, Vec<(&'static str, String)>) {
        let field = |field: &Field| {
            let (_, name) = FIELDS.iter().find(|row| row.0 == *field).expect("both are listed");
            ("field", (*name).into())
        };
        match self {
            FaultKind::Errcode(code) => ("errcode", vec![("code", code.to_string())]),
            FaultKind::Status(code) => ("status", vec![("code", code.to_string())]),
            FaultKind::Garbage => ("garbage", vec![]),
            FaultKind::Truncated => ("truncated", vec![]),
            FaultKind::Missing(which) => ("missing", vec![field(which)]),
            FaultKind::Replace(which, with) => {
                ("replace", vec![field(which), ("with", with.to_string())])
            }
            FaultKind::Hang => ("hang", vec![]),
            FaultKind::Reset => ("reset", vec![]),
            FaultKind::Huge => ("huge", vec![]),
            FaultKind::Drip(delay) => ("drip", vec![("delay", format_duration(*delay))]),
            FaultKind::Redirect(to) => ("redirect", vec![("to", to.clone())]),
            FaultKind::Latency(delay) => ("latency", vec![("delay", format_duration(*delay))]),
        }
    }

    /// Its name in a fault's text.
    pub fn name(&self) -> &'static str {
        self.parts().0
    }
}

/// Fields of an answer with their names in a fault's text.
const FIELDS: [(Field, &str); 2] = [(Field::Value, "value"), (Field::ExpiresIn, "expires_in")];

/// How a kind is read from a fault's text.
type ReadKind = fn(&Parameters) -> Result<FaultKind, String>;

/// The kinds of faults by name, with an example of each.
static KINDS: &[(&str, ReadKind, &str)] = &[
    ("errcode", |p| number(p, "code").map(FaultKind::Errcode), "kind=errcode&code=40164"),
    ("status", |p| status(p).map(FaultKind::Status), "kind=status&code=502"),
    ("garbage", |_| Ok(FaultKind::Garbage), "kind=garbage"),
    ("truncated", |_| Ok(FaultKind::Truncated), "kind=truncated"),
    ("missing", |p| field(p).map(FaultKind::Missing), "kind=missing&field=value"),
    (
        "replace",
        |p| Ok(FaultKind::Replace(field(p)?, json(p.require("with")?))),
        "kind=replace&field=expires_in&with=\"soon\"",
    ),
    ("hang", |_| Ok(FaultKind::Hang), "kind=hang"),
    ("reset", |_| Ok(FaultKind::Reset), "kind=reset"),
    ("huge", |_| Ok(FaultKind::Huge), "kind=huge"),
    ("drip", |p| delay(p).map(FaultKind::Drip), "kind=drip&delay=100ms"),
    ("redirect", |p| address(p).map(FaultKind::Redirect), "kind=redirect&to=http://127.0.0.1:1/"),
    ("latency", |p| delay(p).map(FaultKind::Latency), "kind=latency&delay=2s"),
];

/// What a fault's text may hold.
const PARAMETERS: &[&str] =
    &["kind", "endpoint", "times", "applied", "code", "field", "with", "delay", "to"];

fn number<T: FromStr>(parameters: &Parameters, name: &str) -> Result<T, String> {
    let text = parameters.require(name)?;
    text.parse().map_err(|_| format!("{name}: {text:?} is no such number"))
}

fn status(parameters: &Parameters) -> Result<u16, String> {
    // 1xx is no answer; and a 200 would be none of the faults.
    let code = number(parameters, "code")?;
    if (300..=599).contains(&code) {
        Ok(code)
    } else {
        Err("code: a status from 300 to 599".into())
    }
}

fn field(parameters: &Parameters) -> Result<Field, String> {
    let name = parameters.get("field").unwrap_or("value");
    let row = FIELDS.iter().find(|row| row.1 == name);
    row.map(|row| row.0).ok_or_else(|| format!("field: {name:?} is neither value nor expires_in"))
}

fn delay(parameters: &Parameters) -> Result<Duration, String> {
    parse_duration(parameters.require("delay")?)
}

/// An address that can stand in a header.
fn address(parameters: &Parameters) -> Result<String, String> {
    let to = parameters.require("to")?;
    if to.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(to.into())
    } else {
        Err("to: an address has no spaces and no letters outside ASCII".into())
    }
}

/// A JSON value, or a text that needs no quotes.
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// A fault on demand. Written as a query string, `kind=errcode&code=40164&endpoint=token&times=3`,
/// which [`str::parse`] reads and `Display` writes.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// Which calls it hits; `None`: those of every endpoint.
    pub endpoint: Option<Endpoint>,
    /// How many calls it hits; `None`: all until it is cleared.
    pub times: Option<u32>,
    /// Whether the call has its effect although the answer is replaced: the token was rotated, and
    /// the client does not learn the new one. A kind that spoils the right answer always is.
    pub applied: bool,
}

impl Fault {
    /// A fault for every call of every endpoint until it is cleared.
    pub fn new(kind: FaultKind) -> Fault {
        Fault { kind, endpoint: None, times: None, applied: false }
    }

    /// For calls of `endpoint` only.
    pub fn on(self, endpoint: Endpoint) -> Fault {
        Fault { endpoint: Some(endpoint), ..self }
    }

    /// For the next `times` calls only.
    pub fn times(self, times: u32) -> Fault {
        Fault { times: Some(times), ..self }
    }

    /// With the effect of the call, although its answer is lost.
    pub fn applied(self) -> Fault {
        Fault { applied: true, ..self }
    }

    /// The text of a fault of each kind, for a help.
    pub fn examples() -> impl Iterator<Item = &'static str> {
        KINDS.iter().map(|row| row.2)
    }

    /// Whether the call has its effect.
    pub(super) fn has_effect(&self) -> bool {
        self.applied || self.kind.spoils()
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        Fault::read(&Parameters::parse(text))
    }
}

impl Fault {
    /// Reads a fault from the parameters of its text.
    pub(super) fn read(parameters: &Parameters) -> Result<Fault, String> {
        parameters.only(PARAMETERS)?;
        let name = parameters.require("kind")?;
        let Some((_, read, _)) = KINDS.iter().find(|row| row.0 == name) else {
            let examples: Vec<&str> = Fault::examples().collect();
            return Err(format!("no kind {name:?}; there are {}", examples.join(", ")));
        };
        let endpoint = match parameters.get("endpoint") {
            None | Some("all") => None,
            Some(name) => Some(Endpoint::named(name).ok_or(format!("no endpoint {name:?}"))?),
        };
        let times = parameters.get("times").map(|_| number(parameters, "times")).transpose()?;
        let applied = match parameters.get("applied") {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => return Err(format!("applied: {other:?} is neither true nor false")),
        };
        Ok(Fault { kind: read(parameters)?, endpoint, times, applied })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, said) = self.kind.parts();
        let mut text = form_urlencoded::Serializer::new(String::new());
        text.append_pair("kind", name).extend_pairs(said);
        if let Some(endpoint) = self.endpoint {
            text.append_pair("endpoint", endpoint.name());
        }
        if let Some(times) = self.times {
            text.append_pair("times", &times.to_string());
        }
        if self.applied {
            text.append_pair("applied", "true");
        }
        f.write_str(&text.finish())
    }
}

/// The faults in waiting, in the order in which they were asked for.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    /// Adds one behind the others.
    pub(super) fn add(&mut self, fault: Fault) {
        if fault.times != Some(0) {
            self.0.push(fault);
        }
    }

    /// Forgets them all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Those in waiting.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }

    /// The fault that hits a call of `endpoint`: the first that fits, once less from now on.
    pub(super) fn take(&mut self, endpoint: Endpoint) -> Option<Fault> {
        let at =
            self.0.iter().position(|fault| fault.endpoint.is_none_or(|only| only == endpoint))?;
        let fault = &mut self.0[at];
        match &mut fault.times {
            Some(1) => Some(self.0.remove(at)),
            Some(times) => {
                *times -= 1;
                Some(fault.clone())
            }
            None => Some(fault.clone()),
        }
    }
}

/// Takes a field out of an answer, or puts another value in.
pub(super) fn edit(answer: &mut Map<String, Value>, field: Field, with: Option<&Value>) {
    let names: &[&str] = match field {
        Field::Value => &["access_token", "ticket"],
        Field::ExpiresIn => &["expires_in"],
    };
    for name in names {
        if answer.remove(*name).is_some()
            && let Some(with) = with
        {
            answer.insert((*name).into(), with.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_what_it_writes() {
        for (name, _, example) in KINDS {
            let fault: Fault = example.parse().unwrap();
            assert_eq!(fault.kind.name(), *name);
            let narrowed = fault.on(Endpoint::Ticket).times(3).applied();
            assert_eq!(narrowed.to_string().parse(), Ok(narrowed), "{name}");
        }
    }

    #[test]
    fn a_wrong_fault_is_explained() {
        for (text, said) in [
            ("", "parameter \"kind\" is missing"),
            ("kind=nonsense", "no kind \"nonsense\"; there are kind=errcode&code=40164"),
            ("kind=errcode", "parameter \"code\" is missing"),
            ("kind=errcode&code=x", "code: \"x\" is no such number"),
            ("kind=status&code=200", "code: a status from 300 to 599"),
            ("kind=garbage&time=3", "no parameter \"time\""),
            ("kind=garbage&times=-3", "times: \"-3\" is no such number"),
            ("kind=garbage&endpoint=x", "no endpoint \"x\""),
            ("kind=missing&field=x", "field: \"x\" is neither"),
            ("kind=latency&delay=2", "\"2\" is no duration"),
            ("kind=redirect&to=a%0Db", "to: an address has no spaces"),
        ] {
            let error = text.parse::<Fault>().unwrap_err();
            assert!(error.starts_with(said), "{text}: {error}");
        }
    }

    #[test]
    fn the_first_fault_that_fits_is_used_up() {
        let mut faults = Faults::default();
        for text in [
            "kind=errcode&code=1&endpoint=ticket&times=1",
            "kind=errcode&code=2&times=2",
            "kind=errcode&code=3&times=0",
            "kind=errcode&code=4",
        ] {
            faults.add(text.parse().unwrap());
        }
        let mut next = |endpoint| match faults.take(endpoint).map(|fault| fault.kind) {
            Some(FaultKind::Errcode(code)) => code,
            other => panic!("{other:?}"),
        };
        let (token, ticket) = (Endpoint::Token, Endpoint::Ticket);
        let codes = [token, ticket, ticket, ticket, token].map(&mut next);
        assert_eq!(codes, [2, 1, 2, 4, 4]);
        assert_eq!(faults.iter().count(), 1);
        faults.clear();
        assert_eq!(faults.take(token), None);
    }
}
