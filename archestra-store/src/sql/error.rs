//! What an error of the database means to a caller.

use super::dialect::{Dialect, Trouble};
use archestra_core::Error;
use sea_orm::{DbErr, SqlErr};

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
    match Dialect::trouble(&error) {
        Some(trouble @ (Trouble::Busy | Trouble::Full)) => {
            Error::Unavailable { backend: BACKEND, reason: trouble.advice().to_owned(), source: Some(error.into()) }
        }
        Some(trouble) => {
            Error::Backend { backend: BACKEND, reason: trouble.advice().to_owned(), source: Some(error.into()) }
        }
        None if matches!(error, DbErr::Conn(_) | DbErr::ConnectionAcquire(_)) => Error::unavailable(BACKEND, error),
        None => Error::backend(BACKEND, error),
    }
}

/// What is stored cannot be read back.
pub(crate) fn unreadable(what: impl std::fmt::Display, source: impl Into<archestra_core::error::Source>) -> Error {
    Error::Backend {
        backend: BACKEND,
        reason: format!("the stored {what} cannot be read; it may be of a newer version"),
        source: Some(source.into()),
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
