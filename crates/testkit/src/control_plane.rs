//! A control plane in this process, without a network: API server on a durable store, controllers, scheduler.

use anyhow::{Result, anyhow};
use canopus_api::Api;
use canopus_apiserver::authn::jwt::SigningKey;
use canopus_apiserver::authn::tokens::{BoundObjects, ServiceAccountTokens};
use canopus_apiserver::authz::{privileged, rbac::Rbac};
use canopus_apiserver::node_proxy::NodeProxy;
use canopus_apiserver::server::Gates;
use canopus_apiserver::surroundings::System;
use canopus_apiserver::user::{MASTERS, NODES};
use canopus_apiserver::{LocalApi, Server, Settings, User, admission, bootstrap, compaction, pki};
use canopus_store::sqlite::{Options, SqliteStore};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Stopped when dropped.
pub struct ControlPlane {
    server: Arc<Server>,
    shutdown: CancellationToken,
}

/// On whose threads each component runs, so that their CPU time can be told apart.
pub struct Threads {
    pub server: Handle,
    pub controllers: Handle,
    pub scheduler: Handle,
}

fn failed(error: canopus_api::Status) -> anyhow::Error {
    anyhow!("failed to start the API server: {error}")
}

impl ControlPlane {
    /// Starts one with its data in `dir`. `cluster_cidr` is shared out among the nodes, a /24 each.
    pub async fn start(dir: &Path, cluster_cidr: &str, threads: &Threads) -> Result<ControlPlane> {
        // One provider for every TLS connection of the process; a second call could only come from here.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let shutdown = CancellationToken::new();
        let path = dir.join("store.db");
        let stop = shutdown.clone();
        let server = threads.server.spawn(async move { serve(&path, stop).await }).await??;
        let table = server.catalog.table();
        let stored = table.stored().into_iter();
        let resources = stored.map(|s| canopus_controllers::ResourceInfo {
            gvr: s.info().gvr(),
            kind: s.info().kind.into(),
            namespaced: s.info().namespaced,
        });
        let config = canopus_controllers::Config {
            token_signer: None,
            certifier: None,
            root_ca: String::new(),
            resources: resources.collect(),
            cluster_cidr: cluster_cidr.into(),
        };
        let plane = ControlPlane { server: server.clone(), shutdown };
        let api = plane.api("system:kube-controller-manager", &[], "kube-controller-manager");
        let account = move |name: &str| {
            let user = User::new(&format!("system:serviceaccount:kube-system:{name}"), &["system:serviceaccounts"]);
            LocalApi::shared(server.clone(), user, "kube-controller-manager")
        };
        threads.controllers.spawn(canopus_controllers::run(config, api, account, plane.shutdown.clone()));
        let api = plane.api("system:kube-scheduler", &[], "kube-scheduler");
        threads.scheduler.spawn(canopus_scheduler::run(
            canopus_scheduler::Config::default(),
            api,
            plane.shutdown.clone(),
        ));
        Ok(plane)
    }

    fn api(&self, user: &str, groups: &[&str], manager: &str) -> Arc<dyn Api> {
        LocalApi::shared(self.server.clone(), User::new(user, groups), manager)
    }

    /// The door of somebody who may do everything.
    pub fn admin(&self) -> Arc<dyn Api> {
        self.api("admin", &[MASTERS], "kubectl")
    }

    /// The door of a node agent.
    pub fn node(&self, name: &str) -> Arc<dyn Api> {
        self.api(&format!("system:node:{name}"), &[NODES], "kubelet")
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn serve(path: &Path, shutdown: CancellationToken) -> Result<Arc<Server>> {
    let path = path.to_owned();
    let store = tokio::task::spawn_blocking(move || SqliteStore::open(path, Options::default())).await??;
    let server = Server::start(Arc::new(store), Arc::new(System), Settings::default()).await.map_err(failed)?;
    let key = SigningKey::from_pem(&rcgen::KeyPair::generate()?.serialize_pem())?;
    let objects = BoundObjects::of(&server).map_err(failed)?;
    let tokens = Arc::new(ServiceAccountTokens::new("https://issuer", vec![], key, Arc::new(System), objects));
    let rbac = Rbac::of(&server).map_err(failed)?;
    server.gates.set(Gates {
        authenticators: vec![tokens.clone()],
        token_authenticators: Vec::new(),
        authorizer: Arc::new(privileged::standard(&server, &rbac).map_err(failed)?),
        admission: Arc::new(admission::plugins::plugins(&server, &rbac).map_err(failed)?),
        tokens,
        nodes: Arc::new(NodeProxy::new(Arc::new(pki::client_config("", None)?))),
    });
    bootstrap::run(&server, IpAddr::from([192, 0, 2, 1]), 6443).await.map_err(failed)?;
    tokio::spawn(compaction::run(server.clone(), shutdown));
    Ok(server)
}
