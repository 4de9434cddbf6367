//! The plugins a cluster has, in upstream's order (`options.AllOrderedPlugins`).

use super::admin_access::AdminAccess;
use super::certificates;
use super::default_ingress_class::DefaultIngressClass;
use super::default_storage_class::DefaultStorageClass;
use super::default_toleration_seconds::DefaultTolerationSeconds;
use super::fresh::Fresh;
use super::limit_ranger::LimitRanger;
use super::namespace_lifecycle::NamespaceLifecycle;
use super::node_declared_features::NodeDeclaredFeatures;
use super::node_restriction::NodeRestriction;
use super::persistent_volume_claim_resize::PersistentVolumeClaimResize;
use super::pod_resize_validator::PodResizeValidator;
use super::pod_security::PodSecurity;
use super::pod_topology_labels::PodTopologyLabels;
use super::policy::{MutatingPolicies, PolicyParams, ValidatingPolicies};
use super::priority::Priority;
use super::rbac_escalation::RbacEscalation;
use super::resource_quota::ResourceQuota;
use super::runtime_class::RuntimeClass;
use super::service_account::ServiceAccount;
use super::storage_object_in_use_protection::StorageObjectInUseProtection;
use super::taint_nodes_by_condition::TaintNodesByCondition;
use super::webhook::{MutatingWebhooks, ValidatingWebhooks};
use super::{Chain, Plugin};
use crate::authz::rbac::Rbac;
use crate::server::Server;
use canopus_api::Result;
use std::sync::Arc;

/// Reads the server's own caches. `rbac` is the one that also authorizes, so that both know the same policy.
pub fn plugins(server: &Arc<Server>, rbac: &Arc<Rbac>) -> Result<Chain> {
    let core = |plural| Fresh::of(server, "", "v1", plural);
    let mut plugins: Vec<Box<dyn Plugin>> = vec![
        Box::new(NamespaceLifecycle::new(core("namespaces")?, server.surroundings.clone())),
        Box::new(LimitRanger { ranges: server.cache("", "v1", "limitranges")? }),
        Box::new(ServiceAccount { accounts: core("serviceaccounts")?, dice: server.surroundings.clone() }),
        Box::new(NodeRestriction::new(server)?),
        Box::new(TaintNodesByCondition),
        Box::new(PodSecurity {
            config: server.settings.pod_security.clone(),
            namespaces: core("namespaces")?,
            pods: server.cache("", "v1", "pods")?,
            metrics: server.metrics.pod_security.clone(),
        }),
        Box::new(Priority::new(server.cache("scheduling.k8s.io", "v1", "priorityclasses")?)),
        Box::new(DefaultTolerationSeconds),
        Box::new(DefaultStorageClass { classes: server.cache("storage.k8s.io", "v1", "storageclasses")? }),
        Box::new(StorageObjectInUseProtection),
        Box::new(PersistentVolumeClaimResize { classes: server.cache("storage.k8s.io", "v1", "storageclasses")? }),
        Box::new(RuntimeClass { classes: Fresh::of(server, "node.k8s.io", "v1", "runtimeclasses")? }),
        Box::new(DefaultIngressClass { classes: server.cache("networking.k8s.io", "v1", "ingressclasses")? }),
    ];
    if server.settings.features.enabled("PodTopologyLabelsAdmission") {
        plugins.push(Box::new(PodTopologyLabels { nodes: core("nodes")? }));
    }
    plugins.push(Box::new(PodResizeValidator { nodes: core("nodes")? }));
    if server.settings.features.enabled("NodeDeclaredFeatures") {
        plugins.push(Box::new(NodeDeclaredFeatures { nodes: core("nodes")? }));
    }
    plugins.extend(certificates::plugins(server));
    plugins.push(Box::new(MutatingPolicies::new(server)?));
    plugins.push(Box::new(MutatingWebhooks::new(server)?));
    plugins.push(Box::new(ValidatingPolicies::new(server)?));
    plugins.push(Box::new(ValidatingWebhooks::new(server)?));
    plugins.push(Box::new(ResourceQuota::new(server)?));
    // Upstream has these in the storage of what they are about, behind all plugins.
    plugins.push(Box::new(certificates::PodCertificateSign(Arc::downgrade(server))));
    plugins.push(Box::new(AdminAccess { namespaces: core("namespaces")? }));
    plugins.push(Box::new(PolicyParams::new(server)));
    plugins.push(Box::new(RbacEscalation { rbac: rbac.clone(), server: Arc::downgrade(server) }));
    Ok(Chain::new(plugins))
}

#[cfg(test)]
#[path = "plugins_tests.rs"]
mod tests;
