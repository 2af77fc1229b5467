//! Where a visitor comes from, when proxies stand in between. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

/// The address that a chain of proxies speaks for: of those in `forwarded` (the values of
/// `X-Forwarded-For`, line by line), the last one that is no trusted proxy's. `peer` is who connected; it
/// speaks for itself unless it is trusted, and for itself too where the last trusted word is no address.
///
/// From right to left, because each proxy adds to the end: what stands further left may be made up.
pub fn forwarded_for<'a>(
    peer: IpAddr,
    forwarded: impl DoubleEndedIterator<Item = &'a [u8]>,
    trusted: &[IpNet],
) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let mut speaker = peer.to_canonical();
    let words = forwarded.rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
    for word in words {
        if !is_trusted(speaker) {
            break;
        }
        match address(word) {
            Some(address) => speaker = address,
            None => break,
        }
    }
    speaker
}

/// The address in one item of the list. Some proxies write a port behind it.
fn address(word: &[u8]) -> Option<IpAddr> {
    let word = std::str::from_utf8(word).ok()?.trim();
    let address = word.parse::<IpAddr>().or_else(|_| {
        let bracketed = word.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        bracketed.unwrap_or(word).parse()
    });
    let with_port = || word.parse::<std::net::SocketAddr>().map(|address| address.ip());
    address.or_else(|_| with_port()).ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted: Vec<IpNet> =
            ["127.0.0.1/32", "10.0.0.0/8", "::1/128"].map(|net| net.parse().unwrap()).to_vec();
        for (peer, lines, expected) in [
            ("192.0.2.1", &["203.0.113.9"][..], "192.0.2.1"),
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("::ffff:127.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("::1", &["2001:db8::7"], "2001:db8::7"),
            // The client's own word stands to the left, or in an earlier line.
            ("127.0.0.1", &["127.0.0.1, 203.0.113.9"], "203.0.113.9"),
            ("127.0.0.1", &["8.8.8.8", "203.0.113.9"], "203.0.113.9"),
            ("127.0.0.1", &["8.8.8.8, 203.0.113.9, 10.1.1.1"], "203.0.113.9"),
            ("127.0.0.1", &["203.0.113.9:4711"], "203.0.113.9"),
            ("127.0.0.1", &["[2001:db8::7]:80"], "2001:db8::7"),
            ("127.0.0.1", &["[2001:db8::7]"], "2001:db8::7"),
            // All trusted: the first of them asked itself.
            ("127.0.0.1", &["10.0.0.9, 10.0.0.1"], "10.0.0.9"),
            // No address: whoever wrote it stands for it.
            ("127.0.0.1", &["8.8.8.8, unknown"], "127.0.0.1"),
            ("127.0.0.1", &["unknown, 10.0.0.1"], "10.0.0.1"),
            ("127.0.0.1", &[""], "127.0.0.1"),
            ("127.0.0.1", &["\u{ff}"], "127.0.0.1"),
        ] {
            let lines = lines.iter().map(|line| line.as_bytes());
            let found = forwarded_for(peer.parse().unwrap(), lines, &trusted);
            assert_eq!(found.to_string(), expected, "from {peer}");
        }
    }
}
