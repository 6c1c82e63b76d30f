//! Where the other replicas of the platform reach this one, and what they are served: the streams that it is attached to.

use crate::areas::Areas;
use archestra_core::{
    bridge::{
        Refusal,
        peer::{self, Visitor},
    },
    secret::{Derived, KeyRing, Purpose},
};
use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How many connections may be about to say who they are, and how many may be open.
const MAX_GREETING: usize = 64;
const MAX_CONNECTIONS: usize = 4096;
/// The pause after an accept that failed: what fails is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where the other replicas of the platform reach this one.
///
/// A process that is attached to has one stream, which one replica holds; the others pass their calls on to it. All replicas
/// have the same key ring, by which each proves to the other that it is one. What passes between them is not encrypted, as it
/// is not between the platform and its servers. A value serves one runtime.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    listener: TcpListener,
    advertised: String,
    keys: Derived,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("advertised", &self.0.advertised).finish_non_exhaustive()
    }
}

impl Peers {
    /// Listens for the other replicas. They are told to connect to `advertised`, a host or an address with a port; where there
    /// is none, to the address that is listened on.
    ///
    /// # Errors
    /// The address cannot be listened on, or others cannot connect to it: `0.0.0.0` is no address to connect to.
    pub async fn listen(listen: SocketAddr, advertised: Option<String>, ring: &KeyRing) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let bound = listener.local_addr()?;
        let advertised = match advertised {
            Some(advertised) => advertised,
            None if bound.ip().is_unspecified() => {
                let text = format!("{bound} is no address that another replica can connect to; advertise one");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            None => bound.to_string(),
        };
        Ok(Self(Arc::new(Inner { listener, advertised, keys: ring.derive(Purpose::Peers) })))
    }

    /// Where the other replicas connect to.
    #[must_use]
    pub fn advertised(&self) -> &str {
        &self.0.advertised
    }

    pub(crate) fn keys(&self) -> &Derived {
        &self.0.keys
    }

    /// Serves the other replicas, by the name that this one holds its Leases under, until `stop`.
    pub(crate) async fn serve(self, holder: String, areas: Arc<Areas>, tasks: TaskTracker, stop: CancellationToken) {
        let house = Arc::new(House { peers: self, holder, areas, places: Semaphore::new(MAX_CONNECTIONS) });
        let greeting = Arc::new(Semaphore::new(MAX_GREETING));
        let accepting = async {
            while let Ok(permit) = Arc::clone(&greeting).acquire_owned().await {
                let Ok((stream, _)) = house.peers.0.listener.accept().await else {
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let (house, stop) = (Arc::clone(&house), stop.clone());
                drop(tasks.spawn(async move {
                    let serving = async {
                        let visitor = house.receive(stream).await;
                        drop(permit);
                        if let Some(visitor) = visitor {
                            house.serve(visitor).await;
                        }
                    };
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = serving => {}
                    }
                }));
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = accepting => {}
        }
    }
}

/// What every connection is served from.
struct House {
    peers: Peers,
    holder: String,
    areas: Arc<Areas>,
    places: Semaphore,
}

impl House {
    async fn receive(&self, stream: TcpStream) -> Option<Visitor> {
        peer::receive(stream, self.peers.keys(), &self.holder).await
    }

    async fn serve(&self, visitor: Visitor) {
        let Ok(_place) = self.places.try_acquire() else {
            return visitor.refuse(&Refusal::Busy(format!("there are {MAX_CONNECTIONS} connections already"))).await;
        };
        let subject = visitor.subject();
        let area = self.areas.all().into_iter().find(|area| area.namespace == subject.namespace);
        let held = match (area, subject.workload.parse()) {
            (Some(area), Ok(id)) => area.reach.held(&id),
            _ => Err("the workload is not known here".to_owned()),
        };
        match held {
            Ok(multiplexer) => visitor.serve(&multiplexer).await,
            Err(reason) => visitor.refuse(&Refusal::NotReady(reason)).await,
        }
    }
}
