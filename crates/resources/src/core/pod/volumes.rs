//! A pod's volumes: names, and the one source that each must have.

use super::paths::{is_absolute, local_descending, local_non_reserved, mode, no_backsteps};
use super::projected::{downward_api, projected};
use super::{Scope, claim_template, legacy_volumes as legacy};
use crate::checks::{self, required};
use canopus_api::{Errors, Field, Quantity, Value, names};

/// One kind of volume source.
struct Source {
    name: &'static str,
    /// The path upstream blames when it is not the only one, where that differs from the name.
    extra: &'static str,
    /// The path upstream blames for what is inside, where that differs from the name.
    inside: &'static str,
    validate: fn(&Field, &Scope, &mut Errors),
}

const fn source(name: &'static str, validate: fn(&Field, &Scope, &mut Errors)) -> Source {
    Source { name, extra: name, inside: name, validate }
}

/// In the order in which upstream looks for them: the first found is the volume's kind, the others are too many.
static SOURCES: &[Source] = &[
    source("emptyDir", empty_dir),
    source("hostPath", host_path),
    source("gitRepo", git_repo),
    Source { inside: "persistentDisk", ..source("gcePersistentDisk", legacy::gce_persistent_disk) },
    source("awsElasticBlockStore", legacy::aws_elastic_block_store),
    source("secret", secret),
    source("nfs", nfs),
    source("iscsi", legacy::iscsi),
    source("glusterfs", legacy::glusterfs),
    source("flocker", legacy::flocker),
    source("persistentVolumeClaim", claim),
    source("rbd", legacy::rbd),
    source("cinder", legacy::cinder),
    Source { extra: "cephFS", ..source("cephfs", legacy::cephfs) },
    source("quobyte", legacy::quobyte),
    Source { extra: "downwarAPI", ..source("downwardAPI", |f, _, e| downward_api(f, e)) },
    source("fc", legacy::fibre_channel),
    source("flexVolume", legacy::flex_volume),
    source("configMap", config_map),
    source("azureFile", legacy::azure_file),
    source("vsphereVolume", |f, _, e| {
        required(&f.at("volumePath"), e);
    }),
    source("photonPersistentDisk", |f, _, e| {
        required(&f.at("pdID"), e);
    }),
    source("portworxVolume", |f, _, e| {
        required(&f.at("volumeID"), e);
    }),
    source("azureDisk", legacy::azure_disk),
    source("storageos", legacy::storage_os),
    source("projected", |f, _, e| projected(f, e)),
    source("scaleIO", legacy::scale_io),
    source("csi", csi),
    source("ephemeral", ephemeral),
    source("image", image),
];

/// Names of the volumes without errors, with their definition: what mounts may refer to.
pub type Volumes<'a> = std::collections::BTreeMap<&'a str, &'a Value>;

/// Checks `spec.volumes`.
pub fn volumes<'a>(list: &Field<'a>, scope: &Scope, errors: &mut Errors) -> Volumes<'a> {
    let mut good = Volumes::new();
    let created = |claim: &str| {
        let mut ephemeral = list.value.items().iter().filter(|v| !v["ephemeral"].is_null());
        !scope.pod_name.is_empty() && ephemeral.any(|v| claim == format!("{}-{}", scope.pod_name, v["name"].str()))
    };
    for (volume, value) in list.items().zip(list.value.items()) {
        let before = errors.len();
        volume_source(&volume, scope, errors);
        let name = volume.at("name");
        checks::required_check(&name, names::dns1123_label, errors);
        if good.contains_key(name.str()) {
            errors.duplicate(&name);
        }
        if errors.len() == before {
            good.insert(value["name"].str(), value);
        }
        let claim = volume.at("persistentVolumeClaim");
        let claim = claim.at("claimName");
        if !claim.str().is_empty() && created(claim.str()) {
            errors.invalid(&claim, "must not reference a PVC that gets created for an ephemeral volume");
        }
    }
    good
}

