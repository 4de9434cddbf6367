//! What the API server does on its own, as kubectl sees it.

use canopus_testkit::Cluster;

pub fn discovery_and_identity(c: &Cluster) {
    let resources = c.k(&["api-resources", "--no-headers"]);
    for name in ["pods", "deployments", "endpointslices", "leases", "clusterroles", "priorityclasses"] {
        assert!(resources.lines().any(|l| l.starts_with(name)), "{name} in\n{resources}");
    }
    assert!(c.k(&["version"]).contains("Server Version: v1.36"));
    assert!(c.k(&["cluster-info"]).contains("is running at"));
    assert!(c.k(&["auth", "whoami"]).contains("kubernetes-admin"));
    assert_eq!(c.k(&["auth", "can-i", "delete", "nodes"]).trim(), "yes");
    let denied = c.kubectl(&["auth", "can-i", "delete", "nodes", "--as", "system:serviceaccount:default:default"]);
    assert_eq!((denied.code, denied.stdout.trim()), (1, "no"), "{denied:?}");
    assert!(c.k(&["get", "namespaces", "-o", "name"]).contains("namespace/kube-system"));
    assert!(c.k(&["get", "service", "kubernetes", "-o", "wide"]).contains("443/TCP"));
    let components = c.kubectl(&["get", "componentstatuses", "--no-headers"]);
    let lines: Vec<Vec<&str>> = components.stdout.lines().map(|l| l.split_whitespace().collect()).collect();
    let healthy = |name: &'static str| vec![name, "Healthy", "ok"];
    assert_eq!(lines, [healthy("controller-manager"), healthy("etcd-0"), healthy("scheduler")]);
    assert!(components.stderr.contains("v1 ComponentStatus is deprecated in v1.19+"), "{components:?}");
}

/// A policy whose expressions do not fit what it is about.
pub fn policies_are_checked(c: &Cluster) {
    let policy = "apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: confused}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments]}]
  validations: [{expression: \"object.spec.replicas > '1'\"}]
";
    c.apply(policy);
    let place = "{.status.typeChecking.expressionWarnings[0].fieldRef}";
    c.wait_for("validatingadmissionpolicy confused", place, "spec.validations[0].expression");
    let warning = "jsonpath={.status.typeChecking.expressionWarnings[0].warning}";
    let warning = c.k(&["get", "validatingadmissionpolicy", "confused", "-o", warning]);
    assert!(warning.contains("found no matching overload for '_>_' applied to '(int, string)'"), "{warning}");
    c.k(&["delete", "validatingadmissionpolicy", "confused"]);
}

pub fn explain(c: &Cluster) {
    let text = c.k(&["explain", "pod.spec.containers", "--recursive"]);
    for word in ["FIELD: containers <[]Container>", "livenessProbe", "imagePullPolicy", "-required-"] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
    assert!(c.k(&["explain", "deployment.spec.strategy"]).contains("The deployment strategy to use"));
}

pub fn namespaces(c: &Cluster) {
    c.k(&["create", "namespace", "team"]);
    c.wait_for("-n team serviceaccounts", "{.items[*].metadata.name}", "default");
    c.k(&["-n", "team", "create", "secret", "generic", "s", "--from-literal=a=b"]);
    c.k(&["-n", "team", "run", "p", "--image=nowhere.example/x:1"]);
    let mounted =
        c.k(&["-n", "team", "get", "pod", "p", "-o", "jsonpath={.spec.containers[0].volumeMounts[0].mountPath}"]);
    assert_eq!(mounted, "/var/run/secrets/kubernetes.io/serviceaccount");
    let token = c.k(&["-n", "team", "create", "token", "default"]);
    let who = c.k(&["auth", "whoami", "--token", token.trim(), "-o", "jsonpath={.status.userInfo.username}"]);
    assert!(who == "system:serviceaccount:team:default" || who == "kubernetes-admin", "{who}");
    c.k(&["delete", "namespace", "team", "--timeout=30s"]);
    assert!(c.kubectl(&["get", "namespace", "team"]).stderr.contains("not found"));
}

/// What was acknowledged is there after `kill -9`.
pub fn survives_kill(c: &mut Cluster) {
    for i in 0..3 {
        c.k(&["create", "configmap", &format!("kept-{i}"), "--from-literal=a=1"]);
        c.kill();
        c.up();
    }
    let names = c.k(&["get", "configmaps", "-o", "name"]);
    for i in 0..3 {
        assert!(names.contains(&format!("configmap/kept-{i}")), "{names}");
    }
}
