//! What unit tests share: a stopped clock, a fixed set of objects, a server with all its gatekeepers.

use crate::admission::plugins::plugins;
use crate::authn::certificates::{Authority, ClientCertificates};
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
use bytes::Bytes;
use canopus_api::{Object, Time, Value, View};
use canopus_store::{Limits, Store, memory::MemoryStore};
use http_body_util::{BodyExt, Full};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls_pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

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

/// Whom [`server`] believes about its clients.
fn ca() -> &'static (String, Issuer<'static, KeyPair>) {
    static CA: OnceLock<(String, Issuer<'static, KeyPair>)> = OnceLock::new();
    CA.get_or_init(|| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        (pki::pem("CERTIFICATE", &der), Issuer::new(params, key))
    })
}

pub fn ca_pem() -> String {
    ca().0.clone()
}

/// The certificate of a client of [`server`].
pub fn client_certificate(name: &str, group: &str) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.signed_by(&KeyPair::generate().unwrap(), &ca().1).unwrap().der().clone()
}

/// A server as `canopus up` has it, on a store in memory.
pub async fn server() -> Arc<Server> {
    server_with(Settings::default()).await
}

pub async fn server_with(settings: Settings) -> Arc<Server> {
    server_on(Arc::new(MemoryStore::new(Limits::default()).unwrap()), settings).await
}

pub async fn server_on(store: Arc<dyn Store>, settings: Settings) -> Arc<Server> {
    let server = Server::start(store, Arc::new(System), settings).await.unwrap();
    let tls = Arc::new(pki::client_config("", None).unwrap());
    let key = SigningKey::from_pem(&KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let objects = BoundObjects::of(&server).unwrap();
    let clock = || server.surroundings.clone();
    let tokens = Arc::new(ServiceAccountTokens::new("https://issuer", vec![], key, clock(), objects));
    let rbac = Rbac::of(&server).unwrap();
    server.gates.set(Gates {
        authenticators: vec![
            Arc::new(ClientCertificates::new(clock(), Authority::new(&ca_pem()).unwrap())),
            tokens.clone(),
        ],
        token_authenticators: Vec::new(),
        authorizer: Arc::new(standard(&server, &rbac).unwrap()),
        admission: Arc::new(plugins(&server, &rbac).unwrap()),
        tokens,
        nodes: Arc::new(NodeProxy::new(tls)),
    });
    crate::bootstrap::run(&server, IpAddr::from([192, 0, 2, 1]), 6443).await.unwrap();
    server
}

/// A TLS server with an authority of its own, which answers what `answer` makes of a request and its document. It may be `ext.default.svc`.
/// Its port, its
/// authority's certificate, and how many connections it took.
pub async fn listen<F>(answer: F) -> (u16, String, Arc<AtomicUsize>)
where
    F: Fn(&http::request::Parts, &Value) -> (u16, String) + Send + Sync + 'static,
{
    listen_to(None, answer).await
}

/// The same for clients of an authority.
pub async fn listen_to<F>(clients: Option<&str>, answer: F) -> (u16, String, Arc<AtomicUsize>)
where
    F: Fn(&http::request::Parts, &Value) -> (u16, String) + Send + Sync + 'static,
{
    let dir = tempfile::tempdir().unwrap();
    let pki = pki::Pki::open(dir.path(), System.now()).unwrap();
    let identity = pki.api_server(&["ext.default.svc".into()], &[]).unwrap();
    let tls = pki::server_config(&identity, clients.unwrap_or(pki.ca_pem())).unwrap();
    let tls = tokio_rustls::TlsAcceptor::from(tls);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let (count, answer) = (connections.clone(), Arc::new(answer));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let (tls, answer) = (tls.clone(), answer.clone());
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(stream).await else { return };
                let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let answer = answer.clone();
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let (code, text) = answer(&parts, &canopus_api::json::parse(&body).unwrap_or_default());
                        let body = Full::new(Bytes::from(text));
                        Ok::<_, std::convert::Infallible>(http::Response::builder().status(code).body(body).unwrap())
                    }
                });
                let server = hyper::server::conn::http1::Builder::new();
                let _ = server.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
            });
        }
    });
    (port, pki.ca_pem().to_string(), connections)
}
