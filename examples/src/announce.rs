//! What a start says on standard output: where it listens, and on the first start how to get in and what to try.

use crate::{bootstrap::AdminToken, config::ADMIN_TOKEN, quickstart};
use std::{fmt::Write as _, io::Write as _, net::SocketAddr};

/// What a modern client sends to list tools.
const LIST_TOOLS: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"curl","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}"#;

/// Whether the gateway of the quickstart was made just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demo {
    Made,
    NotMade,
}

/// Says it.
pub(crate) fn start(address: SocketAddr, public_url: &str, demo: Demo, token: &AdminToken) {
    let _closed = std::io::stdout().lock().write_all(text(address, public_url, demo, token).as_bytes());
}

fn text(address: SocketAddr, public_url: &str, demo: Demo, token: &AdminToken) -> String {
    let mut text = format!("archestra {} listens on ", env!("CARGO_PKG_VERSION"));
    let _never_fails = match public_url.strip_prefix("http://") {
        Some(place) if place == address.to_string() => writeln!(text, "{public_url}"),
        _ => writeln!(text, "{address}, for clients at {public_url}"),
    };
    let gateway = format!("{}/v1/mcp/{}", public_url.trim_end_matches('/'), quickstart::NAME);
    let mut line = |name: &str, value: &str| {
        let _never_fails = writeln!(text, "  {name:<8} {value}");
    };
    if demo == Demo::Made {
        line("gateway", &gateway);
    }
    match token {
        AdminToken::Kept => {}
        AdminToken::FromVariable => line("token", &format!("as {ADMIN_TOKEN} says")),
        AdminToken::Shown(token) => line("token", &format!("{}  (shown only now; it is the admin's)", token.expose())),
        AdminToken::InFile(path) => line("token", &format!("in {}; it is the admin's", path.display())),
    }
    if demo == Demo::Made {
        // A kept token is known to whoever made it.
        let word = match token {
            AdminToken::Kept => "$TOKEN".to_owned(),
            AdminToken::FromVariable => format!("${ADMIN_TOKEN}"),
            AdminToken::Shown(token) => token.expose().to_owned(),
            AdminToken::InFile(path) => format!("$(cat {})", path.display()),
        };
        line(
            "try",
            &format!(
                "curl -s {gateway} -H \"Authorization: Bearer {word}\" -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' -H 'MCP-Protocol-Version: 2026-07-28' -H 'Mcp-Method: tools/list' -d '{LIST_TOOLS}'"
            ),
        );
        line(
            "or",
            &format!(
                "npx -y @modelcontextprotocol/inspector@2 --cli {gateway} --transport http --header \"Authorization: Bearer {word}\" --method tools/list  # Node.js 22.19 or newer"
            ),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Demo, text};
    use crate::bootstrap::AdminToken;
    use archestra_core::identity::PlainToken;
    use std::{net::SocketAddr, path::PathBuf};

    fn address() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 9000))
    }

    #[test]
    fn a_first_start_tells_everything_that_is_needed() {
        let token = PlainToken::generate().unwrap();
        let told = text(address(), "http://127.0.0.1:9000", Demo::Made, &AdminToken::Shown(token.clone()));
        for part in [
            "http://127.0.0.1:9000/v1/mcp/demo",
            token.expose(),
            "curl -s ",
            "npx -y @modelcontextprotocol/inspector@2 --cli ",
        ] {
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn a_later_start_tells_where_it_listens() {
        assert_eq!(
            text(address(), "http://127.0.0.1:9000", Demo::NotMade, &AdminToken::Kept),
            concat!("archestra ", env!("CARGO_PKG_VERSION"), " listens on http://127.0.0.1:9000\n")
        );
        assert!(
            text(address(), "https://example.com/mcp", Demo::NotMade, &AdminToken::Kept)
                .ends_with("127.0.0.1:9000, for clients at https://example.com/mcp\n")
        );
    }

    #[test]
    fn a_token_in_a_file_is_named_and_not_shown() {
        let told = text(
            address(),
            "http://127.0.0.1:9000",
            Demo::Made,
            &AdminToken::InFile(PathBuf::from("/data/admin-token")),
        );
        assert!(told.contains("Bearer $(cat /data/admin-token)"), "{told}");
    }
}
