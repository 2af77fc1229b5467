//! Names the endpoints of the stand-in and where they are found. No behaviour.

use std::ops::{Index, IndexMut};

/// An endpoint of the WeChat API that the stand-in knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `cgi-bin/token`: each fetch makes a new access token.
    Token,
    /// `cgi-bin/stable_token`: the same access token until its last minutes.
    StableToken,
    /// `cgi-bin/ticket/getticket`: a ticket, for an access token.
    Ticket,
    /// `cgi-bin/getcallbackip`: a business call; says whether an access token is accepted.
    CallbackIp,
    /// `cgi-bin/clear_quota/v2`: sets the day's counts back to zero.
    ClearQuota,
    /// Every other path: where a followed redirect or a wrong address shows.
    Unknown,
}

/// Each endpoint with its name on the control surface and its path.
static ENDPOINTS: [(Endpoint, &str, &str); 5] = [
    (Endpoint::Token, "token", "/cgi-bin/token"),
    (Endpoint::StableToken, "stable_token", "/cgi-bin/stable_token"),
    (Endpoint::Ticket, "ticket", "/cgi-bin/ticket/getticket"),
    (Endpoint::CallbackIp, "callback_ip", "/cgi-bin/getcallbackip"),
    (Endpoint::ClearQuota, "clear_quota", "/cgi-bin/clear_quota/v2"),
];

impl Endpoint {
    /// Every endpoint, [`Endpoint::Unknown`] last.
    pub const ALL: [Endpoint; 6] = [
        Endpoint::Token,
        Endpoint::StableToken,
        Endpoint::Ticket,
        Endpoint::CallbackIp,
        Endpoint::ClearQuota,
        Endpoint::Unknown,
    ];

    /// Its name on the control surface.
    pub fn name(self) -> &'static str {
        ENDPOINTS.iter().find(|row| row.0 == self).map_or("unknown", |row| row.1)
    }

    /// The endpoint of this name.
    pub fn named(name: &str) -> Option<Endpoint> {
        Endpoint::ALL.into_iter().find(|endpoint| endpoint.name() == name)
    }

    /// The endpoint at `path`. Empty segments count for nothing: clients that are configured with
    /// a trailing slash ask for `//cgi-bin/token`.
    pub(super) fn at(path: &str) -> Endpoint {
        let segments = || path.split('/').filter(|segment| !segment.is_empty());
        ENDPOINTS
            .iter()
            .find(|row| segments().eq(row.2.split('/').skip(1)))
            .map_or(Endpoint::Unknown, |row| row.0)
    }
}

/// One `T` for each endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PerEndpoint<T>([T; Endpoint::ALL.len()]);

impl<T> Index<Endpoint> for PerEndpoint<T> {
    type Output = T;

    fn index(&self, endpoint: Endpoint) -> &T {
        &self.0[endpoint as usize]
    }
}

impl<T> IndexMut<Endpoint> for PerEndpoint<T> {
    fn index_mut(&mut self, endpoint: Endpoint) -> &mut T {
        &mut self.0[endpoint as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_endpoints() {
        for (at, endpoint) in Endpoint::ALL.into_iter().enumerate() {
            assert_eq!(Endpoint::named(endpoint.name()), Some(endpoint));
            assert_eq!(endpoint as usize, at, "ALL is in the order of the declaration");
        }
        assert_eq!(Endpoint::named("tokens"), None);
    }

    #[test]
    fn slashes_may_be_doubled_but_not_made_up() {
        for (path, endpoint) in [
            ("/cgi-bin/token", Endpoint::Token),
            ("//cgi-bin/token", Endpoint::Token),
            ("/cgi-bin//ticket/getticket/", Endpoint::Ticket),
            ("/cgi-bin/token/x", Endpoint::Unknown),
            ("/cgi-bin", Endpoint::Unknown),
            ("/", Endpoint::Unknown),
        ] {
            assert_eq!(Endpoint::at(path), endpoint, "{path}");
        }
    }
}
