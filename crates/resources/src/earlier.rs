//! Beta versions that differ from the stable one by nothing but their name. They are served when `--runtime-config` says
//! so, out of what is stored in the stable version.

use crate::resource::{Column, Context, Info, Resource, Subresource};
use canopus_api::{Errors, Facts, Field, Time, Value};

/// A version of a resource that is like another.
pub struct Earlier {
    info: &'static Info,
    like: &'static dyn Resource,
}

const NETWORKING: &str = "networking.k8s.io";
const DEVICES: &str = "resource.k8s.io";

pub static IP_ADDRESS: Earlier = Earlier {
    info: &Info {
        singular: "ipaddress",
        short_names: &["ip"],
        namespaced: false,
        name: crate::checks::canonical_ip,
        storage: Some((NETWORKING, "v1", "ipaddresses")),
        ..Info::stored(NETWORKING, "v1beta1", "IPAddress", "ipaddresses")
    },
    like: &crate::networking::ipaddress::IPAddress,
};

pub static SERVICE_CIDR: Earlier = Earlier {
    info: &Info {
        singular: "servicecidr",
        namespaced: false,
        subresources: &[Subresource::status(NETWORKING, "v1beta1", "ServiceCIDR")],
        storage: Some((NETWORKING, "v1", "servicecidrs")),
        ..Info::stored(NETWORKING, "v1beta1", "ServiceCIDR", "servicecidrs")
    },
    like: &crate::networking::servicecidr::ServiceCIDR,
};

pub static DEVICE_CLASS: Earlier = Earlier {
    info: &Info {
        singular: "deviceclass",
        namespaced: false,
        generation: true,
        storage: Some((DEVICES, "v1", "deviceclasses")),
        ..Info::stored(DEVICES, "v1beta2", "DeviceClass", "deviceclasses")
    },
    like: &crate::dra::deviceclass::DeviceClass,
};

pub static RESOURCE_CLAIM: Earlier = Earlier {
    info: &Info {
        singular: "resourceclaim",
        subresources: &[Subresource::status(DEVICES, "v1beta2", "ResourceClaim")],
        storage: Some((DEVICES, "v1", "resourceclaims")),
        ..Info::stored(DEVICES, "v1beta2", "ResourceClaim", "resourceclaims")
    },
    like: &crate::dra::resourceclaim::ResourceClaim,
};

pub static RESOURCE_CLAIM_TEMPLATE: Earlier = Earlier {
    info: &Info {
        singular: "resourceclaimtemplate",
        storage: Some((DEVICES, "v1", "resourceclaimtemplates")),
        ..Info::stored(DEVICES, "v1beta2", "ResourceClaimTemplate", "resourceclaimtemplates")
    },
    like: &crate::dra::resourceclaimtemplate::ResourceClaimTemplate,
};

pub static RESOURCE_SLICE: Earlier = Earlier {
    info: &Info {
        singular: "resourceslice",
        namespaced: false,
        generation: true,
        selectable_fields: &["spec.driver", "spec.nodeName"],
        storage: Some((DEVICES, "v1", "resourceslices")),
        ..Info::stored(DEVICES, "v1beta2", "ResourceSlice", "resourceslices")
    },
    like: &crate::dra::resourceslice::ResourceSlice,
};

pub static VOLUME_ATTRIBUTES_CLASS: Earlier = Earlier {
    info: &Info {
        singular: "volumeattributesclass",
        short_names: &["vac"],
        namespaced: false,
        storage: Some(("storage.k8s.io", "v1", "volumeattributesclasses")),
        ..Info::stored("storage.k8s.io", "v1beta1", "VolumeAttributesClass", "volumeattributesclasses")
    },
    like: &crate::storage::volumeattributesclass::VolumeAttributesClass,
};

impl Resource for Earlier {
    fn info(&self) -> &'static Info {
        self.info
    }
    fn default(&self, object: &mut Value) {
        self.like.default(object);
    }
    fn prepare_create(&self, object: &mut Value, cx: &Context) {
        self.like.prepare_create(object, cx);
    }
    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        self.like.prepare_update(new, old, cx);
    }
    fn raises_generation(&self, new: &Value, old: &Value) -> bool {
        self.like.raises_generation(new, old)
    }
    fn validate(&self, object: &Field, errors: &mut Errors) {
        self.like.validate(object, errors);
    }
    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        self.like.validate_update(new, old, cx, errors);
    }
    fn convert_from_storage(&self, object: &mut Value) {
        object.set("apiVersion", self.info.gvk().api_version());
    }
    fn convert_to_storage(&self, object: &mut Value) {
        object.set("apiVersion", self.like.info().gvk().api_version());
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
        self.like.row(object, now)
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
        assert!(count >= 7);
    }
}
