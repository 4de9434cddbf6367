use super::*;
use crate::testing::Objects;
use canopus_api::value;

fn role(namespace: &str, name: &str, verb: &str) -> Value {
    value!({
        "metadata": {"name": name, "namespace": namespace, "labels": {"agg": name}},
        "rules": [{"verbs": [verb], "apiGroups": [""], "resources": ["pods"]}],
    })
}

fn binding(namespace: &str, name: &str, role: (&str, &str), subject: Value) -> Value {
    value!({
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": GROUP, "kind": role.0, "name": role.1},
        "subjects": [subject],
    })
}

fn policy() -> (Arc<Objects>, Arc<Rbac>) {
    let all = value!({
        "metadata": {"name": "all"},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"agg": "reader"}}, {"matchLabels": {"agg": "more"}}]},
    });
    let more = value!({
        "metadata": {"name": "more", "labels": {"agg": "more"}},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"agg": "watcher"}}, {"matchLabels": {"agg": "more"}}]},
    });
    let cluster_bindings = Arc::new(Objects::new(&[
        binding("", "readers", ("ClusterRole", "reader"), value!({"kind": "Group", "name": "devs"})),
        binding("", "everything", ("ClusterRole", "all"), value!({"kind": "User", "name": "root"})),
        binding("", "broken", ("ClusterRole", "missing"), value!({"kind": "User", "name": "lost"})),
    ]));
    let bindings = Objects::new(&[
        binding("ns", "deleters", ("Role", "deleter"), value!({"kind": "ServiceAccount", "name": "sa"})),
        binding("ns", "watchers", ("ClusterRole", "watcher"), value!({"kind": "User", "name": "bob"})),
    ]);
    let rbac = Rbac::new(Policy {
        roles: Arc::new(Objects::new(&[role("ns", "deleter", "delete")])),
        role_bindings: Arc::new(bindings),
        cluster_roles: Arc::new(Objects::new(&[role("", "reader", "get"), role("", "watcher", "watch"), all, more])),
        cluster_role_bindings: cluster_bindings.clone(),
    });
    (cluster_bindings, rbac)
}

fn ask(rbac: &Rbac, user: &User, verb: &str, namespace: &str) -> Decision {
    let target = canopus_api::Target::new(&canopus_api::Gvr::new("", "v1", "pods"), namespace, "");
    rbac.authorize(&Attributes::target(user, verb, &target))
}

#[test]
fn decisions() {
    let (_, rbac) = policy();
    let dev = User::new("ann", &["devs"]);
    let (root, bob, lost) = (User::new("root", &[]), User::new("bob", &[]), User::new("lost", &[]));
    let account = User::new("system:serviceaccount:ns:sa", &[]);
    let yes = |why: &str| Decision::Allow(format!("RBAC: allowed by {why}"));
    let no = |why: &str| Decision::NoOpinion(why.into());
    let all = r#"ClusterRoleBinding "everything" of ClusterRole "all" to User "root""#;
    let cases = [
        (&dev, "get", "x", yes(r#"ClusterRoleBinding "readers" of ClusterRole "reader" to Group "devs""#)),
        (&dev, "watch", "x", no("")),
        (&root, "get", "", yes(all)),
        (&root, "watch", "", yes(all)),
        (&bob, "watch", "ns", yes(r#"RoleBinding "watchers/ns" of ClusterRole "watcher" to User "bob""#)),
        (&bob, "watch", "x", no("")),
        (&bob, "watch", "", no("")),
        (&account, "delete", "ns", yes(r#"RoleBinding "deleters/ns" of Role "deleter" to ServiceAccount "sa/ns""#)),
        (&lost, "get", "ns", no(r#"RBAC: clusterrole.rbac.authorization.k8s.io "missing" not found"#)),
    ];
    for (user, verb, namespace, expected) in cases {
        assert_eq!(ask(&rbac, user, verb, namespace), expected, "{} {verb} {namespace}", user.name);
    }
}

#[test]
fn changes_count_at_once() {
    let (bindings, rbac) = policy();
    let eve = User::new("eve", &[]);
    assert_eq!(ask(&rbac, &eve, "get", ""), Decision::NoOpinion(String::new()));
    bindings.put(binding("", "eves", ("ClusterRole", "reader"), value!({"kind": "User", "name": "eve"})));
    assert!(matches!(ask(&rbac, &eve, "get", ""), Decision::Allow(_)));
}

#[test]
fn rules_are_listed() {
    let (_, rbac) = policy();
    let rules = Authorizer::rules(&*rbac, &User::new("bob", &["devs"]), "ns");
    let expected = |verb: &str| value!({"verbs": [verb], "apiGroups": [""], "resources": ["pods"]});
    assert_eq!(rules.resource, [expected("get"), expected("watch")]);
    assert!(rules.non_resource.is_empty());
}
