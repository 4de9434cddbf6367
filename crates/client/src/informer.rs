//! Local views of resources: list once, then follow the watch; one per resource and process, shared by all who need it.

use canopus_api::{Api, Gvr, ListOptions, Object, Status, Target, View, WatchEvent};
use compact_str::CompactString;
use futures::StreamExt;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeSet, HashMap};
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

/// By namespace ("" of what has none) and name: most of them short enough to be compared without following a pointer.
type Key = (CompactString, CompactString);

#[derive(Default)]
struct Objects {
    by_namespace: HashMap<CompactString, HashMap<CompactString, Arc<Object>>>,
    /// By the owner's uid, in order. Those that nobody controls are under "".
    by_owner: HashMap<CompactString, BTreeSet<Key>>,
    count: usize,
}

fn key(object: &Object) -> Key {
    (object.facts.namespace.clone(), object.facts.name.clone())
}

/// Under which uids of owners an object is found.
fn owners(object: &Object) -> impl Iterator<Item = &CompactString> {
    const NOBODY: &CompactString = &CompactString::const_new("");
    let free = object.facts.controller.is_none().then_some(NOBODY);
    object.facts.owners.iter().chain(free)
}

impl Objects {
    fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.by_namespace.get(namespace)?.get(name)
    }

    fn put(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        let (namespace, name) = key(&object);
        let old = self.by_namespace.entry(namespace).or_default().insert(name, object.clone());
        self.count += usize::from(old.is_none());
        // Most changes leave the owners alone.
        if old.as_ref().is_some_and(|old| owners(old).eq(owners(&object))) {
            return old;
        }
        if let Some(old) = &old {
            self.disown(old);
        }
        for owner in owners(&object) {
            self.by_owner.entry(owner.clone()).or_default().insert(key(&object));
        }
        old
    }

    fn remove(&mut self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let objects = self.by_namespace.get_mut(namespace)?;
        let old = objects.remove(name)?;
        if objects.is_empty() {
            self.by_namespace.remove(namespace);
        }
        self.count -= 1;
        self.disown(&old);
        Some(old)
    }

    fn disown(&mut self, object: &Object) {
        for owner in owners(object) {
            if let Some(owned) = self.by_owner.get_mut(owner) {
                owned.remove(&key(object));
                if owned.is_empty() {
                    self.by_owner.remove(owner);
                }
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.by_namespace.values().flat_map(HashMap::values)
    }

    fn owned_by<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        let keys = self.by_owner.get(uid).into_iter().flatten();
        keys.filter_map(|(namespace, name)| self.get(namespace, name))
    }
}

/// In the order of their names, within that of their namespaces.
fn sorted<'a>(objects: impl Iterator<Item = &'a Arc<Object>>) -> Vec<Arc<Object>> {
    let mut sorted: Vec<_> = objects.cloned().collect();
    sorted.sort_unstable_by(|a, b| (&a.facts.namespace, &a.facts.name).cmp(&(&b.facts.namespace, &b.facts.name)));
    sorted
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
        for object in self.objects.read().all() {
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
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        self.get(namespace, name)
    }

    /// The objects that name `uid` as an owner.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<Object>> {
        self.objects.read().owned_by(uid).cloned().collect()
    }

    /// Whether one of them is such.
    pub fn any_owned_by(&self, uid: &str, such: impl FnMut(&Arc<Object>) -> bool) -> bool {
        self.objects.read().owned_by(uid).any(such)
    }

    /// The objects of a namespace that have no controller.
    pub fn orphans(&self, namespace: &str) -> Vec<Arc<Object>> {
        let objects = self.objects.read();
        let first = (CompactString::from(namespace), CompactString::default());
        let Some(free) = objects.by_owner.get("") else { return Vec::new() };
        let here = free.range(first..).take_while(|(other, _)| other == namespace);
        here.filter_map(|(namespace, name)| objects.get(namespace, name).cloned()).collect()
    }

    pub fn len(&self) -> usize {
        self.objects.read().count
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
        let mut gone: BTreeSet<Key> = self.objects.read().all().map(|object| key(object)).collect();
        for object in items {
            gone.remove(&key(&object));
            let old = self.objects.write().put(object.clone());
            if old.as_ref().is_none_or(|o| o.revision != object.revision) {
                tell(&handlers, &Change { old: old.as_ref(), new: Some(&object), told: old.as_ref() });
            }
        }
        for (namespace, name) in gone {
            let old = self.objects.write().remove(&namespace, &name);
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
                let told = self.objects.write().remove(&object.facts.namespace, &object.facts.name);
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

impl View for Informer {
    fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.objects.read().get(namespace, name).cloned()
    }

    fn list(&self, namespace: &str) -> Vec<Arc<Object>> {
        let objects = self.objects.read();
        match namespace {
            "" => sorted(objects.all()),
            _ => sorted(objects.by_namespace.get(namespace).into_iter().flat_map(HashMap::values)),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    fn object(namespace: &str, name: &str, revision: u64, owners: &[&str]) -> Arc<Object> {
        let references: Vec<_> = owners.iter().map(|uid| value!({"uid": *uid, "controller": true})).collect();
        let metadata = value!({"namespace": namespace, "name": name, "ownerReferences": references});
        let value = value!({ "metadata": metadata });
        Arc::new(Object::from_value(value, &[], revision))
    }

    fn names<'a>(objects: impl IntoIterator<Item = &'a Arc<Object>>) -> Vec<String> {
        objects.into_iter().map(|o| o.key().to_string()).collect()
    }

    #[test]
    fn objects_are_found_by_owner_and_namespace() {
        let mut objects = Objects::default();
        for name in ["b/two", "b/one", "a-b/three", "a/four"] {
            let (namespace, name) = name.split_once('/').unwrap();
            assert!(objects.put(object(namespace, name, 1, &["x"])).is_none());
        }
        assert_eq!(names(&sorted(objects.all())), ["a/four", "a-b/three", "b/one", "b/two"]);
        assert_eq!(names(objects.owned_by("x")), ["a/four", "a-b/three", "b/one", "b/two"]);

        // The same owners, another one, and none.
        assert_eq!(objects.put(object("b", "one", 2, &["x"])).unwrap().revision, 1);
        assert_eq!(objects.put(object("b", "one", 3, &["y"])).unwrap().revision, 2);
        assert_eq!(names(objects.owned_by("y")), ["b/one"]);
        assert_eq!(objects.owned_by("y").next().unwrap().revision, 3);
        objects.put(object("b", "two", 4, &[]));
        assert_eq!(names(objects.owned_by("x")), ["a/four", "a-b/three"]);
        assert_eq!(names(objects.owned_by("")), ["b/two"]);
        assert_eq!(objects.count, 4);

        for (namespace, name) in [("a", "four"), ("a-b", "three"), ("b", "one"), ("b", "two"), ("b", "two")] {
            objects.remove(namespace, name);
        }
        assert!(objects.count == 0 && objects.by_namespace.is_empty() && objects.by_owner.is_empty());
    }
}
