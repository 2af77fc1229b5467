//! The page for people, at `/ui`: the files that it is made of, inside the binary, and the headers that
//! they are sent with. What it shows it reads from `/v1`, as any client does, with the key of whoever
//! looks at it; nothing here knows a source, a key or a token.

use warp::http::StatusCode;
use warp::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LOCATION,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use warp::reply::Response;

use super::reply::is_among;

/// A file of the page.
#[derive(Debug)]
pub(super) struct File {
    content_type: &'static str,
    text: &'static str,
    /// A digest of the text, so that each version of the program has tags of its own.
    digest: u64,
}

impl File {
    const fn new(content_type: &'static str, text: &'static str) -> File {
        File { content_type, text, digest: fnv_1a(text.as_bytes()) }
    }
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

pub(super) static INDEX: File =
    File::new("text/html; charset=utf-8", include_str!("ui/index.html"));
pub(super) static STYLE: File = File::new("text/css; charset=utf-8", include_str!("ui/style.css"));
pub(super) static ICON: File = File::new("image/svg+xml", include_str!("ui/icon.svg"));
pub(super) static EARLY: File = File::new(SCRIPT, include_str!("ui/early.js"));
pub(super) static APP: File = File::new(SCRIPT, include_str!("ui/app.js"));
pub(super) static API: File = File::new(SCRIPT, include_str!("ui/api.js"));
pub(super) static LIVE: File = File::new(SCRIPT, include_str!("ui/live.js"));
pub(super) static RENDER: File = File::new(SCRIPT, include_str!("ui/render.js"));
pub(super) static TEXT: File = File::new(SCRIPT, include_str!("ui/text.js"));

/// What the page may do: load its own files and talk to this server, and nothing else. No script and no
/// style that stands in the page runs, no text can become markup, nobody may put it into a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // It may be kept, and is asked for each time: the files of two versions do not go together.
    (CACHE_CONTROL, "no-cache"),
];

/// A file, or that the browser has it.
pub(super) fn file(file: &'static File, if_none_match: Option<&str>) -> Response {
    let tag = format!("\"{:016x}\"", file.digest);
    let has_it = if_none_match.is_some_and(|tags| is_among(tags, &tag));
    let body = if has_it { "" } else { file.text };
    let mut answer = Response::new(body.into());
    let headers = answer.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(ETAG, HeaderValue::try_from(tag).expect("a tag is made of digits"));
    if has_it {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    }
    answer
}

/// `/ui/`, as people write it, to `/ui`: relative, since a proxy may have the server below a path.
pub(super) fn to_the_page() -> Response {
    let mut answer = Response::default();
    *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
    answer.headers_mut().insert(LOCATION, HeaderValue::from_static("../ui"));
    answer
}

/// FNV-1a of 64 bits: tells versions of a file apart, and can be computed while compiling.
const fn fnv_1a(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of draft-eastlake-fnv, section "Test Vectors".
    #[test]
    fn the_digest_is_fnv_1a() {
        assert_eq!(fnv_1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv_1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv_1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    /// What the policy would refuse, and what would leave this server, is not in the page; and it is
    /// small.
    #[test]
    fn the_page_is_small_and_whole() {
        let files = [&INDEX, &STYLE, &ICON, &EARLY, &APP, &API, &LIVE, &RENDER, &TEXT];
        assert!(files.iter().map(|file| file.text.len()).sum::<usize>() < 70_000);
        for file in files {
            let text = file.text.replace("http://www.w3.org/2000/svg", "");
            for banned in
                [" style=", "<style", " onclick=", "innerHTML", "http:", "https:", "//cdn"]
            {
                assert!(!text.contains(banned), "{banned}");
            }
        }
        assert!(!INDEX.text.contains("<script>"));
    }
}
