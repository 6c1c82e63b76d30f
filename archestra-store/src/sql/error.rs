//! What an error of the database means to a caller.

use super::dialect::{Trouble, TroubleKind};
use archestra_core::Error;
use sea_orm::{ConnAcquireErr, DbErr, SqlErr};

const BACKEND: &str = "database";

/// Translates an error that no check of ours foresaw.
pub(crate) fn db_error(error: DbErr) -> Error {
    match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(what)) => return Error::already_exists("value", what),
        Some(SqlErr::ForeignKeyConstraintViolation(what)) => {
            return Error::conflict(
                "record",
                what,
                "another record refers to it, or it refers to one that does not exist",
            );
        }
        _ => {}
    }
    match Trouble::of(&error) {
        Some(trouble) => match trouble.kind {
            TroubleKind::Busy | TroubleKind::Race | TroubleKind::Lost | TroubleKind::Full => {
                Error::Unavailable { backend: BACKEND, reason: trouble.advice(), source: Some(error.into()) }
            }
            TroubleKind::ReadOnly | TroubleKind::CannotOpen | TroubleKind::Damaged => {
                Error::Backend { backend: BACKEND, reason: trouble.advice(), source: Some(error.into()) }
            }
            TroubleKind::Denied => Error::PermissionDenied { backend: BACKEND, reason: trouble.advice() },
            TroubleKind::Unfit => Error::invalid("", trouble.reason, trouble.remedy),
        },
        None if matches!(error, DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)) => Error::Unavailable {
            backend: BACKEND,
            reason: "there was no connection to it in time; it is away, or everything waits for a lock in it"
                .to_owned(),
            source: Some(error.into()),
        },
        None if matches!(error, DbErr::Conn(_) | DbErr::ConnectionAcquire(_)) => Error::unavailable(BACKEND, error),
        None => Error::backend(BACKEND, error),
    }
}

/// Translates an error of what ends in a commit: without the answer nobody knows whether it has happened.
pub(crate) fn in_doubt(error: DbErr) -> Error {
    // No connection was had, so that nothing was sent.
    if matches!(error, DbErr::Conn(_) | DbErr::ConnectionAcquire(_)) || !is_lost(&error) {
        return db_error(error);
    }
    Error::Unavailable {
        backend: BACKEND,
        reason: "the connection to it was lost before it answered, and what was to be written may or may not be there; read it again before you repeat it".to_owned(),
        source: Some(error.into()),
    }
}

/// Whether the connection is gone, and with it the answer.
pub(crate) fn is_lost(error: &DbErr) -> bool {
    Trouble::of(error).is_some_and(|trouble| trouble.kind == TroubleKind::Lost)
}

/// Whether there was no answer at all, for as long as there was time.
pub(crate) fn is_silence(error: &Error) -> bool {
    match error {
        Error::Timeout { .. } => true,
        Error::Unavailable { source: Some(source), .. } => {
            matches!(source.downcast_ref::<DbErr>(), Some(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)))
        }
        _ => false,
    }
}

/// Whether the database broke off a write because it met another one. Nothing was done.
pub(crate) fn is_race(error: &Error) -> bool {
    let Error::Unavailable { source: Some(source), .. } = error else { return false };
    let trouble = source.downcast_ref::<DbErr>().and_then(Trouble::of);
    trouble.is_some_and(|trouble| trouble.kind == TroubleKind::Race)
}

/// Whether somebody else had the lock for as long as there was time. Nothing was done.
pub(crate) fn is_busy(error: &Error) -> bool {
    let Error::Unavailable { source: Some(source), .. } = error else { return false };
    let trouble = source.downcast_ref::<DbErr>().and_then(Trouble::of);
    trouble.is_some_and(|trouble| trouble.kind == TroubleKind::Busy)
}

/// What is stored cannot be read back.
pub(crate) fn unreadable(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Error {
    Error::Backend {
        backend: BACKEND,
        reason: format!("the stored {what} cannot be read; it may be of a newer version: {why}"),
        source: None,
    }
}

/// A record cannot be written down, as one that still holds a secret value.
pub(crate) fn unwritable(what: impl std::fmt::Display, error: serde_json::Error) -> Error {
    Error::Backend {
        backend: BACKEND,
        reason: format!("the {what} cannot be stored: {error}"),
        source: Some(error.into()),
    }
}
