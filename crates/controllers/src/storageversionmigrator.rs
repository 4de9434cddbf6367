//! Has every object of a resource written again, as StorageVersionMigrations wish (upstream
//! `pkg/controller/storageversionmigrator`, KEP-4192): in the version, and with the key, in which the API server stores it now. One
//! migration of a resource runs at a time; of a custom resource the older stored versions are forgotten when it has succeeded.
//!
//! Upstream's three controllers (runner, resource version, migrator) are steps of one here.

use crate::context::*;
use crate::custom;
use async_trait::async_trait;
use canopus_api::{Api, Gvr, ListOptions, Patch, Status, Target, Time, Value, View, WriteOptions, value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile};
use std::sync::Arc;
use std::time::Duration;

const GROUP: &str = "storagemigration.k8s.io";
const VERSION: &str = "v1beta1";
const PLURAL: &str = "storageversionmigrations";
const NAME: &str = "storage-version-migrator-controller";
/// Who owns what is said about CustomResourceDefinitions.
const RUNNER: &str = "migration-runner-controller";
const FAILED: &str = "StorageVersionMigrationFailed";
/// No namespace is called so: a list of it is empty, and has a revision.
const NO_NAMESPACE: &str = "@fake:svm_ns!";
/// A resource that is not known may have come a moment ago, in microseconds; so often it is looked for meanwhile.
const NEW: i64 = 60_000_000;
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How many objects are listed at a time.
const PAGE: usize = 500;

/// What is to be done next about a migration.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Nothing,
    /// It is its turn.
    Begin,
    /// It is to be found out up to which revision there is something to do.
    Mark,
    Migrate,
    /// It is over: others of the same resource may begin.
    End,
}

fn is(migration: &Value, kind: &str) -> bool {
    condition(&migration["status"], kind)["status"].str() == "True"
}

fn is_over(migration: &Value) -> bool {
    is(migration, "Succeeded") || is(migration, "Failed")
}

/// `others` are those of the same resource.
fn next<'a>(migration: &'a Value, mut others: impl Iterator<Item = &'a Value>) -> Step {
    let age = |m: &'a Value| (m["metadata"]["creationTimestamp"].str(), m["metadata"]["name"].str());
    match (is(migration, "Running"), is_over(migration)) {
        (true, true) => Step::End,
        (false, true) => Step::Nothing,
        (true, false) if migration["status"]["resourceVersion"].str().is_empty() => Step::Mark,
        (true, false) => Step::Migrate,
        (false, false) => {
            let first = |other: &'a Value| is(other, "Running") || age(other) < age(migration);
            if others.any(|other| !is_over(other) && first(other)) { Step::Nothing } else { Step::Begin }
        }
    }
}

/// The status with a condition that is true, unless it is there already.
fn with_condition(status: &Value, kind: &str, reason: &str, message: &str, now: Time) -> Value {
    let mut status = status.clone();
    if condition(&status, kind).is_null() {
        let conditions = status.ensure_object().entry("conditions", || Value::Array(Vec::new())).ensure_array();
        conditions.push(value!({
            "type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now,
        }));
    }
    status
}

/// The status when a migration is over.
fn ended(migration: &Value, now: Time) -> Value {
    let mut status = migration["status"].clone();
    let conditions = status.ensure_object().entry("conditions", || Value::Array(Vec::new())).ensure_array();
    for running in conditions.iter_mut().filter(|c| c["type"].str() == "Running") {
        *running = value!({
            "type": "Running", "status": "False", "reason": "MigrationCompleted", "message": "Migration completed",
            "lastTransitionTime": now, "observedGeneration": &migration["metadata"]["generation"],
        });
    }
    status
}

/// What is said about a CustomResourceDefinition whose resources are being migrated.
fn migrating(definition: &Value, migration: &str, now: Time) -> Value {
    let message = format!("Migration {migration} is running");
    applied(definition, ("True", "MigrationRunning", &message), &[], now)
}

