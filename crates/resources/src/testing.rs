//! What the table tests of all kinds share.

use crate::resource::{Context, Requester, Resource};
use canopus_api::{Errors, Field, Time, Value, value};

pub fn context(subresource: &str) -> Context<'_> {
    Context { now: Time(0), subresource, user: "tester", requester: Requester::default() }
}

/// What is wrong with creating `object`, after defaulting and preparing it.
pub fn create(resource: &dyn Resource, mut object: Value) -> Vec<String> {
    resource.default(&mut object);
    resource.prepare_create(&mut object, &context(""));
    let mut errors = Errors::new();
    resource.validate(&Field::root(&object), &mut errors);
    crate::checks::texts(&errors)
}

/// What is wrong with updating `old` to `new`, after defaulting both and preparing.
pub fn update(resource: &dyn Resource, subresource: &str, mut old: Value, mut new: Value) -> Vec<String> {
    resource.default(&mut old);
    resource.default(&mut new);
    let cx = context(subresource);
    resource.prepare_update(&mut new, &old, &cx);
    let mut errors = Errors::new();
    resource.validate_update(&Field::root(&new), &old, &cx, &mut errors);
    crate::checks::texts(&errors)
}

/// The cells of a row, as text, at the first of January 2026.
pub fn cells(resource: &dyn Resource, object: &Value) -> Vec<String> {
    let now = Time::parse("2026-01-01T00:00:00Z").unwrap_or_default();
    let text = |cell: Value| cell.as_str().map_or_else(|| canopus_api::json::to_string(&cell), str::to_string);
    resource.row(object, now).into_iter().map(text).collect()
}

