//! Addresses and networks, as they are written.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::lower::Lowering;
use super::setting::Setting;

impl Lowering<'_> {
    /// An address with its port; the default where it is not set or wrong.
    pub(super) fn address(
        &mut self,
        path: &str,
        setting: Option<Setting>,
        default: SocketAddr,
    ) -> SocketAddr {
        self.read(path, setting, default, |text| {
            text.parse().map_err(|_| {
                format!(
                    "{text:?} is no address; write one such as \"{default}\" or \"[::1]:{}\"",
                    default.port()
                )
            })
        })
    }

    /// A list of addresses and networks; `None` if it is not set.
    pub(super) fn networks(&mut self, path: &str, setting: Option<Setting>) -> Option<Vec<IpNet>> {
        let items = self.list(path, setting, "a list such as [\"10.0.0.0/8\", \"192.0.2.7\"]")?;
        let mut networks = Vec::with_capacity(items.len());
        for (path, item) in items {
            let Some(text) = self.text(&path, Some(item)) else { continue };
            match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
                Ok(network) => networks.push(network.trunc()),
                Err(_) => self.mistake(
                    path,
                    format!("{:?} is no network; write one such as \"10.0.0.0/8\", \"192.0.2.7\" or \"fd00::/8\"", text.as_str()),
                ),
            }
        }
        Some(networks)
    }
}
