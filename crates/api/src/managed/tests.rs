use super::{FieldManager, OneVersion, Reset, Versions, keep_times_if_unchanged};
use crate::api::Gvk;
use crate::json;
use crate::schema::testing::deployment;
use crate::status::Status;
use crate::time::Time;
use crate::value;
use crate::value::Value;

const STATUS: Reset = Reset::But(&[&["status"]]);

fn writer(manager: &str, at: i64) -> FieldManager<'_> {
    FieldManager {
        ty: deployment().into(),
        api_version: "apps/v1",
        manager,
        subresource: "",
        reset: STATUS,
        versions: &OneVersion,
        now: Time::from_unix(at),
    }
}

fn object() -> Value {
    value!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "ns", "labels": {"a": "1"}},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "1"}}, "strategy": {"type": "RollingUpdate"},
            "template": {"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [
                {"name": "c", "image": "i", "resources": {}, "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}}},
        "status": {},
    })
}

fn config(spec: Value) -> Value {
    value!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "ns"}, "spec": spec})
}

fn create(manager: &str) -> Value {
    let mut new = object();
    writer(manager, 1).update(None, &mut new);
    stored(new)
}

/// What the server adds on create.
fn stored(mut object: Value) -> Value {
    object.set_path(&["metadata", "uid"], "u");
    object
}

fn apply(manager: &str, at: i64, live: Option<&Value>, config: &Value, force: bool) -> Result<Value, Status> {
    writer(manager, at).apply(&Gvk::new("apps", "v1", "Deployment"), live, config, force)
}

/// `manager/operation@time[/subresource]: fields`, one line an entry.
fn owners(object: &Value) -> Vec<String> {
    let line = |e: &Value| {
        let time = Time::parse(e["time"].str()).map_or(-1, Time::unix);
        let sub = e["subresource"].as_str().map(|s| format!("/{s}")).unwrap_or_default();
        format!("{}/{}@{time}{sub}: {}", e["manager"].str(), e["operation"].str(), json::to_string(&e["fieldsV1"]))
    };
    object["metadata"]["managedFields"].items().iter().map(line).collect()
}

#[test]
fn a_create_owns_what_upstream_says_it_owns() {
    assert_eq!(
        owners(&create("kubectl-create")),
        [concat!(
            r#"kubectl-create/Update@1: {"f:metadata":{"f:labels":{".":{},"f:a":{}}},"f:spec":{"f:replicas":{},"#,
            r#""f:selector":{},"f:strategy":{"f:type":{}},"f:template":{"f:metadata":{"f:labels":{".":{},"f:a":{}}},"#,
            r#""f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{},"f:ports":{".":{},"#,
            r#""k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{},"f:protocol":{}}},"#,
            r#""f:resources":{}}}}}}}"#
        )]
    );
}

#[test]
fn a_pod_of_upstreams_type() {
    let ty = canopus_schema::kind("", "v1", "Pod").unwrap().get();
    let writer = |manager, subresource, reset| FieldManager {
        ty: ty.into(),
        api_version: "v1",
        manager,
        subresource,
        reset,
        versions: &OneVersion,
        now: Time::from_unix(1),
    };
    let mut pod = value!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "labels": {"run": "x"}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Always", "securityContext": {}},
        "status": {"phase": "Pending"}});
    crate::schema::complete(ty.into(), &mut pod);
    writer("kubectl-run", "", STATUS).update(None, &mut pod);
    let mut running = stored(pod);
    let old = running.clone();
    running.set(
        "status",
        value!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "containerStatuses": [{"name": "c", "ready": true}],
            "conditions": [{"type": "Ready", "status": "True"}]}),
    );
    writer("kubelet", "status", Reset::But(&[&["spec"]])).update(Some(&old), &mut running);
    assert_eq!(
        owners(&running),
        [
            concat!(
                r#"kubectl-run/Update@1: {"f:metadata":{"f:labels":{".":{},"f:run":{}}},"f:spec":{"f:containers":{"#,
                r#""k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{},"f:resources":{}}},"f:restartPolicy":{},"#,
                r#""f:securityContext":{}}}"#
            ),
            concat!(
                r#"kubelet/Update@1/status: {"f:status":{"f:conditions":{".":{},"k:{\"type\":\"Ready\"}":{".":{},"#,
                r#""f:status":{},"f:type":{}}},"f:containerStatuses":{},"f:phase":{},"f:podIPs":{".":{},"#,
                r#""k:{\"ip\":\"10.0.0.1\"}":{".":{},"f:ip":{}}}}}"#
            ),
        ]
    );
}

