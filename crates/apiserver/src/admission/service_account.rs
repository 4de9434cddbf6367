//! ServiceAccount: a pod runs as an account that exists, gets a token for it, and pulls images as it.

use super::fresh::Fresh;
use super::{Operation, Plugin, Request};
use crate::authz::pod_references::References;
use crate::surroundings::{Surroundings, name_suffix};
use async_trait::async_trait;
use canopus_api::{Gvr, Object, Status, Value, value};
use std::sync::Arc;
use std::time::Duration;

pub const MIRROR: &str = "kubernetes.io/config.mirror";
const DEFAULT: &str = "default";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// Not an hour, so that such tokens can be told from those a user asked for (upstream `WarnOnlyBoundTokenExpirationSeconds`).
const TOKEN_SECONDS: i64 = 3607;
/// A new namespace's default account is made by a controller; its first pods may be faster.
const PATIENCE: Duration = Duration::from_millis(1500);

pub struct ServiceAccount {
    pub accounts: Fresh,
    pub dice: Arc<dyn Surroundings>,
}

impl ServiceAccount {
    async fn account(&self, request: &Request<'_>, name: &str) -> Result<Arc<Object>, Status> {
        let namespace = request.namespace;
        let mut found = self.accounts.get(namespace, name).await?;
        if found.is_none() && name == DEFAULT {
            found = self.accounts.wait(namespace, name, PATIENCE).await?;
        }
        found.ok_or_else(|| {
            let missing = Status::not_found(&Gvr::new("", "v1", "serviceaccount"), name);
            request.forbidden(&format!("error looking up service account {namespace}/{name}: {missing}"))
        })
    }
}

#[async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, request: &Request) -> bool {
        request.is("", "pods", "") && request.operation == Operation::Create
            || request.is("", "pods", "ephemeralcontainers") && request.operation == Operation::Update
    }

    async fn admit(&self, request: &mut Request<'_>) -> Result<(), Status> {
        if request.operation != Operation::Create || is_mirror(&request.object) {
            return Ok(());
        }
        let name = match request.object["spec"]["serviceAccountName"].str() {
            "" => DEFAULT.to_string(),
            name => name.to_string(),
        };
        let account = self.account(request, &name).await?.value();
        let spec = request.object.ensure_object().entry("spec", Value::object);
        spec.set("serviceAccountName", &name);
        if should_mount(spec, &account) {
            mount_token(spec, || format!("{VOLUME_PREFIX}{}", name_suffix(self.dice.random() >> 64)));
        }
        let pull = account["imagePullSecrets"].items();
        if spec["imagePullSecrets"].items().is_empty() && !pull.is_empty() {
            let names = pull.iter().map(|secret| value!({"name": &secret["name"]}));
            spec.set("imagePullSecrets", names.collect::<Value>());
        }
        Ok(())
    }

    async fn validate(&self, request: &Request<'_>) -> Result<(), Status> {
        let pod = &request.object;
        if request.operation == Operation::Create && is_mirror(pod) {
            return check_mirror(pod).map_err(|why| request.forbidden(why));
        }
        let name = pod["spec"]["serviceAccountName"].str();
        if name.is_empty() {
            let pod = format!("{}/{}", request.namespace, pod["metadata"]["name"].str());
            return Err(request.forbidden(&format!("no service account specified for pod {pod}")));
        }
        let account = self.account(request, name).await?.value();
        let enforced = account["metadata"]["annotations"]["kubernetes.io/enforce-mountable-secrets"].str();
        // What Go's ParseBool takes for true.
        if !["1", "t", "T", "true", "TRUE", "True"].contains(&enforced) {
            return Ok(());
        }
        let ephemeral_only = request.subresource == "ephemeralcontainers";
        limit_secrets(pod, &account, ephemeral_only).map_err(|why| request.forbidden(&why))
    }
}

pub fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(MIRROR).is_some()
}

