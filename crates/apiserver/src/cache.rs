//! The watch cache of one resource: its newest objects in key order, a window of recent events, and its watchers.
//!
//! Objects are shared with the store's index (one refcounted buffer). A watcher is registered under the namespace, name
//! or node its selectors demand, so that an event costs only the watchers that may want it.

use crate::fresh::Fresh;
use crate::served::Strategy;
use crate::storage;
use canopus_api::{Facts, ListOptions, Object, Status, Value, View};
use canopus_store::{Progress, Store, Version, prefix_end};
use compact_str::CompactString;
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::mpsc;

/// How many events a resource remembers for watches that start in the past.
const WINDOW: usize = 4096;
/// And how many bytes of objects they may hold on to.
const WINDOW_BYTES: usize = 4 << 20;
/// Between two attempts to read everything again.
const RESTART: Duration = Duration::from_millis(200);
/// A watcher that is this many events behind is cut off.
const WATCHER_BUFFER: usize = 2048;
/// So many bytes of the newest objects keep their trees, several times as large, for readers in this process.
const TREES: usize = 512 << 10;
/// And so many during a burst of writes, when the next reader or writer of an object may be a second away.
const BURST_TREES: usize = 32 << 20;
/// How long the trees of a burst are kept.
const BURST: Duration = Duration::from_secs(1);

/// One change: what the object became (None: deleted) and what it was.
#[derive(Debug)]
pub struct CacheEvent {
    pub revision: u64,
    pub object: Option<Arc<Object>>,
    pub previous: Option<Arc<Object>>,
    gone: OnceLock<Arc<Object>>,
}

impl CacheEvent {
    pub fn new(revision: u64, object: Option<Arc<Object>>, previous: Option<Arc<Object>>) -> CacheEvent {
        CacheEvent { revision, object, previous, gone: OnceLock::new() }
    }

    /// What those are sent who no longer see the object: its last state, at this event's revision. One for all of them.
    pub fn gone(&self) -> Option<Arc<Object>> {
        let previous = self.previous.as_ref()?;
        Some(self.gone.get_or_init(|| Arc::new(previous.at_revision(self.revision))).clone())
    }

    /// The bytes it keeps alive: those of what was replaced, which the next event of the object holds too.
    fn size(&self) -> usize {
        self.previous.as_ref().map_or(0, |o| o.body().len())
    }
}

pub struct Cache {
    prefix: String,
    resource: Strategy,
    namespaced: bool,
    state: RwLock<State>,
    lists: Lists,
    progress: RwLock<Progress>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<CompactString, Arc<Object>>,
    window: VecDeque<Arc<CacheEvent>>,
    window_bytes: usize,
    /// Every event after this revision is in the window.
    complete_after: u64,
    revision: u64,
    watchers: Watchers,
    trees: Trees,
    starts: u64,
    initial: u64,
    events: u64,
}

/// Where a watcher's selectors pin it down.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    All,
    Namespace(CompactString),
    /// `namespace/name`, or `name`.
    Object(CompactString),
    /// `spec.nodeName`.
    Node(CompactString),
}

/// A watcher's id and where its events go.
type Watcher = (u64, mpsc::Sender<Arc<CacheEvent>>);

#[derive(Default)]
struct Watchers {
    by_scope: HashMap<Scope, Vec<Watcher>>,
    last_id: u64,
    /// How many were too slow.
    terminated: u64,
}

/// For the metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub objects: u64,
    pub bytes: u64,
    pub revision: u64,
    pub capacity: u64,
    /// How often everything was read, and how many objects there were then.
    pub starts: u64,
    pub initial: u64,
    pub events: u64,
    pub terminated: u64,
    pub lists: u64,
    pub fetched: u64,
    pub returned: u64,
}

/// Counted while others read too.
#[derive(Default)]
struct Lists {
    lists: AtomicU64,
    fetched: AtomicU64,
    returned: AtomicU64,
}

/// What a watch starts with, and where the rest comes from.
pub struct Subscription {
    /// The objects at `revision`, when the watch starts with the current state.
    pub initial: Vec<Arc<Object>>,
    /// Past events, when it starts at a revision.
    pub missed: Vec<Arc<CacheEvent>>,
    pub revision: u64,
    /// Ends when the watcher was too slow.
    pub events: mpsc::Receiver<Arc<CacheEvent>>,
    _guard: Guard,
}

struct Guard {
    cache: Arc<Cache>,
    scope: Scope,
    id: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.cache.state.write().watchers.remove(&self.scope, self.id);
    }
}

