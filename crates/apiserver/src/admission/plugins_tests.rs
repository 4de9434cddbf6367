//! The gatekeepers of a real server on a store in memory.

use super::*;
use crate::LocalApi;
use crate::testing::server;
use crate::user::{MASTERS, NODES, User};
use canopus_api::{Api, DeleteOptions, Gvr, Target, Value, value};

fn target(plural: &str, namespace: &str, name: &str) -> Target {
    Target::new(&Gvr::new("", "v1", plural), namespace, name)
}

fn pod(name: &str, node: &str) -> Value {
    value!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
    })
}

async fn create(api: &Arc<dyn Api>, plural: &str, namespace: &str, object: Value) -> Result<Arc<Value>> {
    let object = api.create(&target(plural, namespace, ""), object, &Default::default()).await?;
    Ok(object.value())
}

#[tokio::test]
async fn a_pod_through_the_whole_chain() {
    let server = server().await;
    let admin = LocalApi::shared(server.clone(), User::new("admin", &[MASTERS]), "tests");
    let missing = create(&admin, "pods", "nowhere", pod("a", "")).await.unwrap_err();
    assert_eq!(missing.message, r#"namespaces "nowhere" not found"#);
    let mut wrong = pod("a", "");
    wrong.set_path(&["spec", "serviceAccountName"], "other");
    let refused = create(&admin, "pods", "default", wrong).await.unwrap_err();
    let why =
        r#"pods "a" is forbidden: error looking up service account default/other: serviceaccount "other" not found"#;
    assert_eq!((refused.code, refused.message.as_str()), (403, why));

    // The default account comes while the pod waits for it.
    let account = value!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let (made, account) = tokio::join!(
        create(&admin, "pods", "default", pod("a", "")),
        create(&admin, "serviceaccounts", "default", account)
    );
    account.unwrap();
    let spec = &made.unwrap()["spec"];
    assert_eq!(spec["serviceAccountName"].str(), "default");
    assert_eq!((spec["priority"].int(), spec["preemptionPolicy"].str()), (0, "PreemptLowerPriority"));
    assert_eq!(spec["tolerations"].items().len(), 2);
    assert!(spec["volumes"][0]["name"].str().starts_with("kube-api-access-"));
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], spec["volumes"][0]["name"]);

    let immortal = admin.delete(&target("namespaces", "", "kube-system"), &DeleteOptions::default()).await.unwrap_err();
    assert_eq!(immortal.message, r#"namespaces "kube-system" is forbidden: this namespace may not be deleted"#);
    let leaving = value!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "leaving"}});
    create(&admin, "namespaces", "", leaving).await.unwrap();
    admin.delete(&target("namespaces", "", "leaving"), &DeleteOptions::default()).await.unwrap();
    let refused = create(&admin, "pods", "leaving", pod("b", "")).await.unwrap_err();
    assert!(refused.message.ends_with("in namespace leaving because it is being terminated"), "{}", refused.message);
}

