//! From what was written to what it means: defaults, ranges, cross-checks. Collects every mistake
//! and goes on with the default in its place, so that an operator sees them all at once.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;
use zeroize::Zeroizing;

use super::clients::lower_clients;
use super::error::Saying;
use super::expand::{Environment, expand};
use super::exposure::Exposure;
use super::raw::{RawConfig, RawLog, RawOutbound, RawRefresh, nearest};
use super::setting::{Choice, Setting};
use super::sources::lower_sources;
use super::template::wipe;
use super::webhooks::lower_webhooks;
use super::{
    Advice, Config, ConfigErrors, Files, HttpConfig, LogConfig, LogFormat, Mistake, OutboundConfig,
    RefreshPolicy, RespConfig, TlsConfig, Whereabouts,
};
use crate::duration::parse_duration;
use crate::token::Secret;

/// Gives `raw` its meaning. `None` only when nothing sensible could stand in for a mistake, all of
/// which are in `mistakes`.
pub(super) fn lower(
    raw: RawConfig,
    file: &Path,
    environment: &Environment,
    files: Files,
    mistakes: &mut Vec<Mistake>,
) -> Option<Config> {
    let mut lowering = Lowering::new(file, environment, mistakes);
    let http = lowering.http(raw.http);
    let resp = lowering.resp(raw.resp, &http, !raw.clients.0.is_empty());
    let store = lowering.store(raw.store);
    let request_secret = lowering.key("request_secret", raw.request_secret);
    let defaults = lowering.refresh("refresh", raw.refresh, &RefreshPolicy::default());
    let outbound = lowering.outbound(raw.outbound);
    if files == Files::Sought {
        lowering.seek_files(&http, resp.as_ref(), &outbound);
    }
    let log = lowering.log(raw.log);
    let grace_period = lowering.duration("grace_period", raw.grace_period, Duration::from_secs(10));
    let webhooks = lower_webhooks(raw.webhooks, &mut lowering);
    let metrics = lowering.metrics(raw.metrics, &http, resp.as_ref());
    let names = raw.token_sources.0.iter().map(|(name, _)| name.clone()).collect();
    let sources = lower_sources(raw.token_sources, &defaults, &mut lowering);
    let ready = lowering.ready(raw.ready, &names);
    let clients = {
        let password = resp.as_ref().and_then(|resp| resp.password.as_ref());
        let taken = [("resp.password", password), ("request_secret", request_secret.as_ref())];
        lower_clients(raw.clients, &names, &taken, &mut lowering)
    };
    std::mem::take(&mut lowering.exposure).advise(file, &mut lowering);
    Some(Config {
        http,
        resp,
        store,
        request_secret,
        clients,
        outbound,
        log,
        ready,
        metrics,
        webhooks,
        grace_period,
        sources: sources?,
        advice: lowering.advice,
    })
}

/// Gives the settings of `raw` a meaning that tell where its server is.
///
/// # Errors
/// Every mistake in them.
pub(super) fn whereabouts(
    raw: RawConfig,
    file: &Path,
    environment: &Environment,
) -> Result<Whereabouts, ConfigErrors> {
    let mut mistakes = Vec::new();
    let mut lowering = Lowering::new(file, environment, &mut mistakes);
    let http = lowering.http(raw.http);
    let store = lowering.path("store.path", raw.store.path);
    let store = store.unwrap_or_else(|| lowering.dir.join(DEFAULT_STORE));
    let known = lowering.mistakes_so_far();
    let key = lowering.key("request_secret", raw.request_secret);
    let of_key = mistakes.split_off(known);
    mistakes.retain(|mistake| {
        ["http.bind", "http.tls", "store."].iter().any(|group| mistake.path.starts_with(group))
    });
    if !mistakes.is_empty() {
        return Err(ConfigErrors::new(file, mistakes));
    }
    let key = if of_key.is_empty() { Ok(key) } else { Err(ConfigErrors::new(file, of_key)) };
    Ok(Whereabouts { bind: http.bind, tls: http.tls, store, key })
}

/// Where the store is when `store.path` does not say, beside the config.
pub(super) const DEFAULT_STORE: &str = "data";

/// What every setting is lowered with.
pub(super) struct Lowering<'a> {
    pub(super) dir: &'a Path,
    environment: &'a Environment,
    mistakes: &'a mut Vec<Mistake>,
    advice: Vec<Advice>,
    pub(super) exposure: Exposure,
    /// What was put into the last text that was expanded.
    pub(super) taken: Vec<Zeroizing<String>>,
}

impl<'a> Lowering<'a> {
    fn new(
        file: &'a Path,
        environment: &'a Environment,
        mistakes: &'a mut Vec<Mistake>,
    ) -> Lowering<'a> {
        Lowering {
            dir: file.parent().unwrap_or(Path::new("")),
            environment,
            mistakes,
            advice: Vec::new(),
            exposure: Exposure::default(),
            taken: Vec::new(),
        }
    }
}

