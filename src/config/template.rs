//! `{{name}}` placeholders in a source's request: parsed once, rendered for each request. What a
//! rendered text is put into, and how it is escaped for that, is the caller's business.

use std::borrow::Cow;

use url::Url;
use zeroize::{Zeroize, Zeroizing};

use crate::token::{Secret, SourceName};

/// The placeholder that stands for what the last answer gave to be sent with the next request. No
/// source can have this name.
pub(super) const CAPTURED: &str = "captured";

/// A text with places for what is known only when a request is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Parts,
}

/// Most texts have one piece, which needs no list.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Parts {
    One(Part),
    Other(Box<[Part]>),
}

/// A piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Text that stands for itself; an app secret may be in it.
    Text(Secret),
    /// A place to be filled.
    Place(Placeholder),
}

/// What a placeholder stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placeholder {
    /// The token of this source.
    Token(SourceName),
    /// What the source's own last answer gave.
    Captured,
}

impl Template {
    /// A text without placeholders.
    pub(super) fn text(text: String) -> Template {
        Template { parts: Parts::One(Part::Text(Secret::new(text))) }
    }

    /// Reads a text; `expand` is applied to what stands between the placeholders, so that an
    /// expanded value is never taken for a placeholder.
    ///
    /// # Errors
    /// A placeholder is not closed, or names what cannot be a source.
    pub(super) fn parse(
        text: &str,
        mut expand: impl FnMut(&str) -> Zeroizing<String>,
    ) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut push_text = |parts: &mut Vec<Part>, text: &str| {
            if !text.is_empty() {
                parts.push(Part::Text(Secret::new(expand(text).as_str())));
            }
        };
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            push_text(&mut parts, before);
            let (name, after) =
                after.split_once("}}").ok_or("a placeholder has no closing `}}`")?;
            parts.push(Part::Place(match name.trim() {
                CAPTURED => Placeholder::Captured,
                name => Placeholder::Token(SourceName::parse(name)?),
            }));
            rest = after;
        }
        push_text(&mut parts, rest);
        let parts = match <[Part; 1]>::try_from(parts) {
            Ok([part]) => Parts::One(part),
            Err(parts) => Parts::Other(parts.into()),
        };
        Ok(Template { parts })
    }

    /// The pieces in order.
    pub(super) fn parts(&self) -> &[Part] {
        match &self.parts {
            Parts::One(part) => std::slice::from_ref(part),
            Parts::Other(parts) => parts,
        }
    }

    /// What its placeholders stand for, in order, repeated as they are.
    pub fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        self.parts().iter().filter_map(|part| match part {
            Part::Place(place) => Some(place),
            Part::Text(_) => None,
        })
    }

    /// The sources whose tokens it needs, in order, repeated as they are.
    pub fn dependencies(&self) -> impl Iterator<Item = &SourceName> {
        self.placeholders().filter_map(|place| match place {
            Placeholder::Token(name) => Some(name),
            Placeholder::Captured => None,
        })
    }

    /// The text, if it has no placeholder. Not for showing: a secret may be in it.
    pub(super) fn literal(&self) -> Option<Zeroizing<String>> {
        let texts: Option<Vec<&str>> = self
            .parts()
            .iter()
            .map(|part| match part {
                Part::Text(text) => Some(text.expose()),
                Part::Place(_) => None,
            })
            .collect();
        texts.map(|texts| texts.concat().into())
    }

    /// Whether `test` holds for everything that stands between the placeholders.
    pub(super) fn texts_are(&self, test: impl Fn(&str) -> bool) -> bool {
        self.parts().iter().all(|part| match part {
            Part::Text(text) => test(text.expose()),
            Part::Place(_) => true,
        })
    }

    /// The text with its placeholders as they were written. Not for showing, as `literal`.
    pub(super) fn as_written(&self) -> Zeroizing<String> {
        fn pieces(part: &Part) -> [&str; 3] {
            match part {
                Part::Text(text) => ["", text.expose(), ""],
                Part::Place(Placeholder::Token(name)) => ["{{", name.as_str(), "}}"],
                Part::Place(Placeholder::Captured) => ["{{", CAPTURED, "}}"],
            }
        }
        // `concat` allocates once, here and below, so no partial copy is left behind unwiped.
        self.parts().iter().flat_map(pieces).collect::<Vec<_>>().concat().into()
    }

    /// The text with each placeholder filled, and what fills it escaped; `None` if `fill` has
    /// nothing for one of them.
    pub fn render<'a>(
        &'a self,
        fill: impl Fn(&Placeholder) -> Option<&'a Secret>,
        escape: impl Fn(&'a str) -> Cow<'a, str>,
    ) -> Option<Secret> {
        let pieces: Option<Vec<Cow<'a, str>>> = self
            .parts()
            .iter()
            .map(|part| match part {
                Part::Text(text) => Some(Cow::Borrowed(text.expose())),
                Part::Place(place) => fill(place).map(|value| escape(value.expose())),
            })
            .collect();
        let mut pieces = pieces?;
        let text = Secret::new(pieces.concat());
        for piece in &mut pieces {
            if let Cow::Owned(escaped) = piece {
                escaped.zeroize();
            }
        }
        Some(text)
    }
}

