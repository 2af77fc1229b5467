//! A host where an API answers, apart from the address that names another one.

use std::fmt;

use url::Url;

/// Where an API answers: a host and, if it is not the usual one, a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    name: Box<str>,
    port: Option<u16>,
}

impl Host {
    pub(super) fn parse(text: &str) -> Option<Host> {
        let sound = |c: char| c.is_alphanumeric() || ".-_:[]".contains(c);
        if text.is_empty() || !text.chars().all(sound) {
            return None;
        }
        // A made-up address that has nothing but this host is the same when it is written again.
        let url = Url::parse(&format!("wts://{text}")).ok()?;
        let host = Host { name: url.host_str()?.into(), port: url.port() };
        (url.as_str() == format!("wts://{host}")).then_some(host)
    }

    /// The host of an address; none if it has none.
    pub fn of(url: &Url) -> Option<Host> {
        Some(Host { name: url.host_str()?.into(), port: url.port() })
    }

    /// Puts this host in the place of the address's own. A host without a port keeps the scheme's.
    pub fn put_into(&self, url: &mut Url) {
        let placed = url.set_host(Some(&self.name)).is_ok() && url.set_port(self.port).is_ok();
        debug_assert!(placed, "a host that was read can be written");
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_host_and_perhaps_a_port() {
        for good in ["h", "api2.weixin.qq.com", "h:8443", "127.0.0.1:1", "[::1]", "[::1]:80"] {
            let host = Host::parse(good).unwrap();
            assert_eq!(host.to_string(), good);
            let mut url = Url::parse("http://other:9/p?q").unwrap();
            host.put_into(&mut url);
            assert_eq!(Host::of(&url).unwrap().name, host.name);
            assert_eq!((url.path(), url.query()), ("/p", Some("q")));
        }
        for bad in ["", "h/", "h?x", "u@h", "https://h", "{{a}}", "a b", ":80", "h:x", "h:99999"] {
            assert!(Host::parse(bad).is_none(), "{bad}");
        }
    }
}
