//! JSON in which a secret stands: an answer, the body of a request. Its texts are wiped when it is dropped.

use std::fmt;
use std::ops::Deref;

use serde_json::Value;
use zeroize::Zeroize;

/// A JSON value that is wiped. (serde_json's own is not.)
pub(super) struct Json(Value);

impl Json {
    /// Takes a value into custody.
    pub(super) fn new(value: Value) -> Json {
        Json(value)
    }

    /// Reads a text; `None` if it is no JSON.
    pub(super) fn read(bytes: &[u8]) -> Option<Json> {
        serde_json::from_slice(bytes).ok().map(Json)
    }
}

impl Deref for Json {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Json(..)")
    }
}

impl Drop for Json {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// As deep as it was read, which serde_json limits.
fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(rows) => rows.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_wiped_however_deep() {
        let mut value = serde_json::json!({"a": "x", "b": ["y", {"c": "z", "n": 5, "t": true}]});
        wipe(&mut value);
        let wiped = serde_json::json!({"a": "", "b": ["", {"c": "", "n": 5, "t": true}]});
        assert_eq!(value, wiped);
    }

    #[test]
    fn it_does_not_show_itself() {
        assert_eq!(format!("{:?}", Json::read(b"[\"canary\"]").unwrap()), "Json(..)");
        assert!(Json::read(b"[\"canary").is_none());
    }
}
