//! OBJECT, MEMORY, and what else is asked about keys rather than of them. Nothing of it says how tokens
//! are really kept; the answers are those of a Redis with the same keys.

use crate::resp::command::{Context, Outcome};
use crate::resp::parse::{Args, integer};
use crate::snapshot::LiveToken;

/// The longest string that Redis keeps in one piece with its header (`OBJ_ENCODING_EMBSTR_SIZE_LIMIT`).
const EMBEDDED_BYTES: usize = 44;

/// What Redis needs for a key beside the bytes of its name and value: the entry, the two headers and
/// the object, rounded as its allocator does, roughly.
const OVERHEAD_BYTES: usize = 64;

fn about(
    ctx: &mut Context<'_>,
    key: &[u8],
    answer: impl FnOnce(&mut Context<'_>, LiveToken),
) -> Outcome {
    match ctx.live(key) {
        Some(token) => answer(ctx, token),
        None => ctx.reply.nil(),
    }
    Outcome::Replied
}

/// `OBJECT ENCODING key`
pub(super) fn encoding(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    about(ctx, args.at(2), |ctx, token| {
        let len = token.record().value.expose().len();
        let is_number = len <= 20 && integer(token.record().value.expose().as_bytes()).is_some();
        let encoding: &[u8] = match len {
            _ if is_number => b"int",
            ..=EMBEDDED_BYTES => b"embstr",
            _ => b"raw",
        };
        ctx.reply.bulk(encoding);
    })
}

/// `OBJECT FREQ key`
pub(super) fn freq(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    about(ctx, args.at(2), |ctx, _| {
        ctx.reply.error(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note \
             that when switching between policies at runtime LRU and LFU data will take some time \
             to adjust.",
        );
    })
}

/// `OBJECT IDLETIME key`: not counted, so never idle.
pub(super) fn idletime(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    about(ctx, args.at(2), |ctx, _| ctx.reply.integer(0))
}

/// `OBJECT REFCOUNT key`
pub(super) fn refcount(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    about(ctx, args.at(2), |ctx, _| ctx.reply.integer(1))
}

/// `MEMORY USAGE key [SAMPLES count]`
pub(super) fn usage(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let mut at = 3;
    while let Some(option) = args.get(at) {
        let Some(count) = args.get(at + 1).filter(|_| option.eq_ignore_ascii_case(b"samples"))
        else {
            return ctx.syntax_error();
        };
        match integer(count) {
            None => return ctx.error("ERR value is not an integer or out of range"),
            Some(..0) => return ctx.syntax_error(),
            Some(_) => at += 2,
        }
    }
    let key = args.at(2);
    about(ctx, key, |ctx, token| {
        let value = token.record().value.expose();
        ctx.reply.count(OVERHEAD_BYTES + key.len() + value.len());
    })
}

/// MEMORY DOCTOR
pub(super) fn memory_doctor(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    ctx.reply.text("There is nothing to say about the memory of this server over this protocol.");
    Outcome::Replied
}

/// MEMORY PURGE: there is nothing to give back.
pub(super) fn memory_purge(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    ctx.reply.ok();
    Outcome::Replied
}

/// `GETRANGE key start end`, and SUBSTR as it was called before. Negative positions count from the end.
pub(super) fn getrange(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let (Some(start), Some(end)) = (integer(args.at(2)), integer(args.at(3))) else {
        return ctx.error("ERR value is not an integer or out of range");
    };
    match ctx.live(args.at(1)) {
        Some(token) => ctx.reply.bulk(part(token.record().value.expose().as_bytes(), start, end)),
        None => ctx.reply.bulk(b""),
    }
    Outcome::Replied
}

/// The bytes from `start` to `end`, both included, as `getrangeCommand` of Redis 7.0 cuts them.
fn part(value: &[u8], start: i64, end: i64) -> &[u8] {
    let len = i64::try_from(value.len()).unwrap_or(i64::MAX);
    if start < 0 && end < 0 && start > end {
        return b"";
    }
    let place = |at: i64| if at < 0 { at.saturating_add(len).max(0) } else { at };
    let (start, end) = (place(start), place(end).min(len - 1));
    if len == 0 || start > end {
        return b"";
    }
    let at = |at: i64| usize::try_from(at).expect("0..len");
    &value[at(start)..=at(end)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_cut_as_redis_cuts_them() {
        let value = b"TOKEN_VALUE_1";
        for (start, end, expected) in [
            (0, -1, "TOKEN_VALUE_1"),
            (-3, -1, "E_1"),
            (-1, -3, ""),
            (5, 2, ""),
            (-100, 2, "TOK"),
            (2, i64::MAX, "KEN_VALUE_1"),
            (100, 200, ""),
            (-100, -50, "T"),
            (i64::MIN, i64::MIN, "T"),
            (0, 0, "T"),
            (12, 12, "1"),
            (13, 13, ""),
        ] {
            assert_eq!(part(value, start, end), expected.as_bytes(), "{start} {end}");
        }
        assert_eq!(part(b"", 0, -1), b"");
    }
}
