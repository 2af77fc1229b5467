//! What must hold of texts with placeholders; see `crate::fuzzing`.

use std::borrow::Cow;
use std::path::Path;

use zeroize::Zeroizing;

use super::expand::{Environment, expand};
use super::template::{Placeholder, Template};
use crate::token::Secret;

/// What fills every place. Made of letters that are escaped below.
const FILLING: &str = "~~";

/// Reads the input as a template, and as a text with variables.
pub(crate) fn template(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Template::parse(text, as_it_is) {
        Ok(template) => check(text, &template),
        Err(mistake) => assert!(!mistake.is_empty()),
    }
    variables(text);
}

fn as_it_is(text: &str) -> Zeroizing<String> {
    text.to_owned().into()
}

fn check(text: &str, template: &Template) {
    let places = template.placeholders().count();
    assert_eq!(template.literal().is_none(), places > 0);
    assert_eq!(template.literal().unwrap_or_default().is_empty(), places > 0 || text.is_empty());
    // Written out it is the text, but for spaces around names.
    let written = template.as_written();
    let again = Template::parse(&written, as_it_is);
    assert_eq!(again.as_ref(), Ok(template), "written as another: {written:?}");
    let filling = Secret::new(FILLING);
    let fill = |place: &Placeholder| {
        assert!(written.contains("{{"), "{place:?} from nowhere");
        Some(&filling)
    };
    let escape = |text: &str| Cow::Owned(text.replace('~', "%7E"));
    let rendered = template.render(fill, escape).expect("every place is filled");
    let pieces = rendered.expose().matches("%7E%7E").count();
    assert!(pieces >= places, "{pieces} of {places} places are filled");
    let left_out = template.render(|_| None, Cow::Borrowed);
    assert_eq!(left_out.is_none(), places > 0, "an absent token renders something");
}

fn variables(text: &str) {
    // A device without an end could be named.
    if text.contains("${file:") {
        return;
    }
    let environment = Environment::of([("A", "${env:B}$${"), ("B", "{{b}}")]);
    let mut mistakes = Vec::new();
    let expanded = expand(text, &environment, Path::new("/nowhere"), &mut mistakes);
    assert!(mistakes.iter().all(|mistake| !mistake.is_empty()));
    if !text.contains("${") {
        assert_eq!(*expanded.text, text);
    }
}
