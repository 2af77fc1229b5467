//! COMMAND and the HELP of every container: what the table says of itself. Nothing is listed here.

use crate::resp::command::spec::{Begin, CommandSpec, Find, KeySpec, find};
use crate::resp::command::{Context, Outcome, TABLES, admits, find_command, full_name};
use crate::resp::glob::{Case, matches};
use crate::resp::parse::Args;
use crate::resp::reply::Reply;

/// Every command.
pub(super) fn commands() -> impl Iterator<Item = &'static CommandSpec> {
    TABLES.into_iter().flatten()
}

/// COMMAND
pub(super) fn all(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    let count = commands().count();
    ctx.charge(count);
    ctx.reply.array(count);
    commands().for_each(|spec| describe(&mut ctx.reply, spec, None));
    Outcome::Replied
}

/// COMMAND COUNT
pub(super) fn count(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    ctx.reply.count(commands().count());
    Outcome::Replied
}

/// `COMMAND INFO [command-name ...]`
pub(super) fn info(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    if args.len() == 2 {
        return all(ctx, args);
    }
    ctx.charge(args.len());
    let names = args.from(2);
    ctx.reply.array(names.len());
    for name in names {
        match described(name) {
            Some((spec, container)) => describe(&mut ctx.reply, spec, container),
            None => ctx.reply.nil(),
        }
    }
    Outcome::Replied
}

/// `COMMAND DOCS [command-name ...]`: names that do not exist are left out.
pub(super) fn docs(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let found: Vec<_> = if args.len() == 2 {
        commands().map(|spec| (spec, None)).collect()
    } else {
        args.from(2).filter_map(described).collect()
    };
    ctx.charge(found.len());
    ctx.reply.map(found.len());
    for (spec, container) in found {
        document(&mut ctx.reply, spec, container);
    }
    Outcome::Replied
}

/// `COMMAND LIST [FILTERBY (MODULE name | ACLCAT category | PATTERN pattern)]`
pub(super) fn list(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let filter = |spec: &CommandSpec, name: &str, by: &[u8], wanted: &[u8]| {
        if by.eq_ignore_ascii_case(b"pattern") {
            Some(matches(wanted, name.as_bytes(), Case::Insensitive))
        } else if by.eq_ignore_ascii_case(b"aclcat") {
            let wanted = |category: &&str| category.as_bytes()[1..].eq_ignore_ascii_case(wanted);
            Some(spec.categories.iter().any(wanted))
        } else if by.eq_ignore_ascii_case(b"module") {
            Some(false)
        } else {
            None
        }
    };
    let all = || {
        commands().flat_map(|spec| {
            let subs = spec.subcommands.iter().map(move |sub| (sub, full_name(sub, Some(spec))));
            std::iter::once((spec, spec.name.to_owned())).chain(subs)
        })
    };
    let names: Option<Vec<String>> = match args.len() {
        2 => Some(all().map(|(_, name)| name).collect()),
        5 if args.at(2).eq_ignore_ascii_case(b"filterby") => all()
            .filter_map(|(spec, name)| match filter(spec, &name, args.at(3), args.at(4)) {
                Some(true) => Some(Some(name)),
                Some(false) => None,
                None => Some(None),
            })
            .collect(),
        _ => None,
    };
    let Some(names) = names else { return ctx.syntax_error() };
    ctx.charge(commands().count());
    ctx.reply.array(names.len());
    names.iter().for_each(|name| ctx.reply.bulk(name.as_bytes()));
    Outcome::Replied
}

/// `COMMAND GETKEYS command [arg ...]`
pub(super) fn getkeys(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    list_keys(ctx, args, |reply, key, _| reply.bulk(key))
}

/// `COMMAND GETKEYSANDFLAGS command [arg ...]`
pub(super) fn getkeysandflags(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    list_keys(ctx, args, |reply, key, access| {
        reply.array(2);
        reply.bulk(key);
        statuses(reply, access);
    })
}

