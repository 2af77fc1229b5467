//! The shape of config.ron: what was written, before it means anything. The only file that names
//! ron. Values are kept as they were written ([`Setting`]), so that one wrong type does not stop the
//! reading; unknown settings are collected, not skipped.

use ron::extensions::Extensions;
use serde::Deserialize;

use super::Mistake;
use super::setting::{Choice, Setting, Table};

/// Declares the raw shape of a group of settings: each may be left out, and the group knows the
/// names of all.
macro_rules! group {
    ($(#[$doc:meta])* $group:ident { $($name:ident: $kind:ty),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(default)]
        pub(super) struct $group { $(pub $name: $kind),+ }

        impl $group {
            pub(super) const NAMES: &[&str] = &[$(stringify!($name)),+];
        }
    };
}

group! {
    /// The whole file.
    RawConfig {
        http: RawHttp,
        resp: RawResp,
        store: RawStore,
        request_secret: Option<Setting>,
        clients: Table<RawClient>,
        refresh: RawRefresh,
        outbound: RawOutbound,
        log: RawLog,
        ready: RawReady,
        metrics: RawMetrics,
        webhooks: Table<RawWebhook>,
        grace_period: Option<Setting>,
        token_sources: Table<RawSource>,
    }
}

group! {
    /// `http`
    RawHttp {
        bind: Option<Setting>,
        max_connections: Option<Setting>,
        max_connections_per_address: Option<Setting>,
        header_timeout: Option<Setting>,
        idle_timeout: Option<Setting>,
        secret_parameter: Option<Setting>,
        ui: Option<Setting>,
        trusted_proxies: Option<Setting>,
        tls: Option<RawTls>,
    }
}

group! {
    /// `resp`
    RawResp {
        enabled: Option<Setting>,
        bind: Option<Setting>,
        password: Option<Setting>,
        max_connections: Option<Setting>,
        max_connections_per_address: Option<Setting>,
        idle_timeout: Option<Setting>,
        writes: Option<Choice>,
        notify: Option<Setting>,
        tls: Option<RawTls>,
    }
}

group! {
    /// `tls` of a listener.
    RawTls {
        cert: Option<Setting>,
        key: Option<Setting>,
        client_ca: Option<Setting>,
    }
}

group! {
    /// One of `clients`.
    RawClient {
        keys: Option<Setting>,
        sources: Option<Setting>,
        addresses: Option<Setting>,
    }
}

group! {
    /// `store`
    RawStore {
        path: Option<Setting>,
        key: Option<Setting>,
        old_keys: Option<Setting>,
    }
}

group! {
    /// `refresh`: the defaults of every source.
    RawRefresh {
        renew_before: Option<Setting>,
        must_renew_before: Option<Setting>,
        overlap: Option<Setting>,
        cooldown: Option<Setting>,
        timeout: Option<Setting>,
    }
}

group! {
    /// `outbound`
    RawOutbound {
        ca_file: Option<Setting>,
        proxy: Option<Setting>,
    }
}

group! {
    /// `log`
    RawLog {
        level: Option<Setting>,
        format: Option<Setting>,
        dir: Option<Setting>,
        keep: Option<Setting>,
    }
}

group! {
    /// `ready`
    RawReady {
        sources: Option<Setting>,
        life: Option<Setting>,
    }
}

group! {
    /// `metrics`
    RawMetrics {
        bind: Option<Setting>,
        public: Option<Setting>,
    }
}

group! {
    /// One of `token_sources`.
    RawSource {
        url: Option<Setting>,
        hosts: Option<Setting>,
        method: Option<Setting>,
        args: Table<Setting>,
        json: Option<Table<Setting>>,
        form: Option<Table<Setting>>,
        headers: Table<Setting>,
        basic: Option<RawBasic>,
        force: Option<Table<Setting>>,
        capture: Option<Setting>,
        captured: Option<Setting>,
        value_field: Option<Setting>,
        expires_field: Option<Setting>,
        expires_unit: Option<Setting>,
        expires_is: Option<Choice>,
        success: Option<RawSuccess>,
        error_field: Option<Setting>,
        message_field: Option<Setting>,
        lifetime: Option<Setting>,
        rotation: Option<Choice>,
        follow: Option<Setting>,
        account: Option<Setting>,
        daily_limit: Option<Setting>,
        renew_before: Option<Setting>,
        must_renew_before: Option<Setting>,
        overlap: Option<Setting>,
        cooldown: Option<Setting>,
        timeout: Option<Setting>,
    }
}

group! {
    /// `basic` of a source: HTTP Basic authentication.
    RawBasic {
        user: Option<Setting>,
        password: Option<Setting>,
    }
}

group! {
    /// `success` of a source: how an answer says that it is one.
    RawSuccess {
        field: Option<Setting>,
        value: Option<Setting>,
    }
}

group! {
    /// One of `webhooks`.
    RawWebhook {
        url: Option<Setting>,
        kind: Option<Choice>,
        secret: Option<Setting>,
        events: Option<Setting>,
        quiet: Option<Setting>,
        gather: Option<Setting>,
        language: Option<Setting>,
        server_name: Option<Setting>,
    }
}

/// The settings of `Sticky` in a source's `rotation`.
pub(super) const STICKY_NAMES: &[&str] = &["window"];

/// The names of the settings, group by group.
pub(super) fn groups() -> [&'static [&'static str]; 16] {
    [
        RawConfig::NAMES,
        RawHttp::NAMES,
        RawResp::NAMES,
        RawTls::NAMES,
        RawClient::NAMES,
        RawStore::NAMES,
        RawRefresh::NAMES,
        RawOutbound::NAMES,
        RawLog::NAMES,
        RawReady::NAMES,
        RawMetrics::NAMES,
        RawSource::NAMES,
        RawBasic::NAMES,
        RawSuccess::NAMES,
        STICKY_NAMES,
        RawWebhook::NAMES,
    ]
}

