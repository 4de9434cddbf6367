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

#[test]
fn what_a_node_may_say_of_claims_slices_and_certificates() {
    let user = User::new("system:node:n1", &[NODES]);
    let (claims, slices) = (("", "persistentvolumeclaims"), ("resource.k8s.io", "resourceslices"));
    let of = |operation, (group, plural), object: Value, old| {
        let resource = canopus_resources::find(group, "v1", plural).unwrap().info();
        Request { resource, ..request(operation, &user, object, old) }
    };
    let claim = |labels: Value, capacity: &str, phase: &str| value!({"metadata": {"name": "c", "labels": labels}, "status": {"capacity": {"storage": capacity}, "phase": phase}});
    let old = claim(Value::Null, "1Gi", "Bound");
    let update = |object| claim_status("n1", &of(Operation::Update, claims, object, &old)).err().unwrap_or_default();
    assert_eq!(update(claim(Value::Null, "2Gi", "Bound")), "");
    let more = r#"node "n1" is not allowed to update fields other than status.quantity and status.conditions"#;
    assert_eq!(update(claim(Value::Null, "1Gi", "Lost")), more);
    assert_eq!(update(claim(value!({"a": "b"}), "1Gi", "Bound")), more);
    let slice = |node: &str| value!({"metadata": {"name": "s"}, "spec": {"nodeName": node}});
    let null = Value::Null;
    let make = |node| resource_slice("n1", &of(Operation::Create, slices, slice(node), &null));
    assert_eq!(make("n1"), Ok(()));
    assert_eq!(make("n2"), Err("can only create ResourceSlice with the same NodeName as the requesting node".into()));
    let theirs = slice("n2");
    let gone = resource_slice("n1", &of(Operation::Delete, slices, null.clone(), &theirs));
    assert_eq!(gone, Err("can only delete ResourceSlice with the same NodeName as the requesting node".into()));
    let requests = ("certificates.k8s.io", "certificatesigningrequests");
    let asks = |name: &str, signer: &str| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let pem = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let object = value!({"spec": {"signerName": signer, "request": STANDARD.encode(pem)}});
        certificate("n1", &of(Operation::Create, requests, object, &null))
    };
    let serving = "kubernetes.io/kubelet-serving";
    assert_eq!(asks("system:node:n1", serving), Ok(()));
    assert_eq!(asks("system:node:n2", serving), Err("can only create a node CSR with CN=system:node:n1".into()));
    assert_eq!(asks("system:node:n2", "example.org/own"), Ok(()));
}

#[tokio::test]
async fn audiences_that_volumes_name() {
    let server = crate::testing::server().await;
    let (node, admin) = (User::new("system:node:n1", &[NODES]), User::new("admin", &[crate::user::MASTERS]));
    let plugin = NodeRestriction::new(&server).unwrap();
    let driver = value!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": "d.example.org"},
        "spec": {"tokenRequests": [{"audience": "csi"}]},
    });
    let drivers = Gvr::new("storage.k8s.io", "v1", "csidrivers");
    let target = canopus_api::Target::new(&drivers, "", "");
    server.create(&admin, &target, driver, &Default::default()).await.unwrap();
    let token = |audience: &str| value!({"name": "t", "projected": {"sources": [{"serviceAccountToken": {"audience": audience}}]}});
    let csi = value!({"name": "c", "csi": {"driver": "d.example.org"}});
    let lost = value!({"name": "l", "persistentVolumeClaim": {"claimName": "lost"}});
    let null = Value::Null;
    let ask = async |audience: &str, volumes: Value| {
        let pod = value!({"metadata": {"name": "p"}, "spec": {"volumes": volumes}});
        let request =
            Request { namespace: "default", name: "sa", ..request(Operation::Create, &node, Value::Null, &null) };
        match plugin.audience(audience, &pod, &request).await {
            Ok(()) => String::new(),
            Err(No::Forbidden(why)) => why,
            Err(No::Other(status)) => status.message,
        }
    };
    assert_eq!(ask("vault", value!([token("vault")])).await, "");
    assert_eq!(
        ask("", value!([{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "x"}}]}}])).await,
        ""
    );
    assert_eq!(ask("csi", value!([csi.clone()])).await, "");
    let refused = |a: &str| {
        format!(
            "audience {a:?} not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience"
        )
    };
    assert_eq!(ask("vault", value!([csi, token("other")])).await, refused("vault"));
    assert_eq!(ask("", value!([])).await, refused(""));
    assert!(ask("vault", value!([lost])).await.contains("persistentvolumeclaims \"lost\" not found"));
    let role = value!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "audiences"},
        "rules": [{"apiGroups": [""], "resources": ["allowed"], "verbs": ["request-serviceaccounts-token-audience"]}],
    });
    let binding = value!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "audiences"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "audiences"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}],
    });
    for (plural, object) in [("clusterroles", role), ("clusterrolebindings", binding)] {
        let target = canopus_api::Target::new(&Gvr::new("rbac.authorization.k8s.io", "v1", plural), "", "");
        let made = server.create(&admin, &target, object, &Default::default()).await.unwrap();
        let cache = server.cache("rbac.authorization.k8s.io", "v1", plural).unwrap();
        cache.reached(made.object.revision).await.unwrap();
    }
    assert_eq!(ask("allowed", value!([])).await, "");
}

