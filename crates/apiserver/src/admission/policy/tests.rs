//! Policies in a server with all its gatekeepers.

use crate::notes::{Notes, noting};
use crate::server::Server;
use crate::testing::server;
use crate::user::MASTERS;
use crate::{LocalApi, User};
use canopus_api::{Api, Gvr, Object, Result, Target, Value, WriteOptions, value};
use std::sync::Arc;

struct Cluster {
    server: Arc<Server>,
    api: Arc<dyn Api>,
}

fn maps() -> Target {
    Target::new(&Gvr::new("", "v1", "configmaps"), "default", "")
}

fn map(name: &str, data: Value) -> Value {
    value!({"metadata": {"name": name}, "data": data})
}

fn constraints() -> Value {
    value!({"resourceRules": [
        {"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]},
    ]})
}

impl Cluster {
    async fn new() -> Cluster {
        let server = server().await;
        let api = LocalApi::shared(server.clone(), User::new("admin", &[MASTERS]), "tests");
        Cluster { server, api }
    }

    async fn make(&self, plural: &str, object: Value) {
        let gvr = Gvr::new("admissionregistration.k8s.io", "v1", plural);
        let made = self.api.create(&Target::new(&gvr, "", ""), object, &Default::default()).await.unwrap();
        self.server.cache(&gvr.group, "v1", plural).unwrap().reached(made.revision).await.unwrap();
    }

    /// A policy on ConfigMaps and a binding of it, `p` and `b`.
    async fn policy(&self, kind: &str, mut spec: Value, binding: Value) {
        spec.set_default("matchConstraints", constraints());
        let mut bound = value!({"policyName": "p"});
        binding.entries().for_each(|(field, value)| bound.set(field, value));
        self.make(&format!("{kind}admissionpolicies"), value!({"metadata": {"name": "p"}, "spec": spec})).await;
        self.make(&format!("{kind}admissionpolicybindings"), value!({"metadata": {"name": "b"}, "spec": bound})).await;
    }

    async fn create(&self, object: Value) -> Result<Arc<Object>> {
        let made = self.api.create(&maps(), object, &WriteOptions::default()).await?;
        self.server.cache("", "v1", "configmaps")?.reached(made.revision).await?;
        Ok(made)
    }
}

fn deny() -> Value {
    value!({"validationActions": ["Deny"]})
}

#[tokio::test]
async fn a_policy_refuses_what_its_expressions_do_not_hold_for() {
    let cluster = Cluster::new().await;
    let spec = value!({
        "variables": [
            {"name": "count", "expression": "object.data.size()"},
            {"name": "limit", "expression": "request.namespace == 'default' && namespaceObject.metadata.name == 'default' ? 1 : 0"},
        ],
        "matchConditions": [{"name": "named", "expression": "object.metadata.name.startsWith('m')"}],
        "validations": [
            {"expression": "variables.count <= variables.limit", "messageExpression": "'has ' + string(variables.count)"},
            {"expression": "!has(object.data.secret)", "message": "no secrets", "reason": "Forbidden"},
            {"expression": "!('plain' in object.data)"},
            {"expression": "authorizer.group('').resource('configmaps').namespace('default').check('delete').allowed()"},
        ],
    });
    cluster.policy("validating", spec, deny()).await;
    assert!(cluster.create(map("m1", value!({"a": "1"}))).await.is_ok());
    assert!(cluster.create(map("other", value!({"a": "1", "b": "2"}))).await.is_ok(), "a condition does not hold");
    let refused = |e: canopus_api::Status| (e.code, e.reason.to_string(), e.message.to_string());
    let prefix = "configmaps \"m2\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: ";
    for (data, code, reason, message) in [
        (value!({"a": "1", "b": "2"}), 422, "Invalid", "has 2"),
        (value!({"secret": "1"}), 403, "Forbidden", "no secrets"),
        (value!({"plain": "1"}), 422, "Invalid", "failed expression: !('plain' in object.data)"),
    ] {
        let e = cluster.create(map("m2", data)).await.unwrap_err();
        assert_eq!(refused(e), (code, reason.to_string(), format!("{prefix}{message}")));
    }
    let e = cluster.create(value!({"metadata": {"name": "m2"}})).await.unwrap_err();
    assert!(e.message.ends_with("expression 'variables.count <= variables.limit' resulted in error: composited variable \"count\" fails to evaluate: no such key: data"), "{}", e.message);
}

#[tokio::test]
async fn what_a_policy_says_without_refusing() {
    let cluster = Cluster::new().await;
    let spec = value!({
        "validations": [{"expression": "false", "message": "never"}],
        "auditAnnotations": [{"key": "who", "valueExpression": "request.userInfo.username + ' ' + request.operation"}],
    });
    cluster.policy("validating", spec, value!({"validationActions": ["Warn", "Audit"]})).await;
    let notes = Arc::new(Notes::default());
    // The task that writes for others is not this one; the handlers are asked directly.
    let (admin, target, options) = (User::new("admin", &[MASTERS]), maps(), WriteOptions::default());
    let work = cluster.server.post(&admin, &target, map("m", value!({})), &options);
    noting(notes.clone(), work).await.unwrap();
    let warning = "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': never";
    assert_eq!(notes.take_warnings(), [warning]);
    let annotations = notes.take_annotations();
    assert!(annotations.contains(&("p/who".into(), "admin CREATE".into())), "{annotations:?}");
    let failure = annotations.iter().find(|(k, _)| k.ends_with("/validation_failure")).unwrap();
    assert!(failure.1.contains(r#""message":"never""#), "{}", failure.1);
}

#[tokio::test]
async fn parameters() {
    let cluster = Cluster::new().await;
    for (name, max) in [("strict", "1"), ("loose", "3")] {
        let mut param = map(name, value!({"max": max}));
        param.set_path(&["metadata", "labels"], value!({"params": name}));
        cluster.create(param).await.unwrap();
    }
    let spec = value!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "params == null || object.data.size() <= int(params.data.max)"}],
    });
    let mut binding = deny();
    binding.set("paramRef", value!({"name": "strict", "parameterNotFoundAction": "Deny"}));
    cluster.policy("validating", spec.clone(), binding.clone()).await;
    let two = || map("m", value!({"a": "1", "b": "2"}));
    assert_eq!(cluster.create(two()).await.unwrap_err().code, 422);

    let set = async |reference: Value| {
        let mut spec = binding.clone();
        spec.set("policyName", "p");
        spec.set("paramRef", reference);
        let gvr = Gvr::new("admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings");
        let patch = canopus_api::Patch::Merge(value!({"spec": spec}));
        let target = Target::new(&gvr, "", "b");
        let made = cluster.api.patch(&target, patch, &Default::default()).await.unwrap();
        cluster.server.cache(&gvr.group, "v1", &gvr.resource).unwrap().reached(made.revision).await.unwrap();
    };
    set(value!({"name": null, "selector": {"matchLabels": {"params": "loose"}}})).await;
    assert!(cluster.create(two()).await.is_ok());
    set(value!({"name": "gone", "selector": null, "parameterNotFoundAction": "Allow"})).await;
    assert!(cluster.create(map("n", value!({"a": "1", "b": "2", "c": "3", "d": "4"}))).await.is_ok());
    set(value!({"name": "gone", "parameterNotFoundAction": "Deny"})).await;
    let e = cluster.create(map("o", value!({}))).await.unwrap_err();
    let why = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert!(e.message.ends_with(why), "{}", e.message);
}

