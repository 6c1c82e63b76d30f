//! [`FakeCluster`]: a Kubernetes cluster in this process, for tests.
//!
//! Behind the feature `testing`, for `[dev-dependencies]`:
//!
//! ```toml
//! archestra-k8s = { version = "0.1", features = ["testing"] }
//! k8s-openapi = { version = "0.29", features = ["v1_33"] }
//! ```
//!
//! A test takes a client from it where the program would connect to a real cluster, says what the images do, and looks at
//! what became of it. There is no container, no daemon and no network but the loopback interface, and a pod is ready in
//! milliseconds.
//!
//! ```
//! use archestra_core::{
//!     runtime::{Connection, Phase, Runtime},
//!     testing::{Answer, ScriptedServer, fixtures},
//! };
//! use archestra_k8s::{KubernetesConfig, KubernetesRuntime, testing::{FakeCluster, FakeImage}};
//! use k8s_openapi::api::apps::v1::Deployment;
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! // A cluster with an image of an MCP server, and one whose server does not come up.
//! let echo = ScriptedServer::new("echo").tool("echo", |arguments| Answer::text(arguments["text"].as_str().unwrap_or_default()));
//! let cluster = FakeCluster::new()
//!     .image("example.com/echo:1", FakeImage::server(echo))
//!     .image("example.com/broken:1", FakeImage::crashes(1, "Error: API_KEY is not set"));
//!
//! let runtime = KubernetesRuntime::with_client(KubernetesConfig::default(), cluster.client()).await;
//! let mut spec = fixtures::workload_spec("echo", &["node", "server.js"]);
//! spec.image = Some("example.com/echo:1".to_owned());
//! let workload = fixtures::workload(spec);
//! runtime.apply(&workload).await.unwrap();
//!
//! // What was applied is in the cluster ...
//! let deployment: Deployment = cluster.get("default", workload.id.as_str()).unwrap();
//! assert_eq!(deployment.spec.unwrap().replicas, Some(1));
//!
//! // ... comes to run, and answers over the same protocol as in a real one.
//! while runtime.status(&workload.id).await.unwrap().phase != Phase::Running {
//!     tokio::time::sleep(std::time::Duration::from_millis(10)).await;
//! }
//! let Connection::Stdio(mut channel) = runtime.connect(&workload.id).await.unwrap() else { unreachable!("it speaks stdio") };
//! channel.send(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#.into()).await.unwrap();
//! assert!(channel.recv().await.is_some());
//!
//! // While the API server is gone, nothing can be applied, and what runs goes on.
//! cluster.faults().down();
//! assert!(runtime.restart(&workload.id).await.is_err());
//! cluster.faults().up();
//! runtime.shutdown().await;
//! # });
//! ```
//!
//! # What it does
//! * **API**: the kinds that MCP servers on Kubernetes are made of, with `get`, `list` (selectors, pages), `watch` (bookmarks,
//!   replay from a version, 410 for what is [forgotten](FakeCluster::compact)), `create`, `replace` with version conflicts, all
//!   kinds of patch, server-side apply with field ownership and conflicts, dry runs, deletion with preconditions, propagation
//!   and finalizers, `deletecollection`, the `status` subresource, generations, defaults, validation, and unknown fields under
//!   `fieldValidation=Strict`. Answers that refuse are a `Status`, as kube's errors want them.
//! * **Controllers**: Deployments make ReplicaSets (rolling without a gap, or `Recreate`, with history), these make Pods,
//!   owned objects go with their owners, namespaces are emptied. Events tell what happens.
//! * **Kubelet**: pods are scheduled, mount what they name, pull with their secrets, run init containers and containers as their
//!   [`FakeImage`] says, are probed, crash with back-off, are [lost](FakeCluster::lose) with their node, and leave logs, which
//!   `pods/log` reads in every way.
//! * **Servers**: each pod and each Service has a loopback address of its own, on which it listens on its own ports: the bridge,
//!   or streamable HTTP. `attach`, `exec` and `portforward` speak WebSocket (`v4` and `v5.channel.k8s.io`), also without a
//!   port; what can be executed is what the image [has](FakeImage::program). These addresses are in 127.64.0.0/10, all of which
//!   Linux listens on.
//! * **Faults**: [`Faults`] fails requests, slows them, drops watches, and takes the API server away and gives it back.
//!
//! # What it does not do
//! Permissions and network policies are stored and not enforced, no other admission runs than
//! [`deny`](FakeCluster::deny), [webhooks](FakeCluster::webhook_away) that do not answer or
//! [take no dry runs](FakeCluster::refuse_dry_runs), [quotas](FakeCluster::pod_quota) and service accounts, and the clock shows
//! microseconds.

mod address;
mod api;
mod cluster;
mod controllers;
mod defaults;
mod exec;
mod faults;
mod image;
mod kinds;
mod kubelet;
mod log;
mod managed;
mod patch;
mod proxy;
mod query;
mod refusal;
mod schema;
mod selector;
mod service;
mod socket;
mod store;
mod time;
mod validate;
mod watch;
mod write;

pub use cluster::{FakeCluster, RecordedRequest, Timing};
pub use exec::FakeExec;
pub use faults::Faults;
pub use image::FakeImage;
pub use service::ApiServer;
