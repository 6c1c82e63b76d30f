//! Refusals that a new login did not mend: after one, no other login is made for a while, which grows.

use super::super::wire::Verb;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The first pause; it doubles.
const FIRST: Duration = Duration::from_secs(1);
/// The longest one for a path that is refused again and again.
const LONGEST: Duration = Duration::from_secs(300);
/// The longest one for all paths. A login that has ended may go unnoticed for as long, where others were made in vain.
const LONGEST_FOR_ALL: Duration = Duration::from_secs(30);
/// How many paths are remembered.
const MOST: usize = 1_000;

/// What is asked, and where: a policy may grant one thing at a path and refuse another.
pub(in super::super) type Asked = (Verb, String);

/// Which refusals a new login was no help against.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    asked: HashMap<Asked, Pause>,
    all: Option<Pause>,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    length: Duration,
    until: Instant,
    /// The number of the login that was refused.
    login: u64,
}

impl Pause {
    /// The one after `before`, since this login was refused as well.
    fn after(before: Option<Self>, login: u64, longest: Duration) -> Self {
        let length = match before {
            // Whoever waited for the same login learns the same of it.
            Some(before) if before.login == login => return before,
            Some(before) => (before.length * 2).min(longest),
            None => FIRST,
        };
        Self { length, until: Instant::now() + length, login }
    }

    fn is_over(self) -> bool {
        self.until <= Instant::now()
    }
}

impl Refusals {
    /// Whether a login may be what this refusal is about, as far as is known.
    pub(super) fn may_be_mended(&self, asked: &Asked) -> bool {
        let known = self.known();
        known.all.is_none_or(Pause::is_over) && known.asked.get(asked).is_none_or(|pause| pause.is_over())
    }

    /// A login that was made because of it was refused, too.
    pub(super) fn in_vain(&self, asked: &Asked, login: u64) {
        let mut known = self.known();
        known.all = Some(Pause::after(known.all, login, LONGEST_FOR_ALL));
        let pause = Pause::after(known.asked.get(asked).copied(), login, LONGEST);
        if known.asked.len() >= MOST && !known.asked.contains_key(asked) {
            let first = known.asked.iter().min_by_key(|(_, pause)| pause.until).map(|(asked, _)| asked.clone());
            first.map(|first| known.asked.remove(&first));
        }
        known.asked.insert(asked.clone(), pause);
    }

    /// A login that was made because of it was of use: the one before had ended.
    pub(super) fn mended(&self, asked: &Asked) {
        let mut known = self.known();
        known.all = None;
        known.asked.remove(asked);
    }

    /// What was refused once is granted by now, so that another refusal tells something again.
    pub(super) fn granted(&self, asked: &Asked) {
        self.known().asked.remove(asked);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    fn asked(path: &str) -> Asked {
        (Verb::Get, path.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn what_stays_refused_costs_ever_fewer_logins() {
        let (refusals, path) = (Refusals::default(), asked("a"));
        let mut logins = 0;
        for _ in 0..3600 {
            if refusals.may_be_mended(&path) {
                logins += 1;
                refusals.in_vain(&path, logins);
                // The others who were refused meanwhile.
                refusals.in_vain(&path, logins);
            }
            sleep(Duration::from_secs(1)).await;
        }
        assert!((10..25).contains(&logins), "{logins} in an hour");
        assert!(refusals.may_be_mended(&asked("b")), "another path is asked about a login sooner");
        refusals.granted(&path);
        assert!(refusals.may_be_mended(&path));
    }

    #[tokio::test(start_paused = true)]
    async fn many_paths_that_stay_refused_cost_few_logins_together_until_one_was_of_use() {
        let refusals = Refusals::default();
        let mut logins = 0;
        for n in 0..3600 {
            let path = asked(&n.to_string());
            if refusals.may_be_mended(&path) {
                logins += 1;
                refusals.in_vain(&path, logins);
            }
            sleep(Duration::from_secs(1)).await;
        }
        assert!((100..140).contains(&logins), "{logins} in an hour");
        let path = asked("last");
        refusals.in_vain(&path, logins + 1);
        assert!(!refusals.may_be_mended(&asked("other")));
        refusals.mended(&path);
        assert!(refusals.may_be_mended(&asked("other")) && refusals.may_be_mended(&path));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_paths_are_remembered_than_fit() {
        let refusals = Refusals::default();
        for n in 0..2 * MOST as u64 {
            refusals.in_vain(&asked(&n.to_string()), n);
        }
        assert_eq!(refusals.known().asked.len(), MOST);
        assert!(refusals.known().asked.contains_key(&asked(&(2 * MOST - 1).to_string())));
    }
}