/// What is said about it afterwards, and which versions are left.
fn migrated(definition: &Value, success: bool, now: Time) -> Value {
    let (spec, generation) = (&definition["spec"], &definition["metadata"]["generation"]);
    // Otherwise another version may have been stored meanwhile.
    let same = condition(&definition["status"], "StorageMigrating")["observedGeneration"] == *generation;
    let stored = spec["versions"].items().iter().find(|v| v["storage"].bool()).map(|v| v["name"].str());
    let (reason, message) = match (success, same) {
        (false, _) => ("MigrationFailed", "The migration has failed"),
        (true, true) => ("MigrationSucceeded", "The migration has succeeded and the stored versions have been updated"),
        (true, false) => (
            "MigrationSucceeded",
            "The migration has succeeded but the stored versions have not been updated due to a generation mismatch",
        ),
    };
    let left = stored.filter(|_| same && success);
    applied(definition, ("False", reason, message), left.as_slice(), now)
}

fn applied(definition: &Value, (status, reason, message): (&str, &str, &str), stored: &[&str], now: Time) -> Value {
    let metadata = &definition["metadata"];
    let mut applied = value!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        // Nothing may have changed since it was looked at.
        "metadata": {"name": &metadata["name"], "resourceVersion": &metadata["resourceVersion"]},
        "status": {"conditions": [{
            "type": "StorageMigrating", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": now, "observedGeneration": &metadata["generation"],
        }]},
    });
    if !stored.is_empty() {
        applied.set_path(&["status", "storedVersions"], stored.iter().copied().collect::<Value>());
    }
    applied
}

/// Whether it may be better in a moment.
fn passes(error: &Status) -> bool {
    matches!(error.code, 429 | 500 | 503 | 504)
}

struct Migrator {
    gvr: Gvr,
    api: Arc<dyn Api>,
    migrations: Arc<Informer>,
    definitions: Arc<Informer>,
    context: Arc<Context>,
}

pub(crate) async fn run(context: Arc<Context>) {
    // Off by default: without the API there is nothing to follow.
    if !context.config.resources.iter().any(|r| r.gvr.group == GROUP) {
        return;
    }
    let migrations = context.informer(GROUP, VERSION, PLURAL);
    let definitions = context.informer("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let queue = Arc::new(Queue::default());
    let (changed, view) = (queue.clone(), Arc::downgrade(&migrations));
    migrations.on_change(move |change| {
        let Some(view) = view.upgrade() else { return };
        let own = change.object().value();
        changed.add(change.object().key());
        for other in View::list(&*view, "").iter().filter(|o| o.value()["spec"]["resource"] == own["spec"]["resource"])
        {
            changed.add(other.key());
        }
    });
    let (gvr, api) = (Gvr::new(GROUP, VERSION, PLURAL), context.api(NAME));
    let migrator = Migrator { gvr, api, migrations, definitions, context: context.clone() };
    // Whose turn it is, is decided by one.
    context.work(queue, 1, Arc::new(migrator)).await;
}

#[async_trait]
impl Reconcile for Migrator {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        let Some(migration) = self.migrations.by_key(key).map(|m| m.value()) else { return Ok(Outcome::Done) };
        let all: Vec<Arc<Value>> = self.migrations.list("").iter().map(|m| m.value()).collect();
        let others = all.iter().map(|m| &**m).filter(|m| {
            m["spec"]["resource"] == migration["spec"]["resource"]
                && m["metadata"]["name"] != migration["metadata"]["name"]
        });
        match next(&migration, others) {
            Step::Nothing => Ok(Outcome::Done),
            Step::Begin => self.begin(&migration).await,
            Step::Mark => self.mark(&migration).await,
            Step::Migrate => self.migrate(&migration).await,
            Step::End => self.end(&migration).await,
        }
    }
}

impl Migrator {
    async fn say(&self, migration: &Value, status: Value) -> Result<Outcome, Status> {
        update_status(&*self.api, &self.gvr, &self.migrations, migration, status).await?;
        Ok(Outcome::Done)
    }

    async fn fail(&self, migration: &Value, message: &str) -> Result<Outcome, Status> {
        let status = with_condition(&migration["status"], "Failed", FAILED, message, canopus_client::now());
        self.say(migration, status).await
    }

