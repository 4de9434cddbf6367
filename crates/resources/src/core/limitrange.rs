//! LimitRange: what one pod, container or claim of a namespace may ask for, and gets when it does not.

use super::pod::amounts::{Amounts, amounts, is_overcommit_allowed};
use super::pod::defaults::{each, resource_list, with};
use super::pod::requirements::{container_resource, resource_name};
use crate::checks;
use crate::resource::{Context, Info, Resource};
use canopus_api::{Errors, Field, Quantity, Value, names};

pub struct LimitRange;

static INFO: Info = Info {
    singular: "limitrange",
    short_names: &["limits"],
    create_on_update: true,
    ..Info::stored("", "v1", "LimitRange", "limitranges")
};

const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

impl Resource for LimitRange {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        with(object, "spec", |spec| {
            each(spec, "limits", |limit| {
                if limit["type"].str() == "Container" {
                    container_defaults(limit);
                }
                LISTS.iter().for_each(|list| with(limit, list, resource_list));
            });
        });
    }

    /// One without a name is called by its uid.
    fn prepare_create(&self, object: &mut Value, _cx: &Context) {
        if object["metadata"]["name"].is_empty() {
            let uid = object["metadata"]["uid"].clone();
            object.set_path(&["metadata", "name"], uid);
        }
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        let mut seen = checks::Seen::new();
        for limit in spec.at("limits").items() {
            let kind = limit.at("type");
            let kind = kind.with(limit.value.at("type"));
            limit_type(&kind, errors);
            if !seen.insert(kind.str().into()) {
                errors.duplicate(&kind);
            }
            item(&limit, errors);
        }
    }
}

/// Default limits from maxima, default requests from default limits and then from minima.
fn container_defaults(limit: &mut Value) {
    for (to, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
        let source = limit[from].as_object().cloned().unwrap_or_default();
        let list = limit.obj_mut(to);
        for (name, quantity) in source {
            list.entry(&name, || quantity);
        }
    }
}

fn limit_type(kind: &Field, errors: &mut Errors) {
    let before = errors.len();
    let shown: Value = kind.str().into();
    checks::check(&kind.with(&shown), names::qualified_name, errors);
    let standard = ["Pod", "Container", "PersistentVolumeClaim"].contains(&kind.str());
    if errors.len() == before && !kind.str().contains('/') && !standard {
        errors.invalid(&kind.with(&shown), "must be a standard limit type or fully qualified");
    }
}

