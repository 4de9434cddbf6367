//! The controllers of kube-controller-manager: each brings one kind of object's world to what the object says.
//! One file each; [`CONTROLLERS`] lists them all. They read shared views ([`canopus_client::Informers`], under the
//! identity of kube-controller-manager) and write under a service account of their own, as upstream.

mod backends;
mod certificates;
mod clusterrole;
mod context;
mod custom;
mod deployment;
mod disruption;
mod endpoints;
mod endpointslice;
mod endpointslicemirroring;
mod garbage;
mod namespace;
mod nodeipam;
mod nodelifecycle;
mod podgc;
mod pods;
mod policystatus;
mod protection;
mod replicaset;
mod resourcequota;
mod rootca;
mod serviceaccount;
mod servicecidrs;
mod storageversionmigrator;
mod tainteviction;
mod tokens;

pub use certificates::{Certifier, Certify, Wish};
pub use context::{Config, Context, ResourceInfo, Signer};

use canopus_api::Api;
use canopus_client::Informers;
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Starts one controller; the future ends after shutdown.
pub type Start = fn(Arc<Context>) -> BoxFuture<'static, ()>;

/// All controllers by upstream's name, in alphabetical order.
pub const CONTROLLERS: &[(&str, Start)] = &[
    ("certificatesigningrequest-approving-controller", |c| Box::pin(certificates::run_approver(c))),
    ("certificatesigningrequest-cleaner-controller", |c| Box::pin(certificates::run_cleaner(c))),
    ("certificatesigningrequest-signing-controller", |c| Box::pin(certificates::run_signer(c))),
    ("clusterrole-aggregation-controller", |c| Box::pin(clusterrole::run(c))),
    ("deployment-controller", |c| Box::pin(deployment::run(c))),
    ("disruption-controller", |c| Box::pin(disruption::run(c))),
    ("endpoints-controller", |c| Box::pin(endpoints::run(c))),
    ("endpointslice-controller", |c| Box::pin(endpointslice::run(c))),
    ("endpointslice-mirroring-controller", |c| Box::pin(endpointslicemirroring::run(c))),
    ("garbage-collector-controller", |c| Box::pin(garbage::run(c))),
    ("namespace-controller", |c| Box::pin(namespace::run(c))),
    ("node-ipam-controller", |c| Box::pin(nodeipam::run(c))),
    ("node-lifecycle-controller", |c| Box::pin(nodelifecycle::run(c))),
    ("persistentvolume-protection-controller", |c| Box::pin(protection::run(c, &protection::VOLUMES))),
    ("persistentvolumeclaim-protection-controller", |c| Box::pin(protection::run(c, &protection::CLAIMS))),
    ("pod-garbage-collector-controller", |c| Box::pin(podgc::run(c))),
    ("replicaset-controller", |c| Box::pin(replicaset::run(c, &replicaset::REPLICA_SET))),
    ("replicationcontroller-controller", |c| Box::pin(replicaset::run(c, &replicaset::REPLICATION_CONTROLLER))),
    ("resourcequota-controller", |c| Box::pin(resourcequota::run(c))),
    ("root-ca-certificate-publisher-controller", |c| Box::pin(rootca::run(c))),
    ("service-cidr-controller", |c| Box::pin(servicecidrs::run(c))),
    ("serviceaccount-controller", |c| Box::pin(serviceaccount::run(c))),
    ("serviceaccount-token-controller", |c| Box::pin(tokens::run(c))),
    ("storage-version-migrator-controller", |c| Box::pin(storageversionmigrator::run(c))),
    ("taint-eviction-controller", |c| Box::pin(tainteviction::run(c))),
    ("validatingadmissionpolicy-status-controller", |c| Box::pin(policystatus::run(c))),
    ("volumeattributesclass-protection-controller", |c| Box::pin(protection::run(c, &protection::ATTRIBUTES))),
];

/// Runs every controller until `shutdown`. `api` is kube-controller-manager's own door, for the views; `accounts` gives
/// the door of `system:serviceaccount:kube-system:<name>` for a service account's name (`deployment-controller`).
pub async fn run(
    config: Config,
    api: Arc<dyn Api>,
    accounts: impl Fn(&str) -> Arc<dyn Api> + Send + Sync + 'static,
    shutdown: CancellationToken,
) {
    let informers = Informers::new(api, shutdown.clone());
    let (config, accounts) = (Arc::new(config), Arc::new(accounts));
    let all = CONTROLLERS.iter().map(|(_, start)| {
        start(Arc::new(Context::new(config.clone(), informers.clone(), accounts.clone(), shutdown.clone())))
    });
    futures::future::join_all(all).await;
}
