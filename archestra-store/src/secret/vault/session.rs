//! Who we are to Vault at the moment: logged in when first needed, again when that has ended, and once for everybody.

use super::{
    config::{VaultAuth, VaultConfig},
    login::{self, Granted},
    trouble::Trouble,
    wire::{Answer, Call, Identity, Wire},
};
use arc_swap::ArcSwapOption;
use archestra_core::{Error, Result, secret::SecretValue};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, sleep, sleep_until, timeout},
};

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
}

impl Login {
    fn is_over(&self) -> bool {
        self.lease.is_some_and(|lease| self.since.elapsed() >= lease)
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
        self.within_times(1, operation, what, work).await
    }

    /// The same with `times` the deadline.
    pub(super) async fn within_times<T>(
        &self,
        times: u32,
        operation: &'static str,
        what: &str,
        work: impl Future<Output = Result<T, Trouble>> + Send,
    ) -> Result<T> {
        let after = self.deadline * times;
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
                Ok(answer) => return Ok(answer),
                Err(trouble) => trouble,
            };
            match trouble {
                Trouble::Forbidden(_) if again && login.since.elapsed() >= YOUNG => {
                    again = false;
                    let newer = self.login_after(login.number).await?;
                    if newer.token == login.token {
                        return Err(trouble);
                    }
                    login = newer;
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

    /// Logs in, unless that is done.
    pub(super) async fn ensure(&self) -> Result<(), Trouble> {
        self.login().await.map(drop)
    }

    /// Renews the login before it ends, for as long as this is polled.
    pub(super) async fn keep(self: Arc<Self>) {
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
        if login.renewable {
            match login::renew(&self.wire, &login.token).await {
                Ok(granted) if worth_it(&granted, &login) => return self.set(granted, login.number),
                Ok(_) => tracing::debug!("the login to Vault comes to the end of its longest lifetime"),
                Err(trouble) => tracing::warn!(?trouble, "the login to Vault could not be renewed"),
            }
        }
        if let Err(trouble) = self.login_after(login.number).await {
            tracing::warn!(?trouble, "logging in to Vault anew failed; it is tried again");
            sleep(RENEW_AGAIN.min(login.lease.unwrap_or(RENEW_AGAIN))).await;
        }
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
        };
        self.current.store(Some(Arc::new(login)));
        self.changed.notify_one();
    }
}

/// Whether what a renewal granted is not the short rest before the end.
fn worth_it(granted: &Granted, login: &Login) -> bool {
    match (granted.lease, login.lease) {
        (Some(now), Some(before)) => now >= before / 2,
        _ => true,
    }
}
