//! LCS: the longest common subsequence of two tokens, found as Redis 7.0.15 finds it, so that of
//! several that are as long it is the same one.

use std::ops::RangeInclusive;

use crate::resp::command::foreign::{Checked, Words, number};
use crate::resp::command::{Context, Outcome};
use crate::resp::parse::Args;

/// How many comparisons count as one unit of work.
const COMPARISONS_PER_UNIT: usize = 256;

/// What is asked for.
#[derive(Debug, Default)]
struct Options {
    length: bool,
    ranges: bool,
    range_lengths: bool,
    shortest: i64,
}

impl Options {
    fn parse(args: Args<'_>) -> Checked<Options> {
        let known = [("idx", 0), ("len", 0), ("withmatchlen", 0), ("minmatchlen", 1)];
        let (mut words, mut options) = (Words::new(args, 3), Options::default());
        while let Some(option) = words.option(&known)? {
            match option {
                "idx" => options.ranges = true,
                "len" => options.length = true,
                "withmatchlen" => options.range_lengths = true,
                _ => options.shortest = number(words.take())?,
            }
        }
        match options.ranges && options.length {
            true => Err("ERR If you want both the length and indexes, please just use IDX.".into()),
            false => Ok(options),
        }
    }
}

/// `LCS key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]`
pub(super) fn lcs(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let tokens = [1, 2].map(|at| ctx.live(args.at(at)));
    let [a, b] = tokens
        .each_ref()
        .map(|token| token.as_ref().map_or("", |token| token.record().value.expose()).as_bytes());
    let options = match Options::parse(args) {
        Ok(options) => options,
        Err(text) => {
            ctx.reply.error(&text);
            return Outcome::Replied;
        }
    };
    ctx.charge(a.len() * b.len() / COMPARISONS_PER_UNIT);
    let common = Common::of(a, b);
    let reply = &mut ctx.reply;
    if options.length {
        reply.count(common.pairs.len());
    } else if options.ranges {
        let shortest = usize::try_from(options.shortest).unwrap_or(0);
        let matches = common.runs().filter(|(in_a, _)| in_a.clone().count() >= shortest);
        let matches: Vec<_> = matches.collect();
        reply.map(2);
        reply.bulk(b"matches");
        reply.array(matches.len());
        for (in_a, in_b) in matches {
            let len = in_a.clone().count();
            reply.array(2 + usize::from(options.range_lengths));
            for range in [in_a, in_b] {
                reply.array(2);
                reply.count(*range.start());
                reply.count(*range.end());
            }
            if options.range_lengths {
                reply.count(len);
            }
        }
        reply.bulk(b"len");
        reply.count(common.pairs.len());
    } else {
        let bytes: Vec<u8> = common.pairs.iter().rev().map(|(at, _)| a[*at]).collect();
        reply.bulk(&bytes);
    }
    Outcome::Replied
}

/// Where the bytes of the subsequence are in both texts, the last one first.
#[derive(Debug)]
struct Common {
    pairs: Vec<(usize, usize)>,
}

impl Common {
    /// The textbook's table of lengths, row by row. To find the way back, one bit of each cell is
    /// enough: whether it is longer without the last byte of `a` than without that of `b`.
    fn of(a: &[u8], b: &[u8]) -> Common {
        let mut lengths = vec![0_u32; b.len() + 1];
        let mut drops_a = vec![0_u64; (a.len() * b.len()).div_ceil(64)];
        for (i, in_a) in a.iter().enumerate() {
            let mut before_both = 0;
            for (j, in_b) in b.iter().enumerate() {
                let (without_a, without_b) = (lengths[j + 1], lengths[j]);
                lengths[j + 1] = if in_a == in_b {
                    before_both + 1
                } else {
                    let cell = i * b.len() + j;
                    drops_a[cell / 64] |= u64::from(without_a > without_b) << (cell % 64);
                    without_a.max(without_b)
                };
                before_both = without_a;
            }
        }
        let mut pairs = Vec::new();
        let (mut i, mut j) = (a.len(), b.len());
        while i > 0 && j > 0 {
            let cell = (i - 1) * b.len() + j - 1;
            if a[i - 1] == b[j - 1] {
                pairs.push((i - 1, j - 1));
                (i, j) = (i - 1, j - 1);
            } else if drops_a[cell / 64] >> (cell % 64) & 1 == 1 {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        Common { pairs }
    }

    /// The pieces that are common as they are: where each is in `a` and in `b`, the last one first.
    fn runs(&self) -> impl Iterator<Item = (RangeInclusive<usize>, RangeInclusive<usize>)> {
        let follow = |after: &(usize, usize), before: &(usize, usize)| {
            (before.0 + 1, before.1 + 1) == *after
        };
        self.pairs.chunk_by(follow).map(|run| {
            let (last, first) = (run[0], run[run.len() - 1]);
            (first.0..=last.0, first.1..=last.1)
        })
    }
}
