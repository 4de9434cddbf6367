use super::*;

fn service() -> Value {
    value!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "ns", "uid": "s", "labels": {"a": "b"}},
        "spec": {"clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]},
    })
}

fn pod(n: usize, ready: bool) -> Arc<Value> {
    Arc::new(value!({
        "metadata": {"name": format!("p{n}"), "namespace": "ns", "uid": format!("u{n:03}")},
        "spec": {"nodeName": "n", "containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": format!("10.1.0.{n}")}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    }))
}

fn run(service: &Value, pods: &[Arc<Value>], existing: &[Arc<Value>]) -> Plan {
    plan(service, pods, existing, &|_| None)
}

fn sizes(slices: &[Value]) -> Vec<usize> {
    slices.iter().map(|slice| slice["endpoints"].items().len()).collect()
}

#[test]
fn one_slice_per_hundred_endpoints() {
    let pods: Vec<Arc<Value>> = (1..=150).map(|n| pod(n, true)).collect();
    let plan = run(&service(), &pods, &[]);
    assert_eq!(sizes(&plan.create), [100, 50]);
    let slice = &plan.create[0];
    assert_eq!(slice["ports"], value!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    let labels = value!({"a": "b", "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"});
    assert_eq!(slice["metadata"]["labels"], labels);
    let existing: Vec<Arc<Value>> = plan.create.into_iter().map(Arc::new).collect();
    let again = run(&service(), &pods, &existing);
    assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty());
    let fewer = run(&service(), &pods[..149], &existing);
    assert_eq!((sizes(&fewer.update), fewer.create.len(), fewer.delete.len()), (vec![49], 0, 0));
}

#[test]
fn conditions_and_publishing() {
    let mut service = service();
    let ready = |service: &Value| {
        let plan = run(service, &[pod(1, false)], &[]);
        plan.create[0]["endpoints"][0]["conditions"].clone()
    };
    assert_eq!(ready(&service), value!({"ready": false, "serving": false, "terminating": false}));
    service.set_path(&["spec", "publishNotReadyAddresses"], true);
    assert_eq!(ready(&service), value!({"ready": true, "serving": false, "terminating": false}));
}

#[test]
fn a_service_without_pods_keeps_one_empty_slice() {
    let first = run(&service(), &[], &[]);
    assert_eq!(sizes(&first.create), [0]);
    let empty = Arc::new(first.create[0].clone());
    let again = run(&service(), &[], std::slice::from_ref(&empty));
    assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty());
    let filled = run(&service(), &[pod(1, true)], &[empty]);
    assert_eq!((sizes(&filled.create), filled.delete.len()), (vec![1], 1));
}