fn check_mirror(pod: &Value) -> Result<(), &'static str> {
    let spec = &pod["spec"];
    if !spec["serviceAccountName"].str().is_empty() {
        return Err("a mirror pod may not reference service accounts");
    }
    if !References::of(pod).secrets.is_empty() {
        return Err("a mirror pod may not reference secrets");
    }
    let mut sources = spec["volumes"].items().iter().flat_map(|v| v["projected"]["sources"].items());
    if sources.any(|s| !s["serviceAccountToken"].is_null()) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

/// The pod's wish wins, then the account's; the default is yes.
fn should_mount(spec: &Value, account: &Value) -> bool {
    let wish = |v: &Value| v["automountServiceAccountToken"].as_bool();
    wish(spec).or_else(|| wish(account)).unwrap_or(true)
}

fn mount_token(spec: &mut Value, new_name: impl FnOnce() -> String) {
    let existing = spec["volumes"].items().iter().map(|v| v["name"].str()).find(|n| n.starts_with(VOLUME_PREFIX));
    let (volume, add_volume) = match existing {
        Some(name) => (name.to_string(), false),
        None => (new_name(), true),
    };
    let mount = value!({"name": &volume, "readOnly": true, "mountPath": MOUNT_PATH});
    let mut needed = false;
    for kind in ["initContainers", "containers"] {
        for container in spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten() {
            // What a container mounts there itself stays.
            if container["volumeMounts"].items().iter().any(|m| m["mountPath"].str() == MOUNT_PATH) {
                continue;
            }
            container.ensure_object().entry("volumeMounts", || Value::Null).ensure_array().push(mount.clone());
            needed = true;
        }
    }
    if needed && add_volume {
        let source = token_source();
        let volumes = spec.ensure_object().entry("volumes", || Value::Null).ensure_array();
        volumes.push(value!({"name": volume, "projected": source}));
    }
}

/// The token, the cluster's CA and the namespace: what client libraries look for in a pod.
fn token_source() -> Value {
    value!({
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
            ]}},
        ],
    })
}

/// An account may demand that its pods use no other secrets than those it lists.
fn limit_secrets(pod: &Value, account: &Value, ephemeral_only: bool) -> Result<(), String> {
    let owner = account["metadata"]["name"].str();
    let listed = |field: &str, name: &str| account[field].items().iter().any(|s| s["name"].str() == name);
    let refused = |what: String| {
        Err(format!("{what} is not allowed because service account {owner} does not reference that secret"))
    };
    let spec = &pod["spec"];
    for volume in spec["volumes"].items().iter().filter(|v| !ephemeral_only && !v["secret"].is_null()) {
        let name = volume["secret"]["secretName"].str();
        if !listed("secrets", name) {
            return refused(format!("volume with secret.secretName={name:?}"));
        }
    }
    let kinds = [
        ("initContainers", "init container"),
        ("containers", "container"),
        ("ephemeralContainers", "ephemeral container"),
    ];
    for (kind, title) in kinds.into_iter().filter(|(k, _)| ephemeral_only == (*k == "ephemeralContainers")) {
        for container in spec[kind].items() {
            let title = format!("{title} {}", container["name"].str());
            for variable in container["env"].items() {
                let secret = &variable["valueFrom"]["secretKeyRef"];
                let name = secret["name"].str();
                if !secret.is_null() && !listed("secrets", name) {
                    let variable = variable["name"].str();
                    return refused(format!("{title} with envVar {variable} referencing secret.secretName={name:?}"));
                }
            }
            for from in container["envFrom"].items().iter().filter(|f| !f["secretRef"].is_null()) {
                let name = from["secretRef"]["name"].str();
                if !listed("secrets", name) {
                    return refused(format!("{title} with envFrom referencing secret.secretName={name:?}"));
                }
            }
        }
    }
    for (i, secret) in spec["imagePullSecrets"].items().iter().enumerate().filter(|_| !ephemeral_only) {
        let name = secret["name"].str();
        if !listed("imagePullSecrets", name) {
            return Err(format!(
                "imagePullSecrets[{i}].name={name:?} is not allowed because service account {owner} does not reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "service_account_tests.rs"]
mod tests;
