//! Creating, replacing, patching and deleting objects, with all that the API server keeps itself.

use super::{
    defaults,
    kinds::Kind,
    managed::{Managers, Writer},
    patch::{json_merge, json_patch, strategic_merge},
    refusal::Refusal,
    store::{Key, Store, items, text},
    time, validate,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// How a write is to be done.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) dry_run: bool,
    pub(super) force: bool,
    pub(super) strict: bool,
    pub(super) writer: Writer,
}

/// The kinds of patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PatchType {
    Json,
    Merge,
    Strategic,
    Apply,
}

/// How an object is to be deleted.
#[derive(Debug, Default)]
pub(super) struct Deletion {
    pub(super) propagation: String,
    pub(super) grace: Option<i64>,
    pub(super) uid: String,
    pub(super) version: String,
    pub(super) dry_run: bool,
}

impl Store {
    pub(super) fn create(
        &mut self,
        kind: &'static Kind,
        namespace: &str,
        mut object: Value,
        options: &Options,
    ) -> Result<Arc<Value>, Refusal> {
        let given = text(&object, "/metadata/name").to_owned();
        let name = match text(&object, "/metadata/generateName") {
            prefix if given.is_empty() && !prefix.is_empty() => {
                let prefix = prefix.to_owned();
                format!("{prefix}{}", suffix(self.next_name()))
            }
            _ => given,
        };
        self.complete(kind, namespace, &name, &mut object, options.strict)?;
        if !text(&object, "/metadata/resourceVersion").is_empty() {
            return Err(Refusal::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let key = Key::new(kind.name, namespace, &name);
        if self.get(&key).is_some() {
            return Err(Refusal::exists(kind, &name));
        }
        let mut managers = Managers::default();
        managers.wrote(kind, &Value::Null, &object, &options.writer);
        self.add(kind, &key, object, managers, options)
    }

    /// Stores an object that is not there yet.
    fn add(
        &mut self,
        kind: &'static Kind,
        key: &Key,
        mut object: Value,
        managers: Managers,
        options: &Options,
    ) -> Result<Arc<Value>, Refusal> {
        if kind.namespaced {
            let home = Key::new("Namespace", "", &key.namespace);
            let Some(home) = self.get(&home) else {
                let namespaces = super::kinds::named("Namespace").ok_or_else(Refusal::no_such_path)?;
                return Err(Refusal::not_found(namespaces, &key.namespace));
            };
            if !home["metadata"]["deletionTimestamp"].is_null() {
                let why = format!(
                    "unable to create new content in namespace {} because it is being terminated",
                    key.namespace
                );
                return Err(Refusal::forbidden(kind, &key.name, &why));
            }
        }
        if kind.has_status
            && !matches!(kind.name, "Node" | "ResourceQuota")
            && let Value::Object(fields) = &mut object
        {
            fields.remove("status");
        }
        defaults::fill(kind, &mut object);
        validate::check(kind, &object, None)?;
        if options.dry_run && self.rules.no_dry_runs.contains(kind.name) {
            let message = "admission webhook \"fake.archestra.dev\" does not support dry run";
            return Err(Refusal::bad_request(message));
        }
        self.admit(kind, key, &object)?;
        let metadata = &mut object["metadata"];
        metadata["uid"] = uid().into();
        metadata["creationTimestamp"] = options.writer.time.clone().into();
        if kind.has_generation {
            metadata["generation"] = 1.into();
        }
        match kind.name {
            "Pod" => object["status"] = json!({"phase": "Pending", "qosClass": "Burstable"}),
            "Namespace" => object["status"] = json!({"phase": "Active"}),
            "Service" => object["status"] = json!({"loadBalancer": {}}),
            "Deployment" | "ReplicaSet" => object["status"] = json!({}),
            _ => {}
        }
        if kind.name == "Service" && object["spec"]["clusterIP"].is_null() {
            object["spec"]["clusterIP"] = super::address::unused().to_string().into();
        }
        if options.dry_run {
            return Ok(Arc::new(object));
        }
        let stored = self.put(kind, key.clone(), object, managers);
        if kind.name == "Namespace" {
            self.add_account(&key.name);
        }
        Ok(stored)
    }

    /// The service account that every namespace has.
    fn add_account(&mut self, namespace: &str) {
        if let Some(kind) = super::kinds::named("ServiceAccount") {
            let account = json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": "default", "namespace": namespace, "uid": uid(), "creationTimestamp": time::now()},
            });
            self.put(kind, Key::new(kind.name, namespace, "default"), account, Managers::default());
        }
    }

