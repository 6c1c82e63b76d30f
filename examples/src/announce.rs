//! What a start says on standard output: where it listens, on the first start how to get in, and then what to try.

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

/// Says where it listens and how to get in.
pub(crate) fn start(address: SocketAddr, public_url: &str, demo: Demo, token: &AdminToken) {
    say(&text(address, public_url, demo, token));
}

/// Says what to try, once there is something.
pub(crate) fn what_to_try(public_url: &str, token: &AdminToken) {
    say(&commands(public_url, token));
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _closed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn text(address: SocketAddr, public_url: &str, demo: Demo, token: &AdminToken) -> String {
    let mut text = format!("archestra {} listens on ", env!("CARGO_PKG_VERSION"));
    let _never_fails = match public_url.strip_prefix("http://") {
        Some(place) if place == address.to_string() => writeln!(text, "{public_url}"),
        _ => writeln!(text, "{address}, for clients at {public_url}"),
    };
    let mut say = |name, value: &str| text.push_str(&line(name, value));
    if demo == Demo::Made {
        say("gateway", &gateway(public_url));
    }
    match token {
        AdminToken::Kept => {}
        AdminToken::FromVariable => say("token", &format!("as {ADMIN_TOKEN} says")),
        AdminToken::Shown(token) => say("token", &format!("{}  (shown only now; it is the admin's)", token.expose())),
        AdminToken::InFile(path) => say("token", &format!("in {}; it is the admin's", path.display())),
    }
    text
}

fn commands(public_url: &str, token: &AdminToken) -> String {
    let gateway = gateway(public_url);
    // A kept token is known to whoever made it.
    let word = match token {
        AdminToken::Kept => "$TOKEN".to_owned(),
        AdminToken::FromVariable => format!("${ADMIN_TOKEN}"),
        AdminToken::Shown(token) => token.expose().to_owned(),
        AdminToken::InFile(path) => format!("$(cat {})", path.display()),
    };
    let curl = format!(
        "curl -s {gateway} -H \"Authorization: Bearer {word}\" -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' -H 'MCP-Protocol-Version: 2026-07-28' -H 'Mcp-Method: tools/list' -d '{LIST_TOOLS}'"
    );
    let inspector = format!(
        "npx -y @modelcontextprotocol/inspector@2 --cli {gateway} --transport http --header \"Authorization: Bearer {word}\" --method tools/list  # Node.js 22.19 or newer"
    );
    line("try", &curl) + &line("or", &inspector)
}

fn gateway(public_url: &str) -> String {
    format!("{}/v1/mcp/{}", public_url.trim_end_matches('/'), quickstart::NAME)
}

fn line(name: &str, value: &str) -> String {
    format!("  {name:<8} {value}\n")
}

#[cfg(test)]
mod tests {
    use super::{Demo, commands, text};
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
        for part in ["http://127.0.0.1:9000/v1/mcp/demo", token.expose()] {
            assert!(told.contains(part), "{told}");
        }
        let told = commands("http://127.0.0.1:9000", &AdminToken::Shown(token.clone()));
        for part in [token.expose(), "curl -s ", "npx -y @modelcontextprotocol/inspector@2 --cli "] {
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
        let token = AdminToken::InFile(PathBuf::from("/data/admin-token"));
        let told = text(address(), "http://127.0.0.1:9000", Demo::Made, &token);
        assert!(told.contains("in /data/admin-token; "), "{told}");
        let told = commands("http://127.0.0.1:9000", &token);
        assert!(told.contains("Bearer $(cat /data/admin-token)"), "{told}");
    }
}
