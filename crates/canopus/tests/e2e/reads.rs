//! How objects are shown.

use crate::space::{Space, has_lines};
use crate::{IMAGE, web};
use canopus_testkit::Cluster;

pub fn formats(c: &Cluster) {
    let s = Space::new(c, "formats");
    s.k(&["create", "configmap", "one", "--from-literal=a=1"]);
    s.k(&["create", "configmap", "two", "--from-literal=a=2"]);
    let get = |format: &str| s.k(&["get", "configmap", "one", "two", "-o", format]);
    assert_eq!(get("name"), "configmap/one\nconfigmap/two\n");
    assert_eq!(get("jsonpath={.items[*].data.a}"), "1 2");
    assert_eq!(get("go-template={{range .items}}{{.data.a}}-{{end}}"), "1-2-");
    has_lines(&get("custom-columns=NAME:.metadata.name,A:.data.a"), &["NAME A", "one 1", "two 2"]);
    has_lines(&get("wide"), &["NAME DATA AGE", "one 1 "]);
    assert!(s.k(&["get", "configmap", "one", "-o", "json"]).contains(r#""kind": "ConfigMap""#));
    let yaml = s.k(&["get", "configmap", "one", "-o", "yaml"]);
    assert!(yaml.starts_with("apiVersion: v1\ndata:\n  a: \"1\"\nkind: ConfigMap\n"), "{yaml}");
    let sorted = s.k(&["get", "configmaps", "--sort-by=.metadata.name", "-o", "name", "--chunk-size=1"]);
    assert_eq!(sorted, "configmap/kube-root-ca.crt\nconfigmap/one\nconfigmap/two\n");
    let some = s.k(&["get", "configmaps", "--field-selector=metadata.name!=one", "-o", "name"]);
    assert_eq!(some, "configmap/kube-root-ca.crt\nconfigmap/two\n");
    let none = s.kubectl(&["get", "pods"]);
    assert_eq!(none.stderr.trim(), "No resources found in formats namespace.");
    let labelled = s.k(&["get", "namespace", "formats", "--show-labels", "--no-headers"]);
    assert!(labelled.contains("kubernetes.io/metadata.name=formats"), "{labelled}");
}

pub fn watches(c: &Cluster) {
    let s = Space::new(c, "watches");
    s.k(&["create", "configmap", "w", "--from-literal=a=1"]);
    let table = s.stream(&["get", "configmap", "w", "--watch", "--output-watch-events"]);
    let values = s.stream(&["get", "configmaps", "--watch-only", "-o", "jsonpath={.metadata.name}={.data.a}{\"\\n\"}"]);
    table.shows("ADDED");
    // A watch of its own start shows nothing until something changes, so changes go on until it has shown one.
    let mut n = 1;
    canopus_testkit::eventually(std::time::Duration::from_secs(20), || {
        n += 1;
        s.k(&["patch", "configmap", "w", "--type=merge", "-p", &format!(r#"{{"data":{{"a":"{n}"}}}}"#)]);
        if values.lines().iter().any(|l| l.starts_with("w=")) { Ok(()) } else { Err("no change seen".into()) }
    });
    s.k(&["delete", "configmap", "w"]);
    table.shows("MODIFIED");
    table.shows("DELETED");
}

pub fn descriptions(c: &Cluster) {
    let s = Space::new(c, "descriptions");
    s.apply(&web("web", 1, "v1"));
    s.k(&["expose", "deployment", "web", "--port=80", "--target-port=http"]);
    s.k(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let pod = s.see("pods -l app=web", "{.items[0].metadata.name}");
    let ip = s.see(&format!("pod {pod}"), "{.status.podIP}");
    let image = format!("Image: {IMAGE}");
    let node = format!("Node: node-1/{}", c.host().ip());
    has_lines(
        &s.k(&["describe", "pod", &pod]),
        &[
            &format!("Name: {pod}"),
            &node,
            "Status: Running",
            &format!("IP: {ip}"),
            "Controlled By: ReplicaSet/web-",
            "Container ID: canopus://",
            &image,
            "Port: 8080/TCP (http)",
            "Readiness: http-get http://:http/index.html delay=0s timeout=1s period=1s #success=1 #failure=3",
            "PodScheduled True",
            "ContainersReady True",
            "QoS Class: BestEffort",
            "node.kubernetes.io/not-ready:NoExecute op=Exists for 300s",
            &format!("default-scheduler Successfully assigned descriptions/{pod} to node-1"),
            "Normal Created",
            "Normal Started",
        ],
    );
    has_lines(
        &s.k(&["describe", "deployment", "web"]),
        &[
            "Replicas: 1 desired | 1 updated | 1 total | 1 available | 0 unavailable",
            "StrategyType: RollingUpdate",
            "RollingUpdateStrategy: 25% max unavailable, 25% max surge",
            "Available True MinimumReplicasAvailable",
            "Progressing True NewReplicaSetAvailable",
            "ScalingReplicaSet",
            "(1/1 replicas created)",
        ],
    );
    let endpoint = format!("Endpoints: {ip}:8080");
    let service = ["Selector: app=web", "Type: ClusterIP", "TargetPort: http/TCP", &endpoint, "Session Affinity: None"];
    has_lines(&s.k(&["describe", "service", "web"]), &service);
    has_lines(
        &s.k(&["describe", "node", "node-1"]),
        &[
            "kubernetes.io/hostname=node-1",
            "Taints: <none>",
            "HolderIdentity: node-1",
            "Ready True",
            "KubeletReady",
            "PodCIDR: 10.244.0.0/24",
            "Kubelet Version: v1.36",
            &format!("descriptions {pod} 0 (0%) 0 (0%) 0 (0%) 0 (0%)"),
        ],
    );
    let wide = s.k(&["get", "pods", "-o", "wide"]);
    has_lines(
        &wide,
        &["NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES", &format!("{pod} 1/1 Running 0")],
    );
    has_lines(&s.k(&["get", "deployments", "-o", "wide"]), &["web 1/1 1 1", &format!("web {IMAGE} app=web")]);
    has_lines(&c.k(&["get", "nodes", "-o", "wide"]), &["node-1 Ready <none>", "canopus://"]);
}
