//! The table of users: their keys, what each may see and where each may come from.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::ClientConfig;
use crate::token::{Secret, SourceName};

/// The name of the user who may do everything: who has the request secret, and whom `AUTH password`
/// means, as in Redis.
const DEFAULT_USER: &str = "default";

/// Somebody who may use the server.
#[derive(Debug)]
pub struct User {
    name: Arc<str>,
    keys: Vec<Secret>,
    /// What it may see, sorted; `None`: everything.
    sources: Option<Vec<SourceName>>,
    /// Where it may come from; `None`: from anywhere.
    addresses: Option<Vec<IpNet>>,
}

impl User {
    pub(super) fn new(
        name: &str,
        keys: Vec<Secret>,
        sources: Option<Vec<SourceName>>,
        addresses: Option<Vec<IpNet>>,
    ) -> Arc<User> {
        let sources = sources.map(|mut sources| {
            sources.sort();
            sources
        });
        Arc::new(User { name: name.into(), keys, sources, addresses })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name, for who keeps it.
    pub(super) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Whether there is anything that it may not see.
    pub fn is_limited(&self) -> bool {
        self.sources.is_some()
    }

    /// What it may see, where that is not everything.
    pub fn sources(&self) -> Option<&[SourceName]> {
        self.sources.as_deref()
    }

    /// Whether it may know of a source, whether there is one of this name or not.
    pub fn may_see(&self, source: &[u8]) -> bool {
        self.sources.as_ref().is_none_or(|sources| {
            sources.binary_search_by(|own| own.as_str().as_bytes().cmp(source)).is_ok()
        })
    }

    /// Whether it may do everything: it has the request secret, or none is asked for.
    pub fn is_default(&self) -> bool {
        &*self.name == DEFAULT_USER
    }

    /// Whether it may come from this address.
    pub(super) fn may_come_from(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.addresses
            .as_ref()
            .is_none_or(|networks| networks.iter().any(|network| network.contains(&address)))
    }

    /// Whether this is one of its keys. Every key is compared, so that the time tells nothing.
    fn has_key(&self, key: &[u8]) -> bool {
        self.keys.iter().fold(false, |found, own| found | own.matches(key))
    }
}

/// Everybody who may use the server.
#[derive(Debug)]
pub struct Users {
    default: Arc<User>,
    clients: BTreeMap<String, Arc<User>>,
    /// Whether the RESP listener asks for no key.
    open: bool,
}

impl Users {
    /// The users of a config. Where there is neither a password nor a client, everybody may do
    /// everything over RESP; else nobody is let in without a key.
    pub(super) fn new(
        request_secret: Secret,
        password: Option<Secret>,
        clients: Vec<ClientConfig>,
    ) -> Users {
        let open = password.is_none() && clients.is_empty();
        let keys = [Some(request_secret), password].into_iter().flatten().collect();
        let user = |client: ClientConfig| {
            let ClientConfig { name, keys, sources, addresses } = client;
            let user = User::new(&name, keys, sources, addresses);
            (name, user)
        };
        Users {
            default: User::new(DEFAULT_USER, keys, None, None),
            clients: clients.into_iter().map(user).collect(),
            open,
        }
    }

    /// Who a RESP connection belongs to before it has said anything.
    pub fn at_connect(&self) -> Option<Arc<User>> {
        self.open.then(|| Arc::clone(&self.default))
    }

    /// Whether everybody is let in over RESP without a word.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Every user's name, in order.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.everybody().map(|user| user.name()).collect();
        names.sort_unstable();
        names
    }

    fn everybody(&self) -> impl Iterator<Item = &Arc<User>> {
        std::iter::once(&self.default).chain(self.clients.values())
    }

    /// The user with this name and key. On an open server any key will do for the default user, as in
    /// Redis.
    pub(super) fn with_name(&self, name: &[u8], key: &[u8]) -> Option<&Arc<User>> {
        let name = std::str::from_utf8(name).ok()?;
        let user = if name == DEFAULT_USER { Some(&self.default) } else { self.clients.get(name) };
        user.filter(|user| self.open || user.has_key(key))
    }

    /// The user with this key, for those who cannot say a name. Every key is compared, so that the time
    /// tells nothing.
    pub(super) fn with_key(&self, key: &[u8]) -> Option<&Arc<User>> {
        self.everybody().fold(None, |found, user| {
            let has_key = user.has_key(key);
            found.or_else(|| has_key.then_some(user))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str, keys: &[&str], sources: Option<&[&str]>) -> ClientConfig {
        let named = |names: &[&str]| names.iter().map(|n| SourceName::parse(n).unwrap()).collect();
        ClientConfig {
            name: name.into(),
            keys: keys.iter().map(|key| Secret::new(*key)).collect(),
            sources: sources.map(named),
            addresses: None,
        }
    }

    fn name(user: Option<&Arc<User>>) -> Option<String> {
        user.map(|user| user.name().to_owned())
    }

    #[test]
    fn who_is_let_in() {
        let shop = || client("shop", &["k1", "k2"], Some(&["ticket", "access_token"]));
        let default = Some("default");
        for (password, clients, at_connect, right) in [
            (None, vec![], default, [default, None, None, None, default]),
            (Some("pw"), vec![], None, [default, None, default, None, default]),
            (
                Some("pw"),
                vec![shop()],
                None,
                [default, Some("shop"), default, Some("shop"), default],
            ),
            (None, vec![shop()], None, [None, Some("shop"), None, Some("shop"), default]),
        ] {
            let users = Users::new(Secret::new("rs"), password.map(Secret::new), clients);
            assert_eq!(name(users.at_connect().as_ref()).as_deref(), at_connect);
            let found = [
                users.with_name(b"default", b"pw"),
                users.with_name(b"shop", b"k2"),
                users.with_key(b"pw"),
                users.with_key(b"k1"),
                users.with_key(b"rs"),
            ];
            assert_eq!(found.map(name), right.map(|name| name.map(str::to_owned)));
            assert!(users.with_name(b"shop", b"pw").is_none());
            assert!(users.with_name(b"nobody", b"k1").is_none());
            assert!(users.with_key(b"").is_none());
        }
    }

    #[test]
    fn a_limited_user_sees_its_own_sources_only() {
        let clients = vec![client("a", &["k"], Some(&["t", "b"])), client("c", &["x"], None)];
        let users = Users::new(Secret::new("rs"), None, clients);
        let limited = users.with_key(b"k").unwrap();
        assert!(limited.is_limited() && limited.may_see(b"t") && limited.may_see(b"b"));
        assert!(!limited.may_see(b"z") && !limited.may_see(b"") && !limited.is_default());
        let free = users.with_key(b"x").unwrap();
        assert!(!free.is_limited() && free.may_see(b"z") && !free.is_default());
        assert!(users.with_key(b"rs").unwrap().is_default());
    }
}