/// One full object of each kind that has rules, for [`no_shape_makes_a_kind_panic`]. Pods and workloads have tests of their own.
fn samples() -> Vec<Value> {
    let spec = value!({"type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"], "externalName": "a.b",
        "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "SingleStack", "selector": {"a": "b"}, "externalIPs": ["1.2.3.4"],
        "ports": [{"name": "a", "port": 80, "targetPort": "web", "nodePort": 30000, "appProtocol": "x"}, {"name": "b", "port": 81}],
        "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}}, "loadBalancerClass": "a/b",
        "loadBalancerSourceRanges": ["10.0.0.0/8"], "externalTrafficPolicy": "Local", "healthCheckNodePort": 1});
    let balancer = value!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4", "ipMode": "VIP", "hostname": "a"}]}});
    let subjects = value!([{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]);
    let rules = value!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"], "nonResourceURLs": []}]);
    let attributes = value!({"namespace": "n", "fieldSelector": {"requirements": [{"key": "a", "operator": "In", "values": ["b"]}]},
        "labelSelector": {"rawSelector": "a=b", "requirements": []}});
    let address = value!({"ip": "1.2.3.4", "hostname": "h", "nodeName": "n"});
    let hook = value!({"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"], "matchConditions": [{"name": "a", "expression": "b"}],
        "clientConfig": {"url": "https://a", "service": {"namespace": "n", "name": "s", "path": "/a/b"}}, "objectSelector": {"matchLabels": {"a": "b"}},
        "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*", "a"], "scope": "*"}]});
    let port = value!({"port": "web", "endPort": 2, "protocol": "TCP"});
    let peer = value!({"podSelector": {"matchLabels": {"a": "b"}}, "ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/9"]}});
    let backend = value!({"service": {"name": "s", "port": {"number": 1}}, "resource": {"kind": "K", "name": "n"}});
    let claim = value!({"devices": {"requests": [{"name": "a", "exactly": {"deviceClassName": "c", "tolerations": [{"operator": "Exists"}]}},
        {"name": "b", "firstAvailable": [{"name": "c", "deviceClassName": "c"}]}], "constraints": [{"requests": ["a"], "matchAttribute": "a/b"}],
        "config": [{"requests": ["b/c"], "opaque": {"driver": "d", "parameters": {}}}]}});
    let device = value!({"request": "a", "driver": "d", "pool": "p", "device": "x", "shareID": "s", "bindingConditions": ["a"], "bindingFailureConditions": ["b"],
        "conditions": [{"type": "T"}], "data": {"a": 1}, "networkData": {"interfaceName": "e", "ips": ["10.0.0.1/8"]}});
    let conditions = value!([{"type": "Approved", "status": "True"}, {"type": "Denied"}]);
    vec![
        value!({"kind": "PodCertificateRequest", "spec": {"signerName": "a.b/c", "podName": "p", "podUID": "u", "pkixPublicKey": "AA==",
            "proofOfPossession": "AA==", "unverifiedUserAnnotations": {"a/b": "c"}}, "status": {"conditions": [{"type": "Issued", "status": "True"}],
            "certificateChain": "a", "notBefore": "2026-01-01T00:00:00Z"}}),
        value!({"kind": "ResourcePoolStatusRequest", "spec": {"driver": "d", "poolName": "p", "limit": 1}, "status": {"poolCount": 1,
            "pools": [{"driver": "d", "poolName": "p", "totalDevices": 1}], "conditions": [{"type": "Complete", "status": "True"}]}}),
        value!({"kind": "DeviceClass", "spec": {"selectors": [{"cel": {"expression": "x"}}], "config": [{"opaque": {"driver": "d", "parameters": {"a": 1}}}]}}),
        value!({"kind": "ResourceClaim", "spec": (&claim), "status": {"allocation": {"devices": {"results": [(&device)], "config": [{"source": "FromClaim"}]},
            "nodeSelector": {"nodeSelectorTerms": [{}]}}, "reservedFor": [{"uid": "u"}], "devices": [device]}}),
        value!({"kind": "ResourceClaimTemplate", "spec": {"metadata": {"labels": {"a": "b"}}, "spec": claim}}),
        value!({"kind": "ResourceSlice", "spec": {"driver": "d", "nodeName": "n", "pool": {"name": "p", "resourceSliceCount": 1, "generation": 1},
            "sharedCounters": [{"name": "c", "counters": {"a": {"value": "1"}}}], "devices": [{"name": "d", "allNodes": true, "attributes": {"a": {"string": "b"},
            "v": {"versions": ["1.0.0"]}}, "capacity": {"m": {"value": "1", "requestPolicy": {"default": "1", "validValues": ["1"], "validRange": {"min": "1", "max": "2", "step": "1"}}}},
            "allowMultipleAllocations": true, "taints": [{"key": "k", "effect": "None"}], "consumesCounters": [{"counterSet": "c", "counters": {"a": {"value": "1"}}}],
            "nodeAllocatableResourceMappings": {"cpu": {"capacityKey": "m", "allocationMultiplier": "2"}}}]}}),
        value!({"kind": "CSIDriver", "spec": {"tokenRequests": [{"audience": "a", "expirationSeconds": 1}], "volumeLifecycleModes": ["Ephemeral"]}}),
        value!({"kind": "CSINode", "spec": {"drivers": [{"name": "a", "nodeID": "b", "topologyKeys": ["k"], "allocatable": {"count": 1}}]}}),
        value!({"kind": "CSIStorageCapacity", "storageClassName": "a", "capacity": "1", "nodeTopology": {"matchLabels": {"a": "b"},
            "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}}),
        value!({"kind": "VolumeAttachment", "spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "p",
            "inlineVolumeSpec": {"csi": {"driver": "d"}}}}, "status": {"attached": true, "attachError": {"message": "m", "errorCode": 1}}}),
        value!({"kind": "VolumeAttributesClass", "driverName": "a.b", "parameters": {"a": "b"}}),
        value!({"kind": "IPAddress", "spec": {"parentRef": {"group": "g", "resource": "r", "namespace": "n", "name": "m"}}}),
        value!({"kind": "ServiceCIDR", "spec": {"cidrs": ["10.0.0.0/8", "fd00::/64"]}, "status": {"conditions": [{"type": "Ready"}]}}),
        value!({"kind": "StorageClass", "provisioner": "p", "parameters": {"a": "b"}, "allowedTopologies": [
            {"matchLabelExpressions": [{"key": "k", "values": ["v"]}]}]}),
        value!({"kind": "Ingress", "spec": {"ingressClassName": "c", "defaultBackend": backend, "tls": [{"hosts": ["*.a"], "secretName": "s"}],
            "rules": [{"host": "a.b", "http": {"paths": [{"path": "/", "pathType": "Exact", "backend": {}}]}}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4", "hostname": "h"}]}}}),
        value!({"kind": "IngressClass", "spec": {"controller": "a.b/c", "parameters": {"apiGroup": "g", "kind": "K", "name": "n", "scope": "Cluster"}}}),
        value!({"kind": "NetworkPolicy", "spec": {"podSelector": {}, "policyTypes": ["Egress"], "ingress": [{"from": [(&peer)], "ports": [(&port)]}],
            "egress": [{"to": [peer], "ports": [port]}]}}),
        value!({"kind": "RuntimeClass", "handler": "h", "overhead": {"podFixed": {"cpu": "1"}}, "scheduling": {
            "nodeSelector": {"a": "b"}, "tolerations": [{"key": "a", "operator": "Exists"}]}}),
        value!({"kind": "CertificateSigningRequest", "spec": {"request": "YQ==", "usages": ["any"], "signerName": "a.b/c", "expirationSeconds": 600},
            "status": {"conditions": conditions, "certificate": "YQ=="}}),
        value!({"kind": "MutatingWebhookConfiguration", "webhooks": [(&hook)]}),
        value!({"kind": "ValidatingWebhookConfiguration", "webhooks": [hook]}),
        value!({"kind": "APIService", "spec": {"group": "a.b", "version": "v1", "caBundle": "YQ==", "service": {"name": "s"}}, "status": {"conditions": [{"type": "Available"}]}}),
        value!({"kind": "Service", "spec": spec, "status": balancer}),
        value!({"kind": "Namespace", "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
        value!({"kind": "Secret", "type": "kubernetes.io/dockercfg", "data": {".dockercfg": "e30="}, "stringData": {"a": "b"}}),
        value!({"kind": "ServiceAccount", "secrets": [{"name": "a", "namespace": "b"}]}),
        value!({"kind": "Endpoints", "subsets": [{"addresses": [address], "notReadyAddresses": [{"ip": "::1"}], "ports": [{"name": "a", "port": 1}]}]}),
        value!({"kind": "Event", "eventTime": "2026-01-01T00:00:00Z", "involvedObject": {"kind": "Pod"}, "regarding": {"kind": "Pod"},
            "source": {"component": "c"}, "series": {"count": 2, "lastObservedTime": "x"}, "message": "m", "reason": "r"}),
        value!({"kind": "EndpointSlice", "addressType": "IPv6", "ports": [{"name": "a", "port": 1, "appProtocol": "x"}], "endpoints": [
            {"addresses": ["::2"], "hints": {"forZones": [{"name": "z"}]}, "nodeName": "n", "hostname": "h", "deprecatedTopology": {"a": "b"}}]}),
        value!({"kind": "Lease", "spec": {"holderIdentity": "h", "leaseDurationSeconds": 1, "leaseTransitions": 1, "strategy": "s"}}),
        value!({"kind": "ClusterRole", "rules": (&rules), "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}}),
        value!({"kind": "Role", "rules": rules}),
        value!({"kind": "ResourceQuota", "spec": {"hard": {"pods": 1, "requests.cpu": "2"}, "scopes": ["BestEffort"], "scopeSelector": {
            "matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["a"]}]}}, "status": {"hard": {"pods": 1}, "used": {"pods": 0}}}),
        value!({"kind": "LimitRange", "spec": {"limits": [{"type": "Container", "max": {"cpu": 1}, "min": {"cpu": 1}, "default": {"cpu": 1},
            "defaultRequest": {"cpu": 1}, "maxLimitRequestRatio": {"cpu": 1}}]}}),
        value!({"kind": "PersistentVolumeClaim", "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": 1}, "limits": {"storage": 2}},
            "volumeName": "v", "storageClassName": "s", "dataSource": {"kind": "VolumeSnapshot", "name": "a", "apiGroup": "snapshot.storage.k8s.io"}},
            "status": {"phase": "Bound", "capacity": {"storage": 1}, "allocatedResources": {"storage": 1}, "allocatedResourceStatuses": {"storage": "x"}}}),
        value!({"kind": "PersistentVolume", "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": 1}, "claimRef": {"name": "a", "namespace": "b"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}]}},
            "csi": {"driver": "d", "volumeHandle": "h", "nodePublishSecretRef": {"name": "a"}}, "hostPath": {"path": "/"}, "iscsi": {"iqn": "iqn.x"}},
            "status": {"phase": "Bound", "lastPhaseTransitionTime": "x"}}),
        value!({"kind": "PodDisruptionBudget", "spec": {"minAvailable": 1, "maxUnavailable": "1%", "selector": {"matchLabels": {"a": "b"},
            "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}}, "status": {"conditions": [{"type": "a", "reason": "b"}]}}),
        value!({"kind": "HorizontalPodAutoscaler", "spec": {"minReplicas": 1, "maxReplicas": 2, "scaleTargetRef": {"apiVersion": "a/b", "kind": "K", "name": "n"},
            "behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 1}]}},
            "metrics": [{"type": "Object", "object": {"describedObject": {"kind": "a"}, "metric": {"name": "m"}, "target": {"value": 1, "averageValue": 1}}},
                {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 1}}}]},
            "status": {"currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 1}}}]}}),
        value!({"kind": "ControllerRevision", "revision": 1, "data": {"a": 1}}),
        value!({"kind": "StatefulSet", "spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1, "maxUnavailable": 1}}, "ordinals": {"start": 1},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain"}, "volumeClaimTemplates": [{"metadata": {"name": "a"}, "spec": {}}], "template": {"spec": {"volumes": []}}}}),
        value!({"kind": "DaemonSet", "spec": {"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}, "template": {"spec": {"nodeSelector": {"a": "b"}}}}}),
        value!({"kind": "CronJob", "spec": {"schedule": "1 * * * *", "timeZone": "UTC", "jobTemplate": {"spec": {"selector": {}, "manualSelector": true}}}}),
        value!({"kind": "Job", "spec": {"completions": 3, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1, "managedBy": "a/b",
            "successPolicy": {"rules": [{"succeededCount": 1, "succeededIndexes": "0-1"}]}, "podFailurePolicy": {"rules": [{"action": "Count",
                "onExitCodes": {"operator": "In", "values": [1]}, "onPodConditions": [{"type": "a"}]}]}, "template": {"spec": {"containers": [{"name": "a"}]}}},
            "status": {"startTime": "2026-01-01T00:00:00Z", "completionTime": "x", "completedIndexes": "0-1", "failedIndexes": "0", "active": 1,
                "conditions": [{"type": "Complete", "status": "True"}], "uncountedTerminatedPods": {"failed": ["a"]}}}),
        value!({"kind": "RoleBinding", "roleRef": {"kind": "Role", "name": "r"}, "subjects": (&subjects)}),
        value!({"kind": "ClusterRoleBinding", "roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": subjects}),
        value!({"kind": "PriorityClass", "value": 1, "globalDefault": true, "preemptionPolicy": "Never"}),
        value!({"kind": "SubjectAccessReview", "spec": {"user": "u", "groups": ["g"], "resourceAttributes": (&attributes)}}),
        value!({"kind": "LocalSubjectAccessReview", "spec": {"user": "u", "resourceAttributes": (&attributes)}}),
        value!({"kind": "SelfSubjectAccessReview", "spec": {"nonResourceAttributes": {"path": "/"}, "resourceAttributes": attributes}}),
    ]
}

/// The same tree with each of its values, one at a time, replaced by `with`.
fn replaced(value: &Value, with: &Value) -> Vec<Value> {
    let mut all = vec![with.clone()];
    match value {
        Value::Object(map) => {
            for (key, child) in map.iter() {
                for other in replaced(child, with) {
                    let mut map = map.clone();
                    map.insert(key.clone(), other);
                    all.push(map.into());
                }
            }
        }
        Value::Array(items) => {
            for (i, child) in items.iter().enumerate() {
                for other in replaced(child, with) {
                    let mut items = items.clone();
                    items[i] = other;
                    all.push(items.into());
                }
            }
        }
        _ => {}
    }
    all
}

#[test]
fn no_shape_makes_a_kind_panic() {
    let meta = value!({"name": "system-x", "generateName": "x-", "namespace": "n", "labels": {"a": "b"}, "annotations": {"a": "b"}, "finalizers": ["a/b"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}],
        "managedFields": [{"manager": "m", "operation": "Update"}], "creationTimestamp": "2026-01-01T00:00:00Z"});
    for mut sample in samples() {
        sample.set("metadata", &meta);
        let kind = sample["kind"].str().to_string();
        let resources: Vec<_> = crate::ALL.iter().filter(|resource| resource.info().kind == kind).collect();
        assert!(!resources.is_empty(), "{kind}");
        for odd in value!([null, "", "../x[", (-1), [], {}, [null], {"a": null}, 1.5]).items() {
            for object in replaced(&sample, odd) {
                for resource in &resources {
                    resource.facts(&object);
                    cells(**resource, &object);
                    resource.warnings(&object, None);
                    create(**resource, object.clone());
                    for subresource in ["", "status", "approval", "finalize"] {
                        update(**resource, subresource, sample.clone(), object.clone());
                        update(**resource, subresource, object.clone(), sample.clone());
                    }
                    let (root, mut errors) = (Field::root(&object), Errors::new());
                    crate::metadata::validate(&root.at("metadata"), resource.info(), &mut errors);
                    crate::metadata::validate_update(&root.at("metadata"), &meta, &mut errors);
                }
            }
        }
    }
}
