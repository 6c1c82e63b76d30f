//! Copying secrets from one store to another, with a look at what arrived.

use super::{Accepts, Expect, SecretRef, SecretStore};
use crate::{Error, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};

/// How many bundles are copied at once.
const AT_ONCE: usize = 8;

/// What a copy found and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bundles that were written.
    pub written: usize,
    /// Bundles that were there already, just so.
    pub present: usize,
    /// Bundles that somebody removed meanwhile.
    pub gone: usize,
    /// Bundles that only say where values are kept, for a store that read them there: they hold nothing to copy.
    pub references: usize,
}

enum Outcome {
    Written,
    Present,
    Gone,
    Reference,
}

/// Copies every bundle of `from` to `to` under the same reference, reads each back, and removes nothing anywhere. What `from`
/// cannot resolve, since it stores values and this says that one is kept elsewhere, is counted and left.
///
/// It may be interrupted and repeated: what is there already is left alone, and what differs is written over. Bundles that only
/// `to` has stay.
///
/// # Errors
/// Why a store does not answer, or that a bundle did not arrive as it was sent.
pub async fn copy_secrets(from: &dyn SecretStore, to: &dyn SecretStore) -> Result<Copied> {
    let references = from.list("").await?;
    let copies = references.iter().map(|reference| copy_one(from, to, reference));
    let outcomes = stream::iter(copies.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
    outcomes
        .try_fold(Copied::default(), async |mut copied, outcome| {
            match outcome {
                Outcome::Written => copied.written += 1,
                Outcome::Present => copied.present += 1,
                Outcome::Gone => copied.gone += 1,
                Outcome::Reference => copied.references += 1,
            }
            Ok(copied)
        })
        .await
}

async fn copy_one(from: &dyn SecretStore, to: &dyn SecretStore, reference: &SecretRef) -> Result<Outcome> {
    let read = match from.accepts() {
        Accepts::Values => from.written(reference).await,
        Accepts::References => from.get(reference).await,
    };
    let bundle = match read {
        Ok(stored) if stored.bundle.external().next().is_some() => return Ok(Outcome::Reference),
        Ok(stored) => stored.bundle,
        Err(Error::NotFound { .. }) => return Ok(Outcome::Gone),
        Err(error) => return Err(error),
    };
    let expect = match to.written(reference).await {
        Ok(stored) if stored.bundle == bundle => return Ok(Outcome::Present),
        Ok(stored) => Expect::Version(stored.version),
        Err(Error::NotFound { .. }) => Expect::Absent,
        Err(error) => return Err(error),
    };
    to.put(reference, &bundle, expect).await?;
    if to.get(reference).await?.bundle == bundle {
        return Ok(Outcome::Written);
    }
    Err(Error::Backend {
        backend: "secret store",
        reason: format!("secret {reference} is another one there than was written"),
        source: None,
    })
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::{
        secret::SecretValue,
        testing::{
            Faulty, MemorySecrets,
            fixtures::{bundle, secret_ref},
        },
    };
    use std::sync::Arc;

    #[tokio::test]
    async fn a_copy_can_be_interrupted_and_repeated_and_leaves_the_rest_alone() {
        let (from, to) = (MemorySecrets::new(), MemorySecrets::new());
        for n in 0..40 {
            let value = n.to_string();
            from.put(&secret_ref(&format!("entries/{n}")), &bundle(&[("n", &value)]), Expect::Any).await.unwrap();
        }
        to.put(&secret_ref("entries/7"), &bundle(&[("n", "old")]), Expect::Any).await.unwrap();
        to.put(&secret_ref("entries/own"), &bundle(&[("n", "own")]), Expect::Any).await.unwrap();

        let brittle = Faulty::new(Arc::new(to.clone()));
        brittle.faults().fail_after(30);
        copy_secrets(&from, &brittle).await.unwrap_err();
        let there = to.list("").await.unwrap().len();
        assert!((3..41).contains(&there), "{there} are there");

        let copied = copy_secrets(&from, &to).await.unwrap();
        assert_eq!((copied.written + copied.present, copied.gone), (40, 0));
        assert!(copied.present > 0);
        for reference in from.list("").await.unwrap() {
            assert_eq!(to.get(&reference).await.unwrap().bundle, from.get(&reference).await.unwrap().bundle);
        }
        assert_eq!(to.get(&secret_ref("entries/own")).await.unwrap().bundle, bundle(&[("n", "own")]));
        let again = copy_secrets(&from, &to).await.unwrap();
        assert_eq!(again, Copied { present: 40, ..Copied::default() });
    }

    #[tokio::test]
    async fn what_only_says_where_a_value_is_kept_is_counted_and_never_copied_as_a_value() {
        let (from, to) = (MemorySecrets::new(), MemorySecrets::new());
        let at = SecretValue::kept_at("team/tickets#token".parse().unwrap());
        let kept = [("token", at)].into_iter().collect();
        let (theirs, ours) = (secret_ref("entries/theirs"), secret_ref("entries/ours"));
        from.of_references().put(&theirs, &kept, Expect::Any).await.unwrap();
        from.put(&ours, &bundle(&[("token", "t0k")]), Expect::Any).await.unwrap();
        // What stood for a value before is written over by the value.
        to.of_references().put(&ours, &kept, Expect::Any).await.unwrap();
        let copied = copy_secrets(&from, &to).await.unwrap();
        assert_eq!(copied, Copied { written: 1, references: 1, ..Copied::default() });
        assert_eq!(to.list("").await.unwrap(), std::slice::from_ref(&ours));
        assert_eq!(to.get(&ours).await.unwrap().bundle, bundle(&[("token", "t0k")]));
    }
}
