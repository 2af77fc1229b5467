//! `import`: the running tokens of an old server, from its Redis into the store, so that the first start
//! of this one fetches nothing: a fetch would end them under whoever still has them.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::connection::printable;
use super::inherited::{not_taken, record, token};
use super::redis::{Client, Place};
use super::status::life;
use super::{
    Desk, EX_CONFIG, EX_DATAERR, EX_NOPERM, EX_OSERR, EX_TEMPFAIL, EX_USAGE, Failure, Printer,
    note, print,
};
use crate::cli::ImportArgs;
use crate::clock::Now;
use crate::config::{self, Config, TokenSource, Vendor};
use crate::doctor::{Words, words};
use crate::outbound::Trust;
use crate::store::{self, Keys, RecordStore, Refused, Restored};
use crate::token::{Generation, Secret, TokenRecord};

/// Where redis-cli takes the password from.
const PASSWORD: &str = "REDISCLI_AUTH";

/// With less than this left, the operator has to be quick.
const SHORT_LIFE: Duration = Duration::from_secs(600);

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
    let place = place(&args.from, desk)?;
    let wanted = wanted(&args.keys, &config)?;
    let now = desk.clock.now();
    let found = read(&place, args, &wanted, now, &desk.printer)?;
    if found.is_empty() {
        let keys: Vec<&str> = wanted.iter().map(|wish| wish.key).collect();
        return Err(Failure::new(
            EX_DATAERR,
            format_args!(
                "the old Redis has no {}; name the keys of its tokens as KEY=SOURCE",
                keys.join(" or ")
            ),
        )
        .zh(format_args!(
            "旧 Redis 中没有 {}；请以 KEY=SOURCE 指明令牌所在的键",
            keys.join(" 或 ")
        )));
    }
    keep(&config, found, args.replace, desk).await?;
    Ok(0)
}

