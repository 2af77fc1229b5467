//! The commands that read places (GEO…); what is common to all types is in the file above.

use super::words::{Checked, SYNTAX, Words, extent, number, place, radius, unit};
use super::{Empty, absent, answer, words_then_key};
use crate::resp::command::{Context, Outcome};
use crate::resp::parse::Args;

/// `GEOPOS key [member ...]`
pub(super) fn positions(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    ctx.charge(args.len());
    words_then_key(ctx, args, Ok(Empty::NilArrays(args.len() - 2)))
}

/// `GEODIST key member1 member2 [M|KM|FT|MI]`
pub(super) fn distance(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let words = match args.len() {
        4 => Ok(Empty::Nil),
        5 => unit(args.at(4)).and(Ok(Empty::Nil)),
        _ => Err(SYNTAX.into()),
    };
    words_then_key(ctx, args, words)
}

/// `GEORADIUS_RO key longitude latitude radius M|KM|FT|MI [option ...]`
pub(super) fn around_place(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    key_then_words(ctx, args, || {
        place(args.at(2), args.at(3))?;
        radius(args.at(4), args.at(5))?;
        check_options(&mut Words::new(args, 6))
    })
}

/// `GEORADIUSBYMEMBER_RO key member radius M|KM|FT|MI [option ...]`: without a key there is no
/// member, and the radius is not looked at.
pub(super) fn around_member(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    key_then_words(ctx, args, || check_options(&mut Words::new(args, 5)))
}

/// `GEOSEARCH key FROMMEMBER member|FROMLONLAT longitude latitude
/// BYRADIUS radius M|KM|FT|MI|BYBOX width height M|KM|FT|MI [option ...]`
pub(super) fn search(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    key_then_words(ctx, args, || check_search(args))
}

/// All searches look at the key before anything else.
fn key_then_words(
    ctx: &mut Context<'_>,
    args: Args<'_>,
    words: impl FnOnce() -> Checked<()>,
) -> Outcome {
    let checked = absent(ctx, args.at(1)).and_then(|()| words()).and(Ok(Empty::Array));
    answer(ctx, checked)
}

/// Which of the options that depend on each other have been seen.
#[derive(Debug, Default)]
struct Seen {
    any: bool,
    count: bool,
}

/// The options of every search, and how many words follow each.
const OPTIONS: [(&str, usize); 7] = [
    ("withdist", 0),
    ("withhash", 0),
    ("withcoord", 0),
    ("any", 0),
    ("asc", 0),
    ("desc", 0),
    ("count", 1),
];

/// Those that say where a search begins and how far it goes.
const SHAPES: [(&str, usize); 4] =
    [("frommember", 1), ("fromlonlat", 2), ("byradius", 2), ("bybox", 3)];

impl Seen {
    fn option(&mut self, option: &str, words: &mut Words<'_>) -> Checked<()> {
        match option {
            "any" => self.any = true,
            "count" => {
                if number(words.take())? <= 0 {
                    return Err("ERR COUNT must be > 0".into());
                }
                self.count = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn fits(&self) -> Checked<()> {
        match self.any && !self.count {
            true => Err("ERR the ANY argument requires COUNT argument".into()),
            false => Ok(()),
        }
    }
}

fn check_options(words: &mut Words<'_>) -> Checked<()> {
    let mut seen = Seen::default();
    while let Some(option) = words.option(&OPTIONS)? {
        seen.option(option, words)?;
    }
    seen.fits()
}

fn check_search(args: Args<'_>) -> Checked<()> {
    let known: [_; 11] =
        std::array::from_fn(|at| *OPTIONS.get(at).unwrap_or_else(|| &SHAPES[at - OPTIONS.len()]));
    let mut words = Words::new(args, 2);
    let mut seen = Seen::default();
    // The one that was seen first shuts the other out.
    let (mut from, mut by) = (None, None);
    while let Some(option) = words.option(&known)? {
        let choice = match option {
            "frommember" | "fromlonlat" => &mut from,
            "byradius" | "bybox" => &mut by,
            _ => {
                seen.option(option, &mut words)?;
                continue;
            }
        };
        if *choice.get_or_insert(option) != option {
            return Err(SYNTAX.into());
        }
        match option {
            "frommember" => drop(words.take()),
            "fromlonlat" => place(words.take(), words.take())?,
            "byradius" => radius(words.take(), words.take())?,
            _ => extent(words.take(), words.take(), words.take())?,
        }
    }
    let needs = |what: &str| {
        // The name as the client wrote it, which the dispatcher found to be ASCII.
        let name = String::from_utf8_lossy(args.at(0));
        Err(format!("ERR exactly one of {what} can be specified for {name}").into())
    };
    match (from, by) {
        (None, _) => needs("FROMMEMBER or FROMLONLAT"),
        (_, None) => needs("BYRADIUS and BYBOX"),
        _ => seen.fits(),
    }
}
