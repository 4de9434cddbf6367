//! Custom resources as they come and go: one task follows the CustomResourceDefinitions, decides about their names, serves
//! what is established, and deletes the instances of what is being deleted (upstream's naming, establishing, finalizing and
//! registration controllers).

use crate::cache::Cache;
use crate::catalog::Members;
use crate::conversion::Conversion;
use crate::served::{Served, Strategy};
use crate::server::Server;
use crate::user::{MASTERS, User};
use canopus_api::{DeleteOptions, Gvr, ListOptions, Object, Result, Status, Target, Value, View, WriteOptions, json};
use canopus_resources::apiextensions::conditions::{self, Claims, FINALIZER};
use canopus_resources::custom::CustomResource;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::JoinHandle;

/// When to try again what has failed, and whether instances that wait for their finalizers are gone.
const AGAIN: Duration = Duration::from_secs(1);

fn definitions() -> Gvr {
    Gvr::new("apiextensions.k8s.io", "v1", "customresourcedefinitions")
}

/// Serves what is established already, and starts the task that follows.
pub async fn start(server: &Arc<Server>) -> Result<()> {
    let Ok(cache) = server.served(&definitions()).and_then(|served| served.cache().cloned()) else { return Ok(()) };
    cache.reached(server.store.revision()).await?;
    let mut keeper = Keeper { user: User::new("system:apiserver", &[MASTERS]), cache, installed: HashMap::new() };
    keeper.pass(server).await;
    tokio::spawn(follow(Arc::downgrade(server), server.closing.clone(), keeper));
    Ok(())
}

async fn follow(server: Weak<Server>, closing: tokio_util::sync::CancellationToken, mut keeper: Keeper) {
    loop {
        // What is there now comes first, so nothing is missed in between.
        let Ok(mut subscription) = keeper.cache.subscribe("", &ListOptions::default(), None) else { return };
        loop {
            let Some(strong) = server.upgrade() else { return };
            let again = keeper.pass(&strong).await;
            drop(strong);
            let wait = if again { AGAIN } else { Duration::MAX };
            let event = tokio::select! {
                () = closing.cancelled() => return,
                event = tokio::time::timeout(wait, subscription.events.recv()) => event,
            };
            match event {
                // Too slow: look at everything again.
                Ok(None) => break,
                Ok(Some(_)) => while subscription.events.try_recv().is_ok() {},
                Err(_) => {}
            }
        }
    }
}

struct Keeper {
    user: Arc<User>,
    cache: Arc<Cache>,
    installed: HashMap<String, Installed>,
}

/// What is served of a definition.
struct Installed {
    fingerprint: String,
    gvrs: Vec<Gvr>,
    prefix: String,
    selectable: Vec<String>,
    cache: Arc<Cache>,
    /// The version that is stored, be it served or not.
    stored: Arc<Served>,
    /// The deletion of the instances, while a webhook may keep it waiting.
    deletion: Option<JoinHandle<Result<usize>>>,
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Some(deletion) = &self.deletion {
            deletion.abort();
        }
    }
}

impl Keeper {
    /// Brings everything to where it should be. Answers whether something is left to be done later.
    async fn pass(&mut self, server: &Arc<Server>) -> bool {
        let mut all: BTreeMap<String, Arc<Object>> = BTreeMap::new();
        for object in self.cache.list("") {
            all.insert(object.name().to_string(), object);
        }
        let mut later = false;
        self.uninstall(server, |name| !all.contains_key(name)).await;
        let mut values: BTreeMap<String, Arc<Value>> = all.iter().map(|(k, o)| (k.clone(), o.value())).collect();
        for (name, object) in &all {
            match self.settle(server, object, &values).await {
                Ok((value, waits)) => {
                    values.insert(name.clone(), value);
                    later |= waits;
                }
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                Err(error) => {
                    tracing::warn!(%error, name, "a custom resource definition is not served as it should be");
                    later = true;
                }
            }
        }
        later
    }

    async fn uninstall(&mut self, server: &Server, gone: impl Fn(&str) -> bool) {
        let mut gvrs = Vec::new();
        let names: Vec<String> = self.installed.keys().filter(|name| gone(name)).cloned().collect();
        for installed in names.iter().filter_map(|name| self.installed.remove(name)) {
            // Who watches is told of everything that went.
            let _ = installed.cache.reached(server.store.revision()).await;
            gvrs.extend(installed.gvrs.iter().cloned());
        }
        if !gvrs.is_empty() {
            server.catalog.change(|members| gvrs.iter().for_each(|gvr| drop(members.served.remove(gvr))));
        }
    }

