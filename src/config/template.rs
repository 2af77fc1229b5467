//! `{{name}}` placeholders in a source's arguments: parsed once, rendered for each request.

use crate::token::{Secret, SourceName};

/// A text with places for other sources' tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// A piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Text that stands for itself; an app secret may be in it.
    Text(Secret),
    /// The token of this source.
    Token(SourceName),
}

impl Template {
    /// Reads a text; `expand` is applied to what stands between the placeholders, so that an
    /// expanded value is never taken for a placeholder.
    ///
    /// # Errors
    /// A placeholder is not closed, or names what cannot be a source.
    pub(super) fn parse(
        text: &str,
        mut expand: impl FnMut(&str) -> String,
    ) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut push_text = |parts: &mut Vec<Part>, text: &str| {
            if !text.is_empty() {
                parts.push(Part::Text(Secret::new(expand(text))));
            }
        };
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            push_text(&mut parts, before);
            let (name, after) =
                after.split_once("}}").ok_or("a placeholder has no closing `}}`")?;
            parts.push(Part::Token(SourceName::parse(name.trim())?));
            rest = after;
        }
        push_text(&mut parts, rest);
        Ok(Template { parts })
    }

    /// The pieces in order.
    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The sources whose tokens it needs, in order, repeated as they are.
    pub fn dependencies(&self) -> impl Iterator<Item = &SourceName> {
        self.parts.iter().filter_map(|part| match part {
            Part::Token(name) => Some(name),
            Part::Text(_) => None,
        })
    }

    /// The text with the tokens in their places; `None` if `token` has none for one of them.
    pub fn render<'a>(
        &'a self,
        token: impl Fn(&SourceName) -> Option<&'a Secret>,
    ) -> Option<Secret> {
        let pieces: Option<Vec<&str>> = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => Some(text.expose()),
                Part::Token(name) => token(name).map(Secret::expose),
            })
            .collect();
        // `concat` allocates once, so no partial copy is left behind unwiped.
        pieces.map(|pieces| Secret::new(pieces.concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(&str, &[&str]), &str>) {
        let token = Secret::new("TOKEN");
        match (Template::parse(text, str::to_owned), expected) {
            (Ok(template), Ok((rendered, names))) => {
                assert_eq!(template.render(|_| Some(&token)).unwrap().expose(), rendered);
                assert_eq!(template.dependencies().map(|n| n.as_str()).collect::<Vec<_>>(), names);
            }
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (parsed, expected) => panic!("{text:?}: {parsed:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn placeholders_are_filled() {
        check("plain", Ok(("plain", &[])));
        check("", Ok(("", &[])));
        check("{{access_token}}", Ok(("TOKEN", &["access_token"])));
        check("{{ a }}", Ok(("TOKEN", &["a"])));
        check("Bearer {{a}}-{{b}}.", Ok(("Bearer TOKEN-TOKEN.", &["a", "b"])));
        check("}} {x} {", Ok(("}} {x} {", &[])));
        check("{{a", Err("no closing"));
        check("{{}}", Err("needs a name"));
        check("{{a b}}", Err("letters, digits"));
    }

    #[test]
    fn an_absent_token_renders_nothing() {
        let template = Template::parse("{{a}}", str::to_owned).unwrap();
        assert_eq!(template.render(|_| None), None);
    }

    #[test]
    fn an_expanded_text_is_no_placeholder() {
        let template = Template::parse("x{{a}}", |_| "{{b}}".into()).unwrap();
        let token = Secret::new("T");
        assert_eq!(template.render(|_| Some(&token)).unwrap().expose(), "{{b}}T");
    }
}
