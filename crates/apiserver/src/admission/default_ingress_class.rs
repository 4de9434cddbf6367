//! DefaultIngressClass: an Ingress that names no class gets the default one.

use super::{Operation, Plugin, Request};
use crate::authz::changes::Changes;
use async_trait::async_trait;
use canopus_api::{Status, Value};
use canopus_resources::networking::ingress::CLASS_ANNOTATION;
use canopus_resources::networking::ingressclass::is_default;
use std::sync::Arc;

pub struct DefaultIngressClass {
    pub classes: Arc<dyn Changes>,
}

impl DefaultIngressClass {
    /// Of several default classes the newest.
    fn class(&self) -> Option<String> {
        let values = self.classes.list("").into_iter().map(|class| class.value()).filter(|class| is_default(class));
        let rank = |class: &Value| {
            let meta = &class["metadata"];
            (std::cmp::Reverse(meta["creationTimestamp"].str().to_string()), meta["name"].str().to_string())
        };
        values.min_by_key(|class| rank(class)).map(|class| class["metadata"]["name"].str().to_string())
    }
}

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, request: &Request) -> bool {
        request.operation == Operation::Create && request.is("networking.k8s.io", "ingresses", "")
    }

    async fn admit(&self, request: &mut Request<'_>) -> Result<(), Status> {
        let ingress = &mut request.object;
        let said = !ingress["spec"]["ingressClassName"].is_null()
            || !ingress["metadata"]["annotations"].at(CLASS_ANNOTATION).is_null();
        if !said && let Some(class) = self.class() {
            ingress.set_path(&["spec", "ingressClassName"], class);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Objects;
    use canopus_api::value;

    #[test]
    fn the_newest_default_counts() {
        let class = |name: &str, time: &str, default: &str| {
            value!({"metadata": {"name": name, "creationTimestamp": time, "annotations": {
                "ingressclass.kubernetes.io/is-default-class": default}}})
        };
        let objects = [
            class("a", "2026-01-01T00:00:00Z", "true"),
            class("c", "2026-01-02T00:00:00Z", "true"),
            class("b", "2026-01-02T00:00:00Z", "true"),
            class("d", "2026-01-03T00:00:00Z", "no"),
        ];
        let of = |objects: &[Value]| DefaultIngressClass { classes: Arc::new(Objects::new(objects)) }.class();
        assert_eq!(of(&objects).as_deref(), Some("b"));
        assert_eq!(of(&objects[3..]), None);
    }
}
