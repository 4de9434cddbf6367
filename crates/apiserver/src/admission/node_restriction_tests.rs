use super::*;
use crate::admission::Options;
use crate::user::User;
use canopus_api::value;

fn request<'a>(operation: Operation, user: &'a User, object: Value, old: &'a Value) -> Request<'a> {
    let resource = canopus_resources::find("", "v1", "nodes").unwrap().info();
    Request {
        operation,
        resource,
        subresource: "",
        namespace: "",
        name: "n1",
        object,
        old,
        user,
        dry_run: false,
        options: Options::None,
        reinvocation: Default::default(),
    }
}

#[test]
fn its_own_node_only_and_not_its_own_judge() {
    let user = User::new("system:node:n1", &[NODES]);
    let node = |name: &str, labels: Value, taints: Value| value!({"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}});
    let old = node("n1", value!({"kubernetes.io/os": "linux"}), value!([]));
    let create = |object: Value| own_node("n1", &request(Operation::Create, &user, object, &Value::Null));
    let update = |object: Value| own_node("n1", &request(Operation::Update, &user, object, &old));
    let none = || value!([]);
    let steering = value!({"node-restriction.kubernetes.io/x": "y", "kubernetes.io/arch": "arm64", "x.k8s.io/y": "z"});
    let cases = [
        (create(node("n1", value!({"kubernetes.io/hostname": "n1", "own/label": "x"}), none())), ""),
        (create(node("n2", Value::Null, none())), r#"node "n1" is not allowed to modify node "n2""#),
        (
            create(node("n1", steering, none())),
            r#"node "n1" is not allowed to set the following labels: node-restriction.kubernetes.io/x, x.k8s.io/y"#,
        ),
        (update(old.clone()), ""),
        (
            update(node("n1", value!({"node-role.kubernetes.io/x": ""}), none())),
            "is not allowed to modify labels: node-role.kubernetes.io/x",
        ),
        (
            update(node("n1", value!({"kubernetes.io/os": "linux"}), value!([{"key": "k"}]))),
            r#"node "n1" is not allowed to modify taints"#,
        ),
    ];
    for (got, expected) in cases {
        assert_eq!(got.err().unwrap_or_default(), expected);
    }
}

#[test]
fn mirror_pods_refer_to_nothing() {
    let cases = [
        (value!({"spec": {"volumes": [{"hostPath": {"path": "/"}}]}}), None),
        (value!({"spec": {"serviceAccountName": "x"}}), Some("serviceaccounts")),
        (value!({"spec": {"imagePullSecrets": [{"name": "x"}]}}), Some("secrets")),
        (value!({"spec": {"volumes": [{"ephemeral": {}}]}}), Some("persistentvolumeclaims (via ephemeral volumes)")),
        (
            value!({"spec": {"volumes": [{"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}}),
            Some("serviceaccounts (via projected volumes)"),
        ),
    ];
    for (pod, expected) in cases {
        assert_eq!(api_reference(&pod), expected, "{pod:?}");
    }
}
