//! `import`: the running tokens of an old server, from its Redis into the store, so that the first start
//! of this one fetches nothing: a fetch would end them under whoever still has them.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

use super::clothes::{self, Worn};
use super::connection::printable;
use super::redis::{Client, Place, Reply};
use super::status::life;
use super::{
    Desk, EX_CONFIG, EX_DATAERR, EX_NOPERM, EX_OSERR, EX_TEMPFAIL, EX_USAGE, Failure, note, print,
};
use crate::cli::ImportArgs;
use crate::clock::Now;
use crate::config::{self, Config, Environment, TokenSource, Vendor};
use crate::outbound::Trust;
use crate::store::{self, Keys, RecordStore, Refused, Restored};
use crate::token::{Generation, Secret, TokenRecord};

/// Where redis-cli takes the password from.
const PASSWORD: &str = "REDISCLI_AUTH";

/// A token with less than this left is not taken over: the first start would hardly be done by then.
const SHORTEST_LIFE: Duration = Duration::from_secs(60);

/// With less than this left, the operator has to be quick.
const SHORT_LIFE: Duration = Duration::from_secs(600);

/// What a token of WeChat's lives, and a minute for clocks that differ: a longer TTL is not its life.
const LONGEST_LIFE: Duration = Duration::from_secs(7_260);

/// The keys of the original server.
const KEYS_OF_THE_ORIGINAL: [&str; 2] = ["access_token", "ticket"];

/// A token that is to be taken over.
struct Found<'a> {
    source: &'a TokenSource,
    key: &'a str,
    record: TokenRecord,
}

/// Takes the tokens over.
pub(super) async fn import(args: &ImportArgs, desk: &Desk<'_>) -> Result<u8, Failure> {
    let config = config::load(desk.file, desk.environment)
        .map_err(|mistakes| Failure::new(EX_CONFIG, mistakes))?;
    let place = place(&args.from, desk.environment)?;
    let wanted = wanted(&args.keys, &config)?;
    let now = desk.clock.now();
    let found = read(&place, args, &wanted, now)?;
    if found.is_empty() {
        let keys: Vec<&str> = wanted.iter().map(|wish| wish.key).collect();
        let keys = keys.join(" or ");
        return Err(Failure::new(
            EX_DATAERR,
            format_args!("the old Redis has no {keys}; name the keys of its tokens as KEY=SOURCE"),
        ));
    }
    keep(&config, found, args.replace, desk).await?;
    Ok(0)
}

fn place(from: &Secret, environment: &Environment) -> Result<Place, Failure> {
    let mut place = Place::parse(from)?;
    if place.password.is_some() {
        note(&format!(
            "a password on a command line can be seen by everybody on this machine; {PASSWORD} hides it"
        ));
    } else {
        let variable = environment.get(PASSWORD).filter(|password| !password.is_empty());
        place.password = variable.map(Secret::new);
    }
    Ok(place)
}

/// A key of the old Redis, and the source that its token is for.
struct Wish<'a> {
    key: &'a str,
    source: &'a TokenSource,
    /// Whether the operator named it: then it has to be there.
    is_named: bool,
}

/// Which keys are for which sources.
fn wanted<'a>(keys: &'a [String], config: &'a Config) -> Result<Vec<Wish<'a>>, Failure> {
    let usage = |words: String| Failure::new(EX_USAGE, words);
    let mut wishes: Vec<Wish<'a>> = Vec::new();
    for text in keys {
        // A name of a source has no "=", a key may.
        let (key, name) = text
            .rsplit_once('=')
            .filter(|(key, name)| !key.is_empty() && !name.is_empty())
            // Not in its words: it may be another address, with a password.
            .ok_or_else(|| {
                usage("what stands behind the address has to be written KEY=SOURCE".into())
            })?;
        let source = config.sources.iter().find(|source| source.name.as_str() == name);
        let source = source.ok_or_else(|| {
            usage(format!("{}: there is no such source in the config", printable(name)))
        })?;
        if wishes.iter().any(|wish| wish.source.name == source.name) {
            return Err(usage(format!("{name} is named twice: it has one token")));
        }
        wishes.push(Wish { key, source, is_named: true });
    }
    if wishes.is_empty() {
        let found = KEYS_OF_THE_ORIGINAL
            .iter()
            .filter_map(|key| Some(Wish { key, source: namesake(key, config)?, is_named: false }));
        wishes.extend(found);
    }
    if wishes.is_empty() {
        let names = config.sources.iter().map(|source| source.name.as_str());
        let names: Vec<&str> = names.collect();
        return Err(usage(format!(
            "which source is the old access_token for? Write access_token=SOURCE with one of {}",
            names.join(", ")
        )));
    }
    Ok(wishes)
}

