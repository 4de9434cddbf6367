//! A cluster whose objects are in an etcd, over TLS, and whose gatekeepers files describe: who knows users and who decides
//! what they may is somewhere else, too.

use crate::ready_cluster_of;
use canopus_api::{json, value};
use canopus_apiserver::authn::jwt::SigningKey;
use canopus_testkit::{Cluster, Host, Output, eventually, run, tool};
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
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An issuer of tokens, somebody who knows others, and somebody who decides, in one process.
const GATEKEEPERS: &str = r#"
import http.server, json, ssl, sys
dir, url = sys.argv[1], "https://127.0.0.1:8443"
class Handler(http.server.BaseHTTPRequestHandler):
    def say(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/.well-known/openid-configuration":
            self.say({"issuer": url, "jwks_uri": url + "/keys"})
        else:
            self.say(json.load(open(dir + "/keys.json")))
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if review["kind"] == "TokenReview":
            known = review["spec"]["token"] == "opaque"
            user = {"username": "webhook-user", "groups": ["webhooks"]} if known else {}
            review["status"] = {"authenticated": known, "user": user}
        else:
            attributes = review["spec"].get("resourceAttributes", {})
            review["status"] = {"allowed": attributes.get("resource") == "configmaps", "reason": "as it pleases"}
        self.say(review)
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(dir + "/server.crt", dir + "/server.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

fn gatekeepers(host: &Host, certificates: &Certificates) -> Running {
    let mut command = host.command("python3");
    command.args(["-c", GATEKEEPERS]).arg(&certificates.dir);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn();
    Running(child.expect("python3 can be started"))
}

/// The files that name them; the flags that name the files.
fn files(certificates: &Certificates) -> Vec<String> {
    let write = |name: &str, text: String| {
        std::fs::write(certificates.dir.join(name), text).expect("a file");
        certificates.file(name)
    };
    let ca = std::fs::read_to_string(certificates.file("ca.crt")).expect("a file");
    let indented: String = ca.lines().map(|line| format!("      {line}\n")).collect();
    let users = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    url: https://127.0.0.1:8443\n    audiences: [canopus]\n    certificateAuthority: |\n{indented}  claimMappings:\n    username: {{expression: \"'oidc:' + claims.sub\"}}\n    groups: {{claim: groups, prefix: 'oidc:'}}\n"
    );
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: w\ncontexts: [{{name: w, context: {{cluster: w}}}}]\nclusters: [{{name: w, cluster: {{server: 'https://127.0.0.1:8443/', certificate-authority: {}}}}}]\n",
        certificates.file("ca.crt")
    );
    let (users, kubeconfig) = (write("users.yaml", users), write("webhook.kubeconfig", kubeconfig));
    let tokens = "--authentication-token-webhook-config-file";
    let flags = [("--authentication-config", users), (tokens, kubeconfig)];
    flags.into_iter().flat_map(|(flag, value)| [flag.to_string(), value]).collect()
}

