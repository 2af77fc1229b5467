//! What the words in `<>` of a template are drawn from: existing and missing keys, numbers at the
//! edges, options right and wrong.

pub(super) const KEYS: &[&[u8]] =
    &[b"access_token", b"ticket", "公众号:ticket".as_bytes(), b"access_token", b"ticket"];
pub(super) const MISSING: &[&[u8]] = &[
    b"missing",
    b"",
    b"Access_Token",
    b"access_token ",
    b"\x00\xff\r\n",
    b"access_token\x00",
    "公众号".as_bytes(),
    b"{ticket}",
];
pub(super) const INTEGERS: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "-1",
    "-2",
    "5",
    "10",
    "100",
    "-100",
    "4294967295",
    "4294967296",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775807",
    "-9223372036854775809",
    "18446744073709551615",
    "99999999999999999999",
    "",
    "abc",
    "1.5",
    "01",
    "-0",
    "+1",
    " 1",
    "1 ",
    "0x10",
    "1e3",
    "nan",
];
pub(super) const WORDS: &[&[u8]] = &[
    b"a",
    b"b",
    b"foo",
    b"Hello",
    b"",
    b"two words",
    "值".as_bytes(),
    b"\x00",
    b"nul\x00nul",
    b"line\r\nend",
    b"quote\"'",
    b"%s%n",
    b"0",
    b"on",
    b"a|b",
    b"client|id",
];
pub(super) const PATTERNS: &[&str] = &[
    "*",
    "*ticket",
    "a*",
    "access_token",
    "?icket",
    "[a-t]*",
    "[^a]*",
    "[z-a]*",
    "[abc",
    "\\*",
    "ticket\\",
    "",
    "**",
    "*\\?*",
    "nothing",
    "公*",
    "[",
    "[]*",
    "[^]*",
    "????*",
];
pub(super) const CHANNELS: &[&str] = &["ch", "ch1", "chan", "", "a*", "频道"];
pub(super) const CURSORS: &[&str] =
    &["0", "0", "0", "abc", "", "-1", "+0", "18446744073709551616", "1x", " 0", "0x0", "\r0"];
pub(super) const SCORES: &[&str] =
    &["0", "1", "-1", "(1", "+inf", "-inf", "inf", "nan", "a", "", "1.5", "(a"];
pub(super) const LEXES: &[&str] = &["-", "+", "[a", "(b", "a", "", "[", "(-"];
pub(super) const IDS: &[&str] =
    &["-", "+", "0", "$", ">", "1-1", "(1", "(1-1", "a", "", "1-x", "(-", "0-0"];
pub(super) const FLOATS: &[&str] =
    &["1", "15.5", "-1", "200", "0", "a", "", "nan", "inf", "1e2", "86"];
pub(super) const UNITS: &[&str] = &["m", "km", "ft", "mi", "foo", ""];
pub(super) const BITS: &[&str] =
    &["u8", "i64", "u63", "u64", "i65", "i5", "x8", "u0", "u", "", "u8 "];
pub(super) const OFFSETS: &[&str] =
    &["0", "#1", "#0", "100", "-1", "a", "#", "4294967288", "4294967296"];
pub(super) const TYPES: &[&str] =
    &["string", "STRING", "hash", "list", "zset", "stream", "foo", ""];
pub(super) const SECTIONS: &[&str] = &[
    "server",
    "clients",
    "persistence",
    "stats",
    "replication",
    "cluster",
    "keyspace",
    "default",
    "foo",
    "",
];
pub(super) const SETTINGS: &[&str] = &[
    "appendonly",
    "cluster-enabled",
    "databases",
    "maxmemory",
    "maxmemory-policy",
    "notify-keyspace-events",
    "port",
    "replica-read-only",
    "slave-read-only",
    "save",
    "timeout",
];
pub(super) const CATEGORIES: &[&str] = &[
    "keyspace",
    "read",
    "string",
    "fast",
    "slow",
    "connection",
    "dangerous",
    "transaction",
    "pubsub",
    "admin",
    "hash",
    "no-such",
];