#[tokio::test]
async fn certificates_for_pods_that_run_there() {
    let server = crate::testing::server().await;
    let (node, admin) = (User::new("system:node:n1", &[NODES]), User::new("admin", &[crate::user::MASTERS]));
    let plugin = NodeRestriction::new(&server).unwrap();
    let make = async |plural: &str, namespace: &str, object: Value| {
        let target = canopus_api::Target::new(&Gvr::new("", "v1", plural), namespace, "");
        server.create(&admin, &target, object, &Default::default()).await.unwrap().object.facts.uid.to_string()
    };
    let node_uid = make("nodes", "", value!({"metadata": {"name": "n1"}})).await;
    let account = make("serviceaccounts", "default", value!({"metadata": {"name": "sa"}})).await;
    let pod = |name: &str, node: &str| {
        value!({"metadata": {"name": name}, "spec": {
            "serviceAccountName": "sa", "nodeName": node, "containers": [{"name": "c", "image": "i"}],
        }})
    };
    let here = make("pods", "default", pod("here", "n1")).await;
    let there = make("pods", "default", pod("there", "n2")).await;
    let spec = value!({
        "nodeName": "n1", "nodeUID": &node_uid, "podName": "here", "podUID": &here,
        "serviceAccountName": "sa", "serviceAccountUID": &account,
    });
    let null = Value::Null;
    let ask = async |change: Value| {
        let mut spec = spec.clone();
        change.entries().for_each(|(field, text)| spec.set(field, text.clone()));
        let object = value!({"metadata": {"name": "r"}, "spec": spec});
        let request = Request { namespace: "default", ..request(Operation::Create, &node, object, &null) };
        match plugin.pod_certificate("n1", &request).await {
            Ok(()) => (0, String::new()),
            Err(No::Forbidden(why)) => (403, why),
            Err(No::Other(status)) => (status.code, status.message),
        }
    };
    assert_eq!(ask(value!({})).await, (0, String::new()));
    for (change, code, why) in [
        (value!({"nodeName": "n2"}), 403, "which is not the requesting node \"n1\""),
        (value!({"nodeUID": "x"}), 500, "inconsistent with the running node"),
        (value!({"podUID": "x"}), 500, "contains pod UID (\"x\")"),
        (value!({"podName": "none"}), 500, "while retrieving pod \"default/none\""),
        (value!({"podName": "there", "podUID": &there}), 403, "is not running on node \"n1\""),
        (value!({"serviceAccountName": "default"}), 403, "that differs from running pod (\"sa\")"),
        (value!({"serviceAccountUID": "x"}), 500, "names service account UID \"x\""),
    ] {
        let (actual, said) = ask(change).await;
        assert!(actual == code && said.contains(why), "{why}: {actual} {said}");
    }
}
