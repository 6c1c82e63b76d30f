//! What can go wrong between us and Vault, told apart, and what to do about each.

use archestra_core::Error;
use std::time::Duration;

/// The name of this backend in errors.
pub(super) const BACKEND: &str = "vault";

/// The most that is repeated of what the server said.
const MOST_SAID: usize = 300;

/// Why a request failed. It holds neither values nor credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// 403.
    Forbidden(String),
    /// 404, and nothing is there.
    Absent,
    /// 404, since nothing is mounted there, or the namespace does not exist.
    NoRoute(String),
    /// 400 because a compare-and-set did not match.
    Mismatch,
    /// 400 because the mount wants a compare-and-set.
    CasRequired,
    /// Any other 4xx.
    Refused { status: u16, said: String },
    /// The server or its storage does not take so much.
    TooLarge,
    /// 503, sealed.
    Sealed,
    /// A node that is not the active one and does not forward.
    Standby(u16),
    /// Any other 3xx, from something in front of the server.
    Redirected(u16),
    /// 429 from a limit.
    Throttled,
    /// Any other 5xx.
    Failed { status: u16, said: String },
    /// No connection: the request was not sent.
    Unreachable(String),
    /// The connection broke: whether the request had an effect is unknown.
    Broken(String),
    /// No answer in time: whether the request had an effect is unknown.
    Slow(Duration),
    /// The answer is not one of Vault's.
    Strange(String),
    /// A file that is needed for the login.
    File(String),
    /// More is there than is ever listed.
    TooMany(usize),
    /// The login was refused, and not the request.
    Login { method: &'static str, trouble: Box<Self> },
}

impl Trouble {
    /// What an answer with an error status means.
    pub(super) fn of_status(status: u16, errors: Option<&[String]>) -> Self {
        let said = errors.map(said).unwrap_or_default();
        let told = said.to_ascii_lowercase();
        match (status, errors) {
            // By no other status does a standby name the active node.
            (307, _) => Self::Standby(status),
            (300..400, _) => Self::Redirected(status),
            (404, Some([])) => Self::Absent,
            (404, Some(_)) => Self::NoRoute(said),
            // What a proxy in front says above 499 is in a page of its own.
            (_, None) if status < 500 && !matches!(status, 429 | 472 | 473) => {
                Self::Strange(format!("status {status} without what Vault says with it"))
            }
            (400, _) if told.contains("check-and-set parameter did not match") => Self::Mismatch,
            (400, _) if told.contains("check-and-set parameter required") => Self::CasRequired,
            (400, _) if told.contains("upgrading from non-versioned") => Self::Failed { status, said },
            (413, _) => Self::TooLarge,
            (_, _) if told.contains("too large") => Self::TooLarge,
            (403, _) => Self::Forbidden(said),
            (503, _) if told.contains("sealed") => Self::Sealed,
            (472 | 473, _) => Self::Standby(status),
            (429, _) if told.contains("standby") => Self::Standby(status),
            (429, None) => Self::Standby(status),
            (429, _) => Self::Throttled,
            (500.., _) if told.contains("standby") || told.contains("node not active") => Self::Standby(status),
            (500.., _) => Self::Failed { status, said },
            _ => Self::Refused { status, said },
        }
    }

    /// The same about a login: what says no there says it about our credentials.
    pub(super) fn of_login(self, method: &'static str) -> Self {
        match self {
            Self::Forbidden(_) | Self::Refused { .. } | Self::NoRoute(_) | Self::Strange(_) => {
                Self::Login { method, trouble: Box::new(self) }
            }
            other => other,
        }
    }

    /// Whether sending the request again may help and cannot do it twice.
    pub(super) const fn was_not_done(&self) -> bool {
        matches!(self, Self::Sealed | Self::Standby(_) | Self::Throttled | Self::Unreachable(_))
    }

    /// Whether sending the request again may help, if it may be done twice.
    pub(super) const fn may_pass(&self) -> bool {
        self.was_not_done() || matches!(self, Self::Failed { .. } | Self::Broken(_) | Self::Slow(_))
    }

    /// The error for callers of the store; `operation` is a gerund, `what` what it was about.
    pub(super) fn into_error(self, operation: &'static str, what: &str) -> Error {
        let unavailable = |reason: String| Error::Unavailable { backend: BACKEND, reason, source: None };
        let backend = |reason: String| Error::Backend { backend: BACKEND, reason, source: None };
        match self {
            Self::Forbidden(said) => Error::PermissionDenied {
                backend: BACKEND,
                reason: format!("403 on {operation} {what}{}: give the policy of our login this path", colon(&said)),
            },
            Self::Absent => Error::not_found("secret", what),
            Self::NoRoute(said) => backend(format!(
                "404 on {operation} {what}{}: name a mount of a KV secrets engine, in a namespace that exists",
                colon(&said)
            )),
            Self::Mismatch => Error::conflict("secret", what, "it has another version by now; read it again"),
            Self::CasRequired => Error::conflict("secret", what, "others keep changing it; try again"),
            Self::Refused { status, said } => backend(format!("{status} on {operation} {what}{}", colon(&said))),
            Self::TooLarge => Error::invalid(
                "secrets",
                format!("{what} is larger than Vault's storage takes"),
                "store less in it, or raise max_request_size and max_entry_size of the server",
            ),
            Self::Sealed => unavailable("it is sealed; unseal it with `vault operator unseal`".to_owned()),
            Self::Standby(status) => unavailable(format!(
                "{status}: this node is a standby and forwards nothing; use the address of the active node, or of a balancer that finds it"
            )),
            Self::Redirected(status) => backend(format!(
                "{status} on {operation} {what}: something in front of the server wants another address, and no redirect is followed since the token would go along; use the address of the server itself, with https if it has that"
            )),
            Self::Throttled => {
                unavailable("429: too many requests; raise the rate limit quota of this path".to_owned())
            }
            Self::Failed { status, said } => unavailable(format!("{status} on {operation} {what}{}", colon(&said))),
            Self::Unreachable(reason) | Self::Broken(reason) => unavailable(reason),
            Self::Slow(after) => Error::Timeout { operation, after },
            Self::Strange(reason) => {
                backend(format!("{reason} on {operation} {what}: is the address that of a Vault server"))
            }
            Self::TooMany(most) => {
                backend(format!("more than {most} secrets are below {what}; use a prefix of our own"))
            }
            Self::Login { method, trouble } => match *trouble {
                Self::Forbidden(said) | Self::Refused { said, .. } => Error::PermissionDenied {
                    backend: BACKEND,
                    reason: format!("the login by {method} failed{}: {}", colon(&said), login_remedy(method)),
                },
                other => other.into_error("logging in by", method),
            },
            Self::File(reason) => Error::PermissionDenied { backend: BACKEND, reason },
        }
    }
}

fn login_remedy(method: &str) -> &'static str {
    match method {
        "token" | "token file" => "give a token that has not expired and may look itself up",
        "approle" => "see the role id and the secret id",
        "aws" => "see the role, what it is bound to, and that the method asks the endpoint of the region that is set",
        _ => "see the role, what it is bound to, and that the token in the file has not expired",
    }
}

fn colon(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(" ({said})") }
}

/// What the server said, in one line of bounded length.
fn said(errors: &[String]) -> String {
    let joined = errors.join("; ");
    let line: Vec<&str> = joined.split_whitespace().collect();
    let mut line = line.join(" ");
    if line.len() > MOST_SAID {
        let end = (0..=MOST_SAID).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        line.truncate(end);
        line.push('…');
    }
    line
}
