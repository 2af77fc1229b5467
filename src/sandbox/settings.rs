//! What can be set on the stand-in while it runs: rules of the token's life, quotas, latency.
//! A table makes each settable by name, for flags and for the control surface. Applies nothing.

use std::str::FromStr;
use std::time::Duration;

use crate::duration::{format_duration, parse_duration};

/// The rules that the stand-in plays by. Changed at any time; they hold for the next call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Life of an access token, and what every ticket answer states (WeChat: 7200 s).
    pub lifetime: Duration,
    /// How long the old token works after a fetch has replaced it; `None`: five minutes, or a
    /// twenty-fourth of a lifetime under two hours. See [`Settings::overlap`].
    pub overlap: Option<Duration>,
    /// How long before its end `stable_token` gives a new token; `None`: as for `overlap`.
    pub window: Option<Duration>,
    /// How long the same ticket is handed out; `None`: `lifetime`.
    pub ticket_lifetime: Option<Duration>,
    /// How long a ticket works after it is no longer handed out; `None`: as for `overlap`.
    pub ticket_grace: Option<Duration>,
    /// How long each answer takes. The model itself answers at once: this is the server's.
    pub latency: Duration,
    /// How far the `Date` of each answer is ahead of the stand-in's clock: for whoever asks it is a clock
    /// of their own that is late.
    pub date_ahead: Duration,
    /// Calls of `cgi-bin/token` per account and Beijing day.
    pub token_quota: Option<u32>,
    /// Calls of `cgi-bin/stable_token` per account and Beijing day.
    pub stable_quota: Option<u32>,
    /// Calls of `cgi-bin/stable_token` per account and minute.
    pub stable_per_minute: Option<u32>,
    /// Calls of `cgi-bin/ticket/getticket` per account and Beijing day.
    pub ticket_quota: Option<u32>,
    /// Forced refreshes of a stable token per account and Beijing day.
    pub force_quota: Option<u32>,
    /// How long after a forced refresh of a stable token another one changes nothing.
    pub force_interval: Duration,
    /// Calls of `clear_quota` per account and Beijing month.
    pub clear_quota: Option<u32>,
    /// Bytes of a token or ticket, 32 at least (WeChat's have about 136; it asks for room for 512).
    pub value_bytes: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            lifetime: Duration::from_secs(7_200),
            overlap: None,
            window: None,
            ticket_lifetime: None,
            ticket_grace: None,
            latency: Duration::ZERO,
            date_ahead: Duration::ZERO,
            // WeChat, "API call limits": a new account's.
            token_quota: Some(2_000),
            // WeChat, getStableAccessToken: both limits, the forced ones and the interval.
            stable_quota: Some(500_000),
            stable_per_minute: Some(10_000),
            force_quota: Some(20),
            force_interval: Duration::from_secs(30),
            // Not documented; a developer was refused after this many.
            ticket_quota: Some(10_000),
            // WeChat, clearQuotaByAppSecret.
            clear_quota: Some(10),
            value_bytes: 136,
        }
    }
}

/// WeChat's five minutes: overlap at a rotation, window of a stable token.
const FIVE_MINUTES: Duration = Duration::from_secs(300);
/// What five minutes are of two hours, for shorter lives.
const OF_THE_LIFETIME: u32 = 24;

impl Settings {
    fn five_minutes_scaled(&self) -> Duration {
        FIVE_MINUTES.min(self.lifetime / OF_THE_LIFETIME)
    }

    /// How long the old token works after a fetch has replaced it.
    pub fn overlap(&self) -> Duration {
        self.overlap.unwrap_or_else(|| self.five_minutes_scaled())
    }

    /// How long before its end `stable_token` gives a new token.
    pub fn window(&self) -> Duration {
        self.window.unwrap_or_else(|| self.five_minutes_scaled())
    }

    /// How long the same ticket is handed out.
    pub fn ticket_lifetime(&self) -> Duration {
        self.ticket_lifetime.unwrap_or(self.lifetime)
    }

    /// How long a ticket works after it is no longer handed out.
    pub fn ticket_grace(&self) -> Duration {
        self.ticket_grace.unwrap_or_else(|| self.five_minutes_scaled())
    }

    /// Sets the setting called `name` to what `text` says.
    ///
    /// # Errors
    /// Says which settings there are, or how a value is written.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            let names: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
            return Err(format!("no setting {name:?}; there are {}", names.join(", ")));
        };
        let set = match (setting.place)(self) {
            Place::Life(place) => parse_life(text).map(|value| *place = value),
            Place::Span(place) => parse_duration(text).map(|value| *place = value),
            Place::Scaled(place) => {
                unless("auto", text, parse_duration).map(|value| *place = value)
            }
            Place::Limit(place) => unless("none", text, parse_limit).map(|value| *place = value),
            Place::Bytes(place) => parse_bytes(text).map(|value| *place = value),
        };
        set.map_err(|what| format!("{name}: {what}"))
    }

    /// Every setting, as [`Settings::set`] reads it.
    pub fn list(&self) -> impl Iterator<Item = (&'static str, String)> {
        let mut copy = self.clone();
        SETTINGS.iter().map(move |setting| {
            let text = match (setting.place)(&mut copy) {
                Place::Span(span) | Place::Life(span) => format_duration(*span),
                Place::Scaled(span) => span.map_or_else(|| "auto".into(), format_duration),
                Place::Limit(limit) => limit.map_or_else(|| "none".into(), |n| n.to_string()),
                Place::Bytes(bytes) => bytes.to_string(),
            };
            (setting.name, text)
        })
    }
}

