//! TaintNodesByCondition: a new node takes no pods until it has said that it is ready.

use super::{Operation, Plugin, Request};
use async_trait::async_trait;
use canopus_api::{Status, Value, value};

pub struct TaintNodesByCondition;

#[async_trait]
impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, request: &Request) -> bool {
        request.is("", "nodes", "") && request.operation == Operation::Create
    }

    async fn admit(&self, request: &mut Request<'_>) -> Result<(), Status> {
        taint(request.object.ensure_object().entry("spec", Value::object));
        Ok(())
    }
}

fn taint(spec: &mut Value) {
    let wanted = value!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
    let taints = spec.ensure_object().entry("taints", || Value::Null).ensure_array();
    if !taints.iter().any(|t| t["key"] == wanted["key"] && t["effect"] == wanted["effect"]) {
        taints.push(wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once() {
        let mut spec = Value::Null;
        taint(&mut spec);
        taint(&mut spec);
        assert_eq!(spec, value!({"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]}));
    }
}
