//! NodeRestriction: a node changes only itself and what runs on it (upstream `plugin/pkg/admission/noderestriction`).

use super::fresh::Fresh;
use super::service_account::{MIRROR, is_mirror};
use super::{Operation, Plugin, Request};
use crate::authz::chain::aggregate;
use crate::authz::pod_references::References;
use crate::authz::{Attributes, Decision};
use crate::csr::Requested;
use crate::server::Server;
use crate::user::NODES;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use canopus_api::{Gvr, Object, Status, Value};
use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

pub struct NodeRestriction {
    pods: Fresh,
    nodes: Fresh,
    accounts: Fresh,
    claims: Fresh,
    volumes: Fresh,
    drivers: Fresh,
    /// Who else may let a node ask for tokens for any audience.
    server: Weak<Server>,
}

/// A refusal with its reason, or an error of another kind.
enum No {
    Forbidden(String),
    Other(Status),
}

impl From<String> for No {
    fn from(why: String) -> No {
        No::Forbidden(why)
    }
}

impl From<Status> for No {
    fn from(status: Status) -> No {
        No::Other(status)
    }
}

#[async_trait]
impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, request: &Request) -> bool {
        request.operation != Operation::Connect
            && request.user.in_group(NODES)
            && request.user.name.starts_with("system:node:")
    }

    async fn admit(&self, request: &mut Request<'_>) -> Result<(), Status> {
        if request.operation == Operation::Delete { Ok(()) } else { self.restrict(request).await }
    }

    async fn validate(&self, request: &Request<'_>) -> Result<(), Status> {
        // Deletions have nothing to admit.
        if request.operation == Operation::Delete { self.restrict(request).await } else { Ok(()) }
    }
}

impl NodeRestriction {
    pub fn new(server: &Arc<Server>) -> Result<NodeRestriction, Status> {
        let core = |plural| Fresh::of(server, "", "v1", plural);
        Ok(NodeRestriction {
            pods: core("pods")?,
            nodes: core("nodes")?,
            accounts: core("serviceaccounts")?,
            claims: core("persistentvolumeclaims")?,
            volumes: core("persistentvolumes")?,
            drivers: Fresh::of(server, "storage.k8s.io", "v1", "csidrivers")?,
            server: Arc::downgrade(server),
        })
    }

    async fn restrict(&self, r: &Request<'_>) -> Result<(), Status> {
        let Some(node) = r.user.node() else {
            return Err(r.forbidden(&format!("could not determine node from user {:?}", r.user.name)));
        };
        let done = match (r.resource.group, r.resource.plural, r.subresource) {
            ("", "pods", "") => self.pod(node, r).await,
            ("", "pods", "status") => pod_status(node, r).map_err(No::from),
            ("", "pods", "eviction") => self.eviction(node, r).await,
            ("", "pods", other) => Err(No::Forbidden(format!(
                "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
            ))),
            ("", "nodes", _) => own_node(node, r).map_err(No::from),
            ("", "serviceaccounts", "token") if r.operation == Operation::Create => self.token(node, r).await,
            ("coordination.k8s.io", "leases", _) => lease(node, r).map_err(No::from),
            ("storage.k8s.io", "csinodes", _) if name(r) != node => {
                Err(No::Forbidden("can only access CSINode with the same name as the requesting node".into()))
            }
            ("", "persistentvolumeclaims", "status") => claim_status(node, r).map_err(No::from),
            ("", "persistentvolumeclaims", _) => Err("may only update PVC status".to_string().into()),
            ("resource.k8s.io", "resourceslices", _) => resource_slice(node, r).map_err(No::from),
            ("certificates.k8s.io", "podcertificaterequests", _) => self.pod_certificate(node, r).await,
            ("certificates.k8s.io", "certificatesigningrequests", _) if r.operation == Operation::Create => {
                certificate(node, r).map_err(No::from)
            }
            _ => Ok(()),
        };
        done.map_err(|no| match no {
            No::Forbidden(why) => r.forbidden(&why),
            No::Other(status) => status,
        })
    }

    async fn existing(&self, namespace: &str, name: &str) -> Result<Arc<Object>, No> {
        let pod = self.pods.get(namespace, name).await?;
        Ok(pod.ok_or_else(|| Status::not_found(&Gvr::new("", "v1", "pods"), name))?)
    }

