//! CSINode: which drivers of volumes a node has.

use crate::checks::{self, Seen};
use crate::core::pod::volumes::csi_driver;
use crate::resource::{Column, Context, Info, Resource, age, name};
use crate::semantic;
use canopus_api::{Errors, Field, Time, Value, names};

pub struct CSINode;

static INFO: Info = Info {
    singular: "csinode",
    namespaced: false,
    unconditional_update: false,
    ..Info::stored("storage.k8s.io", "v1", "CSINode", "csinodes")
};

const MAX_NODE_ID: usize = 256;

impl Resource for CSINode {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let (spec, mut seen) = (object.at("spec"), Seen::new());
        for driver in spec.at("drivers").items() {
            let (name, id) = (driver.at("name"), driver.at("nodeID"));
            csi_driver(&name, errors);
            checks::required(&id, errors);
            if id.str().len() > MAX_NODE_ID {
                errors.invalid(&id, format!("must be {MAX_NODE_ID} characters or less"));
            }
            let allocatable = driver.at("allocatable");
            checks::nonnegative(&allocatable.at("count"), errors);
            if !seen.insert(name.str().into()) {
                errors.duplicate(&name);
            }
            topology_keys(&driver, errors);
        }
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        self.validate(new, errors);
        let spec = new.at("spec");
        let drivers = spec.at("drivers");
        let fixed = |driver: &Value| {
            let mut driver = driver.clone();
            driver.remove("allocatable");
            driver
        };
        for before in old["spec"]["drivers"].items() {
            for driver in drivers.value.items().iter().filter(|driver| driver["name"] == before["name"]) {
                let driver = fixed(driver);
                if !semantic::equal(&driver, &fixed(before)) {
                    errors.invalid(&drivers.with(&driver), checks::IMMUTABLE);
                }
            }
        }
    }

    fn columns(&self) -> &'static [Column] {
        const DRIVERS: &str = "Drivers indicates the number of CSI drivers registered on the node";
        const { &[Column::NAME, Column::new("Drivers", "integer", DRIVERS), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        vec![name(object), object["spec"]["drivers"].items().len().into(), age(object, now)]
    }
}

/// As upstream, errors name the driver, not the key.
fn topology_keys(driver: &Field, errors: &mut Errors) {
    let mut seen = Seen::new();
    for key in driver.value["topologyKeys"].items() {
        let at = driver.with(key);
        if key.str().is_empty() {
            errors.required(&at, "");
        }
        if !seen.insert(key.str().into()) {
            errors.duplicate(&at);
        }
        checks::check(&at, names::qualified_name, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    #[test]
    fn drivers() {
        let node = |drivers: Value| value!({"metadata": {"name": "n"}, "spec": {"drivers": drivers}});
        let one = |id: &str, count: i64| value!([{"name": "a.b", "nodeID": id, "topologyKeys": ["zone"], "allocatable": {"count": count}}]);
        assert!(create(&CSINode, node(one("i", 3))).is_empty());
        assert_eq!(
            create(
                &CSINode,
                node(
                    value!([{"name": "a", "nodeID": "i", "topologyKeys": ["k", "k"]}, {"name": "a", "allocatable": {"count": (-1)}}])
                )
            ),
            [
                "spec.drivers[0]: Duplicate value: \"k\"",
                "spec.drivers[1].nodeID: Required value",
                "spec.drivers[1].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
                "spec.drivers[1].name: Duplicate value: \"a\"",
            ]
        );
        assert!(update(&CSINode, "", node(one("i", 3)), node(one("i", 4))).is_empty());
        assert_eq!(
            update(&CSINode, "", node(one("i", 3)), node(one("j", 3))),
            [
                "spec.drivers: Invalid value: {\"name\":\"a.b\",\"nodeID\":\"j\",\"topologyKeys\":[\"zone\"]}: field is immutable"
            ]
        );
        assert_eq!(cells(&CSINode, &node(one("i", 3))), ["n", "1", "<unknown>"]);
    }
}
