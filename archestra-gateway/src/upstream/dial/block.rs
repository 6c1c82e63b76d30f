//! The special-purpose address blocks, and the IPv4 addresses that hide inside IPv6 ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What an address is, as far as dialling it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Reachable from anywhere.
    Public,
    /// Reachable only from here: needs the operator's word. Carries the name of the block.
    Private(&'static str),
    /// Never a server anybody may name. Carries the name of the block.
    Never(&'static str),
}

/// The class of an address, taken literally: [`layers`] first unwraps what it embeds.
pub(super) fn classify(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(address) => classify_v4(address),
        IpAddr::V6(address) => classify_v6(address),
    }
}

/// The addresses that a connection to `address` may end up at; each of them has to be allowed.
///
/// Mapped, compatible, translated, NAT64 and 6to4 addresses stand for the IPv4 address in them. A local NAT64 prefix
/// and Teredo stand for both.
pub(super) fn layers(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let (outer, inner) = match address {
        IpAddr::V4(_) => (Some(address), None),
        IpAddr::V6(v6) => match embedded(v6) {
            Embedded::Nothing => (Some(address), None),
            Embedded::StandsFor(v4) => (None, Some(v4)),
            Embedded::Beside(v4) => (Some(address), Some(v4)),
        },
    };
    outer.into_iter().chain(inner.map(IpAddr::V4))
}

/// The block that lies over the whole of `network` and is never dialled, if there is one.
pub(super) fn never_block(network: IpNet) -> Option<&'static str> {
    match network {
        IpNet::V4(network) => NEVER_V4.iter().find(|(block, _)| block.contains(&network)).map(|(_, name)| *name),
        IpNet::V6(network) => NEVER_V6.iter().find(|(block, _)| block.contains(&network)).map(|(_, name)| *name),
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

const LINK_LOCAL: &str = "link-local";
const METADATA: &str = "cloud metadata";
const MULTICAST: &str = "multicast";
const UNSPECIFIED: &str = "unspecified";
const PRIVATE: &str = "private";
const LOOPBACK: &str = "loopback";
const DOCUMENTATION: &str = "documentation";
const RESERVED: &str = "reserved";

pub(super) const NEVER_V4: &[(Ipv4Net, &str)] = &[
    (v4(169, 254, 0, 0, 16), LINK_LOCAL),
    // Azure's wire server is a public address that only a virtual machine's host answers.
    (v4(168, 63, 129, 16, 32), METADATA),
    (v4(100, 100, 100, 200, 32), METADATA),
    (v4(192, 0, 0, 192, 32), METADATA),
    (v4(224, 0, 0, 0, 4), MULTICAST),
    (v4(255, 255, 255, 255, 32), "broadcast"),
    // A connection to 0.0.0.0 reaches this machine.
    (v4(0, 0, 0, 0, 8), UNSPECIFIED),
];

const PRIVATE_V4: &[(Ipv4Net, &str)] = &[
    (v4(127, 0, 0, 0, 8), LOOPBACK),
    (v4(10, 0, 0, 0, 8), PRIVATE),
    (v4(172, 16, 0, 0, 12), PRIVATE),
    (v4(192, 168, 0, 0, 16), PRIVATE),
    (v4(100, 64, 0, 0, 10), "carrier-grade NAT"),
    (v4(198, 18, 0, 0, 15), "benchmarking"),
    (v4(192, 0, 2, 0, 24), DOCUMENTATION),
    (v4(198, 51, 100, 0, 24), DOCUMENTATION),
    (v4(203, 0, 113, 0, 24), DOCUMENTATION),
    (v4(192, 0, 0, 0, 24), RESERVED),
    (v4(192, 88, 99, 0, 24), RESERVED),
    (v4(240, 0, 0, 0, 4), RESERVED),
];

pub(super) const NEVER_V6: &[(Ipv6Net, &str)] = &[
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), LINK_LOCAL),
    // AWS: the instance metadata, the pod identity agent, the time and the name server live side by side here.
    (v6([0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0], 32), METADATA),
    (v6([0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254], 128), METADATA),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), MULTICAST),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), UNSPECIFIED),
];

const PRIVATE_V6: &[(Ipv6Net, &str)] = &[
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), LOOPBACK),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "unique local"),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "site-local"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), RESERVED),
    (v6([0x2001, 0x0db8, 0, 0, 0, 0, 0, 0], 32), DOCUMENTATION),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), DOCUMENTATION),
];

const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

fn classify_v4(address: Ipv4Addr) -> Class {
    if let Some((_, name)) = NEVER_V4.iter().find(|(block, _)| block.contains(&address)) {
        return Class::Never(name);
    }
    match PRIVATE_V4.iter().find(|(block, _)| block.contains(&address)) {
        Some((_, name)) => Class::Private(name),
        None => Class::Public,
    }
}

fn classify_v6(address: Ipv6Addr) -> Class {
    if let Some((_, name)) = NEVER_V6.iter().find(|(block, _)| block.contains(&address)) {
        return Class::Never(name);
    }
    match PRIVATE_V6.iter().find(|(block, _)| block.contains(&address)) {
        Some((_, name)) => Class::Private(name),
        None if GLOBAL_UNICAST.contains(&address) => Class::Public,
        None => Class::Private(RESERVED),
    }
}

enum Embedded {
    Nothing,
    StandsFor(Ipv4Addr),
    Beside(Ipv4Addr),
}

fn embedded(address: Ipv6Addr) -> Embedded {
    let segments = address.segments();
    let tail = from_segments(segments[6], segments[7]);
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Embedded::Nothing,
        // Compatible ::/96, mapped ::ffff:0:0/96, translated ::ffff:0:0:0/96, NAT64 64:ff9b::/96.
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => {
            Embedded::StandsFor(tail)
        }
        // 6to4.
        [0x2002, high, low, ..] => Embedded::StandsFor(from_segments(high, low)),
        // A network's own NAT64 prefix.
        [0x64, 0xff9b, 1, ..] => Embedded::Beside(tail),
        // Teredo keeps the client's address inverted.
        [0x2001, 0, ..] => Embedded::Beside(from_segments(!segments[6], !segments[7])),
        _ => Embedded::Nothing,
    }
}

fn from_segments(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
}
