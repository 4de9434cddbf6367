//! DefaultTolerationSeconds: a pod stays for five minutes on a node that is not ready or not reachable.

use super::{Operation, Plugin, Request};
use async_trait::async_trait;
use canopus_api::{Status, Value, value};

pub struct DefaultTolerationSeconds;

const SECONDS: i64 = 300;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, request: &Request) -> bool {
        request.is("", "pods", "") && matches!(request.operation, Operation::Create | Operation::Update)
    }

    async fn admit(&self, request: &mut Request<'_>) -> Result<(), Status> {
        add(request.object.ensure_object().entry("spec", Value::object));
        Ok(())
    }
}

fn add(spec: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerates = |t: &Value| {
            (t["key"].str() == key || t["key"].str().is_empty()) && ["", "NoExecute"].contains(&t["effect"].str())
        };
        if !spec["tolerations"].items().iter().any(tolerates) {
            let tolerations = spec.ensure_object().entry("tolerations", || Value::Null).ensure_array();
            tolerations
                .push(value!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing() {
        let cases = [
            (value!([]), 2),
            (value!([{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]), 2),
            (value!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]), 3),
            (value!([{"operator": "Exists"}]), 1),
        ];
        for (tolerations, expected) in cases {
            let mut spec = value!({"tolerations": tolerations});
            add(&mut spec);
            assert_eq!(spec["tolerations"].items().len(), expected, "{spec:?}");
        }
    }
}
