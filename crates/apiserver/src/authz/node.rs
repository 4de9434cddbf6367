//! What a node may do: read what pods bound to it name, and speak for itself (upstream `plugin/pkg/auth/authorizer/node`).

use super::placed::PlacedPods;
use super::pod_references::volume_secrets;
use super::rule::Rule;
use super::{Attributes, Authorizer, Decision, Rules};
use crate::server::Server;
use crate::user::{NODES, User};
use canopus_api::{Result, View};
use std::sync::Arc;

pub struct NodeAuthorizer {
    pods: PlacedPods,
    /// None while the server does not serve them.
    volumes: Option<Arc<dyn View>>,
    attachments: Option<Arc<dyn View>>,
    slices: Option<Arc<dyn View>>,
    certificate_requests: Option<Arc<dyn View>>,
    rules: Vec<Rule>,
}

/// The node a user is: Err for one that claims to be a node without saying which.
fn identify(user: &User) -> Option<std::result::Result<&str, ()>> {
    if !user.in_group(NODES) || !user.name.starts_with("system:node:") {
        return None;
    }
    Some(user.node().ok_or(()))
}

impl NodeAuthorizer {
    pub fn start(server: &Server) -> Result<NodeAuthorizer> {
        let of = |group, version, plural| server.cache(group, version, plural).ok().map(|cache| cache as Arc<dyn View>);
        let optional = |group, plural| of(group, "v1", plural);
        let features = &server.settings.features;
        let requests = || of("certificates.k8s.io", "v1beta1", "podcertificaterequests");
        Ok(NodeAuthorizer {
            pods: PlacedPods::of(server.cache("", "v1", "pods")?),
            volumes: optional("", "persistentvolumes"),
            attachments: optional("storage.k8s.io", "volumeattachments"),
            slices: optional("resource.k8s.io", "resourceslices"),
            certificate_requests: features.enabled("PodCertificateRequest").then(requests).flatten(),
            rules: node_rules(features.enabled("ClusterTrustBundle")),
        })
    }

    fn related(&self, node: &str, a: &Attributes) -> Decision {
        if a.name.is_empty() {
            return no("No Object name found");
        }
        let named = |kind: &str| {
            self.pods.any(node, a.namespace, |_, r| match kind {
                "secrets" => r.secrets.contains(a.name),
                "configmaps" => r.config_maps.contains(a.name),
                "persistentvolumeclaims" => r.claims.contains(a.name),
                "resourceclaims" => r.resource_claims.contains(a.name),
                "serviceaccounts" => r.service_account == a.name,
                _ => false,
            })
        };
        let found = match a.resource {
            "pods" => self.pods.has(node, a.namespace, a.name),
            "persistentvolumes" => self.uses_volume(node, a.name),
            "volumeattachments" => Ok(names_node(self.attachments.as_ref(), a, node)),
            "resourceslices" => Ok(names_node(self.slices.as_ref(), a, node)),
            "podcertificaterequests" => Ok(names_node(self.certificate_requests.as_ref(), a, node)),
            "secrets" => named("secrets").and_then(|yes| Ok(yes || self.uses_volume_secret(node, a)?)),
            kind => named(kind),
        };
        match found {
            Ok(true) => yes(),
            _ => no(&format!("no relationship found between node '{node}' and this object")),
        }
    }

    /// node ← pod ← claim ← volume.
    fn uses_volume(&self, node: &str, name: &str) -> Result<bool> {
        let Some(volume) = self.volumes.as_ref().and_then(|v| v.get("", name)) else { return Ok(false) };
        let volume = volume.value();
        let claim = &volume["spec"]["claimRef"];
        let (namespace, name) = (claim["namespace"].str(), claim["name"].str());
        if name.is_empty() {
            return Ok(false);
        }
        self.pods.any(node, namespace, |_, r| r.claims.contains(name))
    }