    /// Whether admission lets an object in.
    pub(super) fn admit(&self, kind: &Kind, key: &Key, object: &Value) -> Result<(), Refusal> {
        if let Some(why) = self.rules.denials.get(kind.name) {
            return Err(Refusal::new(
                403,
                format!("admission webhook \"fake.archestra.dev\" denied the request: {why}"),
            ));
        }
        if let Some(why) = self.rules.unjudged.get(kind.name) {
            let message = format!("Internal error occurred: failed calling webhook \"fake.archestra.dev\": {why}");
            return Err(Refusal::new(500, message));
        }
        if let Some(most) = self.rules.object_quotas.get(&(key.namespace.clone(), kind.name.to_owned())) {
            let used = self.all(kind.name, Some(&key.namespace)).count();
            if used >= *most {
                let counted = format!("count/{}", kind.resource());
                let why = format!(
                    "exceeded quota: objects, requested: {counted}=1, used: {counted}={used}, limited: {counted}={most}"
                );
                return Err(Refusal::forbidden(kind, &key.name, &why));
            }
        }
        if kind.name != "Pod" {
            return Ok(());
        }
        let account = match text(object, "/spec/serviceAccountName") {
            "" => "default",
            named => named,
        };
        if self.get(&Key::new("ServiceAccount", &key.namespace, account)).is_none() {
            let why = format!(
                "error looking up service account {}/{account}: serviceaccount \"{account}\" not found",
                key.namespace
            );
            return Err(Refusal::forbidden(kind, &key.name, &why));
        }
        if let Some(most) = self.rules.pod_quotas.get(&key.namespace) {
            let used = self
                .all("Pod", Some(&key.namespace))
                .filter(|(_, pod)| !matches!(text(pod, "/status/phase"), "Failed" | "Succeeded"))
                .count();
            if used >= *most {
                let why = format!("exceeded quota: pods, requested: pods=1, used: pods={used}, limited: pods={most}");
                return Err(Refusal::forbidden(kind, &key.name, &why));
            }
        }
        Ok(())
    }

