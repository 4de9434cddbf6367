//! CSIStorageCapacity: how much room a driver of volumes has left somewhere.

use crate::checks;
use crate::core::pod::warnings::old_label;
use crate::resource::{Context, Info, Resource};
use crate::semantic;
use canopus_api::{Errors, Field, Value, names};

pub struct CSIStorageCapacity;

static INFO: Info = Info {
    singular: "csistoragecapacity",
    unconditional_update: false,
    ..Info::stored("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities")
};

impl Resource for CSIStorageCapacity {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        checks::label_selector(&object.at("nodeTopology"), errors);
        let class = object.at("storageClassName");
        checks::check(&class.with(&class.str().into()), names::dns1123_subdomain, errors);
        let capacity = object.at("capacity");
        if capacity.is_set() {
            checks::quantity(&capacity, errors);
        }
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        self.validate(new, errors);
        for field in ["nodeTopology", "storageClassName"] {
            if !semantic::equal(&new.value[field], &old[field]) {
                errors.invalid(&new.at(field), checks::IMMUTABLE);
            }
        }
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let (root, mut out) = (Field::root(object), Vec::new());
        let topology = root.at("nodeTopology");
        for expression in topology.at("matchExpressions").items() {
            let key = expression.at("key");
            out.extend(old_label(key.str()).map(|why| format!("{}: {} is {why}", key.path(), key.str())));
        }
        let labels = topology.at("matchLabels");
        for (label, _) in labels.value.entries() {
            out.extend(old_label(label).map(|why| format!("{}: {why}", labels.at(label).path())));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{create, update};
    use canopus_api::value;

    #[test]
    fn capacities() {
        let of = |class: &str, capacity: &str| value!({"metadata": {"name": "c"}, "storageClassName": class, "capacity": capacity, "nodeTopology": {"matchLabels": {"beta.kubernetes.io/os": "linux"}}});
        assert!(create(&CSIStorageCapacity, of("fast", "1Gi")).is_empty());
        assert_eq!(
            create(&CSIStorageCapacity, of("fast", "-1Gi")),
            ["capacity: Invalid value: \"-1Gi\": must be greater than or equal to 0"]
        );
        assert!(update(&CSIStorageCapacity, "", of("fast", "1Gi"), of("fast", "2Gi")).is_empty());
        assert_eq!(
            update(&CSIStorageCapacity, "", of("fast", "1Gi"), of("slow", "1Gi")),
            ["storageClassName: Invalid value: \"slow\": field is immutable"]
        );
        assert_eq!(
            CSIStorageCapacity.warnings(&of("a", "1"), None),
            [
                "nodeTopology.matchLabels.beta.kubernetes.io/os: deprecated since v1.14; use \"kubernetes.io/os\" instead"
            ]
        );
    }
}
