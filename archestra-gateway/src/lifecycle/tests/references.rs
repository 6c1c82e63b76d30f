//! Secrets that people keep elsewhere: references are stored, values are used, and nothing else is taken.

use super::*;
use archestra_core::{
    ErrorKind,
    catalog::Given,
    secret::{Accepts, ExternalRef, SecretBundle, SecretRef, SecretVersion, StoredBundle},
    testing::Faulty,
};
use async_trait::async_trait;

/// A store that resolves `path#key` to `value of path#key`, unless the path is `mcp/gone`.
#[derive(Debug, Clone, Default)]
struct Resolving(MemorySecrets);

#[async_trait]
impl SecretStore for Resolving {
    fn accepts(&self) -> Accepts {
        Accepts::References
    }

    async fn written(&self, reference: &SecretRef) -> Result<StoredBundle> {
        self.0.written(reference).await
    }

    async fn get(&self, reference: &SecretRef) -> Result<StoredBundle> {
        let StoredBundle { bundle, version } = self.0.written(reference).await?;
        let values = bundle.external().map(|(key, at)| Ok((key, resolved(at)?))).collect::<Result<_>>()?;
        Ok(StoredBundle { bundle: values, version })
    }

    async fn put(&self, reference: &SecretRef, bundle: &SecretBundle, expect: Expect) -> Result<SecretVersion> {
        bundle.external().try_for_each(|(_, at)| resolved(at).map(drop))?;
        self.0.put(reference, bundle, expect).await
    }

    async fn rewrite(&self, reference: &SecretRef, bundle: &SecretBundle, expect: Expect) -> Result<SecretVersion> {
        self.0.rewrite(reference, bundle, expect).await
    }