    /// Checks what was sent against where it was sent, and fills in what the place says.
    fn complete(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        object: &mut Value,
        strict: bool,
    ) -> Result<(), Refusal> {
        if !object.is_object() {
            return Err(Refusal::bad_request("the body is no object"));
        }
        for (field, wanted) in [("kind", kind.name.to_owned()), ("apiVersion", kind.api_version())] {
            match object[field].as_str() {
                None => object[field] = wanted.into(),
                Some(given) if given == wanted => {}
                Some(given) => {
                    return Err(Refusal::bad_request(format!(
                        "the {field} of the object ({given}) does not match the {field} of the request ({wanted})"
                    )));
                }
            }
        }
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        for (field, wanted) in [("namespace", namespace), ("name", name)] {
            match object["metadata"][field].as_str() {
                None | Some("") if wanted.is_empty() => {}
                None | Some("") => object["metadata"][field] = wanted.into(),
                Some(given) if given == wanted => {}
                Some(given) => {
                    return Err(Refusal::bad_request(format!(
                        "the {field} of the provided object ({given}) does not match the {field} sent on the URL ({wanted})"
                    )));
                }
            }
        }
        if strict {
            let unknown: Vec<_> =
                kind.unknown_fields(object).into_iter().map(|field| format!("unknown field {field:?}")).collect();
            if !unknown.is_empty() {
                return Err(Refusal::bad_request(format!("strict decoding error: {}", unknown.join(", "))));
            }
        }
        match kind.misfit(object) {
            Some(why) => Err(Refusal::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: {why}",
                kind.name,
                kind.api_version(),
                kind.name
            ))),
            None => Ok(()),
        }
    }

    pub(super) fn replace(
        &mut self,
        kind: &'static Kind,
        key: &Key,
        mut object: Value,
        options: &Options,
    ) -> Result<Arc<Value>, Refusal> {
        self.complete(kind, &key.namespace, &key.name, &mut object, options.strict)?;
        let record = self.record(key).ok_or_else(|| Refusal::not_found(kind, &key.name))?;
        let (before, mut managers) = (Arc::clone(&record.object), (*record.managers).clone());
        managers = managers.given(&object);
        let next = settle(kind, key, &before, object, options)?;
        managers.wrote(kind, &before, &next, &options.writer);
        Ok(self.commit(kind, key, &before, next, managers, options))
    }

    pub(super) fn patch(
        &mut self,
        kind: &'static Kind,
        key: &Key,
        form: PatchType,
        patch: &Value,
        options: &Options,
    ) -> Result<Arc<Value>, Refusal> {
        let Some(record) = self.record(key) else {
            if form != PatchType::Apply || !options.writer.subresource.is_empty() {
                return Err(Refusal::not_found(kind, &key.name));
            }
            let mut object = patch.clone();
            self.complete(kind, &key.namespace, &key.name, &mut object, options.strict)?;
            let mut managers = Managers::default();
            let merged = managers.apply(kind, &json!({}), &object, &options.writer, options.force)?;
            return self.add(kind, key, merged, managers, options);
        };
        let (before, mut managers) = (Arc::clone(&record.object), (*record.managers).clone());
        let mut object = (*before).clone();
        if form == PatchType::Apply {
            let mut applied = patch.clone();
            if applied["metadata"].get("managedFields").is_some_and(|fields| !fields.is_null()) {
                return Err(Refusal::bad_request("metadata.managedFields must be nil"));
            }
            self.complete(kind, &key.namespace, &key.name, &mut applied, options.strict)?;
            object = managers.apply(kind, &before, &applied, &options.writer, options.force)?;
        } else {
            match form {
                PatchType::Merge => json_merge(&mut object, patch),
                PatchType::Strategic => strategic_merge(kind.name, "", &mut object, patch),
                PatchType::Json | PatchType::Apply => json_patch(&mut object, patch)?,
            }
            managers = managers.given(&object);
            if let Some(Value::Object(metadata)) = object.get_mut("metadata")
                && patch.pointer("/metadata/resourceVersion").is_none()
            {
                metadata.remove("resourceVersion");
            }
        }
        self.complete(kind, &key.namespace, &key.name, &mut object, options.strict)?;
        let next = settle(kind, key, &before, object, options)?;
        if form != PatchType::Apply {
            managers.wrote(kind, &before, &next, &options.writer);
        }
        Ok(self.commit(kind, key, &before, next, managers, options))
    }

    /// Stores what differs from what is there.
    fn commit(
        &mut self,
        kind: &'static Kind,
        key: &Key,
        before: &Arc<Value>,
        mut next: Value,
        managers: Managers,
        options: &Options,
    ) -> Arc<Value> {
        next["metadata"]["managedFields"] = managers.render(kind);
        if next == **before {
            return Arc::clone(before);
        }
        if options.dry_run {
            return Arc::new(next);
        }
        let stored = self.put(kind, key.clone(), next, managers);
        self.drop_if_done(key);
        stored
    }

    /// Removes what is being deleted and waits for nothing any more.
    pub(super) fn drop_if_done(&mut self, key: &Key) {
        let done = |object: &Arc<Value>| {
            let metadata = &object["metadata"];
            let ended = match key.kind {
                // Its kubelet has said goodbye to it.
                "Pod" => metadata["deletionGracePeriodSeconds"] == 0,
                "Namespace" => false,
                _ => true,
            };
            ended && !metadata["deletionTimestamp"].is_null() && items(object, "/metadata/finalizers").is_empty()
        };
        if self.get(key).is_some_and(done) {
            self.remove(key);
        }
    }

    /// The containers of a pod that is being deleted have ended: it goes once nothing holds it any more.
    pub(super) fn end_pod(&mut self, key: &Key) {
        self.edit(key, |pod| pod["metadata"]["deletionGracePeriodSeconds"] = 0.into());
        self.drop_if_done(key);
    }

    pub(super) fn delete(&mut self, kind: &'static Kind, key: &Key, how: &Deletion) -> Result<Value, Refusal> {
        let object = Arc::clone(self.get(key).ok_or_else(|| Refusal::not_found(kind, &key.name))?);
        let held = |path: &str, wanted: &str| !wanted.is_empty() && text(&object, path) != wanted;
        if held("/metadata/uid", &how.uid) || held("/metadata/resourceVersion", &how.version) {
            let message = format!("Precondition failed for {} \"{}\"", kind.resource(), key.name);
            return Err(Refusal::new(409, message));
        }
        let done = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": key.name, "group": kind.group, "kind": kind.plural, "uid": object["metadata"]["uid"]},
        });
        if how.dry_run {
            return Ok(done);
        }
        let uid = text(&object, "/metadata/uid").to_owned();
        let dependents: Vec<Key> = self
            .everything()
            .filter(|(_, object)| items(object, "/metadata/ownerReferences").iter().any(|owner| owner["uid"] == uid))
            .map(|(key, _)| key.clone())
            .collect();
        if how.propagation == "Orphan" {
            for dependent in &dependents {
                self.edit(dependent, |object| {
                    if let Some(Value::Array(owners)) = object.pointer_mut("/metadata/ownerReferences") {
                        owners.retain(|owner| owner["uid"] != uid);
                    }
                });
            }
        }
        let foreground = how.propagation == "Foreground" && !dependents.is_empty();
        let grace = match key.kind {
            "Pod" if text(&object, "/spec/nodeName").is_empty() => 0,
            // What has ended has nothing to say goodbye to.
            "Pod" if matches!(text(&object, "/status/phase"), "Failed" | "Succeeded") => 0,
            "Pod" => how.grace.or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30),
            _ => 0,
        };
        let waits = foreground || !items(&object, "/metadata/finalizers").is_empty() || key.kind == "Namespace";
        if grace == 0 && !waits {
            self.remove(key);
            return Ok(done);
        }
        self.edit(key, |object| {
            let metadata = &mut object["metadata"];
            if metadata["deletionTimestamp"].is_null() {
                metadata["deletionTimestamp"] = time::now().into();
                metadata["deletionGracePeriodSeconds"] = grace.into();
            }
            if foreground {
                metadata["finalizers"] = json!(["foregroundDeletion"]);
            }
            if key.kind == "Namespace" {
                object["status"]["phase"] = "Terminating".into();
            }
        });
        Ok(self.get(key).map_or(done, |object| (**object).clone()))
    }
}

