//! Table and property tests of the parser: any split of the bytes gives the same requests.

use super::*;

use proptest::collection::vec;
use proptest::prelude::*;

/// What a connection's bytes amount to: the requests, and the error that ends them, if any.
type Read = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

/// Feeds `pieces` as a session does: each is appended to what is left of those before.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, authenticated: bool) -> Read {
    let (mut parser, mut input, mut requests) = (Parser::default(), Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match parser.next(&input, authenticated) {
                Ok(false) => break,
                Ok(true) => {
                    let args = parser.args(&input);
                    requests.push(args.from(0).map(<[u8]>::to_vec).collect());
                }
                Err(error) => return (requests, Some(error)),
            }
        }
        input.drain(..parser.take_consumed());
        parser.shrink();
    }
    (requests, None)
}

fn check(bytes: &[u8], requests: &[&[&str]], error: Option<ProtocolError>) {
    let requests: Vec<Vec<Vec<u8>>> = requests
        .iter()
        .map(|args| args.iter().map(|arg| arg.as_bytes().to_vec()).collect())
        .collect();
    let expected = (requests, error);
    assert_eq!(read([bytes], true), expected, "{:?}", bytes.escape_ascii().to_string());
    assert_eq!(read(bytes.chunks(1), true), expected, "by bytes: {:?}", bytes.escape_ascii());
}

