//! Volumes that show the API's own data as files: downwardAPI and projected.

use super::env::{VOLUME_FIELDS, field_selector, resource_selector};
use super::paths::{local_non_reserved, mode};
use super::volumes::key_to_path;
use crate::checks::required;
use canopus_api::{Errors, Field};
use std::collections::BTreeSet;

/// A `downwardAPI` volume. As upstream, errors name the volume source, not the item.
pub fn downward_api(source: &Field, errors: &mut Errors) {
    mode(&source.at("defaultMode"), errors);
    for item in source.at("items").items() {
        file(source, &item, errors);
    }
}

/// One file of `item`, with errors at `place`.
fn file(place: &Field, item: &Field, errors: &mut Errors) {
    let place = place.with(item.value);
    let path = place.at("path");
    required(&path, errors);
    local_non_reserved(&path, errors);
    let (field, resource) = (place.at("fieldRef"), place.at("resourceFieldRef"));
    match (field.is_set(), resource.is_set()) {
        (true, both) => {
            field_selector(&field, VOLUME_FIELDS, errors);
            if both {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(&place.with(&"resource".into()), why);
            }
        }
        (false, true) => resource_selector(&resource, true, errors),
        (false, false) => errors.required(&place, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(&place.at("mode"), errors);
}

/// A `projected` volume: several sources in one directory, whose paths must not collide.
pub fn projected(volume: &Field, errors: &mut Errors) {
    mode(&volume.at("defaultMode"), errors);
    let mut paths = BTreeSet::new();
    for source in volume.at("sources").items() {
        let mut kinds = 0;
        for kind in ["secret", "configMap"] {
            let part = source.at(kind);
            if part.is_set() {
                kinds += 1;
                keyed(volume, &part, &mut paths, errors);
            }
        }
        let part = source.at("downwardAPI");
        if part.is_set() {
            kinds += 1;
            for item in part.at("items").items() {
                file(&part, &item, errors);
                let path = item.at("path");
                if !path.str().is_empty() && !paths.insert(path.str().to_owned()) {
                    errors.invalid(&volume.with(path.value), "conflicting duplicate paths");
                }
            }
        }
        let part = source.at("serviceAccountToken");
        if part.is_set() {
            kinds += 1;
            token(volume, &part, errors);
        }
        if kinds > 1 {
            errors.forbidden(&source, "may not specify more than 1 volume type per source");
        }
    }
}

fn keyed(volume: &Field, part: &Field, paths: &mut BTreeSet<String>, errors: &mut Errors) {
    let name = part.at("name");
    required(&name, errors);
    for item in part.at("items").items() {
        key_to_path(&item, errors);
        let path = item.at("path");
        if !path.str().is_empty() && !paths.insert(path.str().to_owned()) {
            errors.invalid(&volume.with(&name.str().into()), "conflicting duplicate paths");
        }
    }
}

fn token(volume: &Field, part: &Field, errors: &mut Errors) {
    let expiry = part.at("expirationSeconds");
    if expiry.int() < 10 * 60 {
        errors.invalid(&expiry, "may not specify a duration less than 10 minutes");
    }
    if expiry.int() > 1 << 32 {
        errors.invalid(&expiry, "may not specify a duration larger than 2^32 seconds");
    }
    // Upstream blames a path of the volume itself.
    let (path, place) = (part.at("path"), volume.at("path"));
    let place = place.with(path.value);
    if required(&place, errors) {
        local_non_reserved(&place, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::texts;
    use canopus_api::{Value, value};

    #[test]
    fn paths_and_sources() {
        let key = |path: &str| value!({"key": "k", "path": path});
        let cases: Vec<(Value, &[&str])> = vec![
            (
                value!({"sources": [{"secret": {"name": "a", "items": [key("x")]}}, {"configMap": {"name": "b", "items": [key("x")]}}]}),
                &[r#"v: Invalid value: "b": conflicting duplicate paths"#],
            ),
            (
                value!({"sources": [{"serviceAccountToken": {"path": "", "expirationSeconds": 1}}]}),
                &[
                    "v.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
                    "v.path: Required value",
                ],
            ),
            (
                value!({"sources": [{"secret": {"name": "a"}, "configMap": {"name": "b"}}]}),
                &["v.sources[0]: Forbidden: may not specify more than 1 volume type per source"],
            ),
            (
                value!({"sources": [{"downwardAPI": {"items": [{"path": "x"}]}}]}),
                &["v.sources[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required"],
            ),
            (
                value!({"sources": [{"downwardAPI": {"items": [{"path": "x", "resourceFieldRef": {"resource": "limits.cpu"}}]}}]}),
                &["v.sources[0].downwardAPI.resourceFieldRef.containerName: Required value"],
            ),
        ];
        for (volume, expected) in cases {
            let root = value!({"v": volume});
            let mut errors = Errors::new();
            projected(&Field::root(&root).at("v"), &mut errors);
            assert_eq!(texts(&errors), expected);
        }
    }
}