#[tokio::test]
async fn nodes_and_strangers_are_kept_in_their_place() {
    let server = server().await;
    let api = |user: Arc<User>| LocalApi::shared(server.clone(), user, "tests");
    let admin = api(User::new("admin", &[MASTERS]));
    let node = api(User::new("system:node:n1", &[NODES]));
    let stranger = api(User::new("ann", &[]));
    let own = value!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    let made = create(&node, "nodes", "", own).await.unwrap();
    assert_eq!(made["spec"]["taints"][0]["key"].str(), "node.kubernetes.io/not-ready");
    let other = value!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"}});
    let refused = create(&node, "nodes", "", other).await.unwrap_err();
    assert_eq!(refused.message, r#"nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2""#);

    let account = value!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    create(&admin, "serviceaccounts", "default", account).await.unwrap();
    create(&admin, "pods", "default", pod("mine", "n1")).await.unwrap();
    create(&admin, "pods", "default", pod("theirs", "n2")).await.unwrap();
    let config = value!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"}});
    create(&admin, "configmaps", "default", config).await.unwrap();
    assert!(node.get(&target("configmaps", "default", "kube-root-ca.crt")).await.is_ok());
    assert_eq!(node.get(&target("configmaps", "default", "other")).await.unwrap_err().code, 403);
    assert!(node.get(&target("pods", "default", "mine")).await.is_ok());
    assert_eq!(node.get(&target("pods", "default", "theirs")).await.unwrap_err().code, 403);
    let refused = node.delete(&target("pods", "default", "theirs"), &DeleteOptions::default()).await.unwrap_err();
    assert!(refused.message.ends_with("can only delete pods with spec.nodeName set to itself"), "{}", refused.message);
    node.delete(&target("pods", "default", "mine"), &DeleteOptions::default()).await.unwrap();

    let refused = stranger.get(&target("pods", "default", "theirs")).await.unwrap_err();
    let why = r#"pods "theirs" is forbidden: User "ann" cannot get resource "pods" in API group "" in the namespace "default""#;
    assert_eq!(refused.message, why);
}

#[tokio::test]
async fn tokens_and_bindings_are_admitted() {
    let server = server().await;
    let api = |user: Arc<User>| LocalApi::shared(server.clone(), user, "tests");
    let (admin, node) = (api(User::new("admin", &[MASTERS])), api(User::new("system:node:n1", &[NODES])));
    let account = value!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    create(&admin, "serviceaccounts", "default", account).await.unwrap();
    let zone = value!({"topology.kubernetes.io/zone": "z", "other": "x"});
    let own = value!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": zone}});
    create(&admin, "nodes", "", own).await.unwrap();
    let mine = create(&admin, "pods", "default", pod("mine", "n1")).await.unwrap();
    let theirs = create(&admin, "pods", "default", pod("theirs", "n2")).await.unwrap();
    assert_eq!(mine["metadata"]["labels"], value!({"topology.kubernetes.io/zone": "z"}));

    let uid = |pod: &Value| pod["metadata"]["uid"].str().to_string();
    let bound = |kind: &str, name: &str, uid: &str| value!({"boundObjectRef": {"kind": kind, "apiVersion": "v1", "name": name, "uid": uid}});
    let token = async |api: &Arc<dyn Api>, mut spec: Value| {
        spec.set("expirationSeconds", 3607);
        let request = value!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let to = target("serviceaccounts", "default", "default").subresource("token");
        api.create(&to, request, &Default::default()).await.map(|o| o.value())
    };
    let made = token(&node, bound("Pod", "mine", &uid(&mine))).await.unwrap();
    assert_eq!(made["spec"]["audiences"], value!(["https://issuer"]));
    assert!(!made["metadata"]["uid"].str().is_empty());
    let claims = crate::authn::jwt::unverified_claims(made["status"]["token"].str()).unwrap();
    assert_eq!(claims["kubernetes.io"]["warnafter"].int() - claims["iat"].int(), 3607);
    assert_eq!(claims["exp"].int() - claims["iat"].int(), 365 * 24 * 3600);

    let mut foreign = bound("Pod", "mine", &uid(&mine));
    foreign.set("audiences", value!(["elsewhere"]));
    // who asks, for what, the refusal
    let cases = [
        (
            &node,
            bound("Pod", "theirs", &uid(&theirs)),
            403,
            "node requested token bound to a pod scheduled on a different node",
        ),
        (&node, value!({}), 403, "node requested token not bound to a pod"),
        (
            &node,
            foreign,
            403,
            r#"audience "elsewhere" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience"#,
        ),
        (
            &admin,
            bound("Pod", "mine", "x"),
            409,
            "the UID in the bound object reference (x) does not match the UID in record. The object might have been deleted and then recreated",
        ),
        (&admin, bound("Secret", "none", ""), 404, r#"secrets "none" not found"#),
        (&admin, bound("ConfigMap", "none", ""), 400, "cannot bind token to object of type /v1, Kind=ConfigMap"),
    ];
    for (api, spec, code, message) in cases {
        let refused = token(api, spec).await.unwrap_err();
        assert!(refused.code == code && refused.message.ends_with(message), "{refused:?}");
    }

    create(&admin, "pods", "default", pod("waits", "")).await.unwrap();
    let binding = |name: &str| value!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}});
    let bind = async |url: Target, name: &str| admin.create(&url, binding(name), &Default::default()).await;
    let to = target("pods", "default", "waits").subresource("binding");
    let wrong = bind(to.clone(), "").await.unwrap_err();
    assert_eq!(wrong.message, "name in URL does not match name in Binding object");
    let refused = node.create(&to, binding("waits"), &Default::default()).await.unwrap_err();
    assert_eq!(refused.code, 403);
    bind(to, "waits").await.unwrap();
    let pod = admin.get(&target("pods", "default", "waits")).await.unwrap().value();
    assert_eq!(pod["metadata"]["labels"]["topology.kubernetes.io/zone"].str(), "z");
    let again = bind(target("bindings", "default", ""), "waits").await.unwrap_err();
    assert!(again.is_conflict() && again.message.ends_with(r#"is already assigned to node "n1""#), "{again:?}");
    let missing = bind(target("bindings", "nowhere", ""), "waits").await.unwrap_err();
    assert_eq!(missing.message, r#"namespaces "nowhere" not found"#);
}
