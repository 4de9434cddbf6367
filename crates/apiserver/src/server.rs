//! The API server's state: the store, the resources it serves with their watch caches, and the gatekeepers.

use crate::admission::Chain;
use crate::aggregator::Aggregator;
use crate::authn::{Authenticator, TokenAuthenticator};
use crate::authz::{Attributes, Decision, Union, Verdict, forbidden};
use crate::cache::Cache;
use crate::catalog::{Catalog, Members};
use crate::flowcontrol::FlowControl;
use crate::http::limits::Inflight;
use crate::notes;
use crate::outgoing::Outgoing;
use crate::runtime_config::stage;
use crate::served::Served;
use crate::service_ips::ServiceIps;
use crate::settings::Settings;
use crate::storage;
use crate::surroundings::Surroundings;
use canopus_api::{Gvr, Object, Result, Status, Value};
use canopus_resources::Info;
use canopus_store::{Change, Expect, Outcome, Store, Version, Write};
use parking_lot::RwLock;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

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
    /// What is served: changes as definitions come and go.
    pub catalog: Catalog,
    /// What there is to serve, be it served or not.
    built_in: HashMap<Gvr, Arc<Served>>,
    pub gates: Gatekeepers,
    pub service_ips: ServiceIps,
    pub settings: Settings,
    /// Whether CBOR is served, and custom resources are stored as CBOR (KEP-4222).
    pub(crate) cbor: bool,
    pub inflight: Inflight,
    pub flow: FlowControl,
    pub metrics: crate::metrics::Metrics,
    pub health: crate::health::Health,
    /// What else of the cluster runs in this process.
    pub components: crate::components::Components,
    /// What is written down about requests; set at most once, before the first of them.
    pub audit: OnceLock<Arc<crate::audit::Audit>>,
    /// How what is stored is encrypted; set at most once, before the first request.
    pub encryption: OnceLock<Arc<crate::encryption::Encryption>>,
    /// What is told about requests to a collector; set at most once, before the first of them.
    pub traces: OnceLock<Arc<crate::traces::Traces>>,
    /// Who may come without a name.
    pub anonymous: RwLock<Arc<crate::authn::Anonymous>>,
    /// For calling webhooks, extension servers and whom proxies lead to.
    pub outgoing: Outgoing,
    /// Group versions that others answer for.
    pub aggregator: Aggregator,
    /// Cancelled when the server is about to stop: watches over the network end.
    pub closing: CancellationToken,
}

/// Who is let in and what is let through. Built after the server, since they read its caches.
#[derive(Default)]
pub struct Gatekeepers {
    parts: RwLock<Option<Arc<Gates>>>,
}

#[derive(Clone)]
pub struct Gates {
    pub authenticators: Vec<Arc<dyn Authenticator>>,
    /// Asked, in this order, about tokens that none of the others knows.
    pub token_authenticators: Vec<Arc<dyn TokenAuthenticator>>,
    pub authorizer: Arc<Union>,
    pub admission: Arc<Chain>,
    pub tokens: Arc<dyn TokenIssuer>,
    pub nodes: Arc<crate::node_proxy::NodeProxy>,
}

impl Gatekeepers {
    pub fn set(&self, gates: Gates) {
        *self.parts.write() = Some(Arc::new(gates));
    }

