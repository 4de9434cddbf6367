//! Verbs that change objects, without containers.

use crate::space::{Space, has_lines};
use canopus_testkit::Cluster;

pub fn generators(c: &Cluster) {
    let s = Space::new(c, "generators");
    let made: &[(&str, &str)] = &[
        ("configmap c --from-literal=a=b", "configmap/c created"),
        ("secret generic g --from-literal=a=b", "secret/g created"),
        ("secret docker-registry d --docker-server=r --docker-username=u --docker-password=p", "secret/d created"),
        ("serviceaccount a", "serviceaccount/a created"),
        ("role r --verb=get --resource=pods", "role.rbac.authorization.k8s.io/r created"),
        ("rolebinding b --role=r --serviceaccount=generators:a", "rolebinding.rbac.authorization.k8s.io/b created"),
        (
            "clusterrole generators --verb=get --resource=nodes",
            "clusterrole.rbac.authorization.k8s.io/generators created",
        ),
        (
            "clusterrolebinding generators --clusterrole=generators --group=g",
            "clusterrolebinding.rbac.authorization.k8s.io/generators created",
        ),
        ("priorityclass generators --value=10", "priorityclass.scheduling.k8s.io/generators created"),
        ("deployment w --image=nowhere.example/w:1 --replicas=0", "deployment.apps/w created"),
        ("service clusterip s --tcp=80:8080", "service/s created"),
        ("service clusterip headless --clusterip=None", "service/headless created"),
        ("service externalname e --external-name=example.org", "service/e created"),
    ];
    for (args, said) in made {
        let args: Vec<&str> = [&["create"], args.split(' ').collect::<Vec<_>>().as_slice()].concat();
        assert_eq!(s.k(&args).trim(), *said);
    }
    assert_eq!(s.k(&["get", "secret", "g", "-o", "jsonpath={.type} {.data.a}"]), "Opaque Yg==");
    let allowed = s.kubectl(&["auth", "can-i", "get", "pods", "--as=system:serviceaccount:generators:a"]);
    assert_eq!(allowed.stdout.trim(), "yes", "{allowed:?}");
    has_lines(
        &s.k(&["auth", "can-i", "--list", "--as=system:serviceaccount:generators:a"]),
        &["pods [] [] [get]", "selfsubjectreviews.authentication.k8s.io [] [] [create]", "[/healthz] [] [get]"],
    );
    let token = s.k(&["create", "token", "a", "--duration=10m"]);
    assert_eq!(token.trim().split('.').count(), 3, "{token}");
    let dry = s.k(&["create", "configmap", "dry", "--dry-run=server", "-o", "name"]);
    assert!(dry.starts_with("configmap/dry") && s.kubectl(&["get", "configmap", "dry"]).code == 1, "{dry}");
    s.k(&["delete", "clusterrole/generators", "clusterrolebinding/generators", "priorityclass/generators"]);
}

pub fn apply(c: &Cluster) {
    let s = Space::new(c, "apply");
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, labels: {set: one}}\ndata: {a: '1', b: '1'}\n";
    assert_eq!(s.apply(yaml), "configmap/x created\n");
    assert_eq!(s.apply(yaml), "configmap/x unchanged\n");
    let changed = yaml.replace("a: '1', b: '1'", "a: '2'");
    let diff = s.kubectl_with(&["diff", "-f", "-"], &changed);
    assert_eq!(diff.code, 1, "{diff:?}");
    has_lines(&diff.stdout, &["- a: \"1\"", "- b: \"1\"", "+ a: \"2\""]);
    assert_eq!(s.apply(&changed), "configmap/x configured\n");
    assert_eq!(s.see("configmap x", "{.data}"), r#"{"a":"2"}"#);
    assert_eq!(s.kubectl_with(&["diff", "-f", "-"], &changed).code, 0);

    let other = changed.replace("name: x", "name: other");
    s.apply(&other);
    let prune = ["apply", "-f", "-", "--prune", "-l", "set=one", "--prune-allowlist=core/v1/ConfigMap"];
    let pruned = s.kubectl_with(&prune, &changed);
    assert_eq!(pruned.stdout, "configmap/x unchanged\nconfigmap/other pruned\n", "{pruned:?}");
}

