//! Ownership of a replica count, told of the `scale` subresource and back (upstream's ScaleHandler).

use super::entry::{self, Entry, Error};
use super::set::{Set, field};
use crate::value::Value;
use compact_str::CompactString;

const SCALE_VERSION: &str = "autoscaling/v1";

/// Where each version of a resource keeps its replica count: `("apps/v1", &["spec", "replicas"])`.
pub type ReplicasPaths<'a> = &'a [(&'a str, &'a [&'a str])];

fn steps(names: &[&str]) -> Vec<CompactString> {
    names.iter().map(|name| field(name)).collect()
}

fn path_of(paths: ReplicasPaths<'_>, api_version: &str) -> Option<Vec<CompactString>> {
    paths.iter().find(|(version, _)| *version == api_version).map(|(_, names)| steps(names))
}

fn with_field(entry: &Entry, api_version: &str, path: &[CompactString]) -> Entry {
    let mut set = Set::new();
    set.insert(path);
    Entry { api_version: api_version.into(), set, ..entry.clone() }
}

fn encoded(entries: Vec<Entry>) -> Value {
    let mut holder = Value::object();
    entry::store(entries, &mut holder);
    holder.remove_path(&["metadata", "managedFields"]).unwrap_or_default()
}

/// The managedFields of the Scale of an object that has `parent` as managedFields.
pub fn scale_managed_fields(parent: &Value, paths: ReplicasPaths<'_>) -> Result<Value, Error> {
    let own = |entry: Entry| {
        let path = path_of(paths, &entry.api_version)?;
        entry.set.has(&path).then(|| with_field(&entry, SCALE_VERSION, &steps(&["spec", "replicas"])))
    };
    Ok(encoded(entry::decode(parent.clone(), true)?.into_iter().filter_map(own).collect()))
}

/// The managedFields of the object after its Scale was written with `scale` as managedFields. `api_version` is the
/// object's.
pub fn parent_managed_fields(
    parent: &Value,
    scale: &Value,
    api_version: &str,
    paths: ReplicasPaths<'_>,
) -> Result<Value, Error> {
    let mut scales = entry::decode(scale.clone(), true)?;
    let mut out = Vec::new();
    for mut entry in entry::decode(parent.clone(), true)? {
        let Some(path) = path_of(paths, &entry.api_version) else { continue };
        if entry.set.has(&path) {
            match scales.iter().position(|s| same_writer(s, &entry)) {
                Some(at) => {
                    scales.remove(at);
                }
                None => {
                    let mut stolen = Set::new();
                    stolen.insert(&path);
                    entry.set.subtract(&stolen);
                }
            }
        }
        if !entry.set.is_empty() {
            out.push(entry);
        }
    }
    let replicas = steps(&["spec", "replicas"]);
    if let Some(path) = path_of(paths, api_version) {
        for entry in scales.iter().filter(|s| s.set.has(&replicas)) {
            out.push(with_field(entry, api_version, &path));
        }
    }
    Ok(encoded(out))
}

/// Whether an entry of the scale stands for one of its parent: the version is the one thing that differs.
fn same_writer(scale: &Entry, parent: &Entry) -> bool {
    scale.manager == parent.manager && scale.operation == parent.operation && scale.subresource == parent.subresource
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;

    const PATHS: ReplicasPaths<'static> = &[("apps/v1", &["spec", "replicas"])];

    fn entry(manager: &str, version: &str, sub: &str, fields: Value) -> Value {
        let mut out = value!({"manager": manager, "operation": "Update", "apiVersion": version, "fieldsType": "FieldsV1",
            "fieldsV1": fields, "time": "2026-01-01T00:00:00Z"});
        if !sub.is_empty() {
            out.set("subresource", sub);
        }
        out
    }

    #[test]
    fn there_and_back() {
        let both = value!({"f:spec": {"f:paused": {}, "f:replicas": {}}});
        let replicas = || value!({"f:spec": {"f:replicas": {}}});
        let parent = value!([entry("a", "apps/v1", "", both), entry("b", "extensions/v1", "", replicas())]);
        let scale = scale_managed_fields(&parent, PATHS).unwrap();
        assert_eq!(scale, value!([entry("a", "autoscaling/v1", "", replicas())]));
        // Nothing happened: the count stays where it is. Owners of versions that are gone are forgotten.
        let kept = parent_managed_fields(&parent, &scale, "apps/v1", PATHS).unwrap();
        assert_eq!(kept, value!([parent.items()[0].clone()]));
        let written = value!([entry("scaler", "autoscaling/v1", "scale", replicas())]);
        assert_eq!(
            parent_managed_fields(&parent, &written, "apps/v1", PATHS).unwrap(),
            value!([
                entry("a", "apps/v1", "", value!({"f:spec": {"f:paused": {}}})),
                entry("scaler", "apps/v1", "scale", replicas()),
            ])
        );
    }
}
