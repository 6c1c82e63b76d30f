//! Who we are to Vault at the moment: logged in when first needed, again when that has ended, and once for everybody.

mod refusals;
mod superseded;

use super::{
    config::{VaultAuth, VaultConfig},
    login::{self, Granted, Origin},
    trouble::Trouble,
    wire::{Answer, Call, Identity, Wire},
};
use arc_swap::ArcSwapOption;
use archestra_core::{Error, Result, secret::SecretValue};
use futures::future::join_all;
use refusals::Refusals;
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, sleep, sleep_until, timeout},
};

pub(super) use refusals::Asked;
use superseded::Superseded;

/// A 403 to a login that is younger than this is about the path, not about the login.
const YOUNG: Duration = Duration::from_secs(1);
/// For so long a failed login stands for others who wanted the same.
const FAILED_FOR: Duration = Duration::from_millis(500);
/// The pause before the first repetition; it doubles.
const PAUSE: Duration = Duration::from_millis(100);
/// The pause after a renewal that failed.
const RENEW_AGAIN: Duration = Duration::from_secs(10);
/// A lease is renewed after two thirds of it, and not sooner than this.
const SOONEST: Duration = Duration::from_millis(500);

/// A connection with its login.
pub(super) struct Session {
    wire: Wire,
    auth: VaultAuth,
    deadline: Duration,
    retries: u32,
    current: ArcSwapOption<Login>,
    /// One logs in while the others wait for what comes of it.
    turn: Semaphore,
    failed: Mutex<Option<(Instant, Trouble)>>,
    refusals: Refusals,
    superseded: Superseded,
    changed: Notify,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("wire", &self.wire).field("auth", &self.auth.name()).finish_non_exhaustive()
    }
}

struct Login {
    who: Identity,
    token: SecretValue,
    number: u64,
    since: Instant,
    lease: Option<Duration>,
    renewable: bool,
    origin: Origin,
}

impl Login {
    fn is_over(&self) -> bool {
        self.lease.is_some_and(|lease| self.since.elapsed() >= lease)
    }

    /// Whether it was made here, and goes on to be one unless it is revoked.
    fn is_to_be_revoked(&self) -> bool {
        self.origin == Origin::Made && !self.is_over()
    }

    fn renewal(&self) -> Option<Instant> {
        self.lease.map(|lease| self.since + (lease / 3 * 2).max(SOONEST))
    }
}

impl Session {
    pub(super) fn new(config: &VaultConfig) -> Result<Self> {
        Ok(Self {
            wire: Wire::new(config)?,
            auth: config.auth.clone(),
            deadline: config.deadline,
            retries: config.retries,
            current: ArcSwapOption::empty(),
            turn: Semaphore::new(1),
            failed: Mutex::new(None),
            refusals: Refusals::default(),
            superseded: Superseded::default(),
            changed: Notify::new(),
        })
    }

    /// Runs an operation within its deadline. `what` is what the error names.
    pub(super) async fn within<T>(
        &self,
        operation: &'static str,
        what: &str,
        work: impl Future<Output = Result<T, Trouble>> + Send,
    ) -> Result<T> {
        let after = self.deadline;
        match timeout(after, work).await {
            Ok(done) => done.map_err(|trouble| trouble.into_error(operation, what)),
            Err(_) => Err(Error::Timeout { operation, after }),
        }
    }

    /// Sends a request, logs in for it where that is needed, and repeats it where that helps.
    pub(super) async fn call(&self, call: &Call) -> Result<Answer, Trouble> {
        let mut login = self.login().await?;
        let mut pause = PAUSE;
        let mut left = self.retries;
        let mut again = true;
        loop {
            let trouble = match self.wire.send(&login.who, call).await {
                Ok(answer) => {
                    match again {
                        true => self.refusals.granted(&call.asked()),
                        false => self.refusals.mended(&call.asked()),
                    }
                    return Ok(answer);
                }
                Err(trouble) => trouble,
            };
            match trouble {
                Trouble::Forbidden(_) if again && self.may_be_about(&login, call) => {
                    again = false;
                    let newer = self.login_after(login.number).await?;
                    if newer.token == login.token {
                        self.refusals.in_vain(&call.asked(), newer.number);
                        return Err(trouble);
                    }
                    login = newer;
                }
                Trouble::Forbidden(_) if !again => {
                    self.refusals.in_vain(&call.asked(), login.number);
                    return Err(trouble);
                }
                trouble if left > 0 && (trouble.was_not_done() || (trouble.may_pass() && call.is_repeatable())) => {
                    left -= 1;
                    tracing::debug!(path = call.path(), ?trouble, "asking Vault again");
                    sleep(pause).await;
                    pause *= 2;
                }
                trouble => return Err(trouble),
            }
        }
    }

    /// Whether a refusal may be about the login, and not about what was asked: each one that is looked into costs a new one.
    fn may_be_about(&self, login: &Login, call: &Call) -> bool {
        let newer = self.current.load().as_ref().is_some_and(|current| current.number > login.number);
        newer || (login.since.elapsed() >= YOUNG && self.refusals.may_be_mended(&call.asked()))
    }

    /// Logs in, unless that is done.
    pub(super) async fn ensure(&self) -> Result<(), Trouble> {
        self.login().await.map(drop)
    }

    /// Renews the login before it ends, and revokes those that newer ones took the place of, for as long as this is polled.
    pub(super) async fn keep(self: Arc<Self>) {
        tokio::join!(self.extend_forever(), self.revoke_forever());
    }

