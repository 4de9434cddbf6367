//! Earlier versions that differ from the one that is stored by nothing but their name, or by where a few fields are. They are
//! served when `--runtime-config` says so.

use crate::dra::v1beta1;
use crate::resource::{Column, Context, Info, Resource, Subresource};
use canopus_api::{Errors, Facts, Field, Time, Value};

/// A version of a resource that is like another.
pub struct Earlier {
    info: &'static Info,
    like: &'static dyn Resource,
    shape: Option<Shape>,
}

/// For a version some of whose fields are elsewhere.
struct Shape {
    there: fn(&mut Value),
    back: fn(&mut Value),
}

const POLICIES: &str = "admissionregistration.k8s.io";
const CERTIFICATES: &str = "certificates.k8s.io";
const COORDINATION: &str = "coordination.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const DEVICES: &str = "resource.k8s.io";

const CLAIM: Shape = Shape { there: v1beta1::claim_to_storage, back: v1beta1::claim_from_storage };
const SLICE: Shape = Shape { there: v1beta1::slice_to_storage, back: v1beta1::slice_from_storage };

pub static MUTATING_POLICY_ALPHA: Earlier = Earlier {
    info: &Info {
        singular: "mutatingadmissionpolicy",
        categories: &["api-extensions"],
        namespaced: false,
        generation: true,
        unconditional_update: false,
        storage: Some((POLICIES, "v1", "mutatingadmissionpolicies")),
        deprecated: "admissionregistration.k8s.io/v1alpha1 MutatingAdmissionPolicy is deprecated in v1.35+, unavailable in v1.38+",
        ..Info::stored(POLICIES, "v1alpha1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies")
    },
    like: &crate::admissionregistration::mutatingadmissionpolicy::MutatingAdmissionPolicy,
    shape: None,
};

pub static MUTATING_BINDING_ALPHA: Earlier = Earlier {
    info: &Info {
        singular: "mutatingadmissionpolicybinding",
        categories: &["api-extensions"],
        namespaced: false,
        generation: true,
        unconditional_update: false,
        storage: Some((POLICIES, "v1", "mutatingadmissionpolicybindings")),
        deprecated: "admissionregistration.k8s.io/v1alpha1 MutatingAdmissionPolicyBinding is deprecated in v1.35+, unavailable in v1.38+",
        ..Info::stored(POLICIES, "v1alpha1", "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings")
    },
    like: &crate::admissionregistration::mutatingadmissionpolicybinding::MutatingAdmissionPolicyBinding,
    shape: None,
};

pub static MUTATING_POLICY: Earlier = Earlier {
    info: &Info {
        singular: "mutatingadmissionpolicy",
        categories: &["api-extensions"],
        namespaced: false,
        generation: true,
        unconditional_update: false,
        storage: Some((POLICIES, "v1", "mutatingadmissionpolicies")),
        ..Info::stored(POLICIES, "v1beta1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies")
    },
    like: &crate::admissionregistration::mutatingadmissionpolicy::MutatingAdmissionPolicy,
    shape: None,
};

pub static MUTATING_BINDING: Earlier = Earlier {
    info: &Info {
        singular: "mutatingadmissionpolicybinding",
        categories: &["api-extensions"],
        namespaced: false,
        generation: true,
        unconditional_update: false,
        storage: Some((POLICIES, "v1", "mutatingadmissionpolicybindings")),
        ..Info::stored(POLICIES, "v1beta1", "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings")
    },
    like: &crate::admissionregistration::mutatingadmissionpolicybinding::MutatingAdmissionPolicyBinding,
    shape: None,
};

pub static CLUSTER_TRUST_BUNDLE: Earlier = Earlier {
    info: &Info {
        singular: "clustertrustbundle",
        namespaced: false,
        name: |_| Vec::new(),
        unconditional_update: false,
        gate: "ClusterTrustBundle",
        selectable_fields: &["spec.signerName"],
        storage: Some((CERTIFICATES, "v1beta1", "clustertrustbundles")),
        deprecated: "certificates.k8s.io/v1alpha1 ClusterTrustBundle is deprecated in v1.34+, unavailable in v1.37+",
        ..Info::stored(CERTIFICATES, "v1alpha1", "ClusterTrustBundle", "clustertrustbundles")
    },
    like: &crate::certificates::clustertrustbundle::ClusterTrustBundle,
    shape: None,
};

