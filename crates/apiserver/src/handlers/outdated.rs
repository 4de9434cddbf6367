//! What is stored as it would not be any more: a write that changes nothing writes it again, which is how storage is
//! migrated (KEP-4192).

use crate::served::Served;
use crate::server::Server;
use crate::storage;
use canopus_api::{Object, Result};

impl Server {
    /// Whether an object would be stored with another key, in another version or in another encoding than it is.
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
        let cached = served.cache()?.by_key(&object.key());
        // It does not tell how it is stored, which is asked only where that is to be CBOR.
        if let Some(cached) = cached.filter(|cached| cached.revision == object.revision && !self.cbor) {
            // It is encoded with the version first.
            return Ok(!cached.body().starts_with(format!("{{\"apiVersion\":\"{version}\",").as_bytes()));
        }
        let (stored, _) = self.store.get(&key).await.map_err(storage::status)?;
        Ok(stored.is_some_and(|stored| {
            let in_version = storage::decode(&stored.value).is_ok_and(|(tree, _)| tree["apiVersion"].str() == version);
            !in_version || storage::is_cbor(&stored.value) != self.cbor
        }))
    }
}