    async fn begin(&self, migration: &Value) -> Result<Outcome, Status> {
        let now = canopus_client::now();
        self.define(migration, |definition| migrating(definition, migration["metadata"]["name"].str(), now)).await?;
        let status =
            with_condition(&migration["status"], "Running", "MigrationRunning", "The migration is running", now);
        self.say(migration, status).await
    }

    async fn end(&self, migration: &Value) -> Result<Outcome, Status> {
        let now = canopus_client::now();
        self.define(migration, |definition| migrated(definition, is(migration, "Succeeded"), now)).await?;
        self.say(migration, ended(migration, now)).await
    }

    /// Says something about the definition of the resource, if it is a custom one.
    async fn define(&self, migration: &Value, say: impl Fn(&Value) -> Value) -> Result<(), Status> {
        let wanted = &migration["spec"]["resource"];
        let name = format!("{}.{}", wanted["resource"].str(), wanted["group"].str());
        let target = Target::new(&Gvr::new("apiextensions.k8s.io", "v1", "customresourcedefinitions"), "", &name);
        let Some(definition) = gone(self.api.get(&target).await)? else { return Ok(()) };
        let options = WriteOptions { field_manager: RUNNER.into(), force: true, ..writes() };
        let patch = Patch::Apply(say(&definition.value()));
        gone(self.api.patch(&target.subresource("status"), patch, &options).await).map(drop)
    }

    /// The resource that is meant, if it is served.
    fn resource(&self, migration: &Value) -> Option<ResourceInfo> {
        let wanted = &migration["spec"]["resource"];
        let fits = |r: &ResourceInfo| {
            (r.gvr.group.as_str(), r.gvr.resource.as_str()) == (wanted["group"].str(), wanted["resource"].str())
        };
        let built_in = self.context.config.resources.iter().find(|r| fits(r)).cloned();
        built_in.or_else(|| {
            let name = format!("{}.{}", wanted["resource"].str(), wanted["group"].str());
            let definition = self.definitions.by_key(&name)?;
            custom::resource(&definition.value()).filter(fits)
        })
    }

    /// Nobody knows the resource: it may be new, or it is a mistake.
    async fn unknown(&self, migration: &Value) -> Result<Outcome, Status> {
        let made = Time::parse(migration["metadata"]["creationTimestamp"].str()).unwrap_or_default();
        if canopus_client::now().0 < made.0 + NEW {
            return Ok(Outcome::After(LOOK_AGAIN));
        }
        self.fail(migration, "resource does not exist in discovery").await
    }

    async fn mark(&self, migration: &Value) -> Result<Outcome, Status> {
        let Some(resource) = self.resource(migration) else { return self.unknown(migration).await };
        let namespace = if resource.namespaced { NO_NAMESPACE } else { "" };
        let one = ListOptions { limit: 1, ..ListOptions::default() };
        let list = self.api.list(&Target::new(&resource.gvr, namespace, ""), &one).await?;
        let mut status = migration["status"].clone();
        status.set("resourceVersion", list.revision.to_string());
        self.say(migration, status).await
    }

    async fn migrate(&self, migration: &Value) -> Result<Outcome, Status> {
        let Some(resource) = self.resource(migration) else { return self.unknown(migration).await };
        let Ok(upto) = migration["status"]["resourceVersion"].str().parse::<u64>() else {
            return self
                .fail(migration, "migration encountered unhandled error: resource version is not well formed")
                .await;
        };
        match self.rewrite(&resource, upto).await {
            Ok(()) => {
                let now = canopus_client::now();
                let status =
                    with_condition(&migration["status"], "Succeeded", "StorageVersionMigrationSucceeded", "", now);
                self.say(migration, status).await
            }
            Err(error) if passes(&error) => Err(error),
            Err(error) => {
                let message = format!("migration encountered unhandled error: {}", error.message);
                self.fail(migration, &message).await
            }
        }
    }

