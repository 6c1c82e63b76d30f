//! The policy as a table, and as properties over all addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::super::block::{NEVER_V4, NEVER_V6};
use super::super::{DialError, DialPolicy, PRIVATE_NETWORKS_SETTING, PrivateNetworks, Refusal, Trust, parse_url};

const TRUSTS: [Trust; 3] = [Trust::Registry, Trust::Installation, Trust::Runtime];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn allows(policy: &DialPolicy, address: &str, trust: Trust) -> bool {
    policy.check("host.example", ip(address), trust).is_ok()
}

fn everything_listed() -> DialPolicy {
    DialPolicy::new("0.0.0.0/0, ::/0, host.example, *.example".parse().unwrap())
}

#[test]
fn public_addresses_are_allowed_for_everybody() {
    let public = [
        "1.1.1.1",
        "8.8.8.8",
        "172.15.255.255",
        "172.32.0.1",
        "100.63.255.255",
        "100.128.0.1",
        "126.255.255.255",
        "128.0.0.1",
        "11.0.0.0",
        "223.255.255.255",
        "168.63.129.15",
        "198.17.255.255",
        "198.20.0.1",
        "2606:4700:4700::1111",
        "2a00:1450::1",
        "2001:4860:4860::8888",
        // Public addresses in disguise.
        "::ffff:1.1.1.1",
        "64:ff9b::1.1.1.1",
        "2002:0101:0101::1",
        "::1.1.1.1",
        "::ffff:0:1.1.1.1",
    ];
    for address in public {
        for trust in TRUSTS {
            assert!(allows(&DialPolicy::public_only(), address, trust), "{address} {trust:?}");
        }
    }
}

#[test]
fn private_addresses_need_the_operators_list_and_an_admins_url() {
    let private = [
        "127.0.0.1",
        "127.255.255.254",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "100.127.255.255",
        "198.18.0.1",
        "192.0.2.1",
        "198.51.100.7",
        "203.0.113.9",
        "192.0.0.8",
        "240.0.0.1",
        "255.255.255.254",
        "::1",
        "fc00::1",
        "fd12:3456::1",
        "fec0::1",
        "2001:db8::1",
        "3fff::1",
        "100::1",
        "4000::1",
        "64:ff9b:1::1.1.1.1",
        "2001:0:1:2:3:4:fefe:fefe",
        // Private addresses in disguise.
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2002:0a00:1::5",
        "::127.0.0.1",
        "::10.1.2.3",
        "::ffff:0:192.168.0.1",
    ];
    for address in private {
        assert!(!allows(&DialPolicy::public_only(), address, Trust::Registry), "{address} unlisted");
        assert!(allows(&everything_listed(), address, Trust::Registry), "{address} listed");
        assert!(!allows(&everything_listed(), address, Trust::Installation), "{address} typed at installation");
        assert!(allows(&DialPolicy::public_only(), address, Trust::Runtime), "{address} from the runtime");
    }
}

#[test]
fn some_addresses_are_never_allowed() {
    let never = [
        "169.254.169.254",
        "169.254.0.1",
        "169.254.170.2",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
        "0.0.0.0",
        "0.1.2.3",
        "::",
        "fe80::1",
        "febf::1",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "ff02::1",
        // In disguise.
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "::ffff:0:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "2001:0:1:2:3:4:5601:5601",
        "::ffff:0.0.0.0",
        "64:ff9b::100.100.100.200",
        "::ffff:168.63.129.16",
        "2002:e000:1::",
    ];
    for address in never {
        for trust in TRUSTS {
            assert!(!allows(&everything_listed(), address, trust), "{address} {trust:?}");
        }
    }
}

