//! Encryption at rest: a store in front of a store. What the configuration names is encrypted on its way in and decrypted on its way
//! out, so such values have a second buffer; all others pass untouched. The keys are in the configuration, or with a key
//! management service ([`kms`]).

mod config;
mod kms;
mod metrics;
mod transform;

pub use config::{Config, Providers};
pub use kms::Source;

use crate::metrics::reloads::Reloads;
use crate::surroundings::Surroundings;
use async_trait::async_trait;
use bytes::Bytes;
use canopus_store::{
    Change, Error, Event, Outcome, Progress, Range, Revision, Store, Version, Watch, WatchSource, Write,
};
use metrics::Metrics;
use parking_lot::RwLock;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::time::Instant;

/// What everything encrypted begins with.
const PREFIX: &[u8] = b"k8s:enc:";

/// How long services of a new configuration have at least to be well, and how often they are asked meanwhile.
const MIN_PATIENCE: Duration = Duration::from_secs(10);
const ASK: Duration = Duration::from_millis(100);

/// Why a stored value cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Unreadable {
    /// Nobody here could have written it.
    #[error("{0}")]
    Bad(String),
    /// Who has its key did not help; in a moment it may.
    #[error("{message}")]
    Fault { code: &'static str, message: String },
}

/// What a configuration needs besides itself.
#[derive(Clone)]
pub struct Around {
    clock: Arc<dyn Surroundings>,
    metrics: Arc<Metrics>,
}

impl Around {
    pub fn new(clock: Arc<dyn Surroundings>) -> Around {
        Around { clock, metrics: Arc::default() }
    }
}

/// The configuration of now.
pub struct Encryption {
    config: RwLock<Arc<Config>>,
    around: Around,
    /// Whether there may be another one (`--encryption-provider-config-automatic-reload`).
    reloads: Option<Reloads>,
}

impl Encryption {
    /// Reads a configuration, and makes contact with the key management services that it names: those that are not there yet
    /// are asked again.
    pub async fn start(text: &str, clock: Arc<dyn Surroundings>, reloads: bool) -> Result<Arc<Encryption>, String> {
        let around = Around::new(clock);
        let config = Config::parse(text, &around)?;
        config.begin().await;
        let reloads = reloads.then(Reloads::default);
        if let Some(reloads) = &reloads {
            reloads.began(text);
        }
        Ok(Arc::new(Encryption { config: RwLock::new(Arc::new(config)), around, reloads }))
    }

    /// From now on values are written by this one; it must know the keys of those that are there.
    ///
    /// # Errors
    /// What is wrong with it, or that one of its services is not well. The old one stays.
    pub async fn reload(&self, text: &str) -> Result<(), String> {
        let loaded = self.load(text).await;
        if let Some(reloads) = &self.reloads {
            reloads.again(loaded.is_ok().then_some(text), self.around.clock.now());
        }
        *self.config.write() = loaded?;
        Ok(())
    }

    async fn load(&self, text: &str) -> Result<Arc<Config>, String> {
        let config = Config::parse(text, &self.around)?;
        config.begin().await;
        let deadline = Instant::now() + config.patience().max(MIN_PATIENCE);
        while let Err(why) = config.check().await {
            if Instant::now() >= deadline {
                return Err(format!("health check for new transformers failed: {why}"));
            }
            tokio::time::sleep(ASK).await;
        }
        Ok(Arc::new(config))
    }

    fn config(&self) -> Arc<Config> {
        self.config.read().clone()
    }

    /// Whether there are key management services or may be some one day.
    pub fn may_have_services(&self) -> bool {
        self.reloads.is_some() || self.config().has_services()
    }

    /// Whether the key management services are well (upstream's check `kms-providers`).
    pub async fn check(&self) -> Result<(), String> {
        self.config().check().await
    }

