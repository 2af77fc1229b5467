//! How the stand-in refuses a call: an errcode with the words WeChat has for it. Decides nothing.

use std::net::IpAddr;

/// A refusal, as WeChat puts it into the body of a 200 answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The errcode.
    pub code: i32,
    /// The caller's address, which 40164 and 61004 name.
    pub caller: Option<IpAddr>,
}

impl Refusal {
    /// A refusal with this code.
    pub fn of(code: i32) -> Refusal {
        Refusal { code, caller: None }
    }

    /// The errmsg, without the ` rid: ...` that an answer adds.
    pub(super) fn errmsg(self) -> String {
        let words = ERRMSGS.iter().find(|row| row.0 == self.code).map_or("unknown error", |r| r.1);
        match self.caller {
            None => words.replace("{caller}", "127.0.0.1").replace("{mapped}", "::ffff:127.0.0.1"),
            Some(caller) => {
                let mapped = match caller {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                words
                    .replace("{caller}", &caller.to_string())
                    .replace("{mapped}", &mapped.to_string())
            }
        }
    }
}

impl From<i32> for Refusal {
    fn from(code: i32) -> Refusal {
        Refusal::of(code)
    }
}

/// Errcodes with their errmsg, sorted. From WeChat's global list; where that has Chinese only, an
/// English rendering of it stands here (nobody may rely on the words: the code decides).
static ERRMSGS: &[(i32, &str)] = &[
    (-1, "system error"),
    (40001, "invalid credential, access_token is invalid or not latest"),
    (40002, "invalid grant_type"),
    (40013, "invalid appid"),
    (40014, "invalid access_token"),
    (40066, "invalid url"),
    (40097, "invalid args"),
    (40125, "invalid appsecret, view more at http://t.cn/RAEkdVq"),
    (40164, "invalid ip {caller} ipv6 {mapped}, not in whitelist"),
    (40243, "appsecret is frozen, unfreeze it and call again"),
    (41001, "access_token missing"),
    (41002, "appid missing"),
    (41004, "appsecret missing"),
    (42001, "access_token expired"),
    (43002, "require POST method"),
    (44002, "empty post data"),
    (45009, "reach max api daily quota limit"),
    (45011, "api minute-quota reach limit, must slower, retry next minute"),
    (47001, "data format error"),
    (48001, "api unauthorized"),
    (48004, "api forbidden for irregularities"),
    (48006, "forbid to clear quota because of reaching the limit"),
    (50002, "user limited"),
    (50004, "forbid to use token api, maybe for punishment"),
    (50007, "account is frozen"),
    (61004, "access clientip is not registered, requestip: {caller}"),
    (61024, "this appid must use the api_component_token"),
    (89501, "this ip is waiting for the administrator's confirmation"),
    (89503, "this call needs the administrator's confirmation"),
    (89506, "this ip was refused twice by the administrator, no call for 24 hours"),
    (89507, "this ip was refused by the administrator, no call for 1 hour"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_worded() {
        assert!(ERRMSGS.is_sorted_by(|a, b| a.0 < b.0));
        assert!(ERRMSGS.iter().all(|(_, words)| !words.is_empty()));
    }

    #[test]
    fn a_refused_address_is_named() {
        let refusal = Refusal { code: 40164, caller: Some([1, 2, 3, 4].into()) };
        assert_eq!(refusal.errmsg(), "invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist");
        assert_eq!(Refusal::of(40013).errmsg(), "invalid appid");
        assert_eq!(Refusal::of(12345).errmsg(), "unknown error");
    }
}