/// A setting and its new value, in words that [`Settings::set`] takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The name of the setting.
    pub name: String,
    /// How its value is written.
    pub value: String,
}

impl FromStr for Rule {
    type Err = String;

    /// Reads `NAME=VALUE`.
    fn from_str(text: &str) -> Result<Rule, String> {
        let wrong = || "write NAME=VALUE, such as overlap=2s".to_owned();
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        // Whether a value can be set does not depend on what the others are.
        Settings::default().set(name, value)?;
        Ok(Rule { name: name.to_owned(), value: value.to_owned() })
    }
}

/// Answers state whole seconds: a shorter life would be stated as zero.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);
/// Room for the readable part of a value; the upper end only keeps a typing error from harm.
const VALUE_BYTES: std::ops::RangeInclusive<usize> = 32..=65_536;

/// Where a setting's value stands, by the way it is written.
enum Place<'a> {
    Life(&'a mut Duration),
    Span(&'a mut Duration),
    Scaled(&'a mut Option<Duration>),
    Limit(&'a mut Option<u32>),
    Bytes(&'a mut usize),
}

struct Setting {
    name: &'static str,
    place: for<'a> fn(&'a mut Settings) -> Place<'a>,
}

/// The settings by name, in the order of the declaration.
static SETTINGS: &[Setting] = &[
    Setting { name: "lifetime", place: |s| Place::Life(&mut s.lifetime) },
    Setting { name: "overlap", place: |s| Place::Scaled(&mut s.overlap) },
    Setting { name: "window", place: |s| Place::Scaled(&mut s.window) },
    Setting { name: "ticket_lifetime", place: |s| Place::Scaled(&mut s.ticket_lifetime) },
    Setting { name: "ticket_grace", place: |s| Place::Scaled(&mut s.ticket_grace) },
    Setting { name: "latency", place: |s| Place::Span(&mut s.latency) },
    Setting { name: "date_ahead", place: |s| Place::Span(&mut s.date_ahead) },
    Setting { name: "token_quota", place: |s| Place::Limit(&mut s.token_quota) },
    Setting { name: "stable_quota", place: |s| Place::Limit(&mut s.stable_quota) },
    Setting { name: "stable_per_minute", place: |s| Place::Limit(&mut s.stable_per_minute) },
    Setting { name: "ticket_quota", place: |s| Place::Limit(&mut s.ticket_quota) },
    Setting { name: "force_quota", place: |s| Place::Limit(&mut s.force_quota) },
    Setting { name: "force_interval", place: |s| Place::Span(&mut s.force_interval) },
    Setting { name: "clear_quota", place: |s| Place::Limit(&mut s.clear_quota) },
    Setting { name: "value_bytes", place: |s| Place::Bytes(&mut s.value_bytes) },
];

/// Reads `word` as nothing, and anything else as `parse` does.
fn unless<T>(
    word: &str,
    text: &str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    if text == word { Ok(None) } else { parse(text).map(Some) }
}

/// Reads the life of an access token: a second at least.
///
/// # Errors
/// Says how it is written.
pub fn parse_life(text: &str) -> Result<Duration, String> {
    let life = parse_duration(text)?;
    if life < SHORTEST_LIFE { Err("is at least 1s".into()) } else { Ok(life) }
}

fn parse_limit(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} is no number; write 2000, or none"))
}

fn parse_bytes(text: &str) -> Result<usize, String> {
    let bytes = text.parse().ok().filter(|bytes| VALUE_BYTES.contains(bytes));
    bytes.ok_or_else(|| format!("{text:?} is no number from 32 to 65536"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_reads_what_it_writes() {
        let mut settings = Settings::default();
        let before: Vec<_> = settings.list().collect();
        for (name, text) in &before {
            settings.set(name, text).unwrap();
        }
        assert_eq!(settings, Settings::default());
        assert_eq!(before[0], ("lifetime", "2h".into()));
        assert_eq!(before.len(), SETTINGS.len());
    }

    #[test]
    fn settings_are_set_by_name() {
        let mut settings = Settings::default();
        for (name, text, refused) in [
            ("lifetime", "48s", None),
            ("overlap", "1500ms", None),
            ("window", "auto", None),
            ("token_quota", "none", None),
            ("value_bytes", "512", None),
            ("lifetime", "0s", Some("lifetime: is at least 1s")),
            ("latency", "1", Some("latency: \"1\" is no duration; write 500ms, 30s, 10m or 2h")),
            ("token_quota", "-1", Some("token_quota: \"-1\" is no number; write 2000, or none")),
            ("value_bytes", "8", Some("value_bytes: \"8\" is no number from 32 to 65536")),
        ] {
            assert_eq!(settings.set(name, text).err().as_deref(), refused, "{name}={text}");
        }
        assert!(settings.set("lifetme", "1s").unwrap_err().contains("there are lifetime, overlap"));
        assert_eq!(settings.lifetime, Duration::from_secs(48));
        assert_eq!(settings.overlap(), Duration::from_millis(1_500));
        assert_eq!(settings.window(), Duration::from_secs(2));
        assert_eq!((settings.token_quota, settings.value_bytes), (None, 512));
    }

    #[test]
    fn five_minutes_shrink_with_the_lifetime() {
        for (lifetime, expected) in
            [(86_400, 300_000), (7_200, 300_000), (3_600, 150_000), (48, 2_000), (20, 833)]
        {
            let settings =
                Settings { lifetime: Duration::from_secs(lifetime), ..Settings::default() };
            assert_eq!(settings.overlap().as_millis(), expected);
            assert_eq!(settings.window().as_millis(), expected);
        }
    }
}