    async fn remove(&self, reference: &SecretRef) -> Result<()> {
        self.0.remove(reference).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<SecretRef>> {
        self.0.list(prefix).await
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }
}

fn resolved(at: &ExternalRef) -> Result<String> {
    if at.path() == "mcp/gone" {
        return Err(Error::invalid("vault", "there is nothing", "put it there first"));
    }
    Ok(format!("value of {at}"))
}

fn rig() -> (Rig, Lifecycle) {
    let rig = Rig::new();
    let secrets = Arc::new(Resolving(rig.secrets.of_references()));
    let lifecycle = with(&rig, secrets);
    (rig, lifecycle)
}

fn with(rig: &Rig, secrets: Arc<dyn SecretStore>) -> Lifecycle {
    Lifecycle::new(LifecycleParts {
        catalog: Arc::new(rig.catalog.clone()),
        secrets,
        runtime: Some(Arc::new(rig.runtime.clone())),
        discover: Arc::new(rig.discover.clone()),
        options: LifecycleOptions::default(),
    })
}

fn given(json: serde_json::Value) -> BTreeMap<String, SecretValue> {
    let values: BTreeMap<String, Given> = serde_json::from_value(json).unwrap();
    values.into_iter().map(|(name, Given(value))| (name, value)).collect()
}

fn team() -> Owner {
    Owner::Team(archestra_core::id::TeamId::new())
}

fn asks(entry: &Versioned<Entry>, owner: Owner, values: serde_json::Value) -> InstallRequest {
    InstallRequest { values: given(values), ..request(entry, owner, &[]) }
}

#[tokio::test(start_paused = true)]
async fn a_team_names_where_its_secret_is_and_the_server_gets_the_value() {
    let (rig, lifecycle) = rig();
    let mut spec = hosted("files");
    let license = serde_json::json!({"name": "LICENSE", "secret": true, "value": {"vault": "mcp/all#license"}});
    let env = &mut spec.self_hosted.as_mut().unwrap().env;
    let place = env.iter().position(|var| var.name == "LICENSE").unwrap();
    env[place] = serde_json::from_value(license).unwrap();
    let entry = lifecycle.save_entry(None, draft(spec), Expect::Any).await.unwrap();
    let at = |path: &str| serde_json::json!({"API_KEY": {"vault": path}});
    let id = lifecycle.install(asks(&entry, team(), at("mcp/one#key"))).await.unwrap().value.id;
    while lifecycle.installation(id).await.unwrap().value.state != InstallationState::Ready {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let workload = rig.runtime.only();
    assert_eq!(workload.secrets["API_KEY"].expose(), "value of mcp/one#key");
    assert_eq!(workload.secrets["env.LICENSE"].expose(), "value of mcp/all#license");

    let before = lifecycle.installation(id).await.unwrap().value;
    let same = lifecycle.reinstall(id, given(at("mcp/one#key")), None).await.unwrap().value;
    assert_eq!(same.secrets, before.secrets, "the same reference is nothing new");
    let moved = lifecycle.reinstall(id, given(at("mcp/two#key")), None).await.unwrap().value;
    assert_ne!(moved.secrets, before.secrets);
}

#[tokio::test(start_paused = true)]
async fn values_that_are_entered_are_refused_with_the_reason() {
    let (rig, lifecycle) = rig();
    let entry = lifecycle.save_entry(None, draft(remote("tracker")), Expect::Any).await.unwrap();
    let refused = async |owner, values| {
        let error = lifecycle.install(asks(&entry, owner, values)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        error.to_string()
    };
    let typed = refused(team(), serde_json::json!({"token": "canary-t0k"})).await;
    assert!(typed.contains("values.token: secrets are read from Vault") && !typed.contains("canary"), "{typed}");
    let reference = serde_json::json!({"token": {"vault": "mcp/one#key"}});
    for owner in [Owner::Organization, Owner::User(UserId::new())] {
        assert!(refused(owner, reference.clone()).await.contains("install it for a team"));
    }
    let mut spec = hosted("files");
    spec.name = "others".to_owned();
    let error = lifecycle.save_entry(None, draft(spec), Expect::Any).await.unwrap_err();
    assert!(error.to_string().contains("secrets.env.LICENSE"), "{error}");
    assert!(rig.all::<Installation>().await.is_empty() && rig.references().await == 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_of_values_takes_no_references_and_a_plain_field_none_either() {
    let rig = Rig::new();
    let entry = rig.save(remote("tracker")).await;
    let values = serde_json::json!({"token": {"vault": "mcp/one#key"}});
    let error = rig.lifecycle.install(asks(&entry, team(), values)).await.unwrap_err().to_string();
    assert!(error.contains("values.token: secrets are stored here"), "{error}");
    let wrong = serde_json::json!({"token": {"vault": "mcp/../one#key"}});
    assert!(serde_json::from_value::<BTreeMap<String, Given>>(wrong).is_err());
}

/// A remote server that asks for these, none of them required.
fn asking(fields: &[&str]) -> EntrySpec {
    let mut spec = fixtures::entry_spec("tracker");
    let fields: Vec<_> = fields.iter().map(|name| serde_json::json!({"name": name, "header": name})).collect();
    spec.credential = serde_json::from_value(serde_json::json!({"static": fields})).unwrap();
    spec
}

#[tokio::test(start_paused = true)]
async fn what_others_entered_never_keeps_an_entry_from_being_saved() {
    let rig = Rig::new();
    let [values, references]: [Arc<dyn SecretStore>; 2] =
        [Arc::new(rig.secrets.clone()), Arc::new(Resolving(rig.secrets.of_references()))];
    let [values, references] = [with(&rig, values), with(&rig, references)];
    let entry = values.save_entry(None, draft(asking(&["x-a", "x-b", "x-c"])), Expect::Any).await.unwrap();
    let typed = serde_json::json!({"x-a": "one", "x-b": "two", "x-c": "three"});
    let typed = values.install(asks(&entry, team(), typed)).await.unwrap().value.id;
    let at = |path: &str| serde_json::json!({"vault": format!("{path}#key")});
    let named = serde_json::json!({"x-a": at("mcp/one"), "x-b": at("mcp/two"), "x-c": at("mcp/three")});
    let named = references.install(asks(&entry, team(), named)).await.unwrap().value.id;
    // Somebody else's path is gone, and what was stored before is not what is stored now, whichever of the two that is.
    let installation = references.installation(named).await.unwrap().value;
    let gone: SecretBundle = [("x-a", SecretValue::kept_at("mcp/gone#key".parse().unwrap()))]
        .into_iter()
        .chain([("x-b", SecretValue::kept_at("mcp/two#key".parse().unwrap()))])
        .chain([("x-c", SecretValue::kept_at("mcp/three#key".parse().unwrap()))])
        .collect();
    rig.secrets.rewrite(installation.secrets.as_ref().unwrap(), &gone, Expect::Any).await.unwrap();
    for (lifecycle, asked) in [(&references, &["x-a", "x-b"][..]), (&values, &["x-a"])] {
        lifecycle.save_entry(Some(entry.value.id), draft(asking(asked)), Expect::Any).await.unwrap();
        for (id, first) in [(typed, SecretValue::from("one")), (named, gone.get("x-a").unwrap().clone())] {
            let secrets = lifecycle.installation(id).await.unwrap().value.secrets.unwrap();
            let left = rig.secrets.written(&secrets).await.unwrap().bundle;
            assert_eq!(left.keys().collect::<Vec<_>>(), asked, "the rest went, and nothing else");
            assert_eq!(left.get("x-a"), Some(&first));
        }
    }
    // Whoever gives all of it anew is served again; a part of it is refused with the place.
    let error = values.reinstall(named, BTreeMap::new(), None).await.unwrap_err().to_string();
    assert!(error.contains("values.x-a: secrets are stored here"), "{error}");
    values.reinstall(named, given(serde_json::json!({"x-a": "new"})), None).await.unwrap();
    let secrets = values.installation(named).await.unwrap().value.secrets.unwrap();
    assert_eq!(rig.secrets.get(&secrets).await.unwrap().bundle, fixtures::bundle(&[("x-a", "new")]));
}

#[tokio::test(start_paused = true)]
async fn what_one_change_drops_of_many_installations_goes_by_one_reading_of_the_catalog() {
    let mut rig = Rig::new();
    let counted = Faulty::new(Arc::new(rig.catalog.clone()));
    let faults = counted.faults();
    rig.lifecycle = Lifecycle::new(LifecycleParts {
        catalog: Arc::new(counted),
        secrets: Arc::new(rig.secrets.clone()),
        runtime: None,
        discover: Arc::new(rig.discover.clone()),
        options: LifecycleOptions::default(),
    });
    let entry = rig.save(asking(&["x-a", "x-b"])).await;
    for _ in 0..50 {
        rig.install(&entry, team(), &[("x-a", "one"), ("x-b", "two")]).await.unwrap();
    }
    rig.resave(&entry, |spec| *spec = asking(&["x-a"])).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(rig.references().await, 100, "others may still call by what was");
    let before = faults.calls();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(rig.references().await, 50);
    assert_eq!(faults.calls() - before, 3, "entries, installations and revisions are read once each");
    rig.quiet().await;

    // Later ones are attended to again.
    rig.resave(&entry, |spec| *spec = asking(&[])).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(rig.references().await, 0);
    rig.quiet().await;
}
