//! Whole pods: created, changed, resized, ended.

use super::*;
use crate::testing::{context, create, update};

fn good() -> Value {
    value!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "nginx:1"}]}})
}

/// A good pod with these fields of its spec changed.
fn with(spec: Value) -> Value {
    let mut pod = good();
    spec.entries().for_each(|(field, value)| pod.set_path(&["spec", field], value));
    pod
}

#[test]
fn creation() {
    let one = |container: Value| value!({"containers": [container]});
    let cases: Vec<(Value, &[&str])> = vec![
        (value!({}), &[]),
        (one(value!({"name": "a"})), &["spec.containers[0].image: Required value"]),
        (value!({"containers": []}), &["spec.containers: Required value"]),
        (
            one(value!({"name": "A", "image": "x"})),
            &[
                "spec.containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ],
        ),
        (
            one(value!({"name": "a", "image": " x", "imagePullPolicy": "Often"})),
            &[
                r#"spec.containers[0].imagePullPolicy: Unsupported value: "Often": supported values: "Always", "IfNotPresent", "Never""#,
                r#"spec.containers[0].image: Invalid value: " x": must not have leading or trailing whitespace"#,
            ],
        ),
        (
            value!({"restartPolicy": "Sometimes", "dnsPolicy": "x"}),
            &[
                r#"spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never""#,
                r#"spec.dnsPolicy: Unsupported value: "x": supported values: "ClusterFirstWithHostNet", "ClusterFirst", "Default", "None""#,
            ],
        ),
        (
            value!({"containers": [{"name": "a", "image": "x"}, {"name": "a", "image": "x"}]}),
            &[r#"spec.containers[1].name: Duplicate value: "a""#],
        ),
        (
            value!({"initContainers": [{"name": "a", "image": "x", "livenessProbe": {"exec": {"command": ["x"]}}}]}),
            &[
                r#"spec.initContainers[0].name: Duplicate value: "a""#,
                "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
            ],
        ),
        (
            value!({"ephemeralContainers": [{"name": "e", "image": "x"}]}),
            &["spec.ephemeralContainers: Forbidden: cannot be set on create"],
        ),
        (
            value!({"nodeName": "n", "schedulingGates": [{"name": "g"}]}),
            &["spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"],
        ),
        (
            one(value!({"name": "a", "image": "x", "volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
            &[r#"spec.containers[0].volumeMounts[0].name: Not found: "v""#],
        ),
        (
            one(
                value!({"name": "a", "image": "x", "ports": [{"containerPort": 0, "name": "UP"}, {"containerPort": 70000}]}),
            ),
            &[
                r#"spec.containers[0].ports[0].name: Invalid value: "UP": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"#,
                r#"spec.containers[0].ports[0].name: Invalid value: "UP": must contain at least one letter (a-z)"#,
                "spec.containers[0].ports[0].containerPort: Required value",
                "spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            value!({"containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 1, "hostPort": 5}, {"containerPort": 2, "hostPort": 5}]}]}),
            &[r#"spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//5""#],
        ),
        (value!({"hostUsers": false, "hostPID": true}), &["spec.HostPID: Forbidden: when `hostUsers` is false"]),
        (
            value!({"dnsPolicy": "None"}),
            &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
        ),
        (
            value!({"dnsConfig": {"searches": ["a_b.c.", "-"]}}),
            &[
                "spec.dnsConfig.searches[1]: Invalid value: \"-\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')",
            ],
        ),
        (
            value!({"activeDeadlineSeconds": 0}),
            &["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
        ),
        (
            value!({"os": {"name": "plan9"}}),
            &[r#"spec.os: Unsupported value: "plan9": supported values: "linux", "windows""#],
        ),
        (
            value!({"preemptionPolicy": "x"}),
            &[r#"spec.preemptionPolicy: Unsupported value: "x": supported values: "PreemptLowerPriority", "Never""#],
        ),
        (
            value!({"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
            &[
                "spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set",
            ],
        ),
        (
            one(value!({"name": "a", "image": "x", "restartPolicyRules": [{"action": "Restart"}]})),
            &[
                "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
                "spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified",
            ],
        ),
        (
            value!({"resourceClaims": [{"name": "c"}]}),
            &[
                r#"spec.resourceClaims[0]: Invalid value: {"name":"c"}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"#,
            ],
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(create(&Pod, with(spec)), expected);
    }
}

#[test]
fn status_of_a_new_pod() {
    let mut pod = with(value!({"schedulingGates": [{"name": "g"}]}));
    pod.set("status", value!({"phase": "Running"}));
    Pod.default(&mut pod);
    Pod.prepare_create(&mut pod, &context(""));
    assert_eq!(pod["status"]["phase"].str(), "Pending");
    assert_eq!(pod["status"]["qosClass"].str(), "BestEffort");
    assert_eq!(pod["status"]["conditions"][0]["reason"].str(), "SchedulingGated");
}

#[test]
fn updates() {
    let image = |image: &str| value!({"containers": [{"name": "a", "image": image}]});
    let gated = value!({"schedulingGates": [{"name": "g"}], "nodeSelector": {"a": "b"}});
    let toleration = value!({"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
    let affinity = |n: &str| {
        value!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchExpressions": [{"key": n, "operator": "Exists"}]}]}}})
    };
    let cases: Vec<(Value, Value, &[&str])> = vec![
        (value!({}), image("nginx:2"), &[]),
        (
            value!({}),
            image(""),
            &["spec.containers[0].image: Required value", "spec.containers[0].image: Required value"],
        ),
        (
            value!({}),
            value!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]}),
            &["spec.containers: Forbidden: pod updates may not add or remove containers"],
        ),
        (value!({}), value!({"activeDeadlineSeconds": 5}), &[]),
        (
            value!({"activeDeadlineSeconds": 5}),
            value!({"activeDeadlineSeconds": 6}),
            &["spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"],
        ),
        (value!({}), value!({"tolerations": [&toleration]}), &[]),
        (
            value!({"tolerations": [&toleration]}),
            value!({"tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute"}]}),
            &[],
        ),
        (
            value!({"tolerations": [&toleration]}),
            value!({}),
            &["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"],
        ),
        (
            value!({}),
            value!({"schedulingGates": [{"name": "g"}]}),
            &["spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'g'"],
        ),
        (gated.clone(), value!({"nodeSelector": {"a": "b", "c": "d"}}), &[]),
        (
            gated.clone(),
            value!({"nodeSelector": {"a": "c"}}),
            &[
                r#"spec.nodeSelector: Invalid value: {"a":"c"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)"#,
            ],
        ),
        (
            gated,
            value!({"schedulingGates": [{"name": "g"}], "nodeSelector": {"a": "b"}, "affinity": affinity("x")}),
            &[],
        ),
        (
            value!({"schedulingGates": [{"name": "g"}], "affinity": affinity("x")}),
            value!({"affinity": affinity("y")}),
            &[
                r#"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]: Invalid value: {"matchExpressions":[{"key":"y","operator":"Exists"}]}: only additions are allowed (no mutations or deletions)"#,
            ],
        ),
        (value!({}), value!({"hostNetwork": false}), &[]),
        (
            value!({}),
            value!({"hostname": "h"}),
            &[
                "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n+hostname: \"h\"",
            ],
        ),
    ];
    for (old, new, expected) in cases {
        assert_eq!(update(&Pod, "", with(old), with(new)), expected);
    }
}

#[test]
fn ephemeral_containers() {
    let debug = |image: &str| value!({"ephemeralContainers": [{"name": "d", "image": image}]});
    let lasting = value!({"ephemeralContainers": [{"name": "d", "image": "x:1", "targetContainerName": "z", "ports": [{"containerPort": 1}]}]});
    let cases: Vec<(Value, Value, &[&str])> = vec![
        (value!({}), debug("x:1"), &[]),
        (
            debug("x:1"),
            value!({}),
            &["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed\n"],
        ),
        (
            debug("x:1"),
            debug("y:1"),
            &[
                "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be changed\n-image: \"x:1\"\n+image: \"y:1\"",
            ],
        ),
        (value!({}), value!({"hostname": "ignored", "ephemeralContainers": [{"name": "d", "image": "x:1"}]}), &[]),
        (
            value!({}),
            lasting,
            &[
                r#"spec.ephemeralContainers[0].targetContainerName: Not found: "z""#,
                "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
            ],
        ),
    ];
    for (old, new, expected) in cases {
        assert_eq!(update(&Pod, "ephemeralcontainers", with(old), with(new)), expected);
    }
}

#[test]
fn resizing() {
    let sized = |resources: Value| {
        let mut pod = value!({"containers": [{"name": "a", "image": "x:1"}]});
        pod.get_mut("containers").and_then(Value::as_array_mut).unwrap()[0].set("resources", resources);
        pod
    };
    let cpu = |n: &str| sized(value!({"requests": {"cpu": n, "ephemeral-storage": "1Gi"}}));
    let cases: Vec<(Value, Value, &[&str])> = vec![
        (cpu("1"), cpu("2"), &[]),
        (
            cpu("1"),
            sized(value!({"requests": {"cpu": "1", "ephemeral-storage": "2Gi"}})),
            &["spec: Forbidden: only cpu and memory resources are mutable"],
        ),
        (
            cpu("1"),
            sized(value!({"requests": {"cpu": "1"}})),
            &[
                "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
                "spec: Forbidden: only cpu and memory resources are mutable",
            ],
        ),
        (
            cpu("1"),
            value!({"containers": [{"name": "b", "image": "x:1", "resources": {"requests": {"cpu": "1"}}}]}),
            &["spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"],
        ),
        (
            value!({}),
            cpu("1"),
            &[
                "spec: Invalid value: null: Pod QOS Class may not change as a result of resizing",
                "spec: Forbidden: only cpu and memory resources are mutable",
            ],
        ),
    ];
    for (old, new, expected) in cases {
        assert_eq!(update(&Pod, "resize", with(old), with(new)), expected);
    }
}

#[test]
fn statuses() {
    let status = |status: Value| {
        let mut pod = with(value!({"restartPolicy": "Never"}));
        pod.set("status", status);
        pod
    };
    let state = |state: Value| value!({"containerStatuses": [{"name": "a", "state": state}]});
    let ended = || state(value!({"terminated": {"exitCode": 1}}));
    let cases: Vec<(Value, Value, &[&str])> = vec![
        (value!({}), ended(), &[]),
        (
            ended(),
            state(value!({"running": {}})),
            &["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"],
        ),
        (
            value!({"qosClass": "BestEffort"}),
            value!({"qosClass": "Burstable"}),
            &[r#"status.qosClass: Invalid value: "Burstable": field is immutable"#],
        ),
        (
            value!({}),
            value!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}),
            &[
                r#"status.podIPs: Invalid value: [{"ip":"10.0.0.1"},{"ip":"10.0.0.2"}]: may specify no more than one IP for each IP family"#,
            ],
        ),
        (
            value!({}),
            value!({"podIP": "x"}),
            &[r#"status.podIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#],
        ),
        (
            value!({}),
            value!({"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.2"}]}),
            &[r#"status.hostIPs[0].ip: Invalid value: "10.0.0.2": must be equal to `hostIP`"#],
        ),
    ];
    for (old, new, expected) in cases {
        assert_eq!(update(&Pod, "status", status(old), status(new)), expected);
    }
}

#[test]
fn status_writers_leave_the_rest_alone() {
    let (mut old, mut new) = (good(), with(value!({"hostname": "h"})));
    old.set("status", value!({"qosClass": "BestEffort", "observedGeneration": 3, "conditions": [{"type": "Ready", "observedGeneration": 2}]}));
    new.set("status", value!({"conditions": [{"type": "Ready", "status": "True"}]}));
    Pod.prepare_update(&mut new, &old, &context("status"));
    assert_eq!(new["spec"], old["spec"]);
    assert_eq!(
        new["status"],
        value!({"qosClass": "BestEffort", "observedGeneration": 3,
        "conditions": [{"type": "Ready", "status": "True", "observedGeneration": 2}]})
    );
}

#[test]
fn grace() {
    let pod = |node: &str, phase: &str, own: i64| value!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": own}, "status": {"phase": phase}});
    for (pod, requested, seconds) in [
        (pod("n", "Running", 30), None, 30),
        (pod("n", "Running", 30), Some(5), 5),
        (pod("n", "Running", -4), None, 1),
        (pod("", "Pending", 30), None, 0),
        (pod("n", "Succeeded", 30), Some(9), 0),
    ] {
        assert_eq!(Pod.grace_seconds(&pod, requested), Some(seconds));
    }
}

/// Every part of a large pod, replaced by things of other types.
#[test]
fn no_shape_makes_it_panic() {
    let full = canopus_api::json::parse(include_bytes!("testdata/full.json")).unwrap();
    assert_eq!(create(&Pod, full.clone()), [""; 0]);
    let strange = value!([null, "", "../x[", (-1), true, [], {}, [null], {"a": null}, [[1]], 1.5]);
    let mut paths = Vec::new();
    collect_paths(&full, &mut Vec::new(), &mut paths);
    let subresources = ["", "status", "resize", "ephemeralcontainers"];
    for (n, path) in paths.into_iter().enumerate() {
        // Neighbours get different ones, so that together they see all.
        for (m, odd) in strange.items().iter().cycle().skip(n * 3).take(3).enumerate() {
            let mut pod = full.clone();
            replace(&mut pod, &path, odd);
            create(&Pod, pod.clone());
            let subresource = subresources[(n + m) % subresources.len()];
            update(&Pod, subresource, full.clone(), pod.clone());
            update(&Pod, subresource, pod.clone(), full.clone());
            Pod.row(&pod, Time(0));
            Pod.warnings(&pod, None);
        }
    }
}

/// A step into a tree: the position of an entry.
fn collect_paths(value: &Value, at: &mut Vec<usize>, out: &mut Vec<Vec<usize>>) {
    out.push(at.clone());
    let children: Vec<&Value> = value.entries().map(|(_, v)| v).chain(value.items()).collect();
    for (i, child) in children.into_iter().enumerate() {
        at.push(i);
        collect_paths(child, at, out);
        at.pop();
    }
}

fn replace(value: &mut Value, path: &[usize], with: &Value) {
    match (path, value) {
        ([], value) => *value = with.clone(),
        ([i, rest @ ..], Value::Array(items)) => replace(&mut items[*i], rest, with),
        ([i, rest @ ..], Value::Object(map)) => {
            if let Some(child) = map.values_mut().nth(*i) {
                replace(child, rest, with);
            }
        }
        _ => {}
    }
}

#[test]
fn selectable_fields() {
    let facts = Pod.facts(&value!({"spec": {"nodeName": "n"}, "status": {"podIPs": [{"ip": "1.2.3.4"}]}}));
    assert_eq!(facts.field("spec.hostNetwork"), Some("false"));
    assert_eq!(facts.field("spec.nodeName"), Some("n"));
    assert_eq!(facts.field("status.podIP"), Some("1.2.3.4"));
}
