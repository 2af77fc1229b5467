//! The table of the commands that are not about tokens: those that read types no token has, and
//! those that look into the bytes of a string. What COMMAND says of them is what Redis 7.0.15 says.
//! Long because a row is mostly what COMMAND DOCS must say.

use super::{
    array, cardinality, list_position, list_range, map, nil, nils, places, random_field,
    random_member, random_score, scan, set_intersection_size, sets, sort, sorted_sets, streams,
    zero, zeros,
};
use crate::resp::command::spec::{Begin, CommandSpec, Find, KeySpec, Keys, Run};
use crate::resp::command::{bits, lcs};

/// What the commands of one group have in common.
struct Traits {
    group: &'static str,
    flags: &'static [&'static str],
    categories: &'static [&'static str],
}

const BITMAP_FAST: Traits = Traits {
    group: "bitmap",
    flags: &["readonly", "fast"],
    categories: &["@read", "@bitmap", "@fast"],
};
const BITMAP: Traits =
    Traits { group: "bitmap", flags: &["readonly"], categories: &["@read", "@bitmap", "@slow"] };
const GEO: Traits =
    Traits { group: "geo", flags: &["readonly"], categories: &["@read", "@geo", "@slow"] };
const HASH_FAST: Traits = Traits {
    group: "hash",
    flags: &["readonly", "fast"],
    categories: &["@read", "@hash", "@fast"],
};
const HASH: Traits =
    Traits { group: "hash", flags: &["readonly"], categories: &["@read", "@hash", "@slow"] };
const HYPERLOGLOG: Traits = Traits {
    group: "hyperloglog",
    flags: &["readonly"],
    categories: &["@read", "@hyperloglog", "@slow"],
};
const LIST_FAST: Traits = Traits {
    group: "list",
    flags: &["readonly", "fast"],
    categories: &["@read", "@list", "@fast"],
};
const LIST: Traits =
    Traits { group: "list", flags: &["readonly"], categories: &["@read", "@list", "@slow"] };
const SET_FAST: Traits =
    Traits { group: "set", flags: &["readonly", "fast"], categories: &["@read", "@set", "@fast"] };
const SET: Traits =
    Traits { group: "set", flags: &["readonly"], categories: &["@read", "@set", "@slow"] };
const SORTED_SET_FAST: Traits = Traits {
    group: "sorted-set",
    flags: &["readonly", "fast"],
    categories: &["@read", "@sortedset", "@fast"],
};
const SORTED_SET: Traits = Traits {
    group: "sorted-set",
    flags: &["readonly"],
    categories: &["@read", "@sortedset", "@slow"],
};
const STREAM_FAST: Traits = Traits {
    group: "stream",
    flags: &["readonly", "fast"],
    categories: &["@read", "@stream", "@fast"],
};
const STREAM: Traits =
    Traits { group: "stream", flags: &["readonly"], categories: &["@read", "@stream", "@slow"] };
const STRING: Traits =
    Traits { group: "string", flags: &["readonly"], categories: &["@read", "@string", "@slow"] };
const GENERIC: Traits = Traits {
    group: "generic",
    flags: &["readonly", "movablekeys"],
    categories: &["@read", "@set", "@sortedset", "@list", "@slow", "@dangerous"],
};

/// The word after a subcommand.
const SECOND: Keys = Keys { first: 2, last: 2, step: 1, access: READ };
/// The two words after the name.
const TWO: Keys = Keys { first: 1, last: 2, step: 1, access: READ };
/// All words after the name, which Redis may write in another form.
const HYPERLOGLOGS: Keys = Keys { first: 1, last: -1, step: 1, access: &["RW", "access"] };

const READ: &[&str] = &["RO", "access"];