    /// Revokes the login, if it was made here, and has no other one made. Vault may not answer: then it ends by itself.
    pub(super) async fn close(&self) {
        let closing = async {
            // Whoever is about to log in would leave that one behind.
            let _turn = self.turn.acquire().await;
            self.turn.close();
            let mut logins = self.superseded.take();
            logins.extend(self.current.swap(None).filter(|login| login.is_to_be_revoked()));
            join_all(logins.iter().map(|login| self.revoke(login))).await;
        };
        if timeout(self.wire.limit(), closing).await.is_err() {
            tracing::debug!("the login to Vault was not revoked in time; it ends by itself");
        }
        self.turn.close();
    }

    async fn revoke_forever(&self) {
        loop {
            let (due, login) = self.superseded.next().await;
            sleep_until(due).await;
            self.revoke(&login).await;
            self.superseded.done(&login);
        }
    }

    async fn revoke(&self, login: &Login) {
        match login::revoke(&self.wire, &login.who).await {
            // It has ended, which may be why there is a newer one.
            Ok(()) | Err(Trouble::Forbidden(_)) => {}
            Err(trouble) => {
                tracing::debug!(?trouble, "a login to Vault that is not needed was not revoked; it ends by itself");
            }
        }
    }

    async fn extend_forever(&self) {
        loop {
            let changed = self.changed.notified();
            let due = self.current.load().as_ref().and_then(|login| login.renewal());
            match due {
                None => changed.await,
                Some(due) => {
                    tokio::select! {
                        () = changed => {}
                        () = sleep_until(due) => self.extend().await,
                    }
                }
            }
        }
    }

    async fn extend(&self) {
        let Some(login) = self.current.load_full() else { return };
        if login.renewable && self.renew(&login).await.is_ok() {
            return;
        }
        if let Err(trouble) = self.login_after(login.number).await {
            tracing::warn!(?trouble, "logging in to Vault anew failed; it is tried again");
            sleep(RENEW_AGAIN.min(login.lease.unwrap_or(RENEW_AGAIN))).await;
        }
    }

    /// Has a login renewed, unless there is another one by now.
    async fn renew(&self, login: &Login) -> Result<(), NotRenewed> {
        // Otherwise the older one could be put into the place of one that is made meanwhile.
        let Ok(_turn) = self.turn.acquire().await else { return Ok(()) };
        if self.current.load().as_ref().is_none_or(|current| current.number != login.number) {
            return Ok(());
        }
        match login::renew(&self.wire, &login.token).await {
            Ok(granted) if worth_it(&granted, login) => {
                self.set(Granted { origin: login.origin, ..granted }, login.number);
                return Ok(());
            }
            Ok(_) => tracing::debug!("the login to Vault comes to the end of its longest lifetime"),
            Err(trouble) => tracing::warn!(?trouble, "the login to Vault could not be renewed"),
        }
        Err(NotRenewed)
    }

    async fn login(&self) -> Result<Arc<Login>, Trouble> {
        match self.current.load_full() {
            Some(login) if !login.is_over() => Ok(login),
            Some(over) => self.login_after(over.number).await,
            None => self.login_after(0).await,
        }
    }

    /// A login that is newer than `number`. Whoever comes while one is under way gets what comes of it.
    async fn login_after(&self, number: u64) -> Result<Arc<Login>, Trouble> {
        let _turn = self.turn.acquire().await.map_err(|_| Trouble::Broken("the connection is closed".to_owned()))?;
        let current = self.current.load_full();
        if let Some(login) = current.filter(|login| login.number > number && !login.is_over()) {
            return Ok(login);
        }
        if let Some(trouble) = self.failure() {
            return Err(trouble);
        }
        match self.try_login().await {
            Ok(granted) => {
                self.set(granted, number);
                self.current.load_full().ok_or(Trouble::Broken("the login was lost".to_owned()))
            }
            Err(trouble) => {
                let trouble = trouble.of_login(self.auth.name());
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), trouble.clone()));
                Err(trouble)
            }
        }
    }

    async fn try_login(&self) -> Result<Granted, Trouble> {
        let mut pause = PAUSE;
        let mut left = self.retries;
        loop {
            match login::login(&self.wire, &self.auth).await {
                Err(trouble) if left > 0 && trouble.may_pass() => {
                    left -= 1;
                    sleep(pause).await;
                    pause *= 2;
                }
                done => return done,
            }
        }
    }

    fn failure(&self) -> Option<Trouble> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.as_ref().filter(|(at, _)| at.elapsed() < FAILED_FOR).map(|(_, trouble)| trouble.clone())
    }

    fn set(&self, granted: Granted, number: u64) {
        let login = Login {
            who: self.wire.identity(granted.token.expose()),
            token: granted.token,
            number: number + 1,
            since: Instant::now(),
            lease: granted.lease,
            renewable: granted.renewable,
            origin: granted.origin,
        };
        let token = login.token.clone();
        let before = self.current.swap(Some(Arc::new(login)));
        if let Some(before) = before.filter(|before| before.token != token && before.is_to_be_revoked()) {
            // Requests are under way that go by it.
            self.superseded.add(Instant::now() + self.wire.limit(), before);
        }
        self.changed.notify_one();
    }
}

/// A new login is needed.
struct NotRenewed;

/// Whether what a renewal granted is not the short rest before the end.
fn worth_it(granted: &Granted, login: &Login) -> bool {
    match (granted.lease, login.lease) {
        (Some(now), Some(before)) => now >= before / 2,
        _ => true,
    }
}
