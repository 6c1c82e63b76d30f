//! The one error type that crosses the traits, and the finding that names what a person must change.

use std::{error::Error as StdError, fmt, time::Duration};

/// A boxed cause.
pub type Source = Box<dyn StdError + Send + Sync + 'static>;

/// What a conflict with a newer revision of a workload is about, and no other conflict.
const STALE_REVISION: &str = "revision of workload";

/// What every fallible function of the traits returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in the variants a caller branches on.
///
/// No variant ever carries a secret value or a URL with user information.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing of this kind has this id.
    #[error("{kind} {id} does not exist")]
    NotFound {
        /// What was looked for, as a person would call it: `entry`, `workload`, `secret`.
        kind: &'static str,
        /// The id, name or reference that was asked for.
        id: String,
    },
    /// A unique value is taken.
    #[error("{kind} {id} exists already")]
    AlreadyExists {
        /// What exists.
        kind: &'static str,
        /// The value that is taken.
        id: String,
    },
    /// Somebody else changed it first, or its state does not allow the operation.
    #[error("{kind} {id} cannot be changed: {reason}")]
    Conflict {
        /// What was to be changed.
        kind: &'static str,
        /// Which one.
        id: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// What a person supplied is not acceptable.
    #[error("{}", Findings(.0))]
    Invalid(Vec<Finding>),
    /// The backend did not accept our own credentials.
    #[error("{backend} refused our credentials: {reason}")]
    PermissionDenied {
        /// Which backend.
        backend: &'static str,
        /// What it said.
        reason: String,
    },
    /// The backend did not answer; trying again later may help.
    #[error("{backend} is not available: {reason}")]
    Unavailable {
        /// Which backend.
        backend: &'static str,
        /// What was seen.
        reason: String,
        /// The cause, if there is one.
        #[source]
        source: Option<Source>,
    },
    /// A deadline passed.
    #[error("{operation} took longer than {after:?}")]
    Timeout {
        /// What was tried.
        operation: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// This backend cannot do that at all.
    #[error("{backend} cannot {operation}")]
    Unsupported {
        /// Which backend.
        backend: &'static str,
        /// What was asked for, as a verb phrase.
        operation: &'static str,
    },
    /// The backend answered with something that none of the other variants covers.
    #[error("{backend} failed: {reason}")]
    Backend {
        /// Which backend.
        backend: &'static str,
        /// What was seen.
        reason: String,
        /// The cause, if there is one.
        #[source]
        source: Option<Source>,
    },
}

/// The variants of [`Error`] without their data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// See [`Error::NotFound`].
    NotFound,
    /// See [`Error::AlreadyExists`].
    AlreadyExists,
    /// See [`Error::Conflict`].
    Conflict,
    /// See [`Error::Invalid`].
    Invalid,
    /// See [`Error::PermissionDenied`].
    PermissionDenied,
    /// See [`Error::Unavailable`].
    Unavailable,
    /// See [`Error::Timeout`].
    Timeout,
    /// See [`Error::Unsupported`].
    Unsupported,
    /// See [`Error::Backend`].
    Backend,
}

impl Error {
    /// Which variant this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::AlreadyExists { .. } => ErrorKind::AlreadyExists,
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::PermissionDenied { .. } => ErrorKind::PermissionDenied,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Backend { .. } => ErrorKind::Backend,
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
    }

    /// Whether a runtime refused a revision because it has a newer one: whoever sent it goes on with the newest.
    #[must_use]
    pub fn is_stale_revision(&self) -> bool {
        matches!(self, Self::Conflict { kind: STALE_REVISION, .. })
    }

    /// [`Error::Conflict`] of a workload's revision with a newer one, which [`is_stale_revision`](Self::is_stale_revision)
    /// tells from every other conflict.
    pub fn stale_revision(workload: impl fmt::Display, reason: impl Into<String>) -> Self {
        Self::conflict(STALE_REVISION, workload, reason)
    }

    /// [`Error::NotFound`].
    pub fn not_found(kind: &'static str, id: impl fmt::Display) -> Self {
        Self::NotFound { kind, id: id.to_string() }
    }

    /// [`Error::AlreadyExists`].
    pub fn already_exists(kind: &'static str, id: impl fmt::Display) -> Self {
        Self::AlreadyExists { kind, id: id.to_string() }
    }

    /// [`Error::Conflict`].
    pub fn conflict(kind: &'static str, id: impl fmt::Display, reason: impl Into<String>) -> Self {
        Self::Conflict { kind, id: id.to_string(), reason: reason.into() }
    }

    /// [`Error::Invalid`] with one finding.
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Invalid(vec![Finding::new(field, reason, remedy)])
    }

    /// [`Error::Unavailable`].
    pub fn unavailable(backend: &'static str, source: impl Into<Source>) -> Self {
        let source = source.into();
        Self::Unavailable { backend, reason: source.to_string(), source: Some(source) }
    }

    /// [`Error::Backend`].
    pub fn backend(backend: &'static str, source: impl Into<Source>) -> Self {
        let source = source.into();
        Self::Backend { backend, reason: source.to_string(), source: Some(source) }
    }
}

/// One thing a person must change before their input is accepted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The path of the field: `selfHosted.env[2].name`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

impl Finding {
    /// A finding about `field`.
    pub fn new(field: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into(), remedy: remedy.into() }
    }

    /// The same finding, one level further down: `parent.field`, or `parent[0].field` for a `parent` that ends in an index.
    #[must_use]
    pub fn under(mut self, parent: &str) -> Self {
        self.field = match self.field.as_str() {
            "" => parent.to_owned(),
            field if field.starts_with('[') => format!("{parent}{field}"),
            field => format!("{parent}.{field}"),
        };
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}", self.reason)?;
        if !self.remedy.is_empty() {
            write!(f, " ({})", self.remedy)?;
        }
        Ok(())
    }
}

struct Findings<'a>(&'a [Finding]);

impl fmt::Display for Findings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, finding) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{finding}")?;
        }
        Ok(())
    }
}

/// Something that can say what is wrong with itself.
pub trait Validate {
    /// Every problem, not only the first; empty when there is none.
    fn findings(&self) -> Vec<Finding>;

    /// Refuses a value that has findings.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all findings.
    fn validate(&self) -> Result<()> {
        let findings = self.findings();
        if findings.is_empty() { Ok(()) } else { Err(Error::Invalid(findings)) }
    }
}
