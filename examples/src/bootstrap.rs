//! The bootstrap admin: the user that the first start makes, and the token that lets a person in.

#[cfg(test)]
mod tests;

use crate::{config::ADMIN_TOKEN, failure::Failure, key_file};
use archestra_core::{
    Error, ErrorKind,
    feed::{Expect, PageRequest, Versioned},
    id::{TokenId, UserId},
    identity::{
        IdentityChanges, IdentityLookup, IdentityQuery, IdentityStore, IdentityStoreExt, PlainToken, RoleName, Token,
        TokenHash, TokenOwner, User,
    },
};
use chrono::Utc;
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// The admin's address.
pub(crate) const ADMIN: &str = "admin@localhost";
/// How often it is tried when another process starts at the same moment.
const ATTEMPTS: u32 = 5;

/// How a token that is made here reaches its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Shown by the caller.
    Terminal,
    /// Written to a file that only its owner can read.
    File(PathBuf),
}

/// What the admin's token is after a start.
#[derive(Debug)]
pub(crate) enum AdminToken {
    /// As it was before.
    Kept,
    /// What the variable says.
    FromVariable,
    /// A new one, to be shown now.
    Shown(PlainToken),
    /// A new one, in this file.
    InFile(PathBuf),
}

/// Sees to the admin and their token: as given, or a new one while there is no user at all.
///
/// # Errors
/// The store does not answer, the token file cannot be written, or the given token is somebody else's.
pub(crate) async fn admin(
    store: &dyn IdentityStore,
    given: Option<&PlainToken>,
    delivery: &Delivery,
) -> Result<AdminToken, Failure> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let outcome = match given {
            Some(token) => set(store, token).await,
            None => first(store, delivery).await,
        };
        match outcome {
            Err(Trouble::Store(error)) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::AlreadyExists) => {
                last = Some(error)
            }
            Err(Trouble::Store(error)) => return Err(Failure::because("the admin's token cannot be stored", &error)),
            Err(Trouble::Told(failure)) => return Err(failure),
            Ok(token) => return Ok(token),
        }
    }
    Err(last.map_or_else(
        || Failure::failed("the admin's token cannot be stored"),
        |error| Failure::because("the admin's token cannot be stored", &error),
    ))
}

/// Removes a token file that an earlier start wrote, when its token is not the present one.
///
/// # Errors
/// The file is there and cannot be read or removed.
pub(crate) fn clean_up(path: &Path, present: &PlainToken) -> io::Result<()> {
    match fs::read_to_string(path) {
        Ok(text) if TokenHash::of(text.trim()) == present.hash() => Ok(()),
        Ok(_) => {
            tracing::info!(path = %path.display(), "removed the file of a token that {ADMIN_TOKEN} replaced");
            fs::remove_file(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

enum Trouble {
    Store(Error),
    Told(Failure),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

async fn set(store: &dyn IdentityStore, token: &PlainToken) -> Result<AdminToken, Trouble> {
    let mut changes = IdentityChanges::new();
    let user = match store.find_one::<User>(IdentityLookup::UserByEmail(ADMIN.to_owned())).await? {
        Some(found) if found.value.role.0 == RoleName::ADMIN => found.value.id,
        Some(found) => {
            let id = found.value.id;
            changes
                .push_put(User { role: RoleName(RoleName::ADMIN.to_owned()), ..found.value.clone() }, found.expect());
            id
        }
        None => push_admin(&mut changes),
    };
    let owner = TokenOwner::User(user);
    let present = |found: &Token| {
        found.bootstrap && found.owner == owner && found.hash == token.hash() && found.expires_at.is_none()
    };
    let tokens: Vec<Versioned<Token>> = store.list_all(IdentityQuery::Tokens { owner: None }).await?;
    if let Some(other) = tokens.iter().find(|other| other.value.hash == token.hash() && !other.value.bootstrap) {
        return Err(Trouble::Told(Failure::unusable(format!(
            "{ADMIN_TOKEN}: this is the token {:?} already; use another one",
            other.value.name
        ))));
    }
    for former in tokens.iter().filter(|former| former.value.bootstrap && !present(&former.value)) {
        changes.push_delete(former.value.id, former.expect());
    }
    if !tokens.iter().any(|found| present(&found.value)) {
        push_token(&mut changes, owner, token);
    }
    if !changes.is_empty() {
        store.commit(changes).await?;
    }
    Ok(AdminToken::FromVariable)
}

async fn first(store: &dyn IdentityStore, delivery: &Delivery) -> Result<AdminToken, Trouble> {
    let any = store.list(&IdentityQuery::Users { search: None }, &PageRequest { limit: 1, cursor: None }).await?;
    if !any.items.is_empty() {
        return Ok(AdminToken::Kept);
    }
    let token = PlainToken::generate()?;
    let mut changes = IdentityChanges::new();
    let user = push_admin(&mut changes);
    push_token(&mut changes, TokenOwner::User(user), &token);
    // The file comes first: a token that is stored and told nobody would lock everybody out.
    if let Delivery::File(path) = delivery {
        key_file::replace(path, format!("{}\n", token.expose()).as_bytes()).map_err(|error| {
            Trouble::Told(Failure::because(
                format!("the admin's token cannot be written to {}", path.display()),
                &error,
            ))
        })?;
    }
    store.commit(changes).await?;
    Ok(match delivery {
        Delivery::Terminal => AdminToken::Shown(token),
        Delivery::File(path) => AdminToken::InFile(path.clone()),
    })
}

fn push_admin(changes: &mut IdentityChanges) -> UserId {
    let id = UserId::new();
    let role = RoleName(RoleName::ADMIN.to_owned());
    changes.push_put(
        User { id, email: ADMIN.to_owned(), name: None, role, apply_set: None, created_at: Utc::now() },
        Expect::Absent,
    );
    id
}

fn push_token(changes: &mut IdentityChanges, owner: TokenOwner, token: &PlainToken) {
    let token = Token {
        id: TokenId::new(),
        name: "bootstrap".to_owned(),
        hash: token.hash(),
        owner,
        consumer: None,
        scopes: BTreeSet::new(),
        grant: None,
        bootstrap: true,
        expires_at: None,
        created_at: Utc::now(),
    };
    changes.push_put(token, Expect::Absent);
}
