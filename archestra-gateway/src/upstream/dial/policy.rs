//! Which resolved addresses may be dialled, and on whose word.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use http::Uri;

use super::block::{Class, classify, layers};
use super::error::{DialError, Refusal};
use super::networks::PrivateNetworks;
use super::url;

/// The setting that lets registry admins name private servers; refusals point to it.
pub const PRIVATE_NETWORKS_SETTING: &str = "--private-networks";

/// On whose word an address is dialled. Connections made under one trust are never used under another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Trust {
    /// A registry admin saved the URL: the private networks the operator listed are open to it.
    Registry,
    /// Somebody else typed or saved the URL, or a stranger's answer named it: never a private address.
    Installation,
    /// The runtime itself handed the address out for a workload it started: private and loopback addresses are
    /// expected.
    Runtime,
}

/// Decides on addresses at the moment they are dialled.
#[derive(Debug, Clone, Default)]
pub struct DialPolicy {
    private: PrivateNetworks,
}

impl DialPolicy {
    /// Public addresses, and for [`Trust::Registry`] the private networks listed here.
    #[must_use]
    pub fn new(private: PrivateNetworks) -> Self {
        Self { private }
    }

    /// Public addresses only.
    #[must_use]
    pub fn public_only() -> Self {
        Self::default()
    }

    /// Public addresses, and for [`Trust::Registry`] this machine's own loopback addresses.
    #[must_use]
    pub fn loopback() -> Self {
        Self::new(PrivateNetworks::loopback())
    }

    /// Whether `address`, which `host` resolved to, may be dialled under `trust`.
    ///
    /// # Errors
    ///
    /// [`DialError::Refused`], which names the host, the address and the setting.
    pub fn check(&self, host: &str, address: IpAddr, trust: Trust) -> Result<(), DialError> {
        for layer in layers(address) {
            if let Some(why) = self.refusal(host, layer, trust) {
                let host = host.to_owned();
                return Err(DialError::Refused { host, address, setting: PRIVATE_NETWORKS_SETTING, why });
            }
        }
        Ok(())
    }

    /// Refuses early what needs no resolving: a URL we do not dial at all, or one whose host is a forbidden address.
    ///
    /// Saving a URL checks it with this; every connection is checked again when it is made.
    ///
    /// # Errors
    ///
    /// [`DialError::Url`] or [`DialError::Refused`].
    pub fn check_url(&self, uri: &Uri, trust: Trust) -> Result<(), DialError> {
        let target = url::target(uri)?;
        match target.host.parse::<IpAddr>() {
            Ok(address) => self.check(target.host, address, trust),
            Err(_) => Ok(()),
        }
    }

    fn refusal(&self, host: &str, address: IpAddr, trust: Trust) -> Option<Refusal> {
        match (classify(address), trust) {
            (Class::Never(block), _) => Some(Refusal::Never { block }),
            (Class::Public, _) | (Class::Private(_), Trust::Runtime) => None,
            (Class::Private(_), Trust::Registry) if self.private.contains(host, address) => None,
            (Class::Private(block), Trust::Registry) => Some(Refusal::NotListed { block }),
            (Class::Private(block), Trust::Installation) => Some(Refusal::Untrusted { block }),
        }
    }
}
