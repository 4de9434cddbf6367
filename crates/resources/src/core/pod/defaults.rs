//! What a pod, or a template of pods, gets when its author left it out (upstream `core/v1/defaults.go`).

use super::amounts::{self, HUGEPAGES, amounts, is_overcommit_allowed, is_pod_level};
use canopus_api::{Quantity, Value};

/// Sets `key` unless it is there and not empty: for fields whose zero value means "not set".
pub fn fill(object: &mut Value, key: &str, value: impl Into<Value>) {
    if object[key].is_empty() {
        object.set(key, value);
    }
}

pub fn each(object: &mut Value, list: &str, change: impl FnMut(&mut Value)) {
    if let Some(items) = object.get_mut(list).and_then(Value::as_array_mut) {
        items.iter_mut().for_each(change);
    }
}

pub fn with(object: &mut Value, key: &str, change: impl FnOnce(&mut Value)) {
    if let Some(field) = object.get_mut(key).filter(|f| !f.is_null()) {
        change(field);
    }
}

/// Defaults of a Pod, which are more than a template's: requests from limits, host ports from container ports.
pub fn pod(pod: &mut Value) {
    let spec = pod.ensure_object().entry("spec", Value::object);
    for list in ["containers", "initContainers"] {
        each(spec, list, |container| with(container, "resources", requests_from_limits));
    }
    pod_level_resources(spec);
    spec.set_default("enableServiceLinks", true);
    if spec["hostNetwork"].bool() {
        for list in ["containers", "initContainers"] {
            each(spec, list, |container| {
                each(container, "ports", |port| {
                    let number = port["containerPort"].clone();
                    fill(port, "hostPort", number);
                });
            });
        }
    }
    pod_spec(spec);
    with(pod, "status", status);
}

/// Defaults of a `PodTemplateSpec`.
pub fn template(template: &mut Value) {
    pod_spec(template.ensure_object().entry("spec", Value::object));
}

/// Defaults of a `PodSpec` wherever it is.
pub fn pod_spec(spec: &mut Value) {
    fill(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "restartPolicy", "Always");
    spec.set_default("securityContext", Value::object());
    spec.set_default("terminationGracePeriodSeconds", 30);
    fill(spec, "schedulerName", "default-scheduler");
    service_account(spec);
    each(spec, "volumes", volume);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        each(spec, list, container);
    }
    with(spec, "overhead", resource_list);
    with(spec, "resources", resource_lists);
}

/// `serviceAccount` is the older name of `serviceAccountName`; both are served.
fn service_account(spec: &mut Value) {
    let (name, old) = (spec["serviceAccountName"].clone(), spec["serviceAccount"].clone());
    match (name.is_empty(), old.is_empty()) {
        (true, false) => spec.set("serviceAccountName", old),
        (false, _) if name != old => spec.set("serviceAccount", name),
        _ => {}
    }
}

fn container(container: &mut Value) {
    let policy = pull_policy(container["image"].str());
    fill(container, "imagePullPolicy", policy);
    fill(container, "terminationMessagePath", "/dev/termination-log");
    fill(container, "terminationMessagePolicy", "File");
    each(container, "ports", |port| fill(port, "protocol", "TCP"));
    each(container, "env", |variable| {
        with(variable, "valueFrom", |source| {
            with(source, "fieldRef", field_ref);
            with(source, "fileKeyRef", |file| file.set_default("optional", false));
        });
    });
    // A struct that is no pointer upstream: always there.
    container.set_default("resources", Value::object());
    with(container, "resources", resource_lists);
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        with(container, name, probe);
    }
    with(container, "lifecycle", |lifecycle| {
        for hook in ["postStart", "preStop"] {
            with(lifecycle, hook, |hook| with(hook, "httpGet", http_get));
        }
    });
}

fn probe(probe: &mut Value) {
    fill(probe, "timeoutSeconds", 1);
    fill(probe, "periodSeconds", 10);
    fill(probe, "successThreshold", 1);
    fill(probe, "failureThreshold", 3);
    with(probe, "httpGet", http_get);
    with(probe, "grpc", |grpc| grpc.set_default("service", ""));
}

fn http_get(action: &mut Value) {
    fill(action, "path", "/");
    fill(action, "scheme", "HTTP");
}

fn field_ref(selector: &mut Value) {
    fill(selector, "apiVersion", "v1");
}

