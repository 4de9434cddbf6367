//! What is stored is written again: with another key, in another version.

use canopus_testkit::{Cluster, eventually};
use std::path::Path;
use std::time::Duration;

const OLD: &str = "{name: old, secret: YWFhYWFhYWFhYWFhYWFhYQ==}";
const NEW: &str = "{name: new, secret: YmJiYmJiYmJiYmJiYmJiYg==}";

fn configuration(keys: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: \
         [{{resources: [secrets], providers: [aescbc: {{keys: [{keys}]}}]}}]"
    )
}

/// Definition of foos.a.b, of which the last version is the stored one.
fn definition(versions: &[&str]) -> String {
    let schema = "{openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}";
    let version = |name: &&str| {
        let stored = Some(name) == versions.last();
        format!("{{name: {name}, served: true, storage: {stored}, schema: {schema}}}")
    };
    format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: foos.a.b}}\nspec: \
         {{group: a.b, scope: Namespaced, names: {{plural: foos, kind: Foo}}, versions: [{}]}}",
        versions.iter().map(version).collect::<Vec<_>>().join(", ")
    )
}

fn migrate(c: &Cluster, name: &str, resource: &str) {
    c.apply(&format!(
        "apiVersion: storagemigration.k8s.io/v1beta1\nkind: StorageVersionMigration\nmetadata: {{name: {name}}}\n\
         spec: {{resource: {resource}}}"
    ));
    let what = format!("storageversionmigration {name}");
    c.wait_for(&what, "{.status.conditions[?(@.type==\"Running\")].reason}", "MigrationCompleted");
    c.wait_for(&what, "{.status.conditions[?(@.type==\"Succeeded\")].status}", "True");
}

/// Keys take turns, and a version goes; meanwhile policies of ABAC say who may look.
pub fn take_turns(binary: &Path) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_string_lossy().into_owned()
    };
    let keys = file("keys.yaml", &configuration(OLD));
    let policy = r#"{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy",
        "spec": {"user": "bob", "namespace": "*", "resource": "secrets", "readonly": true}}"#;
    let policies = file("policies.jsonl", &policy.replace('\n', " "));
    let mut c = Cluster::new(binary);
    c.arguments = [
        "--encryption-provider-config",
        &keys,
        "--encryption-provider-config-automatic-reload",
        "--authorization-mode",
        "Node,ABAC,RBAC",
        "--authorization-policy-file",
        &policies,
        "--feature-gates",
        "StorageVersionMigrator=true",
        "--runtime-config",
        "storagemigration.k8s.io/v1beta1=true",
    ]
    .map(String::from)
    .to_vec();
    c.up();
    for name in ["a", "b"] {
        c.k(&["create", "secret", "generic", name, "--from-literal=password=hunter2"]);
    }
    c.apply(&definition(&["v1"]));
    c.k(&["wait", "--for=condition=Established", "crd/foos.a.b"]);
    c.apply("apiVersion: a.b/v1\nkind: Foo\nmetadata: {name: f}\nspec: {x: 1}");

    let may = |verb: &str, what: &str| c.kubectl(&["auth", "can-i", verb, what, "-A", "--as", "bob"]).stdout;
    assert_eq!((may("list", "secrets").trim(), may("delete", "secrets").trim()), ("yes", "no - No policy matched."));
    assert_eq!(may("list", "configmaps").trim(), "no - No policy matched.");

    file("keys.yaml", &configuration(&format!("{NEW}, {OLD}")));
    eventually(Duration::from_secs(60), || {
        let metrics = c.k(&["get", "--raw", "/metrics"]);
        let reloaded = |line: &str| {
            line.starts_with("apiserver_encryption_config_controller_automatic_reloads_total")
                && line.contains("success")
        };
        if metrics.lines().any(reloaded) { Ok(()) } else { Err("the new keys are not in use".to_string()) }
    });
    migrate(&c, "keys", "{resource: secrets}");
    c.apply(&definition(&["v1", "v2"]));
    c.wait_for("crd foos.a.b", "{.status.storedVersions}", r#"["v1","v2"]"#);
    let revision = || c.k(&["get", "foo", "f", "-o", "jsonpath={.metadata.resourceVersion}"]);
    let before = revision();
    migrate(&c, "foos", "{group: a.b, resource: foos}");
    assert_ne!(revision(), before, "it was written again");
    c.wait_for("crd foos.a.b", "{.status.storedVersions}", r#"["v2"]"#);
    c.apply(&definition(&["v2"]));

    // Nothing is left that takes the old key or the old version.
    file("keys.yaml", &configuration(NEW));
    c.stop();
    c.up();
    for name in ["a", "b"] {
        assert_eq!(c.k(&["get", "secret", name, "-o", "jsonpath={.data.password}"]), "aHVudGVyMg==");
    }
    // kubectl itself remembers the old version.
    let read = c.k(&["get", "--raw", "/apis/a.b/v2/namespaces/default/foos/f"]);
    assert!(read.contains(r#""apiVersion":"a.b/v2""#) && read.contains(r#""x":1"#), "{read}");
    assert_eq!(c.k(&["get", "secret", "a", "-o", "jsonpath={.metadata.managedFields[*].manager}"]), "kubectl-create");
    assert!(!c.log_tail().contains("failed to decrypt"), "{}", c.log_tail());
}