/// Node, RBAC, and a webhook that is asked about users of somebody else.
fn authorizers(certificates: &Certificates, more: &str) -> String {
    let kubeconfig = certificates.file("webhook.kubeconfig");
    format!(
        "apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- {{type: Node, name: node}}
- {{type: RBAC, name: rbac}}
- type: Webhook
  name: elsewhere
  webhook:
    timeout: 3s
    failurePolicy: NoOpinion
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    connectionInfo: {{type: KubeConfigFile, kubeConfigFile: '{kubeconfig}'}}
    matchConditions: [{{expression: \"'oidc:testers' in request.groups || 'webhooks' in request.groups\"}}]
{more}"
    )
}

/// kubectl as whoever a token names.
fn as_token(c: &Cluster, token: &str, args: &[&str]) -> Output {
    let mut command = c.command(tool("kubectl"));
    let server = c.k(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    command.args(["--kubeconfig", "/dev/null", "--server", server.trim(), "--insecure-skip-tls-verify"]);
    command.args(["--token", token]).args(args);
    run(command, "")
}

/// Users of somebody else come in, and somebody else decides what they may.
fn of_somebody_else(c: &Cluster, certificates: &Certificates) {
    let keys = ["one", "two"]
        .map(|_| SigningKey::from_pem(&KeyPair::generate().expect("a key").serialize_pem()).expect("a key that signs"));
    let publish = |key: &SigningKey| {
        let document = value!({"keys": [key.public().jwk()]});
        std::fs::write(certificates.dir.join("keys.json"), json::to_vec(&document)).expect("a file");
    };
    publish(&keys[0]);
    let token = |key: &SigningKey, audience: &str| {
        let claims = value!({
            "iss": "https://127.0.0.1:8443", "aud": audience, "sub": "ann", "groups": ["testers"], "exp": 4_000_000_000_i64,
        });
        key.sign(&claims).expect("a token")
    };
    let good = token(&keys[0], "canopus");
    let who = as_token(c, &good, &["auth", "whoami", "-o", "jsonpath={.status.userInfo}"]);
    assert!(who.stdout.contains("\"oidc:ann\"") && who.stdout.contains("\"oidc:testers\""), "{who:?}");
    for bad in [token(&keys[0], "other"), token(&keys[1], "canopus"), "nonsense".into()] {
        let refused = as_token(c, &bad, &["get", "configmaps"]);
        assert!(refused.stderr.contains("must be logged in") || refused.stderr.contains("Unauthorized"), "{refused:?}");
    }
    publish(&keys[1]);
    for token in [token(&keys[1], "canopus"), "opaque".into()] {
        let may = as_token(c, &token, &["get", "configmaps"]);
        assert!(may.stdout.contains("kube-root-ca.crt"), "{may:?}");
        let refused = as_token(c, &token, &["get", "secrets"]);
        assert!(
            refused.stderr.contains("cannot list resource \"secrets\"") && refused.stderr.contains("as it pleases")
        );
    }
}

const CLIENT: &str = "https://127.0.0.1:2379";

fn etcd(host: &Host, data: &Path, certificates: &Certificates) -> Running {
    let peer = "http://127.0.0.1:2380";
    let mut command = host.command("etcd");
    command.arg("--data-dir").arg(data).args(["--listen-client-urls", CLIENT, "--advertise-client-urls", CLIENT]);
    command.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
    command.args(["--initial-cluster", &format!("default={peer}"), "--log-level", "error", "--client-cert-auth"]);
    command.args(["--cert-file", &certificates.file("server.crt"), "--key-file", &certificates.file("server.key")]);
    command.args(["--trusted-ca-file", &certificates.file("ca.crt")]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Running(child.expect("etcd can be started: `make setup` installs it"))
}

pub fn in_etcd(binary: &Path) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let certificates = Certificates::make(dir.path());
    let mut cluster = Cluster::new(binary);
    let mut kept = etcd(cluster.host(), &dir.path().join("etcd"), &certificates);
    let authorization = dir.path().join("authorization.yaml");
    let others = gatekeepers(cluster.host(), &certificates);
    let flags = files(&certificates);
    std::fs::write(&authorization, authorizers(&certificates, "")).expect("a file");
    cluster.arguments = [
        ("--etcd-servers", CLIENT.to_string()),
        ("--etcd-cafile", certificates.file("ca.crt")),
        ("--etcd-certfile", certificates.file("client.crt")),
        ("--etcd-keyfile", certificates.file("client.key")),
        ("--authorization-config", authorization.to_string_lossy().into_owned()),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_string(), value])
    .chain(flags)
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

    of_somebody_else(&c, &certificates);

    // A file that changes changes what is authorized; one that makes no sense does not.
    let may = || c.kubectl(&["auth", "can-i", "delete", "nodes", "--as", "joe"]).stdout.trim().to_string();
    assert_eq!(may(), "no");
    std::fs::write(&authorization, "apiVersion: x").expect("a file");
    std::fs::write(&authorization, authorizers(&certificates, "- {type: AlwaysAllow, name: alwaysallow}\n"))
        .expect("a file");
    eventually(Duration::from_secs(20), || if may() == "yes" { Ok(()) } else { Err(c.log_tail()) });
    let metrics = c.k(&["get", "--raw", "/metrics"]);
    let reloaded = |line: &&str| line.starts_with("apiserver_authorization_config_controller_automatic_reloads_total{");
    assert!(metrics.lines().filter(reloaded).any(|line| line.contains("status=\"success\"")), "{metrics}");
    assert!(
        metrics.contains(
            "apiserver_authorization_decisions_total{decision=\"allowed\",name=\"elsewhere\",type=\"Webhook\"}"
        )
    );
    drop((kept, others));
}
