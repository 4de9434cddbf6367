//! A cluster whose objects are in an etcd, over TLS, and whose gatekeepers files describe.

use crate::ready_cluster_of;
use canopus_testkit::{Cluster, Host, eventually};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

/// Certificates of an etcd and of its client, in files.
struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    fn make(dir: &Path) -> Certificates {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let ca = params.self_signed(&key).expect("a certificate");
        let issuer = Issuer::new(params, key);
        std::fs::write(dir.join("ca.crt"), ca.pem()).expect("a file");
        for name in ["server", "client"] {
            let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).expect("names");
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate().expect("a key");
            let certificate = params.signed_by(&key, &issuer).expect("a certificate");
            std::fs::write(dir.join(format!("{name}.crt")), certificate.pem()).expect("a file");
            std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).expect("a file");
        }
        Certificates { dir: dir.into() }
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }
}

/// Ends with this value.
struct Etcd(Child);

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const CLIENT: &str = "https://127.0.0.1:2379";

fn etcd(host: &Host, data: &Path, certificates: &Certificates) -> Etcd {
    let peer = "http://127.0.0.1:2380";
    let mut command = host.command("etcd");
    command.arg("--data-dir").arg(data).args(["--listen-client-urls", CLIENT, "--advertise-client-urls", CLIENT]);
    command.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
    command.args(["--initial-cluster", &format!("default={peer}"), "--log-level", "error", "--client-cert-auth"]);
    command.args(["--cert-file", &certificates.file("server.crt"), "--key-file", &certificates.file("server.key")]);
    command.args(["--trusted-ca-file", &certificates.file("ca.crt")]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Etcd(child.expect("etcd can be started: `make setup` installs it"))
}

pub fn in_etcd(binary: &Path) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let certificates = Certificates::make(dir.path());
    let mut cluster = Cluster::new(binary);
    let mut kept = etcd(cluster.host(), &dir.path().join("etcd"), &certificates);
    let authorization = dir.path().join("authorization.yaml");
    let authorizers = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n- {type: Node, name: node}\n- {type: RBAC, name: rbac}\n";
    std::fs::write(&authorization, authorizers).expect("a file");
    cluster.arguments = [
        ("--etcd-servers", CLIENT.to_string()),
        ("--etcd-cafile", certificates.file("ca.crt")),
        ("--etcd-certfile", certificates.file("client.crt")),
        ("--etcd-keyfile", certificates.file("client.key")),
        ("--authorization-config", authorization.to_string_lossy().into_owned()),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_string(), value])
    .collect();
    let mut c = ready_cluster_of(cluster);
    assert!(!c.data_dir().join("store.db").exists(), "nothing is in the data directory");
    c.apply(&crate::web("web", 2, "v1"));
    c.k(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    c.k(&["create", "configmap", "kept", "--from-literal=a=1"]);
    // The server, then etcd, die and come back.
    c.kill();
    c.up();
    assert_eq!(c.k(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]), "1");
    drop(kept);
    kept = etcd(c.host(), &dir.path().join("etcd"), &certificates);
    eventually(Duration::from_secs(30), || {
        let out = c.kubectl(&["create", "configmap", "after", "--from-literal=a=2"]);
        if out.code == 0 || out.stderr.contains("already exists") { Ok(()) } else { Err(format!("{out:?}")) }
    });
    c.k(&["scale", "deployment/web", "--replicas=3"]);
    c.k(&["wait", "--for=jsonpath={.status.readyReplicas}=3", "deployment/web", "--timeout=60s"]);

    // A file that changes changes what is authorized; one that makes no sense does not.
    let may = || c.kubectl(&["auth", "can-i", "delete", "nodes", "--as", "joe"]).stdout.trim().to_string();
    assert_eq!(may(), "no");
    std::fs::write(&authorization, "apiVersion: x").expect("a file");
    std::fs::write(&authorization, format!("{authorizers}- {{type: AlwaysAllow, name: alwaysallow}}\n"))
        .expect("a file");
    eventually(Duration::from_secs(20), || if may() == "yes" { Ok(()) } else { Err(c.log_tail()) });
    drop(kept);
}
