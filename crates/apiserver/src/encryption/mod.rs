//! Encryption at rest: a store in front of a store. What the configuration names is encrypted on its way in and decrypted on its way
//! out, so such values have a second buffer; all others pass untouched.

mod config;
mod transform;

pub use config::{Config, Providers};

use async_trait::async_trait;
use bytes::Bytes;
use canopus_store::{
    Change, Error, Event, Outcome, Progress, Range, Revision, Store, Version, Watch, WatchSource, Write,
};
use parking_lot::RwLock;
use std::sync::{Arc, LazyLock};

/// What everything encrypted begins with.
const PREFIX: &[u8] = b"k8s:enc:";

/// The configuration of now.
pub struct Encryption(RwLock<Arc<Config>>);

impl Encryption {
    pub fn new(config: Config) -> Arc<Encryption> {
        Arc::new(Encryption(RwLock::new(Arc::new(config))))
    }

    /// From now on values are written by this one; it must know the keys of those that are there.
    pub fn replace(&self, config: Config) {
        *self.0.write() = Arc::new(config);
    }

    fn config(&self) -> Arc<Config> {
        self.0.read().clone()
    }
}

pub struct EncryptedStore {
    inner: Arc<dyn Store>,
    encryption: Arc<Encryption>,
}

impl EncryptedStore {
    pub fn new(inner: Arc<dyn Store>, encryption: Arc<Encryption>) -> EncryptedStore {
        EncryptedStore { inner, encryption }
    }
}

/// Under which prefix what is stored.
static PREFIXES: LazyLock<Vec<(String, &'static str, &'static str)>> = LazyLock::new(|| {
    let infos = canopus_resources::ALL.iter().map(|r| r.info()).filter(|info| info.stored && info.storage.is_none());
    infos.map(|info| (crate::storage::prefix(info), info.group, info.plural)).collect()
});

/// Group and plural of a key's resource.
fn resource(key: &str) -> Option<(&str, &str)> {
    let rest = key.strip_prefix("/registry/")?;
    if let Some((_, group, plural)) = PREFIXES.iter().find(|(prefix, ..)| key.starts_with(prefix)) {
        return Some((group, plural));
    }
    let mut parts = rest.split('/');
    Some((parts.next()?, parts.next()?)).filter(|(group, _)| !group.is_empty())
}

fn open(config: &Config, version: &Arc<Version>) -> Result<Arc<Version>, String> {
    let providers = resource(&version.key).and_then(|(group, plural)| config.providers(group, plural));
    let Some(providers) = providers.filter(|p| !p.is_plain()) else {
        if version.value.starts_with(PREFIX) {
            return Err("identity transformer tried to read encrypted data".into());
        }
        return Ok(version.clone());
    };
    let value = providers.decrypt(&version.value, version.key.as_bytes())?;
    Ok(Arc::new(Version {
        key: version.key.clone(),
        value: Bytes::from(value),
        create_revision: version.create_revision,
        mod_revision: version.mod_revision,
        version: version.version,
        expires_at: version.expires_at,
        facts: version.facts.clone(),
    }))
}

/// What cannot be decrypted stays as it is: it is no object, and whoever reads it says so.
fn opened(config: &Config, version: &Arc<Version>) -> Arc<Version> {
    open(config, version).unwrap_or_else(|error| {
        tracing::error!(error, key = %version.key, "failed to decrypt a stored value");
        version.clone()
    })
}

fn opened_event(config: &Config, event: &Event) -> Event {
    Event {
        revision: event.revision,
        key: event.key.clone(),
        version: event.version.as_ref().map(|v| opened(config, v)),
        previous: event.previous.as_ref().map(|v| opened(config, v)),
    }
}

#[async_trait]
impl Store for EncryptedStore {
    async fn commit(&self, mut write: Write) -> Result<Outcome, Error> {
        let config = self.encryption.config();
        let providers = resource(&write.key).and_then(|(group, plural)| config.providers(group, plural));
        if let (Some(providers), Change::Put { value, .. }) = (providers, &mut write.change) {
            *value = providers.encrypt(value, write.key.as_bytes()).map_err(|why| Error::Failed(why.into()))?.into();
        }
        let open = |version: Option<Arc<Version>>| version.map(|v| opened(&config, &v));
        Ok(match self.inner.commit(write).await? {
            Outcome::Committed { revision, version, previous } => {
                Outcome::Committed { revision, version: open(version), previous: open(previous) }
            }
            Outcome::Conflict { current, revision } => Outcome::Conflict { current: open(current), revision },
        })
    }

    async fn get(&self, key: &str) -> Result<(Option<Arc<Version>>, Revision), Error> {
        let (version, revision) = self.inner.get(key).await?;
        let config = self.encryption.config();
        Ok((version.map(|v| opened(&config, &v)), revision))
    }

    async fn range(&self, start: &str, end: &str, at: Option<Revision>, limit: usize) -> Result<Range, Error> {
        let mut range = self.inner.range(start, end, at, limit).await?;
        let config = self.encryption.config();
        range.items.iter_mut().for_each(|v| *v = opened(&config, v));
        Ok(range)
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, Error> {
        let watch = self.inner.watch(prefix, from).await?;
        Ok(Watch::new(Decrypting { watch, encryption: self.encryption.clone() }))
    }

    async fn stale(&self, key: &str) -> Result<bool, Error> {
        let config = self.encryption.config();
        let Some(providers) = resource(key).and_then(|(group, plural)| config.providers(group, plural)) else {
            return Ok(false);
        };
        let (version, _) = self.inner.get(key).await?;
        Ok(version.is_some_and(|v| providers.is_stale(&v.value)))
    }

    async fn compact(&self, up_to: Revision) -> Result<(), Error> {
        self.inner.compact(up_to).await
    }

    async fn may_compact(&self, up_to: Revision) -> Result<bool, Error> {
        self.inner.may_compact(up_to).await
    }

    fn shared(&self) -> bool {
        self.inner.shared()
    }

    async fn current(&self) -> Result<Revision, Error> {
        self.inner.current().await
    }

    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    fn compacted(&self) -> Revision {
        self.inner.compacted()
    }
}

struct Decrypting {
    watch: Watch,
    encryption: Arc<Encryption>,
}

#[async_trait]
impl WatchSource for Decrypting {
    async fn next(&mut self) -> Option<Result<Arc<[Event]>, Error>> {
        let events = self.watch.next().await?;
        let config = self.encryption.config();
        Some(events.map(|events| events.iter().map(|event| opened_event(&config, event)).collect()))
    }

    fn revision(&self) -> Revision {
        self.watch.revision()
    }

    fn progress(&self) -> Progress {
        self.watch.progress()
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
