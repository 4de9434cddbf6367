//! Certificate signing requests: kubelets' are approved, approved ones signed, old ones removed (upstream
//! `pkg/controller/certificates`).

mod approver;
mod cleaner;
mod signer;

pub(crate) use approver::run as run_approver;
pub(crate) use cleaner::run as run_cleaner;
pub(crate) use signer::run as run_signer;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use canopus_api::{Gvr, Value};
use std::fmt;
use std::sync::Arc;

/// What a request asks for, as far as controllers decide by it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: usize,
    pub addresses: usize,
    pub emails: usize,
    pub uris: usize,
}

/// A certificate authority; controllers have no keys.
pub trait Certify: Send + Sync {
    /// Reads a PKCS #10 request in PEM.
    fn read(&self, request: &[u8]) -> Result<Wish, String>;
    /// The certificate in PEM for a request.
    fn sign(&self, request: &[u8], usages: &[&str], seconds: Option<i64>) -> Result<String, String>;
    /// Whether a certificate has run out.
    fn expired(&self, certificate: &[u8]) -> bool;
}

#[derive(Clone)]
pub struct Certifier(pub Arc<dyn Certify>);

impl fmt::Debug for Certifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certifier")
    }
}

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const LEGACY: &str = "kubernetes.io/legacy-unknown";

fn gvr() -> Gvr {
    Gvr::new("certificates.k8s.io", "v1", "certificatesigningrequests")
}

fn has(request: &Value, condition: &str) -> bool {
    let conditions = request["status"]["conditions"].items();
    conditions.iter().any(|c| c["type"].str() == condition && c["status"].str() != "False")
}

fn bytes(text: &Value) -> Vec<u8> {
    STANDARD.decode(text.str()).unwrap_or_default()
}

fn usages(request: &Value) -> Vec<&str> {
    request["spec"]["usages"].items().iter().map(Value::str).collect()
}

/// Exactly these, key encipherment or not: keys that are not RSA have no use for it.
fn uses(usages: &[&str], purpose: &str) -> bool {
    let mut sorted: Vec<&str> = usages.iter().copied().filter(|u| *u != "key encipherment").collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut wanted = [purpose, "digital signature"];
    wanted.sort_unstable();
    sorted == wanted
}

/// Why this is not what a kubelet asks for as a client.
fn kubelet_client(wish: &Wish, usages: &[&str]) -> Result<(), &'static str> {
    if wish.organizations != ["system:nodes"] {
        return Err("subject organization is not system:nodes");
    }
    for (count, why) in [
        (wish.dns_names, "DNS subjectAltNames are not allowed"),
        (wish.emails, "Email subjectAltNames are not allowed"),
        (wish.addresses, "IP subjectAltNames are not allowed"),
        (wish.uris, "URI subjectAltNames are not allowed"),
    ] {
        if count > 0 {
            return Err(why);
        }
    }
    if !wish.common_name.starts_with("system:node:") {
        return Err("subject common name does not begin with system:node: ");
    }
    match uses(usages, "client auth") {
        true => Ok(()),
        false => Err("usages did not match [client auth digital signature key encipherment]"),
    }
}

/// Why this is not what a kubelet asks for as a server.
fn kubelet_serving(wish: &Wish, usages: &[&str]) -> Result<(), &'static str> {
    if wish.organizations != ["system:nodes"] {
        return Err("subject organization is not system:nodes");
    }
    if wish.dns_names + wish.addresses == 0 {
        return Err("DNS or IP subjectAltName is required");
    }
    if wish.emails > 0 {
        return Err("Email subjectAltNames are not allowed");
    }
    if wish.uris > 0 {
        return Err("URI subjectAltNames are not allowed");
    }
    if !uses(usages, "server auth") {
        return Err("usages did not match [digital signature key encipherment server auth]");
    }
    match wish.common_name.starts_with("system:node:") {
        true => Ok(()),
        false => Err("subject common name does not begin with system:node: "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubelets_ask_for() {
        let node =
            Wish { common_name: "system:node:n".into(), organizations: vec!["system:nodes".into()], ..Wish::default() };
        let client = ["client auth", "digital signature", "key encipherment"];
        assert_eq!(kubelet_client(&node, &client), Ok(()));
        assert_eq!(kubelet_client(&node, &client[..2]), Ok(()));
        assert!(kubelet_client(&node, &["client auth"]).is_err());
        assert!(kubelet_client(&node, &["client auth", "digital signature", "server auth"]).is_err());
        assert!(kubelet_client(&Wish { dns_names: 1, ..node.clone() }, &client).is_err());
        assert!(kubelet_client(&Wish { common_name: "jane".into(), ..node.clone() }, &client).is_err());
        assert!(
            kubelet_client(&Wish { organizations: vec!["system:masters".into()], ..node.clone() }, &client).is_err()
        );
        let server = ["digital signature", "server auth"];
        assert_eq!(kubelet_serving(&Wish { addresses: 1, ..node.clone() }, &server), Ok(()));
        assert_eq!(kubelet_serving(&node, &server), Err("DNS or IP subjectAltName is required"));
        assert!(kubelet_serving(&Wish { dns_names: 1, uris: 1, ..node }, &server).is_err());
    }
}