/// A word says how many keys follow it.
const COUNTED_KEYS: KeySpec = KeySpec {
    notes: "",
    access: READ,
    begin: Begin::Index(1),
    find: Find::Count { count: 0, first: 1, step: 1 },
};
const STREAM_KEYS: KeySpec = KeySpec {
    notes: "",
    access: READ,
    begin: Begin::Keyword("STREAMS", 1),
    find: Find::Range { last: -1, step: 1, limit: 2 },
};
const SORTED_KEY: KeySpec = KeySpec {
    notes: "",
    access: READ,
    begin: Begin::Index(1),
    find: Find::Range { last: 0, step: 1, limit: 0 },
};
const SORT_PATTERNS: KeySpec = KeySpec {
    notes: "For the optional BY/GET keyword. It is marked 'unknown' because the key names derive \
            from the content of the key we sort",
    access: READ,
    begin: Begin::Unknown,
    find: Find::Unknown,
};
const HYPERLOGLOG_KEYS: KeySpec = KeySpec {
    notes: "RW because it may change the internal representation of the key, and propagate to \
            replicas",
    access: HYPERLOGLOGS.access,
    begin: Begin::Index(1),
    find: Find::Range { last: -1, step: 1, limit: 0 },
};

const fn row(name: &'static str, arity: i32, traits: &Traits, keys: Keys, run: Run) -> CommandSpec {
    let Traits { group, flags, categories } = *traits;
    CommandSpec {
        name,
        arity,
        flags,
        keys,
        categories,
        group,
        run: Some(run),
        ..CommandSpec::EMPTY
    }
}

impl CommandSpec {
    const fn says(
        self,
        since: &'static str,
        complexity: &'static str,
        summary: &'static str,
    ) -> CommandSpec {
        CommandSpec { since, complexity, summary, ..self }
    }

    /// Its answers are not the same each time.
    const fn unsteady(self) -> CommandSpec {
        CommandSpec { tips: &["nondeterministic_output"], ..self }
    }

    /// The order of its answers is not the same each time.
    const fn unordered(self) -> CommandSpec {
        CommandSpec { tips: &["nondeterministic_output_order"], ..self }
    }

    /// Its first word says how many keys follow.
    const fn counted(self) -> CommandSpec {
        CommandSpec { flags: &["readonly", "movablekeys"], key_specs: &[COUNTED_KEYS], ..self }
    }
}

