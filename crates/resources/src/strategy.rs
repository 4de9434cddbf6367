//! Pieces of preparing a write that kinds combine in their own ways.

use canopus_api::Value;

/// Puts back a top-level field of the object, or removes it.
pub fn keep(new: &mut Value, old: &Value, field: &str) {
    match old.get(field) {
        Some(value) => new.set(field, value),
        None => {
            new.remove(field);
        }
    }
}

/// What of metadata a write of the status leaves as it was, for kinds that do so (upstream `ResetObjectMetaForStatus`).
pub const STATUS_METADATA: &[&str] = &["labels", "annotations", "finalizers", "ownerReferences"];

/// The usual preparation of an update, of kinds whose status is all that a write of the status changes.
pub fn sealed_status(new: &mut Value, old: &Value, subresource: &str) {
    match subresource {
        "status" => only_status(new, old, STATUS_METADATA),
        _ => keep(new, old, "status"),
    }
}

/// For a `status` subresource through which metadata may change as well: all but metadata and status stays as it was,
/// and so do these fields of metadata.
pub fn only_status(new: &mut Value, old: &Value, kept_metadata: &[&str]) {
    let fields: std::collections::BTreeSet<String> =
        new.entries().chain(old.entries()).map(|(field, _)| field.to_string()).collect();
    for field in fields.iter().filter(|f| !matches!(f.as_str(), "metadata" | "status" | "apiVersion" | "kind")) {
        keep(new, old, field);
    }
    keep_metadata(new, old, kept_metadata);
}

/// Puts back fields of metadata.
pub fn keep_metadata(new: &mut Value, old: &Value, fields: &[&str]) {
    let meta = new.obj_mut("metadata");
    for field in fields {
        match old["metadata"].get(field) {
            Some(value) => meta.insert(*field, value),
            None => meta.remove(field),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn status_writes_change_status_and_metadata() {
        let old = value!({"kind": "X", "metadata": {"labels": {"a": "1"}}, "spec": {"n": 1}, "status": {"s": 1}});
        let mut new = value!({"kind": "X", "metadata": {"annotations": {"b": "2"}}, "spec": {"n": 2}, "other": 1, "status": {"s": 2}});
        only_status(&mut new, &old, &["labels"]);
        let expected = value!({"kind": "X", "metadata": {"labels": {"a": "1"}, "annotations": {"b": "2"}}, "spec": {"n": 1}, "status": {"s": 2}});
        assert_eq!(new, expected);
    }

    #[test]
    fn sealed_status_changes_no_metadata() {
        let old = value!({"metadata": {"labels": {"a": "1"}}, "spec": {"n": 1}, "status": {"s": 1}});
        let changed = value!({"metadata": {"annotations": {"b": "2"}}, "spec": {"n": 2}, "status": {"s": 2}});
        let (mut object, mut status) = (changed.clone(), changed);
        sealed_status(&mut object, &old, "");
        assert_eq!(object, value!({"metadata": {"annotations": {"b": "2"}}, "spec": {"n": 2}, "status": {"s": 1}}));
        sealed_status(&mut status, &old, "status");
        assert_eq!(status, value!({"metadata": {"labels": {"a": "1"}}, "spec": {"n": 1}, "status": {"s": 2}}));
    }
}
