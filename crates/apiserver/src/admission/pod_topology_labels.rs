//! PodTopologyLabels: a pod carries the zone and region of its node (KEP-4742).

use super::fresh::Fresh;
use super::{Operation, Plugin, Request};
use async_trait::async_trait;
use canopus_api::{Status, Value};

const COPIED: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub struct PodTopologyLabels {
    pub nodes: Fresh,
}

#[async_trait]
impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn handles(&self, request: &Request) -> bool {
        request.operation == Operation::Create && (request.is("", "pods", "") || request.is("", "pods", "binding"))
    }

    async fn admit(&self, request: &mut Request<'_>) -> Result<(), Status> {
        let object = &request.object;
        let node = match request.subresource {
            "binding" if object["target"]["kind"].str() != "Node" => return Ok(()),
            "binding" => object["target"]["name"].str(),
            _ => object["spec"]["nodeName"].str(),
        };
        // A node that is not known yet has no labels to give.
        let Some(node) = Some(node).filter(|n| !n.is_empty()).and_then(|n| self.nodes.cached("", n)) else {
            return Ok(());
        };
        for label in COPIED {
            if let Some(value) = node.facts.label(label) {
                let labels = request.object.obj_mut("metadata").entry("labels", Value::object);
                labels.ensure_object().insert(label, value);
            }
        }
        Ok(())
    }
}
