//! Which identities have changed, and when: whether what is known of a caller still holds.

use archestra_core::identity::{IdentityKey, IdentityKind};
use std::sync::atomic::{AtomicU64, Ordering};
use uuid::Uuid;

/// Into how many groups subjects fall. Those of one group are looked up anew together, which costs a lookup and nothing else.
const GROUPS: usize = 4096;

/// A place in the order of all changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Moment(u64);

/// The changes of identities, as far as they matter to callers. With OAuth, tokens come and go all the time, and clients may
/// register themselves: nobody else is looked up anew for these.
#[derive(Debug)]
pub(super) struct Changes {
    clock: AtomicU64,
    /// When everybody may last have changed.
    everybody: AtomicU64,
    /// When anybody of each group last changed.
    groups: Box<[AtomicU64]>,
}

impl Changes {
    pub(super) fn new() -> Self {
        let groups = (0..GROUPS).map(|_| AtomicU64::new(0)).collect();
        Self { clock: AtomicU64::new(0), everybody: AtomicU64::new(0), groups }
    }

    /// Where the order of changes stands. Who asks the store after this knows of all changes until now.
    pub(super) fn now(&self) -> Moment {
        Moment(self.clock.load(Ordering::Acquire))
    }

    /// Anybody may have changed.
    pub(super) fn note_everybody(&self) {
        self.everybody.fetch_max(self.tick(), Ordering::AcqRel);
    }

    /// These have changed.
    pub(super) fn note(&self, keys: &[IdentityKey]) {
        let at = self.tick();
        for key in keys {
            match key.kind() {
                // No caller is made of these, and the tokens that go with a grant are named themselves.
                IdentityKind::Grant
                | IdentityKind::Consent
                | IdentityKind::IdentityProvider
                | IdentityKind::LinkedIdentity => {}
                IdentityKind::Token | IdentityKind::User | IdentityKind::Client => {
                    self.group(key.uuid()).fetch_max(at, Ordering::AcqRel);
                }
                IdentityKind::Team | IdentityKind::Role => {
                    self.everybody.fetch_max(at, Ordering::AcqRel);
                }
            }
        }
    }

    /// Whether everybody may have changed since then.
    pub(super) fn everybody_since(&self, asked: Moment) -> bool {
        self.everybody.load(Ordering::Acquire) > asked.0
    }

    /// Whether any of these may have changed since then.
    pub(super) fn since(&self, asked: Moment, subjects: &[Uuid]) -> bool {
        self.everybody_since(asked)
            || subjects.iter().any(|subject| self.group(subject).load(Ordering::Acquire) > asked.0)
    }

    /// The clock moves first: who reads the new time, and asks the store then, knows of the change.
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::AcqRel) + 1
    }

    fn group(&self, subject: &Uuid) -> &AtomicU64 {
        // Of a time-ordered id the end is random.
        let [.., high, low] = *subject.as_bytes();
        &self.groups[usize::from(u16::from_be_bytes([high, low])) % GROUPS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use archestra_core::id::{ConsentId, GrantId, TeamId, TokenId, UserId};

    fn in_group(n: u8) -> Uuid {
        let mut bytes = *Uuid::now_v7().as_bytes();
        (bytes[14], bytes[15]) = (0, n);
        Uuid::from_bytes(bytes)
    }

    #[test]
    fn what_concerns_somebody_else_changes_nothing() {
        let changes = Changes::new();
        let (token, user, other) = (in_group(1), in_group(2), in_group(3));
        let asked = changes.now();
        changes.note(&[TokenId::from_uuid(other).into(), GrantId::new().into(), ConsentId::new().into()]);
        assert!(!changes.since(asked, &[token, user]) && changes.since(asked, &[other]));
        assert!(!changes.since(changes.now(), &[other]), "who asks later knows");
        changes.note(&[UserId::from_uuid(user).into()]);
        assert!(changes.since(asked, &[token, user]) && !changes.since(asked, &[token]));
        changes.note(&[TeamId::new().into()]);
        assert!(changes.since(asked, &[token]) && changes.everybody_since(asked));
        let asked = changes.now();
        changes.note_everybody();
        assert!(changes.since(asked, &[]) && !changes.since(changes.now(), &[token, user]));
    }
}