    /// One definition. Answers what it is now, and whether to come back.
    async fn settle(
        &mut self,
        server: &Arc<Server>,
        object: &Arc<Object>,
        all: &BTreeMap<String, Arc<Value>>,
    ) -> Result<(Arc<Value>, bool)> {
        let now = server.surroundings.now();
        let before = object.value();
        let mut value = (*before).clone();
        let claims = Claims::of(all.values().map(|v| &**v), value["spec"]["group"].str());
        conditions::accept_names(&mut value, &claims, now);
        if conditions::protected(value["spec"]["group"].str()) {
            let (status, reason, message) = conditions::approval(&value);
            let old = conditions::condition(&value, "KubernetesAPIApprovalPolicyConformant");
            if old.is_none_or(|old| old["reason"].str() != reason) {
                conditions::set(&mut value, "KubernetesAPIApprovalPolicyConformant", status, reason, &message, now);
            }
        }
        let accepted = conditions::is_true(&value, "NamesAccepted");
        if accepted && !conditions::is_true(&value, "Established") {
            let message = "the initial names have been accepted";
            conditions::set(&mut value, "Established", "True", "InitialNamesAccepted", message, now);
        }
        // Served before anybody is told so.
        if accepted || conditions::is_true(&value, "Established") {
            self.install(server, object, &value).await?;
        }
        let mut current = before.clone();
        if value["status"] != before["status"] {
            current = self.write_status(server, value).await?;
        }
        if current["metadata"]["deletionTimestamp"].is_null() || !has_finalizer(&current) {
            return Ok((current, false));
        }
        self.finalize(server, current).await
    }

    fn options() -> WriteOptions {
        WriteOptions { field_manager: "kube-apiserver".into(), ..WriteOptions::default() }
    }

    async fn write_status(&self, server: &Arc<Server>, value: Value) -> Result<Arc<Value>> {
        let target = Target::new(&definitions(), "", value["metadata"]["name"].str()).subresource("status");
        Ok(server.update(&self.user, &target, value, &Keeper::options()).await?.object.value())
    }

    /// Serves the versions that the definition says, in place of what was served of it before.
    async fn install(&mut self, server: &Arc<Server>, object: &Arc<Object>, value: &Value) -> Result<()> {
        let name = object.name().to_string();
        let terminating = conditions::is_true(value, "Terminating");
        let names = json::to_string(&value["status"]["acceptedNames"]);
        let generation = object.facts.generation;
        let fingerprint = format!("{}/{generation}/{names}", object.facts.uid);
        if let Some(installed) = self.installed.get(&name).filter(|i| i.fingerprint == fingerprint || terminating) {
            for gvr in &installed.gvrs {
                server.served(gvr)?.terminating.store(terminating, Ordering::Release);
            }
            return Ok(());
        }
        let definition = Arc::new(Object::from_value(value.clone(), &[], object.revision));
        let versions = value["spec"]["versions"].items();
        let strategies: Vec<Arc<CustomResource>> =
            (0..versions.len()).map(|at| Arc::new(CustomResource::new(definition.clone(), at))).collect();
        let storage = versions.iter().position(|v| v["storage"].bool()).unwrap_or(0);
        let Some(stored) = strategies.get(storage).cloned() else { return Ok(()) };
        let prefix = format!("/registry/{}/{}/", value["spec"]["group"].str(), value["spec"]["names"]["plural"].str());
        let selectable = stored.stored_fields().to_vec();
        let known = self.installed.get(&name).filter(|i| i.prefix == prefix && i.selectable == selectable);
        let cache = match known {
            Some(installed) => installed.cache.clone(),
            None => {
                let strategy = Strategy::Custom(stored.clone());
                let cache = Cache::start(&server.store, &prefix, strategy).await.map_err(crate::storage::status)?;
                cache.reached(server.store.revision()).await?;
                cache
            }
        };
        let conversion = Arc::new(Conversion::of(server, value, strategies.clone()));
        let of = |strategy| {
            let (stored, cache, conversion) = (stored.clone(), cache.clone(), conversion.clone());
            Arc::new(Served::custom(strategy, stored, prefix.clone(), cache, fingerprint.clone(), conversion))
        };
        let served = versions.iter().zip(strategies).filter(|(v, _)| v["served"].bool()).map(|(_, s)| of(s));
        let served: Vec<Arc<Served>> = served.collect();
        let gvrs: Vec<Gvr> = served.iter().map(|s| s.info().gvr()).collect();
        let as_stored = served.iter().find(|served| served.info().storage.is_none()).cloned();
        let as_stored = as_stored.unwrap_or_else(|| of(stored.clone()));
        let old = self.installed.remove(&name).map(|i| i.gvrs.clone()).unwrap_or_default();
        server.catalog.change(|members: &mut Members| {
            old.iter().for_each(|gvr| drop(members.served.remove(gvr)));
            for served in served {
                // What the program itself serves stays.
                members.served.entry(served.info().gvr()).or_insert(served);
            }
        });
        let installed = Installed { fingerprint, gvrs, prefix, selectable, cache, stored: as_stored, deletion: None };
        self.installed.insert(name, installed);
        Ok(())
    }

