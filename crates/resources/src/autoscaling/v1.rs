//! HorizontalPodAutoscaler in `v1`, which can only be told of processors.

use super::convert::{self, OF_SPEC, OF_STATUS};
use super::v2;
use crate::resource::{Column, Context, Info, Resource, Subresource};
use crate::strategy;
use canopus_api::{Errors, Field, Time, Value};

pub struct HorizontalPodAutoscaler;

static INFO: Info = Info {
    version: "v1",
    subresources: &[Subresource::status("autoscaling", "v1", "HorizontalPodAutoscaler")],
    storage: Some(("autoscaling", "v2", "horizontalpodautoscalers")),
    ..v2::COMMON
};

fn in_v2(object: &Value) -> Value {
    let mut object = object.clone();
    convert::to_v2(&mut object);
    object
}

impl Resource for HorizontalPodAutoscaler {
    fn info(&self) -> &'static Info {
        &INFO
    }

    /// What it gets for no metric at all is added on the way to storage, which knows of all metrics.
    fn default(&self, object: &mut Value) {
        object.ensure_object().entry("spec", Value::object).set_default("minReplicas", 1);
    }

    fn prepare_create(&self, object: &mut Value, _cx: &Context) {
        object.remove("status");
        convert::keep_annotations(object, &Value::Null, OF_STATUS);
    }

    /// Parts of spec and status are annotations here.
    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        if cx.subresource == "status" {
            strategy::only_status(new, old, &[]);
            convert::keep_annotations(new, old, OF_SPEC);
        } else {
            strategy::keep(new, old, "status");
            convert::keep_annotations(new, old, OF_STATUS);
        }
    }

    fn convert_from_storage(&self, object: &mut Value) {
        convert::to_v1(object);
    }

    fn convert_to_storage(&self, object: &mut Value) {
        convert::to_v2(object);
    }

    /// As upstream, errors speak of the other version's fields.
    fn validate(&self, object: &Field, errors: &mut Errors) {
        v2::HorizontalPodAutoscaler.validate(&Field::root(&in_v2(object.value)), errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        let new = in_v2(new.value);
        v2::HorizontalPodAutoscaler.validate_update(&Field::root(&new), &in_v2(old), cx, errors);
    }

    fn columns(&self) -> &'static [Column] {
        v2::HorizontalPodAutoscaler.columns()
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        v2::HorizontalPodAutoscaler.row(&in_v2(object), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, context, create};
    use canopus_api::value;

    #[test]
    fn it_is_kept_in_the_other_version() {
        let mut object = value!({"apiVersion": "autoscaling/v1", "metadata": {"name": "h"}, "status": {"currentReplicas": 1},
            "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
        assert_eq!(create(&HorizontalPodAutoscaler, object.clone()), [""; 0]);
        HorizontalPodAutoscaler.default(&mut object);
        HorizontalPodAutoscaler.prepare_create(&mut object, &context(""));
        HorizontalPodAutoscaler.convert_to_storage(&mut object);
        assert_eq!(
            (object["apiVersion"].str(), &object["spec"]["metrics"]),
            ("autoscaling/v2", &value!([(v2::default_metric())]))
        );
        HorizontalPodAutoscaler.convert_from_storage(&mut object);
        assert_eq!(object["spec"]["targetCPUUtilizationPercentage"].as_i64(), Some(80));
        assert_eq!(cells(&HorizontalPodAutoscaler, &object)[2], "cpu: <unknown>/80%");
    }
}
