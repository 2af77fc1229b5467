//! One value of the config as it was written, before it means anything. Knows no setting by name.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, EnumAccess, MapAccess, VariantAccess, Visitor};
use zeroize::Zeroizing;

/// A value as it was written. It may be a secret, so `Debug` shows its kind only, and a text is wiped.
#[derive(Clone, PartialEq)]
pub(super) enum Setting {
    Text(Zeroizing<String>),
    Number(i128),
    Fraction(f64),
    Bool(bool),
    List(Vec<Setting>),
    /// `{"name": …}` or `(name: …)`.
    Table(Table<Setting>),
    /// `()`, or a bare word.
    Nothing,
}

/// A map that remembers its order and its repeated names.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Table<V>(pub Vec<(String, V)>);

/// One of several words, such as `Rotating`; some have settings, such as `Sticky(window: "5m")`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choice {
    pub word: String,
    /// What stands in the parentheses of a word of [`Choice::WITH_SETTINGS`].
    pub settings: Table<Setting>,
}

impl Setting {
    /// What it is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Setting::Text(_) => "a text",
            Setting::Number(_) => "a number",
            Setting::Fraction(_) => "a fraction",
            Setting::Bool(_) => "true or false",
            Setting::List(_) => "a list",
            Setting::Table(_) => "a group of settings",
            Setting::Nothing => "no value",
        }
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
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
                Ok(Setting::Text(text.to_owned().into()))
            }

            // A text with escapes, which the reader has put together and gives away.
            fn visit_string<E>(self, text: String) -> Result<Setting, E> {
                Ok(Setting::Text(text.into()))
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

            fn visit_f64<E>(self, number: f64) -> Result<Setting, E> {
                Ok(Setting::Fraction(number))
            }

            fn visit_unit<E>(self) -> Result<Setting, E> {
                Ok(Setting::Nothing)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Setting, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Setting::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Setting, A::Error> {
                Table::deserialize(MapAccessDeserializer::new(map)).map(Setting::Table)
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

impl Choice {
    /// The words that are followed by settings in parentheses.
    const WITH_SETTINGS: &[&str] = &["Sticky"];
}

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Choice, D::Error> {
        struct Word(String);

        impl<'de> Deserialize<'de> for Word {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Word, D::Error> {
                struct Any;

                impl Visitor<'_> for Any {
                    type Value = Word;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a word")
                    }

                    fn visit_str<E>(self, text: &str) -> Result<Word, E> {
                        Ok(Word(text.to_owned()))
                    }
                }

                deserializer.deserialize_identifier(Any)
            }
        }

        struct Settings;

        impl<'de> Visitor<'de> for Settings {
            type Value = Table<Setting>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("settings such as (window: \"5m\")")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Table<Setting>, A::Error> {
                Table::deserialize(MapAccessDeserializer::new(map))
            }
        }

        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Choice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word such as Rotating")
            }

            fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Choice, A::Error> {
                let (Word(word), content) = access.variant()?;
                let settings = if Choice::WITH_SETTINGS.contains(&word.as_str()) {
                    content.struct_variant(&[], Settings)?
                } else {
                    // Any word is taken: which ones there are is said with the setting's path.
                    content.unit_variant()?;
                    Table::default()
                };
                Ok(Choice { word, settings })
            }
        }

        // The words are checked later, so none is named here.
        deserializer.deserialize_enum("", &[], Any)
    }
}
