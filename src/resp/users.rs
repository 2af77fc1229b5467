//! Who may connect, and what each may see: users, their keys and their sources. Decides; knows no
//! socket and no command.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::ClientConfig;
use crate::token::{Secret, SourceName};

/// The name of the user that `AUTH password` means, as in Redis.
pub(super) const DEFAULT_USER: &str = "default";

/// Somebody who may use the server.
#[derive(Debug)]
pub(super) struct User {
    name: String,
    keys: Vec<Secret>,
    /// What it may see, sorted; `None`: everything.
    sources: Option<Vec<SourceName>>,
}

impl User {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether there is anything that it may not see.
    pub(super) fn is_limited(&self) -> bool {
        self.sources.is_some()
    }

    /// What it may see, where that is not everything.
    pub(super) fn sources(&self) -> Option<&[SourceName]> {
        self.sources.as_deref()
    }

    /// Whether it may know of a source, whether there is one of this name or not.
    pub(super) fn may_see(&self, source: &[u8]) -> bool {
        self.sources.as_ref().is_none_or(|sources| {
            sources.binary_search_by(|own| own.as_str().as_bytes().cmp(source)).is_ok()
        })
    }

    /// Whether this is one of its keys. Every key is compared, so that the time tells nothing.
    fn has_key(&self, key: &[u8]) -> bool {
        self.keys.iter().fold(false, |found, own| found | own.matches(key))
    }
}

/// Everybody who may use the server.
#[derive(Debug)]
pub(super) struct Users {
    /// `None` where only named clients are let in.
    default: Option<Arc<User>>,
    clients: BTreeMap<String, Arc<User>>,
    open: bool,
}

impl Users {
    /// The users of a config. Where there is neither a password nor a client, everybody may do
    /// everything; where there are clients alone, nobody else is let in.
    pub(super) fn new(password: Option<Secret>, clients: Vec<ClientConfig>) -> Users {
        let open = password.is_none() && clients.is_empty();
        let default = (open || password.is_some()).then(|| {
            let keys = password.into_iter().collect();
            Arc::new(User { name: DEFAULT_USER.into(), keys, sources: None })
        });
        let user = |client: ClientConfig| {
            let sources = client.sources.map(|mut sources| {
                sources.sort();
                sources
            });
            let user = User { name: client.name.clone(), keys: client.keys, sources };
            (client.name, Arc::new(user))
        };
        Users { default, clients: clients.into_iter().map(user).collect(), open }
    }

    /// Who a connection belongs to before it has said anything.
    pub(super) fn at_connect(&self) -> Option<Arc<User>> {
        self.default.clone().filter(|_| self.open)
    }

    /// Whether everybody is let in without a word.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Every user's name, in order.
    pub(super) fn names(&self) -> Vec<&str> {
        let everybody = self.default.iter().chain(self.clients.values());
        let mut names: Vec<&str> = everybody.map(|user| user.name()).collect();
        names.sort_unstable();
        names
    }

    /// The user with this name and key. On an open server any key will do for the default user, as in
    /// Redis.
    pub(super) fn with_name(&self, name: &[u8], key: &[u8]) -> Option<Arc<User>> {
        let name = std::str::from_utf8(name).ok()?;
        let user =
            if name == DEFAULT_USER { self.default.as_ref() } else { self.clients.get(name) };
        user.filter(|user| self.open || user.has_key(key)).cloned()
    }

    /// The user with this key, for clients that cannot say a name: the default one, or the client
    /// whose key it is. Every key is compared, so that the time tells nothing.
    pub(super) fn with_key(&self, key: &[u8]) -> Option<Arc<User>> {
        let everybody = self.default.iter().chain(self.clients.values());
        everybody.fold(None, |found, user| {
            let has_key = user.has_key(key);
            found.or_else(|| has_key.then(|| Arc::clone(user)))
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
        }
    }

    fn name(user: Option<Arc<User>>) -> Option<String> {
        user.map(|user| user.name.clone())
    }

    #[test]
    fn who_is_let_in() {
        let shop = || client("shop", &["k1", "k2"], Some(&["ticket", "access_token"]));
        for (password, clients, at_connect, right) in [
            (None, vec![], Some("default"), [Some("default"), None, None, None]),
            (Some("pw"), vec![], None, [Some("default"), None, Some("default"), None]),
            (
                Some("pw"),
                vec![shop()],
                None,
                [Some("default"), Some("shop"), Some("default"), Some("shop")],
            ),
            (None, vec![shop()], None, [None, Some("shop"), None, Some("shop")]),
        ] {
            let users = Users::new(password.map(Secret::new), clients);
            assert_eq!(name(users.at_connect()).as_deref(), at_connect);
            let found = [
                users.with_name(b"default", b"pw"),
                users.with_name(b"shop", b"k2"),
                users.with_key(b"pw"),
                users.with_key(b"k1"),
            ];
            assert_eq!(found.map(name), right.map(|name| name.map(str::to_owned)));
            assert!(users.with_name(b"shop", b"pw").is_none());
            assert!(users.with_name(b"nobody", b"k1").is_none());
        }
    }

    #[test]
    fn a_limited_user_sees_its_own_sources_only() {
        let users = Users::new(
            None,
            vec![client("a", &["k"], Some(&["t", "b"])), client("c", &["x"], None)],
        );
        let limited = users.with_key(b"k").unwrap();
        assert!(limited.is_limited() && limited.may_see(b"t") && limited.may_see(b"b"));
        assert!(!limited.may_see(b"z") && !limited.may_see(b""));
        let free = users.with_key(b"x").unwrap();
        assert!(!free.is_limited() && free.may_see(b"z"));
    }
}
