//! As much of the Redis protocol as it takes to read a few keys: RESP2, one request at a time, over a
//! plain or an encrypted connection.
//!
//! Not the crate `redis`: with TLS it makes the program 306 kB larger (1.8, default features off, same
//! profile), for five commands, and it trusts whomever the host's certificate store does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;
use zeroize::Zeroizing;

use super::connection::printable;
use super::{EX_CONFIG, EX_DATAERR, EX_NOPERM, EX_PROTOCOL, EX_UNAVAILABLE, EX_USAGE, Failure};
use crate::outbound::{OutboundError, Trust};
use crate::token::Secret;

/// How long a connection, and each read and write on it, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to do about a server that does not know TLS.
const IN_THE_CLEAR: &str = "it does not speak TLS at that port; write redis:// if that is right";

/// The port of a Redis server that names none.
const PORT: u16 = 6379;

/// The longest line and the longest text that are read, in bytes: beyond any token in any clothes.
const MAX_LINE_BYTES: u64 = 4 * 1024;
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Where a Redis server is, and what it asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    is_encrypted: bool,
    host: String,
    port: u16,
    database: Option<u32>,
    user: Option<String>,
    pub(super) password: Option<Secret>,
}

impl Place {
    /// Reads `redis://[user[:password]@]host[:port][/database]`, and `rediss://` for TLS.
    ///
    /// # Errors
    /// It is none; what it holds is not repeated, since a password may be in it.
    pub(super) fn parse(text: &Secret) -> Result<Place, Failure> {
        let wrong = |en: &str, zh: &str| {
            let shape = "redis://[user:password@]host[:port][/database]";
            Failure::new(
                EX_USAGE,
                format_args!(
                    "the address of the old Redis {en}; write {shape}, or rediss:// for TLS"
                ),
            )
            .zh(format_args!("旧 Redis 的地址{zh}；请写作 {shape}，加密则用 rediss://"))
        };
        let url = Url::parse(text.expose()).map_err(|_| wrong("is none", "不是有效的地址"))?;
        let is_encrypted = match url.scheme() {
            "redis" => false,
            "rediss" => true,
            _ => {
                return Err(wrong(
                    "begins with neither redis:// nor rediss://",
                    "应以 redis:// 或 rediss:// 开头",
                ));
            }
        };
        let host = url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| wrong("has no host", "缺少主机名"))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("has something behind its path", "的路径之后有多余内容"));
        }
        let database = match url.path().trim_matches('/') {
            "" => None,
            number => Some(number.parse().map_err(|_| {
                wrong("has a database that is no number", "中的数据库编号不是数字")
            })?),
        };
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        Ok(Place {
            is_encrypted,
            host: host.to_owned(),
            port: url.port().unwrap_or(PORT),
            database,
            user: Some(decoded(url.username())).filter(|user| !user.is_empty()),
            password: url.password().map(|password| Secret::new(decoded(password))),
        })
    }
}

/// What a Redis server replies. Tokens may be in it, so it has no `Debug`.
pub(super) enum Reply {
    /// A text, simple or bulk.
    Text(Zeroizing<Vec<u8>>),
    /// A number.
    Number(i64),
    /// There is nothing.
    Nil,
    /// An error, in the server's words.
    Error(String),
    /// Several.
    List(Vec<Reply>),
}

trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

/// A connection to a Redis server.
pub(super) struct Client {
    stream: BufReader<Box<dyn Stream>>,
    /// Where it leads to, for messages.
    place: String,
}