#[test]
fn requests_are_arrays_or_lines() {
    check(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", &[&["GET", "a"]], None);
    check(b"PING\r\nGET a\n*1\r\n$0\r\n\r\n", &[&["PING"], &["GET", "a"], &[""]], None);
    check(b"\r\n  \r\n*0\r\n*-1\r\nPING\r\n", &[&["PING"]], None);
    // The bytes that end a bulk or a header are counted, not looked at.
    check(b"*1\rX$4\rYPINGxxPING\r\n", &[&["PING"], &["PING"]], None);
    check(b"*2\r\n$3\r\nGET\r\n$1\r\n", &[], None);
}

// Each was given to redis-server 7.0.15.
#[test]
fn nonsense_is_named_as_redis_names_it() {
    use ProtocolError::*;
    for header in ["", "a", "-0", "01", "+1", " 1", "2147483648", "99999999999999999999", "16385"] {
        check(format!("*{header}\r\n").as_bytes(), &[], Some(ArrayLength));
    }
    for header in ["", "a", "-1", "04", "536870913", "524289"] {
        check(format!("*1\r\n${header}\r\n").as_bytes(), &[], Some(BulkLength));
    }
    check(b"*1\r\n+PING\r\n", &[], Some(NoBulk(b'+')));
    check(b"*1\r\n\r\n", &[], Some(NoBulk(b'\r')));
    check(b"PING\r\n*x\r\nPING\r\n", &[&["PING"]], Some(ArrayLength));
    check(b"ECHO \"a\r\n", &[], Some(Quotes));
    // A NUL hides the line end that follows it.
    check(b"PI\0NG\r\nPING\r\n", &[], None);
    check(b"*1\r\n\0\r\n", &[], None);
    assert_eq!(NoBulk(b'+').text().unwrap(), b"Protocol error: expected '$', got '+'");
    assert_eq!(NoBulk(0xef).text().unwrap(), b"Protocol error: expected '$', got '\xef'");
    assert_eq!(RequestTooBig.text(), None);
}

#[test]
fn lines_have_a_limit() {
    use ProtocolError::*;
    for (start, error) in
        [("A", InlineTooBig), ("*1", ArrayHeaderTooBig), ("*1\r\n$1", BulkHeaderTooBig)]
    {
        let fits = format!("{start}{}", "1".repeat(MAX_LINE_BYTES - 2));
        assert_eq!(read([fits.as_bytes()], true), (vec![], None));
        let exceeds = format!("{start}{}", "1".repeat(MAX_LINE_BYTES));
        assert_eq!(read([exceeds.as_bytes()], true), (vec![], Some(error)));
    }
}

#[test]
fn a_request_has_a_limit() {
    let bulk = [b"$524288\r\n".as_slice(), &[b'x'; 524_288], b"\r\n"].concat();
    let request = [b"*3\r\n".as_slice(), &bulk, &bulk, b"$9\r\n"].concat();
    assert_eq!(read([request.as_slice()], true), (vec![], Some(ProtocolError::RequestTooBig)));
}

#[test]
fn strangers_have_less() {
    use ProtocolError::*;
    for (bytes, error) in [
        ("*11\r\n", Some(ArrayLengthBeforeAuth)),
        ("*10\r\n", None),
        ("*2147483648\r\n", Some(ArrayLength)),
        ("*1\r\n$16385\r\n", Some(BulkLengthBeforeAuth)),
        ("*1\r\n$16384\r\n", None),
        ("*1\r\n$536870913\r\n", Some(BulkLength)),
    ] {
        assert_eq!(read([bytes.as_bytes()], false), (vec![], error), "{bytes:?}");
    }
    // A name and a key of the longest kind, and nothing beside them.
    let bulk = [b"$16384\r\n".as_slice(), &[b'x'; 16_384], b"\r\n"].concat();
    let auth = [b"*3\r\n$4\r\nAUTH\r\n".as_slice(), &bulk, &bulk].concat();
    assert_eq!(read([auth.as_slice()], false).0.len(), 1);
    let more = [b"*4\r\n".as_slice(), &bulk, &bulk, &bulk[..2_000]].concat();
    assert_eq!(read([more.as_slice()], false), (vec![], Some(RequestTooBig)));
    assert_eq!(read([more.as_slice()], true), (vec![], None));
    // A line without an end has its own limit, and its own words.
    let endless = |digits| format!("*1\r\n$1{}", "1".repeat(digits));
    let fits = endless(MAX_LINE_BYTES - 2);
    assert_eq!(read([fits.as_bytes()], false), (vec![], None));
    let exceeds = endless(MAX_LINE_BYTES);
    assert_eq!(read([exceeds.as_bytes()], false), (vec![], Some(BulkHeaderTooBig)));
    assert_eq!(read(exceeds.as_bytes().chunks(4_096), false), (vec![], Some(BulkHeaderTooBig)));
    // Nor does a line that has not ended excuse what came before it.
    let more = [b"*5\r\n".as_slice(), &bulk, &bulk, &bulk, b"$1"].concat();
    assert_eq!(read([more.as_slice()], false), (vec![], Some(RequestTooBig)));
}

#[test]
fn a_million_nested_arrays_are_just_wrong() {
    let nested = b"*1\r\n".repeat(400_000);
    assert_eq!(read([nested.as_slice()], true).1, Some(ProtocolError::NoBulk(b'*')));
}

#[test]
fn memory_of_an_unusual_request_is_given_back() {
    let mut parser = Parser::default();
    let request = [b"*1000\r\n".as_slice(), &b"$1\r\na\r\n".repeat(1_000)].concat();
    assert_eq!(parser.next(&request, true), Ok(true));
    assert_eq!(parser.args(&request).len(), 1_000);
    assert_eq!(parser.take_consumed(), request.len());
    parser.shrink();
    assert!(parser.spans.capacity() <= KEPT_ARGS);
}

#[test]
fn numbers_are_read_as_redis_reads_them() {
    for (text, number) in [
        ("0", Some(0)),
        ("-1", Some(-1)),
        ("9223372036854775807", Some(i64::MAX)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("-9223372036854775809", None),
        ("", None),
        ("-", None),
        ("-0", None),
        ("00", None),
        ("+1", None),
        ("1 ", None),
        ("1a", None),
    ] {
        assert_eq!(integer(text.as_bytes()), number, "{text:?}");
    }
}

/// Bytes of the alphabet that requests are made of, so that a few of them often make sense.
fn request_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"*1\r\n".to_vec()),
        Just(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n".to_vec()),
        Just(b"$4\r\nPING\r\n".to_vec()),
        Just(b"ECHO \"a b\" 'c'\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        vec(
            prop_oneof![Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), Just(b'"'), any::<u8>()],
            0..6
        ),
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_split_gives_the_same_requests(
        bytes in request_like(),
        cuts in vec(any::<prop::sample::Index>(), 0..8),
        authenticated in any::<bool>(),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
        let whole = read([bytes.as_slice()], authenticated);
        prop_assert_eq!(read(pieces, authenticated), whole.clone());
        prop_assert_eq!(read(bytes.chunks(1), authenticated), whole);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..512), authenticated in any::<bool>()) {
        read([bytes.as_slice()], authenticated);
    }

    #[test]
    fn what_was_sent_arrives(requests in vec(vec(vec(any::<u8>(), 0..40), 1..6), 0..6)) {
        let mut bytes = Vec::new();
        for request in &requests {
            bytes.extend(format!("*{}\r\n", request.len()).into_bytes());
            for arg in request {
                bytes.extend(format!("${}\r\n", arg.len()).into_bytes());
                bytes.extend(arg);
                bytes.extend(b"\r\n");
            }
        }
        prop_assert_eq!(read([bytes.as_slice()], true), (requests, None));
    }
}
