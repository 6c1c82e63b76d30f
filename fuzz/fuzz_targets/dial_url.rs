//! URLs that will be dialled and lists of private networks: what is shown is what is dialled.
#![no_main]

use archestra_gateway::upstream::dial::{PrivateNetworks, parse_url};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(uri) = parse_url(text) {
        assert!(matches!(uri.scheme_str(), Some("http" | "https")), "{uri}");
        let authority = uri.authority().expect("a host");
        assert!(!authority.host().is_empty() && !authority.as_str().contains('@'), "{uri}");
        assert_eq!(parse_url(&uri.to_string()).expect("what is normalized stays valid"), uri);
    }
    if let Ok(networks) = text.parse::<PrivateNetworks>() {
        for never in ["169.254.169.254", "fe80::1"] {
            let address = never.parse().expect("an address");
            assert!(
                !networks.contains("metadata", address) || text.to_ascii_lowercase().contains("metadata"),
                "{never}"
            );
        }
    }
});
