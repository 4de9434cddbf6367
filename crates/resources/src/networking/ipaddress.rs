//! IPAddress: an address of the Services' ranges, and whose it is (KEP-1880). Named like the address.

use crate::checks;
use crate::resource::{Column, Context, Info, Resource, name};
use canopus_api::{Errors, Field, Time, Value, names};

pub struct IPAddress;

static INFO: Info = Info {
    singular: "ipaddress",
    short_names: &["ip"],
    namespaced: false,
    name: checks::canonical_ip,
    ..Info::stored("networking.k8s.io", "v1", "IPAddress", "ipaddresses")
};

impl Resource for IPAddress {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        let parent = spec.at("parentRef");
        if parent.is_unset() {
            return errors.required(&parent, "");
        }
        let group = parent.at("group");
        if !group.str().is_empty() {
            checks::check(&group, names::dns1123_subdomain, errors);
        }
        for field in ["resource", "name"] {
            checks::required_check(&parent.at(field), names::path_segment, errors);
        }
        checks::check(&parent.at("namespace"), names::path_segment, errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        self.validate(new, errors);
        checks::immutable(&new.at("spec").at("parentRef"), &old["spec"]["parentRef"], errors);
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::new("ParentRef", "string", "Whose address it is")] }
    }

    fn row(&self, object: &Value, _now: Time) -> Vec<Value> {
        let parent = &object["spec"]["parentRef"];
        let mut text = parent["resource"].str().to_lowercase();
        if !parent["group"].is_empty() {
            text += &format!(".{}", parent["group"].str().to_lowercase());
        }
        if !parent["namespace"].is_empty() {
            text += &format!("/{}", parent["namespace"].str());
        }
        let cell = if parent.is_null() { "<none>".into() } else { format!("{text}/{}", parent["name"].str()).into() };
        vec![name(object), cell]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    #[test]
    fn addresses() {
        let address = |name: &str| value!({"metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": {"resource": "services", "namespace": "n", "name": name}}});
        assert!(create(&IPAddress, address("s")).is_empty());
        assert_eq!(create(&IPAddress, value!({})), ["spec.parentRef: Required value"]);
        assert_eq!(
            create(&IPAddress, value!({"spec": {"parentRef": {"group": "A", "namespace": "a/b"}}}))[1..],
            [
                "spec.parentRef.resource: Required value",
                "spec.parentRef.name: Required value",
                "spec.parentRef.namespace: Invalid value: \"a/b\": may not contain '/'",
            ]
        );
        assert_eq!(update(&IPAddress, "", address("s"), address("t")).len(), 1);
        assert_eq!(cells(&IPAddress, &address("s")), ["10.0.0.1", "services/n/s"]);
        assert_eq!((INFO.name)("fd00::0"), ["must be in canonical form (\"fd00::\")"]);
    }
}
