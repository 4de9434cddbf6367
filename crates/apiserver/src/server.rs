//! The API server's state: the store, the resources it serves with their watch caches, and the gatekeepers.

use crate::admission::Chain;
use crate::authn::Authenticator;
use crate::authz::{Attributes, Authorizer, Decision, forbidden};
use crate::cache::Cache;
use crate::http::limits::Inflight;
use crate::outgoing::Outgoing;
use crate::service_ips::ServiceIps;
use crate::settings::Settings;
use crate::storage;
use crate::surroundings::Surroundings;
use canopus_api::{Gvr, ListOptions, Object, Result, Status, Value};
use canopus_resources::{Info, Resource};
use canopus_schema::TypeId;
use canopus_store::{Change, Expect, Outcome, Store, Version, Write};
use parking_lot::{Mutex, RwLock};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A resource as served: its strategy, its schema, where it is stored, its cache.
pub struct Served {
    pub resource: &'static dyn Resource,
    /// The resource in whose form objects are stored: itself, but for a few.
    pub stored_as: &'static dyn Resource,
    pub info: &'static Info,
    pub schema: TypeId,
    pub prefix: String,
    /// None for resources that are never stored.
    pub cache: Option<Arc<Cache>>,
    presented: Presented,
}

/// How many presented objects are remembered: those that many watchers are about to be sent.
const PRESENTED: usize = 1024;

/// Objects of a resource that is stored in another version, as they were last presented, by revision and stored bytes.
#[derive(Default)]
struct Presented(Mutex<HashMap<(u64, usize), Pair>>);

/// The stored object, which keeps its bytes where they are, and the presented one.
type Pair = (Arc<Object>, Arc<Object>);

impl Presented {
    fn get(&self, stored: Arc<Object>, convert: impl FnOnce(&Object) -> Object) -> Arc<Object> {
        let key = (stored.revision, stored.body().as_ptr() as usize);
        let mut known = self.0.lock();
        if let Some((_, presented)) = known.get(&key) {
            return presented.clone();
        }
        let presented = Arc::new(convert(&stored));
        if known.len() >= PRESENTED {
            known.clear();
        }
        known.insert(key, (stored, presented.clone()));
        presented
    }
}

impl Served {
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if namespace.is_empty() {
            format!("{}{name}", self.prefix)
        } else {
            format!("{}{namespace}/{name}", self.prefix)
        }
    }

    /// The facts of an object about to be stored, in its stored form.
    pub fn facts(&self, object: &Value) -> canopus_api::Facts {
        self.stored_as.facts(object)
    }

    /// A stored object as this resource has it: the same one unless it is stored in another version.
    pub fn present(&self, object: Arc<Object>) -> Arc<Object> {
        if self.info.storage.is_none() {
            return object;
        }
        self.presented.get(object, |stored| {
            let mut value = (*stored.value()).clone();
            self.resource.convert_from_storage(&mut value);
            Object::from_value(value, self.info.selectable_fields, stored.revision)
        })
    }

    /// Selectors on this resource's fields as the stored resource knows them.
    pub fn stored_options<'a>(&self, options: &'a ListOptions) -> Cow<'a, ListOptions> {
        if self.info.storage.is_none() {
            return Cow::Borrowed(options);
        }
        let mut options = options.clone();
        for (field, _, _) in &mut options.fields.terms {
            *field = self.resource.field_in_storage(field).into();
        }
        Cow::Owned(options)
    }

    pub fn cache(&self) -> Result<&Arc<Cache>> {
        self.cache.as_ref().ok_or_else(Status::no_such_resource)
    }
}

/// Signs service-account tokens (the `token` subresource).
pub trait TokenIssuer: Send + Sync + 'static {
    /// A token for the claims of a TokenRequest.
    fn issue(&self, claims: TokenClaims) -> Result<String>;

    /// Whom a token is for when its request does not say: the API server.
    fn audiences(&self) -> &[String];

    /// The public keys of tokens (`/openid/v1/jwks`).
    fn jwks(&self) -> Value;

    /// Who issues tokens and where the keys are (`/.well-known/openid-configuration`).
    fn openid_configuration(&self) -> Value;
}

