//! CertificateApproval, CertificateSigning, ClusterTrustBundleAttest and CertificateSubjectRestriction: who may approve, sign
//! and attest for which signer, and what may not be asked for.

use super::rbac_escalation::same_but_for_collection;
use super::{Operation, Plugin, Request};
use crate::authz::{Attributes, Decision};
use crate::csr::Requested;
use crate::server::Server;
use crate::user::{MASTERS, User};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use canopus_api::{Errors, Field, Result, Status};
use std::sync::{Arc, Weak};

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "certificatesigningrequests";
const CLIENTS: &str = "kubernetes.io/kube-apiserver-client";

/// Whether `user` may `approve`, `attest` or `sign` for a signer, by its name or by all of its domain.
async fn authorized(server: &Weak<Server>, user: &User, verb: &str, signer: &str) -> Result<bool> {
    let server = server.upgrade().ok_or_else(|| Status::unavailable("the server is stopping"))?;
    let all = format!("{}/*", signer.split('/').next().unwrap_or(""));
    for name in [signer, &all] {
        let attributes = Attributes {
            is_resource: true,
            group: GROUP,
            version: "*",
            resource: "signers",
            name,
            ..Attributes::path(user, verb, "")
        };
        if matches!(server.decide(&attributes).await?, Decision::Allow(_)) {
            return Ok(true);
        }
    }
    Ok(false)
}

pub struct CertificateApproval(pub Weak<Server>);

#[async_trait]
impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, request: &Request) -> bool {
        request.operation == Operation::Update && request.is(GROUP, PLURAL, "approval")
    }

    async fn validate(&self, request: &Request<'_>) -> Result<()> {
        let signer = request.old["spec"]["signerName"].str();
        match authorized(&self.0, request.user, "approve", signer).await? {
            true => Ok(()),
            false => {
                Err(request.forbidden(&format!("user not permitted to approve requests with signerName {signer:?}")))
            }
        }
    }
}

pub struct CertificateSigning(pub Weak<Server>);

#[async_trait]
impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, request: &Request) -> bool {
        request.operation == Operation::Update && request.is(GROUP, PLURAL, "status")
    }

    async fn validate(&self, request: &Request<'_>) -> Result<()> {
        let (new, old) = (&request.object["status"], &request.old["status"]);
        if new["certificate"] == old["certificate"] && new["conditions"] == old["conditions"] {
            return Ok(());
        }
        let signer = request.old["spec"]["signerName"].str();
        match authorized(&self.0, request.user, "sign", signer).await? {
            true => Ok(()),
            false => Err(request.forbidden(&format!("user not permitted to sign requests with signerName {signer:?}"))),
        }
    }
}

pub struct CertificateSubjectRestriction;

#[async_trait]
impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, request: &Request) -> bool {
        request.operation == Operation::Create && request.is(GROUP, PLURAL, "")
    }

    async fn validate(&self, request: &Request<'_>) -> Result<()> {
        let spec = &request.object["spec"];
        if spec["signerName"].str() != CLIENTS {
            return Ok(());
        }
        let failed = |why: String| request.forbidden(&format!("failed to parse CSR: {why}"));
        let pem = STANDARD.decode(spec["request"].str()).map_err(|e| failed(e.to_string()))?;
        if Requested::parse(&pem).map_err(failed)?.organizations.iter().any(|o| o == MASTERS) {
            return Err(request.forbidden(&format!("use of {CLIENTS} signer with system:masters group is not allowed")));
        }
        Ok(())
    }
}

/// Who may say what is to be trusted in a signer's name.
pub struct ClusterTrustBundleAttest(pub Weak<Server>);

#[async_trait]
impl Plugin for ClusterTrustBundleAttest {
    fn name(&self) -> &'static str {
        "ClusterTrustBundleAttest"
    }

    fn handles(&self, request: &Request) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update)
            && request.is(GROUP, "clustertrustbundles", "")
            && !request.object["spec"]["signerName"].str().is_empty()
    }

    async fn validate(&self, request: &Request<'_>) -> Result<()> {
        let (new, old) = (&request.object, request.old);
        if request.operation == Operation::Update
            && new["spec"] == old["spec"]
            && same_but_for_collection(&new["metadata"], &old["metadata"])
        {
            return Ok(());
        }
        let signer = new["spec"]["signerName"].str();
        match authorized(&self.0, request.user, "attest", signer).await? {
            true => Ok(()),
            false => Err(request.forbidden(&format!("user not permitted to attest for signerName {signer:?}"))),
        }
    }
}

/// Who may issue or deny what a node asks for a pod. Upstream has it in the storage, as a matter of the field.
pub struct PodCertificateSign(pub Weak<Server>);

#[async_trait]
impl Plugin for PodCertificateSign {
    fn name(&self) -> &'static str {
        "PodCertificateSign"
    }

    fn handles(&self, request: &Request) -> bool {
        request.operation == Operation::Update && request.is(GROUP, "podcertificaterequests", "status")
    }

    async fn validate(&self, request: &Request<'_>) -> Result<()> {
        let signer = request.old["spec"]["signerName"].str();
        if request.object["status"] == request.old["status"]
            || authorized(&self.0, request.user, "sign", signer).await?
        {
            return Ok(());
        }
        let (root, mut errors) = (Field::root(&request.object), Errors::new());
        let why = format!("User {:?} is not permitted to \"sign\" for signer {signer:?}", request.user.name);
        errors.forbidden(&root.at("spec").at("signerName"), why);
        Err(Status::invalid(&request.resource.gvk(), request.object["metadata"]["name"].str(), errors))
    }
}

