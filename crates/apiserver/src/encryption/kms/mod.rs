//! Values protected by a key management service (KMS v2, KEP-3299): what encrypts a value is derived from a seed that this process
//! made and the service's plugin encrypted. The plugin is asked when a seed is made or first read, not for each value;
//! and every minute whether its own key is still the same, for a new one means a new seed.

mod envelope;
mod key;
mod service;
#[cfg(test)]
mod tests;

pub use envelope::{Source, hashed};

use super::{Around, Unreadable};
use crate::authz::chain::aggregate;
use crate::outgoing::grpc::Place;
use crate::surroundings::uuid;
use canopus_api::Time;
use envelope::{SEED, check_key_id};
use key::Key;
use parking_lot::{Mutex, RwLock};
use service::{Service, Status};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often the plugin is asked how it is: when it was well, and when it was not.
const POLL: Duration = Duration::from_secs(60);
const POLL_AGAIN: Duration = Duration::from_secs(10);
/// How long such an answer holds for the health checks.
const WELL: Duration = Duration::from_secs(20);
const UNWELL: Duration = Duration::from_secs(3);
/// How long values are written after the plugin was last heard of. So whoever changes its key knows when the old one is no
/// longer used, whatever happens.
const WRITE: Duration = Duration::from_secs(3 * 60);
/// How long a decrypted key is kept at least, and how many are.
const KEEP: Duration = Duration::from_secs(24 * 3600);
const MAX_KEYS: usize = 4096;
const VERSIONS: [&str; 2] = ["v2", "v2beta1"];
const SEED_SIZE: usize = 32;

/// One plugin.
pub struct Kms {
    name: String,
    service: Service,
    around: Around,
    /// What values are written with.
    current: RwLock<Option<Current>>,
    keys: Mutex<Keys>,
    probe: tokio::sync::Mutex<Probe>,
}

#[derive(Clone)]
struct Current {
    key: Arc<Key>,
    source: Arc<Source>,
    /// Until when it may be used for writing.
    until: Time,
}

#[derive(Default)]
struct Probe {
    last: Option<(Time, Result<(), String>)>,
    /// The version of the first answer.
    version: String,
}

/// Keys that the plugin has decrypted, by the digests of their sources.
#[derive(Default)]
struct Keys(BTreeMap<[u8; 32], (Time, Arc<Key>)>);

impl Keys {
    fn keep(&mut self, digest: [u8; 32], key: Arc<Key>, now: Time) {
        self.0.retain(|_, (since, _)| now.since(*since) < KEEP);
        if self.0.len() >= MAX_KEYS {
            let oldest = self.0.iter().min_by_key(|(_, (since, _))| *since).map(|(digest, _)| *digest);
            oldest.and_then(|digest| self.0.remove(&digest));
        }
        self.0.insert(digest, (now, key));
    }
}

impl Kms {
    pub fn new(name: &str, socket: Place, timeout: Duration, around: &Around) -> Arc<Kms> {
        Arc::new(Kms {
            service: Service::new(socket, name.into(), timeout, around.metrics.clone()),
            name: name.into(),
            around: around.clone(),
            current: RwLock::default(),
            keys: Mutex::default(),
            probe: tokio::sync::Mutex::default(),
        })
    }

    /// Makes first contact, so that values can be written at once if the plugin is there; and stays in contact for as
    /// long as somebody has need of this.
    pub async fn begin(self: &Arc<Kms>) {
        let well = self.check_and_log().await;
        tokio::spawn(Kms::poll(Arc::downgrade(self), well));
    }

    async fn poll(kms: Weak<Kms>, mut well: bool) {
        loop {
            tokio::time::sleep(if well { POLL } else { POLL_AGAIN }).await;
            let Some(kms) = kms.upgrade() else { return };
            well = kms.check_and_log().await;
        }
    }

    async fn check_and_log(&self) -> bool {
        let result = self.check().await;
        if let Err(error) = &result {
            tracing::error!(error, name = self.name, "kms plugin failed health check probe");
        }
        result.is_ok()
    }

    /// Whether the plugin is well, and values can be written.
    pub async fn check(&self) -> Result<(), String> {
        let mut probe = self.probe.lock().await;
        let now = self.around.clock.now();
        if let Some((at, result)) = &probe.last
            && now.since(*at) < if result.is_ok() { WELL } else { UNWELL }
        {
            return result.clone();
        }
        let status = self.service.status().await.map_err(|fault| {
            let name = &self.name;
            format!("failed to perform status section of the healthz check for KMS Provider {name}, error: {fault}")
        });
        let result = match status {
            Ok(status) => self.told(&status, &mut probe.version, now).await,
            Err(why) => Err(why),
        };
        probe.last = Some((self.around.clock.now(), result.clone()));
        result
    }