const DEFAULT_MODE: i64 = 0o644;

fn volume(volume: &mut Value) {
    if volume.entries().all(|(key, source)| key == "name" || source.is_null()) {
        volume.set("emptyDir", Value::object());
    }
    volume_sources(volume);
    with(volume, "image", |image| {
        let policy = pull_policy(image["reference"].str());
        fill(image, "pullPolicy", policy);
    });
    for kind in ["secret", "configMap", "downwardAPI", "projected"] {
        with(volume, kind, |source| source.set_default("defaultMode", DEFAULT_MODE));
    }
    with(volume, "downwardAPI", downward_items);
    with(volume, "projected", |projected| each(projected, "sources", projection));
    with(volume, "ephemeral", |source| {
        with(source, "volumeClaimTemplate", |template| {
            let spec = template.ensure_object().entry("spec", Value::object);
            spec.set_default("volumeMode", "Filesystem");
            with(spec, "resources", resource_lists);
        });
    });
}

/// Sources that pods and PersistentVolumes share.
pub fn volume_sources(volume: &mut Value) {
    with(volume, "hostPath", |source| source.set_default("type", ""));
    with(volume, "iscsi", |source| fill(source, "iscsiInterface", "default"));
    with(volume, "rbd", |source| {
        fill(source, "pool", "rbd");
        fill(source, "user", "admin");
        fill(source, "keyring", "/etc/ceph/keyring");
    });
    with(volume, "azureDisk", |source| {
        source.set_default("cachingMode", "ReadWrite");
        source.set_default("fsType", "ext4");
        source.set_default("readOnly", false);
        source.set_default("kind", "Shared");
    });
    with(volume, "scaleIO", |source| {
        fill(source, "storageMode", "ThinProvisioned");
        fill(source, "fsType", "xfs");
    });
}

fn downward_items(source: &mut Value) {
    each(source, "items", |file| with(file, "fieldRef", field_ref));
}

fn projection(source: &mut Value) {
    with(source, "downwardAPI", downward_items);
    with(source, "serviceAccountToken", |token| token.set_default("expirationSeconds", 3600));
}

/// Always for images that move (`:latest`, or neither tag nor digest), else IfNotPresent.
fn pull_policy(image: &str) -> &'static str {
    if follows_latest(image) { "Always" } else { "IfNotPresent" }
}

/// Whether the reference is well-formed and means the tag `latest`.
fn follows_latest(image: &str) -> bool {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let slash = name.rfind('/').map_or(0, |i| i + 1);
    let (repository, tag) = match name[slash..].find(':') {
        Some(colon) => (&name[..slash + colon], Some(&name[slash + colon + 1..])),
        None => (name, None),
    };
    is_repository(repository) && tag.map_or(digest.is_none(), |tag| tag == "latest")
}

fn is_repository(text: &str) -> bool {
    let (domain, path) = match text.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" || first != first.to_lowercase() => {
            (Some(first), rest)
        }
        _ => (None, text),
    };
    let component = |part: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        part.bytes().all(inner) && edge(part.as_bytes().first()) && edge(part.as_bytes().last())
    };
    let host = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    domain.is_none_or(host) && path.split('/').all(component)
}

/// The `limits` and `requests` of a `resources`.
pub fn resource_lists(resources: &mut Value) {
    with(resources, "limits", resource_list);
    with(resources, "requests", resource_list);
}

/// Writes quantities canonically, rounded up to thousandths.
pub fn resource_list(list: &mut Value) {
    let Some(list) = list.as_object_mut() else { return };
    for value in list.values_mut() {
        let Some(quantity) = Quantity::from_value(value) else { continue };
        let milli = quantity.milli_value();
        let rounded = Quantity::from_milli(milli);
        let exact = rounded == quantity || milli == i64::MAX || milli == i64::MIN;
        *value = if exact { quantity } else { rounded }.into();
    }
}

fn requests_from_limits(resources: &mut Value) {
    let Some(limits) = resources["limits"].as_object().cloned() else { return };
    let requests = resources.obj_mut("requests");
    for (name, limit) in limits {
        requests.entry(&name, || limit);
    }
}