    pub fn write_metrics(&self, out: &mut String) {
        self.around.metrics.write(out);
        if let Some(reloads) = &self.reloads {
            reloads.write("encryption", out);
        }
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

async fn open(config: &Config, version: &Arc<Version>) -> Result<Arc<Version>, Unreadable> {
    let providers = resource(&version.key).and_then(|(group, plural)| config.providers(group, plural));
    let Some(providers) = providers.filter(|p| !p.is_plain()) else {
        if version.value.starts_with(PREFIX) {
            return Err(Unreadable::Bad("identity transformer tried to read encrypted data".into()));
        }
        return Ok(version.clone());
    };
    let value = providers.decrypt(&version.value, &version.key).await?;
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

/// What cannot be decrypted stays as it is: it is no object, and whoever reads it says so. It is an error that it cannot be
/// for now.
async fn opened(config: &Config, version: &Arc<Version>) -> Result<Arc<Version>, Error> {
    match open(config, version).await {
        Err(Unreadable::Fault { message, .. }) => Err(Error::Unreadable(message.into())),
        Err(Unreadable::Bad(error)) => {
            tracing::error!(error, key = %version.key, "failed to decrypt a stored value");
            Ok(version.clone())
        }
        Ok(version) => Ok(version),
    }
}

/// What a write has found: it is done, whether that can be read or not.
async fn found(config: &Config, version: Option<Arc<Version>>) -> Option<Arc<Version>> {
    let version = version?;
    let opened = opened(config, &version).await;
    Some(opened.unwrap_or_else(|error| {
        tracing::error!(%error, key = %version.key, "failed to decrypt what a write has found");
        version
    }))
}

async fn opened_event(config: &Config, event: &Event) -> Result<Event, Error> {
    let mut event = Event {
        revision: event.revision,
        key: event.key.clone(),
        version: event.version.clone(),
        previous: event.previous.clone(),
    };
    for version in [&mut event.version, &mut event.previous].into_iter().flatten() {
        *version = opened(config, version).await?;
    }
    Ok(event)
}

#[async_trait]
impl Store for EncryptedStore {
    async fn commit(&self, mut write: Write) -> Result<Outcome, Error> {
        let config = self.encryption.config();
        let providers = resource(&write.key).and_then(|(group, plural)| config.providers(group, plural));
        if let (Some(providers), Change::Put { value, .. }) = (providers, &mut write.change) {
            *value = providers.encrypt(value, &write.key).map_err(|why| Error::Unreadable(why.into()))?.into();
        }
        Ok(match self.inner.commit(write).await? {
            Outcome::Committed { revision, version, previous } => Outcome::Committed {
                revision,
                version: found(&config, version).await,
                previous: found(&config, previous).await,
            },
            Outcome::Conflict { current, revision } => {
                Outcome::Conflict { current: found(&config, current).await, revision }
            }
        })
    }

    async fn get(&self, key: &str) -> Result<(Option<Arc<Version>>, Revision), Error> {
        let (version, revision) = self.inner.get(key).await?;
        let Some(version) = version else { return Ok((None, revision)) };
        Ok((Some(opened(&self.encryption.config(), &version).await?), revision))
    }

    async fn range(&self, start: &str, end: &str, at: Option<Revision>, limit: usize) -> Result<Range, Error> {
        let mut range = self.inner.range(start, end, at, limit).await?;
        let config = self.encryption.config();
        for version in &mut range.items {
            *version = opened(&config, version).await?;
        }
        Ok(range)
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, Error> {
        let watch = self.inner.watch(prefix, from).await?;
        Ok(Watch::new(Decrypting { watch, taken: None, encryption: self.encryption.clone() }))
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
    /// Events that are being decrypted: kept, since whoever waits for them may stop waiting and come back.
    taken: Option<Arc<[Event]>>,
    encryption: Arc<Encryption>,
}

#[async_trait]
impl WatchSource for Decrypting {
    async fn next(&mut self) -> Option<Result<Arc<[Event]>, Error>> {
        let events = match self.taken.take() {
            Some(events) => events,
            None => match self.watch.next().await? {
                Ok(events) => events,
                Err(error) => return Some(Err(error)),
            },
        };
        self.taken = Some(events.clone());
        let config = self.encryption.config();
        let mut open = Vec::with_capacity(events.len());
        for event in &*events {
            match opened_event(&config, event).await {
                Ok(event) => open.push(event),
                Err(error) => return Some(Err(error)),
            }
        }
        self.taken = None;
        Some(Ok(open.into()))
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
