//! DefaultStorageClass: a claim that names no class gets the default one.

use super::{Operation, Plugin, Request};
use async_trait::async_trait;
use canopus_api::{Object, Status, Time, Value, View};
use canopus_resources::core::persistentvolumeclaim::BETA_CLASS;
use std::sync::Arc;

pub struct DefaultStorageClass {
    pub classes: Arc<dyn View>,
}

const MARKS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, request: &Request) -> bool {
        request.operation == Operation::Create && request.is("", "persistentvolumeclaims", "")
    }

    async fn admit(&self, request: &mut Request<'_>) -> Result<(), Status> {
        let claim = &request.object;
        if !claim["metadata"]["annotations"][BETA_CLASS].is_null() || !claim["spec"]["storageClassName"].is_null() {
            return Ok(());
        }
        if let Some(class) = default_of(self.classes.list("")) {
            request.object.set_path(&["spec", "storageClassName"], class.name());
        }
        Ok(())
    }
}

/// Of several the newest counts, then the first by name.
fn default_of(classes: Vec<Arc<Object>>) -> Option<Arc<Object>> {
    let marked = |class: &Value| MARKS.iter().any(|mark| class["metadata"]["annotations"][*mark].str() == "true");
    let made = |class: &Object| Time::parse(class.value()["metadata"]["creationTimestamp"].str());
    let defaults = classes.into_iter().filter(|class| marked(&class.value()));
    defaults.min_by(|a, b| made(b).cmp(&made(a)).then_with(|| a.name().cmp(b.name())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn the_newest_default_counts() {
        let class = |name: &str, mark: &str, made: &str| {
            let meta = value!({"name": name, "creationTimestamp": made, "annotations": {(MARKS[0]): mark}});
            Arc::new(Object::from_value(value!({"metadata": meta}), &[], 1))
        };
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let all =
            vec![class("a", "true", old), class("c", "true", new), class("b", "true", new), class("d", "false", new)];
        assert_eq!(default_of(all).unwrap().name(), "b");
        assert!(default_of(vec![class("d", "false", new)]).is_none());
    }
}
