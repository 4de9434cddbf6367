//! What is served right now: built-in and custom resources, and group versions that other servers answer for. Whoever
//! needs it takes a [`Table`], which never changes; a change puts another one in its place. What is derived from a table
//! (discovery, the index of OpenAPI) is made when first asked for and kept with it.

use crate::discovery::Discovery;
use crate::openapi::OpenApi;
use crate::served::Served;
use canopus_api::{Gvr, Result, Status, Value};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;

/// The current [`Table`].
pub struct Catalog {
    current: RwLock<Arc<Table>>,
    /// Held while the next table is made.
    change: Mutex<()>,
    /// What is remembered across tables.
    openapi: Arc<OpenApi>,
    /// The current table's version.
    changes: watch::Sender<u64>,
}

/// What a table is made of.
#[derive(Clone, Default)]
pub struct Members {
    pub served: HashMap<Gvr, Arc<Served>>,
    /// Group versions that other servers answer for (APIServices), by group and version.
    pub delegated: BTreeMap<(String, String), Arc<Delegated>>,
    /// Whether what is served is served as CBOR too.
    pub cbor: bool,
}

/// A group version of another server's, as discovery tells of it.
pub struct Delegated {
    /// Groups with a higher one come first (`groupPriorityMinimum`), within them versions with a higher one.
    pub priority: (i32, i32),
    /// An `APIVersionDiscovery` of `apidiscovery.k8s.io/v2`: version, freshness, resources.
    pub discovery: Value,
    /// Where its OpenAPI v3 document is, as it says itself: a path with a hash.
    pub openapi: Option<String>,
}

/// Everything served at one moment.
pub struct Table {
    /// Grows with each change.
    pub version: u64,
    pub members: Members,
    discovery: OnceLock<Discovery>,
    openapi: Arc<OpenApi>,
}

/// A group and its versions, the preferred one first.
pub struct Group<'a> {
    pub name: &'a str,
    pub versions: Vec<Version<'a>>,
}

pub struct Version<'a> {
    pub name: &'a str,
    /// Sorted by plural name. Empty for a delegated version.
    pub resources: Vec<&'a Arc<Served>>,
    pub delegated: Option<&'a Delegated>,
}

/// Upstream's priorities of its own groups; those of custom resources get [`CUSTOM`].
const PRIORITIES: &[(&str, i32)] = &[
    ("", 18000),
    ("apps", 17800),
    ("events.k8s.io", 17750),
    ("authentication.k8s.io", 17700),
    ("authorization.k8s.io", 17600),
    ("autoscaling", 17500),
    ("batch", 17400),
    ("certificates.k8s.io", 17300),
    ("networking.k8s.io", 17200),
    ("policy", 17100),
    ("rbac.authorization.k8s.io", 17000),
    ("storage.k8s.io", 16800),
    ("apiextensions.k8s.io", 16700),
    ("admissionregistration.k8s.io", 16700),
    ("scheduling.k8s.io", 16600),
    ("coordination.k8s.io", 16500),
    ("node.k8s.io", 16300),
    ("discovery.k8s.io", 16200),
    ("resource.k8s.io", 16200),
    ("flowcontrol.apiserver.k8s.io", 16100),
    ("internal.apiserver.k8s.io", 16000),
    ("storagemigration.k8s.io", 15800),
    ("apiregistration.k8s.io", 20000),
];
const CUSTOM: i32 = 1000;

impl Default for Catalog {
    fn default() -> Catalog {
        Catalog::new(Members::default())
    }
}

impl Catalog {
    pub fn new(members: Members) -> Catalog {
        let openapi = Arc::new(OpenApi::default());
        let table = Table { version: 1, members, discovery: OnceLock::new(), openapi: openapi.clone() };
        Catalog {
            current: RwLock::new(Arc::new(table)),
            change: Mutex::new(()),
            openapi,
            changes: watch::Sender::new(1),
        }
    }

    pub fn table(&self) -> Arc<Table> {
        self.current.read().clone()
    }

    pub fn served(&self, gvr: &Gvr) -> Option<Arc<Served>> {
        self.current.read().members.served.get(gvr).cloned()
    }

    /// Tells of each new table by its version.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Puts a changed table in the current one's place. Resources that are no longer in it tell their watchers.
    pub fn change(&self, change: impl FnOnce(&mut Members)) {
        let _one_at_a_time = self.change.lock();
        let old = self.table();
        let mut members = old.members.clone();
        change(&mut members);
        let table =
            Table { version: old.version + 1, members, discovery: OnceLock::new(), openapi: self.openapi.clone() };
        let table = Arc::new(table);
        *self.current.write() = table.clone();
        self.changes.send_replace(table.version);
        for (gvr, served) in &old.members.served {
            if !table.members.served.get(gvr).is_some_and(|now| Arc::ptr_eq(now, served)) {
                served.gone.cancel();
            }
        }
    }
}

impl Table {
    pub fn served(&self, gvr: &Gvr) -> Result<&Arc<Served>> {
        self.members.served.get(gvr).ok_or_else(Status::no_such_resource)
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.members.served.values()
    }

    /// Each resource that is stored, once: in the version that is stored, or in another if that one is not served.
    pub fn stored(&self) -> Vec<&Arc<Served>> {
        let mut found: BTreeMap<&str, &Arc<Served>> = BTreeMap::new();
        for served in self.all().filter(|s| s.info().stored) {
            let known = found.entry(&served.prefix).or_insert(served);
            let better = |s: &Served| (s.info().storage.is_none(), s.info().version.to_string());
            if better(served) > better(known) {
                *known = served;
            }
        }
        found.into_values().collect()
    }

    pub fn discovery(&self) -> &Discovery {
        self.discovery.get_or_init(|| Discovery::of(&self.groups()))
    }

    pub fn openapi(&self) -> &OpenApi {
        &self.openapi
    }

    /// All groups in the order discovery lists them: by priority, then by name.
    pub fn groups(&self) -> Vec<Group<'_>> {
        let mut found: BTreeMap<&str, BTreeMap<&str, Version>> = BTreeMap::new();
        let version = |name| Version { name, resources: Vec::new(), delegated: None };
        for served in self.all() {
            let info = served.info();
            let versions = found.entry(info.group).or_default();
            versions.entry(info.version).or_insert_with(|| version(info.version)).resources.push(served);
        }
        for ((group, name), delegated) in &self.members.delegated {
            let versions = found.entry(group).or_default();
            versions.entry(name).or_insert_with(|| version(name)).delegated = Some(delegated);
        }
        let mut groups: Vec<Group> = found.into_iter().map(|(name, versions)| group(name, versions)).collect();
        groups.sort_by_key(|group| std::cmp::Reverse(priority(group)));
        groups
    }
}

fn group<'a>(name: &'a str, versions: BTreeMap<&'a str, Version<'a>>) -> Group<'a> {
    let mut versions: Vec<Version> = versions.into_values().collect();
    versions.sort_by(|a, b| {
        let priority = |v: &Version| v.delegated.map_or(0, |d| d.priority.1);
        priority(b).cmp(&priority(a)).then_with(|| canopus_api::names::compare_versions(b.name, a.name))
    });
    for version in &mut versions {
        version.resources.sort_by(|a, b| a.info().plural.cmp(b.info().plural));
    }
    Group { name, versions }
}

fn priority(group: &Group) -> i32 {
    let known = PRIORITIES.iter().find(|(name, _)| *name == group.name).map(|(_, priority)| *priority);
    let delegated = group.versions.iter().filter_map(|v| v.delegated).map(|d| d.priority.0).max();
    known.or(delegated).unwrap_or(CUSTOM)
}