fn volume_source(volume: &Field, scope: &Scope, errors: &mut Errors) {
    let mut found = false;
    for source in SOURCES {
        let value = volume.value.at(source.name);
        if value.is_null() {
            continue;
        }
        if found {
            errors.forbidden(&volume.at(source.extra), "may not specify more than 1 volume type");
        } else {
            (source.validate)(&volume.at(source.inside).with(value), scope, errors);
            by_name(volume, source.name, scope, errors);
        }
        found = true;
    }
    if !found {
        errors.required(volume, "must specify a volume type");
    }
}

/// What a source demands of the volume's name.
fn by_name(volume: &Field, source: &str, scope: &Scope, errors: &mut Errors) {
    let name = volume.at("name");
    match source {
        "iscsi" => {
            let iscsi = volume.value.at("iscsi");
            if !iscsi["initiatorName"].is_null() && name.str().len() + 1 + iscsi["targetPortal"].str().len() > 64 {
                let why = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
                errors.invalid(&name, why);
            }
        }
        "ephemeral" if !scope.pod_name.is_empty() && !name.str().is_empty() => {
            let claim = format!("{}-{}", scope.pod_name, name.str());
            for why in names::dns1123_subdomain(&claim) {
                errors.invalid(&name, format!("PVC name {claim:?}: {why}"));
            }
        }
        _ => {}
    }
}

fn empty_dir(source: &Field, _: &Scope, errors: &mut Errors) {
    let limit = source.at("sizeLimit");
    if limit.is_set() && Quantity::from_value(limit.value).is_none_or(|q| q.is_negative()) {
        errors.forbidden(&limit, "SizeLimit field must be a valid resource quantity");
    }
}

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

pub fn host_path(source: &Field, _: &Scope, errors: &mut Errors) {
    let path = source.at("path");
    if required(&path, errors) {
        no_backsteps(&path, errors);
        checks::optional_one_of(&source.at("type"), HOST_PATH_TYPES, errors);
    }
}

fn git_repo(source: &Field, _: &Scope, errors: &mut Errors) {
    required(&source.at("repository"), errors);
    local_descending(&source.at("directory"), errors);
}

fn secret(source: &Field, _: &Scope, errors: &mut Errors) {
    required(&source.at("secretName"), errors);
    keyed(source, errors);
}

fn config_map(source: &Field, _: &Scope, errors: &mut Errors) {
    required(&source.at("name"), errors);
    keyed(source, errors);
}

fn keyed(source: &Field, errors: &mut Errors) {
    mode(&source.at("defaultMode"), errors);
    for item in source.at("items").items() {
        key_to_path(&item, errors);
    }
}

/// An item of a Secret's or ConfigMap's `items`.
pub fn key_to_path(item: &Field, errors: &mut Errors) {
    required(&item.at("key"), errors);
    let path = item.at("path");
    required(&path, errors);
    local_non_reserved(&path, errors);
    mode(&item.at("mode"), errors);
}

fn claim(source: &Field, _: &Scope, errors: &mut Errors) {
    required(&source.at("claimName"), errors);
}

pub fn nfs(source: &Field, _: &Scope, errors: &mut Errors) {
    required(&source.at("server"), errors);
    let path = source.at("path");
    required(&path, errors);
    if !is_absolute(path.str()) {
        errors.invalid(&path.with(&path.str().into()), "must be an absolute path");
    }
}

fn csi(source: &Field, _: &Scope, errors: &mut Errors) {
    csi_driver(&source.at("driver"), errors);
    let secret = source.at("nodePublishSecretRef");
    if secret.is_set() {
        let name = secret.at("name");
        if required(&name, errors) {
            checks::check(&source.at("name").with(name.value), names::dns1123_subdomain, errors);
        }
    }
}