pub fn server_side_apply(c: &Cluster) {
    let s = Space::new(c, "ssa");
    let yaml =
        |value: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: x}}\ndata: {{a: '{value}'}}\n");
    let apply = |manager: &str, value: &str, more: &[&str]| {
        let manager = format!("--field-manager={manager}");
        let args = [&["apply", "--server-side", "-f", "-", manager.as_str()], more].concat();
        s.kubectl_with(&args, &yaml(value))
    };
    assert_eq!(apply("one", "1", &[]).stdout, "configmap/x serverside-applied\n");
    let conflict = apply("two", "2", &[]);
    assert_eq!(conflict.code, 1);
    has_lines(
        &conflict.stderr,
        &[
            r#"error: Apply failed with 1 conflict: conflict with "one": .data.a"#,
            "Please review the fields above--they currently have other managers. Here",
        ],
    );
    assert_eq!(s.see("configmap x", "{.data.a}"), "1");
    assert_eq!(apply("two", "2", &["--force-conflicts"]).code, 0);
    assert_eq!(s.see("configmap x", "{.data.a}"), "2");
    let managers =
        s.k(&["get", "configmap", "x", "--show-managed-fields", "-o", "jsonpath={.metadata.managedFields[*].manager}"]);
    assert_eq!(managers, "two");
}