pub static LEASE_CANDIDATE: Earlier = Earlier {
    info: &Info {
        singular: "leasecandidate",
        name: canopus_api::names::config_map_key,
        unconditional_update: false,
        create_on_update: true,
        selectable_fields: &["spec.leaseName"],
        storage: Some((COORDINATION, "v1beta1", "leasecandidates")),
        deprecated: "coordination.k8s.io/v1alpha2 LeaseCandidate is deprecated in v1.35+, unavailable in v1.38+",
        ..Info::stored(COORDINATION, "v1alpha2", "LeaseCandidate", "leasecandidates")
    },
    like: &crate::coordination::leasecandidate::LeaseCandidate,
    shape: None,
};

pub static IP_ADDRESS: Earlier = Earlier {
    info: &Info {
        singular: "ipaddress",
        short_names: &["ip"],
        namespaced: false,
        name: crate::checks::canonical_ip,
        storage: Some((NETWORKING, "v1", "ipaddresses")),
        deprecated: "networking.k8s.io/v1beta1 IPAddress is deprecated in v1.34+, unavailable in v1.37+",
        ..Info::stored(NETWORKING, "v1beta1", "IPAddress", "ipaddresses")
    },
    like: &crate::networking::ipaddress::IPAddress,
    shape: None,
};

pub static SERVICE_CIDR: Earlier = Earlier {
    info: &Info {
        singular: "servicecidr",
        namespaced: false,
        subresources: &[Subresource::status(NETWORKING, "v1beta1", "ServiceCIDR")],
        storage: Some((NETWORKING, "v1", "servicecidrs")),
        deprecated: "networking.k8s.io/v1beta1 ServiceCIDR is deprecated in v1.34+, unavailable in v1.37+",
        ..Info::stored(NETWORKING, "v1beta1", "ServiceCIDR", "servicecidrs")
    },
    like: &crate::networking::servicecidr::ServiceCIDR,
    shape: None,
};

pub static DEVICE_TAINT_RULE: Earlier = Earlier {
    info: &Info {
        singular: "devicetaintrule",
        namespaced: false,
        generation: true,
        subresources: &[Subresource::status(DEVICES, "v1alpha3", "DeviceTaintRule")],
        storage: Some((DEVICES, "v1beta2", "devicetaintrules")),
        deprecated: "resource.k8s.io/v1alpha3 DeviceTaintRule is deprecated in v1.36+, unavailable in v1.39+",
        ..Info::stored(DEVICES, "v1alpha3", "DeviceTaintRule", "devicetaintrules")
    },
    like: &crate::dra::devicetaintrule::DeviceTaintRule,
    shape: None,
};

pub static DEVICE_CLASS_BETA1: Earlier = Earlier {
    info: &Info {
        singular: "deviceclass",
        namespaced: false,
        generation: true,
        storage: Some((DEVICES, "v1", "deviceclasses")),
        deprecated: "resource.k8s.io/v1beta1 DeviceClass is deprecated in v1.35+, unavailable in v1.38+",
        ..Info::stored(DEVICES, "v1beta1", "DeviceClass", "deviceclasses")
    },
    like: &crate::dra::deviceclass::DeviceClass,
    shape: None,
};

pub static RESOURCE_CLAIM_BETA1: Earlier = Earlier {
    info: &Info {
        singular: "resourceclaim",
        subresources: &[Subresource::status(DEVICES, "v1beta1", "ResourceClaim")],
        storage: Some((DEVICES, "v1", "resourceclaims")),
        deprecated: "resource.k8s.io/v1beta1 ResourceClaim is deprecated in v1.35+, unavailable in v1.38+",
        ..Info::stored(DEVICES, "v1beta1", "ResourceClaim", "resourceclaims")
    },
    like: &crate::dra::resourceclaim::ResourceClaim,
    shape: Some(CLAIM),
};

