//! Loopback addresses of pods and Services: each has one of its own, so that any port is free on it.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::Ipv4Addr,
};

/// A random number; as good as names and addresses need.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(0_u8)
}

/// An address in 127.64.0.0/10 that hardly anybody else in this machine has.
pub(super) fn unused() -> Ipv4Addr {
    let [a, b, c, ..] = random().to_le_bytes();
    Ipv4Addr::new(127, 64 | (a & 0x3f), b, 1 + c % 254)
}