#[test]
fn a_list_opens_what_it_names_and_nothing_else() {
    let policy = DialPolicy::new("10.1.0.0/16, 192.168.7.7, fd12::/16, git.corp, *.svc.cluster.local".parse().unwrap());
    let check = |host: &str, address: &str| policy.check(host, ip(address), Trust::Registry).is_ok();

    assert!(check("a", "10.1.2.3"));
    assert!(check("a", "::ffff:10.1.2.3"));
    assert!(check("a", "192.168.7.7"));
    assert!(check("a", "fd12::9"));
    assert!(!check("a", "10.2.0.1"));
    assert!(!check("a", "192.168.7.8"));
    assert!(!check("a", "127.0.0.1"));

    assert!(check("git.corp", "10.9.9.9"));
    assert!(check("GIT.corp.", "10.9.9.9"));
    assert!(!check("evil-git.corp", "10.9.9.9"));
    assert!(!check("x.git.corp", "10.9.9.9"));
    assert!(check("mcp.team.svc.cluster.local", "10.9.9.9"));
    assert!(!check("svc.cluster.local", "10.9.9.9"));
    assert!(!check(".svc.cluster.local", "10.9.9.9"));
    assert!(!check("evilsvc.cluster.local", "10.9.9.9"));
    assert!(!check("mcp.team.svc.cluster.local", "169.254.169.254"));
}

#[test]
fn the_loopback_preset_opens_loopback_alone() {
    let policy = DialPolicy::loopback();
    for address in ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"] {
        assert!(allows(&policy, address, Trust::Registry), "{address}");
        assert!(!allows(&policy, address, Trust::Installation), "{address}");
    }
    assert!(!allows(&policy, "10.0.0.1", Trust::Registry));
}

#[test]
fn a_refusal_names_address_host_and_setting() {
    let refuse = |address: &str, trust| DialPolicy::public_only().check("git.corp", ip(address), trust).unwrap_err();

    let error = refuse("10.0.0.1", Trust::Registry);
    let text = error.to_string();
    assert!(text.contains("10.0.0.1") && text.contains("git.corp") && text.contains("--private-networks"), "{text}");
    assert!(
        matches!(
            &error,
            DialError::Refused { host, address, setting, why: Refusal::NotListed { block: "private" } }
                if *setting == PRIVATE_NETWORKS_SETTING && host == "git.corp" && *address == ip("10.0.0.1")
        ),
        "{error:?}"
    );

    let text = refuse("::1", Trust::Installation).to_string();
    assert!(text.contains("registry admin") && text.contains("--private-networks"), "{text}");
    let text = refuse("169.254.169.254", Trust::Runtime).to_string();
    assert!(text.contains("link-local addresses never are") && text.contains("--private-networks"), "{text}");
}

#[test]
fn urls_with_a_forbidden_address_are_refused_when_saved() {
    let policy = DialPolicy::public_only();
    let check = |url: &str| policy.check_url(&parse_url(url).unwrap(), Trust::Registry);

    assert!(check("https://example.com/mcp").is_ok());
    assert!(check("https://1.1.1.1/").is_ok());
    // All of these are ways to write 127.0.0.1 or the metadata address.
    for url in [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://0x7f000001/",
        "http://2130706433/",
        "http://0177.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:7f00:1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://①②⑦.⓪.⓪.①/",
        "http://0/",
        "http://[::]/",
        "http://[64:ff9b::a9fe:a9fe]/",
    ] {
        assert!(matches!(check(url), Err(DialError::Refused { .. })), "{url}");
    }
}

fn any_v4() -> impl Strategy<Value = Ipv4Addr> {
    any::<u32>().prop_map(Ipv4Addr::from)
}

fn never_v4() -> impl Strategy<Value = Ipv4Addr> {
    (0..NEVER_V4.len(), any::<u32>()).prop_map(|(index, random)| {
        let block = NEVER_V4[index].0;
        Ipv4Addr::from(u32::from(block.network()) | (random & u32::from(block.hostmask())))
    })
}

fn never_v6() -> impl Strategy<Value = Ipv6Addr> {
    (0..NEVER_V6.len(), any::<u128>()).prop_map(|(index, random)| {
        let block = NEVER_V6[index].0;
        Ipv6Addr::from(u128::from(block.network()) | (random & u128::from(block.hostmask())))
    })
}

