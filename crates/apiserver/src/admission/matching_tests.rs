//! Rules and selectors as data.

use super::*;
use crate::admission::Options;
use crate::testing::server;
use crate::user::User;
use canopus_api::value;

struct Case {
    rule: Value,
    resource: (&'static str, &'static str, &'static str),
    part: &'static str,
    operation: Operation,
    matches: bool,
}

fn request<'a>(case: &Case, object: Value, old: &'a Value, user: &'a User) -> Request<'a> {
    let (group, version, plural) = case.resource;
    let info = canopus_resources::find(group, version, plural).unwrap().info();
    Request {
        operation: case.operation,
        resource: info,
        subresource: case.part,
        namespace: if info.namespaced { "default" } else { "" },
        name: "x",
        object,
        old,
        user,
        dry_run: false,
        options: Options::None,
        reinvocation: Default::default(),
    }
}

#[tokio::test]
async fn rules() {
    let server = server().await;
    let namespaces = Fresh::of(&server, "", "v1", "namespaces").unwrap();
    let user = User::new("a", &[]);
    let rule = |change: Value| {
        let mut rule =
            value!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
        change.entries().for_each(|(k, v)| rule.set(k, v));
        rule
    };
    let pods = ("", "v1", "pods");
    let case = |rule: Value, resource, part, operation, matches| Case { rule, resource, part, operation, matches };
    let cases = [
        case(rule(value!({})), pods, "", Operation::Create, true),
        case(rule(value!({})), pods, "", Operation::Update, false),
        case(rule(value!({"operations": ["*"]})), pods, "", Operation::Connect, true),
        case(rule(value!({})), pods, "binding", Operation::Create, false),
        case(rule(value!({"resources": ["pods/*"]})), pods, "binding", Operation::Create, true),
        case(rule(value!({"resources": ["pods/*"]})), pods, "", Operation::Create, true),
        case(rule(value!({"resources": ["*/*"]})), pods, "status", Operation::Create, true),
        case(rule(value!({"apiGroups": ["apps"]})), pods, "", Operation::Create, false),
        case(rule(value!({"apiVersions": ["v2"]})), pods, "", Operation::Create, false),
        case(rule(value!({"scope": "Cluster"})), pods, "", Operation::Create, false),
        case(rule(value!({"scope": "Namespaced"})), pods, "", Operation::Create, true),
        case(
            rule(value!({"scope": "Cluster", "resources": ["namespaces"]})),
            ("", "v1", "namespaces"),
            "",
            Operation::Create,
            true,
        ),
        case(
            rule(value!({"scope": "Namespaced", "resources": ["namespaces"]})),
            ("", "v1", "namespaces"),
            "",
            Operation::Create,
            false,
        ),
        // The same objects in another group.
        case(rule(value!({"resources": ["events"]})), ("events.k8s.io", "v1", "events"), "", Operation::Create, true),
    ];
    for case in &cases {
        let request = request(case, value!({}), &Value::Null, &user);
        let hook = value!({"rules": [(&case.rule)], "matchPolicy": "Equivalent"});
        let matcher = Matcher::of_webhook(&hook);
        let found = matcher.matches(&request, &namespaces, || Version::equivalents(&server, &request));
        assert_eq!(found.await.unwrap().is_some(), case.matches, "{:?} {:?} {}", case.rule, case.resource, case.part);
    }
    let request = request(&cases[cases.len() - 1], value!({}), &Value::Null, &user);
    let matched = |hook: Value| {
        let (matcher, server, namespaces, request) = (Matcher::of_webhook(&hook), &server, &namespaces, &request);
        async move { matcher.matches(request, namespaces, || Version::equivalents(server, request)).await.unwrap() }
    };
    let of_core = rule(value!({"resources": ["events"]}));
    let shown = matched(value!({"rules": [(&of_core)], "matchPolicy": "Equivalent"})).await.unwrap();
    assert_eq!((shown.gvr, shown.kind), (Gvr::new("", "v1", "events"), Gvk::new("", "v1", "Event")));
    assert_eq!(matched(value!({"rules": [of_core], "matchPolicy": "Exact"})).await, None);
}

#[tokio::test]
async fn selectors() {
    let server = server().await;
    let namespaces = Fresh::of(&server, "", "v1", "namespaces").unwrap();
    let user = User::new("a", &[]);
    let rule = value!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*", "*"]});
    let label = |value: &str| value!({"matchLabels": {"kubernetes.io/metadata.name": value}});
    let on = value!({"matchLabels": {"a": "b"}});
    let labelled = value!({"metadata": {"labels": {"a": "b"}}});
    let case = |plural, operation| Case {
        rule: rule.clone(),
        resource: ("", "v1", plural),
        part: "",
        operation,
        matches: true,
    };
    let pod = case("pods", Operation::Update);
    let node = case("nodes", Operation::Update);
    let namespace = case("namespaces", Operation::Create);
    // what, its object, the old one, namespace selector, object selector, whether they match
    let cases: [(&Case, Value, Value, Value, Value, bool); 8] = [
        (&pod, value!({}), Value::Null, label("default"), value!({}), true),
        (&pod, value!({}), Value::Null, label("other"), value!({}), false),
        (&node, value!({}), Value::Null, label("other"), value!({}), true),
        (&namespace, value!({"metadata": {"labels": {"a": "b"}}}), Value::Null, on.clone(), value!({}), true),
        (&namespace, value!({"metadata": {}}), Value::Null, on.clone(), value!({}), false),
        (&pod, labelled.clone(), Value::Null, value!({}), on.clone(), true),
        (&pod, value!({"metadata": {}}), labelled, value!({}), on.clone(), true),
        (&pod, value!({"stdin": true}), Value::Null, value!({}), on, false),
    ];
    for (case, object, old, by_namespace, by_object, expected) in &cases {
        let request = request(case, object.clone(), old, &user);
        let hook = value!({"rules": [(&case.rule)], "namespaceSelector": by_namespace, "objectSelector": by_object});
        let found = Matcher::of_webhook(&hook).matches(&request, &namespaces, Vec::new).await.unwrap();
        assert_eq!(found.is_some(), *expected, "{:?} {object:?} {by_namespace:?} {by_object:?}", case.resource);
    }
    // Policies: names and exclusions.
    let request = request(&pod, value!({}), &Value::Null, &user);
    let mut named = rule.clone();
    named.set("resourceNames", value!(["y"]));
    let matches = async |constraints: Value| {
        Matcher::of_policy(&constraints).matches(&request, &namespaces, Vec::new).await.unwrap().is_some()
    };
    assert!(matches(value!({})).await);
    assert!(!matches(value!({"resourceRules": [(&named)]})).await);
    assert!(matches(value!({"resourceRules": [(&rule)], "excludeResourceRules": [named]})).await);
    assert!(!matches(value!({"resourceRules": [(&rule)], "excludeResourceRules": [(&rule)]})).await);
}