impl Watchers {
    fn is_empty(&self) -> bool {
        self.by_scope.is_empty()
    }

    fn add(&mut self, scope: Scope) -> (u64, mpsc::Receiver<Arc<CacheEvent>>) {
        let (sender, receiver) = mpsc::channel(WATCHER_BUFFER);
        self.last_id += 1;
        self.by_scope.entry(scope).or_default().push((self.last_id, sender));
        (self.last_id, receiver)
    }

    fn remove(&mut self, scope: &Scope, id: u64) {
        if let Some(list) = self.by_scope.get_mut(scope) {
            list.retain(|(other, _)| *other != id);
            if list.is_empty() {
                self.by_scope.remove(scope);
            }
        }
    }

    fn dispatch(&mut self, event: &Arc<CacheEvent>) {
        let facts = |o: &Option<Arc<Object>>| o.as_ref().map(|o| o.facts.clone());
        let (new, old) = (facts(&event.object), facts(&event.previous));
        let Some(any) = new.as_ref().or(old.as_ref()) else { return };
        let key = match any.namespace.as_str() {
            "" => any.name.clone(),
            namespace => compact_str::format_compact!("{namespace}/{}", any.name),
        };
        self.send(&Scope::All, event);
        self.send(&Scope::Namespace(any.namespace.clone()), event);
        self.send(&Scope::Object(key), event);
        let node = |f: &Option<Arc<Facts>>| f.as_ref().and_then(|f| f.field("spec.nodeName")).map(CompactString::from);
        let (new_node, old_node) = (node(&new), node(&old));
        if let Some(node) = &old_node {
            self.send(&Scope::Node(node.clone()), event);
        }
        if let Some(node) = new_node.filter(|n| Some(n) != old_node.as_ref()) {
            self.send(&Scope::Node(node), event);
        }
    }

    fn send(&mut self, scope: &Scope, event: &Arc<CacheEvent>) {
        if let Some(list) = self.by_scope.get_mut(scope) {
            let terminated = &mut self.terminated;
            list.retain(|(_, sender)| match sender.try_send(event.clone()) {
                Ok(()) => true,
                Err(why) => {
                    *terminated += u64::from(matches!(why, mpsc::error::TrySendError::Full(_)));
                    false
                }
            });
        }
    }
}

/// The objects that keep their trees, in the order in which they were written.
#[derive(Default)]
struct Trees {
    kept: VecDeque<Weak<Object>>,
    /// Of the objects, not of the trees.
    bytes: usize,
    /// How many there have been.
    count: u64,
    /// Somebody will look whether a burst is over.
    trimming: bool,
}

impl Trees {
    fn keep(&mut self, object: &Arc<Object>, tree: Arc<Value>) {
        object.keep(tree);
        self.bytes += object.body().len();
        self.count += 1;
        self.kept.push_back(Arc::downgrade(object));
        while self.bytes > BURST_TREES || self.kept.front().is_some_and(|o| !o.upgrade().is_some_and(|o| o.keeps())) {
            self.drop_first();
        }
    }

    fn release(&mut self, object: &Object) -> Option<Arc<Value>> {
        let tree = object.release()?;
        self.bytes -= object.body().len();
        Some(tree)
    }

    fn clear(&mut self) {
        while !self.kept.is_empty() {
            self.drop_first();
        }
        self.bytes = 0;
    }

    fn drop_first(&mut self) -> Option<Arc<Value>> {
        let object = self.kept.pop_front()?.upgrade()?;
        self.release(&object)
    }
}

impl State {
    /// Keeps the writer's tree for the watchers that are about to be told, and for the next write of the object.
    fn keep_tree(&mut self, version: &Version, object: &Arc<Object>, previous: Option<&Arc<Object>>) {
        // Taken even if nobody is to be told: it must not stay with the store's events.
        let Some(tree) = fresh(version).and_then(|f| f.take(object.revision)) else { return };
        if let Some(previous) = previous {
            self.trees.release(previous);
        }
        if !self.watchers.is_empty() {
            // As text, in which 2.0 is 2.
            let text = |tree: &Value| canopus_api::json::to_string(tree);
            debug_assert_eq!(text(&object.value()), text(&tree), "a writer's tree is what its bytes say");
            self.trees.keep(object, tree);
        }
    }

    /// Adds an event to the window, and drops what is too old or too much.
    fn remember(&mut self, event: Arc<CacheEvent>) {
        self.window_bytes += event.size();
        self.window.push_back(event);
        while self.window.len() > WINDOW || self.window_bytes > WINDOW_BYTES && self.window.len() > 1 {
            let Some(old) = self.window.pop_front() else { return };
            self.window_bytes -= old.size();
            self.complete_after = old.revision;
        }
    }
}

