//! FlowSchema: which requests belong to which priority level, and what tells flows apart.

use super::bootstrap;
use crate::resource::{Column, Context, Info, Resource, Subresource, age, name};
use canopus_api::{Errors, Field, Time, Value, names};

pub struct FlowSchema;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

static INFO: Info = Info {
    singular: "flowschema",
    namespaced: false,
    generation: true,
    subresources: &[Subresource::status(GROUP, "v1", "FlowSchema")],
    ..Info::stored(GROUP, "v1", "FlowSchema", "flowschemas")
};

const MAX_PRECEDENCE: i64 = 10_000;
const METHODS: &[&str] = &["ByNamespace", "ByUser"];
const KINDS: &[&str] = &["Group", "ServiceAccount", "User"];
const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

impl Resource for FlowSchema {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        let spec = object.obj_mut("spec");
        if spec.get("matchingPrecedence").is_none_or(|precedence| precedence.int() == 0) {
            spec.insert("matchingPrecedence", 1000);
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        crate::strategy::sealed_status(new, old, cx.subresource);
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let (meta, spec) = (object.at("metadata"), object.at("spec"));
        let name = meta.at("name").str();
        validate_spec(name, &spec, errors);
        if let Some(mandatory) = bootstrap::mandatory("FlowSchema", name)
            && !crate::semantic::equal(spec.value, &mandatory["spec"])
        {
            errors.invalid(&spec, format!("spec of '{name}' must equal the fixed value"));
        }
        conditions(&object.at("status"), errors);
    }

    fn validate_update(&self, new: &Field, _old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            conditions(&new.at("status"), errors);
        } else {
            self.validate(new, errors);
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("PriorityLevel", "string", "The priority level of the requests that match"),
                Column::new("MatchingPrecedence", "string", "Of the schemas that match, the lowest number counts"),
                Column::new("DistinguisherMethod", "string", "What tells the schema's flows apart"),
                Column::AGE,
                Column::new("MissingPL", "string", "references a broken or non-existent PriorityLevelConfiguration"),
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let spec = &object["spec"];
        let method =
            if spec["distinguisherMethod"].is_null() { "<none>" } else { spec["distinguisherMethod"]["type"].str() };
        let mut conditions = object["status"]["conditions"].items().iter();
        let dangling = conditions.find(|c| c["type"].str() == "Dangling").map_or("?", |c| c["status"].str());
        vec![
            name(object),
            spec["priorityLevelConfiguration"]["name"].str().into(),
            spec["matchingPrecedence"].int().into(),
            method.into(),
            age(object, now),
            dangling.into(),
        ]
    }
}

/// What status of both kinds must be.
pub(super) fn conditions(status: &Field, errors: &mut Errors) {
    let conditions = status.at("conditions");
    for (i, condition) in conditions.items().enumerate() {
        let kind = condition.at("type");
        if conditions.value.items()[..i].iter().any(|earlier| earlier["type"] == *kind.value) {
            errors.duplicate(&kind);
        }
        if kind.str().is_empty() {
            errors.required(&kind, "");
        }
    }
}