fn list_keys(
    ctx: &mut Context<'_>,
    args: Args<'_>,
    show: impl Fn(&mut Reply<'_>, &[u8], &[&str]),
) -> Outcome {
    let asked = args.after(2);
    let Some(spec) = find_command(asked.at(0)) else {
        return ctx.error("ERR Invalid command specified");
    };
    let spec = match asked.get(1) {
        Some(sub) if !spec.subcommands.is_empty() => find(spec.subcommands, sub),
        _ => Some(spec),
    };
    let Some(spec) = spec else { return ctx.error("ERR Invalid command specified") };
    if spec.keys.first == 0 && spec.key_specs.is_empty() {
        return ctx.error("ERR The command has no key arguments");
    }
    if !admits(spec.arity, asked.len()) {
        return ctx.error("ERR Invalid number of arguments specified for command");
    }
    ctx.charge(asked.len());
    let keys = spec.keys_in(asked);
    if keys.is_empty() {
        return ctx.error("ERR Invalid arguments specified for command");
    }
    ctx.reply.array(keys.len());
    for (key, access) in keys {
        show(&mut ctx.reply, key, access);
    }
    Outcome::Replied
}

/// `HELP` of the container that is named first.
pub(super) fn help(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let container = find_command(args.at(0)).expect("the dispatcher found HELP in this one");
    let mut lines = vec![format!(
        "{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        container.name.to_uppercase()
    )];
    for spec in container.subcommands.iter().filter(|spec| spec.name != "help") {
        let usage = format!("{} {}", spec.name.to_uppercase(), spec.usage);
        lines.push(usage.trim_end().to_owned());
        lines.push(format!("    {}.", spec.summary.trim_end_matches('.')));
    }
    lines.extend(["HELP".to_owned(), "    Prints this help.".to_owned()]);
    ctx.reply.array(lines.len());
    lines.iter().for_each(|line| ctx.reply.simple(line));
    Outcome::Replied
}

/// The command called `name`, or the subcommand called `container|name`.
fn described(name: &[u8]) -> Option<(&'static CommandSpec, Option<&'static CommandSpec>)> {
    match name.iter().position(|&byte| byte == b'|') {
        None => Some((find_command(name)?, None)),
        Some(bar) => {
            let container = find_command(&name[..bar])?;
            Some((find(container.subcommands, &name[bar + 1..])?, Some(container)))
        }
    }
}

/// The ten elements of COMMAND INFO.
fn describe(reply: &mut Reply<'_>, spec: &CommandSpec, container: Option<&CommandSpec>) {
    reply.array(10);
    reply.bulk(full_name(spec, container).as_bytes());
    reply.integer(spec.arity.into());
    statuses(reply, spec.flags);
    for position in [spec.keys.first, spec.keys.last, spec.keys.step] {
        reply.integer(position);
    }
    statuses(reply, spec.categories);
    reply.set(spec.tips.len());
    spec.tips.iter().for_each(|tip| reply.bulk(tip.as_bytes()));
    key_specs(reply, spec);
    reply.set(spec.subcommands.len());
    spec.subcommands.iter().for_each(|sub| describe(reply, sub, Some(spec)));
}

fn statuses(reply: &mut Reply<'_>, words: &[&str]) {
    reply.set(words.len());
    words.iter().for_each(|word| reply.simple(word));
}

/// Where the keys are, said the long way of Redis 7.
fn key_specs(reply: &mut Reply<'_>, spec: &CommandSpec) {
    let keys = spec.keys;
    if !spec.key_specs.is_empty() || keys.first == 0 {
        reply.set(spec.key_specs.len());
        return spec.key_specs.iter().for_each(|spec| key_spec(reply, spec));
    }
    // Counted from the first key, unless from the end.
    let last = if keys.last < 0 { keys.last } else { keys.last - keys.first };
    reply.set(1);
    let find = Find::Range { last, step: keys.step, limit: 0 };
    key_spec(
        reply,
        &KeySpec { notes: "", access: keys.access, begin: Begin::Index(keys.first), find },
    );
}

fn key_spec(reply: &mut Reply<'_>, spec: &KeySpec) {
    let has_notes = !spec.notes.is_empty();
    reply.map(3 + usize::from(has_notes));
    if has_notes {
        reply.bulk(b"notes");
        reply.bulk(spec.notes.as_bytes());
    }
    reply.bulk(b"flags");
    statuses(reply, spec.access);
    reply.bulk(b"begin_search");
    match spec.begin {
        Begin::Index(index) => key_search(reply, "index", None, &[("index", index)]),
        Begin::Keyword(word, from) => {
            key_search(reply, "keyword", Some(word), &[("startfrom", from)]);
        }
        Begin::Unknown => key_search(reply, "unknown", None, &[]),
    }
    reply.bulk(b"find_keys");
    match spec.find {
        Find::Range { last, step, limit } => {
            let numbers = [("lastkey", last), ("keystep", step), ("limit", limit)];
            key_search(reply, "range", None, &numbers);
        }
        Find::Count { count, first, step } => {
            let numbers = [("keynumidx", count), ("firstkey", first), ("keystep", step)];
            key_search(reply, "keynum", None, &numbers);
        }
        Find::Unknown => key_search(reply, "unknown", None, &[]),
    }
}

fn key_search(reply: &mut Reply<'_>, kind: &str, keyword: Option<&str>, numbers: &[(&str, i64)]) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(numbers.len() + usize::from(keyword.is_some()));
    if let Some(keyword) = keyword {
        reply.bulk(b"keyword");
        reply.bulk(keyword.as_bytes());
    }
    for (name, number) in numbers {
        reply.bulk(name.as_bytes());
        reply.integer(*number);
    }
}

/// A name and its map of COMMAND DOCS.
fn document(reply: &mut Reply<'_>, spec: &CommandSpec, container: Option<&CommandSpec>) {
    reply.bulk(full_name(spec, container).as_bytes());
    let texts = [
        ("summary", spec.summary),
        ("since", spec.since),
        ("group", spec.group),
        ("complexity", spec.complexity),
    ];
    reply.map(texts.len() + usize::from(!spec.subcommands.is_empty()));
    for (name, text) in texts {
        reply.bulk(name.as_bytes());
        reply.bulk(text.as_bytes());
    }
    if !spec.subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(spec.subcommands.len());
        spec.subcommands.iter().for_each(|sub| document(reply, sub, Some(spec)));
    }
}