fn item(limit: &Field, errors: &mut Errors) {
    let kind = limit.value["type"].str();
    for listed in LISTS {
        if listed == "maxLimitRequestRatio" && kind == "PersistentVolumeClaim" {
            let storage = |list: &str| limit.value[list].get("storage").is_some();
            if !storage("min") && !storage("max") {
                let why = "either minimum or maximum storage value is required, but neither was provided";
                errors.required(&limit.at("limits"), why);
            }
        }
        let list = limit.at(listed);
        if kind == "Pod" && listed.starts_with("default") {
            if !list.value.is_empty() {
                errors.forbidden(&list, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (name, quantity) in list.entries() {
            match kind {
                "Pod" | "Container" => container_resource(&quantity, name, errors),
                _ => {
                    resource_name(&quantity, name, errors);
                }
            }
        }
    }
    let [max, min, mut default, mut request, ratio] = LISTS.map(|list| amounts(&limit.value[list]));
    if kind == "Pod" {
        (default, request) = (Amounts::new(), Amounts::new());
    }
    let names: std::collections::BTreeSet<_> =
        [&max, &min, &default, &request, &ratio].into_iter().flat_map(Amounts::keys).cloned().collect();
    for name in names {
        let get = |list: &Amounts| list.get(&name).copied();
        let known = Known { max: get(&max), min: get(&min), default: get(&default), request: get(&request) };
        consistent(limit, &name, &known, get(&ratio), errors);
    }
}

struct Known {
    max: Option<Quantity>,
    min: Option<Quantity>,
    default: Option<Quantity>,
    request: Option<Quantity>,
}

fn consistent(limit: &Field, name: &str, known: &Known, ratio: Option<Quantity>, errors: &mut Errors) {
    let Known { max, min, default, request } = *known;
    let mut wrong = |list: &str, shown: Quantity, why: String| {
        errors.invalid(&limit.at(list).key(name).with(&shown.into()), why);
    };
    // Of two, the first may not be greater.
    let above = |a: Option<Quantity>, b: Option<Quantity>| a.zip(b).filter(|(a, b)| a > b);
    if let Some((min, max)) = above(min, max) {
        wrong("min", min, format!("min value {min} is greater than max value {max}"));
    }
    if let Some((min, request)) = above(min, request) {
        wrong("defaultRequest", request, format!("min value {min} is greater than default request value {request}"));
    }
    if let Some((request, max)) = above(request, max) {
        wrong("defaultRequest", request, format!("default request value {request} is greater than max value {max}"));
    }
    if let Some((request, default)) = above(request, default) {
        let why = format!("default request value {request} is greater than default limit value {default}");
        wrong("defaultRequest", request, why);
    }
    if let Some((min, default)) = above(min, default) {
        wrong("default", min, format!("min value {min} is greater than default value {default}"));
    }
    if let Some((default, max)) = above(default, max) {
        wrong("default", max, format!("default value {default} is greater than max value {max}"));
    }
    if let Some(ratio) = ratio {
        if ratio < Quantity::from_int(1) {
            wrong("maxLimitRequestRatio", ratio, format!("ratio {ratio} is less than 1"));
        }
        if let Some((min, max)) = min.zip(max) {
            let possible = max.milli_value() as f64 / min.milli_value() as f64;
            if ratio.milli_value() as f64 / 1000.0 > possible {
                let why = format!("ratio {ratio} is greater than max/min = {possible:.6}");
                wrong("maxLimitRequestRatio", ratio, why);
            }
        }
    }
    if let Some((default, request)) = default.zip(request)
        && default != request
        && !is_overcommit_allowed(name)
    {
        let why = format!("default value {default} must equal to defaultRequest value {request} in {name}");
        wrong("defaultRequest", request, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::create;
    use canopus_api::value;

    #[test]
    fn containers_get_defaults_from_the_other_lists() {
        let mut object = value!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2", "memory": "1Gi"},
            "min": {"cpu": "0.1", "ephemeral-storage": "1"}, "default": {"cpu": "1"}}, {"type": "Pod", "max": {"cpu": 1}}]}});
        LimitRange.default(&mut object);
        let [container, pod] = object["spec"]["limits"].items() else { panic!() };
        assert_eq!(container["default"], value!({"cpu": "1", "memory": "1Gi"}));
        assert_eq!(container["defaultRequest"], value!({"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1"}));
        assert!(pod["default"].is_null());
    }

    #[test]
    fn rules() {
        let cases: Vec<(Value, &[&str])> = vec![
            (
                value!([{"type": "Container", "max": {"cpu": 2}, "min": {"cpu": 1}, "maxLimitRequestRatio": {"cpu": 2}}]),
                &[],
            ),
            (
                value!([{"type": "Pod", "default": {"cpu": 1}}, {"type": "Pod"}, {"type": "X"}]),
                &[
                    "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
                    r#"spec.limits[1].type: Duplicate value: "Pod""#,
                    r#"spec.limits[2].type: Invalid value: "X": must be a standard limit type or fully qualified"#,
                ],
            ),
            (
                value!([{"type": "PersistentVolumeClaim"}]),
                &[
                    "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
                ],
            ),
            (
                value!([{"type": "Container", "min": {"cpu": 4}, "max": {"cpu": 2}, "default": {"cpu": 3}, "defaultRequest": {"cpu": 5},
                    "maxLimitRequestRatio": {"cpu": "900m"}}]),
                &[
                    r#"spec.limits[0].min[cpu]: Invalid value: "4": min value 4 is greater than max value 2"#,
                    r#"spec.limits[0].defaultRequest[cpu]: Invalid value: "5": default request value 5 is greater than max value 2"#,
                    r#"spec.limits[0].defaultRequest[cpu]: Invalid value: "5": default request value 5 is greater than default limit value 3"#,
                    r#"spec.limits[0].default[cpu]: Invalid value: "4": min value 4 is greater than default value 3"#,
                    r#"spec.limits[0].default[cpu]: Invalid value: "2": default value 3 is greater than max value 2"#,
                    r#"spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "900m": ratio 900m is less than 1"#,
                    r#"spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "900m": ratio 900m is greater than max/min = 0.500000"#,
                ],
            ),
            (
                value!([{"type": "Container", "default": {"x.y/z": 2}, "defaultRequest": {"x.y/z": 1}, "max": {"pods": 1}}]),
                &[
                    r#"spec.limits[0].max[pods]: Invalid value: "pods": must be a standard resource for containers"#,
                    r#"spec.limits[0].default[pods]: Invalid value: "pods": must be a standard resource for containers"#,
                    r#"spec.limits[0].defaultRequest[pods]: Invalid value: "pods": must be a standard resource for containers"#,
                    r#"spec.limits[0].defaultRequest[x.y/z]: Invalid value: "1": default value 2 must equal to defaultRequest value 1 in x.y/z"#,
                ],
            ),
        ];
        for (limits, expected) in cases {
            assert_eq!(create(&LimitRange, value!({"spec": {"limits": limits}})), expected);
        }
    }
}
