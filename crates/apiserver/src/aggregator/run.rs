//! The one task behind aggregation. It waits for APIServices and for what is served to change; only while there are
//! extension servers does it wake up by itself, to look after them.

use super::availability::{check, status_with};
use super::registration::{AUTOMANAGED, built_in, custom};
use super::{Remote, discovery};
use crate::cache::Cache;
use crate::catalog::Delegated;
use crate::served::Strategy;
use crate::server::Server;
use crate::user::{MASTERS, User};
use canopus_api::{DeleteOptions, Gvr, ListOptions, Result, Status, Target, Value, View, WriteOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often a server that answers is looked at (upstream's resync).
const REGULARLY: Duration = Duration::from_secs(30);
/// How soon one that does not is looked at again, at first.
const SOON: Duration = Duration::from_millis(500);

/// What has begun once its first pass is through, by the names of upstream's post-start hooks that do the same; and that all
/// APIServices of the server's own are there.
pub const HOOKS: &[&str] = &[
    "poststarthook/start-kube-aggregator-informers",
    "poststarthook/apiservice-status-local-available-controller",
    "poststarthook/apiservice-status-remote-available-controller",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-wait-for-first-sync",
    "poststarthook/apiservice-discovery-controller",
    "poststarthook/kube-apiserver-autoregistration",
    "autoregister-completion",
    "poststarthook/apiservice-openapiv3-controller",
];

/// Runs until `shutdown`.
pub async fn run(server: Arc<Server>, shutdown: CancellationToken) {
    let follow = async {
        loop {
            if let Err(error) = follow(&server).await {
                tracing::warn!(%error, "failed to follow APIServices");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = follow => {}
        () = shutdown.cancelled() => {}
    }
}

/// What is known of an extension server besides its APIService.
struct Health {
    remote: Arc<Remote>,
    due: Instant,
    pause: Duration,
    discovery: Value,
    openapi: Option<String>,
}

/// Ends when it has to begin anew: it fell behind, or a write failed.
async fn follow(server: &Arc<Server>) -> Result<()> {
    let cache = server.cache("apiregistration.k8s.io", "v1", "apiservices")?;
    let mut subscription = cache.subscribe("", &ListOptions::default(), None)?;
    let mut catalog = server.catalog.changes();
    let mut health = BTreeMap::new();
    let mut at_start = true;
    loop {
        catalog.mark_unchanged();
        register(server, &cache, at_start).await?;
        at_start = false;
        let services: Vec<Arc<Value>> = View::list(&*cache, "").iter().map(|o| o.value()).collect();
        server.aggregator.set(services.iter().map(|service| &**service));
        // Extension servers may take their time to answer.
        server.health.finish(HOOKS);
        let next = look_after(server, &mut health).await?;
        tokio::select! {
            event = subscription.events.recv() => {
                if event.is_none() {
                    return Ok(());
                }
                while subscription.events.try_recv().is_ok() {}
            }
            _ = catalog.changed() => {}
            () = until(next) => {}
        }
    }
}

async fn until(next: Option<Instant>) {
    match next {
        Some(next) => tokio::time::sleep_until(next.into()).await,
        None => std::future::pending().await,
    }
}

fn user() -> Arc<User> {
    User::new("system:apiserver", &[MASTERS])
}

fn options() -> WriteOptions {
    WriteOptions { field_manager: "kube-apiserver".into(), ..WriteOptions::default() }
}

fn target(name: &str) -> Target {
    Target::new(&Gvr::new("apiregistration.k8s.io", "v1", "apiservices"), "", name)
}

/// Checks every extension server that is due and tells discovery what they serve. When the next one is due.
async fn look_after(server: &Arc<Server>, health: &mut BTreeMap<String, Health>) -> Result<Option<Instant>> {
    let remotes = server.aggregator.all();
    health.retain(|name, _| remotes.values().any(|remote| remote.name == *name));
    for remote in remotes.values() {
        let now = Instant::now();
        let known = health.entry(remote.name.clone()).or_insert_with(|| Health {
            remote: remote.clone(),
            due: now,
            pause: SOON,
            discovery: discovery::unknown(&remote.version),
            openapi: None,
        });
        if known.remote.to != remote.to {
            (known.due, known.pause) = (now, SOON);
        }
        known.remote = remote.clone();
        if known.due > now {
            continue;
        }
        let found = check(server, remote).await;
        let answers = found.status == "True";
        known.pause = if answers { REGULARLY } else { (known.pause * 2).min(REGULARLY) };
        known.due = Instant::now() + known.pause;
        match discovery::fetch(server, remote).await {
            Ok(discovery) if answers => {
                known.discovery = discovery;
                known.openapi = discovery::openapi(server, remote).await;
            }
            _ => known.discovery.set("freshness", "Stale"),
        }
        say(server, &remote.name, &found).await?;
    }
    publish(server, health);
    Ok(health.values().map(|known| known.due).min())
}

async fn say(server: &Arc<Server>, name: &str, found: &super::availability::Found) -> Result<()> {
    let Ok(object) = server.get(&target(name), None).await else { return Ok(()) };
    let tree = object.value();
    let Some(status) = status_with(&tree["status"], found, server.surroundings.now()) else { return Ok(()) };
    let mut changed = (*tree).clone();
    changed.set("status", status);
    match server.update(&user(), &target(name).subresource("status"), changed, &options()).await {
        // Somebody else was faster: its event leads here again.
        Err(raced) if raced.is_conflict() || raced.is_not_found() => Ok(()),
        done => done.map(|_| ()),
    }
}

/// Puts what extension servers serve into the catalog, if that is news.
fn publish(server: &Arc<Server>, health: &BTreeMap<String, Health>) {
    let wanted: BTreeMap<(String, String), Arc<Delegated>> = health
        .values()
        .map(|known| {
            let key = (known.remote.group.clone(), known.remote.version.clone());
            let (discovery, openapi) = (known.discovery.clone(), known.openapi.clone());
            (key, Arc::new(Delegated { priority: known.remote.priority, discovery, openapi }))
        })
        .collect();
    let table = server.catalog.table();
    let current = &table.members.delegated;
    let same = current.len() == wanted.len()
        && current.iter().zip(&wanted).all(|((a, x), (b, y))| {
            a == b && x.priority == y.priority && x.discovery == y.discovery && x.openapi == y.openapi
        });
    if !same {
        server.catalog.change(|members| members.delegated = wanted);
    }
}

/// Makes the APIServices of what this server itself serves, and unmakes those of what it serves no more.
async fn register(server: &Arc<Server>, cache: &Arc<Cache>, at_start: bool) -> Result<()> {
    let table = server.catalog.table();
    let mut wanted = BTreeMap::new();
    for group in table.groups() {
        for version in group.versions.iter().filter(|v| v.delegated.is_none()) {
            let is_custom = version.resources.iter().all(|s| matches!(s.resource, Strategy::Custom(_)));
            let service =
                if is_custom { Some(custom(group.name, version.name)) } else { built_in(group.name, version.name) };
            wanted.extend(service.map(|s| (s["metadata"]["name"].str().to_string(), s)));
        }
    }
    let mut there = BTreeSet::new();
    for object in View::list(&**cache, "") {
        let managed = object.facts.label(AUTOMANAGED);
        let stale =
            !wanted.contains_key(object.name()) && (managed == Some("true") || at_start && managed == Some("onstart"));
        // Custom groups may still be on their way at start.
        if stale && !(at_start && managed == Some("true")) {
            gone(server.delete(&user(), &target(object.name()), &DeleteOptions::default()).await.map(|_| ()))?;
        } else {
            there.insert(object.name().to_string());
        }
    }
    let is_custom = |service: &Value| service["metadata"]["labels"][AUTOMANAGED].str() == "true";
    let missing =
        wanted.into_iter().filter(|(name, service)| !there.contains(name) && (at_start || is_custom(service)));
    // At once, so that they share their commits.
    let made = missing.map(|(name, service)| async move {
        match server.create(&user(), &target(&name), service, &options()).await {
            Err(there) if there.is_already_exists() => Ok(()),
            done => done.map(|_| ()),
        }
    });
    futures::future::try_join_all(made).await.map(|_| ())
}

fn gone(done: std::result::Result<(), Status>) -> Result<()> {
    match done {
        Err(missing) if missing.is_not_found() => Ok(()),
        done => done,
    }
}