    /// Looks at what the plugin says of itself, and makes a seed if its key is another.
    async fn told(&self, status: &Status, version: &mut String, now: Time) -> Result<(), String> {
        let mut problems = Vec::new();
        if status.healthz != "ok" {
            problems.push(format!("got unexpected healthz status: {}", status.healthz));
        }
        if !VERSIONS.contains(&&*status.version) {
            problems.push(format!("expected KMSv2 API version {}, got {}", VERSIONS[0], status.version));
        } else if version.is_empty() {
            version.clone_from(&status.version);
        } else if *version != status.version {
            problems.push(format!(
                "KMSv2 API version should not change after the initial status response version {version}, got {}",
                status.version
            ));
        }
        let metrics = &self.around.metrics;
        match check_key_id(&status.key_id) {
            Err((code, why)) => {
                metrics.invalid_key_ids.add([&self.name, code], 1);
                problems.push(format!("got invalid KMSv2 KeyID hash {:?}: {why}", hashed(&status.key_id)));
            }
            Ok(()) => {
                metrics.key_told(&self.name, &status.key_id, now);
                problems.extend(self.rotate(&status.key_id, now).await.err());
            }
        }
        match aggregate(&problems) {
            None => Ok(()),
            Some(why) => Err(format!("kmsv2 Provider {} is not healthy, error: {why}", self.name)),
        }
    }

    /// Goes on with the seed of now if the plugin's key is still the one that encrypted it, and makes one otherwise. If that fails,
    /// the old one is good for as long as it was.
    async fn rotate(&self, key_id: &str, now: Time) -> Result<(), String> {
        // Counted from before the plugin was asked, so that it is an upper bound.
        let until = now.plus(WRITE);
        let old = match &mut *self.current.write() {
            Some(current) if current.source.key_id == key_id => {
                current.until = until;
                return Ok(());
            }
            current => current.clone(),
        };
        let uid = uuid(self.around.clock.random());
        let (made, said) = match self.make(&uid).await {
            Ok((key, source)) if source.key_id == key_id => {
                self.keep(source.digest(), key.clone(), now);
                *self.current.write() = Some(Current { key, source: Arc::new(source), until });
                tracing::debug!(uid, provider = self.name, "successfully rotated DEK");
                return Ok(());
            }
            Ok((_, source)) => ("<nil>".to_string(), hashed(&source.key_id)),
            Err(why) => (why, String::new()),
        };
        let (state, had, good) = match &old {
            Some(old) => ("<nil>", hashed(&old.source.key_id), old.until.rfc3339()),
            None => (NO_KEY, String::new(), "0001-01-01T00:00:00Z".into()),
        };
        Err(format!(
            "failed to rotate DEK uid={uid:?}, useSeed=true, errState={state}, errGen={made}, statusKeyIDHash={:?}, encryptKeyIDHash={said:?}, stateKeyIDHash={had:?}, expirationTimestamp={good}",
            hashed(key_id)
        ))
    }

    async fn make(&self, uid: &str) -> Result<(Arc<Key>, Source), String> {
        let seed: [u8; SEED_SIZE] = super::transform::random()?;
        let key = Key::new(SEED, &seed)?;
        let source = self.service.encrypt(uid, &seed, SEED).await;
        let source = source.map_err(|fault| format!("failed to encrypt DEK, error: {fault}"))?;
        source.check()?;
        Ok((Arc::new(key), source))
    }

    /// As upstream stores it, without the prefix.
    pub fn encrypt(&self, data: &[u8], context: &[u8]) -> Result<Vec<u8>, String> {
        let now = self.around.clock.now();
        let current = self.current.read().clone().ok_or(NO_KEY)?;
        if now > current.until {
            return Err(format!(
                "encryptedDEKSource with keyID hash {:?} expired at {} (current time is {})",
                hashed(&current.source.key_id),
                current.until.rfc3339(),
                now.rfc3339()
            ));
        }
        let sealed = current.key.encrypt(data, context)?;
        self.around.metrics.key_used("to_storage", &self.name, &current.source.key_id, now);
        Ok(current.source.seal(&sealed))
    }

    pub async fn decrypt(&self, stored: &[u8], context: &[u8]) -> Result<Vec<u8>, Unreadable> {
        let (source, sealed) = Source::unseal(stored).map_err(Unreadable::Bad)?;
        let key = self.key_of(&source).await?;
        self.around.metrics.key_used("from_storage", &self.name, &source.key_id, self.around.clock.now());
        key.decrypt(sealed, context).map_err(|why| Unreadable::Bad(why.into()))
    }

    async fn key_of(&self, source: &Source) -> Result<Arc<Key>, Unreadable> {
        let digest = source.digest();
        if let Some((_, key)) = self.keys.lock().0.get(&digest) {
            return Ok(key.clone());
        }
        self.around.metrics.missed();
        let plain = self.service.decrypt(&uuid(self.around.clock.random()), source).await;
        let plain = plain.map_err(|fault| Unreadable::Fault {
            code: fault.code,
            message: format!("failed to decrypt DEK, error: {fault}"),
        })?;
        let key = Arc::new(Key::new(source.kind, &plain).map_err(Unreadable::Bad)?);
        self.keep(digest, key.clone(), self.around.clock.now());
        Ok(key)
    }

    fn keep(&self, digest: [u8; 32], key: Arc<Key>, now: Time) {
        let mut keys = self.keys.lock();
        keys.keep(digest, key, now);
        self.around.metrics.keeps(&self.name, keys.0.len());
    }

    /// Whether a stored value, without its prefix, would be written with another key.
    pub fn is_stale(&self, stored: &[u8]) -> bool {
        let current = self.current.read();
        match (&*current, Source::unseal(stored)) {
            (Some(current), Ok((source, _))) => {
                (&source.key_id, source.kind) != (&current.source.key_id, current.source.kind)
            }
            _ => false,
        }
    }
}

/// There is no seed yet, in upstream's words.
const NO_KEY: &str = "got unexpected nil transformer";
