//! What is stored as it would not be any more: a write that changes nothing writes it again, which is how storage is
//! migrated (KEP-4192).

use crate::served::Served;
use crate::server::Server;
use crate::storage;
use canopus_api::{Object, Result};

impl Server {
    /// Whether an object would be stored with another key, or in another version, than it is.
    pub(super) async fn is_outdated(&self, served: &Served, object: &Object) -> Result<bool> {
        let key = served.key(object.namespace(), object.name());
        if self.store.stale(&key).await.map_err(storage::status)? {
            return Ok(true);
        }
        // Of what is built in the version never changes.
        if served.schema().table().is_some() {
            return Ok(false);
        }
        let info = served.info();
        let version = match info.storage {
            Some((group, version, _)) => format!("{group}/{version}"),
            None => info.gvk().api_version().into(),
        };
        // Both are encoded with the version first.
        let start = format!("{{\"apiVersion\":\"{version}\",");
        let cached = served.cache()?.by_key(&object.key());
        if let Some(cached) = cached.filter(|cached| cached.revision == object.revision) {
            return Ok(!cached.body().starts_with(start.as_bytes()));
        }
        let (stored, _) = self.store.get(&key).await.map_err(storage::status)?;
        Ok(stored.is_some_and(|stored| !stored.value.starts_with(start.as_bytes())))
    }
}
