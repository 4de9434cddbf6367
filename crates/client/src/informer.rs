//! Local views of resources: list once, then follow the watch; one per resource and process, shared by all who need it.

use canopus_api::{Api, Gvr, ListOptions, Object, Status, Target, View, WatchEvent};
use compact_str::CompactString;
use futures::StreamExt;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What happened to one object: created (no old), deleted (no new) or changed.
pub struct Change<'a> {
    /// The state before; of what is gone, its last state as the server tells it.
    pub old: Option<&'a Arc<Object>>,
    pub new: Option<&'a Arc<Object>>,
    /// The state that was told last, as `new`: what to take back for who keeps counts.
    pub told: Option<&'a Arc<Object>>,
}

impl Change<'_> {
    /// The newest state known.
    pub fn object(&self) -> &Arc<Object> {
        match (self.new, self.old) {
            (Some(object), _) | (None, Some(object)) => object,
            (None, None) => unreachable!("a change has a side"),
        }
    }
}

/// Called for every change, in order, by the task that follows the watch: must be quick and must not block.
pub type Handler = Box<dyn Fn(&Change) + Send + Sync>;

/// A local copy of one resource (of one namespace, or some selection of it).
pub struct Informer {
    objects: RwLock<Objects>,
    handlers: Mutex<Vec<Handler>>,
    /// 0 until the first list is complete.
    revision: watch::Sender<u64>,
}

#[derive(Default)]
struct Objects {
    by_key: BTreeMap<CompactString, Arc<Object>>,
    /// By the owner's uid, and then by key. Those that nobody controls are under "".
    by_owner: HashMap<CompactString, BTreeMap<CompactString, Arc<Object>>>,
}

/// Under which uids of owners an object is found.
fn owners(object: &Object) -> impl Iterator<Item = &CompactString> {
    const NOBODY: &CompactString = &CompactString::const_new("");
    let free = object.facts.controller.is_none().then_some(NOBODY);
    object.facts.owners.iter().chain(free)
}

impl Objects {
    fn put(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        let key = object.key();
        if self.by_key.get(&key).is_some_and(|old| !owners(old).eq(owners(&object))) {
            let old = self.remove(&key);
            self.put(object);
            return old;
        }
        for owner in owners(&object) {
            match self.by_owner.get_mut(owner) {
                Some(owned) => drop(owned.insert(key.clone(), object.clone())),
                None => drop(self.by_owner.insert(owner.clone(), BTreeMap::from([(key.clone(), object.clone())]))),
            }
        }
        self.by_key.insert(key, object)
    }

    fn remove(&mut self, key: &str) -> Option<Arc<Object>> {
        let old = self.by_key.remove(key)?;
        for owner in owners(&old) {
            if let Some(owned) = self.by_owner.get_mut(owner) {
                owned.remove(key);
                if owned.is_empty() {
                    self.by_owner.remove(owner);
                }
            }
        }
        Some(old)
    }
}