pub static RESOURCE_CLAIM_TEMPLATE_BETA1: Earlier = Earlier {
    info: &Info {
        singular: "resourceclaimtemplate",
        storage: Some((DEVICES, "v1", "resourceclaimtemplates")),
        deprecated: "resource.k8s.io/v1beta1 ResourceClaimTemplate is deprecated in v1.35+, unavailable in v1.38+",
        ..Info::stored(DEVICES, "v1beta1", "ResourceClaimTemplate", "resourceclaimtemplates")
    },
    like: &crate::dra::resourceclaimtemplate::ResourceClaimTemplate,
    shape: Some(CLAIM),
};

pub static RESOURCE_SLICE_BETA1: Earlier = Earlier {
    info: &Info {
        singular: "resourceslice",
        namespaced: false,
        generation: true,
        selectable_fields: &["spec.driver", "spec.nodeName"],
        storage: Some((DEVICES, "v1", "resourceslices")),
        deprecated: "resource.k8s.io/v1beta1 ResourceSlice is deprecated in v1.35+, unavailable in v1.38+",
        ..Info::stored(DEVICES, "v1beta1", "ResourceSlice", "resourceslices")
    },
    like: &crate::dra::resourceslice::ResourceSlice,
    shape: Some(SLICE),
};

pub static DEVICE_CLASS: Earlier = Earlier {
    info: &Info {
        singular: "deviceclass",
        namespaced: false,
        generation: true,
        storage: Some((DEVICES, "v1", "deviceclasses")),
        deprecated: "resource.k8s.io/v1beta2 DeviceClass is deprecated in v1.36+, unavailable in v1.39+",
        ..Info::stored(DEVICES, "v1beta2", "DeviceClass", "deviceclasses")
    },
    like: &crate::dra::deviceclass::DeviceClass,
    shape: None,
};

pub static RESOURCE_CLAIM: Earlier = Earlier {
    info: &Info {
        singular: "resourceclaim",
        subresources: &[Subresource::status(DEVICES, "v1beta2", "ResourceClaim")],
        storage: Some((DEVICES, "v1", "resourceclaims")),
        deprecated: "resource.k8s.io/v1beta2 ResourceClaim is deprecated in v1.36+, unavailable in v1.39+",
        ..Info::stored(DEVICES, "v1beta2", "ResourceClaim", "resourceclaims")
    },
    like: &crate::dra::resourceclaim::ResourceClaim,
    shape: None,
};

pub static RESOURCE_CLAIM_TEMPLATE: Earlier = Earlier {
    info: &Info {
        singular: "resourceclaimtemplate",
        storage: Some((DEVICES, "v1", "resourceclaimtemplates")),
        deprecated: "resource.k8s.io/v1beta2 ResourceClaimTemplate is deprecated in v1.36+, unavailable in v1.39+",
        ..Info::stored(DEVICES, "v1beta2", "ResourceClaimTemplate", "resourceclaimtemplates")
    },
    like: &crate::dra::resourceclaimtemplate::ResourceClaimTemplate,
    shape: None,
};

pub static RESOURCE_SLICE: Earlier = Earlier {
    info: &Info {
        singular: "resourceslice",
        namespaced: false,
        generation: true,
        selectable_fields: &["spec.driver", "spec.nodeName"],
        storage: Some((DEVICES, "v1", "resourceslices")),
        deprecated: "resource.k8s.io/v1beta2 ResourceSlice is deprecated in v1.36+, unavailable in v1.39+",
        ..Info::stored(DEVICES, "v1beta2", "ResourceSlice", "resourceslices")
    },
    like: &crate::dra::resourceslice::ResourceSlice,
    shape: None,
};