    async fn pod(&self, node: &str, r: &Request<'_>) -> Result<(), No> {
        match r.operation {
            Operation::Create => self.mirror_pod(node, &r.object).await,
            Operation::Delete if on_node(&*self.existing(r.namespace, r.name).await?) == node => Ok(()),
            Operation::Delete => {
                Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself").into())
            }
            _ => {
                let why = "unexpected operation \"UPDATE\", node";
                Err(format!("{why} {node:?} can only create and delete mirror pods").into())
            }
        }
    }

    async fn mirror_pod(&self, node: &str, pod: &Value) -> Result<(), No> {
        if !is_mirror(pod) {
            let why = format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods");
            return Err(why.into());
        }
        if pod["spec"]["nodeName"].str() != node {
            return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself").into());
        }
        let only = |what: &str| No::Forbidden(format!("node {node:?} can only create pods with {what}"));
        let owner = match pod["metadata"]["ownerReferences"].items() {
            [] => return Err(only("an owner reference set to itself")),
            [owner] => owner,
            _ => return Err(only("a single owner reference set to itself")),
        };
        if (owner["apiVersion"].str(), owner["kind"].str(), owner["name"].str()) != ("v1", "Node", node) {
            return Err(only("an owner reference set to itself"));
        }
        if !owner["controller"].bool() {
            return Err(only("a controller owner reference set to itself"));
        }
        if owner["blockOwnerDeletion"].bool() {
            return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference").into());
        }
        let existing = self.nodes.get("", node).await?;
        let existing = existing.ok_or_else(|| Status::not_found(&Gvr::new("", "v1", "nodes"), node))?;
        let (expected, got) = (owner["uid"].str(), existing.facts.uid.as_str());
        if expected != got {
            return Err(format!("node {node} UID mismatch: expected {expected} got {got}").into());
        }
        match api_reference(pod) {
            Some(what) => Err(format!("node {node:?} can not create pods that reference {what}").into()),
            None => Ok(()),
        }
    }

    async fn eviction(&self, node: &str, r: &Request<'_>) -> Result<(), No> {
        let name = if r.name.is_empty() { r.object["metadata"]["name"].str() } else { r.name };
        if name.is_empty() {
            return Err("could not determine pod from request data".to_string().into());
        }
        if on_node(&*self.existing(r.namespace, name).await?) != node {
            return Err(format!("node {node} can only evict pods with spec.nodeName set to itself").into());
        }
        Ok(())
    }

    /// A node asks for tokens only on behalf of pods that run on it.
    async fn token(&self, node: &str, r: &Request<'_>) -> Result<(), No> {
        let spec = &r.object["spec"];
        let bound = &spec["boundObjectRef"];
        let (kind, name, uid) = (bound["kind"].str(), bound["name"].str(), bound["uid"].str());
        if bound["apiVersion"].str() != "v1" || kind != "Pod" || name.is_empty() {
            return Err("node requested token not bound to a pod".to_string().into());
        }
        if uid.is_empty() {
            return Err("node requested token with a pod binding without a uid".to_string().into());
        }
        let pod = self.existing(r.namespace, name).await?;
        if uid != pod.facts.uid {
            return Err(format!("the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated").into());
        }
        if on_node(&pod) != node {
            return Err("node requested token bound to a pod scheduled on a different node".to_string().into());
        }
        let audience = match spec["audiences"].items() {
            [] => "",
            [one] => one.str(),
            _ => return Err("node may only request 0 or 1 audiences".to_string().into()),
        };
        self.audience(audience, &pod.value(), r).await
    }