    /// node ← pod ← claim ← volume ← secret.
    fn uses_volume_secret(&self, node: &str, a: &Attributes) -> Result<bool> {
        for volume in self.volumes.iter().flat_map(|v| v.list("")) {
            let names = volume_secrets(&volume.value()).any(|found| found == (a.namespace, a.name));
            if names && self.uses_volume(node, volume.name())? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn read_named(&self, node: &str, a: &Attributes) -> Decision {
        match a.verb {
            "get" | "list" | "watch" if !a.subresource.is_empty() => no("cannot read subresource"),
            "get" | "list" | "watch" if a.namespace.is_empty() => no("can only read namespaced object of this type"),
            "get" | "list" | "watch" => self.related(node, a),
            _ => no("can only read resources of this type"),
        }
    }

    fn get(&self, node: &str, a: &Attributes) -> Decision {
        match (a.verb, a.subresource) {
            ("get", "") => self.related(node, a),
            ("get", _) => no("cannot get subresource"),
            _ => no("can only get individual resources of this type"),
        }
    }

    fn claim_status(&self, node: &str, a: &Attributes) -> Decision {
        match a.verb {
            "update" | "patch" => self.related(node, a),
            _ => no("can only get/update/patch this type"),
        }
    }

    fn service_account(&self, node: &str, a: &Attributes) -> Decision {
        match (a.verb, a.subresource) {
            ("get", "") => self.read_named(node, a),
            ("create", _) if a.name.is_empty() => no("can only create tokens for individual service accounts"),
            ("create", "token") => self.related(node, a),
            ("create", _) => no("can only create token subresource of serviceaccount"),
            _ => no("can only create tokens for individual service accounts"),
        }
    }

    fn pod(&self, node: &str, a: &Attributes) -> Decision {
        match (a.subresource, a.verb) {
            ("", "get") => self.related(node, a),
            ("", "list" | "watch") if a.selects("spec.nodeName", node) => yes(),
            ("", "list" | "watch") if !a.name.is_empty() => self.related(node, a),
            ("", "list" | "watch") => no("can only list/watch pods with spec.nodeName field selector"),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => yes(),
            _ => no(""),
        }
    }

    fn resource_slice(&self, node: &str, a: &Attributes) -> Decision {
        match a.verb {
            _ if !a.subresource.is_empty() => no("cannot authorize ResourceSlice subresources"),
            "create" => yes(),
            "get" | "update" | "patch" | "delete" => self.related(node, a),
            "watch" | "list" | "deletecollection" if a.selects("spec.nodeName", node) => yes(),
            "watch" | "list" | "deletecollection" => {
                no("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => no(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    /// Only while there are such requests at all.
    fn certificate_request(&self, node: &str, a: &Attributes) -> Decision {
        if self.certificate_requests.is_none() {
            return no("");
        }
        match a.verb {
            _ if !a.subresource.is_empty() => {
                no("nodes may not access the status subresource of PodCertificateRequests")
            }
            "create" => yes(),
            "get" => self.related(node, a),
            "list" | "watch" if a.selects("spec.nodeName", node) => yes(),
            "list" | "watch" => no("can only list/watch podcertificaterequests with nodeName field selector"),
            verb => no(&format!("nodes may not {verb} podcertificaterequests")),
        }
    }
}

/// Whether what is asked for says that it is about the node.
fn names_node(view: Option<&Arc<dyn View>>, a: &Attributes, node: &str) -> bool {
    let found = view.and_then(|v| v.get(a.namespace, a.name));
    found.is_some_and(|object| object.value()["spec"]["nodeName"].str() == node)
}

fn yes() -> Decision {
    Decision::Allow(String::new())
}

fn no(why: &str) -> Decision {
    Decision::NoOpinion(why.into())
}

fn lease(node: &str, a: &Attributes) -> Decision {
    match a.verb {
        "get" | "create" | "update" | "patch" | "delete" => {}
        _ => return no("can only get, create, update, patch, or delete a node lease"),
    }
    if a.namespace != "kube-node-lease" {
        return no(r#"can only access leases in the "kube-node-lease" system namespace"#);
    }
    // Nobody knows the name of what is being created yet; admission checks that (NodeRestriction).
    if a.verb != "create" && a.name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    yes()
}

fn csi_node(node: &str, a: &Attributes) -> Decision {
    match a.verb {
        "get" | "create" | "update" | "patch" | "delete" => {}
        _ => return no("can only get, create, update, patch, or delete a CSINode"),
    }
    if !a.subresource.is_empty() {
        return no("cannot authorize CSINode subresources");
    }
    if a.verb != "create" && a.name != node {
        return no("can only access CSINode with the same name as the requesting node");
    }
    yes()
}

fn own_node(node: &str, a: &Attributes) -> Decision {
    match (a.subresource, a.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => yes(),
        ("", "get" | "list" | "watch") if a.name == node => yes(),
        ("", "get" | "list" | "watch") if a.name.is_empty() => {
            no(&format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            no(&format!("node '{node}' cannot read '{}', only its own Node object", a.name))
        }
        _ => no(""),
    }
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, a: &Attributes) -> Decision {
        let node = match identify(a.user) {
            None => return no(""),
            Some(Err(())) => return no(&format!("unknown node for user {:?}", a.user.name)),
            Some(Ok(node)) => node,
        };
        if a.is_resource {
            match (a.group, a.resource) {
                ("", "secrets" | "configmaps") => return self.read_named(node, a),
                ("", "persistentvolumeclaims") if a.subresource == "status" => return self.claim_status(node, a),
                ("", "persistentvolumeclaims" | "persistentvolumes")
                | ("resource.k8s.io", "resourceclaims")
                | ("storage.k8s.io", "volumeattachments") => return self.get(node, a),
                ("", "serviceaccounts") => return self.service_account(node, a),
                ("coordination.k8s.io", "leases") => return lease(node, a),
                ("storage.k8s.io", "csinodes") => return csi_node(node, a),
                ("", "nodes") => return own_node(node, a),
                ("", "pods") => return self.pod(node, a),
                ("certificates.k8s.io", "podcertificaterequests") => return self.certificate_request(node, a),
                ("resource.k8s.io", "resourceslices") => return self.resource_slice(node, a),
                _ => {}
            }
        }
        if self.rules.iter().any(|rule| rule.allows(a)) { yes() } else { no("") }
    }

    fn rules(&self, user: &User, _: &str) -> Rules {
        if !matches!(identify(user), Some(Ok(_))) {
            return Rules::default();
        }
        // What a node may do depends on what its pods name.
        let errors = vec!["node authorizer does not support user rule resolution".into()];
        Rules { errors, incomplete: true, ..Rules::default() }
    }
}

/// What every node may do alike (upstream `bootstrappolicy.NodeRules`), but for what is decided above.
fn node_rules(trust_bundles: bool) -> Vec<Rule> {
    let read: &[&str] = &["get", "list", "watch"];
    let mut rules = vec![
        Rule::new(&["create"], &["authentication.k8s.io"], &["tokenreviews"]),
        Rule::new(&["create"], &["authorization.k8s.io"], &["subjectaccessreviews", "localsubjectaccessreviews"]),
        Rule::new(read, &[""], &["services"]),
        Rule::new(&["create", "update", "patch"], &["", "events.k8s.io"], &["events"]),
        Rule::new(&["get"], &[""], &["endpoints"]),
        Rule::new(&["create", "get", "list", "watch"], &["certificates.k8s.io"], &["certificatesigningrequests"]),
        Rule::new(read, &["storage.k8s.io"], &["csidrivers"]),
        Rule::new(read, &["node.k8s.io"], &["runtimeclasses"]),
    ];
    if trust_bundles {
        rules.push(Rule::new(read, &["certificates.k8s.io"], &["clustertrustbundles"]));
    }
    rules
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