/// Drops an address that was read from a template, and wipes it: secrets may stand in it.
pub(super) fn wipe(url: Url) {
    drop(Zeroizing::new(String::from(url)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(text: &str) -> Zeroizing<String> {
        text.to_owned().into()
    }

    fn check(text: &str, expected: Result<(&str, &[&str]), &str>) {
        let (token, captured) = (Secret::new("TO/KEN"), Secret::new("KEPT"));
        match (Template::parse(text, owned), expected) {
            (Ok(template), Ok((rendered, names))) => {
                let fill = |place: &Placeholder| match place {
                    Placeholder::Token(_) => Some(&token),
                    Placeholder::Captured => Some(&captured),
                };
                let escape = |text| Cow::Owned(str::replace(text, "/", "%"));
                assert_eq!(template.render(fill, escape).unwrap().expose(), rendered);
                assert_eq!(template.dependencies().map(|n| n.as_str()).collect::<Vec<_>>(), names);
                let placed = template.placeholders().next().is_some();
                assert_eq!(template.literal().is_none(), placed);
            }
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (parsed, expected) => panic!("{text:?}: {parsed:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn placeholders_are_filled_and_only_what_fills_them_is_escaped() {
        check("pla/in", Ok(("pla/in", &[])));
        check("", Ok(("", &[])));
        check("{{access_token}}", Ok(("TO%KEN", &["access_token"])));
        check("{{ a }}", Ok(("TO%KEN", &["a"])));
        check("Bearer {{a}}-{{b}}.", Ok(("Bearer TO%KEN-TO%KEN.", &["a", "b"])));
        check("{{a}}{{captured}}", Ok(("TO%KENKEPT", &["a"])));
        check("}} {x} {", Ok(("}} {x} {", &[])));
        check("{{a", Err("no closing"));
        check("{{}}", Err("needs a name"));
        check("{{a b}}", Err("letters, digits"));
    }

    #[test]
    fn an_absent_token_renders_nothing() {
        let template = Template::parse("{{a}}", owned).unwrap();
        assert_eq!(template.render(|_| None, Cow::Borrowed), None);
    }

    #[test]
    fn an_expanded_text_is_no_placeholder() {
        let template = Template::parse("x{{a}}", |_| owned("{{b}}")).unwrap();
        let token = Secret::new("T");
        assert_eq!(template.render(|_| Some(&token), Cow::Borrowed).unwrap().expose(), "{{b}}T");
        assert_eq!(template.as_written().as_str(), "{{b}}{{a}}");
    }
}
