//! What unit tests of gatekeepers share: a stopped clock and a fixed set of objects.

use crate::authz::changes::Changes;
use crate::surroundings::Surroundings;
use canopus_api::{Object, Time, Value, View};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Unix seconds.
pub struct At(pub i64);

impl Surroundings for At {
    fn now(&self) -> Time {
        Time::from_unix(self.0)
    }
    fn random(&self) -> u128 {
        0x1234_5678_9abc_def0
    }
}

/// A view of objects that a test may change.
#[derive(Default)]
pub struct Objects {
    objects: parking_lot::RwLock<BTreeMap<String, Arc<Object>>>,
    changed: AtomicU64,
}

impl Objects {
    pub fn new(objects: &[Value]) -> Objects {
        let view = Objects::default();
        objects.iter().for_each(|o| view.put(o.clone()));
        view
    }

    pub fn put(&self, object: Value) {
        let revision = self.changed.fetch_add(1, Ordering::AcqRel) + 1;
        let object = Object::from_value(object, &["spec.nodeName"], revision);
        self.objects.write().insert(object.key().to_string(), Arc::new(object));
    }
}

impl View for Objects {
    fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let all = self.objects.read();
        // Tables in tests do not care where a cluster-scoped object says it is.
        let mut found = all.values().filter(|o| o.name() == name);
        found.find(|o| namespace.is_empty() || o.namespace() == namespace).cloned()
    }

    fn list(&self, namespace: &str) -> Vec<Arc<Object>> {
        let all = self.objects.read();
        all.values().filter(|o| namespace.is_empty() || o.namespace() == namespace).cloned().collect()
    }

    fn revision(&self) -> u64 {
        self.changed.load(Ordering::Acquire)
    }
}

impl Changes for Objects {
    fn last_change(&self) -> u64 {
        self.revision()
    }
}