/// Whether reading everything again may help.
fn passing(error: &canopus_store::Error) -> bool {
    use canopus_store::Error;
    matches!(error, Error::Lagged | Error::Compacted { .. } | Error::Unavailable(_) | Error::Unreadable(_))
}

/// Lets the trees of a burst go, each when it was kept for a while. `seen`: how many there had been when it began.
async fn trim(cache: Weak<Cache>, mut seen: u64) {
    loop {
        tokio::time::sleep(BURST).await;
        let Some(cache) = cache.upgrade() else { return };
        // Dropped when nobody waits for the lock any more.
        let mut old = Vec::new();
        let mut state = cache.state.write();
        let trees = &mut state.trees;
        let newer = usize::try_from(trees.count - seen).unwrap_or(usize::MAX);
        while trees.bytes > TREES && trees.kept.len() > newer {
            old.extend(trees.drop_first());
        }
        seen = trees.count;
        if trees.bytes <= TREES {
            trees.trimming = false;
            return;
        }
        drop(state);
    }
}

fn fresh(version: &Version) -> Option<&Fresh> {
    version.facts.as_ref()?.downcast_ref()
}

impl Cache {
    /// Reads everything under `prefix` and follows it from then on.
    pub async fn start(
        store: &Arc<dyn Store>,
        prefix: &str,
        resource: Strategy,
    ) -> Result<Arc<Cache>, canopus_store::Error> {
        let range = store.range(prefix, &prefix_end(prefix), None, 0).await?;
        let mut watch = store.watch(prefix, range.revision + 1).await?;
        let cache = Arc::new(Cache {
            prefix: prefix.into(),
            namespaced: resource.info().namespaced,
            resource,
            state: RwLock::default(),
            lists: Lists::default(),
            progress: RwLock::new(watch.progress()),
        });
        cache.catch_up(&range);
        let (follower, store) = (Arc::downgrade(&cache), Arc::downgrade(store));
        tokio::spawn(async move {
            while let Some(group) = watch.next().await {
                let Some(cache) = follower.upgrade() else { return };
                match group {
                    Ok(events) => cache.apply(&events),
                    // The store has failed or is closing; readers get its error.
                    Err(error) if !passing(&error) => return cache.lost(&error),
                    Err(_) => {
                        drop(cache);
                        match Cache::again(&follower, &store).await {
                            Some(again) => watch = again,
                            None => return,
                        }
                    }
                }
            }
        });
        Ok(cache)
    }

    /// Starts over, and over, for as long as that may help.
    async fn again(cache: &Weak<Cache>, store: &Weak<dyn Store>) -> Option<canopus_store::Watch> {
        loop {
            let (cache, store) = (cache.upgrade()?, store.upgrade()?);
            match cache.restart(&*store).await {
                Ok(watch) => return Some(watch),
                Err(error) if passing(&error) => {
                    tracing::warn!(%error, prefix = cache.prefix, "the watch cache can't be filled; trying again");
                }
                Err(error) => {
                    cache.lost(&error);
                    return None;
                }
            }
            drop((cache, store));
            tokio::time::sleep(RESTART).await;
        }
    }

    fn lost(&self, error: &canopus_store::Error) {
        tracing::error!(%error, prefix = self.prefix, "watch cache lost its store");
    }

    /// After falling behind: reads everything again. Watchers see the difference as events; who wants to start at a
    /// revision in between is told to list anew.
    async fn restart(&self, store: &dyn Store) -> Result<canopus_store::Watch, canopus_store::Error> {
        let range = store.range(&self.prefix, &prefix_end(&self.prefix), None, 0).await?;
        let watch = store.watch(&self.prefix, range.revision + 1).await?;
        self.catch_up(&range);
        *self.progress.write() = watch.progress();
        Ok(watch)
    }

