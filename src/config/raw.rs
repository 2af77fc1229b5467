//! The shape of config.ron: what was written, before it means anything. The only file that names
//! ron. Values are kept as they were written ([`Setting`]), so that one wrong type does not stop the
//! reading; unknown settings are collected, not skipped.

use std::fmt;

use ron::extensions::Extensions;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::Mistake;

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Setting {
    Text(String),
    Number(i128),
    Bool(bool),
    /// Something that no setting takes; its kind.
    Other(&'static str),
}

/// A map that remembers its order and its repeated names.
#[derive(Debug)]
pub(super) struct Table<V>(pub Vec<(String, V)>);

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
        refresh: RawRefresh,
        outbound: RawOutbound,
        log: RawLog,
        grace_period: Option<Setting>,
        token_sources: Table<RawSource>,
    }
}

group! {
    /// `http`
    RawHttp {
        bind: Option<Setting>,
        max_connections: Option<Setting>,
        header_timeout: Option<Setting>,
        idle_timeout: Option<Setting>,
    }
}

group! {
    /// `resp`
    RawResp {
        enabled: Option<Setting>,
        bind: Option<Setting>,
        password: Option<Setting>,
        max_connections: Option<Setting>,
        idle_timeout: Option<Setting>,
    }
}

group! {
    /// `store`
    RawStore {
        path: Option<Setting>,
    }
}

group! {
    /// `refresh`: the defaults of every source.
    RawRefresh {
        renew_before: Option<Setting>,
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
    /// One of `token_sources`.
    RawSource {
        url: Option<Setting>,
        method: Option<Setting>,
        args: Table<Setting>,
        value_field: Option<Setting>,
        lifetime: Option<Setting>,
        renew_before: Option<Setting>,
        overlap: Option<Setting>,
        cooldown: Option<Setting>,
        timeout: Option<Setting>,
    }
}

/// The names of the settings, group by group.
pub(super) fn groups() -> [&'static [&'static str]; 8] {
    [
        RawConfig::NAMES,
        RawHttp::NAMES,
        RawResp::NAMES,
        RawStore::NAMES,
        RawRefresh::NAMES,
        RawOutbound::NAMES,
        RawLog::NAMES,
        RawSource::NAMES,
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
        Mistake::file(format!("line {line}, column {col}: {}", error.code))
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

/// The mistake of a setting that does not exist, with the name that was probably meant.
fn unknown(path: &str) -> Mistake {
    let (group, name) = path.rsplit_once('.').unwrap_or(("", path));
    let names = match group {
        "" => RawConfig::NAMES,
        "http" => RawHttp::NAMES,
        "resp" => RawResp::NAMES,
        "store" => RawStore::NAMES,
        "refresh" => RawRefresh::NAMES,
        "outbound" => RawOutbound::NAMES,
        "log" => RawLog::NAMES,
        _ => RawSource::NAMES,
    };
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

impl Setting {
    /// What it is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Setting::Text(_) => "a text",
            Setting::Number(_) => "a number",
            Setting::Bool(_) => "true or false",
            Setting::Other(kind) => kind,
        }
    }
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Setting, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Setting;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_str<E>(self, text: &str) -> Result<Setting, E> {
                Ok(Setting::Text(text.to_owned()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Setting, E> {
                Ok(Setting::Bool(value))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Setting, E> {
                Ok(Setting::Number(number.into()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Setting, E> {
                Ok(Setting::Number(number.into()))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Setting, E> {
                Ok(Setting::Other("a fraction"))
            }

            fn visit_unit<E>(self) -> Result<Setting, E> {
                Ok(Setting::Other("a group of settings"))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Setting, A::Error> {
                while list.next_element::<de::IgnoredAny>()?.is_some() {}
                Ok(Setting::Other("a list"))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Setting, A::Error> {
                while map.next_entry::<de::IgnoredAny, de::IgnoredAny>()?.is_some() {}
                Ok(Setting::Other("a group of settings"))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

impl<V> Default for Table<V> {
    fn default() -> Table<V> {
        Table(Vec::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Table<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Table<V>, D::Error> {
        struct Rows<V>(std::marker::PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Rows<V> {
            type Value = Table<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table such as {\"name\": …}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table<V>, A::Error> {
                let mut rows = Vec::new();
                while let Some(row) = map.next_entry()? {
                    rows.push(row);
                }
                Ok(Table(rows))
            }
        }

        deserializer.deserialize_map(Rows(std::marker::PhantomData))
    }
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
            token_sources: {"a": (url: "u", argz: {"x": "y"})},
        )"#;
        let (_, mistakes) = read(text).unwrap();
        let found: Vec<(&str, bool)> = mistakes
            .iter()
            .map(|mistake| (mistake.path.as_str(), mistake.message.contains("did you mean")))
            .collect();
        let expected =
            [("http.bnd", true), ("refesh", true), ("zzz", false), ("token_sources.a.argz", true)];
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
        assert_eq!(config.http.idle_timeout, Some(Setting::Other("a list")));
        assert_eq!(config.request_secret, Some(Setting::Text("s".into())));
        assert_eq!(config.resp.bind, None);
        assert_eq!(config.resp.idle_timeout, Some(Setting::Other("a group of settings")));
        let names =
            |table: &Table<Setting>| table.0.iter().map(|r| r.0.clone()).collect::<Vec<_>>();
        assert_eq!(config.token_sources.0[0].0, "b");
        assert_eq!(names(&config.token_sources.0[0].1.args), ["z", "a", "z"]);
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
