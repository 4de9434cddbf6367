//! RuntimeClass: what a runtime costs and where it is to be had becomes part of the pods that want it (KEP-688).

use super::fresh::Fresh;
use super::{Operation, Plugin, Request};
use async_trait::async_trait;
use canopus_api::{Object, Status, Value};
use canopus_resources::semantic;
use std::sync::Arc;

pub struct RuntimeClass {
    pub classes: Fresh,
}

impl RuntimeClass {
    async fn class(&self, request: &Request<'_>) -> Result<Option<Arc<Object>>, Status> {
        let Some(name) = request.object["spec"]["runtimeClassName"].as_str() else { return Ok(None) };
        match self.classes.get("", name).await? {
            Some(class) => Ok(Some(class)),
            None => Err(request.forbidden(&format!("pod rejected: RuntimeClass {name:?} not found"))),
        }
    }
}

#[async_trait]
impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, request: &Request) -> bool {
        request.operation == Operation::Create
            && request.is("", "pods", "")
            && (!request.object["spec"]["runtimeClassName"].is_null() || !request.object["spec"]["overhead"].is_null())
    }

    async fn admit(&self, request: &mut Request<'_>) -> Result<(), Status> {
        let Some(class) = self.class(request).await? else { return Ok(()) };
        let class = class.value();
        let spec = request.object.ensure_object().entry("spec", Value::object);
        let done = set_overhead(spec, &class).and_then(|()| set_scheduling(spec, &class["scheduling"]));
        done.map_err(|why| request.forbidden(&why))
    }

    async fn validate(&self, request: &Request<'_>) -> Result<(), Status> {
        let overhead = match self.class(request).await? {
            Some(class) => class.value()["overhead"].clone(),
            None => Value::Null,
        };
        let said = &request.object["spec"]["overhead"];
        if overhead.is_null() {
            let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
            return if said.is_null() { Ok(()) } else { Err(request.forbidden(why)) };
        }
        if same_overhead(&overhead["podFixed"], said) { Ok(()) } else { Err(request.forbidden(DIFFERS)) }
    }
}

const DIFFERS: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

fn same_overhead(class: &Value, pod: &Value) -> bool {
    let of = |overhead: &Value| canopus_api::value!({"overhead": overhead});
    semantic::equal(&of(class), &of(pod))
}

fn set_overhead(spec: &mut Value, class: &Value) -> Result<(), String> {
    let overhead = &class["overhead"];
    if overhead.is_null() {
        return Ok(());
    }
    if !spec["overhead"].is_empty() && !same_overhead(&overhead["podFixed"], &spec["overhead"]) {
        return Err(DIFFERS.into());
    }
    spec.set("overhead", &overhead["podFixed"]);
    Ok(())
}

fn set_scheduling(spec: &mut Value, scheduling: &Value) -> Result<(), String> {
    if scheduling.is_null() {
        return Ok(());
    }
    for (key, value) in scheduling["nodeSelector"].entries() {
        let selector = spec.ensure_object().entry("nodeSelector", Value::object).ensure_object();
        if let Some(own) = selector.get(key)
            && own.str() != value.str()
        {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                value.str(),
                own.str()
            ));
        }
        selector.insert(key.as_str(), value);
    }
    if !scheduling["tolerations"].is_empty() {
        let all = spec["tolerations"].items().iter().chain(scheduling["tolerations"].items());
        let merged = merge_tolerations(all);
        spec.set("tolerations", Value::Array(merged));
    }
    Ok(())
}

/// Leaves out what another toleration covers. Of equal ones the first stays.
fn merge_tolerations<'a>(all: impl Iterator<Item = &'a Value>) -> Vec<Value> {
    let all: Vec<&Value> = all.collect();
    let mut merged: Vec<&Value> = Vec::new();
    for (i, one) in all.iter().enumerate() {
        let later = all[i + 1..].iter().any(|other| !semantic::equal(one, other) && covers(other, one));
        if !later && !merged.iter().any(|other| covers(other, one)) {
            merged.push(one);
        }
    }
    merged.into_iter().cloned().collect()
}

/// Whether whatever `narrow` tolerates is tolerated by `wide`.
fn covers(wide: &Value, narrow: &Value) -> bool {
    if semantic::equal(wide, narrow) {
        return true;
    }
    let (key, narrow_key) = (wide["key"].str(), narrow["key"].str());
    if key != narrow_key && !(key.is_empty() && wide["operator"].str() == "Exists") {
        return false;
    }
    let effect = wide["effect"].str();
    if !effect.is_empty() && effect != narrow["effect"].str() {
        return false;
    }
    if effect == "NoExecute" {
        match (wide["tolerationSeconds"].as_i64(), narrow["tolerationSeconds"].as_i64()) {
            (Some(_), None) => return false,
            (Some(wide), Some(narrow)) if narrow > wide => return false,
            _ => {}
        }
    }
    match wide["operator"].str() {
        "Exists" => true,
        "" | "Equal" => narrow["operator"].str() != "Exists" && wide["value"].str() == narrow["value"].str(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn scheduling() {
        let class = value!({"nodeSelector": {"runtime": "kata"}, "tolerations": [
            {"key": "kata", "operator": "Exists"}, {"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"}]});
        let mut spec = value!({"nodeSelector": {"zone": "a"}, "tolerations": [{"key": "kata", "value": "x", "effect": "NoSchedule"}]});
        set_scheduling(&mut spec, &class).unwrap();
        assert_eq!(spec["nodeSelector"], value!({"zone": "a", "runtime": "kata"}));
        assert_eq!(spec["tolerations"], class["tolerations"], "what is tolerated already is not said again");
        let mut other = value!({"nodeSelector": {"runtime": "runc"}});
        assert_eq!(
            set_scheduling(&mut other, &class).unwrap_err(),
            "conflict: runtimeClass.scheduling.nodeSelector[runtime] = kata; pod.spec.nodeSelector[runtime] = runc"
        );
    }

    #[test]
    fn overhead() {
        let class = value!({"overhead": {"podFixed": {"cpu": "250m"}}});
        let mut spec = value!({});
        set_overhead(&mut spec, &class).unwrap();
        assert_eq!(spec["overhead"], value!({"cpu": "250m"}));
        assert_eq!(set_overhead(&mut value!({"overhead": {"cpu": "0.25"}}), &class), Ok(()));
        assert_eq!(set_overhead(&mut value!({"overhead": {"cpu": "1"}}), &class).unwrap_err(), DIFFERS);
    }
}
