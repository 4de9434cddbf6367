//! Custom resources as controllers see them that work through all resources: those whose definition is established.

use crate::context::ResourceInfo;
use canopus_api::{Gvr, Value};

/// The resource that a CustomResourceDefinition has served, in the version that is stored, or else the first.
pub(crate) fn resource(definition: &Value) -> Option<ResourceInfo> {
    let (spec, status) = (&definition["spec"], &definition["status"]);
    let established = |c: &Value| c["type"].str() == "Established" && c["status"].str() == "True";
    if !status["conditions"].items().iter().any(established) {
        return None;
    }
    let served = || spec["versions"].items().iter().filter(|v| v["served"].bool());
    let version = served().find(|v| v["storage"].bool()).or_else(|| served().next())?;
    Some(ResourceInfo {
        gvr: Gvr::new(spec["group"].str(), version["name"].str(), spec["names"]["plural"].str()),
        kind: status["acceptedNames"]["kind"].str().into(),
        namespaced: spec["scope"].str() == "Namespaced",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn what_is_established_is_worked_through() {
        let mut definition = value!({
            "spec": {"group": "a.b", "scope": "Namespaced", "names": {"plural": "foos"},
                "versions": [{"name": "v1", "served": true}, {"name": "v2", "served": true, "storage": true}]},
            "status": {"acceptedNames": {"kind": "Foo"}, "conditions": [{"type": "Established", "status": "False"}]},
        });
        assert_eq!(resource(&definition), None);
        definition.set_path(&["status", "conditions"], value!([{"type": "Established", "status": "True"}]));
        let found = resource(&definition).map(|r| (r.gvr, r.kind.to_string(), r.namespaced));
        assert_eq!(found, Some((Gvr::new("a.b", "v2", "foos"), "Foo".into(), true)));
    }
}