#[test]
fn an_update_takes_what_it_changes() {
    let old = create("a");
    let mut new = old.clone();
    new.set_path(&["spec", "replicas"], 2);
    new.set_path(&["metadata", "labels", "b"], "2");
    new.remove_path(&["spec", "strategy", "type"]);
    writer("b", 5).update(Some(&old), &mut new);
    let lines = owners(&new);
    assert_eq!(lines.len(), 2);
    assert!(!lines[0].contains("f:replicas") && !lines[0].contains("f:type"), "{}", lines[0]);
    assert_eq!(lines[1], r#"b/Update@5: {"f:metadata":{"f:labels":{"f:b":{}}},"f:spec":{"f:replicas":{}}}"#);
}

#[test]
fn an_update_without_changes_changes_no_entry() {
    let old = create("a");
    for sent in [old["metadata"]["managedFields"].clone(), Value::Null] {
        let mut new = old.clone();
        new.set_path(&["metadata", "managedFields"], sent);
        writer("b", 9).update(Some(&old), &mut new);
        assert_eq!(new, old);
    }
}

#[test]
fn the_same_manager_keeps_one_entry() {
    let old = create("a");
    let mut new = old.clone();
    new.set_path(&["spec", "replicas"], 3);
    writer("a", 7).update(Some(&old), &mut new);
    let (before, after) = (owners(&old), owners(&new));
    assert_eq!(after, [before[0].replace("@1", "@7")]);
}

#[test]
fn status_writes_are_the_subresources() {
    let old = create("a");
    let mut new = old.clone();
    new.set_path(&["status", "replicas"], 1);
    new.set_path(&["status", "conditions"], value!([{"type": "Available", "status": "True"}]));
    let manager = FieldManager {
        subresource: "status",
        reset: Reset::But(&[&["spec"], &["metadata", "labels"]]),
        ..writer("controller", 4)
    };
    let mut through_main = new.clone();
    writer("a", 4).update(Some(&old), &mut through_main);
    assert_eq!(owners(&through_main), owners(&old), "the main resource never owns status");
    // What a status client sends as managedFields is ignored.
    new.set_path(&["metadata", "managedFields"], value!([]));
    manager.update(Some(&old), &mut new);
    assert_eq!(
        owners(&new)[1],
        r#"controller/Update@4/status: {"f:status":{"f:conditions":{".":{},"k:{\"type\":\"Available\"}":{".":{},"f:status":{},"f:type":{}}},"f:replicas":{}}}"#
    );
}

#[test]
fn managed_fields_can_be_reset() {
    let old = create("a");
    for reset in [value!([]), value!([{}])] {
        let mut new = old.clone();
        new.set_path(&["metadata", "managedFields"], reset);
        new.set_path(&["spec", "replicas"], 2);
        writer("b", 2).update(Some(&old), &mut new);
        assert!(new["metadata"].get("managedFields").is_none());
        // And stay off until somebody applies.
        let mut next = new.clone();
        next.set_path(&["spec", "replicas"], 3);
        writer("b", 3).update(Some(&new), &mut next);
        assert!(next["metadata"].get("managedFields").is_none());
        let applied = apply("x", 4, Some(&next), &config(value!({"paused": true})), false).unwrap();
        assert_eq!(owners(&applied).len(), 2);
        assert!(owners(&applied)[1].starts_with("before-first-apply/Update@4: "));
    }
    let mut bad = old.clone();
    bad.set_path(&["metadata", "managedFields"], value!([{"manager": "x", "operation": "Nope"}]));
    writer("b", 2).update(Some(&old), &mut bad);
    assert_eq!(owners(&bad), owners(&old));
}

#[test]
fn old_updates_are_merged() {
    let mut live = create("m0");
    for i in 1..14 {
        let mut new = live.clone();
        new.set_path(&["metadata", "annotations", &format!("k{i}")], "v");
        writer(&format!("m{i}"), i + 1).update(Some(&live), &mut new);
        live = new;
    }
    let lines = owners(&live);
    assert_eq!(lines.len(), 10);
    assert!(lines[0].starts_with("ancient-changes/Update@5: "), "{}", lines[0]);
    assert!(lines[0].contains("f:k4") && !lines[0].contains("f:k5"));
}

#[test]
fn apply_creates_and_owns_the_configuration() {
    let c = config(value!({"replicas": 2, "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}));
    let made = apply("x", 3, None, &c, false).unwrap();
    assert_eq!(made["spec"]["replicas"].int(), 2);
    assert_eq!(
        owners(&made),
        [
            r#"x/Apply@3: {"f:spec":{"f:replicas":{},"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{}}}}}}}"#
        ]
    );
}

#[test]
fn apply_merges_prunes_and_keeps_others_fields() {
    let first = config(value!({"replicas": 2, "paused": true, "template": {"spec": {"containers": [
        {"name": "a", "image": "1", "args": ["x"], "env": [{"name": "E", "value": "1"}, {"name": "F"}]}, {"name": "b"}]}}}));
    let made = stored(apply("x", 1, None, &first, false).unwrap());
    let mut live = made.clone();
    live.set_path(&["metadata", "labels", "other"], "1");
    let containers = live.get_mut("spec").unwrap().get_mut("template").unwrap().get_mut("spec").unwrap();
    containers.get_mut("containers").unwrap().as_array_mut().unwrap()[1].set("image", "by-other");
    writer("other", 2).update(Some(&made), &mut live);

    let second = config(value!({"replicas": 2, "template": {"spec": {"containers": [
        {"name": "a", "image": "2", "args": ["y"], "env": [{"name": "E", "value": "1"}]}]}}}));
    let out = apply("x", 3, Some(&live), &second, false).unwrap();
    let spec = &out["spec"];
    assert!(spec.get("paused").is_none(), "what was applied and is no longer goes");
    assert_eq!(
        spec["template"]["spec"]["containers"],
        value!([{"name": "a", "image": "2", "args": ["y"], "env": [{"name": "E", "value": "1"}]}]),
        "an item goes with what others own in it, unless they own the item"
    );
    assert_eq!(out["metadata"]["labels"], value!({"other": "1"}));
}

#[test]
fn apply_that_changes_nothing_keeps_its_time() {
    let c = config(value!({"replicas": 2}));
    let made = stored(apply("x", 1, None, &c, false).unwrap());
    assert_eq!(apply("x", 9, Some(&made), &c, false).unwrap(), made);
}

#[test]
fn conflicts_have_upstreams_text() {
    let live = create("kubectl-client-side-apply");
    let one = apply("x", 2, Some(&live), &config(value!({"replicas": 5})), false).unwrap_err();
    assert_eq!((one.code, one.reason.as_str()), (409, "Conflict"));
    assert_eq!(
        one.message,
        r#"Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas"#
    );
    let causes = one.details.unwrap().causes;
    assert_eq!(causes[0].reason, "FieldManagerConflict");
    assert_eq!(causes[0].message, r#"conflict with "kubectl-client-side-apply" using apps/v1"#);
    assert_eq!(causes[0].field, ".spec.replicas");

    let c = config(value!({"replicas": 5, "template": {"spec": {"containers": [{"name": "c", "image": "new"}]}}}));
    let two = apply("x", 2, Some(&live), &c, false).unwrap_err();
    assert_eq!(
        two.message,
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n- .spec.replicas\n- .spec.template.spec.containers[name=\"c\"].image"
    );
    let forced = apply("x", 2, Some(&live), &c, true).unwrap();
    assert_eq!(forced["spec"]["replicas"].int(), 5);
    assert!(!owners(&forced)[1].contains("f:replicas"));
    // The same value is shared, not a conflict.
    let shared = apply("x", 2, Some(&live), &config(value!({"replicas": 1})), false).unwrap();
    assert!(owners(&shared).iter().all(|line| line.contains("f:replicas")));
}

#[test]
fn malformed_configurations() {
    let cases = [
        (
            value!({"nope": 1}),
            "failed to create typed patch object (ns/d; apps/v1, Kind=Deployment): .spec.nope: field not declared in schema",
        ),
        (
            value!({"replicas": "x"}),
            "failed to create typed patch object (ns/d; apps/v1, Kind=Deployment): .spec.replicas: expected numeric (int or float), got string",
        ),
        (
            value!({"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}}),
            r#"failed to create typed patch object (ns/d; apps/v1, Kind=Deployment): .spec.template.spec.containers: duplicate entries for key [name="a"]"#,
        ),
        (
            value!({"template": {"spec": {"containers": [{"image": "a"}]}}}),
            r#"failed to create typed patch object (ns/d; apps/v1, Kind=Deployment): .spec.template.spec.containers: element 0: associative list with keys has an element that omits all key fields ["name"] (and doesn't have default values for any key fields)"#,
        ),
    ];
    for (spec, message) in cases {
        let refused = apply("x", 1, None, &config(spec), false).unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (500, message));
    }
    let mut wrong = config(value!({}));
    wrong.set("kind", "Pod");
    assert_eq!(apply("x", 1, None, &wrong, false).unwrap_err().message, "invalid object type: apps/v1, Kind=Pod");
    let mut managed = config(value!({}));
    managed.set_path(&["metadata", "managedFields"], value!([]));
    assert_eq!(apply("x", 1, None, &managed, false).unwrap_err().message, "metadata.managedFields must be nil");
}

#[test]
fn kubectl_may_take_over_what_it_applied_from_the_client() {
    let mut new = object();
    let last =
        value!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 1}});
    new.set_path(
        &["metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration"],
        json::to_string(&last),
    );
    writer("kubectl-client-side-apply", 1).update(None, &mut new);
    let live = stored(new);
    let c = config(value!({"replicas": 4}));
    let out = apply("kubectl", 2, Some(&live), &c, false).unwrap();
    assert_eq!(out["spec"]["replicas"].int(), 4);
    let annotation = out["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].str();
    assert_eq!(json::parse(annotation.as_bytes()).unwrap(), c);
    let image = config(value!({"template": {"spec": {"containers": [{"name": "c", "image": "new"}]}}}));
    assert!(apply("kubectl", 2, Some(&live), &image, false).is_err(), "what it had not applied still conflicts");
}

#[test]
fn sets_and_atomic_places() {
    let with = |finalizers: Value, selector: &str| {
        let mut c = config(value!({"selector": {"matchLabels": {(selector): "x"}}}));
        c.set_path(&["metadata", "finalizers"], finalizers);
        c
    };
    let made = stored(apply("x", 1, None, &with(value!(["a", "b"]), "one"), false).unwrap());
    assert!(owners(&made)[0].contains(r#""f:finalizers":{"v:\"a\"":{},"v:\"b\"":{}}"#), "{:?}", owners(&made));
    let live = stored(apply("y", 2, Some(&made), &with(value!(["c"]), "one"), false).unwrap());
    assert_eq!(live["metadata"]["finalizers"], value!(["a", "b", "c"]));
    let out = apply("x", 3, Some(&live), &with(value!(["b"]), "one"), false).unwrap();
    assert_eq!(out["metadata"]["finalizers"], value!(["b", "c"]));
    let conflict = apply("x", 3, Some(&live), &with(value!(["b"]), "two"), false).unwrap_err();
    assert_eq!(conflict.message, r#"Apply failed with 1 conflict: conflict with "y": .spec.selector"#);
}

#[test]
fn timestamps_alone_are_no_change() {
    let old = create("a");
    let mut new = old.clone();
    let fields = new.get_mut("metadata").unwrap().get_mut("managedFields").unwrap();
    fields.as_array_mut().unwrap()[0].set("time", "2030-01-01T00:00:00Z");
    let mut changed = new.clone();
    keep_times_if_unchanged(&old, &mut new);
    assert_eq!(new, old);
    changed.set_path(&["spec", "replicas"], 8);
    keep_times_if_unchanged(&old, &mut changed);
    assert!(owners(&changed)[0].contains("@1893456000"));
}

#[test]
fn managers_of_other_versions_are_asked_in_their_own() {
    /// `apps/v0` calls replicas `paused` (true for more than none), to have something to convert.
    struct Old;
    impl Versions for Old {
        fn convert(&self, object: &Value, api_version: &str) -> Option<(Value, crate::schema::Schema<'_>)> {
            let mut out = object.clone();
            match api_version {
                "apps/v0" => {
                    let replicas = out.remove_path(&["spec", "replicas"]).unwrap_or_default().int();
                    out.set_path(&["spec", "paused"], replicas > 0);
                }
                "apps/v1" => {
                    let paused = out.remove_path(&["spec", "paused"]).unwrap_or_default().bool();
                    out.set_path(&["spec", "replicas"], i64::from(paused));
                }
                _ => return None,
            }
            out.set("apiVersion", api_version);
            Some((out, deployment().into()))
        }
    }
    let writer = |manager, at| FieldManager { versions: &Old, ..writer(manager, at) };
    let entry = |manager: &str, version: &str, fields: Value| {
        value!({"manager": manager, "operation": "Update", "apiVersion": version, "fieldsType": "FieldsV1",
            "fieldsV1": fields, "time": "1970-01-01T00:00:01Z"})
    };
    let mut old = stored(object());
    let paused = || value!({"f:spec": {"f:paused": {}}});
    old.set_path(
        &["metadata", "managedFields"],
        value!([entry("gone", "apps/v9", paused()), entry("old", "apps/v0", paused())]),
    );
    let mut new = old.clone();
    new.set_path(&["spec", "replicas"], 5);
    writer("x", 2).update(Some(&old), &mut new);
    assert_eq!(
        owners(&new),
        [r#"old/Update@1: {"f:spec":{"f:paused":{}}}"#, r#"x/Update@2: {"f:spec":{"f:replicas":{}}}"#],
        "what it owns has not changed in its version"
    );
    let mut none = new.clone();
    none.set_path(&["spec", "replicas"], 0);
    writer("x", 3).update(Some(&new), &mut none);
    assert_eq!(owners(&none), [r#"x/Update@3: {"f:spec":{"f:replicas":{}}}"#]);
}

proptest::proptest! {
    /// Whatever is applied twice is the same the second time, and nothing panics on the way.
    #[test]
    fn applying_again_changes_nothing(
        replicas in proptest::option::of(0i64..3),
        names in proptest::collection::vec("[abc]", 0..4),
        images in proptest::collection::vec("[xyz]", 4),
        finalizers in proptest::collection::vec("[pq]", 0..3),
        live in proptest::collection::vec("[abcd]", 0..4),
    ) {
        let unique = |names: &[String]| {
            let mut seen = std::collections::HashSet::new();
            names.iter().filter(|n| seen.insert((*n).clone())).cloned().collect::<Vec<_>>()
        };
        let containers = |names: &[String]| -> Value {
            unique(names).iter().zip(&images).map(|(n, i)| value!({"name": n, "image": i})).collect()
        };
        let mut c = config(value!({"template": {"spec": {"containers": containers(&names)}}}));
        c.set_path(&["metadata", "finalizers"], unique(&finalizers).iter().collect::<Value>());
        if let Some(n) = replicas {
            c.set_path(&["spec", "replicas"], n);
        }
        let mut first = object();
        first.set_path(&["spec", "template", "spec", "containers"], containers(&live));
        writer("a", 1).update(None, &mut first);
        let first = stored(first);
        let once = apply("x", 2, Some(&first), &c, true).unwrap();
        let twice = apply("x", 3, Some(&once), &c, false).unwrap();
        proptest::prop_assert_eq!(once, twice);
    }
}

#[test]
fn what_nobody_knows_the_form_of_is_one_thing() {
    let revision = canopus_schema::kind("apps", "v1", "ControllerRevision").unwrap().get();
    let writer = FieldManager { ty: revision.into(), reset: Reset::NOTHING, ..writer("m", 1) };
    let mut object = value!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r"},
        "data": {"spec": {"x": 1}}, "revision": 1});
    writer.update(None, &mut object);
    let owned = &object["metadata"]["managedFields"][0]["fieldsV1"];
    assert_eq!(*owned, value!({"f:data": {}, "f:revision": {}}));
}
