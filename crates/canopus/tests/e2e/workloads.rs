//! Deployments and Services.

use crate::IMAGE;
use canopus_testkit::{Cluster, eventually};
use std::time::Duration;

fn web(replicas: u32, version: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: '{IMAGE}'
        command: [sh, -c, 'mkdir -p /tmp/w; echo {version} $HOSTNAME > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w']
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /index.html, port: http}}, periodSeconds: 1}}
"
    )
}

pub fn deployment(c: &Cluster) {
    c.apply(&web(3, "v1"));
    c.k(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    c.k(&["scale", "deployment/web", "--replicas=2"]);
    c.wait_for("deployment web", "{.status.replicas}/{.status.readyReplicas}", "2/2");
    c.apply(&web(2, "v2"));
    c.k(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    let history = c.k(&["rollout", "history", "deployment/web"]);
    assert!(history.lines().any(|l| l.starts_with('2')), "{history}");
    c.k(&["rollout", "undo", "deployment/web"]);
    c.k(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    let command = c.k(&["get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].command}"]);
    assert!(command.contains("v1"), "{command}");
    let victim = c.k(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"]);
    c.k(&["delete", "pod", &victim]);
    c.wait_for("deployment web", "{.status.readyReplicas}", "2");
    assert!(c.k(&["describe", "deployment", "web"]).contains("ScalingReplicaSet"));
}

pub fn service(c: &Cluster) {
    c.k(&["expose", "deployment", "web", "--port=80", "--target-port=http"]);
    let ip = c.k(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]);
    let fetch = || {
        let out = c
            .host()
            .command("busybox")
            .args(["wget", "-q", "-T", "2", "-O", "-", &format!("http://{ip}/index.html")])
            .output();
        let out = out.expect("busybox runs");
        if out.status.success() {
            Ok(String::from_utf8_lossy(&out.stdout).into_owned())
        } else {
            Err("no answer".to_string())
        }
    };
    assert!(eventually(Duration::from_secs(20), fetch).starts_with("v1"));
    let pod = c.k(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"]);
    for name in ["web", "web.default.svc.cluster.local"] {
        eventually(Duration::from_secs(20), || {
            let out = c.kubectl(&[
                "exec",
                &pod,
                "--",
                "wget",
                "-q",
                "-T",
                "2",
                "-O",
                "-",
                &format!("http://{name}/index.html"),
            ]);
            if out.code == 0 && out.stdout.starts_with("v1") { Ok(()) } else { Err(format!("{name}: {out:?}")) }
        });
    }
    let slices = c.k(&[
        "get",
        "endpointslices",
        "-l",
        "kubernetes.io/service-name=web",
        "-o",
        "jsonpath={.items[*].endpoints[*].addresses[0]}",
    ]);
    assert_eq!(slices.split_whitespace().count(), 2, "{slices}");
    c.k(&["delete", "service", "web"]);
}

/// Containers outlive the process that made them, and it carries on with them.
pub fn survives_kill(c: &mut Cluster) {
    let started = "{range .items[*]}{.metadata.name} {.status.containerStatuses[0].state.running.startedAt} {.status.containerStatuses[0].restartCount}\n{end}";
    let pods = format!("jsonpath={started}");
    let before = c.k(&["get", "pods", "-l", "app=web", "-o", &pods]);
    for _ in 0..3 {
        c.kill();
        c.up();
    }
    let after = c.k(&["get", "pods", "-l", "app=web", "-o", &pods]);
    assert_eq!(before, after);
    c.k(&["delete", "deployment", "web"]);
    eventually(Duration::from_secs(60), || {
        let left = c.k(&["get", "pods", "-o", "name"]);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}
