use super::*;
use crate::cache::Cache;
use crate::testing::Objects;
use canopus_api::{FieldSelector, Gvr, Target, Value, value};
use canopus_store::{Change, Expect, Limits, Store, Write, memory::MemoryStore};

async fn put(store: &Arc<dyn Store>, cache: &Cache, mut pod: Value) {
    let resource = canopus_resources::find("", "v1", "pods").unwrap();
    let facts = Arc::new(resource.facts(&pod));
    let key = format!("/registry/pods/{}/{}", facts.namespace, facts.name).into();
    let value = canopus_api::Object::encode(&mut pod);
    let change = Change::Put { value, facts: Some(crate::fresh::Fresh::new(facts, pod)), ttl: None };
    store.commit(Write { key, expect: Expect::Anything, change }).await.unwrap();
    cache.reached(store.revision()).await.unwrap();
}

fn pod(name: &str, node: &str, secret: &str) -> Value {
    value!({
        "metadata": {"namespace": "ns", "name": name, "uid": name},
        "spec": {"nodeName": node, "serviceAccountName": "sa", "volumes": [
            {"name": "v", "secret": {"secretName": secret}},
            {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}},
        ]},
    })
}

#[tokio::test]
async fn decisions() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Limits::default()).unwrap());
    let resource = canopus_resources::find("", "v1", "pods").unwrap();
    let cache = Cache::start(&store, "/registry/pods/", resource.into()).await.unwrap();
    let of_node =
        |name: &str, node: &str| value!({"metadata": {"name": name, "namespace": ""}, "spec": {"nodeName": node}});
    let claimed = value!({"metadata": {"name": "pv", "namespace": ""}, "spec": {
        "claimRef": {"namespace": "ns", "name": "claim"},
        "csi": {"nodeStageSecretRef": {"namespace": "csi", "name": "stage"}, "controllerPublishSecretRef": {"namespace": "csi", "name": "control"}},
    }});
    let authorizer = NodeAuthorizer {
        pods: PlacedPods::of(cache.clone()),
        volumes: Some(Arc::new(Objects::new(&[claimed]))),
        attachments: Some(Arc::new(Objects::new(&[of_node("va1", "n1"), of_node("va2", "n2")]))),
        slices: Some(Arc::new(Objects::new(&[of_node("slice1", "n1"), of_node("slice2", "n2")]))),
        certificate_requests: None,
        rules: node_rules(false),
    };
    put(&store, &cache, pod("p1", "n1", "s1")).await;
    put(&store, &cache, pod("p2", "", "s2")).await;
    let node = User::new("system:node:n1", &[NODES]);
    let ask_for = |verb: &str, group: &str, resource: &str, namespace: &str, name: &str, selector: &str| {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let target = Target::new(&Gvr::new(group, "v1", resource), namespace, name).subresource(subresource);
        let fields = &FieldSelector::parse(selector).unwrap().terms;
        authorizer.authorize(&Attributes { fields, ..Attributes::target(&node, verb, &target) })
    };
    let ask = |verb: &str, group: &str, resource: &str, namespace: &str, name: &str| {
        ask_for(verb, group, resource, namespace, name, "")
    };
    let unrelated = "no relationship found between node 'n1' and this object";
    let leases = "coordination.k8s.io";
    // verb, group, resource, namespace, name, the reason of a refusal
    let cases = [
        ("get", "", "secrets", "ns", "s1", None),
        ("watch", "", "secrets", "ns", "s1", None),
        ("get", "", "secrets", "ns", "s2", Some(unrelated)),
        ("get", "", "secrets", "other", "s1", Some(unrelated)),
        ("list", "", "secrets", "ns", "", Some("No Object name found")),
        ("list", "", "secrets", "", "", Some("can only read namespaced object of this type")),
        ("update", "", "secrets", "ns", "s1", Some("can only read resources of this type")),
        ("create", "", "serviceaccounts/token", "ns", "sa", None),
        ("create", "", "serviceaccounts/token", "ns", "other", Some(unrelated)),
        ("get", "", "pods", "ns", "p1", None),
        ("get", "", "pods", "ns", "p2", Some(unrelated)),
        ("patch", "", "pods/status", "ns", "p1", None),
        ("create", "", "pods/exec", "ns", "p1", Some("")),
        ("get", "", "nodes", "", "n1", None),
        ("get", "", "nodes", "", "n2", Some("node 'n1' cannot read 'n2', only its own Node object")),
        ("list", "", "nodes", "", "", Some("node 'n1' cannot read all nodes, only its own Node object")),
        ("update", leases, "leases", "kube-node-lease", "n1", None),
        (
            "update",
            leases,
            "leases",
            "kube-node-lease",
            "n2",
            Some("can only access node lease with the same name as the requesting node"),
        ),
        (
            "get",
            leases,
            "leases",
            "ns",
            "n1",
            Some(r#"can only access leases in the "kube-node-lease" system namespace"#),
        ),
        ("list", "", "services", "", "", None),
        ("get", "", "persistentvolumeclaims", "ns", "claim", None),
        ("patch", "", "persistentvolumeclaims/status", "ns", "claim", None),
        ("get", "", "persistentvolumeclaims", "ns", "other", Some(unrelated)),
        ("get", "", "persistentvolumes", "", "pv", None),
        ("get", "", "secrets", "csi", "stage", None),
        ("get", "", "secrets", "csi", "control", Some(unrelated)),
        ("get", "storage.k8s.io", "volumeattachments", "", "va1", None),
        ("get", "storage.k8s.io", "volumeattachments", "", "va2", Some(unrelated)),
        ("update", "resource.k8s.io", "resourceslices", "", "slice1", None),
        ("delete", "resource.k8s.io", "resourceslices", "", "slice2", Some(unrelated)),
        ("get", "certificates.k8s.io", "podcertificaterequests", "ns", "x", Some("")),
        ("list", "certificates.k8s.io", "clustertrustbundles", "", "", Some("")),
        ("create", "", "services", "ns", "", Some("")),
    ];
    for (verb, group, resource, namespace, name, refused) in cases {
        let expected = refused.map_or(Decision::Allow(String::new()), |why| Decision::NoOpinion(why.into()));
        assert_eq!(ask(verb, group, resource, namespace, name), expected, "{verb} {resource} {namespace}/{name}");
    }

    let narrow = Some("can only list/watch pods with spec.nodeName field selector");
    for (verb, selector, refused) in [
        ("watch", "spec.nodeName=n1", None),
        ("list", "status.phase!=Failed,spec.nodeName==n1", None),
        ("list", "", narrow),
        ("list", "spec.nodeName=n2", narrow),
        ("list", "spec.nodeName!=n1", narrow),
    ] {
        let expected = refused.map_or(Decision::Allow(String::new()), |why| Decision::NoOpinion(why.into()));
        assert_eq!(ask_for(verb, "", "pods", "", "", selector), expected, "{verb} {selector}");
    }

    // Bound, changed: rights follow.
    put(&store, &cache, pod("p2", "n1", "s2")).await;
    assert!(matches!(ask("get", "", "secrets", "ns", "s2"), Decision::Allow(_)));
    put(&store, &cache, pod("p2", "n1", "s3")).await;
    assert!(matches!(ask("get", "", "secrets", "ns", "s3"), Decision::Allow(_)));
    let key = "/registry/pods/ns/p2".into();
    store.commit(Write { key, expect: Expect::Anything, change: Change::Delete }).await.unwrap();
    cache.reached(store.revision()).await.unwrap();
    assert!(matches!(ask("get", "", "secrets", "ns", "s3"), Decision::NoOpinion(_)));
}

#[test]
fn others_are_not_judged() {
    let nobody = User::new("system:node:n1", &[]);
    let nameless = User::new("system:node:", &[NODES]);
    assert_eq!(identify(&nobody), None);
    assert_eq!(identify(&nameless), Some(Err(())));
}
