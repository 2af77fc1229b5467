//! Every command that is asked, right and wrong, as templates.

/// What a command may be made of. In a template, a word in `<>` is drawn from a list, `a|b` is one
/// of both, and what stands between `[` and `]` is there or not.
pub(super) struct Group {
    /// For `DIFF_SKIP`.
    pub(super) name: &'static str,
    /// How often it is drawn.
    pub(super) weight: usize,
    pub(super) templates: &'static [&'static str],
}

pub(super) const GROUPS: &[Group] = &[
    Group {
        name: "strings",
        weight: 12,
        templates: &["GET <key>", "MGET <keys>", "STRLEN <key>", "EXISTS <keys>", "TYPE <key>"],
    },
    Group {
        name: "range",
        weight: 6,
        templates: &["GETRANGE <key> <int> <int>", "SUBSTR <key> <int> <int>"],
    },
    Group {
        name: "life",
        weight: 8,
        templates: &["TTL <key>", "PTTL <key>", "EXPIRETIME <key>", "PEXPIRETIME <key>"],
    },
    Group {
        name: "keyspace",
        weight: 8,
        templates: &[
            "KEYS <pattern>",
            "SCAN <cursor>",
            "SCAN 0 [ MATCH <pattern> ] [ COUNT <int> ] [ TYPE <type> ]",
            "SCAN 0 [ COUNT 100 ] [ TYPE <type> ] [ MATCH <pattern> ]",
            "SCAN <cursor> [ FOO <word> ] [ COUNT <int> ] [ MATCH <pattern> ]",
            "DBSIZE",
        ],
    },
    Group { name: "touch", weight: 2, templates: &["RANDOMKEY", "TOUCH <keys>"] },
    Group {
        name: "object",
        weight: 4,
        templates: &[
            "OBJECT ENCODING|FREQ|IDLETIME|REFCOUNT <key>",
            "OBJECT HELP",
            "OBJECT <word> <key>",
            "OBJECT",
        ],
    },
    Group {
        name: "memory",
        weight: 3,
        templates: &[
            "MEMORY USAGE <key> [ SAMPLES <int> ]",
            "MEMORY HELP",
            "MEMORY <word>",
            "MEMORY",
        ],
    },
    Group {
        name: "hash",
        weight: 5,
        templates: &[
            "HGET <key> <word>",
            "HMGET <key> <words>",
            "HGETALL|HKEYS|HVALS|HLEN <key>",
            "HSTRLEN|HEXISTS <key> <word>",
            "HRANDFIELD <key> [ <int> ] [ WITHVALUES|FOO ]",
            "HSCAN <key> <cursor> [ MATCH <pattern> ] [ COUNT <int> ] [ TYPE|FOO <word> ]",
        ],
    },
    Group {
        name: "list",
        weight: 4,
        templates: &[
            "LLEN <key>",
            "LINDEX <key> <int>",
            "LRANGE <key> <int> <int>",
            "LPOS <key> <word> [ RANK <int> ] [ COUNT <int> ] [ MAXLEN <int> ] [ FOO|RANK ]",
        ],
    },
    Group {
        name: "set",
        weight: 5,
        templates: &[
            "SCARD|SMEMBERS <key>",
            "SISMEMBER <key> <word>",
            "SMISMEMBER <key> <words>",
            "SRANDMEMBER <key> [ <int> ]",
            "SSCAN <key> <cursor> [ MATCH <pattern> ] [ COUNT <int> ] [ FOO <word> ]",
            "SDIFF|SINTER|SUNION <keys>",
            "SINTERCARD <numkeys> <keys> [ LIMIT <int> ] [ FOO|LIMIT ]",
        ],
    },
    Group {
        name: "zset",
        weight: 8,
        templates: &[
            "ZCARD <key>",
            "ZCOUNT <key> <score> <score>",
            "ZLEXCOUNT <key> <lex> <lex>",
            "ZSCORE|ZRANK|ZREVRANK <key> <word>",
            "ZMSCORE <key> <words>",
            "ZRANGE <key> <int> <int> [ REV ] [ WITHSCORES ] [ LIMIT <int> <int> ] [ FOO|LIMIT ]",
            "ZRANGE <key> <score> <score> BYSCORE [ REV ] [ LIMIT <int> <int> ] [ WITHSCORES ]",
            "ZRANGE <key> <lex> <lex> BYLEX [ REV ] [ LIMIT <int> <int> ] [ WITHSCORES ]",
            "ZREVRANGE <key> <int> <int> [ WITHSCORES|FOO|REV ]",
            "ZRANGEBYSCORE|ZREVRANGEBYSCORE <key> <score> <score> [ WITHSCORES ] [ LIMIT <int> <int> ] [ FOO|REV ]",
            "ZRANGEBYLEX|ZREVRANGEBYLEX <key> <lex> <lex> [ LIMIT <int> <int> ] [ FOO|WITHSCORES ]",
            "ZRANDMEMBER <key> [ <int> ] [ WITHSCORES|FOO ]",
            "ZSCAN <key> <cursor> [ MATCH <pattern> ] [ COUNT <int> ] [ FOO <word> ]",
            "ZDIFF <numkeys> <keys> [ WITHSCORES ] [ FOO|WEIGHTS ]",
            "ZINTER|ZUNION <numkeys> <keys> [ WEIGHTS <score> <score> ] [ AGGREGATE SUM|MIN|MAX|FOO ] [ WITHSCORES ]",
            "ZINTERCARD <numkeys> <keys> [ LIMIT <int> ] [ FOO|LIMIT ]",
        ],
    },
    Group {
        name: "stream",
        weight: 5,
        templates: &[
            "XLEN <key>",
            "XRANGE|XREVRANGE <key> <id> <id> [ COUNT <int> ] [ FOO|COUNT ]",
            "XREAD [ COUNT <int> ] STREAMS|FOO <key> <id>",
            "XREAD [ COUNT <int> ] STREAMS <keys> <id>",
            "XREAD [ NOACK ] [ GROUP <word> <word> ] STREAMS <key> <id>",
            "XPENDING <key> <word> [ IDLE <int> ] [ <id> <id> <int> ] [ <word> ]",
            "XINFO STREAM <key> [ FULL|FOO ] [ COUNT <int> ]",
            "XINFO GROUPS <key>",
            "XINFO CONSUMERS <key> <word>",
            "XINFO HELP|<word>|STREAM|GROUPS",
        ],
    },
    Group {
        name: "geo",
        weight: 5,
        templates: &[
            "GEOPOS|GEOHASH <key> <words>",
            "GEODIST <key> <word> <word> [ <unit> ] [ FOO ]",
            "GEORADIUS_RO <key> <float> <float> <float> <unit> [ WITHCOORD ] [ WITHDIST ] [ COUNT <int> ] [ ANY ] [ ASC|DESC|FOO ]",
            "GEORADIUSBYMEMBER_RO <key> <word> <float> <unit> [ WITHHASH ] [ COUNT <int> ] [ STORE x ]",
            "GEOSEARCH <key> FROMMEMBER <word> BYRADIUS <float> <unit> [ COUNT <int> ] [ ANY|FOO ]",
            "GEOSEARCH <key> FROMLONLAT <float> <float> BYBOX <float> <float> <unit> [ WITHDIST ] [ DESC ]",
            "GEOSEARCH <key> [ FROMMEMBER <word> ] [ FROMLONLAT 1 2 ] [ BYRADIUS 1 m ] [ BYBOX 1 1 km ] ASC COUNT 1",
        ],
    },
    Group { name: "hyperloglog", weight: 1, templates: &["PFCOUNT <keys>"] },
    Group {
        name: "bitmap",
        weight: 4,
        templates: &[
            "GETBIT <key> <int>",
            "BITCOUNT <key> [ <int> <int> ] [ BIT|BYTE|FOO ]",
            "BITPOS <key> 0|1|<int> [ <int> ] [ <int> ] [ BIT|BYTE|FOO ]",
            "BITFIELD_RO <key> GET <bits> <offset> [ GET <bits> <offset> ] [ SET u8 0 1 ]",
            "BITFIELD_RO <key> [ OVERFLOW WRAP|SAT|FAIL|FOO ] [ INCRBY u8 0 1 ] [ FOO ]",
        ],
    },
    Group {
        name: "sort",
        weight: 2,
        templates: &[
            "SORT_RO <key> [ BY <pattern> ] [ LIMIT <int> <int> ] [ GET <pattern> ] [ ASC|DESC|FOO ] [ ALPHA ]",
        ],
    },
    Group {
        name: "lcs",
        weight: 2,
        templates: &["LCS <key> <key> [ LEN ] [ IDX|FOO ] [ MINMATCHLEN <int> ] [ WITHMATCHLEN ]"],
    },
    Group { name: "dump", weight: 1, templates: &["DUMP <missing>", "DUMP"] },
    Group {
        name: "connection",
        weight: 8,
        templates: &[
            "PING [ <word> ]",
            "PING <words>",
            "ECHO <word>",
            "SELECT <int>",
            "SELECT 0|1|15|16",
            "AUTH <words>",
            "HELLO [ <int> ]",
            "HELLO 2|3|4 [ AUTH <user> <word> ] [ SETNAME <word> ] [ FOO ]",
            "READONLY",
            "READWRITE",
        ],
    },
    Group { name: "reset", weight: 1, templates: &["RESET", "RESET", "HELLO 3"] },
    Group {
        name: "client",
        weight: 8,
        templates: &[
            "CLIENT ID|GETNAME",
            "CLIENT SETNAME <word>",
            "CLIENT NO-EVICT ON|OFF|<word>",
            "CLIENT <word> <words>",
            "CLIENT",
        ],
    },
    Group { name: "client-7.2", weight: 1, templates: &["CLIENT SETINFO LIB-NAME|LIB-VER <word>"] },
    Group {
        name: "client-list",
        weight: 2,
        templates: &[
            "CLIENT INFO|LIST",
            "CLIENT LIST TYPE normal|master|replica|slave|pubsub|<word>",
            "CLIENT LIST ID <id-of-nobody> [ <int> ]",
            "CLIENT LIST <word>",
        ],
    },
    Group { name: "help", weight: 1, templates: &["CLIENT|COMMAND|CONFIG HELP"] },
    Group {
        name: "client-kill",
        weight: 2,
        templates: &[
            "CLIENT KILL <word>",
            "CLIENT KILL ID <id-of-nobody> [ SKIPME yes|no|<word> ]",
            "CLIENT KILL ID <int>",
            "CLIENT KILL [ ADDR|LADDR 127.0.0.1:1 ] [ TYPE master|pubsub|<word> ] [ USER default|<word> ] [ FOO ]",
            "CLIENT KILL TYPE normal [ SKIPME yes ]",
        ],
    },
    Group {
        name: "tracking",
        weight: 4,
        templates: &[
            "CLIENT TRACKING ON|OFF|<word> [ BCAST ] [ OPTIN ] [ OPTOUT ] [ NOLOOP ]",
            "CLIENT TRACKING ON BCAST PREFIX <channel> [ PREFIX <channel> ] [ PREFIX ]",
            "CLIENT TRACKING ON [ PREFIX <channel> ] [ REDIRECT <id-of-nobody> ] [ FOO|REDIRECT ]",
            "CLIENT TRACKING ON REDIRECT <int>",
            "CLIENT CACHING YES|NO|<word>",
            "CLIENT GETREDIR|TRACKINGINFO",
        ],
    },
    Group {
        name: "multi",
        weight: 2,
        templates: &["EXEC", "DISCARD", "WATCH <keys>", "UNWATCH", "EXEC <word>"],
    },
    Group {
        name: "pubsub",
        weight: 3,
        templates: &[
            "UNSUBSCRIBE [ <channels> ]",
            "PUNSUBSCRIBE [ <channels> ]",
            "PUBSUB CHANNELS [ <pattern> ] [ <word> ]",
            "PUBSUB NUMSUB [ <channels> ]",
            "PUBSUB NUMPAT|HELP|<word>",
            "PUBSUB",
        ],
    },
    Group {
        name: "server",
        weight: 4,
        templates: &[
            "INFO [ <section> ] [ <section> ]",
            "TIME",
            "ROLE",
            "COMMAND INFO <served>",
            "COMMAND DOCS <served>",
            "COMMAND INFO <word>",
            "COMMAND DOCS <word>",
            "COMMAND <word> <words>",
            "COMMAND COUNT <word>",
        ],
    },
    Group {
        name: "command-list",
        weight: 1,
        templates: &[
            "COMMAND LIST [ FILTERBY PATTERN|ACLCAT|MODULE|FOO <served> ] [ <word> ]",
            "COMMAND LIST FILTERBY ACLCAT <category>",
        ],
    },
    Group {
        name: "getkeys",
        weight: 3,
        templates: &[
            "COMMAND GETKEYS|GETKEYSANDFLAGS GET|STRLEN|TTL|<word> <key>",
            "COMMAND GETKEYS|GETKEYSANDFLAGS MGET|EXISTS|TOUCH|WATCH|SINTER|PFCOUNT <keys>",
            "COMMAND GETKEYS|GETKEYSANDFLAGS MSET|SET|GETRANGE <words>",
            "COMMAND GETKEYS OBJECT ENCODING|FOO <key>",
            "COMMAND GETKEYS MEMORY USAGE <key>",
            "COMMAND GETKEYS ZUNION|ZINTER|ZDIFF|SINTERCARD <numkeys> <keys>",
            "COMMAND GETKEYS XREAD [ COUNT 1 ] STREAMS <keys> <id>",
            "COMMAND GETKEYS PING|CLIENT|HELLO|SUBSCRIBE <words>",
            "COMMAND GETKEYS",
        ],
    },
    Group {
        name: "config",
        weight: 3,
        templates: &[
            "CONFIG GET <setting>",
            "CONFIG GET <setting> <setting>",
            "CONFIG GET p[o]rt|time?ut|no-such|<empty>",
            "CONFIG <word>",
            "CONFIG",
        ],
    },
    Group {
        name: "latency",
        weight: 2,
        templates: &[
            "LATENCY LATEST|HELP|<word>|HISTORY|GRAPH",
            "LATENCY HISTORY|RESET <word>",
            "SLOWLOG GET [ <int> ] [ <word> ]",
            "SLOWLOG LEN|RESET|HELP|<word>",
            "SLOWLOG",
            "LATENCY",
        ],
    },
    Group {
        name: "cluster",
        weight: 2,
        templates: &[
            "CLUSTER INFO|NODES|SLOTS|SHARDS|MYID|<word>",
            "CLUSTER KEYSLOT <key>",
            "CLUSTER",
            "ASKING",
        ],
    },
    Group { name: "sentinel", weight: 1, templates: &["SENTINEL [ MASTERS|<word> ] [ <word> ]"] },
    Group {
        name: "acl",
        weight: 2,
        templates: &[
            "ACL WHOAMI|CAT|USERS|LIST|HELP|<word>",
            "ACL CAT <category>",
            "ACL CAT <word> [ <word> ]",
            "ACL GETUSER default|nobody",
            "ACL",
        ],
    },
    Group { name: "writes", weight: 12, templates: &["<write>"] },
    Group {
        name: "unknown",
        weight: 3,
        templates: &["<word> <words>", "NOSUCH <long>", "NOSUCH <words> <long> <word>"],
    },
];

/// The names of the commands that the templates draw, subcommands as `client|id`.
pub(super) fn names() -> Vec<String> {
    let mut names = Vec::new();
    for template in GROUPS.iter().flat_map(|group| group.templates) {
        let mut words = template.split(' ').map(str::to_lowercase);
        let (first, second) = (words.next().unwrap(), words.next().unwrap_or_default());
        for name in first.split('|') {
            names.push(name.to_owned());
            names.extend(second.split('|').map(|second| format!("{name}|{second}")));
        }
    }
    names
}