/// The name of a CSI driver (upstream `ValidateCSIDriverName`).
pub fn csi_driver(driver: &Field, errors: &mut Errors) {
    if !required(driver, errors) {
        return;
    }
    if driver.str().len() > 63 {
        errors.too_long(driver, 63);
    }
    for why in names::dns1123_subdomain(&driver.str().to_lowercase()) {
        errors.invalid(driver, why);
    }
}

fn ephemeral(source: &Field, _: &Scope, errors: &mut Errors) {
    let template = source.at("volumeClaimTemplate");
    if template.is_set() {
        claim_template::validate(&template, errors);
    } else {
        errors.required(&template, "");
    }
}

fn image(source: &Field, scope: &Scope, errors: &mut Errors) {
    if scope.is_pod {
        required(&source.at("reference"), errors);
    }
    checks::required_one_of(&source.at("pullPolicy"), super::containers::PULL_POLICIES, errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::texts;
    use canopus_api::value;

    fn check(list: Value) -> Vec<String> {
        let root = value!({"volumes": list});
        let mut errors = Errors::new();
        volumes(
            &Field::root(&root).at("volumes"),
            &Scope { is_pod: true, pod_name: "p", is_mirror: false },
            &mut errors,
        );
        texts(&errors)
    }

    #[test]
    fn sources() {
        let cases: Vec<(Value, &[&str])> = vec![
            (value!([{"name": "a", "emptyDir": {}}]), &[]),
            (
                value!([{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]),
                &[r#"volumes[1].name: Duplicate value: "a""#],
            ),
            (value!([{"name": "a"}]), &["volumes[0]: Required value: must specify a volume type"]),
            (
                value!([{"name": "a", "emptyDir": {}, "downwardAPI": {}}]),
                &["volumes[0].downwarAPI: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                value!([{"emptyDir": {"sizeLimit": "-1"}}]),
                &[
                    "volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
                    "volumes[0].name: Required value",
                ],
            ),
            (
                value!([{"name": "a", "hostPath": {"path": "/a/../b", "type": "Dir"}}]),
                &[
                    r#"volumes[0].hostPath.path: Invalid value: "/a/../b": must not contain '..'"#,
                    r#"volumes[0].hostPath.type: Unsupported value: "Dir": supported values: "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket""#,
                ],
            ),
            (
                value!([{"name": "a", "secret": {"defaultMode": 512, "items": [{"key": "k", "path": "..x"}]}}]),
                &[
                    "volumes[0].secret.secretName: Required value",
                    "volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
                    r#"volumes[0].secret.items[0].path: Invalid value: "..x": must not start with '..'"#,
                ],
            ),
            (
                value!([{"name": "a", "nfs": {"server": "s", "path": "x"}}]),
                &[r#"volumes[0].nfs.path: Invalid value: "x": must be an absolute path"#],
            ),
            (value!([{"name": "a", "csi": {"driver": ""}}]), &["volumes[0].csi.driver: Required value"]),
            (value!([{"name": "a", "gcePersistentDisk": {}}]), &["volumes[0].persistentDisk.pdName: Required value"]),
            (
                value!([{"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"],
                "volumeMode": "Filesystem", "resources": {"requests": {"storage": "1Gi"}}}}}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "p-e"}}]),
                &[
                    r#"volumes[1].persistentVolumeClaim.claimName: Invalid value: "p-e": must not reference a PVC that gets created for an ephemeral volume"#,
                ],
            ),
            (
                value!([{"name": "a", "ephemeral": {"volumeClaimTemplate": {"metadata": {"name": "x"}, "spec": {}}}}]),
                &[
                    "volumes[0].ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set",
                    "volumes[0].ephemeral.volumeClaimTemplate.spec.accessModes: Required value: at least 1 access mode is required",
                    "volumes[0].ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value",
                ],
            ),
            (
                value!([{"name": "a", "image": {"pullPolicy": "Always"}}]),
                &["volumes[0].image.reference: Required value"],
            ),
        ];
        for (list, expected) in cases {
            assert_eq!(check(list), expected);
        }
    }
}
