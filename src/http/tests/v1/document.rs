//! The OpenAPI document is held to the table of routes, and answers are held to its schemas.

use std::collections::BTreeSet;

use super::*;
use crate::http::v1::OPENAPI;

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// What a `$ref` stands for.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(reference) => document.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
        None => value,
    }
}

/// What is wrong with `value` by `schema`: a field that is missing, unknown, or of another type.
fn complaints(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let schema = resolved(document, schema);
    if let Some(choices) = schema.get("anyOf").and_then(Value::as_array) {
        let fits = |choice: &&Value| {
            let mut found = Vec::new();
            complaints(document, choice, value, at, &mut found);
            found.is_empty()
        };
        if !choices.iter().any(|choice| fits(&choice)) {
            found.push(format!("{at}: none of the choices"));
        }
        return;
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(|one| one == kind),
        one => one == kind,
    };
    if !allowed {
        found.push(format!("{at}: {kind}, not {}", schema["type"]));
    }
    if let Some(choices) = schema.get("enum").and_then(Value::as_array)
        && !choices.contains(value)
    {
        found.push(format!("{at}: {value} is not among {choices:?}"));
    }
    match value {
        Value::Array(items) => {
            for item in items {
                complaints(document, &schema["items"], item, &format!("{at}[]"), found);
            }
        }
        Value::Object(fields) => {
            let Some(known) = schema.get("properties").and_then(Value::as_object) else { return };
            for (name, field) in fields {
                match known.get(name) {
                    Some(schema) => {
                        complaints(document, schema, field, &format!("{at}.{name}"), found);
                    }
                    None => found.push(format!("{at}.{name}: not in the document")),
                }
            }
            for name in schema["required"].as_array().unwrap() {
                if !fields.contains_key(name.as_str().unwrap()) {
                    found.push(format!("{at}.{name}: required, and missing"));
                }
            }
        }
        _ => {}
    }
}

#[test]
fn the_document_has_every_route_method_and_status() {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    // The page for people is no interface for programs.
    let routes = || ROUTES.iter().filter(|route| !route.is_of_the_page());
    let of_table: BTreeSet<&str> = routes().map(|route| route.path).collect();
    assert_eq!(paths.keys().map(String::as_str).collect::<BTreeSet<_>>(), of_table);
    for route in routes() {
        let operations = paths[route.path].as_object().unwrap();
        let documented: BTreeSet<String> =
            operations.keys().map(|method| method.to_uppercase()).collect();
        // HEAD is as GET, which the document says once.
        let of_table: BTreeSet<String> =
            route.methods.split(", ").filter(|method| *method != "HEAD").map(Into::into).collect();
        assert_eq!(documented, of_table, "{}", route.path);
        for operation in operations.values() {
            let statuses: Vec<u16> = operation["responses"]
                .as_object()
                .unwrap()
                .keys()
                .map(|status| status.parse().unwrap())
                .collect();
            assert_eq!(statuses, route.statuses, "{}", route.path);
        }
    }
}

#[test]
fn every_reference_leads_somewhere_and_everything_is_used() {
    let document = document();
    let components = document["components"].as_object().unwrap();
    for kind in ["schemas", "responses"] {
        for name in components[kind].as_object().unwrap().keys() {
            let reference = format!("\"#/components/{kind}/{name}\"");
            assert!(OPENAPI.contains(&reference), "{reference} is not used");
        }
    }
    for reference in OPENAPI.split("\"$ref\": \"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

#[tokio::test]
async fn answers_are_as_the_document_says() {
    let document = document();
    let mut server = served().await;
    server.publishers[1].note_failure(trouble());
    server.publishers[1].note_success(still().wall);
    server.publishers[0].note_failure(Trouble { code: None, ..trouble() });
    server.v1("/v1/tokens/ticket").await;
    let mut answers = Vec::new();
    for (path, key) in [
        ("/v1/tokens", Some(KEY)),
        ("/v1/tokens", None),
        ("/v1/tokens/{name}", Some(KEY)),
        ("/v1/tokens/{name}", None),
        ("/v1/status", Some(KEY)),
        ("/v1/status", Some(SHOP)),
        ("/v1/doctor", Some(KEY)),
        ("/v1/doctor", Some(SHOP)),
        ("/readyz", None),
        ("/readyz", Some(KEY)),
        ("/healthz", None),
    ] {
        let answer = server.ask(&request("GET", &target(path), key, "")).await;
        answers.push((path, "get", answer));
    }
    let refresh = "/v1/tokens/{name}/refresh";
    let mut client = server.connect().await;
    client.send(&with_body(&target(refresh), KEY, "")).await;
    server.queues[1].next().await.reply.send(Ok(generation("N", 2))).unwrap();
    answers.push((refresh, "post", client.answer().await));
    let refused = server.ask(&with_body(&target(refresh), KEY, "[]")).await;
    answers.push((refresh, "post", refused));
    for (path, method, answer) in answers {
        let status = answer.status.to_string();
        let documented = &document["paths"][path][method]["responses"][&status];
        let documented = resolved(&document, documented);
        let schema = &documented["content"]["application/json"]["schema"];
        assert!(!schema.is_null(), "{path} {status}");
        let mut found = Vec::new();
        complaints(&document, schema, &answer.json(), path, &mut found);
        assert!(found.is_empty(), "{found:#?}");
        // It would notice: a field more, a field less.
        if let Value::Object(mut fields) = answer.json() {
            fields.insert("more".into(), Value::Null);
            complaints(&document, schema, &Value::Object(fields), path, &mut found);
            assert_eq!(found.len(), 1, "{path}");
        }
    }
}
