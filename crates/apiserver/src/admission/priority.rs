//! Priority: a pod's priority is its class's, or the default class's, and nobody's guess.

use super::{Operation, Plugin, Request};
use crate::authz::changes::Changes;
use async_trait::async_trait;
use canopus_api::{Status, Value};
use parking_lot::RwLock;
use std::sync::Arc;

pub struct Priority {
    classes: Arc<dyn Changes>,
    /// The default class as of a revision of the classes.
    default: RwLock<Option<(u64, Class)>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Class {
    name: String,
    value: i64,
    policy: Option<String>,
}

impl Class {
    fn of(class: &Value) -> Class {
        Class {
            name: class["metadata"]["name"].str().into(),
            value: class["value"].int(),
            policy: class["preemptionPolicy"].as_str().map(String::from),
        }
    }
}

impl Priority {
    pub fn new(classes: Arc<dyn Changes>) -> Priority {
        Priority { classes, default: RwLock::default() }
    }

    /// Of several default classes, which only a race can make, the lowest counts.
    fn default_class(&self) -> Option<Class> {
        let classes = self.classes.list("");
        let defaults = classes.iter().map(|c| c.value()).filter(|c| c["globalDefault"].bool());
        defaults.map(|c| Class::of(&c)).min_by_key(|c| c.value)
    }

    fn of_pods_without(&self) -> Class {
        let now = self.classes.last_change();
        if let Some((at, class)) = &*self.default.read()
            && *at == now
        {
            return class.clone();
        }
        let none = || Class { policy: Some("PreemptLowerPriority".into()), ..Class::default() };
        let class = self.default_class().unwrap_or_else(none);
        *self.default.write() = Some((now, class.clone()));
        class
    }

    fn class(&self, name: &str) -> Result<Class, String> {
        if name.is_empty() {
            return Ok(self.of_pods_without());
        }
        let class = self.classes.get("", name).map(|c| Class::of(&c.value()));
        class.ok_or_else(|| format!("no PriorityClass with name {name} was found"))
    }

    fn prioritize(&self, spec: &mut Value) -> Result<(), String> {
        let class = self.class(spec["priorityClassName"].str())?;
        if !class.name.is_empty() {
            spec.set("priorityClassName", &class.name);
        }
        if let Some(given) = spec["priority"].as_i64()
            && given != class.value
        {
            return Err(format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
                class.value
            ));
        }
        spec.set("priority", class.value);
        let Some(policy) = class.policy else { return Ok(()) };
        if let Some(given) = spec["preemptionPolicy"].as_str()
            && given != policy
        {
            return Err(format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
            ));
        }
        spec.set("preemptionPolicy", policy);
        Ok(())
    }
}

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, request: &Request) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update)
            && (request.is("", "pods", "") || request.is("scheduling.k8s.io", "priorityclasses", ""))
    }

    async fn admit(&self, request: &mut Request<'_>) -> Result<(), Status> {
        if !request.is("", "pods", "") {
            return Ok(());
        }
        let spec = request.object.ensure_object().entry("spec", Value::object);
        if request.operation == Operation::Create {
            return self.prioritize(spec).map_err(|why| request.forbidden(&why));
        }
        for field in ["priority", "preemptionPolicy"] {
            if let Some(before) = request.old["spec"].get(field) {
                spec.set_default(field, before);
            }
        }
        Ok(())
    }

    async fn validate(&self, request: &Request<'_>) -> Result<(), Status> {
        let class = &request.object;
        if request.resource.plural != "priorityclasses" || !class["globalDefault"].bool() {
            return Ok(());
        }
        let Some(other) = self.default_class() else { return Ok(()) };
        if request.operation == Operation::Create || other.name != class["metadata"]["name"].str() {
            let why = format!("PriorityClass {} is already marked as default. Only one default can exist", other.name);
            return Err(request.forbidden(&why));
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
    fn priorities() {
        let class = |name: &str, priority: i64, default: bool| value!({"metadata": {"name": name}, "value": priority, "globalDefault": default, "preemptionPolicy": "Never"});
        let none = Priority::new(Arc::new(Objects::new(&[class("high", 1000, false)])));
        let some = Priority::new(Arc::new(Objects::new(&[class("mid", 5, true), class("low", 3, true)])));
        let wrong = "the integer value of priority (7) must not be provided in pod spec; priority admission controller computed 1000 from the given PriorityClass name";
        let cases = [
            (&none, value!({}), Ok(value!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"}))),
            (&some, value!({}), Ok(value!({"priority": 3, "preemptionPolicy": "Never", "priorityClassName": "low"}))),
            (
                &none,
                value!({"priorityClassName": "high"}),
                Ok(value!({"priority": 1000, "preemptionPolicy": "Never", "priorityClassName": "high"})),
            ),
            (&none, value!({"priorityClassName": "no"}), Err("no PriorityClass with name no was found".to_string())),
            (&none, value!({"priorityClassName": "high", "priority": 7}), Err(wrong.to_string())),
        ];
        for (plugin, mut spec, expected) in cases {
            let done = plugin.prioritize(&mut spec);
            assert_eq!(done.map(|()| spec), expected);
        }
    }
}
