//! `archestra serve`: opens the backends, builds the platform on them, and serves until it is told to end.

pub(crate) mod backends;

use self::backends::Backends;
use crate::{
    announce::{self, Demo},
    bootstrap::{self, AdminToken, Delivery},
    config::{ADMIN_TOKEN, ServeConfig},
    environment::Environment,
    failure::Failure,
    quickstart,
    signals::Signals,
};
use archestra_core::id::InstallationId;
use archestra_gateway::{
    lifecycle::LifecycleOptions,
    platform::{Options, Platform},
};
use std::{
    fs::DirBuilder,
    io::{self, IsTerminal},
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use url::Url;

/// How many starts a self-hosted server may need until it answers: some die of the first question.
const STARTS: u32 = 2;

/// Serves until a signal ends it.
///
/// # Errors
/// What keeps it from starting, or a listener that failed.
pub(crate) async fn run(config: ServeConfig, environment: &Environment) -> Result<(), Failure> {
    // Taken first, so that a signal never meets a half-made start unprepared.
    let mut signals = Signals::take()?;
    let stop = CancellationToken::new();
    let mut work = Box::pin(start_and_serve(config, environment, &stop));
    tokio::select! {
        done = &mut work => return done,
        signal = signals.next() => tracing::info!(signal, "ending: calls under way may finish; a second signal ends at once"),
    }
    stop.cancel();
    tokio::select! {
        done = &mut work => done,
        signal = signals.next() => {
            tracing::warn!(signal, "ending at once");
            Ok(())
        }
    }
}

async fn start_and_serve(
    config: ServeConfig,
    environment: &Environment,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let data_dir = data_directory(&config.data_dir)?;
    let (listener, address) = listen("--listen", config.listen).await?;
    let metrics_listener = match config.metrics_listen {
        Some(address) => Some(listen("--metrics-listen", address).await?.0),
        None => None,
    };
    let public_url = public_url(&config, address)?;
    let backends = Backends::open(&config, &data_dir, environment, address).await?;
    // Whoever reads and writes secrets under another ring at the same time would lose them.
    let ended = stop.child_token();
    let serving = serve(
        &config,
        &data_dir,
        &public_url,
        &backends,
        Listeners { public: listener, address, metrics: metrics_listener },
        &ended,
    );
    let mut serving = Box::pin(serving);
    let outcome = tokio::select! {
        served = &mut serving => Some(served),
        () = backends.lost() => None,
    };
    let served = match outcome {
        Some(served) => served,
        None => {
            ended.cancel();
            serving.as_mut().await.and(Err(Failure::failed(
                "another process with another key file uses this database: give every process the same --key-file",
            )))
        }
    };
    drop(serving);
    backends.close().await;
    served
}

struct Listeners {
    public: TcpListener,
    address: SocketAddr,
    metrics: Option<TcpListener>,
}

async fn serve(
    config: &ServeConfig,
    data_dir: &Path,
    public_url: &Url,
    backends: &Backends,
    listeners: Listeners,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let platform = backends.platform(options(config, public_url)).await?;
    let prepared = prepare(config, data_dir, backends, &platform).await;
    let served = match prepared {
        Err(failure) => Err(failure),
        Ok((demo, token)) => {
            let address = listeners.address;
            let _metrics = listeners.metrics.map(|listener| serve_metrics(listener, &platform));
            let announced = async {
                let place = public_url.as_str().trim_end_matches('/');
                // At once: whoever ends us while the demo starts has seen the token.
                announce::start(address, place, if demo.is_some() { Demo::Made } else { Demo::NotMade }, &token);
                if let Some(installation) = demo {
                    stop.run_until_cancelled(quickstart::settled(backends.catalog(), installation)).await;
                    announce::what_to_try(place, &token);
                }
            };
            let (served, ()) = tokio::join!(platform.serve(listeners.public, stop.clone()), announced);
            served.map_err(|error| Failure::because("the listener failed", &error))
        }
    };
    platform.shutdown().await;
    served
}

/// What must be there before anybody is let in.
async fn prepare(
    config: &ServeConfig,
    data_dir: &Path,
    backends: &Backends,
    platform: &Platform,
) -> Result<(Option<InstallationId>, AdminToken), Failure> {
    let stores = (backends.catalog(), backends.state());
    let demo = quickstart::run(config.quickstart, platform.lifecycle(), stores, backends.binary())
        .await
        .unwrap_or_else(|failure| {
            tracing::warn!("{failure}; going on without it");
            None
        });
    let token_file = data_dir.join("admin-token");
    let delivery = if io::stdout().is_terminal() { Delivery::Terminal } else { Delivery::File(token_file.clone()) };
    let token = bootstrap::admin(backends.identity(), config.admin_token.as_ref(), &delivery).await?;
    match (&token, &config.admin_token) {
        (AdminToken::InFile(path), _) => {
            tracing::info!(path = %path.display(), admin = bootstrap::ADMIN, "wrote the admin's token")
        }
        (AdminToken::FromVariable, Some(given)) => bootstrap::clean_up(&token_file, given).map_err(|error| {
            Failure::because(
                format!("{} holds a token that {ADMIN_TOKEN} replaced and cannot be removed", token_file.display()),
                &error,
            )
        })?,
        _ => {}
    }
    Ok((demo, token))
}

fn options(config: &ServeConfig, public_url: &Url) -> Options {
    Options {
        public_url: Some(public_url.clone()),
        allowed_hosts: config.allowed_hosts.clone(),
        allowed_origins: config.allowed_origins.clone(),
        private_networks: config.private_networks.clone(),
        body_limit: config.body_limit,
        call_timeout: config.call_timeout,
        stale_grace: config.stale_grace,
        drain_timeout: config.drain_timeout,
        write_timeout: config.write_timeout,
        max_calls_per_caller: config.max_calls_per_caller,
        max_streams_per_caller: config.max_streams_per_caller,
        lifecycle: LifecycleOptions {
            start_timeout: config.start_timeout.saturating_mul(STARTS),
            ..LifecycleOptions::default()
        },
        audit_retention: config.audit_retention,
        workers: std::thread::available_parallelism().ok(),
        ..Options::default()
    }
}

/// The directory, made if it is not there, for its owner only.
pub(crate) fn data_directory(path: &Path) -> Result<PathBuf, Failure> {
    let made = if path.is_dir() { Ok(()) } else { DirBuilder::new().recursive(true).mode(0o700).create(path) };
    made.and_then(|()| path.canonicalize()).map_err(|error| {
        Failure::failed(format!(
            "--data-dir {}: {error}; name a folder that this user may make or change",
            path.display()
        ))
    })
}

async fn listen(flag: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), Failure> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok::<_, io::Error>((listener, address))
    };
    bound.await.map_err(|error| Failure::because(format!("{flag} {address}"), &error))
}

fn public_url(config: &ServeConfig, address: SocketAddr) -> Result<Url, Failure> {
    if let Some(url) = &config.public_url {
        return Ok(url.clone());
    }
    let text = if address.ip().is_unspecified() {
        tracing::warn!(
            "--public-url is not set: clients on other machines are told the URL of this one's loopback interface"
        );
        format!("http://localhost:{}", address.port())
    } else {
        format!("http://{address}")
    };
    Url::parse(&text).map_err(|error| {
        Failure::because(format!("no URL can be made of --listen {address}; set --public-url"), &error)
    })
}

fn serve_metrics(listener: TcpListener, platform: &Platform) -> AbortOnDropHandle<()> {
    let router = platform.metrics_router();
    AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "metrics are no longer served");
        }
    }))
}
