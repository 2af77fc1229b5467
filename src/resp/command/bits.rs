//! The commands that look at the bits of a token, which is a string as any other. Numbering is Redis':
//! bit 0 is the highest of the first byte.

use crate::resp::command::foreign::{Checked, NOT_AN_INTEGER, SYNTAX, Words, number};
use crate::resp::command::{Context, Outcome};
use crate::resp::parse::{Args, integer};

/// Redis' limit of a string, `proto-max-bulk-len`, in bits.
const MOST_BITS: i64 = 512 * 1024 * 1024 * 8;

/// How many bytes, looked at bit by bit, count as one unit of work.
const BYTES_PER_UNIT: usize = 64;

/// Calls `look` with the bytes under this key.
fn with_bytes<T>(
    ctx: &mut Context<'_>,
    key: &[u8],
    look: impl FnOnce(Option<&[u8]>) -> Checked<T>,
) -> Checked<T> {
    let token = ctx.live(key);
    let bytes = token.as_ref().map(|token| token.record().value.expose().as_bytes());
    ctx.charge(bytes.map_or(0, <[u8]>::len) / BYTES_PER_UNIT);
    look(bytes)
}

fn answer(ctx: &mut Context<'_>, number: Checked<i64>) -> Outcome {
    match number {
        Ok(number) => ctx.reply.integer(number),
        Err(text) => ctx.reply.error(&text),
    }
    Outcome::Replied
}

/// Where a bit is; `#3` is the fourth of fields of `width` bits.
fn offset(word: &[u8], width: Option<i64>) -> Checked<i64> {
    let offset = match (word, width) {
        ([b'#', word @ ..], Some(width)) => integer(word).map(|at| at.wrapping_mul(width)),
        _ => integer(word),
    };
    let in_range = offset.filter(|offset| (0..MOST_BITS).contains(offset));
    in_range.ok_or("ERR bit offset is not an integer or out of range".into())
}

/// The bit at `at`; after the end all are 0.
fn bit(bytes: &[u8], at: i64) -> bool {
    let byte = usize::try_from(at / 8).ok().and_then(|at| bytes.get(at));
    byte.is_some_and(|byte| byte & (0x80 >> (at % 8)) != 0)
}

/// `GETBIT key offset`
pub(super) fn get(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let found = offset(args.at(2), None).and_then(|offset| {
        with_bytes(ctx, args.at(1), |bytes| Ok(bit(bytes.unwrap_or_default(), offset).into()))
    });
    answer(ctx, found)
}

/// Whether a range is counted in bits.
fn is_in_bits(unit: &[u8]) -> Checked<bool> {
    match [&b"byte"[..], b"bit"].iter().position(|name| unit.eq_ignore_ascii_case(name)) {
        Some(at) => Ok(at == 1),
        None => Err(SYNTAX.into()),
    }
}

/// The bits from `start` to `end`, both included and both counted from the end where negative, in
/// whole bytes unless `in_bits`: the first bit, and the one after the last.
fn range(bytes: &[u8], start: i64, end: i64, in_bits: bool) -> std::ops::Range<i64> {
    let scale = if in_bits { 1 } else { 8 };
    let len = i64::try_from(bytes.len() * 8 / scale).expect("a token is short");
    let from_start = |at: i64| if at < 0 { (at + len).max(0) } else { at };
    let (start, end) = (from_start(start), from_start(end).min(len - 1));
    if start > end {
        return 0..0;
    }
    let scale = if in_bits { 1 } else { 8 };
    start * scale..(end + 1) * scale
}

/// `BITCOUNT key [start end [BYTE|BIT]]`: a missing key has no bits, whatever the words after it.
pub(super) fn count(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let counted = with_bytes(ctx, args.at(1), |bytes| {
        let Some(bytes) = bytes else { return Ok(0) };
        let bits = match args.len() {
            2 => range(bytes, 0, -1, false),
            4 | 5 => {
                let (start, end) = (number(args.at(2))?, number(args.at(3))?);
                if start < 0 && end < 0 && start > end {
                    return Ok(0);
                }
                range(bytes, start, end, args.get(4).map_or(Ok(false), is_in_bits)?)
            }
            _ => return Err(SYNTAX.into()),
        };
        Ok(bits.map(|at| i64::from(bit(bytes, at))).sum())
    });
    answer(ctx, counted)
}

