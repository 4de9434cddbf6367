//! Under which name each component speaks to the API: upstream's, so that upstream's RBAC policy fits.

use canopus_api::Api;
use canopus_apiserver::user::{MASTERS, NODES};
use canopus_apiserver::{LocalApi, Server, User};
use std::sync::Arc;

pub fn controller_manager(server: &Arc<Server>) -> Arc<dyn Api> {
    LocalApi::shared(server.clone(), User::new("system:kube-controller-manager", &[]), "kube-controller-manager")
}

/// A controller's own service account: `deployment-controller`.
pub fn controller(server: &Arc<Server>, name: &str) -> Arc<dyn Api> {
    let user = format!("system:serviceaccount:kube-system:{name}");
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
    LocalApi::shared(server.clone(), User::new(&user, &groups), "kube-controller-manager")
}

pub fn scheduler(server: &Arc<Server>) -> Arc<dyn Api> {
    LocalApi::shared(server.clone(), User::new("system:kube-scheduler", &[]), "kube-scheduler")
}

pub fn node(server: &Arc<Server>, name: &str) -> Arc<dyn Api> {
    LocalApi::shared(server.clone(), User::new(&format!("system:node:{name}"), &[NODES]), "kubelet")
}

pub fn proxy(server: &Arc<Server>) -> Arc<dyn Api> {
    LocalApi::shared(server.clone(), User::new("system:kube-proxy", &[]), "kube-proxy")
}

/// For what only the cluster's own set-up does: cluster DNS.
pub fn setup(server: &Arc<Server>) -> Arc<dyn Api> {
    LocalApi::shared(server.clone(), User::new("system:apiserver", &[MASTERS]), "canopus")
}
