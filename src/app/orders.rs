//! Carries out what the privileged client orders: finds the account that a reset is for. (Reloads are
//! carried out by `main`, which knows the config file.)

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::config::TokenSource;
use crate::control::{NoReset, QuotaReset, ResetOrder};
use crate::refresh::{self, Tools};
use crate::shutdown::Drain;
use crate::source::HttpUpstream;
use crate::status::Catalogue;
use crate::store::TokenStore;
use crate::token::SourceName;

/// The right to have the calls of an account given back.
#[derive(Debug)]
pub(super) struct Resets {
    tools: Arc<Tools<HttpUpstream, TokenStore>>,
    catalogue: Catalogue,
}

impl Resets {
    pub(super) fn new(tools: Arc<Tools<HttpUpstream, TokenStore>>, catalogue: Catalogue) -> Resets {
        Resets { tools, catalogue }
    }

    async fn reset(&self, name: &SourceName) -> Result<QuotaReset, NoReset> {
        let all = self.catalogue.sources();
        let (payer, sources) = payer_of(&all, name)?;
        refresh::reset_quota(&self.tools, payer, &sources).await
    }
}

/// Carries them out, one after the other: two at once would count each other's.
pub(super) async fn carry_out_resets(
    mut orders: mpsc::Receiver<ResetOrder>,
    resets: Resets,
    drain: Drain,
) {
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            () = drain.begun() => None,
        };
        let Some(ResetOrder { source, reply }) = order else { return };
        // Also where who ordered it has left meanwhile: it may be under way at the upstream.
        let _ = reply.send(resets.reset(&source).await);
    }
}

/// The source whose request has the secret of the account that `name` is charged to, and all sources
/// that are charged to it, in the order of dependency.
fn payer_of<'a>(
    all: &'a [Arc<TokenSource>],
    name: &SourceName,
) -> Result<(&'a TokenSource, Vec<SourceName>), NoReset> {
    let named = all.iter().find(|source| source.name == *name).ok_or(NoReset::UnknownSource)?;
    let account = &named.account.name;
    if account.is_empty() {
        return Err(NoReset::NotOfWeChat(
            "the source's calls are charged to no account; set account",
        ));
    }
    let of_account: Vec<_> = all.iter().filter(|source| source.account.name == *account).collect();
    // Its own, where it has some.
    let mut payers = [named].into_iter().chain(of_account.iter().copied());
    let payer = payers.find(|source| source.credentials().is_some());
    let payer = payer.ok_or(NoReset::NotOfWeChat(
        "no source of the account has its appid and secret in a request to WeChat, which alone gives calls back",
    ))?;
    Ok((payer, of_account.into_iter().map(|source| source.name.clone()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};
    use std::path::Path;

    #[test]
    fn the_secret_is_that_of_the_sources_account() {
        let text = r#"(token_sources: {
            "ticket": (url: "https://h/cgi-bin/ticket/getticket", args: {"access_token": "{{token}}"}),
            "token": (url: "https://h/cgi-bin/token", args: {"appid": "wx0", "secret": "s0"}),
            "stable": (url: "https://h/cgi-bin/stable_token", json: {"appid": "wx0", "secret": "s1"}),
            "other": (url: "https://h/cgi-bin/token", args: {"appid": "wx1", "secret": "s2"}),
            "work": (url: "https://qyapi.weixin.qq.com/cgi-bin/gettoken", args: {"corpid": "c", "corpsecret": "s"}),
            "nobody": (url: "https://h/x"),
        })"#;
        let config = config::parse(text, Path::new("c.ron"), &Environment::default()).unwrap();
        let all: Vec<_> = config.sources.into_iter().map(Arc::new).collect();
        let payer = |name: &str| {
            let (payer, sources) = payer_of(&all, &SourceName::parse(name).unwrap())?;
            let mut sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
            sources.sort();
            Ok((payer.name.to_string(), sources.join(" ")))
        };
        let of_wx0 = |name: &str| Ok((name.to_owned(), "stable ticket token".to_owned()));
        assert_eq!(payer("token"), of_wx0("token"));
        assert_eq!(payer("stable"), of_wx0("stable"));
        assert!([of_wx0("token"), of_wx0("stable")].contains(&payer("ticket")));
        assert_eq!(payer("other"), Ok(("other".into(), "other".into())));
        assert_eq!(payer("nope"), Err(NoReset::UnknownSource));
        for name in ["work", "nobody"] {
            assert!(matches!(payer(name), Err(NoReset::NotOfWeChat(_))), "{name}");
        }
    }
}
