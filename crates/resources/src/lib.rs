//! Every API resource, one file each: what it is called, how it is defaulted, prepared, validated and printed.
//! Pure: no I/O, no clock, no randomness. Routes, discovery, tables and docs are derived from [`ALL`].

pub mod admissionregistration;
pub mod apiextensions;
pub mod apiregistration;
pub mod apiserverinternal;
pub mod apps;
pub mod authentication;
pub mod authorization;
pub mod autoscaling;
pub mod batch;
pub mod bootstrap;
pub mod certificates;
pub mod checks;
pub mod coordination;
pub mod core;
pub mod custom;
pub mod discovery;
pub mod dra;
pub mod earlier;
pub mod events;
pub mod flowcontrol;
pub mod gated;
pub mod metadata;
pub mod networking;
pub mod node;
pub mod policy;
pub mod quota;
pub mod rbac;
pub mod resource;
pub mod scheduling;
pub mod semantic;
pub mod storage;
pub mod storagemigration;
pub mod strategy;
pub mod table;
#[cfg(test)]
mod testing;

pub use resource::{Column, ColumnOf, Context, Info, InfoOf, Requester, Resource, Subresource, SubresourceOf, Verb};

/// All built-in resources, sorted by group, version and plural name.
pub static ALL: &[&dyn Resource] = &[
    &core::binding::Binding,
    &core::componentstatus::ComponentStatus,
    &core::configmap::ConfigMap,
    &core::endpoints::Endpoints,
    &core::event::Event,
    &core::limitrange::LimitRange,
    &core::namespace::Namespace,
    &core::node::Node,
    &core::persistentvolumeclaim::PersistentVolumeClaim,
    &core::persistentvolume::PersistentVolume,
    &core::pod::Pod,
    &core::podtemplate::PodTemplate,
    &core::replicationcontroller::ReplicationController,
    &core::resourcequota::ResourceQuota,
    &core::secret::Secret,
    &core::serviceaccount::ServiceAccount,
    &core::service::Service,
    &admissionregistration::mutatingadmissionpolicy::MutatingAdmissionPolicy,
    &admissionregistration::mutatingadmissionpolicybinding::MutatingAdmissionPolicyBinding,
    &admissionregistration::mutatingwebhookconfiguration::MutatingWebhookConfiguration,
    &admissionregistration::validatingadmissionpolicy::ValidatingAdmissionPolicy,
    &admissionregistration::validatingadmissionpolicybinding::ValidatingAdmissionPolicyBinding,
    &admissionregistration::validatingwebhookconfiguration::ValidatingWebhookConfiguration,
    &earlier::MUTATING_POLICY_ALPHA,
    &earlier::MUTATING_BINDING_ALPHA,
    &earlier::MUTATING_POLICY,
    &earlier::MUTATING_BINDING,
    &apiextensions::customresourcedefinition::CustomResourceDefinition,
    &apiregistration::apiservice::APIService,
    &apps::controllerrevision::ControllerRevision,
    &apps::daemonset::DaemonSet,
    &apps::deployment::Deployment,
    &apps::replicaset::ReplicaSet,
    &apps::statefulset::StatefulSet,
    &authentication::selfsubjectreview::SelfSubjectReview,
    &authentication::tokenreview::TokenReview,
    &authorization::localsubjectaccessreview::LocalSubjectAccessReview,
    &authorization::selfsubjectaccessreview::SelfSubjectAccessReview,
    &authorization::selfsubjectrulesreview::SelfSubjectRulesReview,
    &authorization::subjectaccessreview::SubjectAccessReview,
    &autoscaling::v1::HorizontalPodAutoscaler,
    &autoscaling::v2::HorizontalPodAutoscaler,
    &batch::cronjob::CronJob,
    &batch::job::Job,
    &certificates::certificatesigningrequest::CertificateSigningRequest,
    &earlier::CLUSTER_TRUST_BUNDLE,
    &certificates::clustertrustbundle::ClusterTrustBundle,
    &certificates::podcertificaterequest::PodCertificateRequest,
    &coordination::lease::Lease,
    &earlier::LEASE_CANDIDATE,
    &coordination::leasecandidate::LeaseCandidate,
    &discovery::endpointslice::EndpointSlice,
    &events::event::Event,
    &flowcontrol::flowschema::FlowSchema,
    &flowcontrol::prioritylevelconfiguration::PriorityLevelConfiguration,
    &apiserverinternal::storageversion::StorageVersion,
    &networking::ingressclass::IngressClass,
    &networking::ingress::Ingress,
    &networking::ipaddress::IPAddress,
    &networking::networkpolicy::NetworkPolicy,
    &networking::servicecidr::ServiceCIDR,
    &earlier::IP_ADDRESS,
    &earlier::SERVICE_CIDR,
    &node::runtimeclass::RuntimeClass,
    &policy::poddisruptionbudget::PodDisruptionBudget,
    &rbac::clusterrolebinding::ClusterRoleBinding,
    &rbac::clusterrole::ClusterRole,
    &rbac::rolebinding::RoleBinding,
    &rbac::role::Role,
    &dra::deviceclass::DeviceClass,
    &dra::resourceclaim::ResourceClaim,
    &dra::resourceclaimtemplate::ResourceClaimTemplate,
    &dra::resourceslice::ResourceSlice,
    &earlier::DEVICE_TAINT_RULE,
    &dra::resourcepoolstatusrequest::ResourcePoolStatusRequest,
    &earlier::DEVICE_CLASS_BETA1,
    &earlier::RESOURCE_CLAIM_BETA1,
    &earlier::RESOURCE_CLAIM_TEMPLATE_BETA1,
    &earlier::RESOURCE_SLICE_BETA1,
    &earlier::DEVICE_CLASS,
    &dra::devicetaintrule::DeviceTaintRule,
    &earlier::RESOURCE_CLAIM,
    &earlier::RESOURCE_CLAIM_TEMPLATE,
    &earlier::RESOURCE_SLICE,
    &scheduling::priorityclass::PriorityClass,
    &scheduling::podgroup::PodGroup,
    &scheduling::workload::Workload,
    &storage::csidriver::CSIDriver,
    &storage::csinode::CSINode,
    &storage::csistoragecapacity::CSIStorageCapacity,
    &storage::storageclass::StorageClass,
    &storage::volumeattachment::VolumeAttachment,
    &storage::volumeattributesclass::VolumeAttributesClass,
    &earlier::VOLUME_ATTRIBUTES_CLASS,
    &storagemigration::storageversionmigration::StorageVersionMigration,
];

/// The built-in resource of this group, version and plural name.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static dyn Resource> {
    let key = (group, version, plural);
    let found = ALL.binary_search_by(|r| {
        let info = r.info();
        (info.group, info.version, info.plural).cmp(&key)
    });
    found.ok().map(|i| ALL[i])
}

/// The built-in resource that serves this kind.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static dyn Resource> {
    ALL.iter().copied().find(|r| {
        let info = r.info();
        (info.group, info.version, info.kind) == (group, version, kind)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_every_kind_has_a_schema() {
        let keys: Vec<_> = ALL.iter().map(|r| (r.info().group, r.info().version, r.info().plural)).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
        for r in ALL {
            let info = r.info();
            let schema = canopus_schema::kind(info.group, info.version, info.kind);
            assert!(schema.is_some_and(|ty| !ty.get().wire.is_empty()), "{} has no schema or no message", info.kind);
        }
    }
}
