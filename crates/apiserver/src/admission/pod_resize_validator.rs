//! PodResizeValidator: a running pod may not ask for more than its node could ever give (KEP-1287).

use super::fresh::Fresh;
use super::{Operation, Plugin, Request};
use async_trait::async_trait;
use canopus_api::{Quantity, Status, Value};
use canopus_resources::core::pod::amounts::{amounts, pod_requests};

pub struct PodResizeValidator {
    pub nodes: Fresh,
}

#[async_trait]
impl Plugin for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn handles(&self, request: &Request) -> bool {
        request.operation == Operation::Update
            && request.is("", "pods", "resize")
            && !request.object["spec"]["nodeName"].str().is_empty()
            && request.object["metadata"]["generation"] != request.old["metadata"]["generation"]
    }

    async fn validate(&self, request: &Request<'_>) -> Result<(), Status> {
        let name = request.object["spec"]["nodeName"].str();
        let node = self.nodes.get("", name).await?;
        let node = node.ok_or_else(|| request.forbidden(&format!("node {name:?} not found")))?;
        if let Some(os) = node.facts.label("kubernetes.io/os").filter(|os| *os != "linux") {
            let why = format!("pod resize is only supported on linux nodes, node {name:?} is {os:?}");
            return Err(request.forbidden(&why).with_cause("UnsupportedPlatform", "", ""));
        }
        match lacks(&request.object["spec"], &node.value()["status"]["allocatable"]) {
            None => Ok(()),
            Some(why) => Err(request.forbidden(&why).with_cause("NodeCapacity", "", "")),
        }
    }
}

fn lacks(pod_spec: &Value, allocatable: &Value) -> Option<String> {
    let (requests, there) = (pod_requests(pod_spec), amounts(allocatable));
    let mut lacking = Vec::new();
    for (resource, shown) in [("cpu", Quantity::milli_value as fn(&Quantity) -> i64), ("memory", Quantity::value)] {
        let amount =
            |list: &canopus_resources::core::pod::amounts::Amounts| list.get(resource).copied().unwrap_or_default();
        let (wanted, there) = (amount(&requests), amount(&there));
        if wanted > there {
            lacking.push(format!("{resource}, requested: {}, allocatable: {}", shown(&wanted), shown(&there)));
        }
    }
    (!lacking.is_empty()).then(|| format!("node didn't have enough allocatable resources: {}", lacking.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn what_a_node_lacks() {
        let pod = |cpu: &str, memory: &str| value!({"containers": [{"resources": {"requests": {"cpu": cpu, "memory": memory}}}]});
        let there = value!({"cpu": "2", "memory": "1Gi"});
        assert_eq!(lacks(&pod("2", "1Gi"), &there), None);
        assert_eq!(
            lacks(&pod("2500m", "2Gi"), &there).as_deref(),
            Some(
                "node didn't have enough allocatable resources: cpu, requested: 2500, allocatable: 2000; memory, requested: 2147483648, allocatable: 1073741824"
            )
        );
    }
}