    /// A certificate for a pod that runs on the node, with all about it as it is (KEP-4317).
    async fn pod_certificate(&self, node: &str, r: &Request<'_>) -> Result<(), No> {
        if r.operation != Operation::Create {
            return Err(format!("unexpected operation {}", r.operation.name()).into());
        }
        if !r.subresource.is_empty() {
            return Err(format!("unexpected subresource {}", r.subresource).into());
        }
        let spec = &r.object["spec"];
        let said = |field: &str| spec[field].str().to_string();
        let (named, pod_name, account_name) = (said("nodeName"), said("podName"), said("serviceAccountName"));
        if named != node {
            let why =
                format!("PodCertificateRequest.Spec.NodeName={named:?}, which is not the requesting node {node:?}");
            return Err(why.into());
        }
        // What differs may only not have been seen yet: the node may try again.
        let differs = |what: String| No::Other(Status::internal(what));
        let whole = format!("{}/{pod_name}", r.namespace);
        let missing =
            |what: &str| differs(format!("while retrieving {what} named in the PodCertificateRequest: not found"));
        let found = self.nodes.get("", node).await?.ok_or_else(|| missing(&format!("node {node:?}")))?;
        if found.facts.uid != said("nodeUID") {
            return Err(differs(format!(
                "PodCertificateRequest for pod {whole:?} names node UID {:?}, inconsistent with the running node ({:?})",
                said("nodeUID"),
                found.facts.uid
            )));
        }
        let pod = self.pods.get(r.namespace, &pod_name).await?.ok_or_else(|| missing(&format!("pod {whole:?}")))?;
        if pod.facts.uid != said("podUID") {
            return Err(differs(format!(
                "PodCertificateRequest for pod {whole:?} contains pod UID ({:?}) which differs from running pod {:?}",
                said("podUID"),
                pod.facts.uid
            )));
        }
        if on_node(&pod) != node {
            let why = format!("pod {whole:?} is not running on node {node:?} named in the PodCertificateRequest");
            return Err(why.into());
        }
        let running = pod.value();
        if is_mirror(&running) {
            return Err(format!("pod {whole:?} is a mirror pod").into());
        }
        let actual = running["spec"]["serviceAccountName"].str();
        if actual != account_name {
            return Err(format!("PodCertificateRequest for pod {whole:?} contains serviceAccountName ({account_name:?}) that differs from running pod ({actual:?})").into());
        }
        let account = self.accounts.get(r.namespace, &account_name).await?;
        let of_account = format!("service account {:?}", format!("{}/{account_name}", r.namespace));
        let account = account.ok_or_else(|| missing(&of_account))?;
        if account.facts.uid != said("serviceAccountUID") {
            return Err(differs(format!(
                "PodCertificateRequest for pod {whole:?} names service account UID {:?}, which differs from the running service account ({:?})",
                said("serviceAccountUID"),
                account.facts.uid
            )));
        }
        Ok(())
    }

    /// Tokens are for the audiences that the pod's volumes name, or their CSI drivers (KEP-4935), and for those that
    /// somebody allows.
    async fn audience(&self, audience: &str, pod: &Value, r: &Request<'_>) -> Result<(), No> {
        let server = self.server.upgrade().ok_or_else(|| Status::unavailable("the server is stopping"))?;
        if !server.settings.features.enabled("ServiceAccountNodeAudienceRestriction") {
            return Ok(());
        }
        let (mut wrong, spec) = (Vec::new(), &pod["spec"]);
        for volume in spec["volumes"].items() {
            let projected = volume["projected"]["sources"].items().iter().map(|s| &s["serviceAccountToken"]);
            if projected.filter(|t| !t.is_null()).any(|t| t["audience"].str() == audience) {
                return Ok(());
            }
            match self.driver_wants(volume, pod["metadata"]["name"].str(), r.namespace, audience).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(status) => wrong.push(status.message),
            }
        }
        if let Some(why) = aggregate(&wrong) {
            return Err(format!("error validating audience {audience:?}: {why}").into());
        }
        let attributes = Attributes {
            is_resource: true,
            version: "v1",
            resource: audience,
            namespace: r.namespace,
            name: r.name,
            ..Attributes::path(r.user, "request-serviceaccounts-token-audience", "")
        };
        let (verdict, who) = (server.verdict(&attributes).await?, &r.user.name);
        let missing = format!("audience {audience:?} not found in pod spec volume");
        match (verdict.decision, verdict.error) {
            (Decision::Allow(_), _) => Ok(()),
            (_, Some(error)) => {
                Err(format!("{missing}, error authorizing {who} to request tokens for this audience: {error}").into())
            }
            (_, None) => Err(format!("{missing}, {who} is not authorized to request tokens for this audience").into()),
        }
    }

    /// Whether the CSI driver of a volume wants tokens for the audience.
    async fn driver_wants(&self, volume: &Value, pod: &str, namespace: &str, audience: &str) -> Result<bool, Status> {
        let missing = |plural: &str, name: &str| Status::not_found(&Gvr::new("", "v1", plural), name);
        let inline = volume["csi"]["driver"].str();
        let claim = match volume["persistentVolumeClaim"]["claimName"].str() {
            "" if !volume["ephemeral"]["volumeClaimTemplate"].is_null() => format!("{pod}-{}", volume["name"].str()),
            named => named.to_string(),
        };
        let driver = if claim.is_empty() {
            inline.to_string()
        } else {
            let found = self.claims.get(namespace, &claim).await?;
            let found = found.ok_or_else(|| missing("persistentvolumeclaims", &claim))?.value();
            let bound = found["spec"]["volumeName"].str();
            let volume = self.volumes.get("", bound).await?.ok_or_else(|| missing("persistentvolumes", bound))?;
            volume.value()["spec"]["csi"]["driver"].str().to_string()
        };
        if driver.is_empty() {
            return Ok(false);
        }
        let gvr = Gvr::new("storage.k8s.io", "v1", "csidrivers");
        let found = self.drivers.get("", &driver).await?.ok_or_else(|| Status::not_found(&gvr, &driver))?.value();
        Ok(found["spec"]["tokenRequests"].items().iter().any(|t| t["audience"].str() == audience))
    }
}

