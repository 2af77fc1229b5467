//! The commands that read hashes, lists, sets, sorted sets, streams, places and HyperLogLogs. Every
//! key here is a string, so each of them has two answers: the wrong type for a token, and what Redis
//! says of a key that is missing. Before either come the arity, which the dispatcher checks, and the
//! words, which are checked here as Redis 7.0.15 checks them, in its order.

mod places;
mod sorted_sets;
mod streams;
mod table;
mod words;

use crate::resp::command::keys::cursor;
use crate::resp::command::{Context, Outcome};
use crate::resp::parse::Args;

pub(super) use table::FOREIGN;
pub(super) use words::{Checked, NOT_AN_INTEGER, SYNTAX, Words, number};

use words::{at_least, how_many, positions};

const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";

/// What is said of a key that is missing.
#[derive(Debug, Clone, Copy)]
enum Empty {
    /// No string.
    Nil,
    /// No array.
    NilArray,
    /// None.
    Zero,
    /// An array of none.
    Array,
    /// A set of none.
    Set,
    /// A map of none.
    Map,
    /// The end of a scan that found nothing.
    Scan,
    /// No string for each of so many.
    Nils(usize),
    /// No array for each of so many.
    NilArrays(usize),
    /// 0 for each of so many.
    Zeros(usize),
}

/// Answers what the checks came to.
fn answer(ctx: &mut Context<'_>, checked: Checked<Empty>) -> Outcome {
    let reply = &mut ctx.reply;
    match checked {
        Err(text) => reply.error(&text),
        Ok(Empty::Nil) => reply.nil(),
        Ok(Empty::NilArray) => reply.nil_array(),
        Ok(Empty::Zero) => reply.count(0),
        Ok(Empty::Array) => reply.array(0),
        Ok(Empty::Set) => reply.set(0),
        Ok(Empty::Map) => reply.map(0),
        Ok(Empty::Scan) => {
            reply.array(2);
            reply.bulk(b"0");
            reply.array(0);
        }
        Ok(Empty::Nils(count)) => {
            reply.array(count);
            (0..count).for_each(|_| reply.nil());
        }
        Ok(Empty::NilArrays(count)) => {
            reply.array(count);
            (0..count).for_each(|_| reply.nil_array());
        }
        Ok(Empty::Zeros(count)) => {
            reply.array(count);
            (0..count).for_each(|_| reply.count(0));
        }
    }
    Outcome::Replied
}

/// A key that is there is of the wrong type.
fn absent(ctx: &mut Context<'_>, key: &[u8]) -> Checked<()> {
    ctx.live(key).map_or(Ok(()), |_| Err(WRONG_TYPE.into()))
}

/// The first key of these that is there is of the wrong type; those after it are not looked at.
fn all_absent<'a>(
    ctx: &mut Context<'_>,
    mut keys: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Checked<()> {
    ctx.charge(keys.len());
    keys.try_for_each(|key| absent(ctx, key))
}

/// Checks the words and then looks at the key, the first word after the name.
fn words_then_key(ctx: &mut Context<'_>, args: Args<'_>, words: Checked<Empty>) -> Outcome {
    let checked = words.and_then(|empty| absent(ctx, args.at(1)).and(Ok(empty)));
    answer(ctx, checked)
}

/// HGET, LINDEX, ZRANK, ZREVRANK, ZSCORE: what is asked of the key does not matter.
fn nil(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    words_then_key(ctx, args, Ok(Empty::Nil))
}

/// HEXISTS, HLEN, HSTRLEN, LLEN, SCARD, SISMEMBER, XLEN, ZCARD
fn zero(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    words_then_key(ctx, args, Ok(Empty::Zero))
}

/// HKEYS, HVALS
fn array(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    words_then_key(ctx, args, Ok(Empty::Array))
}

/// HGETALL
fn map(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    words_then_key(ctx, args, Ok(Empty::Map))
}

/// GEOHASH, HMGET, ZMSCORE: one for each word after the key.
fn nils(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    ctx.charge(args.len());
    words_then_key(ctx, args, Ok(Empty::Nils(args.len() - 2)))
}

/// SMISMEMBER
fn zeros(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    ctx.charge(args.len());
    words_then_key(ctx, args, Ok(Empty::Zeros(args.len() - 2)))
}

/// SDIFF, SINTER, SMEMBERS, SUNION: all words are keys.
fn sets(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let checked = all_absent(ctx, args.from(1)).and(Ok(Empty::Set));
    answer(ctx, checked)
}