/// What is stored when `object` is sent for what was `before`: what the API server keeps is kept.
fn settle(kind: &Kind, key: &Key, before: &Value, mut object: Value, options: &Options) -> Result<Value, Refusal> {
    let given = text(&object, "/metadata/resourceVersion");
    if !given.is_empty() && given != text(before, "/metadata/resourceVersion") {
        return Err(Refusal::changed(kind, &key.name));
    }
    let given = text(&object, "/metadata/uid");
    if !given.is_empty() && given != text(before, "/metadata/uid") {
        return Err(Refusal::changed(kind, &key.name));
    }
    if options.writer.subresource == "status" {
        let status = object["status"].take();
        object = before.clone();
        object["status"] = status;
    } else if kind.has_status && !before["status"].is_null() {
        object["status"] = before["status"].clone();
    }
    for field in [
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
        "managedFields",
    ] {
        match before["metadata"].get(field) {
            Some(value) => object["metadata"][field] = value.clone(),
            None => {
                if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
                    metadata.remove(field);
                }
            }
        }
    }
    if kind.name == "Service" && object["spec"]["clusterIP"].is_null() {
        object["spec"]["clusterIP"] = before["spec"]["clusterIP"].clone();
    }
    defaults::fill(kind, &mut object);
    validate::check(kind, &object, Some(before))?;
    let spec_changed = object["spec"] != before["spec"]
        || (kind.name == "Deployment" && object["metadata"]["annotations"] != before["metadata"]["annotations"]);
    if kind.has_generation && spec_changed {
        object["metadata"]["generation"] = (before["metadata"]["generation"].as_i64().unwrap_or(0) + 1).into();
    }
    Ok(object)
}

/// A new identifier.
pub(super) fn uid() -> String {
    let (high, low) = (super::address::random(), super::address::random());
    let text = format!("{high:016x}{low:016x}");
    format!("{}-{}-4{}-a{}-{}", &text[..8], &text[8..12], &text[13..16], &text[17..20], &text[20..])
}

/// Five characters that make a name unique.
pub(super) fn suffix(number: u64) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rest = number.wrapping_mul(2_654_435_761).wrapping_add(7_919);
    let base = LETTERS.len() as u64;
    (0..5)
        .map(|_| {
            let at = usize::try_from(rest % base).unwrap_or_default();
            rest /= base;
            char::from(LETTERS[at])
        })
        .collect()
}