/// The source that a key of the original is for: the one of its name, else the only one of its kind.
fn namesake<'a>(key: &str, config: &'a Config) -> Option<&'a TokenSource> {
    let sources = || config.sources.iter();
    if let Some(source) = sources().find(|source| source.name.as_str() == key) {
        return Some(source);
    }
    let endpoints: &[&str] = match key {
        "ticket" => &["/cgi-bin/ticket/getticket"],
        _ => &["/cgi-bin/token", "/cgi-bin/stable_token"],
    };
    let mut of_kind = sources().filter(|source| {
        source.vendor == Vendor::WeChat
            && endpoints.iter().any(|end| source.url.path().ends_with(end))
    });
    of_kind.next().filter(|_| of_kind.next().is_none())
}

/// Reads what is wanted. All or nothing: what is wrong with any of it is said, and nothing is kept.
fn read<'a>(
    place: &Place,
    args: &ImportArgs,
    wanted: &[Wish<'a>],
    now: Now,
) -> Result<Vec<Found<'a>>, Failure> {
    let trust = Trust { beside: args.ca.clone(), ..Trust::default() };
    let mut redis = Client::connect(place, &trust)?;
    let mut found = Vec::with_capacity(wanted.len());
    for Wish { key, source, is_named } in wanted {
        let about = |wrong: String| {
            Failure::new(EX_DATAERR, format_args!("{} is not taken over: {wrong}", printable(key)))
        };
        match token(&mut redis, key)? {
            Some(read) => {
                let record = record(&read, source, now.wall).map_err(about)?;
                found.push(Found { source, key, record });
            }
            None if *is_named => return Err(about("the old Redis has no such key".into())),
            None => note(&format!(
                "the old Redis has no {key}; {} is fetched at the first start",
                source.name
            )),
        }
    }
    Ok(found)
}

/// A value and what its key says of its life.
struct Read {
    worn: Zeroizing<Vec<u8>>,
    /// What is left, by the key's TTL.
    ttl: Option<Duration>,
    /// The end, by something that stands beside it.
    ends: Option<SystemTime>,
}

/// What a key holds; `None` if there is none.
fn token(redis: &mut Client, key: &str) -> Result<Option<Read>, Failure> {
    let text = |reply: Reply| match reply {
        Reply::Text(text) => Some(text),
        _ => None,
    };
    let kind = text(redis.tell(&["TYPE", key])?).unwrap_or_default();
    let refused = |wrong: &str| {
        Failure::new(EX_DATAERR, format_args!("{} is not taken over: {wrong}", printable(key)))
    };
    // It may be renewed between two requests: then its TTL would be the new one's.
    for _ in 0..3 {
        let (worn, ends) = match &kind[..] {
            b"none" => return Ok(None),
            // The old configs of WxJava: a hash of value and end.
            b"hash" => match redis.tell(&["HMGET", key, "value", "expire"])? {
                Reply::List(fields) => {
                    let mut fields = fields.into_iter().map(text);
                    let worn = fields.next().flatten();
                    (worn, fields.next().flatten().and_then(|end| instant(&end, 1)))
                }
                _ => (None, None),
            },
            b"string" => (text(redis.tell(&["GET", key])?), None),
            other => {
                let kind = printable(&String::from_utf8_lossy(other));
                return Err(refused(&format!("it is a {kind}, not a token")));
            }
        };
        let Some(worn) = worn else {
            // The hash may also have ended since its type was asked for.
            if &kind[..] == b"hash" && matches!(redis.tell(&["EXISTS", key])?, Reply::Number(1)) {
                return Err(refused("it is a hash without the field `value`"));
            }
            return Ok(None);
        };
        let Reply::Number(ttl) = redis.tell(&["PTTL", key])? else { return Ok(None) };
        let ends = match (ends, ttl) {
            // wechatpy keeps the end of some tokens in a key of its own.
            (None, -1) => {
                let beside = format!("{key}_expires_at");
                let is_text = text(redis.tell(&["TYPE", &beside])?)
                    .is_some_and(|kind| &kind[..] == b"string");
                let end = if is_text { text(redis.tell(&["GET", &beside])?) } else { None };
                end.and_then(|end| instant(&end, 1_000))
            }
            (ends, _) => ends,
        };
        let again = match &kind[..] {
            b"hash" => match redis.tell(&["HMGET", key, "value"])? {
                Reply::List(fields) => fields.into_iter().next().and_then(text),
                _ => None,
            },
            _ => text(redis.tell(&["GET", key])?),
        };
        if again.as_ref() == Some(&worn) {
            let ttl = u64::try_from(ttl).ok().map(Duration::from_millis);
            return Ok(Some(Read { worn, ttl, ends }));
        }
    }
    Ok(None)
}