fn validate_spec(name: &str, spec: &Field, errors: &mut Errors) {
    let precedence = spec.at("matchingPrecedence");
    if precedence.int() <= 0 {
        errors.invalid(&precedence, "must be a positive value");
    }
    if precedence.int() > MAX_PRECEDENCE {
        errors.invalid(&precedence, format!("must not be greater than {MAX_PRECEDENCE}"));
    }
    if precedence.int() == 1 && name != "exempt" {
        errors.invalid(&precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    let method = spec.at("distinguisherMethod");
    if method.is_set() && !METHODS.contains(&method.at("type").str()) {
        errors.not_supported(&method.at("type").with(method.value), METHODS);
    }
    let level = spec.at("priorityLevelConfiguration");
    let level = level.at("name");
    if level.str().is_empty() {
        errors.required(&level, "must reference a priority level");
    }
    names::dns1123_subdomain(level.str())
        .into_iter()
        .filter(|_| !level.str().is_empty())
        .for_each(|why| errors.invalid(&level, why));
    spec.at("rules").items().for_each(|rule| validate_rule(&rule, errors));
}

fn validate_rule(rule: &Field, errors: &mut Errors) {
    let (subjects, resources, others) = (rule.at("subjects"), rule.at("resourceRules"), rule.at("nonResourceRules"));
    if subjects.value.items().is_empty() {
        errors.required(&subjects, "subjects must contain at least one value");
    }
    subjects.items().for_each(|subject| validate_subject(&subject, errors));
    if resources.value.items().is_empty() && others.value.items().is_empty() {
        errors.required(rule, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    resources.items().for_each(|rule| validate_resource_rule(&rule, errors));
    others.items().for_each(|rule| validate_path_rule(&rule, errors));
}

fn validate_subject(subject: &Field, errors: &mut Errors) {
    let kind = subject.at("kind");
    let Some(own) = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")]
        .iter()
        .find(|(name, _)| *name == kind.str())
    else {
        return errors.not_supported(&kind, KINDS);
    };
    let member = subject.at(own.1);
    if member.is_unset() {
        errors.required(&member, format!("{} is required when subject kind is '{}'", own.1, own.0));
    } else {
        validate_member(own.0, &member, errors);
    }
    for (name, field) in [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")] {
        let other = subject.at(field);
        if name != own.0 && other.is_set() {
            errors.forbidden(&other, format!("{field} is forbidden when subject kind is not '{name}'"));
        }
    }
}

fn validate_member(kind: &str, member: &Field, errors: &mut Errors) {
    let name = member.at("name");
    if name.str().is_empty() {
        errors.required(&name, "");
    } else if kind == "ServiceAccount" && name.str() != "*" {
        names::dns1123_subdomain(name.str()).into_iter().for_each(|why| errors.invalid(&name, why));
    }
    let namespace = member.at("namespace");
    if kind != "ServiceAccount" {
        return;
    }
    if namespace.str().is_empty() {
        return errors.required(&namespace, "must specify namespace for service account");
    }
    names::dns1123_label(namespace.str()).into_iter().for_each(|why| errors.invalid(&namespace, why));
}

fn has_wildcard(list: &Field) -> bool {
    list.value.items().iter().any(|item| item.str() == "*")
}

fn validate_verbs(verbs: &Field, errors: &mut Errors) {
    let list = verbs.value.items();
    if list.is_empty() {
        errors.required(verbs, "verbs must contain at least one value");
    } else if has_wildcard(verbs) {
        alone(verbs, "verbs", errors);
    } else if !list.iter().all(|verb| VERBS.contains(&verb.str())) {
        errors.not_supported(verbs, VERBS);
    }
}

/// A wildcard must be the only member.
fn alone(list: &Field, what: &str, errors: &mut Errors) {
    if list.value.items().len() > 1 && has_wildcard(list) {
        errors.invalid(list, format!("if '*' is present, must not specify other {what}"));
    }
}

fn validate_resource_rule(rule: &Field, errors: &mut Errors) {
    validate_verbs(&rule.at("verbs"), errors);
    for (field, one, many) in [("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")] {
        let list = rule.at(field);
        if list.value.items().is_empty() {
            errors.required(&list, format!("resource rules must supply at least one {one}"));
        }
        alone(&list, many, errors);
    }
    let namespaces = rule.at("namespaces");
    if namespaces.value.items().is_empty() && !rule.at("clusterScope").bool() {
        let why = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.required(&namespaces, why);
    } else if has_wildcard(&namespaces) {
        alone(&namespaces, "namespaces", errors);
    } else {
        for namespace in namespaces.items() {
            for why in names::dns1123_label(namespace.str()) {
                errors.invalid(&namespace, format!("each member of this list must be '*' or a DNS-1123 label; {why}"));
            }
        }
    }
}

fn validate_path_rule(rule: &Field, errors: &mut Errors) {
    validate_verbs(&rule.at("verbs"), errors);
    let urls = rule.at("nonResourceURLs");
    if urls.value.items().is_empty() {
        errors.required(&urls, "nonResourceURLs must contain at least one value");
    } else if has_wildcard(&urls) {
        alone(&urls, "non-resource URLs", errors);
    } else {
        for url in urls.items() {
            if let Some(why) = bad_path(url.str()) {
                errors.invalid(&url, why);
            }
        }
    }
}

fn bad_path(path: &str) -> Option<&'static str> {
    let wildcards = path.matches('*').count();
    match path {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !path.starts_with('/') => Some("must start with slash"),
        _ if path.contains(' ') => Some("must not contain white-space"),
        _ if path.contains("//") => Some("must not contain double slash"),
        _ if wildcards > 1 || wildcards == 1 && !path.ends_with("/*") => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create};
    use canopus_api::value;

    fn schema(name: &str, spec: Value) -> Value {
        value!({"metadata": {"name": name}, "spec": spec})
    }

    fn ruled(rule: Value) -> Value {
        schema("a", value!({"priorityLevelConfiguration": {"name": "p"}, "rules": [rule]}))
    }

    #[test]
    fn specs() {
        let user = value!([{"kind": "User", "user": {"name": "ann"}}]);
        let all = value!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true}]);
        let cases: &[(Value, &[&str])] = &[
            (ruled(value!({"subjects": user.clone(), "resourceRules": all.clone()})), &[]),
            (
                schema("a", value!({"matchingPrecedence": 1, "distinguisherMethod": {"type": "ByIP"}})),
                &[
                    "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                    "spec.distinguisherMethod.type: Unsupported value: {\"type\":\"ByIP\"}: supported values: \"ByNamespace\", \"ByUser\"",
                    "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
                ],
            ),
            (
                schema("a", value!({"matchingPrecedence": 10001, "priorityLevelConfiguration": {"name": "p"}})),
                &["spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"],
            ),
            (
                ruled(value!({})),
                &[
                    "spec.rules[0].subjects: Required value: subjects must contain at least one value",
                    "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
                ],
            ),
            (
                ruled(
                    value!({"subjects": [{"kind": "Group", "user": {"name": "x"}}, {"kind": "Pod"}], "resourceRules": all.clone()}),
                ),
                &[
                    "spec.rules[0].subjects[0].group: Required value: group is required when subject kind is 'Group'",
                    "spec.rules[0].subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User'",
                    "spec.rules[0].subjects[1].kind: Unsupported value: \"Pod\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
                ],
            ),
            (
                ruled(
                    value!({"subjects": user.clone(), "resourceRules": [{"verbs": ["get", "*"], "apiGroups": [], "resources": ["*", "a"]}]}),
                ),
                &[
                    "spec.rules[0].resourceRules[0].verbs: Invalid value: [\"get\",\"*\"]: if '*' is present, must not specify other verbs",
                    "spec.rules[0].resourceRules[0].apiGroups: Required value: resource rules must supply at least one api group",
                    "spec.rules[0].resourceRules[0].resources: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other resources",
                    "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
                ],
            ),
            (
                ruled(
                    value!({"subjects": user, "nonResourceRules": [{"verbs": ["eat"], "nonResourceURLs": ["x", "/a*"]}]}),
                ),
                &[
                    "spec.rules[0].nonResourceRules[0].verbs: Unsupported value: [\"eat\"]: supported values: \"create\", \"delete\", \"deletecollection\", \"get\", \"list\", \"patch\", \"proxy\", \"update\", \"watch\"",
                    "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"x\": must start with slash",
                    "spec.rules[0].nonResourceRules[0].nonResourceURLs[1]: Invalid value: \"/a*\": wildcard can only do suffix matching",
                ],
            ),
        ];
        for (object, expected) in cases {
            assert_eq!(create(&FlowSchema, object.clone()), *expected);
        }
    }

    #[test]
    fn mandatory_ones_are_fixed() {
        for (_, object) in bootstrap::objects().filter(|(kind, _)| *kind == "FlowSchema") {
            assert_eq!(create(&FlowSchema, object.clone()), Vec::<String>::new());
            let mut changed = object;
            changed.set_path(&["spec", "matchingPrecedence"], 5000);
            let name = changed["metadata"]["name"].str().to_owned();
            let refused = create(&FlowSchema, changed).iter().any(|e| e.ends_with("must equal the fixed value"));
            assert_eq!(refused, ["exempt", "catch-all"].contains(&&*name), "{name}");
        }
    }

    #[test]
    fn columns() {
        let spec = value!({"priorityLevelConfiguration": {"name": "p"}, "matchingPrecedence": 7});
        assert_eq!(cells(&FlowSchema, &schema("a", spec)), ["a", "p", "7", "<none>", "<unknown>", "?"]);
    }
}