fn on_node(pod: &Object) -> &str {
    pod.facts.field("spec.nodeName").unwrap_or("")
}

/// The name of what is written, which a creation has only in the object.
fn name<'a>(r: &'a Request) -> &'a str {
    if r.operation == Operation::Create { r.object["metadata"]["name"].str() } else { r.name }
}

/// What a pod refers to in the API, which no mirror pod may (upstream `HasAPIObjectReference`).
fn api_reference(pod: &Value) -> Option<&'static str> {
    let references = References::of(pod);
    let sources = pod["spec"]["volumes"].items().iter().flat_map(|v| v["projected"]["sources"].items());
    let volume = |kind: &str| pod["spec"]["volumes"].items().iter().any(|v| !v[kind].is_null());
    let projected = |kind: &str| sources.clone().any(|s| !s[kind].is_null());
    let checks = [
        (!references.service_account.is_empty(), "serviceaccounts"),
        (!references.secrets.is_empty(), "secrets"),
        (!references.config_maps.is_empty(), "configmaps"),
        (!pod["spec"]["resourceClaims"].is_empty(), "resourceclaims"),
        (volume("configMap"), "configmaps (via configmap volumes)"),
        (volume("secret"), "secrets (via secret volumes)"),
        (volume("csi"), "csidrivers (via CSI volumes)"),
        (volume("glusterfs"), "endpoints (via glusterFS volumes)"),
        (volume("persistentVolumeClaim"), "persistentvolumeclaims"),
        (volume("ephemeral"), "persistentvolumeclaims (via ephemeral volumes)"),
        (volume("azureFile"), "secrets (via azureFile volumes)"),
        (projected("configMap"), "configmaps (via projected volumes)"),
        (projected("secret"), "secrets (via projected volumes)"),
        (projected("serviceAccountToken"), "serviceaccounts (via projected volumes)"),
        (projected("clusterTrustBundle"), "clustertrustbundles"),
        (projected("podCertificate"), "podcertificates"),
    ];
    checks.into_iter().find(|(refers, _)| *refers).map(|(_, what)| what)
}

fn pod_status(node: &str, r: &Request) -> Result<(), String> {
    if r.operation != Operation::Update {
        return Err(format!("unexpected operation {:?}", r.operation.name()));
    }
    if r.old["spec"]["nodeName"].str() != node {
        return Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    if !same_labels(&r.object["metadata"]["labels"], &r.old["metadata"]["labels"]) {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    let status = |v: &Value, field: &str| v["status"][field].clone();
    if status(&r.object, "resourceClaimStatuses") != status(r.old, "resourceClaimStatuses") {
        return Err(format!("node {node:?} cannot update resource claim statues"));
    }
    if status(&r.object, "extendedResourceClaimStatus") != status(r.old, "extendedResourceClaimStatus") {
        return Err(format!("node {node:?} cannot update extended resource claim status"));
    }
    Ok(())
}

/// What a node has learnt of a volume, and nothing else.
fn claim_status(node: &str, r: &Request) -> Result<(), String> {
    if r.operation != Operation::Update {
        return Err(format!("unexpected operation {:?}", r.operation.name()));
    }
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        for field in ["resourceVersion", "managedFields"] {
            claim.remove_path(&["metadata", field]);
        }
        for field in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
            claim.remove_path(&["status", field]);
        }
        claim.set_default("status", Value::object());
        claim
    };
    if rest(&r.object) == rest(r.old) {
        return Ok(());
    }
    Err(format!("node {node:?} is not allowed to update fields other than status.quantity and status.conditions"))
}

