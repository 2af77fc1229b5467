//! The commands that read sorted sets; what is common to all types is in the file above.

use super::words::{Checked, SYNTAX, Words, at_least, float, members, number, positions, scores};
use super::{Empty, all_absent, answer, keys, words_then_key};
use crate::resp::command::{Context, Outcome};
use crate::resp::parse::Args;

/// `ZCOUNT key min max`
pub(super) fn count(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    words_then_key(ctx, args, scores(args.at(2), args.at(3)).and(Ok(Empty::Zero)))
}

/// `ZLEXCOUNT key min max`
pub(super) fn count_members(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    words_then_key(ctx, args, members(args.at(2), args.at(3)).and(Ok(Empty::Zero)))
}

/// What a range is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Position,
    Score,
    Member,
}

/// `ZRANGE key start stop [BYSCORE|BYLEX] [REV] [LIMIT offset count] [WITHSCORES]`
pub(super) fn range(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    words_then_key(ctx, args, check_range(args, None, None))
}

/// `ZREVRANGE key start stop [WITHSCORES]`
pub(super) fn range_backwards(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    words_then_key(ctx, args, check_range(args, Some(By::Position), Some(true)))
}

/// `ZRANGEBYSCORE key min max [WITHSCORES] [LIMIT offset count]`
pub(super) fn range_of_scores(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    words_then_key(ctx, args, check_range(args, Some(By::Score), Some(false)))
}

/// `ZREVRANGEBYSCORE key max min [WITHSCORES] [LIMIT offset count]`
pub(super) fn range_of_scores_backwards(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    words_then_key(ctx, args, check_range(args, Some(By::Score), Some(true)))
}

/// `ZRANGEBYLEX key min max [LIMIT offset count]`
pub(super) fn range_of_members(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    words_then_key(ctx, args, check_range(args, Some(By::Member), Some(false)))
}

/// `ZREVRANGEBYLEX key max min [LIMIT offset count]`
pub(super) fn range_of_members_backwards(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    words_then_key(ctx, args, check_range(args, Some(By::Member), Some(true)))
}

/// All of them, as in Redis: what the name of the command has not said, an option may say once.
fn check_range(args: Args<'_>, by: Option<By>, backwards: Option<bool>) -> Checked<Empty> {
    let (mut by, mut backwards) = (by, backwards);
    let (mut with_scores, mut limited) = (false, false);
    let known = [("withscores", 0), ("limit", 2), ("rev", 0), ("bylex", 0), ("byscore", 0)];
    let mut words = Words::new(args, 4);
    while let Some(option) = words.option(&known)? {
        match option {
            "withscores" => with_scores = true,
            "limit" => {
                number(words.take())?;
                // -1 says "all", and so does not count as a limit.
                limited = number(words.take())? != -1;
            }
            "rev" if backwards.is_none() => backwards = Some(true),
            "bylex" if by.is_none() => by = Some(By::Member),
            "byscore" if by.is_none() => by = Some(By::Score),
            _ => return Err(SYNTAX.into()),
        }
    }
    let by = by.unwrap_or(By::Position);
    if limited && by == By::Position {
        return Err(
            "ERR syntax error, LIMIT is only supported in combination with either BYSCORE \
                    or BYLEX"
                .into(),
        );
    }
    if with_scores && by == By::Member {
        return Err("ERR syntax error, WITHSCORES not supported in combination with BYLEX".into());
    }
    match by {
        By::Position => positions(args.at(2), args.at(3))?,
        By::Score => scores(args.at(2), args.at(3))?,
        By::Member => members(args.at(2), args.at(3))?,
    }
    Ok(Empty::Array)
}

/// `ZDIFF numkeys key [key ...] [WITHSCORES]`
pub(super) fn difference(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let checked = check_operation(ctx, args, "zdiff", |_, words| {
        while words.option(&[("withscores", 0)])?.is_some() {}
        Ok(Empty::Array)
    });
    answer(ctx, checked)
}

/// `ZINTER numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM|MIN|MAX] [WITHSCORES]`
pub(super) fn intersection(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let checked = check_operation(ctx, args, "zinter", weighed);
    answer(ctx, checked)
}

/// `ZUNION numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM|MIN|MAX] [WITHSCORES]`
pub(super) fn union(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let checked = check_operation(ctx, args, "zunion", weighed);
    answer(ctx, checked)
}

/// `ZINTERCARD numkeys key [key ...] [LIMIT limit]`
pub(super) fn intersection_size(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let checked = check_operation(ctx, args, "zintercard", |_, words| {
        while words.option(&[("limit", 1)])?.is_some() {
            at_least(0, words.take(), "ERR LIMIT can't be negative")?;
        }
        Ok(Empty::Zero)
    });
    answer(ctx, checked)
}

/// The keys are looked at before the options are: unlike SINTERCARD.
fn check_operation(
    ctx: &mut Context<'_>,
    args: Args<'_>,
    name: &str,
    options: fn(usize, &mut Words<'_>) -> Checked<Empty>,
) -> Checked<Empty> {
    let count = number(args.at(1))?;
    if count < 1 {
        return Err(format!("ERR at least 1 input key is needed for '{name}' command").into());
    }
    let count = usize::try_from(count).ok().filter(|count| *count <= args.len() - 2);
    let count = count.ok_or(SYNTAX)?;
    all_absent(ctx, keys(args, 2, count))?;
    options(count, &mut Words::new(args, 2 + count))
}

/// The options of a union or an intersection of `count` keys.
fn weighed(count: usize, words: &mut Words<'_>) -> Checked<Empty> {
    let known = [("weights", count), ("aggregate", 1), ("withscores", 0)];
    while let Some(option) = words.option(&known)? {
        match option {
            "weights" => {
                for _ in 0..count {
                    float(words.take(), "ERR weight value is not a float")?;
                }
            }
            "aggregate" => {
                words.option(&[("sum", 0), ("min", 0), ("max", 0)])?;
            }
            _ => {}
        }
    }
    Ok(Empty::Array)
}
