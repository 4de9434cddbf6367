//! ConfigMaps and Secrets that volumes show, each followed by a watch of its own, shared by the pods that use it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use canopus_api::{Api, FieldSelector, Gvr, ListOptions, Object, Target};
use canopus_client::Informer;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

type Key = (&'static str, String, String);

/// How long a first answer may take before a pod's start is tried again.
const FIRST: Duration = Duration::from_secs(3);

/// One followed object; dropping the last handle ends the watch.
pub struct Watched {
    informer: Arc<Informer>,
    token: CancellationToken,
    users: Arc<Mutex<Vec<Weak<Notify>>>>,
    key: String,
}

impl Watched {
    /// The object, if it exists; an error when the server hasn't answered yet.
    pub async fn object(&self) -> Result<Option<Arc<Object>>, String> {
        match tokio::time::timeout(FIRST, self.informer.synced()).await {
            Ok(()) => Ok(self.informer.by_key(&self.key)),
            Err(_) => Err(format!("failed to sync {} cache: timed out waiting for the condition", self.key)),
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

pub struct Sources {
    api: Arc<dyn Api>,
    watched: Mutex<HashMap<Key, Weak<Watched>>>,
    shutdown: CancellationToken,
}

impl Sources {
    pub fn new(api: Arc<dyn Api>, shutdown: CancellationToken) -> Self {
        Self { api, watched: Mutex::default(), shutdown }
    }

    /// Follows an object; `user` is told of changes.
    pub fn follow(&self, kind: &'static str, namespace: &str, name: &str, user: &Arc<Notify>) -> Arc<Watched> {
        let key: Key = (kind, namespace.to_owned(), name.to_owned());
        let mut all = self.watched.lock();
        all.retain(|_, w| w.strong_count() > 0);
        if let Some(watched) = all.get(&key).and_then(Weak::upgrade) {
            watched.users.lock().push(Arc::downgrade(user));
            return watched;
        }
        let gvr = Gvr::new("", "v1", if kind == "Secret" { "secrets" } else { "configmaps" });
        let fields = FieldSelector { terms: vec![("metadata.name".into(), true, name.into())] };
        let options = ListOptions { fields, ..ListOptions::default() };
        let token = self.shutdown.child_token();
        let informer = Informer::start(self.api.clone(), Target::new(&gvr, namespace, ""), options, token.clone());
        let users = Arc::new(Mutex::new(vec![Arc::downgrade(user)]));
        let told = users.clone();
        informer.on_change(move |_| {
            told.lock().retain(|user: &Weak<Notify>| {
                user.upgrade().is_some_and(|u| {
                    u.notify_one();
                    true
                })
            });
        });
        let watched = Arc::new(Watched { informer, token, users, key: format!("{namespace}/{name}") });
        all.insert(key, Arc::downgrade(&watched));
        watched
    }
}