    /// Takes over a whole range: what it does not hold is gone.
    fn catch_up(&self, range: &canopus_store::Range) {
        let mut state = self.state.write();
        let mut gone: BTreeSet<CompactString> = state.objects.keys().cloned().collect();
        // In the order of their revisions, as watchers expect events.
        let mut items: Vec<&Arc<Version>> = range.items.iter().collect();
        items.sort_by_key(|version| version.mod_revision);
        for version in items {
            let key = self.key(&version.key);
            gone.remove(&key);
            let previous = state.objects.get(&key).cloned();
            if previous.as_ref().is_some_and(|p| p.revision == version.mod_revision) {
                continue;
            }
            if let Some(object) = self.object(version) {
                state.objects.insert(key, object.clone());
                let event = CacheEvent::new(object.revision, Some(object), previous);
                state.watchers.dispatch(&Arc::new(event));
            }
        }
        for key in gone {
            let previous = state.objects.remove(&key);
            state.watchers.dispatch(&Arc::new(CacheEvent::new(range.revision, None, previous)));
        }
        state.trees.clear();
        state.window.clear();
        state.window_bytes = 0;
        state.revision = range.revision;
        state.complete_after = range.revision;
        state.starts += 1;
        state.initial += range.items.len() as u64;
    }

    fn key(&self, store_key: &str) -> CompactString {
        store_key.strip_prefix(&self.prefix).unwrap_or(store_key).into()
    }

    /// The object of a stored version; None, loudly, when its bytes are not an object.
    pub fn object(&self, version: &Version) -> Option<Arc<Object>> {
        if let Some(fresh) = fresh(version)
            && !storage::is_cbor(&version.value)
        {
            return Object::from_bytes(version.value.clone(), fresh.facts.clone(), version.mod_revision).map(Arc::new);
        }
        match storage::decode(&version.value) {
            Ok((value, body)) => {
                let facts = Arc::new(self.resource.facts(&value));
                Object::from_bytes(body, facts, version.mod_revision).map(Arc::new)
            }
            Err(error) => {
                tracing::error!(error, key = %version.key, "stored object is not readable");
                None
            }
        }
    }

    fn apply(self: &Arc<Cache>, events: &[canopus_store::Event]) {
        let mut state = self.state.write();
        for event in events {
            let key = self.key(&event.key);
            let previous = state.objects.get(&key).cloned();
            let object = event.version.as_ref().and_then(|v| self.object(v));
            if let (Some(version), Some(object)) = (&event.version, &object) {
                state.keep_tree(version, object, previous.as_ref());
            }
            match &object {
                Some(object) => state.objects.insert(key, object.clone()),
                None => state.objects.remove(&key),
            };
            if let (None, Some(previous)) = (&object, &previous) {
                state.trees.release(previous);
            }
            state.revision = event.revision;
            if object.is_none() && previous.is_none() {
                continue;
            }
            let event = Arc::new(CacheEvent::new(event.revision, object, previous));
            state.events += 1;
            state.watchers.dispatch(&event);
            state.remember(event);
        }
        if state.trees.bytes > TREES && !std::mem::replace(&mut state.trees.trimming, true) {
            tokio::spawn(trim(Arc::downgrade(self), state.trees.count));
        }
    }

    fn progress(&self) -> Progress {
        self.progress.read().clone()
    }

    /// Waits until the cache has seen everything up to `revision`.
    pub async fn reached(&self, revision: u64) -> Result<(), Status> {
        self.progress().reached(revision).await.map_err(|e| match e {
            canopus_store::Error::FutureRevision { .. } => too_large(revision, self.progress().revision()),
            other => crate::storage::status(other),
        })
    }

    /// Up to which revision this cache has seen everything.
    pub fn current(&self) -> u64 {
        self.progress().revision().max(self.state.read().revision)
    }