#[tokio::test]
async fn mutations() {
    let cluster = Cluster::new().await;
    let spec = value!({
        "reinvocationPolicy": "IfNeeded",
        "variables": [{"name": "who", "expression": "request.userInfo.username"}],
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                "Object{metadata: Object.metadata{labels: {'by': variables.who}}, data: {'kept': 'yes'}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'add', path: '/data/' + 'c', value: object.data.kept + jsonpatch.escapeKey('/')}]"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'test', path: '/data/kept', value: 'no'}, JSONPatch{op: 'remove', path: '/data/kept'}]"}},
        ],
    });
    cluster.policy("mutating", spec, value!({})).await;
    let made = cluster.create(map("m", value!({"own": "1"}))).await.unwrap();
    let made = made.value();
    assert_eq!(made["data"], value!({"own": "1", "kept": "yes", "c": "yes~1"}));
    assert_eq!(made["metadata"]["labels"], value!({"by": "admin"}));
}

#[tokio::test]
async fn a_mutation_that_fails_refuses() {
    let cluster = Cluster::new().await;
    let spec = value!({
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{data: Object.metadata{x: 'y'}}"}}],
    });
    cluster.policy("mutating", spec, value!({})).await;
    let e = cluster.create(map("m", value!({}))).await.unwrap_err();
    assert_eq!(
        e.message,
        "policy 'p' with binding 'b' denied request: type mismatch: unexpected type name \"Object.metadata\", expected \"Object.data\", which matches field name path from root Object type"
    );
    assert_eq!(e.reason, "Invalid");
}

#[tokio::test]
async fn what_is_counted() {
    let cluster = Cluster::new().await;
    let spec = value!({"validations": [{"expression": "object.data.x == '1'"}]});
    cluster.policy("validating", spec, value!({"validationActions": ["Deny", "Audit"]})).await;
    assert!(cluster.create(map("m", value!({"x": "2"}))).await.is_err());
    assert!(cluster.create(map("m", value!({"x": "1"}))).await.is_ok());
    let text = crate::metrics::text(&cluster.server);
    for action in ["audit", "deny"] {
        let line = format!(
            "apiserver_validating_admission_policy_check_total{{policy=\"p\",policy_binding=\"b\",error_type=\"invalid_error\",enforcement_action=\"{action}\"}} 1\n"
        );
        assert!(text.contains(&line), "{line}");
    }
    assert_eq!(text.matches("apiserver_validating_admission_policy_check_duration_seconds_count").count(), 2);
}

