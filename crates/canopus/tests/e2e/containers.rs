//! Pods in real containers. They name their node: there is no scheduler yet.

use canopus_testkit::{Cluster, eventually};
use std::time::Duration;

const IMAGE: &str = "canopus-e2e:1";

const POD: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {greeting: hello, file.txt: one}
---
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: p}}
spec:
  nodeName: node-1
  initContainers:
  - {name: first, image: 'IMAGE', command: [sh, -c, 'echo made > /scratch/by-init'], volumeMounts: [{name: scratch, mountPath: /scratch}]}
  containers:
  - name: main
    image: 'IMAGE'
    command: [sh, -c, 'echo start $GREETING $(NAME); exec sleep 3600']
    env:
    - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: GREETING, valueFrom: {configMapKeyRef: {name: settings, key: greeting}}}
    resources: {limits: {memory: 32Mi, cpu: 500m}}
    volumeMounts: [{name: scratch, mountPath: /scratch}, {name: config, mountPath: /config}]
  volumes:
  - {name: scratch, emptyDir: {}}
  - {name: config, configMap: {name: settings}}
";

/// Logs, exec, env, volumes; the agent is killed in between and the container does not notice.
pub fn a_pod(c: &mut Cluster) {
    c.import_busybox(IMAGE);
    c.wait_for("node node-1", "{.status.conditions[?(@.type==\"Ready\")].status}", "True");
    c.apply(&POD.replace("IMAGE", IMAGE));
    c.k(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]);
    assert_eq!(c.k(&["logs", "p"]).trim(), "start hello p");
    assert_eq!(c.k(&["exec", "p", "--", "cat", "/scratch/by-init"]).trim(), "made");
    let failed = c.kubectl(&["exec", "p", "--", "sh", "-c", "echo oops >&2; exit 7"]);
    assert!(failed.code == 7 && failed.stderr.contains("oops"), "{failed:?}");
    let lookup = c.k(&["exec", "p", "--", "nslookup", "kubernetes.default.svc.cluster.local"]);
    assert!(lookup.contains("10.96.0.1"), "{lookup}");

    let identity = "jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}";
    let before = c.k(&["get", "pod", "p", "-o", identity]);
    c.kill();
    c.up();
    assert_eq!(c.k(&["get", "pod", "p", "-o", identity]), before);

    c.k(&["patch", "configmap", "settings", "--type=merge", "-p", r#"{"data":{"file.txt":"two"}}"#]);
    eventually(Duration::from_secs(10), || {
        let now = c.kubectl(&["exec", "p", "--", "cat", "/config/file.txt"]).stdout;
        if now == "two" { Ok(()) } else { Err(format!("the file says {now:?}")) }
    });
    c.k(&["delete", "pod", "p", "--grace-period=1"]);
    c.k(&["delete", "configmap", "settings"]);
}