impl Client {
    /// Connects, authenticates and selects the database.
    ///
    /// # Errors
    /// Nobody answers, or the server does not let us in.
    pub(super) fn connect(place: &Place, trust: &Trust) -> Result<Client, Failure> {
        let Place { is_encrypted, host, port, database, user, password } = place;
        let name = format!("{host}:{port}");
        let unavailable = |error: &dyn std::fmt::Display| {
            Failure::new(EX_UNAVAILABLE, format_args!("no Redis answers at {name}: {error}"))
                .zh(format_args!("{name} 上没有 Redis 应答：{error}"))
        };
        let addresses = (host.trim_matches(['[', ']']), *port);
        let addresses = addresses.to_socket_addrs().map_err(|error| unavailable(&error))?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let stream = addresses.into_iter().find_map(|address| {
            TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| last = error).ok()
        });
        let Some(stream) = stream else { return Err(unavailable(&last)) };
        stream.set_read_timeout(Some(PATIENCE)).map_err(|error| unavailable(&error))?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(|error| unavailable(&error))?;
        let stream: Box<dyn Stream> = if *is_encrypted {
            Box::new(trust.encrypt(host, stream, IN_THE_CLEAR).map_err(|error| {
                match error {
                    OutboundError::CannotSend(words) => Failure::new(EX_CONFIG, words),
                    OutboundError::NoTls(words) => Failure::new(
                        EX_UNAVAILABLE,
                        format_args!("{name} is not believed, and nothing was sent: {words}"),
                    )
                    .zh(format_args!("{name} 的身份无法确认，未发送任何内容：{words}")),
                    _ => unavailable(&"the connection broke"),
                }
            })?)
        } else {
            Box::new(stream)
        };
        let mut client = Client { stream: BufReader::new(stream), place: name };
        if let Some(password) = password {
            let words = [Some("AUTH"), user.as_deref(), Some(password.expose())];
            let words: Vec<&str> = words.into_iter().flatten().collect();
            // Not in its words: some servers repeat what they do not understand.
            if let Reply::Error(_) = client.ask(&words)? {
                return Err(Failure::new(
                    EX_NOPERM,
                    format_args!(
                        "the Redis at {} refuses the password, or asks for none",
                        client.place
                    ),
                )
                .zh(format_args!("{} 上的 Redis 拒绝了密码，或并未设置密码", client.place)));
            }
        }
        if let Some(database) = database.filter(|database| *database != 0) {
            client.tell(&["SELECT", &database.to_string()])?;
        }
        Ok(client)
    }

    /// Asks, and takes an error for a failure.
    ///
    /// # Errors
    /// The connection broke, or the server's reply is an error.
    pub(super) fn tell(&mut self, words: &[&str]) -> Result<Reply, Failure> {
        match self.ask(words)? {
            Reply::Error(error) if error.starts_with("NOAUTH") => Err(Failure::new(
                EX_NOPERM,
                format_args!(
                    "the Redis at {} asks for a password: put it into the variable REDISCLI_AUTH (and a user's \
                     name into the address)",
                    self.place
                ),
            )
            .zh(format_args!(
                "{} 上的 Redis 需要密码：请放入环境变量 REDISCLI_AUTH（用户名写在地址中）",
                self.place
            ))),
            Reply::Error(error) if error.starts_with("NOPERM") => Err(Failure::new(
                EX_NOPERM,
                format_args!(
                    "the Redis at {} does not let this user: {}",
                    self.place,
                    printable(&error)
                ),
            )
            .zh(format_args!("{} 上的 Redis 不允许该用户：{}", self.place, printable(&error)))),
            Reply::Error(error) => Err(Failure::new(
                EX_DATAERR,
                format_args!("the Redis at {} says: {}", self.place, printable(&error)),
            )
            .zh(format_args!("{} 上的 Redis 返回：{}", self.place, printable(&error)))),
            reply => Ok(reply),
        }
    }

    fn ask(&mut self, words: &[&str]) -> Result<Reply, Failure> {
        let mut request = Zeroizing::new(Vec::with_capacity(MAX_LINE_BYTES as usize));
        write!(request, "*{}\r\n", words.len()).expect("a Vec takes what is written");
        for word in words {
            write!(request, "${}\r\n{word}\r\n", word.len()).expect("a Vec takes what is written");
        }
        let stream = self.stream.get_mut();
        let sent = stream.write_all(&request).and_then(|()| stream.flush());
        sent.and_then(|()| read(&mut self.stream, 0)).map_err(|error| broken(&self.place, &error))
    }
}

/// Why there is no reply from `place`.
fn broken(place: &str, error: &io::Error) -> Failure {
    let code = match error.kind() {
        // What a read or a write says whose time is up.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            return Failure::new(
                EX_UNAVAILABLE,
                format_args!("{place} does not answer in time; is it a Redis?"),
            )
            .zh(format_args!("{place} 未在规定时间内应答；它是 Redis 吗？"));
        }
        io::ErrorKind::InvalidData if error.get_ref().is_some_and(|e| e.is::<NotRedis>()) => {
            EX_PROTOCOL
        }
        _ => EX_UNAVAILABLE,
    };
    Failure::new(code, format_args!("the connection to {place} broke: {error}"))
        .zh(format_args!("与 {place} 的连接中断：{error}"))
}

/// What answers does not speak the Redis protocol.
#[derive(Debug)]
struct NotRedis;

impl std::fmt::Display for NotRedis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("what answers is no Redis, or asks for TLS (rediss://)")
    }
}

impl std::error::Error for NotRedis {}

