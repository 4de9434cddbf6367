//! ResourceQuota: how much a namespace may use in all.

use super::pod::defaults::{resource_list, with};
use super::pod::requirements::{is_standard_quota, resource_name, resource_quantity};
use crate::resource::{Column, Context, Info, Resource, Subresource, age, name, quantity_text};
use canopus_api::{Errors, Field, Quantity, Time, Value};
use std::collections::BTreeSet;

pub struct ResourceQuota;

static INFO: Info = Info {
    singular: "resourcequota",
    short_names: &["quota"],
    subresources: &[Subresource::status("", "v1", "ResourceQuota")],
    ..Info::stored("", "v1", "ResourceQuota", "resourcequotas")
};

impl Resource for ResourceQuota {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        with(object, "spec", |spec| with(spec, "hard", resource_list));
        with(object, "status", |status| {
            with(status, "hard", resource_list);
            with(status, "used", resource_list);
        });
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        resources(&spec.at("hard"), errors);
        scopes(&spec, errors);
        scope_selector(&spec, errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            let status = new.at("status");
            resources(&status.at("hard"), errors);
            return resources(&status.at("used"), errors);
        }
        self.validate(new, errors);
        let set = |scopes: &Value| scopes.items().iter().map(|s| s.str().to_string()).collect::<BTreeSet<_>>();
        let (spec, before) = (new.at("spec"), set(&old["spec"]["scopes"]));
        let scopes = spec.at("scopes");
        if set(scopes.value) != before {
            errors.invalid(&scopes, crate::checks::IMMUTABLE);
        }
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let hard = &object["spec"]["hard"];
        match old {
            Some(_) => Vec::new(),
            None => ["cpu", "memory", "storage", "ephemeral-storage"]
                .iter()
                .filter_map(|name| request_above_limit(hard, name))
                .collect(),
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new(
                    "Request",
                    "string",
                    "Request represents a minimum amount of cpu/memory that a container may consume.",
                ),
                Column::new(
                    "Limit",
                    "string",
                    "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
                ),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let status = &object["status"];
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (resource, hard) in status["hard"].entries() {
            let column = if resource.starts_with("limits.") { &mut limits } else { &mut requests };
            column.push(format!(
                "{resource}: {}/{}",
                quantity_text(&status["used"][resource.as_str()]),
                quantity_text(hard)
            ));
        }
        vec![name(object), requests.join(", ").into(), limits.join(", ").into(), age(object, now)]
    }
}

/// A resource list whose names are those of quotas.
fn resources(list: &Field, errors: &mut Errors) {
    for (name, amount) in list.entries() {
        resource_name(&amount, name, errors);
        if !name.contains('/') && !is_standard_quota(name) {
            errors.invalid(&amount.with(&name.into()), "must be a standard resource for quota");
        }
        resource_quantity(&amount, name, errors);
    }
}

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// Whether a quota with this scope can count this resource.
fn applies(scope: &str, resource: &str) -> bool {
    let compute =
        ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"].contains(&resource);
    match scope {
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            resource == "pods" || compute
        }
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

fn each_misapplied(spec: &Field, scope: &str, mut found: impl FnMut()) {
    let hard = spec.value["hard"].entries();
    hard.filter(|(name, _)| is_standard_quota(name) && !applies(scope, name)).for_each(|_| found());
}

fn conflicting(scopes: &[&str]) -> usize {
    let both = |a: &str, b: &str| scopes.contains(&a) && scopes.contains(&b);
    usize::from(both("BestEffort", "NotBestEffort")) + usize::from(both("Terminating", "NotTerminating"))
}

fn scopes(spec: &Field, errors: &mut Errors) {
    let list = spec.at("scopes");
    let scopes: Vec<&str> = list.value.items().iter().map(Value::str).collect();
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            errors.invalid(&list, "unsupported scope");
        }
        each_misapplied(spec, scope, || errors.invalid(&list, "unsupported scope applied to resource"));
    }
    (0..conflicting(&scopes)).for_each(|_| errors.invalid(&list, "conflicting scopes"));
}