/// What a bound service-account token says.
#[derive(Clone, Debug, Default)]
pub struct TokenClaims {
    pub namespace: String,
    pub service_account: String,
    pub service_account_uid: String,
    pub audiences: Vec<String>,
    pub lifetime: Duration,
    /// After this long its use is worth a warning.
    pub warn_after: Option<Duration>,
    /// (kind, name, uid) of the Pod, Secret or Node it is bound to.
    pub bound: Option<(String, String, String)>,
    /// The node of a bound pod.
    pub node: Option<(String, String)>,
}

/// How long Events live.
pub const EVENT_TTL: Duration = Duration::from_secs(3600);

pub struct Server {
    /// Where writes run that must not end with whoever asked for them.
    pub(crate) runtime: tokio::runtime::Handle,
    pub store: Arc<dyn Store>,
    pub surroundings: Arc<dyn Surroundings>,
    pub served: HashMap<Gvr, Arc<Served>>,
    pub gates: Gatekeepers,
    pub service_ips: ServiceIps,
    pub settings: Settings,
    pub inflight: Inflight,
    pub metrics: crate::metrics::Metrics,
    /// For calling webhooks, extension servers and whom proxies lead to.
    pub outgoing: Outgoing,
    /// Cancelled when the server is about to stop: watches over the network end.
    pub closing: CancellationToken,
    /// Set once start-up objects are in place.
    pub ready: std::sync::atomic::AtomicBool,
}

/// Who is let in and what is let through. Built after the server, since they read its caches.
#[derive(Default)]
pub struct Gatekeepers {
    parts: RwLock<Option<Arc<Gates>>>,
}

pub struct Gates {
    pub authenticators: Vec<Arc<dyn Authenticator>>,
    pub authorizer: Box<dyn Authorizer>,
    pub admission: Chain,
    pub tokens: Arc<dyn TokenIssuer>,
    pub nodes: Arc<crate::node_proxy::NodeProxy>,
}

impl Gatekeepers {
    pub fn set(&self, gates: Gates) {
        *self.parts.write() = Some(Arc::new(gates));
    }

    pub fn get(&self) -> Result<Arc<Gates>> {
        self.parts.read().clone().ok_or_else(|| Status::unavailable("the server is starting"))
    }
}

impl Server {
    /// Opens every stored resource's cache. Requests are refused until [`Gatekeepers::set`].
    pub async fn start(
        store: Arc<dyn Store>,
        surroundings: Arc<dyn Surroundings>,
        settings: Settings,
    ) -> Result<Arc<Server>> {
        let mut served = HashMap::new();
        let mut caches: HashMap<String, Arc<Cache>> = HashMap::new();
        for resource in canopus_resources::ALL {
            let info = resource.info();
            let Some(schema) = canopus_schema::kind(info.group, info.version, info.kind) else {
                return Err(Status::internal(format!("no schema for {}", info.kind)));
            };
            let stored_as = info.storage.and_then(|(g, v, p)| canopus_resources::find(g, v, p)).unwrap_or(*resource);
            let prefix = storage::prefix(stored_as.info());
            let cache = match (info.stored, caches.get(&prefix)) {
                (false, _) => None,
                (true, Some(shared)) => Some(shared.clone()),
                (true, None) => {
                    let cache = Cache::start(&store, &prefix, stored_as).await.map_err(storage::status)?;
                    caches.insert(prefix.clone(), cache.clone());
                    Some(cache)
                }
            };
            let resource =
                Served { resource: *resource, stored_as, info, schema, prefix, cache, presented: Presented::default() };
            served.insert(info.gvr(), Arc::new(resource));
        }
        let cache = |group, version, plural| {
            let found = served.get(&Gvr::new(group, version, plural)).and_then(|s: &Arc<Served>| s.cache.clone());
            found.ok_or_else(Status::no_such_resource)
        };
        let outgoing = Outgoing::new(cache("", "v1", "services")?, cache("discovery.k8s.io", "v1", "endpointslices")?);
        let service_ips = ServiceIps::new(&settings.service_cidr).map_err(Status::internal)?;
        Ok(Arc::new(Server {
            runtime: tokio::runtime::Handle::current(),
            store,
            surroundings,
            served,
            gates: Gatekeepers::default(),
            service_ips,
            inflight: Inflight::new(&settings),
            settings,
            metrics: crate::metrics::Metrics::default(),
            outgoing,
            closing: CancellationToken::new(),
            ready: false.into(),
        }))
    }