/// An instant that is written as a whole number since the Unix epoch; `unit` is how many milliseconds one is.
fn instant(text: &[u8], unit: u64) -> Option<SystemTime> {
    let number: u64 = std::str::from_utf8(text).ok()?.trim().parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::from_millis(number.checked_mul(unit)?))
}

/// The record of what was read, or why there is none.
fn record(read: &Read, source: &TokenSource, now: SystemTime) -> Result<TokenRecord, String> {
    let Worn { value, ends } = clothes::taken_off(&read.worn)?;
    let by_clock = |end: SystemTime| end.duration_since(now).unwrap_or_default();
    let lives = [read.ttl, read.ends.map(by_clock), ends.map(by_clock), source.policy.lifetime];
    let known = &lives[..3];
    if known.iter().all(Option::is_none) {
        return Err(
            "its key has no TTL, so nobody knows how long it lives; set one in the old Redis if you know \
             (EXPIRE), or leave it out: the first start fetches another"
                .into(),
        );
    }
    // The shortest of all that is said.
    let left = lives.into_iter().flatten().min().unwrap_or_default();
    let is_of_wechat = matches!(source.vendor, Vendor::WeChat | Vendor::Component | Vendor::WeCom);
    if is_of_wechat && left > LONGEST_LIFE {
        return Err(format!(
            "its key has a TTL of {}, which is longer than WeChat's tokens live; it is something else, or old",
            life(left.as_secs())
        ));
    }
    if left < SHORTEST_LIFE {
        return Err(format!(
            "it ends in {}; wait until the old server has renewed it",
            life(left.as_secs())
        ));
    }
    Ok(TokenRecord {
        value,
        fetched_at: now,
        expires_at: now + left,
        // Until the store has said what it has.
        generation: Generation(0),
        first_seen: now,
        identity: source.identity,
        captured: None,
    })
}

/// Writes the records, and says so.
async fn keep(
    config: &Config,
    found: Vec<Found<'_>>,
    replace: bool,
    desk: &Desk<'_>,
) -> Result<(), Failure> {
    let dir = &config.store.path;
    its_owner(dir)?;
    let keys = Keys::new(config.store.key.as_ref(), &config.store.old_keys);
    let (tokens, restored, closing) =
        store::open(dir, keys, Duration::ZERO, &desk.clock).map_err(|refused| match refused {
            Refused::Locked(_) => Failure::new(
                EX_TEMPFAIL,
                format_args!(
                    "the server is running, or another import is: it has the store {}. Tokens are taken over before \
                     the server starts: stop it first",
                    dir.display()
                ),
            ),
            Refused::WrongKey(wrong) => Failure::new(EX_CONFIG, wrong),
        })?;
    let outcome = match &restored.memory_only {
        Some(error) => Err(Failure::new(
            EX_OSERR,
            format_args!("the store {} cannot be written: {error}", dir.display()),
        )),
        None => write(&tokens, &restored, found, replace, desk.clock.now()).await,
    };
    drop(tokens);
    closing.wait();
    outcome
}

async fn write(
    tokens: &impl RecordStore,
    restored: &Restored,
    found: Vec<Found<'_>>,
    replace: bool,
    now: Now,
) -> Result<(), Failure> {
    let before =
        |name| restored.records.iter().find(|(known, _)| known == name).map(|(_, record)| record);
    for Found { source, record, .. } in &found {
        let own = before(&source.name).filter(|own| own.identity == source.identity);
        let left = own.filter(|own| own.value != record.value).and_then(|own| own.ttl(now.wall));
        if let Some(left) = left.filter(|_| !replace) {
            return Err(Failure::new(
                EX_DATAERR,
                format_args!(
                    "nothing is taken over: the store has a token of its own for {}, good for {}; --replace puts \
                     the old server's in its place",
                    source.name,
                    life(left.as_secs())
                ),
            ));
        }
    }
    let mut said = Ok(true);
    for Found { source, key, record } in found {
        let generation =
            before(&source.name).map_or(Generation::first(now), |own| own.generation.next());
        let record = TokenRecord { generation, ..record };
        tokens.put(&source.name, &record).await.map_err(|error| {
            Failure::new(EX_OSERR, format_args!("{} is not on disk: {error}", source.name))
        })?;
        let left = record.lifetime();
        // That nobody can be told of one keeps no other from being taken over.
        said = said.and(print(&format!(
            "{}: the token of {} is taken over, good for {}\n",
            source.name,
            printable(key),
            life(left.as_secs())
        )));
        if left < SHORT_LIFE {
            note(&format!("{} is renewed within minutes of the start: be quick", source.name));
        }
    }
    said.and(print(
        "Now stop the old server, then start this one: it serves these tokens, and fetches others when they are \
         due.\n",
    ))?;
    Ok(())
}

