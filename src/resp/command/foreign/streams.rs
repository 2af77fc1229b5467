//! The commands that read streams; what is common to all types is in the file above.

use super::words::{Checked, SYNTAX, Words, number, stream_id, stream_ids};
use super::{Empty, absent, answer, words_then_key};
use crate::resp::command::{Context, Outcome, quoted};
use crate::resp::parse::{Args, integer};

/// `XRANGE key start end [COUNT count]`
pub(super) fn range(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    words_then_key(ctx, args, check_range(args, args.at(2), args.at(3)))
}

/// `XREVRANGE key end start [COUNT count]`
pub(super) fn range_backwards(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    words_then_key(ctx, args, check_range(args, args.at(3), args.at(2)))
}

fn check_range(args: Args<'_>, start: &[u8], end: &[u8]) -> Checked<Empty> {
    stream_ids(start, end)?;
    let mut words = Words::new(args, 4);
    while words.option(&[("count", 1)])?.is_some() {
        number(words.take())?;
    }
    Ok(Empty::Array)
}

/// `XREAD [COUNT count] [BLOCK milliseconds] STREAMS key [key ...] id [id ...]`
///
/// Nothing ever comes of a stream here, so BLOCK answers at once what it would answer at last.
pub(super) fn read(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let checked = check_read(ctx, args);
    answer(ctx, checked)
}

fn check_read(ctx: &mut Context<'_>, args: Args<'_>) -> Checked<Empty> {
    let known = [("block", 1), ("count", 1), ("streams", 1), ("group", 2), ("noack", 0)];
    let mut words = Words::new(args, 1);
    loop {
        match words.option(&known)? {
            Some("block") => match integer(words.take()) {
                None => return Err("ERR timeout is not an integer or out of range".into()),
                Some(..0) => return Err("ERR timeout is negative".into()),
                Some(_) => {}
            },
            Some("count") => drop(number(words.take())?),
            Some("streams") => break,
            Some("group") => {
                return Err("ERR The GROUP option is only supported by XREADGROUP. You called \
                            XREAD instead."
                    .into());
            }
            Some(_) => {
                return Err("ERR The NOACK option is only supported by XREADGROUP. You called \
                            XREAD instead."
                    .into());
            }
            None => return Err(SYNTAX.into()),
        }
    }
    let (streams, odd) = (words.left() / 2, words.left() % 2 == 1);
    if odd {
        return Err(
            "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be \
                    specified."
                .into(),
        );
    }
    ctx.charge(streams);
    let first = args.len() - streams;
    for at in first..args.len() {
        absent(ctx, args.at(at - streams))?;
        match args.at(at) {
            b"$" => {}
            b">" => {
                return Err(
                    "ERR The > ID can be specified only when calling XREADGROUP using the \
                            GROUP <group> <consumer> option."
                        .into(),
                );
            }
            id => drop(stream_id(id, 0)?),
        }
    }
    Ok(Empty::NilArray)
}

/// `XPENDING key group [[IDLE min-idle-time] start end count [consumer]]`
pub(super) fn pending(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let checked = check_pending(args).and_then(|()| absent(ctx, args.at(1)));
    if checked.is_ok() {
        let [key, group] = [1, 2].map(|at| quoted(args.at(at), args.at(at).len()));
        let parts =
            [&b"NOGROUP No such key '"[..], key, b"' or consumer group '", group, b"'"].concat();
        ctx.reply.error_quoting(&parts);
        return Outcome::Replied;
    }
    answer(ctx, checked.and(Ok(Empty::Zero)))
}

fn check_pending(args: Args<'_>) -> Checked<()> {
    let start = match args.len() {
        3 => return Ok(()),
        6..=9 if args.at(3).eq_ignore_ascii_case(b"idle") => {
            number(args.at(4))?;
            if args.len() < 8 {
                return Err(SYNTAX.into());
            }
            5
        }
        6..=9 => 3,
        _ => return Err(SYNTAX.into()),
    };
    number(args.at(start + 2))?;
    stream_ids(args.at(start), args.at(start + 1))
}

/// XINFO STREAM, XINFO GROUPS, XINFO CONSUMERS: the key is looked at before the words after it.
pub(super) fn describe(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let checked = absent(ctx, args.at(2)).and_then(|()| Err("ERR no such key".into()));
    answer(ctx, checked)
}

/// What Redis says, which is not what its documentation says (and opens a bracket too many).
const HELP: [&str; 9] = [
    "XINFO <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CONSUMERS <key> <groupname>",
    "    Show consumers of <groupname>.",
    "GROUPS <key>",
    "    Show the stream consumer groups.",
    "STREAM <key> [FULL [COUNT <count>]",
    "    Show information about the stream.",
    "HELP",
    "    Prints this help.",
];

/// XINFO HELP
pub(super) fn help(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    ctx.reply.array(HELP.len());
    HELP.iter().for_each(|line| ctx.reply.simple(line));
    Outcome::Replied
}
