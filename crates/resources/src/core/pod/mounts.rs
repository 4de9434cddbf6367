//! Where a container has its volumes.

use super::paths::{local_descending, no_backsteps};
use super::volumes::Volumes;
use crate::checks::{self, required};
use canopus_api::{Errors, Field, Value};

/// Checks a container's `volumeMounts` and `volumeDevices` against the pod's volumes.
pub fn mounts(container: &Field, volumes: &Volumes, errors: &mut Errors) {
    let (mounts, devices) = (container.at("volumeMounts"), container.at("volumeDevices"));
    let privileged = container.value.path(&["securityContext", "privileged"]).bool();
    let mut seen = checks::Seen::new();
    for mount in mounts.items() {
        mount_point(&mount, devices.value, volumes, &mut seen, errors);
        options(&mounts, &mount, privileged, errors);
    }
    volume_devices(&devices, mounts.value, volumes, errors);
}

fn mount_point(mount: &Field, devices: &Value, volumes: &Volumes, seen: &mut checks::Seen, errors: &mut Errors) {
    let (name, path) = (mount.at("name"), mount.at("mountPath"));
    required(&name, errors);
    if !volumes.contains_key(name.str()) {
        errors.not_found(&name.with(&name.str().into()));
    }
    required(&path, errors);
    if !seen.insert(path.str().into()) {
        errors.invalid(&path, "must be unique");
    }
    if devices.items().iter().any(|d| d["name"].str() == name.str()) {
        errors.invalid(&name, "must not already exist in volumeDevices");
    }
    if devices.items().iter().any(|d| d["devicePath"].str() == path.str()) {
        errors.invalid(&path, "must not already exist as a path in volumeDevices");
    }
}

/// Upstream names the list, not the mount, in most of these.
fn options(mounts: &Field, mount: &Field, privileged: bool, errors: &mut Errors) {
    let place = mounts.with(mount.value);
    let (path, expression) = (place.at("subPath"), place.at("subPathExpr"));
    if !path.str().is_empty() {
        local_descending(&path, errors);
    }
    if !expression.str().is_empty() {
        if !path.str().is_empty() {
            errors.invalid(&mount.at("subPathExpr"), "subPathExpr and subPath are mutually exclusive");
        }
        local_descending(&expression, errors);
    }
    let propagation = place.at("mountPropagation");
    checks::optional_one_of(&propagation, &["Bidirectional", "HostToContainer", "None"], errors);
    if propagation.str() == "Bidirectional" && !privileged {
        errors.forbidden(&propagation, "Bidirectional mount propagation is available only to privileged containers");
    }
    let recursive = place.at("recursiveReadOnly");
    if matches!(recursive.str(), "Enabled" | "IfPossible") {
        if !mount.value["readOnly"].bool() {
            errors.forbidden(&recursive, "may only be specified when readOnly is true");
        }
        if propagation.is_set() && propagation.str() != "None" {
            errors.forbidden(&recursive, "may only be specified when mountPropagation is None or not specified");
        }
    } else {
        checks::optional_one_of(&recursive, &["Disabled", "Enabled", "IfPossible"], errors);
    }
}

fn volume_devices(devices: &Field, mounts: &Value, volumes: &Volumes, errors: &mut Errors) {
    let (mut names, mut paths) = (checks::Seen::new(), checks::Seen::new());
    for device in devices.items() {
        let (name, path) = (device.at("name"), device.at("devicePath"));
        required(&name, errors);
        if !name.str().is_empty() && !names.insert(name.str().into()) {
            errors.invalid(&name, "must be unique");
        }
        match volumes.get(name.str()) {
            None => errors.not_found(&name.with(&name.str().into())),
            Some(volume) if volume["persistentVolumeClaim"].is_null() && volume["ephemeral"].is_null() => {
                let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(&name, why);
            }
            Some(_) => {}
        }
        required(&path, errors);
        if paths.contains(path.str()) {
            errors.invalid(&path, "must be unique");
        }
        let mut back = Errors::new();
        no_backsteps(&path, &mut back);
        if back.is_empty() {
            paths.insert(path.str().into());
        } else {
            errors.invalid(&path, "can not contain backsteps ('..')");
        }
        if mounts.items().iter().any(|m| m["name"].str() == name.str()) {
            errors.invalid(&name, "must not already exist in volumeMounts");
        }
        if mounts.items().iter().any(|m| m["mountPath"].str() == path.str()) {
            errors.invalid(&path, "must not already exist as a path in volumeMounts");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::texts;
    use canopus_api::value;

    #[test]
    fn mounts_and_devices() {
        let (disk, dir) = (value!({"persistentVolumeClaim": {"claimName": "c"}}), value!({"emptyDir": {}}));
        let volumes: Volumes = [("disk", &disk), ("dir", &dir)].into();
        let mount = |name: &str, path: &str| value!({"name": name, "mountPath": path});
        let cases: Vec<(Value, &[&str])> = vec![
            (
                value!({"volumeMounts": [mount("dir", "/a"), mount("dir", "/b")], "volumeDevices": [{"name": "disk", "devicePath": "/dev/x"}]}),
                &[],
            ),
            (value!({"volumeMounts": [mount("nope", "/a")]}), &[r#"c.volumeMounts[0].name: Not found: "nope""#]),
            (
                value!({"volumeMounts": [mount("dir", "/a"), mount("dir", "/a")]}),
                &[r#"c.volumeMounts[1].mountPath: Invalid value: "/a": must be unique"#],
            ),
            (
                value!({"volumeMounts": [{"name": "dir", "mountPath": "/a", "subPath": "/x", "mountPropagation": "Bidirectional"}]}),
                &[
                    r#"c.volumeMounts.subPath: Invalid value: "/x": must be a relative path"#,
                    "c.volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
                ],
            ),
            (
                value!({"volumeMounts": [{"name": "dir", "mountPath": "/a", "recursiveReadOnly": "Enabled"}]}),
                &["c.volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true"],
            ),
            (
                value!({"volumeDevices": [{"name": "dir", "devicePath": "/dev/../x"}]}),
                &[
                    r#"c.volumeDevices[0].name: Invalid value: "dir": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"#,
                    r#"c.volumeDevices[0].devicePath: Invalid value: "/dev/../x": can not contain backsteps ('..')"#,
                ],
            ),
        ];
        for (container, expected) in cases {
            let root = value!({"c": container});
            let mut errors = Errors::new();
            mounts(&Field::root(&root).at("c"), &volumes, &mut errors);
            assert_eq!(texts(&errors), expected);
        }
    }
}