#[tokio::test]
async fn only_who_reads_parameters_says_what_they_do() {
    let cluster = Cluster::new().await;
    let group = "rbac.authorization.k8s.io";
    let own = value!({"apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": ["*"]});
    let make = async |plural: &str, object: Value| {
        let target = Target::new(&Gvr::new(group, "v1", plural), "", "");
        let revision = cluster.api.create(&target, object, &Default::default()).await.unwrap().revision;
        cluster.server.cache(group, "v1", plural).unwrap().reached(revision).await.unwrap();
    };
    make("clusterroles", value!({"metadata": {"name": "policies"}, "rules": [own]})).await;
    let role = value!({"apiGroup": group, "kind": "ClusterRole", "name": "policies"});
    let bob = value!([{"apiGroup": group, "kind": "User", "name": "bob"}]);
    make("clusterrolebindings", value!({"metadata": {"name": "bob"}, "roleRef": role, "subjects": bob})).await;
    let api = LocalApi::shared(cluster.server.clone(), User::new("bob", &[]), "tests");
    let refused = async |plural: &str, spec: Value| {
        let target = Target::new(&Gvr::new("admissionregistration.k8s.io", "v1", plural), "", "");
        let object = value!({"metadata": {"name": "mine"}, "spec": spec});
        api.create(&target, object, &Default::default()).await.unwrap_err().message.to_string()
    };
    let policy = value!({"matchConstraints": constraints(), "validations": [{"expression": "params.data.x == '1'"}],
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}});
    assert_eq!(
        refused("validatingadmissionpolicies", policy.clone()).await,
        "ValidatingAdmissionPolicy.admissionregistration.k8s.io \"mine\" is invalid: spec.paramKind: Forbidden: user &{bob  [system:authenticated] map[]} must have \"get\" permission on all objects of the referenced paramKind (kind=ConfigMap, apiVersion=v1)"
    );
    let mut binding = value!({"policyName": "mine", "validationActions": ["Deny"],
        "paramRef": {"name": "secret", "namespace": "default", "parameterNotFoundAction": "Deny"}});
    let prefix =
        "ValidatingAdmissionPolicyBinding.admissionregistration.k8s.io \"mine\" is invalid: spec.paramRef: Forbidden: ";
    assert_eq!(
        refused("validatingadmissionpolicybindings", binding.clone()).await,
        format!(
            "{prefix}unable to get policy mine to determine minimum required permissions and user &{{bob  [system:authenticated] map[]}} does not have \"get\" permission for all groups, versions and resources"
        )
    );
    cluster.make("validatingadmissionpolicies", value!({"metadata": {"name": "mine"}, "spec": policy})).await;
    assert_eq!(
        refused("validatingadmissionpolicybindings", binding.clone()).await,
        format!(
            "{prefix}user &{{bob  [system:authenticated] map[]}} does not have \"get\" permission on the object referenced by paramRef"
        )
    );
    binding.remove("paramRef");
    let target =
        Target::new(&Gvr::new("admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings"), "", "");
    let bound = value!({"metadata": {"name": "mine"}, "spec": binding});
    assert!(
        api.create(&target, bound, &Default::default()).await.is_ok(),
        "without parameters there is nothing to read"
    );
}

#[tokio::test]
async fn what_cannot_be_a_policy() {
    let cluster = Cluster::new().await;
    let gvr = Gvr::new("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies");
    let create = async |validation: Value| {
        let spec = value!({"matchConstraints": constraints(), "validations": [validation]});
        let object = value!({"metadata": {"name": "p"}, "spec": spec});
        let made = cluster.api.create(&Target::new(&gvr, "", ""), object, &Default::default()).await;
        made.unwrap_err().message.to_string()
    };
    let message = create(value!({"expression": "object.x == vars"})).await;
    let compiled = "compilation failed: ERROR: <input>:1:13: undeclared reference to 'vars' (in container '')\n | object.x == vars\n | ............^";
    assert!(
        message.ends_with(&format!("spec.validations[0].expression: Invalid value: \"object.x == vars\": {compiled}")),
        "{message}"
    );
    let message = create(value!({"expression": "1"})).await;
    assert!(message.ends_with("must evaluate to bool but got int"), "{message}");
    let message = create(value!({"expression": "request.nothing == 'a'"})).await;
    assert!(message.contains("undefined field 'nothing'"), "{message}");
}