/// Every one of them, sorted by name.
pub(in crate::resp::command) static FOREIGN: &[CommandSpec] = &[
    row("bitcount", -2, &BITMAP, Keys::ONE_READ, bits::count).says(
        "2.6.0",
        "O(N)",
        "Count set bits in a string",
    ),
    row("bitfield_ro", -2, &BITMAP_FAST, Keys::ONE_READ, bits::fields).says(
        "6.0.0",
        "O(1) for each subcommand specified",
        "Perform arbitrary bitfield integer operations on strings. Read-only variant of \
         BITFIELD",
    ),
    row("bitpos", -3, &BITMAP, Keys::ONE_READ, bits::position).says(
        "2.8.7",
        "O(N)",
        "Find first bit set or clear in a string",
    ),
    row("geodist", -4, &GEO, Keys::ONE_READ, places::distance).says(
        "3.2.0",
        "O(log(N))",
        "Returns the distance between two members of a geospatial index",
    ),
    row("geohash", -2, &GEO, Keys::ONE_READ, nils).says(
        "3.2.0",
        "O(log(N)) for each member requested, where N is the number of elements in the sorted \
         set.",
        "Returns members of a geospatial index as standard geohash strings",
    ),
    row("geopos", -2, &GEO, Keys::ONE_READ, places::positions).says(
        "3.2.0",
        "O(N) where N is the number of members requested.",
        "Returns longitude and latitude of members of a geospatial index",
    ),
    row("georadius_ro", -6, &GEO, Keys::ONE_READ, places::around_place).says(
        "3.2.10",
        "O(N+log(M)) where N is the number of elements inside the bounding box of the \
         circular area delimited by center and radius and M is the number of items inside the \
         index.",
        "A read-only variant for GEORADIUS",
    ),
    row("georadiusbymember_ro", -5, &GEO, Keys::ONE_READ, places::around_member).says(
        "3.2.10",
        "O(N+log(M)) where N is the number of elements inside the bounding box of the \
         circular area delimited by center and radius and M is the number of items inside the \
         index.",
        "A read-only variant for GEORADIUSBYMEMBER",
    ),
    row("geosearch", -7, &GEO, Keys::ONE_READ, places::search).says(
        "6.2.0",
        "O(N+log(M)) where N is the number of elements in the grid-aligned bounding box area \
         around the shape provided as the filter and M is the number of items inside the \
         shape",
        "Query a sorted set representing a geospatial index to fetch members inside an area \
         of a box or a circle.",
    ),
    row("getbit", 3, &BITMAP_FAST, Keys::ONE_READ, bits::get).says(
        "2.2.0",
        "O(1)",
        "Returns the bit value at offset in the string value stored at key",
    ),
    row("hexists", 3, &HASH_FAST, Keys::ONE_LOOKED_UP, zero).says(
        "2.0.0",
        "O(1)",
        "Determine if a hash field exists",
    ),
    row("hget", 3, &HASH_FAST, Keys::ONE_READ, nil).says(
        "2.0.0",
        "O(1)",
        "Get the value of a hash field",
    ),
    row("hgetall", 2, &HASH, Keys::ONE_READ, map).unordered().says(
        "2.0.0",
        "O(N) where N is the size of the hash.",
        "Get all the fields and values in a hash",
    ),
    row("hkeys", 2, &HASH, Keys::ONE_READ, array).unordered().says(
        "2.0.0",
        "O(N) where N is the size of the hash.",
        "Get all the fields in a hash",
    ),
    row("hlen", 2, &HASH_FAST, Keys::ONE_LOOKED_UP, zero).says(
        "2.0.0",
        "O(1)",
        "Get the number of fields in a hash",
    ),
    row("hmget", -3, &HASH_FAST, Keys::ONE_READ, nils).says(
        "2.0.0",
        "O(N) where N is the number of fields being requested.",
        "Get the values of all the given hash fields",
    ),
    row("hrandfield", -2, &HASH, Keys::ONE_READ, random_field).unsteady().says(
        "6.2.0",
        "O(N) where N is the number of fields returned",
        "Get one or multiple random fields from a hash",
    ),
    row("hscan", -3, &HASH, Keys::ONE_READ, scan).unsteady().says(
        "2.8.0",
        "O(1) for every call. O(N) for a complete iteration, including enough command calls \
         for the cursor to return back to 0. N is the number of elements inside the \
         collection..",
        "Incrementally iterate hash fields and associated values",
    ),
    row("hstrlen", 3, &HASH_FAST, Keys::ONE_LOOKED_UP, zero).says(
        "3.2.0",
        "O(1)",
        "Get the length of the value of a hash field",
    ),
    row("hvals", 2, &HASH, Keys::ONE_READ, array).unordered().says(
        "2.0.0",
        "O(N) where N is the size of the hash.",
        "Get all the values in a hash",
    ),
    row("lcs", -3, &STRING, TWO, lcs::lcs).says(
        "7.0.0",
        "O(N*M) where N and M are the lengths of s1 and s2, respectively",
        "Find longest common substring",
    ),
    row("lindex", 3, &LIST, Keys::ONE_READ, nil).says(
        "1.0.0",
        "O(N) where N is the number of elements to traverse to get to the element at index. \
         This makes asking for the first or the last element of the list O(1).",
        "Get an element from a list by its index",
    ),
    row("llen", 2, &LIST_FAST, Keys::ONE_LOOKED_UP, zero).says(
        "1.0.0",
        "O(1)",
        "Get the length of a list",
    ),
    row("lpos", -3, &LIST, Keys::ONE_READ, list_position).says(
        "6.0.6",
        "O(N) where N is the number of elements in the list, for the average case. When \
         searching for elements near the head or the tail of the list, or when the MAXLEN \
         option is provided, the command may run in constant time.",
        "Return the index of matching elements on a list",
    ),
    row("lrange", 4, &LIST, Keys::ONE_READ, list_range).says(
        "1.0.0",
        "O(S+N) where S is the distance of start offset from HEAD for small lists, from \
         nearest end (HEAD or TAIL) for large lists; and N is the number of elements in the \
         specified range.",
        "Get a range of elements from a list",
    ),
    CommandSpec {
        key_specs: &[HYPERLOGLOG_KEYS],
        ..row("pfcount", -2, &HYPERLOGLOG, HYPERLOGLOGS, cardinality).says(
            "2.8.9",
            "O(1) with a very small average constant time when called with a single key. O(N) \
             with N being the number of keys, and much bigger constant times, when called \
             with multiple keys.",
            "Return the approximated cardinality of the set(s) observed by the HyperLogLog at \
             key(s).",
        )
    },
    row("scard", 2, &SET_FAST, Keys::ONE_LOOKED_UP, zero).says(
        "1.0.0",
        "O(1)",
        "Get the number of members in a set",
    ),
    row("sdiff", -2, &SET, Keys::ALL_READ, sets).unordered().says(
        "1.0.0",
        "O(N) where N is the total number of elements in all given sets.",
        "Subtract multiple sets",
    ),
    row("sinter", -2, &SET, Keys::ALL_READ, sets).unordered().says(
        "1.0.0",
        "O(N*M) worst case where N is the cardinality of the smallest set and M is the number \
         of sets.",
        "Intersect multiple sets",
    ),
    row("sintercard", -3, &SET, Keys::NONE, set_intersection_size).counted().says(
        "7.0.0",
        "O(N*M) worst case where N is the cardinality of the smallest set and M is the number \
         of sets.",
        "Intersect multiple sets and return the cardinality of the result",
    ),
    row("sismember", 3, &SET_FAST, Keys::ONE_LOOKED_UP, zero).says(
        "1.0.0",
        "O(1)",
        "Determine if a given value is a member of a set",
    ),
    row("smembers", 2, &SET, Keys::ONE_READ, sets).unordered().says(
        "1.0.0",
        "O(N) where N is the set cardinality.",
        "Get all the members in a set",
    ),
    row("smismember", -3, &SET_FAST, Keys::ONE_READ, zeros).says(
        "6.2.0",
        "O(N) where N is the number of elements being checked for membership",
        "Returns the membership associated with the given elements for a set",
    ),
    CommandSpec {
        key_specs: &[SORTED_KEY, SORT_PATTERNS],
        ..row("sort_ro", -2, &GENERIC, Keys::ONE_READ, sort).says(
            "7.0.0",
            "O(N+M*log(M)) where N is the number of elements in the list or set to sort, and \
             M the number of returned elements. When the elements are not sorted, complexity \
             is O(N).",
            "Sort the elements in a list, set or sorted set. Read-only variant of SORT.",
        )
    },
    row("srandmember", -2, &SET, Keys::ONE_READ, random_member).unsteady().says(
        "1.0.0",
        "Without the count argument O(1), otherwise O(N) where N is the absolute value of the \
         passed count.",
        "Get one or multiple random members from a set",
    ),
    row("sscan", -3, &SET, Keys::ONE_READ, scan).unsteady().says(
        "2.8.0",
        "O(1) for every call. O(N) for a complete iteration, including enough command calls \
         for the cursor to return back to 0. N is the number of elements inside the \
         collection..",
        "Incrementally iterate Set elements",
    ),
    row("sunion", -2, &SET, Keys::ALL_READ, sets).unordered().says(
        "1.0.0",
        "O(N) where N is the total number of elements in all given sets.",
        "Add multiple sets",
    ),
    CommandSpec {
        name: "xinfo",
        arity: -2,
        categories: &["@slow"],
        group: "stream",
        since: "5.0.0",
        complexity: "Depends on subcommand.",
        summary: "A container for stream introspection commands",
        subcommands: XINFO,
        ..CommandSpec::EMPTY
    },
    row("xlen", 2, &STREAM_FAST, Keys::ONE_LOOKED_UP, zero).says(
        "5.0.0",
        "O(1)",
        "Return the number of entries in a stream",
    ),
    row("xpending", -3, &STREAM, Keys::ONE_READ, streams::pending).unsteady().says(
        "5.0.0",
        "O(N) with N being the number of elements returned, so asking for a small fixed \
         number of entries per call is O(1). O(M), where M is the total number of entries \
         scanned when used with the IDLE filter. When the command returns just the summary \
         and the list of consumers is small, it runs in O(1) time; otherwise, an additional \
         O(N) time for iterating every consumer.",
        "Return information and entries from a stream consumer group pending entries list, \
         that are messages fetched but never acknowledged.",
    ),
    row("xrange", -4, &STREAM, Keys::ONE_READ, streams::range).says(
        "5.0.0",
        "O(N) with N being the number of elements being returned. If N is constant (e.g. \
         always asking for the first 10 elements with COUNT), you can consider it O(1).",
        "Return a range of elements in a stream, with IDs matching the specified IDs interval",
    ),
    CommandSpec {
        flags: &["readonly", "blocking", "movablekeys"],
        categories: &["@read", "@stream", "@slow", "@blocking"],
        key_specs: &[STREAM_KEYS],
        ..row("xread", -4, &STREAM, Keys::NONE, streams::read).says(
            "5.0.0",
            "For each stream mentioned: O(N) with N being the number of elements being \
             returned, it means that XREAD-ing with a fixed COUNT is O(1). Note that when the \
             BLOCK option is used, XADD will pay O(M) time in order to serve the M clients \
             blocked on the stream getting new data.",
            "Return never seen elements in multiple streams, with IDs greater than the ones \
             reported by the caller for each stream. Can block.",
        )
    },
    row("xrevrange", -4, &STREAM, Keys::ONE_READ, streams::range_backwards).says(
        "5.0.0",
        "O(N) with N being the number of elements returned. If N is constant (e.g. always \
         asking for the first 10 elements with COUNT), you can consider it O(1).",
        "Return a range of elements in a stream, with IDs matching the specified IDs \
         interval, in reverse order (from greater to smaller IDs) compared to XRANGE",
    ),
    row("zcard", 2, &SORTED_SET_FAST, Keys::ONE_LOOKED_UP, zero).says(
        "1.2.0",
        "O(1)",
        "Get the number of members in a sorted set",
    ),
    row("zcount", 4, &SORTED_SET_FAST, Keys::ONE_READ, sorted_sets::count).says(
        "2.0.0",
        "O(log(N)) with N being the number of elements in the sorted set.",
        "Count the members in a sorted set with scores within the given values",
    ),
    row("zdiff", -3, &SORTED_SET, Keys::NONE, sorted_sets::difference).counted().says(
        "6.2.0",
        "O(L + (N-K)log(N)) worst case where L is the total number of elements in all the \
         sets, N is the size of the first set, and K is the size of the result set.",
        "Subtract multiple sorted sets",
    ),
    row("zinter", -3, &SORTED_SET, Keys::NONE, sorted_sets::intersection).counted().says(
        "6.2.0",
        "O(N*K)+O(M*log(M)) worst case with N being the smallest input sorted set, K being \
         the number of input sorted sets and M being the number of elements in the resulting \
         sorted set.",
        "Intersect multiple sorted sets",
    ),
    row("zintercard", -3, &SORTED_SET, Keys::NONE, sorted_sets::intersection_size).counted().says(
        "7.0.0",
        "O(N*K) worst case with N being the smallest input sorted set, K being the number of \
         input sorted sets.",
        "Intersect multiple sorted sets and return the cardinality of the result",
    ),
    row("zlexcount", 4, &SORTED_SET_FAST, Keys::ONE_READ, sorted_sets::count_members).says(
        "2.8.9",
        "O(log(N)) with N being the number of elements in the sorted set.",
        "Count the number of members in a sorted set between a given lexicographical range",
    ),
    row("zmscore", -3, &SORTED_SET_FAST, Keys::ONE_READ, nils).says(
        "6.2.0",
        "O(N) where N is the number of members being requested.",
        "Get the score associated with the given members in a sorted set",
    ),
    row("zrandmember", -2, &SORTED_SET, Keys::ONE_READ, random_score).unsteady().says(
        "6.2.0",
        "O(N) where N is the number of elements returned",
        "Get one or multiple random elements from a sorted set",
    ),
    row("zrange", -4, &SORTED_SET, Keys::ONE_READ, sorted_sets::range).says(
        "1.2.0",
        "O(log(N)+M) with N being the number of elements in the sorted set and M the number \
         of elements returned.",
        "Return a range of members in a sorted set",
    ),
    row("zrangebylex", -4, &SORTED_SET, Keys::ONE_READ, sorted_sets::range_of_members).says(
        "2.8.9",
        "O(log(N)+M) with N being the number of elements in the sorted set and M the number \
         of elements being returned. If M is constant (e.g. always asking for the first 10 \
         elements with LIMIT), you can consider it O(log(N)).",
        "Return a range of members in a sorted set, by lexicographical range",
    ),
    row("zrangebyscore", -4, &SORTED_SET, Keys::ONE_READ, sorted_sets::range_of_scores).says(
        "1.0.5",
        "O(log(N)+M) with N being the number of elements in the sorted set and M the number \
         of elements being returned. If M is constant (e.g. always asking for the first 10 \
         elements with LIMIT), you can consider it O(log(N)).",
        "Return a range of members in a sorted set, by score",
    ),
    row("zrank", 3, &SORTED_SET_FAST, Keys::ONE_READ, nil).says(
        "2.0.0",
        "O(log(N))",
        "Determine the index of a member in a sorted set",
    ),
    row("zrevrange", -4, &SORTED_SET, Keys::ONE_READ, sorted_sets::range_backwards).says(
        "1.2.0",
        "O(log(N)+M) with N being the number of elements in the sorted set and M the number \
         of elements returned.",
        "Return a range of members in a sorted set, by index, with scores ordered from high \
         to low",
    ),
    row("zrevrangebylex", -4, &SORTED_SET, Keys::ONE_READ, sorted_sets::range_of_members_backwards)
        .says(
            "2.8.9",
            "O(log(N)+M) with N being the number of elements in the sorted set and M the number \
             of elements being returned. If M is constant (e.g. always asking for the first 10 \
             elements with LIMIT), you can consider it O(log(N)).",
            "Return a range of members in a sorted set, by lexicographical range, ordered from \
             higher to lower strings.",
        ),
    row(
        "zrevrangebyscore",
        -4,
        &SORTED_SET,
        Keys::ONE_READ,
        sorted_sets::range_of_scores_backwards,
    )
    .says(
        "2.2.0",
        "O(log(N)+M) with N being the number of elements in the sorted set and M the number \
         of elements being returned. If M is constant (e.g. always asking for the first 10 \
         elements with LIMIT), you can consider it O(log(N)).",
        "Return a range of members in a sorted set, by score, with scores ordered from high \
         to low",
    ),
    row("zrevrank", 3, &SORTED_SET_FAST, Keys::ONE_READ, nil).says(
        "2.0.0",
        "O(log(N))",
        "Determine the index of a member in a sorted set, with scores ordered from high to low",
    ),
    row("zscan", -3, &SORTED_SET, Keys::ONE_READ, scan).unsteady().says(
        "2.8.0",
        "O(1) for every call. O(N) for a complete iteration, including enough command calls \
         for the cursor to return back to 0. N is the number of elements inside the \
         collection..",
        "Incrementally iterate sorted sets elements and associated scores",
    ),
    row("zscore", 3, &SORTED_SET_FAST, Keys::ONE_READ, nil).says(
        "1.2.0",
        "O(1)",
        "Get the score associated with the given member in a sorted set",
    ),
    row("zunion", -3, &SORTED_SET, Keys::NONE, sorted_sets::union).counted().says(
        "6.2.0",
        "O(N)+O(M*log(M)) with N being the sum of the sizes of the input sorted sets, and M \
         being the number of elements in the resulting sorted set.",
        "Add multiple sorted sets",
    ),
];

/// The subcommands of XINFO.
static XINFO: &[CommandSpec] = &[
    row("consumers", 4, &STREAM, SECOND, streams::describe).unsteady().says(
        "5.0.0",
        "O(1)",
        "List the consumers in a consumer group",
    ),
    row("groups", 3, &STREAM, SECOND, streams::describe).says(
        "5.0.0",
        "O(1)",
        "List the consumer groups of a stream",
    ),
    CommandSpec {
        flags: &["loading", "stale"],
        categories: &["@stream", "@slow"],
        ..row("help", 2, &STREAM, Keys::NONE, streams::help).says(
            "5.0.0",
            "O(1)",
            "Show helpful text about the different subcommands",
        )
    },
    row("stream", -3, &STREAM, SECOND, streams::describe).says(
        "5.0.0",
        "O(1)",
        "Get information about a stream",
    ),
];
