//! Looking objects up for admission: in the watch cache, and when it has no such object yet, once it has caught up with the store.

use crate::cache::Cache;
use crate::server::Server;
use canopus_api::{ListOptions, Object, Result, View};
use canopus_store::Store;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone)]
pub struct Fresh {
    cache: Arc<Cache>,
    store: Arc<dyn Store>,
}

impl Fresh {
    pub fn of(server: &Server, group: &str, version: &str, plural: &str) -> Result<Fresh> {
        Ok(Fresh { cache: server.cache(group, version, plural)?, store: server.store.clone() })
    }

    /// As the cache has it: good enough for what exists already.
    pub fn cached(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        View::get(&*self.cache, namespace, name)
    }

    /// As it is after every write so far.
    pub async fn newest(&self, namespace: &str, name: &str) -> Result<Option<Arc<Object>>> {
        self.cache.reached(self.store.current().await.map_err(crate::storage::status)?).await?;
        Ok(self.cached(namespace, name))
    }

    /// From the cache if it is there, else the newest.
    pub async fn get(&self, namespace: &str, name: &str) -> Result<Option<Arc<Object>>> {
        match self.cached(namespace, name) {
            Some(object) => Ok(Some(object)),
            None => self.newest(namespace, name).await,
        }
    }

    /// Waits for the object to be made, for at most `patience`.
    pub async fn wait(&self, namespace: &str, name: &str, patience: Duration) -> Result<Option<Arc<Object>>> {
        let mut subscription = self.cache.subscribe(namespace, &ListOptions::default(), None)?;
        let mut initial = std::mem::take(&mut subscription.initial).into_iter();
        if let Some(object) = initial.find(|o| o.name() == name) {
            return Ok(Some(object));
        }
        let made = async {
            while let Some(event) = subscription.events.recv().await {
                if let Some(object) = event.object.as_ref().filter(|o| o.name() == name) {
                    return Some(object.clone());
                }
            }
            None
        };
        Ok(tokio::time::timeout(patience, made).await.unwrap_or(None))
    }
}
