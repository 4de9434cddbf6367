//! What unit tests share: a stopped clock, a fixed set of objects, a server with all its gatekeepers.

use crate::admission::plugins::plugins;
use crate::authn::certificates::ClientCertificates;
use crate::authn::jwt::SigningKey;
use crate::authn::tokens::{BoundObjects, ServiceAccountTokens};
use crate::authz::changes::Changes;
use crate::authz::privileged::standard;
use crate::authz::rbac::Rbac;
use crate::node_proxy::NodeProxy;
use crate::pki;
use crate::server::{Gates, Server};
use crate::settings::Settings;
use crate::surroundings::{Surroundings, System};
use canopus_api::{Object, Time, Value, View};
use canopus_store::{Limits, memory::MemoryStore};
use std::collections::BTreeMap;
use std::net::IpAddr;
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

/// A server as `canopus up` has it, on a store in memory.
pub async fn server() -> Arc<Server> {
    server_with(Settings::default()).await
}

pub async fn server_with(settings: Settings) -> Arc<Server> {
    let store = Arc::new(MemoryStore::new(Limits::default()).unwrap());
    let server = Server::start(store, Arc::new(System), settings).await.unwrap();
    let tls = Arc::new(pki::client_config("", None).unwrap());
    let key = SigningKey::from_pem(&rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let objects = BoundObjects::of(&server).unwrap();
    let clock = || server.surroundings.clone();
    let tokens = Arc::new(ServiceAccountTokens::new("https://issuer", vec![], key, clock(), objects));
    let rbac = Rbac::of(&server).unwrap();
    server.gates.set(Gates {
        authenticators: vec![Arc::new(ClientCertificates::new(clock())), tokens.clone()],
        authorizer: Box::new(standard(&server, &rbac).unwrap()),
        admission: plugins(&server, &rbac).unwrap(),
        tokens,
        nodes: Arc::new(NodeProxy::new(tls)),
    });
    crate::bootstrap::run(&server, IpAddr::from([192, 0, 2, 1]), 6443).await.unwrap();
    server
}