impl Informer {
    /// Starts following `target.gvr` in `target.namespace` ("" = all) with the selectors of `options`.
    pub fn start(
        api: Arc<dyn Api>,
        target: Target,
        options: ListOptions,
        shutdown: CancellationToken,
    ) -> Arc<Informer> {
        let informer = Arc::new(Informer {
            objects: RwLock::default(),
            handlers: Mutex::default(),
            revision: watch::Sender::new(0),
        });
        let following = informer.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = following.follow(&*api, &target, &options) => {}
                () = shutdown.cancelled() => {}
            }
        });
        informer
    }

    /// Calls `handler` for everything there is and then for every change.
    pub fn on_change(&self, handler: impl Fn(&Change) + Send + Sync + 'static) {
        let mut handlers = self.handlers.lock();
        for object in self.objects.read().by_key.values() {
            handler(&Change { old: None, new: Some(object), told: None });
        }
        handlers.push(Box::new(handler));
    }

    /// Waits until the first list is complete.
    pub async fn synced(&self) {
        self.reached(1).await;
    }

    /// Waits until this view has seen `revision`: what a controller does after a write of its own.
    pub async fn reached(&self, revision: u64) {
        // The sender lives in self: waiting cannot fail.
        let _ = self.revision.subscribe().wait_for(|seen| *seen >= revision).await;
    }

    pub fn by_key(&self, key: &str) -> Option<Arc<Object>> {
        self.objects.read().by_key.get(key).cloned()
    }

    /// The objects that name `uid` as an owner.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<Object>> {
        let objects = self.objects.read();
        objects.by_owner.get(uid).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// Whether one of them is such.
    pub fn any_owned_by(&self, uid: &str, such: impl FnMut(&Arc<Object>) -> bool) -> bool {
        self.objects.read().by_owner.get(uid).into_iter().flat_map(BTreeMap::values).any(such)
    }

    /// The objects of a namespace that have no controller.
    pub fn orphans(&self, namespace: &str) -> Vec<Arc<Object>> {
        let objects = self.objects.read();
        let free = objects.by_owner.get("").into_iter().flat_map(|owned| owned.range(within(namespace)));
        free.map(|(_, object)| object.clone()).collect()
    }

    pub fn len(&self) -> usize {
        self.objects.read().by_key.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    async fn follow(&self, api: &dyn Api, target: &Target, options: &ListOptions) {
        let mut pause = Duration::from_millis(100);
        loop {
            match self.list_and_watch(api, target, options).await {
                Ok(()) => pause = Duration::from_millis(100),
                Err(error) => {
                    tracing::debug!(%error, resource = %target.gvr.resource, "list and watch failed");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(30));
                }
            }
        }
    }

    /// One list, then watches until one says the list is too old.
    async fn list_and_watch(&self, api: &dyn Api, target: &Target, options: &ListOptions) -> Result<(), Status> {
        let list = api.list(target, options).await?;
        let mut revision = list.revision;
        self.replace(list.items, revision);
        loop {
            let watching = ListOptions { resource_version: Some(revision), bookmarks: true, ..options.clone() };
            let mut events = api.watch(target, &watching).await?;
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => revision = self.apply(event).max(revision),
                    Err(expired) if expired.is_expired() => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Takes over a whole list: what is not in it is gone.
    fn replace(&self, items: Vec<Arc<Object>>, revision: u64) {
        let handlers = self.handlers.lock();
        let mut gone: BTreeSet<CompactString> = self.objects.read().by_key.keys().cloned().collect();
        for object in items {
            gone.remove(&object.key());
            let old = self.objects.write().put(object.clone());
            if old.as_ref().is_none_or(|o| o.revision != object.revision) {
                tell(&handlers, &Change { old: old.as_ref(), new: Some(&object), told: old.as_ref() });
            }
        }
        for key in gone {
            let old = self.objects.write().remove(&key);
            tell(&handlers, &Change { old: old.as_ref(), new: None, told: old.as_ref() });
        }
        drop(handlers);
        self.revision.send_replace(revision.max(1));
    }

    fn apply(&self, event: WatchEvent) -> u64 {
        let handlers = self.handlers.lock();
        let revision = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let old = self.objects.write().put(object.clone());
                tell(&handlers, &Change { old: old.as_ref(), new: Some(&object), told: old.as_ref() });
                object.revision
            }
            WatchEvent::Deleted(object) => {
                let told = self.objects.write().remove(&object.key());
                let old = told.is_some().then_some(&object);
                tell(&handlers, &Change { old, new: None, told: told.as_ref() });
                object.revision
            }
            WatchEvent::Bookmark { revision, .. } => revision,
        };
        drop(handlers);
        self.revision.send_if_modified(|seen| {
            let newer = revision > *seen;
            *seen = revision.max(*seen);
            newer
        });
        revision
    }
}

fn tell(handlers: &[Handler], change: &Change) {
    if change.old.is_some() || change.new.is_some() {
        handlers.iter().for_each(|handler| handler(change));
    }
}

/// The keys of a namespace's objects.
fn within(namespace: &str) -> std::ops::Range<CompactString> {
    compact_str::format_compact!("{namespace}/")..compact_str::format_compact!("{namespace}0")
}

impl View for Informer {
    fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        match namespace {
            "" => self.by_key(name),
            _ => self.by_key(&compact_str::format_compact!("{namespace}/{name}")),
        }
    }

    fn list(&self, namespace: &str) -> Vec<Arc<Object>> {
        let objects = self.objects.read();
        if namespace.is_empty() {
            return objects.by_key.values().cloned().collect();
        }
        objects.by_key.range(within(namespace)).map(|(_, o)| o.clone()).collect()
    }

    fn revision(&self) -> u64 {
        *self.revision.borrow()
    }
}

/// The informers of one process and identity, each started when first asked for.
pub struct Informers {
    api: Arc<dyn Api>,
    shutdown: CancellationToken,
    started: Mutex<HashMap<Gvr, Arc<Informer>>>,
}

impl Informers {
    pub fn new(api: Arc<dyn Api>, shutdown: CancellationToken) -> Arc<Informers> {
        Arc::new(Informers { api, shutdown, started: Mutex::default() })
    }

    pub fn api(&self) -> &Arc<dyn Api> {
        &self.api
    }

    /// The view of all objects of a resource in all namespaces.
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Arc<Informer> {
        let gvr = Gvr::new(group, version, plural);
        let start = || {
            let target = Target::new(&gvr, "", "");
            Informer::start(self.api.clone(), target, ListOptions::default(), self.shutdown.clone())
        };
        self.started.lock().entry(gvr.clone()).or_insert_with(start).clone()
    }
}
