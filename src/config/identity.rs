//! What a stored record belongs to: a digest of what its source fetches with. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::TokenSource;
use super::request::{Body, JsonTemplate, written_query};
use super::template::{Part, Placeholder, Template};
use crate::token::{SourceIdentity, SourceName};

/// The digest of what fetches a source's tokens: path, arguments, body, headers, and those of the
/// sources it depends on (`known`). The host is not part of it, nor are timeouts, schedule and the
/// reading of answers: they may change and the tokens stay.
pub(super) fn identity(
    source: &TokenSource,
    known: &HashMap<SourceName, SourceIdentity>,
) -> SourceIdentity {
    let mut feed = Feed { digest: Sha256::new(), known };
    let request = &source.request;
    feed.bytes(source.url.path().as_bytes());
    feed.bytes(written_query(&request.address).as_bytes());
    feed.pairs(&request.args);
    // What a source does not have feeds nothing, so that what is added here later changes the
    // identity of none that does without.
    if request.address.placeholders().next().is_some() {
        feed.section("address");
        feed.template(&request.address);
    }
    if !request.headers.is_empty() {
        feed.section("headers");
        feed.pairs(&request.headers);
    }
    if let Some(basic) = &request.basic {
        feed.section("basic");
        feed.template(&basic.user);
        feed.template(&basic.password);
    }
    match &request.body {
        Body::Empty => {}
        Body::Form(pairs) => {
            feed.section("form");
            feed.pairs(pairs);
        }
        Body::Json(rows) => {
            feed.section("json");
            feed.object(rows);
        }
    }
    // The first value, not the last: a new one in the config begins a new line of tokens.
    if let Some(captured) = &source.captured {
        feed.section("captured");
        feed.bytes(&captured.sha256());
    }
    SourceIdentity(feed.digest.finalize().into())
}

struct Feed<'a> {
    digest: Sha256,
    known: &'a HashMap<SourceName, SourceIdentity>,
}

impl Feed<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        // The length first, so that no two different sources feed the same bytes.
        self.digest.update((bytes.len() as u64).to_le_bytes());
        self.digest.update(bytes);
    }

    /// A length that no text has, so that a section is never taken for an argument.
    fn section(&mut self, name: &str) {
        self.digest.update(u64::MAX.to_le_bytes());
        self.bytes(name.as_bytes());
    }

    fn template(&mut self, template: &Template) {
        for part in template.parts() {
            match part {
                Part::Text(text) => self.bytes(&text.sha256()),
                Part::Place(Placeholder::Token(name)) => {
                    self.bytes(b"token");
                    let identity = self.known.get(name).map_or([0; 32], |identity| identity.0);
                    self.bytes(&identity);
                }
                Part::Place(Placeholder::Captured) => self.bytes(b"captured"),
            }
        }
        self.bytes(b"end");
    }

    /// By name: their order means nothing.
    fn pairs(&mut self, pairs: &[(Arc<str>, Template)]) {
        let mut pairs: Vec<_> = pairs.iter().collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, template) in pairs {
            self.bytes(name.as_bytes());
            self.template(template);
        }
    }

    fn object(&mut self, rows: &[(String, JsonTemplate)]) {
        let mut rows: Vec<_> = rows.iter().collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        self.bytes(&(rows.len() as u64).to_le_bytes());
        for (name, json) in rows {
            self.bytes(name.as_bytes());
            self.json(json);
        }
    }

    fn json(&mut self, json: &JsonTemplate) {
        match json {
            JsonTemplate::Text(template) => {
                self.bytes(b"text");
                self.template(template);
            }
            JsonTemplate::Number(number) => {
                self.bytes(b"number");
                self.bytes(&number.to_le_bytes());
            }
            JsonTemplate::Fraction(number) => {
                self.bytes(b"fraction");
                self.bytes(&number.to_le_bytes());
            }
            JsonTemplate::Bool(value) => {
                self.bytes(b"bool");
                self.bytes(&[u8::from(*value)]);
            }
            JsonTemplate::List(items) => {
                self.bytes(b"list");
                self.bytes(&(items.len() as u64).to_le_bytes());
                for item in items {
                    self.json(item);
                }
            }
            JsonTemplate::Table(rows) => {
                self.bytes(b"table");
                self.object(rows);
            }
        }
    }
}
