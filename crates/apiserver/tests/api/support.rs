//! An API server on a store in memory that lets everybody do everything, or as much as a test says.

use canopus_api::{Api, Gvr, Status, Target, Value, value};
use canopus_apiserver::admission::Chain;
use canopus_apiserver::authz::{Attributes, Authorizer, Decision};
use canopus_apiserver::node_proxy::NodeProxy;
use canopus_apiserver::server::{Gates, TokenClaims, TokenIssuer};
use canopus_apiserver::surroundings::System;
use canopus_apiserver::{LocalApi, Server, Settings, User};
use canopus_store::Store;
use canopus_store::memory::MemoryStore;
use std::sync::Arc;

/// Lets everybody do what it says yes to.
struct Rule(fn(&Attributes) -> bool);

impl Authorizer for Rule {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        if (self.0)(attributes) { Decision::Allow(String::new()) } else { Decision::NoOpinion(String::new()) }
    }
}

struct NoTokens;

impl TokenIssuer for NoTokens {
    fn issue(&self, _: TokenClaims) -> Result<String, Status> {
        Err(Status::unavailable("no tokens here"))
    }

    fn audiences(&self) -> &[String] {
        &[]
    }

    fn jwks(&self) -> Value {
        Value::Null
    }

    fn openid_configuration(&self) -> Value {
        Value::Null
    }
}

pub async fn api() -> Arc<dyn Api> {
    api_for(|_| true).await
}

/// Everybody may do what `allowed` says.
pub async fn api_for(allowed: fn(&Attributes) -> bool) -> Arc<dyn Api> {
    let server = server(Arc::new(MemoryStore::new(Default::default()).unwrap()), allowed).await;
    LocalApi::shared(server, User::new("tester", &[]), "tests")
}

pub async fn server(store: Arc<dyn Store>, allowed: fn(&Attributes) -> bool) -> Arc<Server> {
    let server = Server::start(store, Arc::new(System), Settings::default()).await.unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    server.gates.set(Gates {
        authenticators: Vec::new(),
        token_authenticators: Vec::new(),
        authorizer: Arc::new(Rule(allowed).into()),
        admission: Arc::new(Chain::new(Vec::new())),
        tokens: Arc::new(NoTokens),
        nodes: Arc::new(NodeProxy::new(Arc::new(tls))),
    });
    server
}

pub fn config_maps() -> Gvr {
    Gvr::new("", "v1", "configmaps")
}

pub fn target(name: &str) -> Target {
    Target::new(&config_maps(), "default", name)
}

pub fn config_map(name: &str, data: &str) -> Value {
    value!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": data}})
}