    /// The revision of the last change of this resource: until it moves, what was derived from its objects holds.
    pub fn last_change(&self) -> u64 {
        self.state.read().revision
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The newest object at `namespace/name` (or `name`), as far as this cache has seen.
    pub fn by_key(&self, key: &str) -> Option<Arc<Object>> {
        self.state.read().objects.get(key).cloned()
    }

    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many objects there are, and how many bytes one has, about.
    pub fn size(&self) -> (usize, usize) {
        const SAMPLE: usize = 8;
        let state = self.state.read();
        let sample = state.objects.values().take(SAMPLE).map(|o| o.body().len());
        let (count, bytes) = sample.fold((0, 0), |(count, bytes), body| (count + 1, bytes + body));
        (state.objects.len(), bytes.div_ceil(count.max(1)))
    }

    /// How many watchers may want to hear of a change there.
    pub fn watchers_of(&self, namespace: &str, name: &str) -> usize {
        let state = self.state.read();
        let of = |scope: &Scope| state.watchers.by_scope.get(scope).map_or(0, Vec::len);
        let everywhere = of(&Scope::All);
        if state.watchers.by_scope.len() == usize::from(everywhere > 0) {
            return everywhere;
        }
        everywhere + of(&Scope::Namespace(namespace.into())) + of(&Scope::Object(Cache::object_key(namespace, name)))
    }

    pub fn object_key(namespace: &str, name: &str) -> CompactString {
        if namespace.is_empty() { name.into() } else { compact_str::format_compact!("{namespace}/{name}") }
    }

    /// All objects in scope that `options` selects, in key order, and the revision they are the state of.
    pub fn snapshot(&self, namespace: &str, options: &ListOptions) -> (Vec<Arc<Object>>, u64) {
        let revision = self.progress().revision();
        let state = self.state.read();
        let items = select(&state.objects, self.namespaced, namespace, options);
        self.lists.lists.fetch_add(1, Ordering::Relaxed);
        self.lists.fetched.fetch_add(state.objects.len() as u64, Ordering::Relaxed);
        self.lists.returned.fetch_add(items.len() as u64, Ordering::Relaxed);
        (items, revision.max(state.revision))
    }

    pub fn stats(&self) -> Stats {
        let state = self.state.read();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            objects: state.objects.len() as u64,
            bytes: state.objects.values().map(|object| object.body().len() as u64).sum(),
            revision: state.revision,
            capacity: WINDOW as u64,
            starts: state.starts,
            initial: state.initial,
            events: state.events,
            terminated: state.watchers.terminated,
            lists: count(&self.lists.lists),
            fetched: count(&self.lists.fetched),
            returned: count(&self.lists.returned),
        }
    }

    /// Starts a watch: `from` None for the current state first, or the revision after which events are wanted.
    pub fn subscribe(
        self: &Arc<Cache>,
        namespace: &str,
        options: &ListOptions,
        from: Option<u64>,
    ) -> Result<Subscription, Status> {
        let scope = self.scope(namespace, options);
        let seen = self.progress().revision();
        let mut state = self.state.write();
        let revision = seen.max(state.revision);
        let (initial, missed) = match from {
            None => (select(&state.objects, self.namespaced, namespace, options), Vec::new()),
            Some(from) => {
                if from < state.complete_after {
                    let message = format!("too old resource version: {from} ({})", state.complete_after);
                    return Err(Status::expired(message));
                }
                (Vec::new(), state.window.iter().filter(|e| e.revision > from).cloned().collect())
            }
        };
        let (id, events) = state.watchers.add(scope.clone());
        let _guard = Guard { cache: self.clone(), scope, id };
        Ok(Subscription { initial, missed, revision, events, _guard })
    }

    fn scope(&self, namespace: &str, options: &ListOptions) -> Scope {
        let name = options.fields.required("metadata.name");
        match (name, options.fields.required("spec.nodeName")) {
            (Some(name), _) if !self.namespaced || !namespace.is_empty() => {
                Scope::Object(Cache::object_key(namespace, name))
            }
            (_, Some(node)) if self.resource.info().selectable_fields.contains(&"spec.nodeName") => {
                Scope::Node(node.into())
            }
            _ if self.namespaced && !namespace.is_empty() => Scope::Namespace(namespace.into()),
            _ => Scope::All,
        }
    }
}

fn select(
    objects: &BTreeMap<CompactString, Arc<Object>>,
    namespaced: bool,
    namespace: &str,
    options: &ListOptions,
) -> Vec<Arc<Object>> {
    let wanted = |o: &&Arc<Object>| selected(o, options);
    if !namespaced || namespace.is_empty() {
        return objects.values().filter(wanted).cloned().collect();
    }
    let start = compact_str::format_compact!("{namespace}/");
    let end = compact_str::format_compact!("{namespace}0");
    objects.range(start..end).map(|(_, o)| o).filter(wanted).cloned().collect()
}

/// Whether the selectors of `options` want this object.
pub fn selected(object: &Object, options: &ListOptions) -> bool {
    options.labels.matches(&object.facts) && options.fields.matches(&object.facts)
}

/// A resourceVersion from the future (upstream `NewTooLargeResourceVersionError`).
pub fn too_large(wanted: u64, current: u64) -> Status {
    Status::timeout(&format!("Too large resource version: {wanted}, current: {current}"))
        .with_cause("ResourceVersionTooLarge", "Too large resource version", "")
        .with_retry_after(1)
}

impl View for Cache {
    fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.state.read().objects.get(&Cache::object_key(namespace, name)).cloned()
    }

    fn list(&self, namespace: &str) -> Vec<Arc<Object>> {
        self.snapshot(namespace, &ListOptions::default()).0
    }

    fn revision(&self) -> u64 {
        self.current()
    }
}
