//! ComponentStatus: the health of the cluster's components. Nothing of it is stored; the API server looks when it is asked.

use crate::resource::{Column, Info, Resource, Verb, name};
use canopus_api::{Time, Value};

pub struct ComponentStatus;

static INFO: Info = Info {
    singular: "componentstatus",
    short_names: &["cs"],
    namespaced: false,
    stored: false,
    verbs: &[Verb::Get, Verb::List],
    deprecated: "v1 ComponentStatus is deprecated in v1.19+",
    ..Info::stored("", "v1", "ComponentStatus", "componentstatuses")
};

impl Resource for ComponentStatus {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("Status", "string", "Status of the component conditions"),
                Column::new("Message", "string", "Message of the component conditions"),
                Column::new("Error", "string", "Error of the component conditions"),
            ]
        }
    }

    fn row(&self, object: &Value, _now: Time) -> Vec<Value> {
        let healthy = object["conditions"].items().iter().find(|c| c["type"].str() == "Healthy");
        let text = |field: &str| -> Value { healthy.map_or("", |c| c[field].str()).into() };
        let status = match healthy {
            Some(condition) if condition["status"].str() == "True" => "Healthy",
            Some(_) => "Unhealthy",
            None => "Unknown",
        };
        vec![name(object), status.into(), text("message"), text("error")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn row() {
        let of = |conditions: Value| {
            let object = value!({"metadata": {"name": "scheduler"}, "conditions": conditions});
            Value::Array(ComponentStatus.row(&object, Time(0)))
        };
        let good = value!([{"type": "Healthy", "status": "True", "message": "ok"}]);
        assert_eq!(of(good), value!(["scheduler", "Healthy", "ok", ""]));
        let bad = value!([{"type": "Healthy", "status": "False", "error": "gone"}]);
        assert_eq!(of(bad), value!(["scheduler", "Unhealthy", "", "gone"]));
        assert_eq!(of(value!([])), value!(["scheduler", "Unknown", "", ""]));
    }
}