/// Limits of huge pages and requests of the whole pod, when its author set some of either (KEP-2837).
fn pod_level_resources(spec: &mut Value) {
    let set = |list: &str| !spec["resources"][list].is_empty();
    if !set("limits") && !set("requests") {
        return;
    }
    let mut limits = spec["resources"]["limits"].as_object().cloned().unwrap_or_default();
    for (name, limit) in amounts::of_containers(spec, "limits") {
        if name.starts_with(HUGEPAGES) && spec["resources"]["requests"].get(&name).is_none() {
            limits.entry(&name, || limit.into());
        }
    }
    if limits.is_empty() {
        return;
    }
    let mut requests = spec["resources"]["requests"].as_object().cloned().unwrap_or_default();
    let of_containers = amounts::of_containers(spec, "requests").into_iter().filter(|(n, _)| is_overcommit_allowed(n));
    for (name, quantity) in of_containers.chain(amounts(&Value::Object(limits.clone()))) {
        if is_pod_level(&name) {
            requests.entry(&name, || quantity.into());
        }
    }
    let resources = spec.obj_mut("resources");
    resources.insert("limits", limits);
    if !requests.is_empty() {
        resources.insert("requests", requests);
    }
}

fn status(status: &mut Value) {
    for list in ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"] {
        each(status, list, |container| {
            with(container, "allocatedResources", resource_list);
            with(container, "resources", resource_lists);
        });
    }
    with(status, "allocatedResources", resource_list);
    with(status, "resources", resource_lists);
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::{json, value};

    #[test]
    fn smallest_pod() {
        let mut object = value!({"spec": {"containers": [{"name": "a", "image": "nginx"}]}});
        pod(&mut object);
        let once = object.clone();
        pod(&mut object);
        assert_eq!(object, once);
        assert_eq!(
            json::to_string(&object["spec"]),
            r#"{"containers":[{"image":"nginx","imagePullPolicy":"Always","name":"a","resources":{},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}],"dnsPolicy":"ClusterFirst","enableServiceLinks":true,"restartPolicy":"Always","schedulerName":"default-scheduler","securityContext":{},"terminationGracePeriodSeconds":30}"#
        );
    }

    #[test]
    fn pull_policies() {
        let digest = format!("nginx@sha256:{}", "a".repeat(64));
        let cases = [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:v1", "IfNotPresent"),
            (digest.as_str(), "IfNotPresent"),
            ("", "IfNotPresent"),
            ("NGINX", "IfNotPresent"),
        ];
        for (image, policy) in cases {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn parts() {
        let cases = [
            ("volumes", value!([{"name": "a"}]), r#"[{"emptyDir":{},"name":"a"}]"#),
            (
                "volumes",
                value!([{"name": "a", "secret": {"secretName": "s"}}]),
                r#"[{"name":"a","secret":{"defaultMode":420,"secretName":"s"}}]"#,
            ),
            (
                "volumes",
                value!([{"name": "a", "hostPath": {"path": "/"}}]),
                r#"[{"hostPath":{"path":"/","type":""},"name":"a"}]"#,
            ),
            (
                "volumes",
                value!([{"name": "a", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]),
                r#"[{"name":"a","projected":{"defaultMode":420,"sources":[{"serviceAccountToken":{"expirationSeconds":3600,"path":"t"}}]}}]"#,
            ),
            ("resources", value!({"limits": {"cpu": 2}}), r#"{"limits":{"cpu":"2"},"requests":{"cpu":"2"}}"#),
        ];
        for (field, given, expected) in cases {
            let mut object = value!({"spec": {(field): given}});
            pod(&mut object);
            assert_eq!(json::to_string(&object["spec"][field]), expected);
        }
    }

    #[test]
    fn containers() {
        let mut object = value!({"spec": {"hostNetwork": true, "containers": [{"image": "a:1", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "1.5", "memory": "1024Mi"}, "requests": {"cpu": "0.1"}},
            "livenessProbe": {"httpGet": {"port": 80}}, "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}]}});
        pod(&mut object);
        let container = &object["spec"]["containers"][0];
        assert_eq!(container["ports"], value!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]));
        assert_eq!(
            container["resources"],
            value!({"limits": {"cpu": "1500m", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}})
        );
        assert_eq!(
            json::to_string(&container["livenessProbe"]),
            r#"{"failureThreshold":3,"httpGet":{"path":"/","port":80,"scheme":"HTTP"},"periodSeconds":10,"successThreshold":1,"timeoutSeconds":1}"#
        );
        assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"].str(), "v1");
    }
}