/// Reads the text. What it says under names that do not exist comes back as mistakes.
///
/// # Errors
/// The text is not RON, or a group of settings is something else: nothing beyond could be read.
pub(super) fn read(text: &str) -> Result<(RawConfig, Vec<Mistake>), Mistake> {
    let options = ron::Options::default().with_default_extension(Extensions::IMPLICIT_SOME);
    let unreadable = |error: ron::error::SpannedError| {
        let ron::error::Position { line, col } = error.span.start;
        Mistake::file(format!("line {line}, column {col}: {}", words(&error.code)))
    };
    let mut deserializer =
        ron::Deserializer::from_str_with_options(text, &options).map_err(unreadable)?;
    let mut mistakes = Vec::new();
    let config = serde_ignored::deserialize(&mut deserializer, |path| {
        // serde_ignored marks the inside of an Option by a `?`.
        mistakes.push(unknown(&path.to_string().replace(".?", "")));
    });
    let config = config
        .and_then(|config| deserializer.end().map(|()| config))
        .map_err(|error| unreadable(deserializer.span_error(error)))?;
    Ok((config, mistakes))
}

/// What is wrong, without what was found instead: it may be a secret whose quotes were forgotten.
fn words(error: &ron::Error) -> String {
    use ron::Error as E;
    match error {
        E::InvalidValueForType { expected, .. } => format!("Expected {expected}"),
        // ron's words are for the program's author.
        E::ExceededRecursionLimit => "is nested too deeply; no setting needs that".into(),
        E::ExpectedDifferentStructName { .. }
        | E::NoSuchEnumVariant { .. }
        | E::NoSuchStructField { .. }
        | E::NoSuchExtension(_)
        | E::InvalidIdentifier(_)
        | E::SuggestRawIdentifier(_) => {
            "Expected something else than this word; a text stands in double quotes".into()
        }
        other => other.to_string(),
    }
}

/// The mistake of a setting that does not exist, with the name that was probably meant.
fn unknown(path: &str) -> Mistake {
    let (group, name) = path.rsplit_once('.').unwrap_or(("", path));
    let names = match group {
        "" => RawConfig::NAMES,
        "http" => RawHttp::NAMES,
        "resp" => RawResp::NAMES,
        "http.tls" | "resp.tls" => RawTls::NAMES,
        "store" => RawStore::NAMES,
        "refresh" => RawRefresh::NAMES,
        "outbound" => RawOutbound::NAMES,
        "log" => RawLog::NAMES,
        "ready" => RawReady::NAMES,
        "metrics" => RawMetrics::NAMES,
        _ if group.starts_with("clients.") => RawClient::NAMES,
        _ if group.starts_with("webhooks.") => RawWebhook::NAMES,
        // Below a source; its name may hold dots, so only the end of the path tells.
        _ if group.ends_with(".basic") => RawBasic::NAMES,
        _ if group.ends_with(".success") => RawSuccess::NAMES,
        _ => RawSource::NAMES,
    };
    unknown_among(path, name, names)
}

