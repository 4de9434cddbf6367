//! Pods in real containers.

use crate::IMAGE;
use canopus_testkit::{Cluster, eventually};
use std::time::Duration;

pub fn a_pod(c: &Cluster) {
    c.apply(&format!(
        "apiVersion: v1
kind: ConfigMap
metadata: {{name: settings}}
data: {{greeting: hello, file.txt: one}}
---
apiVersion: v1
kind: Pod
metadata: {{name: p, labels: {{app: p}}}}
spec:
  initContainers:
  - {{name: first, image: '{IMAGE}', command: [sh, -c, 'echo made > /scratch/by-init'], volumeMounts: [{{name: scratch, mountPath: /scratch}}]}}
  containers:
  - name: main
    image: '{IMAGE}'
    command: [sh, -c, 'echo start $GREETING $(NAME); exec sleep 3600']
    env:
    - {{name: NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
    - {{name: GREETING, valueFrom: {{configMapKeyRef: {{name: settings, key: greeting}}}}}}
    resources: {{limits: {{memory: 32Mi, cpu: 500m}}}}
    volumeMounts: [{{name: scratch, mountPath: /scratch}}, {{name: config, mountPath: /config}}]
  volumes:
  - {{name: scratch, emptyDir: {{}}}}
  - {{name: config, configMap: {{name: settings}}}}
"
    ));
    c.k(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]);
    assert_eq!(c.k(&["logs", "p"]).trim(), "start hello p");
    assert_eq!(c.k(&["exec", "p", "--", "cat", "/scratch/by-init"]).trim(), "made");
    let failed = c.kubectl(&["exec", "p", "--", "sh", "-c", "echo oops >&2; exit 7"]);
    assert_eq!((failed.code, failed.stderr.lines().next()), (7, Some("oops")), "{failed:?}");
    let piped = c.kubectl_with(&["exec", "-i", "p", "--", "cat"], "through");
    assert_eq!(piped.stdout, "through", "{piped:?}");
    assert!(
        c.k(&["exec", "p", "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/namespace"]).contains("default")
    );
    let described = c.k(&["describe", "pod", "p"]);
    for word in ["Successfully assigned default/p to node-1", "Started", "QoS Class:                   Burstable"] {
        assert!(described.contains(word), "{word} in\n{described}");
    }
    c.k(&["patch", "configmap", "settings", "--type=merge", "-p", r#"{"data":{"file.txt":"two"}}"#]);
    eventually(Duration::from_secs(10), || {
        let now = c.kubectl(&["exec", "p", "--", "cat", "/config/file.txt"]).stdout;
        if now == "two" { Ok(()) } else { Err(format!("file says {now:?}")) }
    });
    c.k(&["delete", "pod", "p", "--grace-period=1"]);
    c.k(&["delete", "configmap", "settings"]);
}

pub fn restarts(c: &Cluster) {
    c.k(&[
        "run",
        "r",
        &format!("--image={IMAGE}"),
        "--restart=Always",
        "--command",
        "--",
        "sh",
        "-c",
        "echo run; sleep 1; exit 3",
    ]);
    c.wait_for("pod r", "{.status.containerStatuses[0].lastState.terminated.exitCode}", "3");
    eventually(Duration::from_secs(30), || {
        let count = c.k(&["get", "pod", "r", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"]);
        if count.parse::<u32>().unwrap_or(0) >= 1 { Ok(()) } else { Err(format!("restarts: {count:?}")) }
    });
    assert_eq!(c.k(&["logs", "--previous", "r"]).trim(), "run");
    c.k(&["delete", "pod", "r", "--grace-period=1"]);
}

pub fn missing_image(c: &Cluster) {
    c.k(&["run", "m", "--image=nowhere.example/none:1"]);
    eventually(Duration::from_secs(60), || {
        let reason = c.k(&["get", "pod", "m", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.reason}"]);
        if ["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()) {
            Ok(())
        } else {
            Err(format!("reason {reason:?}"))
        }
    });
    eventually(Duration::from_secs(10), || {
        let events = c.k(&["events", "--for", "pod/m"]);
        if events.contains("Failed") { Ok(()) } else { Err(events) }
    });
    c.k(&["delete", "pod", "m", "--grace-period=0", "--force"]);
}

pub fn impossible(c: &Cluster) {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: big}}\nspec: {{containers: [{{name: c, image: '{IMAGE}', resources: {{requests: {{cpu: 1k}}}}}}]}}\n"
    );
    c.apply(&pod);
    c.wait_for("pod big", "{.status.conditions[?(@.type==\"PodScheduled\")].reason}", "Unschedulable");
    let message =
        c.k(&["get", "pod", "big", "-o", "jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].message}"]);
    assert!(message.starts_with("0/1 nodes are available: 1 Insufficient cpu."), "{message}");
    c.k(&["delete", "pod", "big"]);
}