/// Others are the authorizer's business, which does not see what is made, nor each of what is deleted at once.
fn resource_slice(node: &str, r: &Request) -> Result<(), String> {
    let (slice, verb) = match r.operation {
        Operation::Create => (&r.object, "create"),
        Operation::Delete => (r.old, "delete"),
        _ => return Ok(()),
    };
    match slice["spec"]["nodeName"].str() == node {
        true => Ok(()),
        false => Err(format!("can only {verb} ResourceSlice with the same NodeName as the requesting node")),
    }
}

/// A kubelet's certificates bear its own name.
fn certificate(node: &str, r: &Request) -> Result<(), String> {
    let spec = &r.object["spec"];
    if !["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"]
        .contains(&spec["signerName"].str())
    {
        return Ok(());
    }
    let request = STANDARD.decode(spec["request"].str()).map_err(|e| format!("unable to parse csr: {e}"))?;
    let asked = Requested::parse(&request).map_err(|e| format!("unable to parse csr: {e}"))?;
    match asked.common_name == format!("system:node:{node}") {
        true => Ok(()),
        false => Err(format!("can only create a node CSR with CN=system:node:{node}")),
    }
}

fn same_labels(a: &Value, b: &Value) -> bool {
    modified(a, b).is_empty()
}

/// The keys whose values differ.
fn modified<'a>(a: &'a Value, b: &'a Value) -> BTreeSet<&'a str> {
    let differs = |key: &str| a.get(key).map(Value::str) != b.get(key).map(Value::str);
    a.entries().chain(b.entries()).map(|(key, _)| key.as_str()).filter(|key| differs(key)).collect()
}

fn lease(node: &str, r: &Request) -> Result<(), String> {
    if r.namespace != "kube-node-lease" {
        return Err(r#"can only access leases in the "kube-node-lease" system namespace"#.into());
    }
    if name(r) != node {
        return Err("can only access node lease with the same name as the requesting node".into());
    }
    Ok(())
}

fn own_node(node: &str, r: &Request) -> Result<(), String> {
    if name(r) != node {
        return Err(format!("node {node:?} is not allowed to modify node {:?}", name(r)));
    }
    let (new, old) = (&r.object, r.old);
    match r.operation {
        Operation::Create => {
            if !new["spec"]["configSource"].is_null() {
                return Err(format!("node {node:?} is not allowed to create pods with a non-nil configSource"));
            }
            let forbidden = forbidden_labels(modified(&new["metadata"]["labels"], &Value::Null));
            if !forbidden.is_empty() {
                let forbidden = forbidden.join(", ");
                return Err(format!("node {node:?} is not allowed to set the following labels: {forbidden}"));
            }
        }
        Operation::Update => {
            let source = &new["spec"]["configSource"];
            if !source.is_null() && *source != old["spec"]["configSource"] {
                return Err(format!(
                    "node {node:?} is not allowed to update configSource to a new non-nil configSource"
                ));
            }
            let same = |a: &Value, b: &Value| a == b || a.is_empty() && b.is_empty();
            if !same(&new["spec"]["taints"], &old["spec"]["taints"]) {
                return Err(format!("node {node:?} is not allowed to modify taints"));
            }
            if !same(&new["metadata"]["ownerReferences"], &old["metadata"]["ownerReferences"]) {
                return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
            }
            let labels = modified(&new["metadata"]["labels"], &old["metadata"]["labels"]);
            let forbidden = forbidden_labels(labels);
            if !forbidden.is_empty() {
                return Err(format!("is not allowed to modify labels: {}", forbidden.join(", ")));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Labels by which a node could steer privileged workloads to itself.
fn forbidden_labels(labels: BTreeSet<&str>) -> Vec<&str> {
    const KUBELETS: [&str; 11] = [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
    ];
    let within = |prefix: &str, domain: &str| {
        prefix.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let forbidden = |label: &&str| {
        let prefix = label.split_once('/').map_or("", |(prefix, _)| prefix);
        if within(prefix, "node-restriction.kubernetes.io") {
            return true;
        }
        let kubernetes = within(prefix, "kubernetes.io") || within(prefix, "k8s.io");
        let kubelets =
            KUBELETS.contains(label) || within(prefix, "kubelet.kubernetes.io") || within(prefix, "node.kubernetes.io");
        kubernetes && !kubelets
    };
    labels.into_iter().filter(forbidden).collect()
}

#[cfg(test)]
#[path = "node_restriction_tests.rs"]
mod tests;
