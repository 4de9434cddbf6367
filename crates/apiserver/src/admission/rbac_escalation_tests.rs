use super::*;
use crate::admission::Options;
use crate::authz::rbac::Policy;
use crate::testing::Objects;
use crate::user::User;
use canopus_api::value;

fn rules(verbs: &[&str], resource: &str) -> Value {
    let verbs: Value = verbs.iter().copied().collect();
    value!([{"verbs": verbs, "apiGroups": [""], "resources": [resource]}])
}

async fn plugin() -> (Arc<Server>, RbacEscalation) {
    let role = |name: &str, rules: Value| value!({"metadata": {"name": name}, "rules": rules});
    let bind =
        value!([{"verbs": ["bind"], "apiGroups": [GROUP], "resources": ["clusterroles"], "resourceNames": ["strong"]}]);
    let binding = |user: &str, role: &str| {
        value!({
            "metadata": {"name": user}, "roleRef": {"kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": user}],
        })
    };
    let policy = Policy {
        roles: Arc::new(Objects::default()),
        role_bindings: Arc::new(Objects::default()),
        cluster_roles: Arc::new(Objects::new(&[
            role("reader", rules(&["get", "list"], "pods")),
            role("strong", rules(&["*"], "secrets")),
            role("binder", bind),
        ])),
        cluster_role_bindings: Arc::new(Objects::new(&[binding("ann", "reader"), binding("bob", "binder")])),
    };
    let (server, rbac) = (crate::testing::server().await, Rbac::new(policy));
    server.gates.set_authorizer(rbac.clone().into()).unwrap();
    let plugin = RbacEscalation { rbac, server: Arc::downgrade(&server) };
    (server, plugin)
}

async fn ask(plugin: &RbacEscalation, user: &str, plural: &str, object: Value, old: &Value) -> String {
    let user = User::new(user, &[]);
    let request = Request {
        operation: if old.is_null() { Operation::Create } else { Operation::Update },
        resource: canopus_resources::find(GROUP, "v1", plural).unwrap().info(),
        subresource: "",
        namespace: "",
        name: "x",
        object,
        old,
        user: &user,
        dry_run: false,
        options: Options::None,
        reinvocation: Default::default(),
    };
    plugin.validate(&request).await.err().map(|e| e.message).unwrap_or_default()
}

#[tokio::test]
async fn nobody_grants_what_they_lack() {
    let role = |rules: Value| value!({"metadata": {"name": "x"}, "rules": rules});
    let binding = |to: &str| value!({"metadata": {"name": "x"}, "roleRef": {"kind": "ClusterRole", "name": to}});
    let null = Value::Null;
    let (_server, plugin) = plugin().await;
    let refused = "clusterroles.rbac.authorization.k8s.io \"x\" is forbidden: user \"ann\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\"]}";
    assert_eq!(ask(&plugin, "ann", "clusterroles", role(rules(&["get"], "pods")), &null).await, "");
    assert_eq!(ask(&plugin, "ann", "clusterroles", role(rules(&["get", "list"], "secrets")), &null).await, refused);
    assert_eq!(ask(&plugin, "ann", "clusterrolebindings", binding("reader"), &null).await, "");
    assert!(ask(&plugin, "ann", "clusterrolebindings", binding("strong"), &null).await.contains("not currently held"));
    assert_eq!(ask(&plugin, "bob", "clusterrolebindings", binding("strong"), &null).await, "");
    assert!(ask(&plugin, "bob", "clusterrolebindings", binding("reader"), &null).await.contains("not currently held"));
    assert!(ask(&plugin, "bob", "clusterrolebindings", binding("none"), &null).await.contains("\"none\" not found"));
    // Removing a finalizer grants nothing.
    let mut old = role(rules(&["*"], "nodes"));
    old.set_path(&["metadata", "finalizers"], value!(["x/y"]));
    assert_eq!(ask(&plugin, "ann", "clusterroles", role(rules(&["*"], "nodes")), &old).await, "");
}