/// Every way to write an IPv4 address as an IPv6 one, with what is free in it chosen by `noise`.
fn disguises(address: Ipv4Addr, noise: u128) -> Vec<IpAddr> {
    let bits = u128::from(u32::from(address));
    let inverted = u128::from(!u32::from(address));
    let low_96 = noise & ((1 << 96) - 1);
    let forms = [
        bits,
        (0xffff << 32) | bits,
        (0xffff << 48) | bits,
        (0x0064_ff9b << 96) | bits,
        (0x0064_ff9b_0001 << 80) | (noise & (((1 << 48) - 1) << 32)) | bits,
        (0x2002 << 112) | (bits << 80) | (noise & ((1 << 80) - 1)),
        (0x2001_0000 << 96) | (low_96 & !0xffff_ffff) | inverted,
    ];
    let mut all = vec![IpAddr::V4(address)];
    all.extend(forms.map(|form| IpAddr::V6(Ipv6Addr::from(form))));
    all
}

fn any_policy() -> impl Strategy<Value = DialPolicy> {
    prop_oneof![
        Just(DialPolicy::public_only()),
        Just(DialPolicy::loopback()),
        Just(everything_listed()),
        any_v4().prop_map(|address| {
            let network = ipnet::IpNet::new(IpAddr::V4(address), 9).unwrap().trunc().to_string();
            DialPolicy::new(PrivateNetworks::parse([network]).unwrap_or_default())
        }),
    ]
}

proptest! {
    #[test]
    fn nothing_in_a_forbidden_block_is_ever_allowed(
        v4 in never_v4(), v6 in never_v6(), noise in any::<u128>(), policy in any_policy()
    ) {
        let mut addresses = disguises(v4, noise);
        addresses.push(IpAddr::V6(v6));
        for address in addresses {
            for trust in TRUSTS {
                prop_assert!(policy.check("host.example", address, trust).is_err(), "{} {:?}", address, trust);
            }
        }
    }

    #[test]
    fn the_standard_library_agrees(
        v4 in any_v4(), v6 in any::<u128>(), noise in any::<u128>(), policy in any_policy()
    ) {
        let forbidden = v4.is_link_local() || v4.is_multicast() || v4.is_unspecified() || v4.is_broadcast();
        let local = v4.is_private() || v4.is_loopback() || v4.is_documentation();
        for address in disguises(v4, noise) {
            for trust in TRUSTS {
                let allowed = policy.check("host.example", address, trust).is_ok();
                prop_assert!(!(forbidden && allowed), "{} {:?}", address, trust);
                prop_assert!(!(local && allowed && trust == Trust::Installation), "{} {:?}", address, trust);
            }
        }
        let v6 = Ipv6Addr::from(v6);
        let allowed = policy.check("host.example", IpAddr::V6(v6), Trust::Installation).is_ok();
        let local = v6.is_unicast_link_local() || v6.is_unique_local() || v6.is_multicast() || v6.is_loopback();
        prop_assert!(!(local && allowed), "{}", v6);
    }

    #[test]
    fn a_disguise_is_never_worth_more_than_the_address(v4 in any_v4(), noise in any::<u128>(), policy in any_policy()) {
        for trust in TRUSTS {
            let plain = policy.check("host.invalid", IpAddr::V4(v4), trust).is_ok();
            for address in disguises(v4, noise) {
                // ::0 and ::1 are addresses of their own.
                if u128::from(u32::from(v4)) > 1 {
                    let allowed = policy.check("host.invalid", address, trust).is_ok();
                    prop_assert!(plain || !allowed, "{} as {} {:?}", v4, address, trust);
                }
            }
        }
    }

    #[test]
    fn runtime_is_wider_than_registry_is_wider_than_installation(
        v6 in any::<u128>(), v4 in any_v4(), policy in any_policy()
    ) {
        for address in [IpAddr::V6(Ipv6Addr::from(v6)), IpAddr::V4(v4)] {
            let check = |trust| policy.check("host.example", address, trust).is_ok();
            prop_assert!(!check(Trust::Installation) || check(Trust::Registry));
            prop_assert!(!check(Trust::Registry) || check(Trust::Runtime));
        }
    }
}
