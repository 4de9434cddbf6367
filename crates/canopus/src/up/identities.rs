//! Under which name each component speaks to the API: upstream's, so that upstream's RBAC policy fits.

use canopus_api::Api;
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