pub fn edit(c: &Cluster) {
    let s = Space::new(c, "edit");
    s.k(&["create", "service", "clusterip", "x", "--tcp=80:8080"]);
    let edited = s.edit(&["service", "x"], "s/targetPort:.8080/targetPort:\\ 9090/");
    assert_eq!((edited.code, edited.stdout.trim()), (0, "service/x edited"), "{edited:?}");
    assert_eq!(s.see("service x", "{.spec.ports[0].targetPort}"), "9090");
    let same = s.edit(&["service", "x"], "s/nothing/nothing/");
    assert_eq!((same.code, same.stderr.trim()), (0, "Edit cancelled, no changes made."), "{same:?}");
    let wrong = s.edit(&["service", "x"], "s/port:.80$/port:\\ 0/");
    assert_eq!(wrong.code, 1, "{wrong:?}");
    has_lines(
        &wrong.stderr,
        &["error: services \"x\" is invalid", "error: Edit cancelled, no valid changes were saved."],
    );
    let kept = wrong.stderr.split('"').find(|part| part.contains("kubectl-edit-")).expect("a copy is kept");
    has_lines(
        &std::fs::read_to_string(kept).expect("the copy can be read"),
        &[
            "# services \"x\" was not valid:",
            "# * spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ],
    );
    assert_eq!(s.see("service x", "{.spec.ports[0].port}"), "80");
}

pub fn patches(c: &Cluster) {
    let s = Space::new(c, "patches");
    s.apply(&crate::web("web", 0, "v1"));
    let patch = |kind: &str, patch: &str| s.k(&["patch", "deployment", "web", &format!("--type={kind}"), "-p", patch]);
    let containers = || s.see("deployment web", "{.spec.template.spec.containers[*].name}");
    let template = |spec: &str| format!(r#"{{"spec":{{"template":{{"spec":{{"containers":{spec}}}}}}}}}"#);
    assert_eq!(patch("strategic", &template(r#"[{"name":"second","image":"i"}]"#)), "deployment.apps/web patched\n");
    assert_eq!(containers(), "second web");
    patch("merge", &template(r#"[{"name":"only","image":"i"}]"#));
    assert_eq!(containers(), "only");
    patch("json", r#"[{"op":"replace","path":"/spec/template/spec/containers/0/name","value":"renamed"}]"#);
    assert_eq!(containers(), "renamed");
    assert_eq!(patch("merge", "{}"), "deployment.apps/web patched (no change)\n");
    let test = r#"[{"op":"test","path":"/spec/replicas","value":7}]"#;
    s.refused(
        &["patch", "deployment", "web", "--type=json", "-p", test],
        "",
        "The request is invalid: the server rejected our request due to an error in our request",
    );
    s.k(&["patch", "deployment", "web", "--subresource=scale", "--type=merge", "-p", r#"{"spec":{"replicas":0}}"#]);

    assert_eq!(s.k(&["label", "deployment", "web", "team=x"]), "deployment.apps/web labeled\n");
    s.refused(
        &["label", "deployment", "web", "team=y"],
        "",
        "'team' already has a value (x), and --overwrite is false",
    );
    assert_eq!(s.k(&["label", "deployment", "web", "team=y", "--overwrite"]), "deployment.apps/web labeled\n");
    assert_eq!(s.k(&["label", "deployment", "web", "team-"]), "deployment.apps/web unlabeled\n");
    s.refused(&["label", "deployment", "web", "team=a b"], "", "a valid label must be an empty string or consist of");
    assert_eq!(s.k(&["annotate", "deployment", "web", "note=long text"]), "deployment.apps/web annotated\n");
    assert_eq!(s.see("deployment web", "{.metadata.annotations.note}"), "long text");
}

pub fn errors(c: &Cluster) {
    let s = Space::new(c, "errors");
    s.refused(&["get", "pod", "nope"], "", r#"Error from server (NotFound): pods "nope" not found"#);
    s.refused(&["get", "nonsense"], "", r#"error: the server doesn't have a resource type "nonsense""#);
    s.refused(&["apply", "-f", "-"], "a: [", "error parsing");
    let wrong = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad}\ndataa: {a: b}\n";
    let unknown = r#"Error from server (BadRequest): error when creating "STDIN": ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "dataa""#;
    s.refused(&["apply", "-f", "-"], wrong, unknown);
    let typed = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad}\nspec: {replicas: many}\n";
    s.refused(&["create", "-f", "-"], typed, "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32");
    let invalid = "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {ports: [{port: 0, targetPort: 80}]}\n";
    let port =
        r#"The Service "bad" is invalid: spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"#;
    s.refused(&["create", "-f", "-"], invalid, port);
    let two = "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {containers: [{name: A_B}]}\n";
    let pod = s.kubectl_with(&["create", "-f", "-"], two);
    has_lines(
        &pod.stderr,
        &[
            r#"The Pod "bad" is invalid:"#,
            r#"* spec.containers[0].name: Invalid value: "A_B": a lowercase RFC 1123 label must consist of"#,
            "* spec.containers[0].image: Required value",
        ],
    );

    s.k(&["create", "configmap", "taken"]);
    let exists = r#"error: failed to create configmap: configmaps "taken" already exists"#;
    s.refused(&["create", "configmap", "taken"], "", exists);
    let stale = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: taken, resourceVersion: '1'}\ndata: {a: b}\n";
    let conflict = r#"Operation cannot be fulfilled on configmaps "taken": the object has been modified; please apply your changes to the latest version and try again"#;
    s.refused(&["replace", "-f", "-"], stale, conflict);
    assert_eq!(s.see("configmap taken", "{.data}"), "");
    for kind in ["configmap", "deployment", "service", "pod"] {
        assert!(s.kubectl(&["get", kind, "bad"]).stderr.contains("NotFound"), "{kind} was made");
    }
}

pub fn deletions(c: &Cluster) {
    let s = Space::new(c, "deletions");
    for (name, label) in [("a", "x=1"), ("b", "x=1"), ("c", "x=2")] {
        s.k(&["create", "configmap", name]);
        s.k(&["label", "configmap", name, label]);
    }
    let waiting = s.stream(&["wait", "--for=delete", "configmap/a", "--timeout=30s"]);
    let deleted = s.k(&["delete", "configmaps", "-l", "x=1"]);
    assert_eq!(
        deleted,
        "configmap \"a\" deleted from deletions namespace\nconfigmap \"b\" deleted from deletions namespace\n"
    );
    assert_eq!(waiting.ends(), 0);
    assert_eq!(s.k(&["get", "configmaps", "-l", "x", "-o", "name"]), "configmap/c\n");
    s.k(&["delete", "configmaps", "nothing", "--ignore-not-found"]);

    s.k(&["create", "deployment", "d", "--image=nowhere.example/d:1", "--replicas=0"]);
    s.wait_for("replicasets", "{.items[*].metadata.labels.app}", "d");
    s.k(&["delete", "deployment", "d", "--cascade=orphan"]);
    assert_eq!(s.see("replicasets", "{.items[*].metadata.ownerReferences}"), "");
    let set = s.see("replicasets", "{.items[0].metadata.name}");
    s.k(&["create", "deployment", "d", "--image=nowhere.example/d:1", "--replicas=0"]);
    // The new Deployment takes the orphan over.
    s.wait_for(&format!("replicaset {set}"), "{.metadata.ownerReferences[0].name}", "d");
    s.k(&["delete", "deployment", "d", "--cascade=foreground"]);
    assert_eq!(s.see("replicasets", "{.items}"), "[]");
}
