//! `schema`: what the schema work of one write of a pod costs: decoding, defaults, managedFields, patches.

use canopus_api::managed::{FieldManager, OneVersion, Reset};
use canopus_api::{Gvk, Time, Value, json, patch, schema, value};
use canopus_benches::Report;
use canopus_schema::Type;
use std::hint::black_box;
use std::time::Instant;

fn pod() -> Value {
    let env: Vec<Value> = (0..6).map(|i| value!({"name": format!("VAR_{i}"), "value": "some-value-of-it"})).collect();
    value!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-7d9c5b8f6-x2x9k", "namespace": "default", "labels": {"app": "web", "pod-template-hash": "7d9c5b8f6"},
            "generateName": "web-7d9c5b8f6-",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d9c5b8f6", "uid": "0f3c", "controller": true, "blockOwnerDeletion": true}]},
        "spec": {
            "containers": [{"name": "web", "image": "registry.example/web:1.2.3", "imagePullPolicy": "IfNotPresent", "env": env,
                "ports": [{"containerPort": 8080, "protocol": "TCP", "name": "http"}],
                "resources": {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "volumeMounts": [{"name": "kube-api-access-abcde", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}]}],
            "volumes": [{"name": "kube-api-access-abcde", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}]}}],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "serviceAccountName": "default",
            "securityContext": {}, "schedulerName": "default-scheduler", "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority",
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]},
        "status": {"phase": "Pending", "qosClass": "Burstable"},
    })
}

fn status() -> Value {
    let condition = |kind: &str| value!({"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1});
    value!({"phase": "Running", "qosClass": "Burstable", "hostIP": "10.0.0.1", "podIP": "10.1.0.7", "startTime": "2026-01-01T00:00:00Z",
        "hostIPs": [{"ip": "10.0.0.1"}], "podIPs": [{"ip": "10.1.0.7"}],
        "conditions": [condition("PodReadyToStartContainers"), condition("Initialized"), condition("Ready"), condition("ContainersReady"), condition("PodScheduled")],
        "containerStatuses": [{"name": "web", "ready": true, "started": true, "restartCount": 0, "image": "registry.example/web:1.2.3",
            "imageID": "sha256:abc", "containerID": "containerd://abc", "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}}}]})
}

fn manager(ty: &'static Type, name: &'static str, subresource: &'static str) -> FieldManager<'static> {
    let reset = Reset::But(if subresource.is_empty() { &[&["status"]] } else { &[&["spec"]] });
    FieldManager {
        ty: ty.into(),
        api_version: "v1",
        manager: name,
        subresource,
        reset,
        versions: &OneVersion,
        now: Time::from_unix(1_800_000_000),
    }
}

fn measure<T>(figure: &str, setup: impl Fn() -> T, mut run: impl FnMut(&mut T)) {
    const ROUNDS: usize = 20_000;
    let mut inputs: Vec<T> = (0..64).map(|_| setup()).collect();
    let mut spent = std::time::Duration::ZERO;
    for round in 0..ROUNDS / 64 {
        if round > 0 {
            inputs.iter_mut().for_each(|input| *input = setup());
        }
        let start = Instant::now();
        inputs.iter_mut().for_each(|input| run(black_box(input)));
        spent += start.elapsed();
    }
    Report::of("schema").figure(figure, spent.as_secs_f64() * 1e6 / (ROUNDS / 64 * 64) as f64, "us");
}

fn main() {
    let ty = canopus_schema::kind("", "v1", "Pod").expect("v1 has pods").get();
    let mut created = pod();
    manager(ty, "kube-controller-manager", "").update(None, &mut created);
    created.set_path(&["metadata", "uid"], "u");
    let mut running = created.clone();
    running.set("status", status());
    manager(ty, "kubelet", "status").update(Some(&created), &mut running);
    let mut changed = running.clone();
    changed.set_path(&["status", "phase"], "Succeeded");
    let report = Report::new("schema");
    report.figure("pod_size", json::to_vec(&running).len() as f64, "bytes");
    report.figure("managed_fields_size", json::to_vec(&running["metadata"]["managedFields"]).len() as f64, "bytes");

    measure("clone", || (), |()| drop(black_box(running.clone())));
    measure("decode", || running.clone(), |v| drop(black_box(schema::decode(ty.into(), v))));
    measure(
        "defaults",
        || running.clone(),
        |v| {
            schema::apply_defaults(ty, v);
            schema::complete(ty.into(), v);
        },
    );
    measure("own_create", pod, |v| manager(ty, "kube-controller-manager", "").update(None, v));
    measure(
        "own_first_status",
        || {
            let mut v = created.clone();
            v.set("status", status());
            v
        },
        |v| manager(ty, "kubelet", "status").update(Some(&created), v),
    );
    measure("own_changed_status", || changed.clone(), |v| manager(ty, "kubelet", "status").update(Some(&running), v));
    measure("own_no_change", || running.clone(), |v| manager(ty, "kubelet", "status").update(Some(&running), v));
    let change = value!({"status": {"phase": "Failed", "conditions": [{"type": "Ready", "status": "False"}]}});
    measure("strategic_merge", || (), |()| drop(black_box(patch::strategic_merge(&running, &change, ty))));
    let config = value!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-7d9c5b8f6-x2x9k", "namespace": "default", "labels": {"a": "b"}}});
    measure(
        "apply",
        || (),
        |()| {
            let _ = black_box(manager(ty, "me", "").apply(&Gvk::new("", "v1", "Pod"), Some(&running), &config, false));
        },
    );
}