fn place(from: &Secret, desk: &Desk<'_>) -> Result<Place, Failure> {
    let mut place = Place::parse(from)?;
    if place.password.is_some() {
        note(&desk.printer.either(
            format!(
                "a password on a command line can be seen by everybody on this machine; {PASSWORD} hides it"
            ),
            format!("命令行中的密码对本机所有用户可见；请改用环境变量 {PASSWORD}"),
        ));
    } else {
        let variable = desk.environment.get(PASSWORD).filter(|password| !password.is_empty());
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
    let usage = |en: String, zh: String| Failure::new(EX_USAGE, en).zh(zh);
    let mut wishes: Vec<Wish<'a>> = Vec::new();
    for text in keys {
        // A name of a source has no "=", a key may.
        let (key, name) = text
            .rsplit_once('=')
            .filter(|(key, name)| !key.is_empty() && !name.is_empty())
            // Not in its words: it may be another address, with a password.
            .ok_or_else(|| {
                usage(
                    "what stands behind the address has to be written KEY=SOURCE".into(),
                    "地址之后的参数应写作 KEY=SOURCE".into(),
                )
            })?;
        let source = config.sources.iter().find(|source| source.name.as_str() == name);
        let source = source.ok_or_else(|| {
            let name = printable(name);
            Failure::new(EX_DATAERR, format_args!("{name}: there is no such source in the config"))
                .zh(format_args!("{name}：配置中没有该令牌源"))
        })?;
        if wishes.iter().any(|wish| wish.source.name == source.name) {
            return Err(usage(
                format!("{name} is named twice: it has one token"),
                format!("{name} 被指定了两次，而它只有一个令牌"),
            ));
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
        let names = names.join(", ");
        return Err(usage(
            format!(
                "which source is the old access_token for? Write access_token=SOURCE with one of {names}"
            ),
            format!("旧的 access_token 属于哪个令牌源？请写作 access_token=SOURCE，可选：{names}"),
        ));
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
    printer: &Printer,
) -> Result<Vec<Found<'a>>, Failure> {
    let trust = Trust { beside: args.ca.clone(), ..Trust::default() };
    let mut redis = Client::connect(place, &trust)?;
    let mut found = Vec::with_capacity(wanted.len());
    for Wish { key, source, is_named } in wanted {
        let about = |wrong: Words| not_taken(key, &wrong);
        match token(&mut redis, key)? {
            Some(read) => {
                let record = record(&read, source, now.wall).map_err(about)?;
                found.push(Found { source, key, record });
            }
            None if *is_named => {
                return Err(about(words("the old Redis has no such key", "旧 Redis 中没有该键")));
            }
            None => note(&printer.either(
                format!(
                    "the old Redis has no {key}; {} is fetched at the first start",
                    source.name
                ),
                format!("旧 Redis 中没有 {key}；{} 将在首次启动时获取", source.name),
            )),
        }
    }
    Ok(found)
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
            )
            .zh(format_args!(
                "服务器（或另一个 import）正在运行，并占用存储目录 {}。令牌须在服务器启动之前接管：请先停止它",
                dir.display()
            )),
            Refused::WrongKey(wrong) => Failure::new(EX_CONFIG, wrong),
        })?;
    let outcome = match &restored.memory_only {
        Some(error) => Err(Failure::new(
            EX_OSERR,
            format_args!("the store {} cannot be written: {error}", dir.display()),
        )
        .zh(format_args!("存储目录 {} 不可写：{error}", dir.display()))),
        None => write(&tokens, &restored, found, replace, desk).await,
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
    desk: &Desk<'_>,
) -> Result<(), Failure> {
    let (now, printer) = (desk.clock.now(), &desk.printer);
    let before =
        |name| restored.records.iter().find(|(known, _)| known == name).map(|(_, record)| record);
    for Found { source, record, .. } in &found {
        let own = before(&source.name).filter(|own| own.identity == source.identity);
        let left = own.filter(|own| own.value != record.value).and_then(|own| own.ttl(now.wall));
        if let Some(left) = left.filter(|_| !replace) {
            let (name, left) = (&source.name, life(left.as_secs()));
            return Err(Failure::new(
                EX_DATAERR,
                format_args!(
                    "nothing is taken over: the store has a token of its own for {name}, good for {left}; --replace \
                     puts the old server's in its place"
                ),
            )
            .zh(format_args!(
                "未接管任何令牌：存储中已有 {name} 的令牌，还可用 {left}；--replace 以旧服务器的令牌取代它"
            )));
        }
    }
    let mut said = Ok(true);
    for Found { source, key, record } in found {
        let generation =
            before(&source.name).map_or(Generation::first(now), |own| own.generation.next());
        let record = TokenRecord { generation, ..record };
        tokens.put(&source.name, &record).await.map_err(|error| {
            Failure::new(EX_OSERR, format_args!("{} is not on disk: {error}", source.name))
                .zh(format_args!("{} 未能写入磁盘：{error}", source.name))
        })?;
        let left = record.lifetime();
        // That nobody can be told of one keeps no other from being taken over.
        let (name, key, span) = (&source.name, printable(key), life(left.as_secs()));
        said = said.and(print(&printer.either(
            format!("{name}: the token of {key} is taken over, good for {span}\n"),
            format!("{name}：已接管 {key} 的令牌，还可用 {span}\n"),
        )));
        if left < SHORT_LIFE {
            note(&printer.either(
                format!("{name} is renewed within minutes of the start: be quick"),
                format!("{name} 在启动后数分钟内就会续期：请尽快切换"),
            ));
        }
    }
    said.and(print(printer.either(
        "Now stop the old server, then start this one: it serves these tokens, and fetches others when they are due.\n",
        "请停止旧服务器，然后启动本服务器：它先提供这些令牌，到期前自动续期。\n",
    )))?;
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
    let (dir, owner, user) = (dir.display(), store.uid(), own.uid());
    Err(Failure::new(
        EX_NOPERM,
        format_args!(
            "the store {dir} belongs to user {owner}, and you are user {user}: what you put there the server could not \
             read. Run this as its user (sudo -u '#{owner}' …)"
        ),
    )
    .zh(format_args!(
        "存储目录 {dir} 属于用户 {owner}，而您是用户 {user}：您写入的内容服务器无法读取。请以其用户运行（sudo -u '#{owner}' …）"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

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
            let expected = if words == "no such source" { EX_DATAERR } else { EX_USAGE };
            assert_eq!((code, message.contains(words)), (expected, true), "{message}");
        }
    }
}
