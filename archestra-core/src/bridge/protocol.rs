//! The first line in each direction: who the client is, what it wants, and whether it is let in.

use crate::secret::SecretValue;
use std::{fmt, time::Duration};
use zeroize::Zeroizing;

/// How the client's first line begins.
const GREETING: &str = "ARCHESTRA-BRIDGE/1";
/// The longest first line.
pub(super) const MAX_HELLO: usize = 1024;
/// How long the first line may take.
pub(super) const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// What is waiting to be read of one connection at most, while its earlier messages cannot be taken.
pub(super) const MAX_WAITING: usize = 256 * 1024;
/// The longest message, as the multiplexer has it.
pub(super) const MAX_LINE: usize = 16 * 1024 * 1024;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A private channel.
    Channel,
    /// What the server announces.
    Events,
}

/// Why a connection is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The token is not this bridge's.
    Unauthorized,
    /// The server is not ready, or is being stopped.
    NotReady(String),
    /// There are as many connections as there may be.
    Busy(String),
    /// What came is not the protocol of the bridge.
    Malformed(String),
}

impl Refusal {
    fn code(&self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::NotReady(_) => "not-ready",
            Self::Busy(_) => "busy",
            Self::Malformed(_) => "malformed",
        }
    }

    fn reason(&self) -> &str {
        match self {
            Self::Unauthorized => "the token is not the one of this server",
            Self::NotReady(reason) | Self::Busy(reason) | Self::Malformed(reason) => reason,
        }
    }

    /// The line that says so, with its end.
    pub(super) fn to_line(&self) -> String {
        format!("refused {} {}\n", self.code(), self.reason().replace(['\n', '\r'], " "))
    }

    /// What a bridge answered; `None` is `ok`.
    pub(super) fn of_answer(line: &[u8]) -> Result<Option<Self>, String> {
        if line == b"ok" {
            return Ok(None);
        }
        let unknown = || {
            let start = String::from_utf8_lossy(line.get(..64).unwrap_or(line)).into_owned();
            format!("it answered {start:?}, which is not the protocol of the bridge")
        };
        let text = std::str::from_utf8(line).map_err(|_| unknown())?;
        let refused = text.strip_prefix("refused ").ok_or_else(unknown)?;
        let (code, reason) = refused.split_once(' ').unwrap_or((refused, ""));
        Ok(Some(match code {
            "unauthorized" => Self::Unauthorized,
            "not-ready" => Self::NotReady(reason.to_owned()),
            "busy" => Self::Busy(reason.to_owned()),
            _ => Self::Malformed(reason.to_owned()),
        }))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

/// The client's first line, with its end.
pub(super) fn hello(token: &SecretValue, purpose: Purpose) -> Zeroizing<String> {
    let wish = match purpose {
        Purpose::Channel => "",
        Purpose::Events => " events",
    };
    Zeroizing::new(format!("{GREETING} {}{wish}\n", token.expose()))
}

/// Whether a token can be said in one word.
pub(super) fn is_token(text: &str) -> bool {
    (1..=512).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Reads a client's first line.
pub(super) fn admit(line: &[u8], token: &SecretValue) -> Result<Purpose, Refusal> {
    let malformed = || Refusal::Malformed(format!("the first line must be `{GREETING} <token>`"));
    let mut words = line.split(|byte| *byte == b' ');
    if words.next() != Some(GREETING.as_bytes()) {
        return Err(malformed());
    }
    let given = words.next().ok_or_else(malformed)?;
    if aws_lc_rs::constant_time::verify_slices_are_equal(given, token.expose().as_bytes()).is_err() {
        return Err(Refusal::Unauthorized);
    }
    match (words.next(), words.next()) {
        (None, _) => Ok(Purpose::Channel),
        (Some(b"events"), None) => Ok(Purpose::Events),
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Purpose, Refusal, admit, hello, is_token};
    use crate::secret::SecretValue;

    #[test]
    fn the_first_line_says_who_and_what_for() {
        let token = SecretValue::new("abc");
        for purpose in [Purpose::Channel, Purpose::Events] {
            let line = hello(&token, purpose);
            assert_eq!(admit(line.trim_end().as_bytes(), &token), Ok(purpose));
        }
        assert_eq!(admit(b"ARCHESTRA-BRIDGE/1 abd", &token), Err(Refusal::Unauthorized));
        assert_eq!(admit(b"ARCHESTRA-BRIDGE/1 ab events", &token), Err(Refusal::Unauthorized));
        assert_eq!(admit(b"ARCHESTRA-BRIDGE/1 ", &token), Err(Refusal::Unauthorized));
        for bad in [
            "",
            "GET / HTTP/1.1",
            "ARCHESTRA-BRIDGE/1",
            "ARCHESTRA-BRIDGE/1 abc more",
            "ARCHESTRA-BRIDGE/1 abc events x",
        ] {
            assert!(matches!(admit(bad.as_bytes(), &token), Err(Refusal::Malformed(_))), "{bad}");
        }
        assert!(is_token("abc") && !is_token("") && !is_token("a b") && !is_token(&"a".repeat(513)));
    }

    #[test]
    fn a_refusal_arrives_as_it_was_meant() {
        let refusals = [
            Refusal::Unauthorized,
            Refusal::NotReady("the server starts".to_owned()),
            Refusal::Busy("1024 connections".to_owned()),
            Refusal::Malformed("no".to_owned()),
        ];
        for refusal in refusals {
            assert_eq!(Refusal::of_answer(refusal.to_line().trim_end().as_bytes()), Ok(Some(refusal)));
        }
        assert_eq!(Refusal::of_answer(b"ok"), Ok(None));
        assert!(Refusal::of_answer(b"HTTP/1.1 400 Bad Request").is_err());
        assert_eq!(Refusal::NotReady("a\nb".to_owned()).to_line(), "refused not-ready a b\n");
    }
}