/// Reads a reply.
fn read(stream: &mut impl BufRead, depth: u32) -> io::Result<Reply> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, NotRedis);
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE_BYTES as usize));
    stream.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.strip_suffix(b"\r\n").ok_or_else(wrong)?;
    let (kind, rest) = line.split_first().ok_or_else(wrong)?;
    let number = || {
        let text = std::str::from_utf8(rest).ok();
        text.and_then(|text| text.parse::<i64>().ok()).ok_or_else(wrong)
    };
    Ok(match kind {
        b'+' => Reply::Text(Zeroizing::new(rest.to_vec())),
        b'-' => Reply::Error(String::from_utf8_lossy(rest).into_owned()),
        b':' => Reply::Number(number()?),
        b'$' => match usize::try_from(number()?) {
            Err(_) => Reply::Nil,
            Ok(length) if length > MAX_TEXT_BYTES => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a value is far too long for a token",
                ));
            }
            Ok(length) => {
                let mut text = Zeroizing::new(vec![0; length + 2]);
                stream.read_exact(&mut text)?;
                if !text.ends_with(b"\r\n") {
                    return Err(wrong());
                }
                Reply::Text(Zeroizing::new(text[..length].to_vec()))
            }
        },
        b'*' => match usize::try_from(number()?) {
            Err(_) => Reply::Nil,
            Ok(length) if length > 16 || depth > 0 => return Err(wrong()),
            Ok(length) => {
                let items = (0..length).map(|_| read(stream, depth + 1));
                Reply::List(items.collect::<io::Result<_>>()?)
            }
        },
        _ => return Err(wrong()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Result<Place, String> {
        Place::parse(&Secret::new(text)).map_err(|failure| failure.message)
    }

    #[test]
    fn an_address_is_read_as_redis_cli_does_and_never_repeated() {
        let whole = place("rediss://us%40er:pa%2Fss@[::1]:7000/3").unwrap();
        let expected = Place {
            is_encrypted: true,
            host: "[::1]".into(),
            port: 7000,
            database: Some(3),
            user: Some("us@er".into()),
            password: Some(Secret::new("pa/ss")),
        };
        assert_eq!(whole, expected);
        let short = place("redis://h").unwrap();
        assert_eq!((short.port, short.database, short.user), (6379, None, None));
        assert_eq!(place("redis://:p@h").unwrap().user, None);
        for wrong in [
            "hunter2",
            "http://u:hunter2@h",
            "redis://u:hunter2@",
            "redis://:hunter2@h/x",
            "redis://:hunter2@h?db=1",
            "redis://u:hunter2@h:99999",
        ] {
            assert!(!place(wrong).unwrap_err().contains("hunter2"), "{wrong}");
        }
        assert!(!format!("{whole:?}").contains("pa/ss"));
    }

    #[test]
    fn who_does_not_answer_is_told_from_who_hangs_up() {
        // As the socket says it: "Resource temporarily unavailable" tells nobody anything.
        let silent = broken("h:1", &io::ErrorKind::WouldBlock.into());
        assert_eq!(silent.message, "h:1 does not answer in time; is it a Redis?");
        let hung_up = broken("h:1", &io::ErrorKind::UnexpectedEof.into());
        assert!(hung_up.message.starts_with("the connection to h:1 broke: "));
        assert_eq!([silent.code, hung_up.code], [EX_UNAVAILABLE; 2]);
    }

    #[test]
    fn replies_are_read_and_nothing_else() {
        let shown = |reply: &Reply| match reply {
            Reply::Text(text) => String::from_utf8_lossy(text).into_owned(),
            Reply::Number(number) => number.to_string(),
            Reply::Nil => "nil".into(),
            Reply::Error(error) => format!("error {error}"),
            Reply::List(_) => "list".into(),
        };
        for (bytes, reply) in [
            (&b"+OK\r\n"[..], Some("OK")),
            (b"-ERR no\r\n", Some("error ERR no")),
            (b":-2\r\n", Some("-2")),
            (b"$-1\r\n", Some("nil")),
            (b"$0\r\n\r\n", Some("")),
            (b"$4\r\na\r\nb\r\n", Some("a\r\nb")),
            (b"*2\r\n$1\r\na\r\n$-1\r\n", Some("list")),
            (b"*-1\r\n", Some("nil")),
            (b"", None),
            (b"+OK", None),
            (b"$4\r\nabc", None),
            (b"$3\r\nabcde", None),
            (b"$99999999\r\n", None),
            (b"*17\r\n", None),
            (b"*1\r\n*1\r\n:1\r\n", None),
            (b":x\r\n", None),
            (b"HTTP/1.1 400 Bad Request\r\n", None),
        ] {
            let found = read(&mut &*bytes, 0).ok();
            assert_eq!(found.as_ref().map(shown).as_deref(), reply, "{}", bytes.escape_ascii());
        }
    }
}
