//! Workload: what groups of pods a controller's object is made of (KEP-4671).

use super::podgroup::{group, immutable};
use crate::checks;
use crate::resource::{Column, Context, Info, Resource, age, name};
use canopus_api::{Errors, Field, Time, Value, names};

pub struct Workload;

static INFO: Info = Info {
    singular: "workload",
    gate: "GenericWorkload",
    ..Info::stored("scheduling.k8s.io", "v1alpha2", "Workload", "workloads")
};

const MAX_TEMPLATES: usize = 8;

impl Resource for Workload {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        let controller = spec.at("controllerRef");
        if controller.is_set() {
            let group = controller.at("apiGroup");
            if !group.str().is_empty() {
                checks::check(&group, names::dns1123_subdomain, errors);
            }
            for field in ["kind", "name"] {
                checks::required_check(&controller.at(field), names::path_segment, errors);
            }
        }
        let templates = spec.at("podGroupTemplates");
        match templates.value.items().len() {
            0 => return errors.required(&templates, ""),
            count if count > MAX_TEMPLATES => return errors.too_many(&templates, count, MAX_TEMPLATES),
            _ => {}
        }
        let mut seen = checks::Seen::new();
        for template in templates.items() {
            let own = template.at("name");
            checks::required_check(&own, names::dns1123_label, errors);
            if !seen.insert(own.str().into()) {
                errors.duplicate(&template);
            }
            group(&template, errors);
        }
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        immutable(&new.at("spec"), &old["spec"], errors);
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::AGE] }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        vec![name(object), age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{create, update};
    use canopus_api::value;

    #[test]
    fn workloads() {
        let of = |templates: Value| value!({"metadata": {"name": "w"}, "spec": {"podGroupTemplates": templates}});
        let good = value!({"name": "a", "schedulingPolicy": {"basic": {}}});
        assert_eq!(create(&Workload, of(value!([(&good)]))), [""; 0]);
        assert_eq!(create(&Workload, of(value!([]))), ["spec.podGroupTemplates: Required value"]);
        assert_eq!(create(&Workload, of(value!([(&good), (&good)]))).len(), 1);
        let mut odd = of(value!([good]));
        odd.set_path(&["spec", "controllerRef"], value!({"kind": "a/b"}));
        assert_eq!(create(&Workload, odd.clone()).len(), 2);
        assert_eq!(update(&Workload, "", of(value!([])), odd).len(), 2);
    }
}