/// In upstream's order.
pub fn plugins(server: &Arc<Server>) -> [Box<dyn Plugin>; 4] {
    [
        Box::new(CertificateApproval(Arc::downgrade(server))),
        Box::new(CertificateSigning(Arc::downgrade(server))),
        Box::new(ClusterTrustBundleAttest(Arc::downgrade(server))),
        Box::new(CertificateSubjectRestriction),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::server;
    use canopus_api::{Gvr, Target, Value, value};
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn csr(organization: &str) -> Value {
        let mut params = CertificateParams::default();
        params.distinguished_name = Default::default();
        params.distinguished_name.push(DnType::CommonName, "jane");
        params.distinguished_name.push(DnType::OrganizationName, organization);
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        value!({"metadata": {"name": "c"}, "spec": {"signerName": CLIENTS, "usages": ["client auth"], "request": STANDARD.encode(pem)}})
    }

    #[tokio::test]
    async fn who_approves_and_who_signs() {
        let server = server().await;
        let options = Default::default();
        let target = Target::new(&Gvr::new(GROUP, "v1", PLURAL), "", "c");
        let admin = User::new("admin", &[MASTERS]);
        for plural in ["clusterroles", "clusterrolebindings"] {
            let policy = server.cache("rbac.authorization.k8s.io", "v1", plural).unwrap();
            policy.reached(server.store.revision()).await.unwrap();
        }
        let refused = server.create(&admin, &target, csr(MASTERS), &options).await.unwrap_err();
        assert!(refused.message.ends_with("signer with system:masters group is not allowed"), "{refused}");
        let made = server.create(&admin, &target, csr("dev"), &options).await.unwrap().object;
        let mut approved = (*made.value()).clone();
        let condition = value!({"type": "Approved", "status": "True", "reason": "Ok", "message": "ok"});
        approved.set_path(&["status", "conditions"], value!([condition.clone()]));
        let approval = target.clone().subresource("approval");
        let jane = User::new("jane", &[]);
        let refused = server.update(&jane, &approval, approved.clone(), &options).await.unwrap_err();
        let why = format!("user not permitted to approve requests with signerName {CLIENTS:?}");
        assert!(refused.code == 403 && refused.message.ends_with(&why), "{refused}");
        let account = "system:serviceaccount:kube-system:certificate-controller";
        let refused = server.update(&User::new(account, &[]), &approval, approved.clone(), &options).await;
        assert_eq!(refused.unwrap_err().code, 403, "it approves for kubelets only");
        let done = server.update(&admin, &approval, approved, &options).await.unwrap().object;
        let mut signed = (*done.value()).clone();
        let failure = value!({"type": "Failed", "status": "True", "reason": "No", "message": "no"});
        signed.set_path(&["status", "conditions"], value!([condition, failure]));
        let status = target.subresource("status");
        let refused = server.update(&jane, &status, signed.clone(), &options).await.unwrap_err();
        assert!(refused.message.contains("user not permitted to sign requests"), "{refused}");
        server.update(&User::new(account, &[]), &status, signed, &options).await.unwrap();
    }

    #[tokio::test]
    async fn who_signs_for_pods() {
        let settings = crate::Settings {
            runtime_config: crate::runtime_config::RuntimeConfig::parse(["api/beta=true"]).unwrap(),
            features: canopus_api::gates::Gates::parse("PodCertificateRequest=true").unwrap(),
            ..Default::default()
        };
        let server = crate::testing::server_with(settings).await;
        let (admin, options) = (User::new("admin", &[MASTERS]), Default::default());
        let target = Target::new(&Gvr::new(GROUP, "v1beta1", "podcertificaterequests"), "default", "r");
        let request = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
        let asked = value!({"metadata": {"name": "r"}, "spec": {"signerName": "a.b/c", "podName": "p", "podUID": "u", "nodeName": "n",
            "nodeUID": "n", "serviceAccountName": "s", "serviceAccountUID": "s", "stubPKCS10Request": STANDARD.encode(request.der())}});
        let made = server.create(&admin, &target, asked, &options).await.unwrap().object;
        assert_eq!(made.value()["spec"]["maxExpirationSeconds"].int(), 86400);
        let mut denied = (*made.value()).clone();
        let condition =
            value!({"type": "Denied", "status": "True", "reason": "No", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        denied.set_path(&["status", "conditions"], value!([condition]));
        let status = target.subresource("status");
        let refused = server.update(&User::new("jane", &[]), &status, denied.clone(), &options).await.unwrap_err();
        let why = r#"spec.signerName: Forbidden: User "jane" is not permitted to "sign" for signer "a.b/c""#;
        assert!(refused.code == 422 && refused.message.ends_with(why), "{refused}");
        server.update(&admin, &status, denied, &options).await.unwrap();
    }
}
