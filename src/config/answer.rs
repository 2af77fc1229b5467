//! How an answer of the upstream is to be read: which fields, in which unit, and what in it means
//! failure. Reads no answer; `source::reply` does.

use std::fmt;

use super::lower::Lowering;
use super::raw::RawSuccess;
use super::setting::{Choice, Setting};
use super::vendors::Preset;

/// Where in an answer something stands: names and indexes, from the outside in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldPath {
    text: Box<str>,
    /// Whether dots separate steps. A source's name may hold dots that do not.
    dotted: bool,
}

impl FieldPath {
    /// Reads a path such as `data.tickets.0.value`.
    fn parse(text: &str) -> Option<FieldPath> {
        let sound = text.split('.').all(|step| !step.is_empty());
        sound.then(|| FieldPath { text: text.into(), dotted: true })
    }

    /// The field of this name, whatever is in it.
    pub(super) fn named(name: &str) -> FieldPath {
        FieldPath { text: name.into(), dotted: false }
    }

    /// The names and indexes, from the outside in.
    pub fn steps(&self) -> impl Iterator<Item = &str> {
        steps(&self.text, self.dotted)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn steps(text: &str, dotted: bool) -> impl Iterator<Item = &str> {
    text.split(move |c| dotted && c == '.')
}

/// The fields of an answer that may hold one thing; the first that is there counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fields {
    /// Paths from the table of vendors, shared by all its sources.
    listed: &'static [&'static str],
    /// One more, which is this source's own.
    own: Option<FieldPath>,
}

impl Fields {
    pub(super) fn listed(listed: &'static [&'static str]) -> Fields {
        Fields { listed, own: None }
    }

    fn only(own: FieldPath) -> Fields {
        Fields { listed: &[], own: Some(own) }
    }

    /// Each path as text and as steps, in the order in which they count.
    pub fn paths(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = &str>)> {
        let listed = self.listed.iter().map(|path| (*path, true));
        let own = self.own.as_ref().map(|own| (&*own.text, own.dotted));
        listed.chain(own).map(|(text, dotted)| (text, steps(text, dotted)))
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.paths().map(|(text, _)| text).collect();
        f.write_str(&names.join(" or "))
    }
}

/// A code by which an upstream says how a request went: a number (also one written as a text), or a
/// text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Code {
    /// `40013`, `"0"`
    Number(i64),
    /// `invalid_client`
    Text(Box<str>),
}

impl Code {
    /// The code of a text.
    pub fn of_text(text: &str) -> Code {
        text.parse().map_or_else(|_| Code::Text(text.into()), Code::Number)
    }
}

/// What lifetimes are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExpiresUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

/// What a lifetime in an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExpiresIs {
    /// The time that is left.
    Relative,
    /// The end, counted from the Unix epoch.
    Absolute,
}

/// The codes that mean success.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Accepted {
    Listed(&'static [i64]),
    Only(Code),
}

/// How an answer is read, but for where the token stands in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AnswerRules {
    /// Where its life stands.
    pub expires: Fields,
    /// What the life is counted in.
    pub expires_unit: ExpiresUnit,
    /// What the life is.
    pub expires_is: ExpiresIs,
    /// Where the code stands. Not the first but every one that is there counts: a request has failed
    /// if any of them is not accepted.
    pub code: Fields,
    pub(super) accepted: Accepted,
    /// Where the message of a failure stands.
    pub message: Fields,
    /// Where the text stands that is to be sent with the next request.
    pub capture: Option<FieldPath>,
}

impl AnswerRules {
    /// Whether this code means success.
    pub fn accepts(&self, code: &Code) -> bool {
        match &self.accepted {
            Accepted::Listed(numbers) => {
                matches!(code, Code::Number(number) if numbers.contains(number))
            }
            Accepted::Only(accepted) => accepted == code,
        }
    }
}

/// What a source says about its answers.
pub(super) struct RawAnswer {
    pub value_field: Option<Setting>,
    pub expires_field: Option<Setting>,
    pub expires_unit: Option<Setting>,
    pub expires_is: Option<Choice>,
    pub success: Option<RawSuccess>,
    pub error_field: Option<Setting>,
    pub message_field: Option<Setting>,
    pub capture: Option<Setting>,
}

/// Where the token stands, and the rules for the rest, of a source whose settings stand under `path`;
/// `own` is the field that holds the value where none of the vendor's does.
pub(super) fn lower_answer(
    path: &str,
    raw: RawAnswer,
    preset: &'static Preset,
    own: FieldPath,
    lowering: &mut Lowering<'_>,
) -> (Fields, AnswerRules) {
    let at = |setting: &str| format!("{path}.{setting}");
    let value = match lowering.field(&at("value_field"), raw.value_field) {
        Some(field) => Fields::only(field),
        None => Fields { listed: preset.value, own: Some(own) },
    };
    let mut fields = |setting: &str, raw, listed| match lowering.field(&at(setting), raw) {
        Some(field) => Fields::only(field),
        None => Fields::listed(listed),
    };
    let expires = fields("expires_field", raw.expires_field, preset.expires);
    let message = fields("message_field", raw.message_field, preset.message);
    let mut code = fields("error_field", raw.error_field, preset.code);
    let capture = lowering.field(&at("capture"), raw.capture);
    let mut accepted = Accepted::Listed(preset.accepted);
    if let Some(RawSuccess { field, value }) = raw.success {
        let path = at("success");
        match (lowering.field(&format!("{path}.field"), field), lower_code(&path, value, lowering))
        {
            (Some(field), Some(value)) => {
                code = Fields::only(field);
                accepted = Accepted::Only(value);
            }
            _ => lowering
                .mistake(path, "needs a field and a value, such as (field: \"code\", value: 0)"),
        }
    }
    let expires_unit = lowering.text(&at("expires_unit"), raw.expires_unit);
    let expires_unit = match expires_unit.as_ref().map(|text| text.as_str()) {
        None => preset.expires_unit,
        Some("s") => ExpiresUnit::Seconds,
        Some("ms") => ExpiresUnit::Milliseconds,
        Some(other) => {
            lowering.mistake(at("expires_unit"), format!("{other:?} is no unit; write s or ms"));
            preset.expires_unit
        }
    };
    let expires_is = match raw.expires_is {
        None => preset.expires_is,
        Some(choice) => {
            const WORDS: &[(&str, ExpiresIs)] =
                &[("Relative", ExpiresIs::Relative), ("Absolute", ExpiresIs::Absolute)];
            lowering.choice(&at("expires_is"), &choice, WORDS).unwrap_or(preset.expires_is)
        }
    };
    let rules = AnswerRules { expires, expires_unit, expires_is, code, accepted, message, capture };
    (value, rules)
}

fn lower_code(path: &str, raw: Option<Setting>, lowering: &mut Lowering<'_>) -> Option<Code> {
    match raw? {
        Setting::Number(number) => i64::try_from(number).ok().map(Code::Number),
        Setting::Bool(value) => Some(Code::Text(value.to_string().into())),
        other => {
            lowering.text(&format!("{path}.value"), Some(other)).map(|text| Code::of_text(&text))
        }
    }
}

impl Lowering<'_> {
    /// A path into an answer.
    fn field(&mut self, path: &str, setting: Option<Setting>) -> Option<FieldPath> {
        let text = self.text(path, setting)?;
        let field = FieldPath::parse(&text);
        if field.is_none() {
            self.mistake(path, "is no field; write a name such as ticket or data.ticket");
        }
        field
    }
}