/// `BITPOS key bit [start [end [BYTE|BIT]]]`
pub(super) fn position(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let wanted = number(args.at(2)).and_then(|wanted| match wanted {
        0 | 1 => Ok(wanted == 1),
        _ => Err("ERR The bit argument must be 1 or 0.".into()),
    });
    let found = wanted.and_then(|wanted| {
        with_bytes(ctx, args.at(1), |bytes| {
            // A missing key is bits of 0 without an end.
            let Some(bytes) = bytes else { return Ok(if wanted { -1 } else { 0 }) };
            if args.len() > 6 {
                return Err(SYNTAX.into());
            }
            let start = args.get(3).map_or(Ok(0), number)?;
            let in_bits = args.get(5).map_or(Ok(false), is_in_bits)?;
            let end = args.get(4).map_or(Ok(-1), number)?;
            let bits = range(bytes, start, end, in_bits);
            let beyond = bits.end;
            // So is what comes after a token, unless the range says where it ends.
            let endless = !wanted && args.len() < 5 && !bits.is_empty();
            let found = bits.into_iter().find(|at| bit(bytes, *at) == wanted);
            Ok(found.unwrap_or(if endless { beyond } else { -1 }))
        })
    });
    answer(ctx, found)
}

/// An integer of up to 64 bits within a string.
#[derive(Debug, Clone, Copy)]
struct Field {
    signed: bool,
    width: i64,
    offset: i64,
}

impl Field {
    /// Reads `u8 #1`.
    fn parse(kind: &[u8], at: &[u8]) -> Checked<Field> {
        let (signed, width) = match kind {
            [b'i', width @ ..] => (true, integer(width).filter(|width| (1..=64).contains(width))),
            [b'u', width @ ..] => (false, integer(width).filter(|width| (1..=63).contains(width))),
            _ => (false, None),
        };
        let width = width.ok_or(
            "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported \
             but i64 is.",
        )?;
        Ok(Field { signed, width, offset: offset(at, Some(width))? })
    }

    fn read(self, bytes: &[u8]) -> i64 {
        let bits = self.offset..self.offset + self.width;
        let sign = if self.signed && bit(bytes, self.offset) { -1 } else { 0 };
        bits.fold(sign, |value, at| value << 1 | i64::from(bit(bytes, at)))
    }
}

/// `BITFIELD_RO key [GET type offset ...]`: reads the words of a BITFIELD, and refuses what writes.
pub(super) fn fields(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let values = fields_of(args).and_then(|fields| {
        with_bytes(ctx, args.at(1), |bytes| {
            let bytes = bytes.unwrap_or_default();
            Ok(fields.into_iter().map(|field| field.read(bytes)).collect::<Vec<_>>())
        })
    });
    match values {
        Err(text) => ctx.reply.error(&text),
        Ok(values) => {
            ctx.charge(values.len());
            ctx.reply.array(values.len());
            values.into_iter().for_each(|value| ctx.reply.integer(value));
        }
    }
    Outcome::Replied
}

fn fields_of(args: Args<'_>) -> Checked<Vec<Field>> {
    let known = [("get", 2), ("set", 3), ("incrby", 3), ("overflow", 1)];
    let (mut words, mut fields, mut writes) = (Words::new(args, 2), Vec::new(), false);
    while let Some(option) = words.option(&known)? {
        if option == "overflow" {
            words
                .option(&[("wrap", 0), ("sat", 0), ("fail", 0)])
                .map_err(|_| "ERR Invalid OVERFLOW type specified")?;
            continue;
        }
        fields.push(Field::parse(words.take(), words.take())?);
        if option != "get" {
            writes = true;
            integer(words.take()).ok_or(NOT_AN_INTEGER)?;
        }
    }
    match writes {
        true => Err("ERR BITFIELD_RO only supports the GET subcommand".into()),
        false => Ok(fields),
    }
}