pub static VOLUME_ATTRIBUTES_CLASS: Earlier = Earlier {
    info: &Info {
        singular: "volumeattributesclass",
        short_names: &["vac"],
        namespaced: false,
        storage: Some(("storage.k8s.io", "v1", "volumeattributesclasses")),
        deprecated: "storage.k8s.io/v1beta1 VolumeAttributesClass is deprecated in v1.34+, unavailable in v1.37+; use storage.k8s.io/v1 VolumeAttributesClass",
        ..Info::stored("storage.k8s.io", "v1beta1", "VolumeAttributesClass", "volumeattributesclasses")
    },
    like: &crate::storage::volumeattributesclass::VolumeAttributesClass,
    shape: None,
};

impl Earlier {
    /// The object as the other version has it.
    fn moved(&self, object: &Value) -> Value {
        let mut object = object.clone();
        if let Some(shape) = &self.shape {
            (shape.there)(&mut object);
        }
        object
    }

    /// Changes an object as the other version would.
    fn through(&self, object: &mut Value, change: impl FnOnce(&mut Value)) {
        match &self.shape {
            None => change(object),
            Some(shape) => {
                (shape.there)(object);
                change(object);
                (shape.back)(object);
            }
        }
    }
}

impl Resource for Earlier {
    fn info(&self) -> &'static Info {
        self.info
    }
    fn default(&self, object: &mut Value) {
        self.through(object, |object| self.like.default(object));
    }
    fn prepare_create(&self, object: &mut Value, cx: &Context) {
        self.through(object, |object| self.like.prepare_create(object, cx));
    }
    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        let old = self.moved(old);
        self.through(new, |new| self.like.prepare_update(new, &old, cx));
    }
    fn raises_generation(&self, new: &Value, old: &Value) -> bool {
        self.like.raises_generation(new, old)
    }
    /// As upstream, errors speak of the other version's fields.
    fn validate(&self, object: &Field, errors: &mut Errors) {
        match &self.shape {
            None => self.like.validate(object, errors),
            Some(_) => self.like.validate(&Field::root(&self.moved(object.value)), errors),
        }
    }
    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        match &self.shape {
            None => self.like.validate_update(new, old, cx, errors),
            Some(_) => {
                let moved = self.moved(new.value);
                self.like.validate_update(&Field::root(&moved), &self.moved(old), cx, errors);
            }
        }
    }
    fn convert_from_storage(&self, object: &mut Value) {
        object.set("apiVersion", self.info.gvk().api_version());
        if let Some(shape) = &self.shape {
            (shape.back)(object);
        }
    }
    fn convert_to_storage(&self, object: &mut Value) {
        object.set("apiVersion", self.like.info().gvk().api_version());
        if let Some(shape) = &self.shape {
            (shape.there)(object);
        }
    }
    fn facts(&self, object: &Value) -> Facts {
        self.like.facts(object)
    }
    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        self.like.warnings(object, old)
    }
    fn columns(&self) -> &'static [Column] {
        self.like.columns()
    }
    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        self.like.row(&self.moved(object), now)
    }
}

#[cfg(test)]
mod tests {

    #[test]
    fn they_are_like_the_stable_version() {
        let all = crate::ALL
            .iter()
            .map(|r| r.info())
            .filter(|info| !info.version.trim_start_matches('v').chars().all(|c| c.is_ascii_digit()));
        let mut count = 0;
        for info in all {
            let Some((group, version, plural)) = info.storage else { continue };
            let stable = crate::find(group, version, plural).unwrap().info();
            assert_eq!((info.kind, info.singular, info.namespaced), (stable.kind, stable.singular, stable.namespaced));
            assert_eq!((info.short_names, info.categories), (stable.short_names, stable.categories));
            assert_eq!((info.generation, info.selectable_fields), (stable.generation, stable.selectable_fields));
            assert_eq!(info.subresources.len(), stable.subresources.len(), "{}", info.kind);
            assert_eq!(
                (info.unconditional_update, info.create_on_update),
                (stable.unconditional_update, stable.create_on_update)
            );
            count += 1;
        }
        assert!(count >= 18);
    }
}