/// HSCAN, SSCAN, ZSCAN `key cursor …`: the options are only read where there is something to scan.
fn scan(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let words = cursor(args.at(2)).map(|_| Empty::Scan).ok_or("ERR invalid cursor".into());
    words_then_key(ctx, args, words)
}

/// `HRANDFIELD key [count [WITHVALUES]]`
fn random_field(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    words_then_key(ctx, args, random_pairs(args, "withvalues"))
}

/// `ZRANDMEMBER key [count [WITHSCORES]]`
fn random_score(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    words_then_key(ctx, args, random_pairs(args, "withscores"))
}

fn random_pairs(args: Args<'_>, with_both: &'static str) -> Checked<Empty> {
    let Some(word) = args.get(2) else { return Ok(Empty::Nil) };
    let count = how_many(word)?;
    if args.len() > 4 {
        return Err(SYNTAX.into());
    }
    let both = Words::new(args, 3).option(&[(with_both, 0)])?.is_some();
    // Twice as many are sent.
    if both && count.unsigned_abs() > i64::MAX.unsigned_abs() / 2 {
        return Err("ERR value is out of range".into());
    }
    Ok(Empty::Array)
}

/// `SRANDMEMBER key [count]`
fn random_member(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let words = match args.len() {
        2 => Ok(Empty::Nil),
        3 => how_many(args.at(2)).and(Ok(Empty::Array)),
        _ => Err(SYNTAX.into()),
    };
    words_then_key(ctx, args, words)
}

/// `LRANGE key start stop`
fn list_range(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    words_then_key(ctx, args, positions(args.at(2), args.at(3)).and(Ok(Empty::Array)))
}

/// `LPOS key element [RANK rank] [COUNT num-matches] [MAXLEN len]`
fn list_position(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let check = || {
        let (mut words, mut empty) = (Words::new(args, 3), Empty::Nil);
        while let Some(option) = words.option(&[("rank", 1), ("count", 1), ("maxlen", 1)])? {
            match option {
                "count" => {
                    at_least(0, words.take(), "ERR COUNT can't be negative")?;
                    empty = Empty::Array;
                }
                "maxlen" => {
                    at_least(0, words.take(), "ERR MAXLEN can't be negative")?;
                }
                _ => {
                    if number(words.take())? == 0 {
                        return Err(
                            "ERR RANK can't be zero: use 1 to start from the first match, \
                                    2 from the second ... or use negative to start from the end \
                                    of the list"
                                .into(),
                        );
                    }
                }
            }
        }
        Ok(empty)
    };
    words_then_key(ctx, args, check())
}

/// `SINTERCARD numkeys key [key ...] [LIMIT limit]`
fn set_intersection_size(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let check = |ctx: &mut Context<'_>| {
        let count = at_least(1, args.at(1), "ERR numkeys should be greater than 0")?;
        let count = usize::try_from(count).ok().filter(|count| *count <= args.len() - 2);
        let count = count.ok_or("ERR Number of keys can't be greater than number of args")?;
        let mut words = Words::new(args, 2 + count);
        while words.option(&[("limit", 1)])?.is_some() {
            at_least(0, words.take(), "ERR LIMIT can't be negative")?;
        }
        all_absent(ctx, keys(args, 2, count))?;
        Ok(Empty::Zero)
    };
    let checked = check(ctx);
    answer(ctx, checked)
}

/// So many keys from `first` on.
fn keys(args: Args<'_>, first: usize, count: usize) -> impl ExactSizeIterator<Item = &[u8]> {
    args.from(first).take(count)
}

/// `PFCOUNT key [key ...]`: a HyperLogLog is a string, but a token is no HyperLogLog.
fn cardinality(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let checked = match all_absent(ctx, args.from(1)) {
        Ok(()) => Ok(Empty::Zero),
        Err(_) => Err("WRONGTYPE Key is not a valid HyperLogLog string value.".into()),
    };
    answer(ctx, checked)
}

/// `SORT_RO key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC|DESC] [ALPHA]`
fn sort(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let known = [("asc", 0), ("desc", 0), ("alpha", 0), ("limit", 2), ("by", 1), ("get", 1)];
    let check = || {
        let mut words = Words::new(args, 2);
        while let Some(option) = words.option(&known)? {
            match option {
                "limit" => positions(words.take(), words.take())?,
                "by" | "get" => drop(words.take()),
                _ => {}
            }
        }
        Ok(Empty::Array)
    };
    words_then_key(ctx, args, check())
}