    /// Lets others decide what is authorized from now on.
    pub fn set_authorizer(&self, authorizer: Union) -> Result<()> {
        let gates = Gates { authorizer: Arc::new(authorizer), ..Gates::clone(&*self.get()?) };
        self.set(gates);
        Ok(())
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
        let cbor = settings.features.enabled("CBORServingAndStorage");
        let (mut members, mut built_in) = (Members { cbor, ..Members::default() }, HashMap::new());
        let mut caches: HashMap<String, Arc<Cache>> = HashMap::new();
        let serves = |info: &Info| {
            settings.runtime_config.serves(info) && (info.gate.is_empty() || settings.features.enabled(info.gate))
        };
        // What is stable is there for gatekeepers, be it served or not. The rest is there if it is served in any version.
        let infos = || canopus_resources::ALL.iter().map(|r| r.info());
        let stored_as = |info: &'static Info| {
            let other = info.storage.and_then(|(g, v, p)| canopus_resources::find(g, v, p));
            other.map_or(info, |other| other.info())
        };
        let kept = |info: &'static Info| stage(info.version) == "ga" || serves(info);
        let known: HashSet<String> = infos().filter(|i| kept(i)).map(|i| storage::prefix(stored_as(i))).collect();
        for resource in canopus_resources::ALL {
            let info = resource.info();
            let stored_as = info.storage.and_then(|(g, v, p)| canopus_resources::find(g, v, p)).unwrap_or(*resource);
            let prefix = storage::prefix(stored_as.info());
            let cache = match (info.stored && known.contains(&prefix), caches.get(&prefix)) {
                (false, _) => None,
                (true, Some(shared)) => Some(shared.clone()),
                (true, None) => {
                    let cache = Cache::start(&store, &prefix, stored_as.into()).await.map_err(storage::status)?;
                    caches.insert(prefix.clone(), cache.clone());
                    Some(cache)
                }
            };
            let served = Arc::new(Served::built_in(*resource, stored_as, prefix, cache, &settings.features)?);
            built_in.insert(info.gvr(), served.clone());
            if serves(info) {
                members.served.insert(info.gvr(), served);
            }
        }
        let cache = |group, version, plural| {
            let found = built_in.get(&Gvr::new(group, version, plural)).and_then(|s: &Arc<Served>| s.cache.clone());
            found.ok_or_else(Status::no_such_resource)
        };
        let outgoing = Outgoing::new(cache("", "v1", "services")?, cache("discovery.k8s.io", "v1", "endpointslices")?);
        let service_ips = ServiceIps::new(&settings.service_cidr).map_err(Status::internal)?;
        let health = crate::health::Health::default();
        if settings.priority_and_fairness {
            health.expect(&["poststarthook/priority-and-fairness-config-consumer"]);
        }
        health.expect(crate::bootstrap::HOOKS);
        Ok(Arc::new(Server {
            runtime: tokio::runtime::Handle::current(),
            store,
            surroundings,
            catalog: Catalog::new(members),
            built_in,
            gates: Gatekeepers::default(),
            service_ips,
            inflight: Inflight::new(&settings),
            flow: FlowControl::new(&settings),
            cbor,
            settings,
            metrics: crate::metrics::Metrics::default(),
            health,
            components: Default::default(),
            audit: OnceLock::new(),
            encryption: OnceLock::new(),
            traces: OnceLock::new(),
            anonymous: RwLock::default(),
            outgoing,
            aggregator: Aggregator::default(),
            closing: CancellationToken::new(),
        }))
    }

    pub fn served(&self, gvr: &Gvr) -> Result<Arc<Served>> {
        self.catalog.served(gvr).ok_or_else(Status::no_such_resource)
    }

    /// A resource of the program's own, be it served or not.
    pub(crate) fn built_in(&self, gvr: &Gvr) -> Option<&Arc<Served>> {
        self.built_in.get(gvr)
    }

    /// The cache of a built-in resource, for gatekeepers: also of one that is not served.
    pub fn cache(&self, group: &str, version: &str, plural: &str) -> Result<Arc<Cache>> {
        let gvr = Gvr::new(group, version, plural);
        match self.built_in.get(&gvr) {
            Some(built_in) => built_in.cache().cloned(),
            None => self.served(&gvr)?.cache().cloned(),
        }
    }

    /// What the authorizers say.
    ///
    /// # Errors
    /// 500 when nobody has an opinion, but one could not be asked.
    pub async fn decide(&self, attributes: &Attributes<'_>) -> Result<Decision> {
        let verdict = self.verdict(attributes).await?;
        match verdict.error {
            Some(error) if !matches!(verdict.decision, Decision::Allow(_)) => Err(Status::internal(error)),
            _ => Ok(verdict.decision),
        }
    }

    /// What the authorizers say, and what went wrong.
    pub async fn verdict(&self, attributes: &Attributes<'_>) -> Result<Verdict> {
        let started = Instant::now();
        let verdict = self.gates.get()?.authorizer.authorize(self, attributes).await;
        self.measure(&verdict, started);
        Ok(verdict)
    }

    /// The same for those who cannot wait: if somebody has to be asked over the network, the thread waits.
    pub fn verdict_now(&self, attributes: &Attributes) -> Result<Verdict> {
        let started = Instant::now();
        let authorizer = self.gates.get()?.authorizer.clone();
        let verdict = match authorizer.authorize_here(attributes) {
            Some(verdict) => verdict,
            None => tokio::task::block_in_place(|| self.runtime.block_on(authorizer.authorize(self, attributes))),
        };
        self.measure(&verdict, started);
        Ok(verdict)
    }

    fn measure(&self, verdict: &Verdict, started: Instant) {
        let result = match &verdict.decision {
            Decision::Allow(_) => "allowed",
            _ if verdict.error.is_some() => "error",
            Decision::Deny(_) => "denied",
            Decision::NoOpinion(_) => "no-opinion",
        };
        self.metrics.authorized(result, started.elapsed());
    }

    /// Refuses with upstream's 403 unless `user` may do this.
    pub async fn authorize(&self, attributes: &Attributes<'_>) -> Result<()> {
        match self.decide(attributes).await? {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(why) | Decision::NoOpinion(why) => Err(forbidden(attributes, &why)),
        }
    }

    /// The object as the store has it now: linearizable.
    pub async fn current(&self, served: &Served, namespace: &str, name: &str) -> Result<Option<Arc<Object>>> {
        let cache = served.cache()?;
        let key = served.key(namespace, name);
        let (version, _) = self.timed("get", served, self.store.get(&key)).await.map_err(storage::status)?;
        match version.and_then(|v| self.as_object(cache, &v)) {
            Some(object) => served.present(object).await.map(Some),
            None => Ok(None),
        }
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
        let own = (served.info().group, served.info().version, served.info().kind);
        let part = served.info().subresource(subresource).map_or(own, |s| s.kind);
        if part == own {
            canopus_api::schema::decode(served.schema(), object).map_err(Status::internal)?;
            served.resource.default(object);
        } else if let Some(ty) = canopus_schema::kind(part.0, part.1, part.2) {
            canopus_api::schema::decode(ty.get().into(), object).map_err(Status::internal)?;
        }
        Ok(())
    }

    /// Measures a question to the store.
    pub async fn timed<T>(
        &self,
        operation: &str,
        served: &Served,
        question: impl Future<Output = std::result::Result<T, canopus_store::Error>>,
    ) -> std::result::Result<T, canopus_store::Error> {
        let started = Instant::now();
        let answer = question.await;
        let info = served.info();
        self.metrics.stored(operation, info.group, info.plural, started.elapsed(), answer.is_err());
        answer
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
        let operation = match (&change, expect) {
            (Change::Delete, _) => "delete",
            (_, Expect::Absent) => "create",
            _ => "update",
        };
        let _part = match operation {
            "create" => notes::part("Create etcd3", || about_write(served, &key)),
            "update" => notes::part("GuaranteedUpdate etcd3", || about_write(served, &key)),
            _ => None,
        };
        let change = if self.cbor { storage::as_cbor(served, change) } else { change };
        let committed = self.store.commit(Write { key, expect, change });
        let outcome = self.timed(operation, served, committed).await.map_err(storage::status)?;
        match outcome {
            Outcome::Committed { revision, .. } => Ok(revision),
            Outcome::Conflict { current, .. } => Err(match (expect, current) {
                (Expect::Absent, _) => Status::already_exists(&served.info().gvr(), name),
                (_, None) => Status::not_found(&served.info().gvr(), name),
                (_, Some(_)) => Status::modified(&served.info().gvr(), name),
            }),
        }
    }
}

/// What a trace says about a write.
fn about_write(served: &Served, key: &str) -> crate::traces::Attributes {
    let info = served.info();
    vec![
        ("key", key.into()),
        ("type", info.kind.into()),
        ("group", info.group.into()),
        ("resource", info.plural.into()),
    ]
}