/// Sees to it that the store stays its owner's: the server could not write what another user puts there.
fn its_owner(dir: &Path) -> Result<(), Failure> {
    let (Ok(store), Ok(own)) = (std::fs::metadata(dir), std::fs::metadata("/proc/self")) else {
        return Ok(());
    };
    if store.uid() == own.uid() {
        return Ok(());
    }
    Err(Failure::new(
        EX_NOPERM,
        format_args!(
            "the store {} belongs to user {}, and you are user {}: what you put there the server could not read. Run \
             this as its user (sudo -u '#{}' …)",
            dir.display(),
            store.uid(),
            own.uid(),
            store.uid()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(sources: &str) -> Config {
        let text = format!("(token_sources: {{{sources}}})");
        config::parse(&text, Path::new("c.ron"), &Environment::default()).unwrap()
    }

    const TOKEN: &str = r#"(url: "https://api.weixin.qq.com/cgi-bin/token")"#;
    const TICKET: &str = r#"(url: "https://api.weixin.qq.com/cgi-bin/ticket/getticket")"#;

    #[test]
    fn the_originals_keys_are_for_the_sources_of_the_same_meaning() {
        let of = |sources: &str, keys: &[&str]| {
            let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            let config = config(sources);
            let wanted =
                wanted(&keys, &config).map_err(|failure| (failure.code, failure.message))?;
            let shown = wanted.iter().map(|wish| format!("{}={}", wish.key, wish.source.name));
            Ok(shown.collect::<Vec<_>>().join(" "))
        };
        let shop = format!(r#""shop": {TOKEN}, "jsapi": {TICKET}"#);
        let two = format!(r#""a": {TOKEN}, "b": {TOKEN}"#);
        let same = format!(r#""access_token": {TOKEN}, "ticket": {TICKET}, "more": {TOKEN}"#);
        for (sources, keys, expected) in [
            (&same, &[][..], "access_token=access_token ticket=ticket"),
            (&shop, &[], "access_token=shop ticket=jsapi"),
            (&two, &["wx:a=b:c=a", "x=b"], "wx:a=b:c=a x=b"),
        ] {
            assert_eq!(of(sources, keys), Ok::<_, (u8, String)>(expected.to_owned()));
        }
        for (sources, keys, words) in [
            (&two, &[][..], "with one of a, b"),
            (&two, &["x"], "written KEY=SOURCE"),
            (&two, &["=a"], "written KEY=SOURCE"),
            (&two, &["x=c"], "no such source"),
            (&two, &["x=a", "y=a"], "named twice"),
        ] {
            let (code, message) = of(sources, keys).unwrap_err();
            assert_eq!((code, message.contains(words)), (EX_USAGE, true), "{message}");
        }
    }

    #[test]
    fn a_life_is_the_shortest_that_anything_says() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let config = config(&format!(
            r#""t": {TOKEN}, "capped": (url: "https://h/cgi-bin/token", lifetime: "1000s"), "other": (url: "https://h/x")"#
        ));
        let value = "a-token-of-WeChats-0123456789";
        let life_of = |name: &str, ttl: Option<u64>, ends: Option<i64>| {
            let source = config.sources.iter().find(|source| source.name.as_str() == name).unwrap();
            let at = |offset: i64| {
                UNIX_EPOCH + Duration::from_secs(1_800_000_000_u64.saturating_add_signed(offset))
            };
            let read = Read {
                worn: Zeroizing::new(value.into()),
                ttl: ttl.map(Duration::from_secs),
                ends: ends.map(at),
            };
            record(&read, source, now).map(|record| record.lifetime().as_secs())
        };
        assert_eq!(life_of("t", Some(5_000), None), Ok(5_000));
        assert_eq!(life_of("t", None, Some(4_000)), Ok(4_000));
        assert_eq!(life_of("t", Some(5_000), Some(4_000)), Ok(4_000));
        assert_eq!(life_of("capped", Some(5_000), None), Ok(1_000));
        assert_eq!(life_of("other", Some(86_400), None), Ok(86_400));
        for (ttl, ends, words) in [
            (None, None, "no TTL"),
            (Some(59), None, "ends in 59s"),
            (Some(5_000), Some(-1), "ends in 0s"),
            (Some(86_400), None, "TTL of 1d00h"),
        ] {
            let wrong = life_of("t", ttl, ends).unwrap_err();
            assert!(wrong.contains(words) && !wrong.contains(value), "{wrong}");
        }
    }
}
