//! Tests of the control plane, through its router, on memory backends and a scripted runtime.

mod access;
mod applying;
mod bad_input;
mod failing;
mod killed;
mod naming;
mod openapi;
mod pages;
mod pruning;
mod resources;
mod sources;

use super::*;
use crate::lifecycle::{Discover, DiscoverError, LifecycleOptions, LifecycleParts};
use archestra_core::{
    catalog::Entry,
    event::AuditRecord,
    identity::{IdentityChanges, Principal, RoleName, Team, User},
    installation::Installation,
    testing::{
        Faults, Faulty, MemoryAudit, MemoryCatalog, MemoryIdentity, MemorySecrets, ScriptedRuntime, ScriptedServer,
        fixtures,
    },
};
use async_trait::async_trait;
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::sync::Mutex;
use tower::ServiceExt as _;

/// Two tools, unless a test says that no server answers.
#[derive(Debug, Default)]
struct Tools(Mutex<Option<DiscoverError>>);

#[async_trait]
impl Discover for Tools {
    async fn discover(&self, _: &Entry, _: &Installation) -> Result<Vec<Value>, DiscoverError> {
        match self.0.lock().unwrap().clone() {
            Some(error) => Err(error),
            None => Ok(["add", "echo"].map(|name| json!({"name": name, "inputSchema": {"type": "object"}})).into()),
        }
    }
}

/// A control plane with an admin, an editor, two members and the team `finance`, in which alice is.
struct Rig {
    router: Router,
    state: AdminState,
    tools: Arc<Tools>,
    secrets: Arc<MemorySecrets>,
    catalog: Faults,
    records: Arc<Mutex<Vec<AuditRecord>>>,
    admin: Arc<Principal>,
    editor: Arc<Principal>,
    alice: Arc<Principal>,
    bob: Arc<Principal>,
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    #[track_caller]
    fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// The problem that this answer is, which must be one.
    #[track_caller]
    fn problem(self, status: u16) -> ProblemBody {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem: ProblemBody = serde_json::from_str(&self.text).unwrap();
        assert_eq!(problem.status, status);
        problem
    }
}

impl Rig {
    async fn new() -> Self {
        Self::on(ScriptedRuntime::new(ScriptedServer::new("any"))).await
    }

    async fn on(runtime: ScriptedRuntime) -> Self {
        let (memory, identity, secrets) =
            (Arc::new(MemoryCatalog::new()), Arc::new(MemoryIdentity::new()), Arc::new(MemorySecrets::new()));
        let faulty = Faulty::<dyn CatalogStore>::new(memory);
        let faults = faulty.faults();
        let catalog: Arc<dyn CatalogStore> = Arc::new(faulty);
        let user = |email: &str, role: &str| User { role: RoleName(role.to_owned()), ..fixtures::user(email) };
        let (admin, editor) = (user("admin@example.com", "admin"), user("editor@example.com", "editor"));
        let (alice, bob) = (user("alice@example.com", "member"), user("bob@example.com", "member"));
        let team: Team = fixtures::team("finance", [&alice, &editor]);
        let mut changes = IdentityChanges::new();
        for user in [&admin, &editor, &alice, &bob] {
            changes = changes.create(user.clone());
        }
        identity.commit(changes.create(team.clone())).await.unwrap();
        let tools = Arc::new(Tools::default());
        let runtime: Arc<dyn Runtime> = Arc::new(runtime);
        let lifecycle = Lifecycle::new(LifecycleParts {
            catalog: Arc::clone(&catalog),
            secrets: Arc::clone(&secrets) as Arc<dyn SecretStore>,
            runtime: Some(Arc::clone(&runtime)),
            discover: Arc::clone(&tools) as Arc<dyn Discover>,
            options: LifecycleOptions::default(),
        });
        let records = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&records);
        let state = AdminState {
            catalog,
            identity,
            secrets: Arc::clone(&secrets) as Arc<dyn SecretStore>,
            audit: Arc::new(MemoryAudit::new()),
            record: Arc::new(move |record| kept.lock().unwrap().push(record)),
            lifecycle,
            runtime: Some(runtime),
            public_url: "http://127.0.0.1:9000".to_owned(),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        };
        let principal = |user: &User, teams: &[_]| Arc::new(fixtures::user_principal(user, teams));
        Self {
            router: router(state.clone()),
            state,
            tools,
            secrets,
            catalog: faults,
            records,
            admin: principal(&admin, &[]),
            editor: principal(&editor, &[team.id]),
            alice: principal(&alice, &[team.id]),
            bob: principal(&bob, &[]),
        }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    async fn call(&self, who: &Arc<Principal>, method: &str, path: &str, body: Option<Value>) -> Answer {
        let request = Request::builder().method(method).uri(path).extension(Arc::clone(who));
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        self.send(request.unwrap()).await
    }

    async fn get(&self, who: &Arc<Principal>, path: &str) -> Answer {
        self.call(who, "GET", path, None).await
    }

    async fn post(&self, who: &Arc<Principal>, path: &str, body: Value) -> Answer {
        self.call(who, "POST", path, Some(body)).await
    }

    async fn put(&self, who: &Arc<Principal>, path: &str, body: Value) -> Answer {
        self.call(who, "PUT", path, Some(body)).await
    }

    async fn delete(&self, who: &Arc<Principal>, path: &str) -> Answer {
        self.call(who, "DELETE", path, None).await
    }

    async fn apply(&self, who: &Arc<Principal>, query: &str, yaml: &str) -> Answer {
        let request = Request::builder().method("POST").uri(format!("/apply?{query}")).extension(Arc::clone(who));
        self.send(request.header("content-type", "application/yaml").body(Body::from(yaml.to_owned())).unwrap()).await
    }

    /// Everything that is stored, for comparing before with after.
    async fn everything(&self) -> String {
        use archestra_core::{
            catalog::{Kind, Query},
            feed::PageRequest,
            identity::{IdentityKind, IdentityQuery},
            secret::SecretStore as _,
        };
        let all = PageRequest { limit: 1000, cursor: None };
        let mut text = String::new();
        for kind in Kind::ALL {
            for item in self.state.catalog.list(&Query::all(*kind), &all).await.unwrap().items {
                text.push_str(&format!("{item:?}\n"));
            }
        }
        for kind in IdentityKind::ALL {
            for item in self.state.identity.list(&IdentityQuery::all(*kind), &all).await.unwrap().items {
                text.push_str(&format!("{item:?}\n"));
            }
        }
        text.push_str(&format!("{:?}", self.secrets.list("").await.unwrap()));
        text
    }
}

fn remote(name: &str) -> Value {
    json!({
        "name": name,
        "remote": {"url": "https://mcp.example.com/mcp"},
        "credential": {"static": [{"name": "token", "header": "Authorization", "prefix": "Bearer ", "required": true}]},
    })
}

fn hosted(name: &str) -> Value {
    json!({"name": name, "selfHosted": {"command": ["node", "server.js"], "env": [{"name": "API_KEY", "secret": true, "prompt": true, "required": true}]}})
}
