//! NodeDeclaredFeatureValidator: what a change of a running pod needs of its node must be among the features that the node
//! declares (KEP-5328).

use super::fresh::Fresh;
use super::{Operation, Plugin, Request};
use async_trait::async_trait;
use canopus_api::{Status, Value};

pub struct NodeDeclaredFeatures {
    pub nodes: Fresh,
}

/// A feature, and whether a change of a pod's spec needs it.
type Needs = fn(old: &Value, new: &Value) -> bool;

/// In upstream's order (`nodedeclaredfeatures/features`); those that no update can need are left out.
const FEATURES: &[(&str, Needs)] = &[
    ("InPlacePodLevelResourcesVerticalScaling", |old, new| old["resources"] != new["resources"]),
    ("InPlacePodVerticalScalingInitContainers", init_containers_resized),
];

fn init_containers_resized(old: &Value, new: &Value) -> bool {
    let pairs = old["initContainers"].items().iter().zip(new["initContainers"].items());
    let mut plain = pairs.filter(|(old, _)| old["restartPolicy"].str() != "Always");
    plain.any(|(old, new)| old["resources"] != new["resources"])
}

/// The features that `node` lacks for this change.
fn lacking(old: &Value, new: &Value, node: &Value) -> Vec<&'static str> {
    let declared = node["status"]["declaredFeatures"].items();
    let needed = FEATURES.iter().filter(|(_, needs)| needs(old, new)).map(|(name, _)| *name);
    needed.filter(|name| !declared.iter().any(|d| d.str() == *name)).collect()
}

#[async_trait]
impl Plugin for NodeDeclaredFeatures {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatureValidator"
    }

    fn handles(&self, request: &Request) -> bool {
        let meta = |object: &Value| object["metadata"]["generation"].int();
        request.operation == Operation::Update
            && (request.is("", "pods", "") || request.is("", "pods", "resize"))
            && !request.object["spec"]["nodeName"].str().is_empty()
            // The spec is as it was.
            && meta(&request.object) != meta(request.old)
    }

    async fn validate(&self, request: &Request<'_>) -> Result<(), Status> {
        let (old, new) = (&request.old["spec"], &request.object["spec"]);
        if !FEATURES.iter().any(|(_, needs)| needs(old, new)) {
            return Ok(());
        }
        let name = new["nodeName"].str();
        let node = self.nodes.get("", name).await?;
        let node = node.ok_or_else(|| request.forbidden(&format!("node {name:?} not found")))?;
        let lacking = lacking(old, new, &node.value());
        if lacking.is_empty() {
            return Ok(());
        }
        let why =
            format!("pod update requires features {} which are not available on node {name:?}", lacking.join(", "));
        Err(request.forbidden(&why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn what_a_change_needs() {
        let pod = |cpu: &str, restart: &str, own: Value| {
            let mut pod = value!({"initContainers": [{"name": "i", "restartPolicy": restart,
                "resources": {"requests": {"cpu": cpu}}}]});
            pod.set("resources", own);
            pod
        };
        let node = |features: Value| value!({"status": {"declaredFeatures": features}});
        let (old, none) = (pod("1", "Never", Value::Null), node(value!([])));
        assert!(lacking(&old, &old, &none).is_empty());
        assert!(lacking(&pod("1", "Always", Value::Null), &pod("2", "Always", Value::Null), &none).is_empty());
        let both = pod("2", "Never", value!({"requests": {"cpu": "3"}}));
        let (levels, init) = ("InPlacePodLevelResourcesVerticalScaling", "InPlacePodVerticalScalingInitContainers");
        assert_eq!(lacking(&old, &both, &none), [levels, init]);
        assert_eq!(lacking(&old, &both, &node(value!([init]))), [levels]);
    }
}