/// The mistake of a `name` at `path` where only `names` may stand.
pub(super) fn unknown_among(path: &str, name: &str, names: &[&str]) -> Mistake {
    let what_to_do = match nearest(name, names.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("there are {}", names.join(", ")),
    };
    Mistake::at(path, format!("unknown setting; {what_to_do}"))
}

/// The name nearest to `name`, if any is near enough to have been meant.
pub(super) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, known)| *distance <= known.len().max(3) / 3)
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unknown_setting_is_found_in_one_reading() {
        let text = r#"(
            http: (bnd: "127.0.0.1:1"),
            refesh: (cooldown: "30s"),
            zzz: [1, 2],
            token_sources: {"a": (url: "u", argz: {"x": "y"}, basic: (usr: "u"), success: (x: 1))},
        )"#;
        let (_, mistakes) = read(text).unwrap();
        let found: Vec<(&str, bool)> = mistakes
            .iter()
            .map(|mistake| (mistake.path.as_str(), mistake.message.contains("did you mean")))
            .collect();
        let expected = [
            ("http.bnd", true),
            ("refesh", true),
            ("zzz", false),
            ("token_sources.a.argz", true),
            ("token_sources.a.basic.usr", true),
            ("token_sources.a.success.x", false),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn values_are_kept_as_they_were_written() {
        let text = r#"(
            http: (bind: 5, max_connections: "x", header_timeout: true, idle_timeout: [1]),
            request_secret: Some("s"),
            resp: (bind: None, password: -2, idle_timeout: (a: 1)),
            token_sources: {"b": (args: {"z": 1, "a": "2", "z": 3}), "a": ()},
        )"#;
        let (config, _) = read(text).unwrap();
        assert_eq!(config.http.bind, Some(Setting::Number(5)));
        assert_eq!(config.http.header_timeout, Some(Setting::Bool(true)));
        assert_eq!(config.http.idle_timeout, Some(Setting::List(vec![Setting::Number(1)])));
        assert_eq!(config.request_secret, Some(Setting::Text("s".to_owned().into())));
        assert_eq!(config.resp.bind, None);
        let group = Table(vec![("a".into(), Setting::Number(1))]);
        assert_eq!(config.resp.idle_timeout, Some(Setting::Table(group)));
        let names =
            |table: &Table<Setting>| table.0.iter().map(|r| r.0.clone()).collect::<Vec<_>>();
        assert_eq!(config.token_sources.0[0].0, "b");
        assert_eq!(names(&config.token_sources.0[0].1.args), ["z", "a", "z"]);
    }

    #[test]
    fn a_choice_is_a_word_with_or_without_settings() {
        let choice = |text: &str| {
            let text = format!("(token_sources: {{\"a\": (rotation: {text}, url: \"u\")}})");
            let (config, mistakes) = read(&text).map_err(|mistake| mistake.message)?;
            assert!(mistakes.is_empty());
            Ok::<_, String>(config.token_sources.0.into_iter().next().unwrap().1.rotation.unwrap())
        };
        let word = |word: &str| Choice { word: word.into(), settings: Table::default() };
        assert_eq!(choice("Rotating"), Ok(word("Rotating")));
        assert_eq!(choice("Whatever"), Ok(word("Whatever")));
        let window = Table(vec![("window".into(), Setting::Text("5m".to_owned().into()))]);
        assert_eq!(
            choice("Sticky(window: \"5m\")"),
            Ok(Choice { word: "Sticky".into(), settings: window })
        );
        for wrong in ["\"Rotating\"", "5", "Sticky", "Rotating(1)"] {
            assert!(choice(wrong).unwrap_err().contains("line 1"), "{wrong}");
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let deep = "is nested too deeply; no setting needs that";
        for (opening, end) in [
            ("[", deep),
            ("(a: ", deep),
            ("{\"a\": ", deep),
            ("Some(", "Expected a value"),
            ("a(", deep),
        ] {
            let text = format!("(store: (path: {}", opening.repeat(100_000));
            let message = read(&text).unwrap_err().message;
            assert!(message.contains("line 1") && message.contains(end), "{opening}: {message}");
        }
        assert!(read(&"/*".repeat(100_000)).unwrap_err().message.contains("comment"));
    }

    #[test]
    fn what_is_not_ron_is_placed() {
        for (text, place) in
            [("(http: (bind: \"x\")", "line 1"), ("(\n  http: 5)", "line 2"), ("", "line 1")]
        {
            let mistake = read(text).unwrap_err();
            assert!(mistake.message.contains(place), "{}", mistake.message);
        }
    }
}