impl Lowering<'_> {
    pub(super) fn mistake(&mut self, path: impl Into<String>, message: impl Into<String>) {
        let message = self.without_taken(message.into());
        self.push(Mistake::at(path, message));
    }

    pub(super) fn advise(&mut self, path: impl Into<String>, saying: impl Into<Saying>) {
        let Saying { en, zh } = saying.into();
        let en = self.without_taken(en);
        let zh = zh.map(|zh| self.without_taken(zh));
        self.advice.push(Advice::on(path, en, zh));
    }

    pub(super) fn push(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }

    /// How many mistakes have been found: whether one more has been is how its caller can tell.
    pub(super) fn mistakes_so_far(&self) -> usize {
        self.mistakes.len()
    }

    pub(super) fn wrong_kind(&mut self, path: &str, setting: &Setting, wanted: &str) {
        self.mistake(path, format!("is {}, but {wanted} is needed", setting.kind()));
    }

    /// The text with its `${…}` replaced.
    pub(super) fn expanded(&mut self, path: &str, text: &str) -> Zeroizing<String> {
        let mut wrong = Vec::new();
        let expanded = expand(text, self.environment, self.dir, &mut wrong);
        self.taken = expanded.taken;
        self.mistakes.extend(wrong.into_iter().map(|message| Mistake::at(path, message)));
        expanded.text
    }

    /// A text as it was written; `None` if it is not set (or no text, which is a mistake).
    pub(super) fn written(
        &mut self,
        path: &str,
        setting: Option<Setting>,
    ) -> Option<Zeroizing<String>> {
        match setting? {
            Setting::Text(text) => Some(text),
            other => {
                self.wrong_kind(path, &other, "a text in double quotes");
                None
            }
        }
    }

    /// A text with its `${…}` replaced; `None` as in [`Lowering::written`], or when a part of it
    /// could not be had: then what is wrong has been said, and a second complaint about the
    /// remains would only confuse.
    pub(super) fn text(
        &mut self,
        path: &str,
        setting: Option<Setting>,
    ) -> Option<Zeroizing<String>> {
        let text = self.written(path, setting)?;
        let before = self.mistakes.len();
        let expanded = self.expanded(path, &text);
        (self.mistakes.len() == before).then_some(expanded)
    }

    /// A text that `read` makes something of; the default where it is not set or wrong.
    pub(super) fn read<T>(
        &mut self,
        path: &str,
        setting: Option<Setting>,
        default: T,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        match self.text(path, setting).map(|text| read(&text)) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(message)) => {
                self.mistake(path, message);
                default
            }
        }
    }

    pub(super) fn duration(
        &mut self,
        path: &str,
        setting: Option<Setting>,
        default: Duration,
    ) -> Duration {
        if let Some(number @ Setting::Number(_)) = &setting {
            self.wrong_kind(path, number, "a duration with its unit, such as \"30s\"");
            return default;
        }
        self.read(path, setting, default, parse_duration)
    }

    /// The items of a list, each with its path; `None` if it is not set (or no list, which is a
    /// mistake).
    pub(super) fn list(
        &mut self,
        path: &str,
        setting: Option<Setting>,
        wanted: &str,
    ) -> Option<Vec<(String, Setting)>> {
        match setting? {
            Setting::List(items) => {
                let items = items.into_iter().enumerate();
                Some(items.map(|(at, item)| (format!("{path}.{at}"), item)).collect())
            }
            other => {
                self.wrong_kind(path, &other, wanted);
                None
            }
        }
    }

    /// A duration that cannot be zero.
    pub(super) fn positive_duration(
        &mut self,
        path: &str,
        setting: Option<Setting>,
        default: Duration,
    ) -> Duration {
        match self.duration(path, setting, default) {
            Duration::ZERO => {
                self.mistake(path, "must be longer than 0s");
                default
            }
            duration => duration,
        }
    }

    pub(super) fn count(
        &mut self,
        path: &str,
        setting: Option<Setting>,
        default: usize,
        most: usize,
    ) -> usize {
        match setting {
            None => default,
            Some(Setting::Number(n)) => match usize::try_from(n) {
                Ok(n) if (1..=most).contains(&n) => n,
                _ => {
                    self.mistake(path, format!("is {n}, but must be from 1 to {most}"));
                    default
                }
            },
            Some(other) => {
                self.wrong_kind(path, &other, "a number");
                default
            }
        }
    }

    /// How many calls there may be in a day; 0 for as many as one likes.
    pub(super) fn daily_limit(&mut self, path: &str, setting: Setting) -> u32 {
        match setting {
            Setting::Number(number) => u32::try_from(number).unwrap_or_else(|_| {
                self.mistake(
                    path,
                    format!("is {number}, but must be from 0 (no limit) to 4294967295"),
                );
                0
            }),
            other => {
                self.wrong_kind(path, &other, "a number");
                0
            }
        }
    }

    /// What a word stands for among `words`.
    pub(super) fn choice<T: Copy>(
        &mut self,
        path: &str,
        choice: &Choice,
        words: &[(&str, T)],
    ) -> Option<T> {
        let found = words.iter().find(|(word, _)| *word == choice.word);
        if found.is_none() {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let what_to_do = match nearest(&choice.word, names.iter().copied()) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("write {}", names.join(", ")),
            };
            self.mistake(path, format!("there is no {}; {what_to_do}", choice.word));
        }
        found.map(|(_, meaning)| *meaning)
    }

    pub(super) fn flag(&mut self, path: &str, setting: Option<Setting>, default: bool) -> bool {
        match setting {
            None => default,
            Some(Setting::Bool(flag)) => flag,
            Some(other) => {
                self.wrong_kind(path, &other, "true or false");
                default
            }
        }
    }

    /// A path, relative to the directory of the config file.
    pub(super) fn path(&mut self, path: &str, setting: Option<Setting>) -> Option<PathBuf> {
        let text = self.text(path, setting)?;
        if text.is_empty() {
            self.mistake(path, "is empty; name a path");
            return None;
        }
        Some(self.dir.join(text.as_str()))
    }

    /// The refresh settings that stand under `path`, where `defaults` fill the gaps.
    pub(super) fn refresh(
        &mut self,
        path: &str,
        raw: RawRefresh,
        defaults: &RefreshPolicy,
    ) -> RefreshPolicy {
        let at = |name: &str| format!("{path}.{name}");
        RefreshPolicy {
            renew_before: self.positive_duration(
                &at("renew_before"),
                raw.renew_before,
                defaults.renew_before,
            ),
            must_renew_before: self.duration(
                &at("must_renew_before"),
                raw.must_renew_before,
                defaults.must_renew_before,
            ),
            overlap: self.duration(&at("overlap"), raw.overlap, defaults.overlap),
            cooldown: self.duration(&at("cooldown"), raw.cooldown, defaults.cooldown),
            timeout: self.positive_duration(&at("timeout"), raw.timeout, defaults.timeout),
            ..defaults.clone()
        }
    }

    fn outbound(&mut self, raw: RawOutbound) -> OutboundConfig {
        let ca_file = self.path("outbound.ca_file", raw.ca_file);
        if let Some(Setting::Text(text)) = &raw.proxy
            && text.contains(['@', '$'])
        {
            self.is_secret("outbound.proxy", text);
        }
        let proxy = self.text("outbound.proxy", raw.proxy).and_then(|text| {
            // The text may hold a password, so it is not repeated.
            match Url::parse(&text) {
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
                    wipe(url);
                    Some(Secret::new(text.as_str()))
                }
                _ => {
                    self.mistake("outbound.proxy", "is no proxy; write http://host:port");
                    None
                }
            }
        });
        OutboundConfig { ca_file, proxy }
    }

    /// Looks for the files that are read when the server starts: one that is missing is told with all other
    /// mistakes.
    fn seek_files(
        &mut self,
        http: &HttpConfig,
        resp: Option<&RespConfig>,
        outbound: &OutboundConfig,
    ) {
        let of_resp = resp.and_then(|resp| resp.tls.as_ref());
        for (path, tls) in [("http.tls", http.tls.as_ref()), ("resp.tls", of_resp)] {
            let Some(TlsConfig { cert, key, client_ca }) = tls else { continue };
            self.seek(&format!("{path}.cert"), cert);
            self.seek(&format!("{path}.key"), key);
            client_ca.iter().for_each(|file| self.seek(&format!("{path}.client_ca"), file));
        }
        outbound.ca_file.iter().for_each(|file| self.seek("outbound.ca_file", file));
    }

    fn seek(&mut self, path: &str, file: &Path) {
        if let Err(error) = file.metadata()
            && error.kind() == io::ErrorKind::NotFound
        {
            let file = file.display();
            let what_to_do = "name a file that is there; a relative path starts at the config file";
            self.mistake(path, format!("there is no {file}; {what_to_do}"));
        }
    }

    fn log(&mut self, raw: RawLog) -> LogConfig {
        let defaults = LogConfig::default();
        LogConfig {
            level: self.read("log.level", raw.level, defaults.level, |text| {
                if are_directives(text) {
                    Ok(text.to_owned())
                } else {
                    Err(format!("{text:?} is no level; write error, warn, info, debug or trace"))
                }
            }),
            format: self.read("log.format", raw.format, defaults.format, |text| match text {
                "pretty" => Ok(LogFormat::Pretty),
                "json" => Ok(LogFormat::Json),
                _ => Err(format!("{text:?} is no format; write pretty or json")),
            }),
            dir: self.path("log.dir", raw.dir),
            keep: self.count("log.keep", raw.keep, defaults.keep, 10_000),
        }
    }
}

/// Whether a text is a level, or levels of targets such as `info,wechat_token_server::resp=debug`.
/// A word alone must be a level: taken for a target, a slip of the pen would silence everything.
fn are_directives(text: &str) -> bool {
    let is_level = |word: &str| {
        !word.is_empty() && word.parse::<tracing::level_filters::LevelFilter>().is_ok()
    };
    text.split(',').map(str::trim).all(|directive| match directive.split_once('=') {
        Some((target, level)) => !target.is_empty() && is_level(level),
        None => is_level(directive),
    })
}