/// As upstream, errors name the list, not the expression.
fn scope_selector(spec: &Field, errors: &mut Errors) {
    let selector = spec.at("scopeSelector");
    let list = selector.at("matchExpressions");
    let mut scopes = Vec::new();
    for requirement in list.value.items() {
        let (scope, operator) = (requirement["scopeName"].str(), requirement["operator"].str());
        if !SCOPES.contains(&scope) {
            errors.invalid(&list.at("scopeName").with(&scope.into()), "unsupported scope");
        }
        each_misapplied(spec, scope, || {
            errors.invalid(&list.with(selector.value), "unsupported scope applied to resource");
        });
        let shown: Value = operator.into();
        let blamed = list.at("operator");
        let blamed = blamed.with(&shown);
        if !matches!(scope, "PriorityClass" | "VolumeAttributesClass")
            && SCOPES.contains(&scope)
            && operator != "Exists"
        {
            errors.invalid(&blamed, "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity");
        }
        let (values, none) = (list.at("values"), requirement["values"].is_empty());
        let values = values.with(&requirement["values"]);
        match operator {
            "In" | "NotIn" if none => errors
                .required(&values, "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"),
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !none => errors
                .invalid(&values, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"),
            "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(&blamed, "not a valid selector operator"),
        }
        scopes.push(scope);
    }
    let blamed = list.with(spec.value.at("scopes"));
    (0..conflicting(&scopes)).for_each(|_| errors.invalid(&blamed, "conflicting scopes"));
}

fn request_above_limit(hard: &Value, resource: &str) -> Option<String> {
    let get = |name: &str| hard.get(name).and_then(Quantity::from_value);
    let mut of_request = format!("requests.{resource}");
    if hard.get(&of_request).is_none() && matches!(resource, "cpu" | "memory") {
        of_request = resource.to_string();
    }
    let of_limit = format!("limits.{resource}");
    let (request, limit) = (get(&of_request)?, get(&of_limit)?);
    (request > limit)
        .then(|| format!("ResourceQuota {of_request} ({request}) should be less than {of_limit} ({limit})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    #[test]
    fn rules() {
        let cases: Vec<(Value, &[&str])> = vec![
            (
                value!({"hard": {"pods": "5", "count/jobs.batch": 1, "requests.nvidia.com/gpu": 3, "requests.storage": "1Gi",
                "gold.storageclass.storage.k8s.io/requests.storage": "1Gi"}}),
                &[],
            ),
            (
                value!({"hard": {"pods": "1500m", "storage": "1", "cpu": "-1"}}),
                &[
                    r#"spec.hard[cpu]: Invalid value: "-1": must be greater than or equal to 0"#,
                    r#"spec.hard[pods]: Invalid value: "1500m": must be an integer"#,
                    r#"spec.hard[storage]: Invalid value: "storage": must be a standard resource for quota"#,
                ],
            ),
            (
                value!({"hard": {"cpu": 1}, "scopes": ["BestEffort", "NotBestEffort", "X"]}),
                &[
                    r#"spec.scopes: Invalid value: ["BestEffort","NotBestEffort","X"]: unsupported scope applied to resource"#,
                    r#"spec.scopes: Invalid value: ["BestEffort","NotBestEffort","X"]: unsupported scope"#,
                    r#"spec.scopes: Invalid value: ["BestEffort","NotBestEffort","X"]: conflicting scopes"#,
                ],
            ),
            (
                value!({"hard": {"pods": 1}, "scopeSelector": {"matchExpressions": [
                    {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}, {"scopeName": "Terminating", "operator": "In"}]}}),
                &[
                    r#"spec.scopeSelector.matchExpressions.operator: Invalid value: "In": must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"#,
                    "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                ],
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(create(&ResourceQuota, value!({"spec": spec})), expected);
        }
        let quota = |scopes: Value| value!({"spec": {"scopes": scopes}});
        assert_eq!(
            update(&ResourceQuota, "", quota(value!(["Terminating"])), quota(value!([]))),
            ["spec.scopes: Invalid value: []: field is immutable"]
        );
        let status = value!({"status": {"used": {"storage": 1}}});
        assert_eq!(
            update(&ResourceQuota, "status", value!({}), status),
            [r#"status.used[storage]: Invalid value: "storage": must be a standard resource for quota"#]
        );
    }

    #[test]
    fn warnings_and_rows() {
        let object = value!({"metadata": {"name": "q"}, "spec": {"hard": {"cpu": 2, "limits.cpu": 1}},
            "status": {"hard": {"limits.cpu": "1", "pods": "5", "cpu": "2"}, "used": {"pods": "3"}}});
        assert_eq!(ResourceQuota.warnings(&object, None), ["ResourceQuota cpu (2) should be less than limits.cpu (1)"]);
        assert_eq!(cells(&ResourceQuota, &object), ["q", "cpu: 0/2, pods: 3/5", "limits.cpu: 0/1", "<unknown>"]);
    }
}
