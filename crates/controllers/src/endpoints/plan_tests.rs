use super::*;

fn service() -> Value {
    value!({
        "metadata": {"name": "web", "namespace": "ns", "labels": {"a": "b"}},
        "spec": {"clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]},
    })
}

fn pod(n: usize, ready: bool) -> Arc<Value> {
    Arc::new(value!({
        "metadata": {"name": format!("p{n}"), "namespace": "ns", "uid": format!("u{n:04}")},
        "spec": {"nodeName": "n", "containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": format!("10.1.{}.{}", n / 250, n % 250)}, {"ip": format!("fd00::{n}")}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    }))
}

fn at(seconds: i64) -> Option<Time> {
    Some(Time::from_unix(seconds))
}

#[test]
fn written_once() {
    let pods = [pod(1, true), pod(2, false)];
    let made = plan(&service(), &pods, None, at(0)).unwrap();
    let address = |n: usize| {
        value!({"ip": format!("10.1.0.{n}"), "nodeName": "n",
            "targetRef": {"kind": "Pod", "namespace": "ns", "name": format!("p{n}"), "uid": format!("u{n:04}")}})
    };
    let expected = value!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "web", "namespace": "ns",
            "labels": {"a": "b", "endpoints.kubernetes.io/managed-by": "endpoint-controller"},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "1970-01-01T00:00:00Z"}},
        "subsets": [{"addresses": [address(1)], "notReadyAddresses": [address(2)],
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}],
    });
    assert_eq!(made, expected);
    // What only a trigger would change stays as it is.
    assert_eq!(plan(&service(), &pods, Some(&made), at(5)), None);
    let both = [pod(1, true), pod(2, true)];
    let changed = plan(&service(), &both, Some(&made), None).unwrap();
    assert_eq!(changed["subsets"][0]["addresses"].items().len(), 2);
    assert!(changed["metadata"]["annotations"].is_null(), "no trigger, no annotation");
    let mut foreign = made.clone();
    foreign.set_path(&["metadata", "labels", "x"], "y");
    assert!(plan(&service(), &pods, Some(&foreign), None).is_some());
}

#[test]
fn who_is_there() {
    let mut service = service();
    let with = |path: &[&str], value: Value| {
        let mut pod = (*pod(1, false)).clone();
        pod.set_path(path, value);
        [Arc::new(pod)]
    };
    let cases = [
        (with(&["status", "phase"], "Failed".into()), "[]", "[]"),
        (with(&["status", "podIPs"], value!([])), "[]", "[]"),
        (with(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z".into()), "[]", "ready"),
        ([pod(1, false)], "not ready", "ready"),
    ];
    let shape = |service: &Value, pods: &[Arc<Value>]| {
        let subsets = subsets(service, pods);
        match subsets.first() {
            None => "[]",
            Some(subset) if subset["addresses"].is_empty() => "not ready",
            Some(_) => "ready",
        }
    };
    for (pods, ordinary, published) in cases {
        service.set_path(&["spec", "publishNotReadyAddresses"], false);
        assert_eq!(shape(&service, &pods), ordinary, "{pods:?}");
        service.set_path(&["spec", "publishNotReadyAddresses"], true);
        assert_eq!(shape(&service, &pods), published, "{pods:?}");
    }
}

#[test]
fn headless() {
    let mut service = service();
    service.set_path(&["spec", "clusterIP"], "None");
    service.set_path(&["spec", "ports"], value!([]));
    let mut pod = (*pod(1, true)).clone();
    pod.set_path(&["spec", "hostname"], "db-0");
    pod.set_path(&["spec", "subdomain"], "web");
    let made = plan(&service, &[Arc::new(pod)], None, None).unwrap();
    assert_eq!(made["metadata"]["labels"][HEADLESS], value!(""));
    let subset = &made["subsets"][0];
    assert_eq!((subset["addresses"][0]["hostname"].str(), subset["ports"].is_null()), ("db-0", true));
    service.set_path(&["spec", "ipFamilies"], value!(["IPv6"]));
    let made = plan(&service, &[self::pod(1, true)], None, None).unwrap();
    assert_eq!(made["subsets"][0]["addresses"][0]["ip"].str(), "fd00::1");
}

#[test]
fn at_most_a_thousand() {
    let sizes = |object: &Value| {
        let of = |list: &str| object["subsets"].items().iter().map(|s| s[list].items().len()).sum::<usize>();
        (of("addresses"), of("notReadyAddresses"))
    };
    for (ready, unready, expected) in [(1500, 10, (1000, 0)), (600, 600, (600, 400)), (1000, 0, (1000, 0))] {
        let pods: Vec<_> = (0..ready + unready).map(|n| pod(n, n < ready)).collect();
        let made = plan(&service(), &pods, None, None).unwrap();
        assert_eq!(sizes(&made), expected);
        let truncated = ready + unready > 1000;
        assert_eq!(made["metadata"]["annotations"][OVER_CAPACITY].str() == "truncated", truncated);
        assert_eq!(plan(&service(), &pods, Some(&made), None), None);
        let fewer = plan(&service(), &pods[..3], Some(&made), None).unwrap();
        assert!(fewer["metadata"]["annotations"].is_null());
    }
}
