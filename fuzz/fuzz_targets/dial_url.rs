//! URLs that will be dialled and lists of private networks: what is shown is what is dialled.
#![no_main]

use archestra_gateway::upstream::dial::{DialPolicy, PrivateNetworks, Trust, parse_url};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(uri) = parse_url(text) {
        assert!(matches!(uri.scheme_str(), Some("http" | "https")), "{uri}");
        let authority = uri.authority().expect("a host");
        assert!(!authority.host().is_empty() && !authority.as_str().contains('@'), "{uri}");
        assert_eq!(parse_url(&uri.to_string()).expect("what is normalized stays valid"), uri);
    }
    if let Ok(networks) = text.parse::<PrivateNetworks>() {
        let policy = DialPolicy::new(networks);
        let refused =
            |address: &str, trust| policy.check(address, address.parse().expect("an address"), trust).is_err();
        for never in ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254"] {
            assert!(
                [Trust::Registry, Trust::Installation, Trust::Runtime].into_iter().all(|trust| refused(never, trust))
            );
        }
        assert!(refused("10.0.0.1", Trust::Installation), "only registry admins name private servers");
    }
});