    pub fn served(&self, gvr: &Gvr) -> Result<&Arc<Served>> {
        self.served.get(gvr).ok_or_else(Status::no_such_resource)
    }

    /// The cache of a built-in resource, for gatekeepers.
    pub fn cache(&self, group: &str, version: &str, plural: &str) -> Result<Arc<Cache>> {
        self.served(&Gvr::new(group, version, plural))?.cache().cloned()
    }

    /// Refuses with upstream's 403 unless `user` may do this.
    pub fn authorize(&self, attributes: &Attributes) -> Result<()> {
        match self.gates.get()?.authorizer.authorize(attributes) {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(why) | Decision::NoOpinion(why) => Err(forbidden(attributes, &why)),
        }
    }

    /// The object as the store has it now: linearizable.
    pub async fn current(&self, served: &Served, namespace: &str, name: &str) -> Result<Option<Arc<Object>>> {
        let cache = served.cache()?;
        let (version, _) = self.store.get(&served.key(namespace, name)).await.map_err(storage::status)?;
        Ok(version.and_then(|v| self.as_object(cache, &v)).map(|object| served.present(object)))
    }

    /// The newest revision there is, whoever wrote it.
    pub async fn newest(&self) -> Result<u64> {
        self.store.current().await.map_err(storage::status)
    }

    /// Shares the cache's object when it has this very revision, so that its parsed tree is shared too.
    fn as_object(&self, cache: &Arc<Cache>, version: &Version) -> Option<Arc<Object>> {
        let key = version.key.strip_prefix(cache.prefix()).unwrap_or(&version.key);
        match cache.by_key(key) {
            Some(cached) if cached.revision == version.mod_revision => Some(cached),
            _ => cache.object(version),
        }
    }

    /// Makes an object that somebody else changed one of ours again: what the schema does not know goes, defaults come.
    pub fn reshape(&self, gvr: &Gvr, subresource: &str, object: &mut Value) -> Result<()> {
        let served = self.served(gvr)?;
        let own = (served.info.group, served.info.version, served.info.kind);
        let part = served.info.subresource(subresource).map_or(own, |s| s.kind);
        if part == own {
            canopus_api::schema::decode(served.schema.get(), object).map_err(Status::internal)?;
            served.resource.default(object);
        } else if let Some(ty) = canopus_schema::kind(part.0, part.1, part.2) {
            canopus_api::schema::decode(ty.get(), object).map_err(Status::internal)?;
        }
        Ok(())
    }

    /// Commits one write. Conflict: Err with `modified`, AlreadyExists or NotFound as fits the expectation.
    pub async fn commit(
        &self,
        served: &Served,
        namespace: &str,
        name: &str,
        expect: Expect,
        change: Change,
    ) -> Result<u64> {
        let key: Arc<str> = served.key(namespace, name).into();
        let outcome = self.store.commit(Write { key, expect, change }).await.map_err(storage::status)?;
        match outcome {
            Outcome::Committed { revision, .. } => Ok(revision),
            Outcome::Conflict { current, .. } => Err(match (expect, current) {
                (Expect::Absent, _) => Status::already_exists(&served.info.gvr(), name),
                (_, None) => Status::not_found(&served.info.gvr(), name),
                (_, Some(_)) => Status::modified(&served.info.gvr(), name),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_converted_once() {
        let object =
            |name: &str| Arc::new(Object::from_value(canopus_api::value!({"metadata": {"name": name}}), &[], 7));
        let presented = Presented::default();
        let (a, b) = (object("a"), object("b"));
        let first = presented.get(a.clone(), |o| o.at_revision(o.revision));
        // Watchers of a deletion each have an object of their own, with the same bytes.
        let again = presented.get(Arc::new(a.at_revision(7)), |_| unreachable!("it is known"));
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(presented.get(b, |o| o.at_revision(o.revision)).name(), "b");
    }
}