    /// Deletes the instances of a definition, then lets it go.
    async fn finalize(&mut self, server: &Arc<Server>, value: Arc<Value>) -> Result<(Arc<Value>, bool)> {
        let now = server.surroundings.now();
        let mut value = (*value).clone();
        let name = value["metadata"]["name"].str().to_string();
        let waits = match self.delete_instances(server, &name).await.transpose() {
            // It says how it went when it is done.
            None => return Ok((Arc::new(value), true)),
            Some(Ok(0)) => None,
            Some(Ok(_)) => Some(("InstanceDeletionInProgress", "CustomResource deletion is in progress".into())),
            Some(Err(error)) => Some(("InstanceDeletionFailed", error.message)),
        };
        if let Some((reason, message)) = waits {
            conditions::set(&mut value, "Terminating", "True", reason, &message, now);
            return Ok((self.write_status(server, value).await?, true));
        }
        let done = "removed all instances";
        conditions::set(&mut value, "Terminating", "False", "InstanceDeletionCompleted", done, now);
        let finalizers = value.obj_mut("metadata").entry("finalizers", || Value::Array(Vec::new())).ensure_array();
        finalizers.retain(|f| f.str() != FINALIZER);
        let gone = finalizers.is_empty();
        let value = self.write_status(server, value).await?;
        if gone {
            self.uninstall(server, |other| other == name).await;
        }
        Ok((value, false))
    }

    /// How many instances are left; None while that takes its time.
    async fn delete_instances(&mut self, server: &Arc<Server>, name: &str) -> Result<Option<usize>> {
        let Some(installed) = self.installed.get_mut(name) else { return Ok(Some(0)) };
        if !installed.stored.asks_webhook() {
            return delete_instances(server, &installed.stored).await.map(Some);
        }
        match installed.deletion.take() {
            Some(deletion) if deletion.is_finished() => {
                deletion.await.unwrap_or_else(|panicked| Err(Status::internal(panicked))).map(Some)
            }
            begun => {
                // Other definitions don't wait for a webhook.
                let (server, stored) = (server.clone(), installed.stored.clone());
                let begin = || tokio::spawn(async move { delete_instances(&server, &stored).await });
                installed.deletion = Some(begun.unwrap_or_else(begin));
                Ok(None)
            }
        }
    }
}

/// Deletes the instances of a definition, past admission as upstream. Answers how many are left.
async fn delete_instances(server: &Arc<Server>, stored: &Arc<Served>) -> Result<usize> {
    let cache = stored.cache()?;
    cache.reached(server.newest().await?).await?;
    let (found, _) = cache.snapshot("", &ListOptions::default());
    let failed = |why: &str, message: &str| Status::new(500, "", format!("could not {why}: {message}"));
    let found = stored.present_all(found).await.map_err(|error| failed("list instances", &error.message))?;
    let mut errors: Vec<String> = Vec::new();
    for object in found.iter().filter(|object| !object.facts.deleting) {
        match server.delete_admitted(stored, object, &DeleteOptions::default()).await {
            // Somebody else was faster: the next pass sees.
            Err(error) if !error.is_not_found() && !error.is_conflict() => errors.push(error.message),
            _ => {}
        }
    }
    match errors.as_slice() {
        [] => {}
        [one] => return Err(failed("issue all deletes", one)),
        many => return Err(failed("issue all deletes", &format!("[{}]", many.join(", ")))),
    }
    cache.reached(server.newest().await?).await?;
    Ok(cache.len())
}

fn has_finalizer(value: &Value) -> bool {
    value["metadata"]["finalizers"].items().iter().any(|f| f.str() == FINALIZER)
}
