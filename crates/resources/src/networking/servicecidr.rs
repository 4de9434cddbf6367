//! ServiceCIDR: a range of addresses for Services (KEP-1880).

use crate::checks;
use crate::resource::{Column, Context, Info, Resource, Subresource, age, name};
use crate::strategy;
use canopus_api::{Errors, Field, Time, Value};

pub struct ServiceCIDR;

static INFO: Info = Info {
    singular: "servicecidr",
    namespaced: false,
    subresources: &[Subresource::status("networking.k8s.io", "v1", "ServiceCIDR")],
    ..Info::stored("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs")
};

impl Resource for ServiceCIDR {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        if cx.subresource == "status" {
            strategy::only_status(new, old, strategy::STATUS_METADATA);
        } else {
            strategy::keep(new, old, "status");
        }
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        ranges(&object.at("spec"), errors);
    }

    /// A range of the other family may be added, nothing else changed.
    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            return;
        }
        let spec = new.at("spec");
        let cidrs = spec.at("cidrs");
        let (now, before) = (cidrs.value.items(), old["spec"]["cidrs"].items());
        let kept = now.len() == before.len() || (before.len(), now.len()) == (1, 2);
        if !kept {
            return errors.invalid(&cidrs, checks::IMMUTABLE);
        }
        for (i, _) in before.iter().enumerate().filter(|(i, cidr)| now[*i] != **cidr) {
            errors.invalid(&cidrs.index(i), checks::IMMUTABLE);
        }
        if now.len() > before.len() {
            ranges(&spec, errors);
        }
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::new("CIDRs", "string", "The ranges, one of each family"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let cidrs: Vec<&str> = object["spec"]["cidrs"].items().iter().map(Value::str).collect();
        vec![name(object), cidrs.join(",").into(), age(object, now)]
    }
}

fn ranges(spec: &Field, errors: &mut Errors) {
    let cidrs = spec.at("cidrs");
    let all = cidrs.value.items();
    if all.is_empty() {
        return errors.required(&cidrs, "at least one CIDR required");
    }
    if all.len() > 2 {
        return errors.invalid(&cidrs.with(spec.value), "may only hold up to 2 values");
    }
    cidrs.items().for_each(|cidr| checks::canonical_cidr(&cidr, errors));
    let families: Vec<bool> =
        all.iter().filter_map(|cidr| checks::parse_cidr(cidr.str())).map(|(first, ..)| first.is_ipv4()).collect();
    if let [a, b] = families.as_slice()
        && a == b
    {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.invalid(&cidrs, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    fn range(cidrs: Value) -> Value {
        value!({"metadata": {"name": "r"}, "spec": {"cidrs": cidrs}})
    }

    #[test]
    fn creation() {
        let cases: &[(Value, &[&str])] = &[
            (value!(["10.0.0.0/16", "fd00::/64"]), &[]),
            (value!([]), &["spec.cidrs: Required value: at least one CIDR required"]),
            (
                value!(["10.0.0.1/16", "fd00:0::/64"]),
                &[
                    "spec.cidrs[0]: Invalid value: \"10.0.0.1/16\": must not have bits set beyond the prefix length",
                    "spec.cidrs[1]: Invalid value: \"fd00:0::/64\": must be in canonical form (\"fd00::/64\")",
                ],
            ),
            (
                value!(["10.0.0.0/16", "10.1.0.0/16"]),
                &[
                    "spec.cidrs: Invalid value: [\"10.0.0.0/16\",\"10.1.0.0/16\"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
                ],
            ),
        ];
        for (cidrs, expected) in cases {
            assert_eq!(create(&ServiceCIDR, range(cidrs.clone())), *expected, "{cidrs:?}");
        }
    }

    #[test]
    fn only_a_second_family_may_be_added() {
        let old = range(value!(["10.0.0.0/16"]));
        assert!(update(&ServiceCIDR, "", old.clone(), range(value!(["10.0.0.0/16", "fd00::/64"]))).is_empty());
        assert_eq!(
            update(&ServiceCIDR, "", old.clone(), range(value!(["10.1.0.0/16"]))),
            ["spec.cidrs[0]: Invalid value: \"10.1.0.0/16\": field is immutable"]
        );
        assert_eq!(
            update(&ServiceCIDR, "", old.clone(), range(value!([]))),
            ["spec.cidrs: Invalid value: []: field is immutable"]
        );
        assert_eq!(cells(&ServiceCIDR, &old), ["r", "10.0.0.0/16", "<unknown>"]);
    }
}
