use super::*;
use crate::testing::{cells, context, create, update};

/// A good volume with these fields of its spec changed.
fn with_spec(spec: Value) -> Value {
    let mut object =
        value!({"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}});
    spec.entries().for_each(|(field, value)| object.set_path(&["spec", field], value));
    object
}

fn node(label: &str) -> Value {
    value!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": label, "operator": "In", "values": ["a"]}]}]}})
}

#[test]
fn rules() {
    let path = || value!({"path": "/a"});
    let cases: Vec<(Value, &[&str])> = vec![
        (value!({"hostPath": path()}), &[]),
        (value!({}), &["spec: Required value: must specify a volume type"]),
        (
            value!({"hostPath": path(), "nfs": {"server": "s", "path": "/"}}),
            &["spec.nfs: Forbidden: may not specify more than 1 volume type"],
        ),
        (value!({"local": path()}), &["spec.nodeAffinity: Required value: Local volume requires node affinity"]),
        (value!({"local": path(), "nodeAffinity": node("kubernetes.io/hostname")}), &[]),
        (
            value!({"hostPath": {"path": "/."}, "persistentVolumeReclaimPolicy": "Recycle"}),
            &["spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"],
        ),
        (
            value!({"hostPath": path(), "accessModes": ["X"], "capacity": {"storage": 0}, "volumeAttributesClassName": ""}),
            &[
                r#"spec.accessModes: Unsupported value: "X": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod""#,
                r#"spec.capacity[storage]: Invalid value: "0": must be greater than zero"#,
                "spec.volumeAttributesClassName: Required value: an empty string is disallowed",
                "spec.csi: Required value: has to be specified when using volumeAttributesClassName",
            ],
        ),
        (
            value!({"csi": {"driver": "d.x", "nodePublishSecretRef": {"name": "s"}}}),
            &["spec.csi.volumeHandle: Required value", "spec.csi.nodePublishSecretRef.namespace: Required value"],
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(create(&PersistentVolume, with_spec(spec)), expected);
    }
}

#[test]
fn what_is_behind_a_volume_stays() {
    let of = |path: &str, label: &str| with_spec(value!({"hostPath": {"path": path}, "nodeAffinity": node(label)}));
    let old = "failure-domain.beta.kubernetes.io/zone";
    assert_eq!(update(&PersistentVolume, "", of("/a", old), of("/a", "topology.kubernetes.io/zone")), [""; 0]);
    let found = update(&PersistentVolume, "", of("/a", "b"), of("/b", "c"));
    assert_eq!(
        found[0],
        "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n-hostPath.path: \"/a\"\n+hostPath.path: \"/b\""
    );
    assert!(
        found[1].starts_with("nodeAffinity: Invalid value: ")
            && found[1].ends_with("except for updating from beta label to GA")
    );
}

#[test]
fn phases_have_a_time() {
    let old = value!({"spec": {}, "status": {"phase": "Pending", "lastPhaseTransitionTime": "2020-01-01T00:00:00Z"}});
    for (phase, time) in [("Pending", "2020-01-01T00:00:00Z"), ("Bound", "1970-01-01T00:00:00Z")] {
        let mut new = value!({"spec": {"x": 1}, "status": {"phase": phase}});
        PersistentVolume.prepare_update(&mut new, &old, &context("status"));
        assert_eq!(new["spec"], value!({}));
        assert_eq!(new["status"], value!({"phase": phase, "lastPhaseTransitionTime": time}));
    }
}

#[test]
fn rows_and_warnings() {
    let mut object =
        with_spec(value!({"glusterfs": {}, "claimRef": {"namespace": "n", "name": "c"}, "storageClassName": "s",
        "nodeAffinity": node("beta.kubernetes.io/os")}));
    object.set("status", value!({"phase": "Bound"}));
    assert_eq!(
        cells(&PersistentVolume, &object),
        ["v", "1Gi", "RWO", "", "Bound", "n/c", "s", "<unset>", "", "<unknown>", "<unset>"]
    );
    assert_eq!(
        PersistentVolume.warnings(&object, None),
        [
            "spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: beta.kubernetes.io/os is deprecated since v1.14; use \"kubernetes.io/os\" instead",
            "spec.glusterfs: deprecated in v1.25, non-functional in v1.26+",
        ]
    );
}
