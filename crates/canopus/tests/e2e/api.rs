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
}

pub fn objects(c: &Cluster) {
    c.k(&["create", "configmap", "one", "--from-literal=a=1"]);
    assert_eq!(c.k(&["get", "configmap", "one", "-o", "jsonpath={.data.a}"]), "1");
    c.k(&["patch", "configmap", "one", "--type=merge", "-p", r#"{"data":{"a":"2"}}"#]);
    c.k(&["patch", "configmap", "one", "--type=json", "-p", r#"[{"op":"add","path":"/data/b","value":"3"}]"#]);
    c.k(&["label", "configmap", "one", "team=x"]);
    c.k(&["annotate", "configmap", "one", "note=y"]);
    let shown = c.k(&[
        "get",
        "configmaps",
        "-l",
        "team=x",
        "-o",
        "custom-columns=N:.metadata.name,A:.data.a,B:.data.b",
        "--no-headers",
    ]);
    assert_eq!(shown.split_whitespace().collect::<Vec<_>>(), ["one", "2", "3"]);

    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: two}\ndata: {a: '1'}\n";
    assert!(c.apply(yaml).contains("configmap/two created"));
    assert!(c.apply(yaml).contains("configmap/two unchanged"));
    let changed = yaml.replace("'1'", "'2'");
    let diff = c.kubectl_with(&["diff", "-f", "-"], &changed);
    assert!(diff.code == 1 && diff.stdout.contains("+  a: \"2\""), "{diff:?}");
    assert!(c.apply(&changed).contains("configmap/two configured"));
    let server_side = c.kubectl_with(&["apply", "--server-side", "-f", "-"], &changed.replace("two", "three"));
    assert!(server_side.stdout.contains("configmap/three serverside-applied"), "{server_side:?}");

    assert!(c.k(&["describe", "configmap", "one"]).contains("Name:         one"));
    c.k(&["delete", "configmap", "one", "two", "three"]);
    assert!(!c.k(&["get", "configmaps", "-o", "name"]).contains("/one"));
}

pub fn errors(c: &Cluster) {
    let refused = |args: &[&str], stdin: &str, message: &str| {
        let out = c.kubectl_with(args, stdin);
        assert!(out.code != 0 && out.stderr.contains(message), "{args:?}: wanted {message:?} in {out:?}");
    };
    refused(&["get", "pod", "nope"], "", r#"Error from server (NotFound): pods "nope" not found"#);
    refused(&["apply", "-f", "-"], "a: [", "error parsing");
    let wrong = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad}\ndataa: {a: b}\n";
    refused(&["apply", "-f", "-"], wrong, r#"unknown field "dataa""#);
    let invalid = "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {ports: [{port: 0}]}\n";
    refused(
        &["create", "-f", "-"],
        invalid,
        "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
    );
    c.k(&["create", "configmap", "taken"]);
    refused(&["create", "configmap", "taken"], "", r#"configmaps "taken" already exists"#);
    let stale = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: taken, resourceVersion: '1'}\ndata: {a: b}\n";
    refused(&["replace", "-f", "-"], stale, "the object has been modified");
    assert_eq!(c.k(&["get", "configmap", "taken", "-o", "jsonpath={.data}"]), "");
    c.k(&["delete", "configmap", "taken"]);
    assert!(c.kubectl(&["get", "configmap", "bad"]).code != 0);
}

pub fn explain(c: &Cluster) {
    let text = c.k(&["explain", "pod.spec.containers", "--recursive"]);
    for word in ["FIELD: containers <[]Container>", "livenessProbe", "imagePullPolicy", "-required-"] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
    assert!(c.k(&["explain", "deployment.spec.strategy"]).contains("The deployment strategy to use"));
}

pub fn workloads(c: &Cluster) {
    c.k(&["create", "deployment", "web", "--image=nowhere.example/web:1", "--replicas=2"]);
    c.k(&["expose", "deployment", "web", "--port=80", "--target-port=8080"]);
    assert!(c.k(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]).starts_with("10.96."));
    c.k(&["scale", "deployment/web", "--replicas=4"]);
    c.k(&["set", "image", "deployment/web", "web=nowhere.example/web:2"]);
    c.k(&["rollout", "pause", "deployment/web"]);
    c.k(&["rollout", "resume", "deployment/web"]);
    c.k(&["rollout", "restart", "deployment/web"]);
    let shown =
        c.k(&["get", "deployment", "web", "-o", "jsonpath={.spec.replicas} {.spec.template.spec.containers[0].image}"]);
    assert_eq!(shown, "4 nowhere.example/web:2");
    assert!(c.k(&["describe", "deployment", "web"]).contains("StrategyType:           RollingUpdate"));
    assert!(c.k(&["describe", "service", "web"]).contains("TargetPort:               8080/TCP"));
    // No pod of the first version ever becomes ready, so the rollout stops at what surge and unavailability allow.
    c.wait_for("deployment web", "{.status.updatedReplicas}", "2");
    let owners = c.k(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.ownerReferences[0].kind}"]);
    assert!(owners.split_whitespace().count() >= 4 && owners.split_whitespace().all(|kind| kind == "ReplicaSet"));
    assert!(c.k(&["rollout", "history", "deployment/web"]).lines().any(|line| line.starts_with('2')));
    c.k(&["rollout", "undo", "deployment/web", "--to-revision=1"]);
    let undone = c.k(&["get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"]);
    assert_eq!(undone, "nowhere.example/web:1");
    assert!(c.k(&["describe", "deployment", "web"]).contains("ScalingReplicaSet"));
    c.k(&["delete", "deployment,service", "web"]);
    // The garbage collector takes what the Deployment owned.
    c.wait_for("replicasets,pods", "{.items}", "[]");
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
