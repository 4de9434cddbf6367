//! Certificates, rights and identities, as an administrator handles them with kubectl.

use crate::space::Space;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use canopus_testkit::Cluster;

/// A user gets a certificate: asked for, approved, signed, used; and another is denied.
pub fn certificates(c: &Cluster) {
    let s = Space::new(c, "certificates");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ask = |name: &str| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "testers");
        let key = rcgen::KeyPair::generate().expect("a key");
        let request = params.serialize_request(&key).and_then(|r| r.pem()).expect("a request");
        c.apply(&format!(
            "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\nspec:\n  request: {}\n  signerName: kubernetes.io/kube-apiserver-client\n  expirationSeconds: 3600\n  usages: [client auth]\n",
            STANDARD.encode(request)
        ));
        key
    };
    let key = ask("ann");
    assert!(c.k(&["get", "csr", "ann", "--no-headers"]).contains("Pending"));
    c.k(&["certificate", "approve", "ann"]);
    c.wait_for("csr ann", "{.status.conditions[*].type}", "Approved");
    c.k(&["wait", "--for=jsonpath={.status.certificate}", "csr/ann", "--timeout=30s"]);
    assert!(c.k(&["get", "csr", "ann", "--no-headers"]).contains("Approved,Issued"));
    let certificate = c.k(&["get", "csr", "ann", "-o", "jsonpath={.status.certificate}"]);
    let certificate = STANDARD.decode(certificate.trim()).expect("base64");
    let (certificate_file, key_file) = (dir.path().join("ann.crt"), dir.path().join("ann.key"));
    std::fs::write(&certificate_file, certificate).expect("a file");
    std::fs::write(&key_file, key.serialize_pem()).expect("a file");
    let user = [
        "--client-certificate",
        certificate_file.to_str().expect("a path"),
        "--client-key",
        key_file.to_str().expect("a path"),
    ];
    let who = c.k(&[&["auth", "whoami", "-o", "jsonpath={.status.userInfo}"][..], &user].concat());
    assert!(who.contains("\"ann\"") && who.contains("\"testers\""), "{who}");
    let refused = s.kubectl(&[&["get", "pods"][..], &user].concat());
    assert!(refused.stderr.contains("User \"ann\" cannot list resource \"pods\" in API group \"\" in the namespace"));
    s.k(&["create", "rolebinding", "testers", "--clusterrole=view", "--group=testers"]);
    s.k(&[&["get", "pods"][..], &user].concat());

    ask("bob");
    c.k(&["certificate", "deny", "bob"]);
    assert!(c.k(&["get", "csr", "bob", "--no-headers"]).contains("Denied"));
    assert_eq!(c.k(&["get", "csr", "bob", "-o", "jsonpath={.status.certificate}"]), "");
    c.k(&["delete", "csr", "ann", "bob"]);
}

/// `kubectl auth`: what may I do, who am I, make rights as a file says.
pub fn rights(c: &Cluster) {
    let s = Space::new(c, "rights");
    s.k(&["create", "serviceaccount", "reader"]);
    s.k(&["create", "role", "reader", "--verb=get,list", "--resource=pods,pods/log"]);
    s.k(&["create", "rolebinding", "reader", "--role=reader", "--serviceaccount=rights:reader"]);
    let reader = ["--as", "system:serviceaccount:rights:reader"];
    let may = |args: &[&str]| s.kubectl(&[&["auth", "can-i"], args, &reader].concat()).stdout.trim().to_string();
    for (args, answer) in [
        (&["list", "pods"][..], "yes"),
        (&["get", "pods", "--subresource=log"], "yes"),
        (&["get", "/livez"], "yes"),
        (&["get", "/metrics"], "no"),
        (&["delete", "pods"], "no"),
    ] {
        assert_eq!(may(args).lines().last(), Some(answer), "{args:?}");
    }
    let list = may(&["--list"]);
    for rule in ["pods/log", "[get list]", "selfsubjectaccessreviews.authorization.k8s.io", "[/healthz]"] {
        assert!(list.contains(rule), "{rule} in\n{list}");
    }
    let token = s.k(&["create", "token", "reader"]);
    let mut command = c.command(canopus_testkit::tool("kubectl"));
    // No client certificate: the token says who it is.
    let server = c.k(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    command.args(["--kubeconfig", "/dev/null", "--server", server.trim(), "--insecure-skip-tls-verify"]);
    command.args(["--token", token.trim(), "auth", "whoami", "-o", "yaml"]);
    let who = canopus_testkit::run(command, "");
    assert!(who.stdout.contains("username: system:serviceaccount:rights:reader"), "{who:?}");
    assert!(who.stdout.contains("- system:serviceaccounts:rights"), "{who:?}");

    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: reader, namespace: rights}\nrules:\n- {apiGroups: [''], resources: [pods], verbs: [watch]}\n";
    let reconciled = s.kubectl_with(&["auth", "reconcile", "-f", "-"], role);
    assert!(reconciled.stdout.contains("role.rbac.authorization.k8s.io/reader reconciled"), "{reconciled:?}");
    assert_eq!(may(&["watch", "pods"]), "yes");
    assert_eq!(may(&["list", "pods"]), "yes", "nothing is taken away");
    s.kubectl_with(&["auth", "reconcile", "--remove-extra-permissions", "-f", "-"], role);
    assert_eq!(may(&["list", "pods"]), "no");
}