    /// Has every object written again that nobody has written since.
    async fn rewrite(&self, resource: &ResourceInfo, upto: u64) -> Result<(), Status> {
        let all = Target::new(&resource.gvr, "", "");
        let options = WriteOptions { field_manager: NAME.into(), ..writes() };
        let mut page = ListOptions { limit: PAGE, ..ListOptions::default() };
        loop {
            let list = self.api.list(&all, &page).await?;
            for object in list.items.iter().filter(|object| object.revision <= upto) {
                // It owns nothing and changes nothing; who has changed or replaced the object has written it.
                let nothing = value!({
                    "apiVersion": resource.gvr.api_version(), "kind": resource.kind.as_str(),
                    "metadata": {"uid": object.facts.uid.as_str(), "resourceVersion": object.revision.to_string()},
                });
                let target = Target::new(&resource.gvr, object.namespace(), object.name());
                match self.api.patch(&target, Patch::Apply(nothing), &options).await {
                    Err(error) if !error.is_conflict() && !error.is_not_found() => return Err(error),
                    _ => {}
                }
            }
            if list.continue_token.is_empty() {
                return Ok(());
            }
            page.continue_token = list.continue_token.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(name: &str, made: i64, conditions: &[(&str, &str)]) -> Value {
        let conditions = conditions.iter().map(|(kind, status)| value!({"type": *kind, "status": *status}));
        value!({
            "metadata": {"name": name, "creationTimestamp": Time::from_unix(made), "generation": 1},
            "spec": {"resource": {"resource": "secrets"}},
            "status": {"conditions": conditions.collect::<Value>()},
        })
    }

    #[test]
    fn one_at_a_time() {
        let new = || migration("b", 5, &[]);
        let running = || migration("x", 9, &[("Running", "True")]);
        let mut marked = running();
        marked.set_path(&["status", "resourceVersion"], "7");
        let done = migration("a", 1, &[("Running", "False"), ("Succeeded", "True")]);
        let failed = migration("a", 1, &[("Running", "True"), ("Failed", "True")]);
        for (one, others, expected) in [
            (new(), vec![], Step::Begin),
            (new(), vec![running()], Step::Nothing),
            (new(), vec![failed.clone()], Step::Begin),
            (new(), vec![done.clone(), migration("a", 6, &[])], Step::Begin),
            (new(), vec![migration("z", 4, &[])], Step::Nothing),
            (new(), vec![migration("a", 5, &[])], Step::Nothing),
            (running(), vec![migration("a", 1, &[])], Step::Mark),
            (marked, vec![], Step::Migrate),
            (failed, vec![], Step::End),
            (done, vec![new()], Step::Nothing),
        ] {
            assert_eq!(next(&one, others.iter()), expected, "{one:?} among {others:?}");
        }
    }

    #[test]
    fn what_is_said() {
        let now = Time::from_unix(10);
        let said = with_condition(&value!({}), "Running", "MigrationRunning", "The migration is running", now);
        assert_eq!(condition(&said, "Running")["status"].str(), "True");
        assert_eq!(with_condition(&said, "Running", "x", "y", now), said, "once");
        let over = ended(&migration("a", 1, &[("Running", "True"), ("Succeeded", "True")]), now);
        assert_eq!(condition(&over, "Running")["reason"].str(), "MigrationCompleted");
        assert_eq!(condition(&over, "Succeeded")["status"].str(), "True");
    }

    #[test]
    fn stored_versions_are_forgotten() {
        let mut definition = value!({
            "metadata": {"name": "foos.a.b", "generation": 2, "resourceVersion": "5"},
            "spec": {"versions": [{"name": "v1"}, {"name": "v2", "storage": true}]},
            "status": {"storedVersions": ["v1", "v2"]},
        });
        let now = Time::from_unix(10);
        let begun = migrating(&definition, "m", now);
        assert_eq!(begun["status"]["storedVersions"], Value::Null);
        definition.set_path(&["status", "conditions"], begun["status"]["conditions"].clone());
        assert_eq!(migrated(&definition, true, now)["status"]["storedVersions"], value!(["v2"]));
        assert_eq!(migrated(&definition, false, now)["status"]["storedVersions"], Value::Null);
        definition.set_path(&["metadata", "generation"], 3);
        let changed = migrated(&definition, true, now);
        assert_eq!(changed["status"]["storedVersions"], Value::Null);
        assert!(condition(&changed["status"], "StorageMigrating")["message"].str().contains("generation mismatch"));
    }
}
