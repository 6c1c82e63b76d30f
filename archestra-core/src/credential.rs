//! Whose installation serves a call, and with which credential: the `CredentialResolver` trait and the order of design.

mod order;

pub use order::{Candidate, DefaultResolver, choose};

use crate::{
    catalog::{CredentialModel, EnterpriseConfig, Entry},
    consumer::{Consumer, CredentialChoice},
    id::{EntryId, InstallationId},
    identity::Principal,
    installation::Owner,
    secret::{SecretRef, SecretValue},
};
use async_trait::async_trait;
use serde::Serialize;
use std::{fmt, time::SystemTime};

/// What a resolver is told about a call.
#[derive(Debug, Clone, Copy)]
pub struct CallContext<'a> {
    /// Who calls.
    pub principal: &'a Principal,
    /// Through what.
    pub consumer: &'a Consumer,
    /// The tool's entry.
    pub entry: &'a Entry,
    /// The tool's raw name.
    pub tool: &'a str,
    /// What the assignment says.
    pub choice: CredentialChoice,
    /// The installations of the entry that have this tool and are ready.
    pub candidates: &'a [Candidate],
}

/// The answer to a call context.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The installation that serves the call.
    pub installation: InstallationId,
    /// Whose it is.
    pub owner: Owner,
    /// Why this one.
    pub reason: ResolutionReason,
    /// Which credential goes with the request.
    pub plan: CredentialPlan,
}

/// Why an installation was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum ResolutionReason {
    /// The assignment names it.
    Pinned,
    /// It is the caller's own.
    Personal,
    /// It belongs to the caller's team, or to the first of the caller's teams that has one.
    Team,
    /// It is everybody's.
    Organization,
    /// A resolver of the embedding program decided.
    Custom,
}

impl ResolutionReason {
    /// The reason as one word.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Personal => "personal",
            Self::Team => "team",
            Self::Organization => "organization",
            Self::Custom => "custom",
        }
    }
}

/// Which credential goes with a request. The gateway carries it out.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum CredentialPlan {
    /// The workload has it already, in its environment.
    Deployment,
    /// None is needed.
    None,
    /// The entry's static fields, with these secrets of the installation and of the entry.
    Static {
        /// The installation's secrets.
        installation: Option<SecretRef>,
        /// The entry's secrets.
        entry: Option<SecretRef>,
    },
    /// The OAuth tokens of the installation, which the client's secret renews.
    OAuth {
        /// The installation's secrets: the tokens.
        installation: SecretRef,
        /// The entry's secrets: the client's.
        entry: Option<SecretRef>,
    },
    /// Client credentials.
    ClientCredentials {
        /// The installation's secrets.
        installation: Option<SecretRef>,
        /// The entry's secrets.
        entry: Option<SecretRef>,
    },
    /// The caller's identity, exchanged.
    Exchange {
        /// How.
        config: Box<EnterpriseConfig>,
        /// The installation's secrets.
        installation: Option<SecretRef>,
        /// The entry's secrets: those of our client at the resource's authorization server.
        entry: Option<SecretRef>,
    },
    /// The caller's own IdP token.
    Passthrough,
    /// These headers, until then.
    Headers {
        /// Names and values.
        headers: Vec<(String, SecretValue)>,
        /// When they may no longer be used.
        expires_at: Option<SystemTime>,
    },
}

/// Why no installation can serve a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// Nobody whose installation the caller may use has made one.
    #[error("{caller} has no installation of {entry_name} to call with")]
    Missing {
        /// The entry to install.
        entry: EntryId,
        /// Its name.
        entry_name: String,
        /// Who called, for the text: `user alice@example.com`.
        caller: String,
    },
    /// The installation that the assignment names is not there, or not ready, or has no such tool, or belongs to a team that
    /// the user whose consumer it is has left.
    #[error("the installation of {entry_name} that this tool is pinned to is not available")]
    PinUnavailable {
        /// The entry.
        entry: EntryId,
        /// Its name.
        entry_name: String,
        /// The pin.
        installation: InstallationId,
    },
    /// The installation was made, and nobody has authorized it at the server yet.
    #[error("the installation of {entry_name} is not authorized yet")]
    Unauthorized {
        /// The entry.
        entry: EntryId,
        /// Its name.
        entry_name: String,
        /// The installation.
        installation: InstallationId,
    },
    /// A credential is there and must be renewed by a person.
    #[error("the credential of {entry_name} has expired")]
    Expired {
        /// The entry.
        entry: EntryId,
        /// Its name.
        entry_name: String,
        /// The installation.
        installation: InstallationId,
    },
    /// The resolver cannot decide now.
    #[error("credentials cannot be resolved now: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

/// One step of an explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// What was looked at: `own personal installation`.
    pub looked_at: String,
    /// What was found.
    pub outcome: String,
}

/// Why a call resolves as it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// In the order they were taken.
    pub steps: Vec<Step>,
    /// The installation, if one was found.
    pub installation: Option<InstallationId>,
}

/// Decides whose installation serves a call, and with which credential.
///
/// # Contract
/// * The same context gives the same answer: a resolver is deterministic.
/// * Where the credential is OAuth and the chosen installation has no tokens, it answers
///   [`Unauthorized`](CredentialError::Unauthorized), and looks no further.
/// * The installation it answers with is one of the candidates, and the owner is that candidate's.
/// * It never answers with another user's personal installation, unless the assignment pins it.
/// * It does no I/O that a warm call would wait for; it may keep caches of its own.
/// * [`explain`](Self::explain) takes the steps that [`resolve`](Self::resolve) takes and ends where it ends.
#[async_trait]
pub trait CredentialResolver: fmt::Debug + Send + Sync + 'static {
    /// Decides.
    async fn resolve(&self, call: &CallContext<'_>) -> Result<Resolved, CredentialError>;

    /// Says how.
    async fn explain(&self, call: &CallContext<'_>) -> Explanation;
}

/// The plan that an entry's credential model leads to for one of its installations.
///
/// # Errors
/// [`CredentialError::Unauthorized`] for OAuth without tokens: a call must not go out as nobody's.
pub fn plan(entry: &Entry, candidate: &Candidate) -> Result<CredentialPlan, CredentialError> {
    Ok(match &entry.spec.credential {
        _ if !entry.spec.speaks_http() => CredentialPlan::Deployment,
        CredentialModel::None => CredentialPlan::None,
        CredentialModel::Static(_) => {
            CredentialPlan::Static { installation: candidate.secrets.clone(), entry: entry.secrets.clone() }
        }
        CredentialModel::OAuth(_) => {
            let Some(installation) = candidate.secrets.clone() else {
                return Err(CredentialError::Unauthorized {
                    entry: entry.id,
                    entry_name: entry.spec.name.clone(),
                    installation: candidate.installation,
                });
            };
            CredentialPlan::OAuth { installation, entry: entry.secrets.clone() }
        }
        CredentialModel::ClientCredentials(_) => {
            CredentialPlan::ClientCredentials { installation: candidate.secrets.clone(), entry: entry.secrets.clone() }
        }
        CredentialModel::Enterprise(config) => CredentialPlan::Exchange {
            config: Box::new(config.clone()),
            installation: candidate.secrets.clone(),
            entry: entry.secrets.clone(),
        },
        CredentialModel::JwtPassthrough => CredentialPlan::Passthrough,
    })
}
