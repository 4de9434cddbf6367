//! PersistentVolume: a piece of storage, and the claim it is bound to.

use super::persistentvolumeclaim::{BETA_CLASS, basic};
use super::pod::defaults::{fill, resource_list, volume_sources, with};
use super::pod::legacy_volumes::{self as legacy, initiator};
use super::pod::update::differences;
use super::pod::{Scope, claim_template, paths, scheduling, volumes, warnings};
use crate::checks::{self, IMMUTABLE, in_range, required};
use crate::resource::{Column, Context, Info, Resource, Subresource, age, facts_with_name, name, quantity_text};
use crate::{semantic, strategy};
use canopus_api::{Errors, Facts, Field, Quantity, Time, Value, names, value};

pub struct PersistentVolume;

static INFO: Info = Info {
    singular: "persistentvolume",
    short_names: &["pv"],
    namespaced: false,
    subresources: &[Subresource::status("", "v1", "PersistentVolume")],
    selectable_fields: &["name"],
    ..Info::stored("", "v1", "PersistentVolume", "persistentvolumes")
};

const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";

type Validate = fn(&Field, &str, &mut Errors);

/// A kind of volume: its field, the path upstream blames when it is not the only one, the path it blames for what is
/// inside, whether mount options make sense for it, and its rules, which get the volume's name.
struct Source {
    name: &'static str,
    extra: &'static str,
    inside: &'static str,
    mount_options: bool,
    validate: Validate,
}

const fn source(name: &'static str, mount_options: bool, validate: Validate) -> Source {
    Source { name, extra: name, inside: name, mount_options, validate }
}

const NOWHERE: Scope = Scope { is_pod: false, pod_name: "", is_mirror: false };

/// In the order in which upstream looks for them.
static SOURCES: &[Source] = &[
    source("hostPath", false, |f, _, e| volumes::host_path(f, &NOWHERE, e)),
    Source {
        inside: "persistentDisk",
        ..source("gcePersistentDisk", true, |f, _, e| legacy::gce_persistent_disk(f, &NOWHERE, e))
    },
    source("awsElasticBlockStore", true, |f, _, e| legacy::aws_elastic_block_store(f, &NOWHERE, e)),
    source("glusterfs", true, glusterfs),
    source("flocker", false, |f, _, e| legacy::flocker(f, &NOWHERE, e)),
    source("nfs", true, |f, _, e| volumes::nfs(f, &NOWHERE, e)),
    source("rbd", true, |f, _, e| legacy::rbd(f, &NOWHERE, e)),
    source("quobyte", true, |f, _, e| legacy::quobyte(f, &NOWHERE, e)),
    Source { extra: "cephFS", ..source("cephfs", true, |f, _, e| legacy::cephfs(f, &NOWHERE, e)) },
    source("iscsi", true, iscsi),
    source("cinder", true, cinder),
    source("fc", false, |f, _, e| legacy::fibre_channel(f, &NOWHERE, e)),
    source("flexVolume", false, |f, _, e| legacy::flex_volume(f, &NOWHERE, e)),
    source("azureFile", true, azure_file),
    source("vsphereVolume", true, |f, _, e| needs(f, "volumePath", e)),
    source("photonPersistentDisk", true, |f, _, e| needs(f, "pdID", e)),
    source("portworxVolume", false, |f, _, e| needs(f, "volumeID", e)),
    source("azureDisk", true, |f, _, e| legacy::azure_disk(f, &NOWHERE, e)),
    source("scaleIO", false, |f, _, e| legacy::scale_io(f, &NOWHERE, e)),
    source("local", false, local),
    source("storageos", false, storage_os),
    source("csi", false, csi),
];

impl Resource for PersistentVolume {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        let spec = object.ensure_object().entry("spec", Value::object);
        fill(spec, "persistentVolumeReclaimPolicy", "Retain");
        spec.set_default("volumeMode", "Filesystem");
        with(spec, "capacity", resource_list);
        volume_sources(spec);
        fill(object.ensure_object().entry("status", Value::object), "phase", "Pending");
    }

    fn prepare_create(&self, object: &mut Value, cx: &Context) {
        object.set("status", value!({"phase": "Pending", "lastPhaseTransitionTime": (cx.now)}));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        if cx.subresource != "status" {
            return strategy::keep(new, old, "status");
        }
        strategy::only_status(new, old, &[]);
        const SINCE: &str = "lastPhaseTransitionTime";
        let (before, after) = (&old["status"], new["status"].clone());
        let same = before["phase"] == after["phase"];
        if same && after[SINCE].is_null() {
            if let Some(since) = before.get(SINCE) {
                new.set_path(&["status", SINCE], since);
            }
        } else if !same && (after[SINCE].is_null() || after[SINCE] == before[SINCE]) {
            new.set_path(&["status", SINCE], cx.now);
        }
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        claim(&spec, errors);
        let affinity = spec.at("nodeAffinity");
        if affinity.is_set() {
            let needed = affinity.at("required");
            match needed.is_set() {
                true => scheduling::node_selector(&needed, errors),
                false => errors.required(&needed, "must specify required node constraints"),
            }
        }
        volume(&spec, object.value["metadata"]["name"].str(), errors);
        classes(&spec, errors);
        let with_options = SOURCES.iter().any(|s| s.mount_options && !spec.value[s.name].is_null());
        if !with_options && !object.value["metadata"]["annotations"][MOUNT_OPTIONS].is_null() {
            let meta = object.at("metadata");
            let annotations = meta.at("annotations");
            errors.forbidden(&annotations.at(MOUNT_OPTIONS), "may not specify mount options for this volume type");
        }
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            return;
        }
        self.validate(new, errors);
        immutability(new, old, errors);
    }

    fn facts(&self, object: &Value) -> Facts {
        facts_with_name(object, INFO.selectable_fields)
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings_of(object)
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new(
                    "Capacity",
                    "string",
                    "capacity is the description of the persistent volume's resources and capacity. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#capacity",
                ),
                Column::new(
                    "Access Modes",
                    "string",
                    "accessModes contains all ways the volume can be mounted. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes",
                ),
                Column::new(
                    "Reclaim Policy",
                    "string",
                    "persistentVolumeReclaimPolicy defines what happens to a persistent volume when released from its claim. Valid options are Retain (default for manually created PersistentVolumes), Delete (default for dynamically provisioned PersistentVolumes), and Recycle (deprecated). Recycle must be supported by the volume plugin underlying this PersistentVolume. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#reclaiming",
                ),
                Column::new(
                    "Status",
                    "string",
                    "phase indicates if a volume is available, bound to a claim, or released by a claim. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#phase",
                ),
                Column::new(
                    "Claim",
                    "string",
                    "claimRef is part of a bi-directional binding between PersistentVolume and PersistentVolumeClaim. Expected to be non-nil when bound. claim.VolumeName is the authoritative bind between PV and PVC. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#binding",
                ),
                Column::new("StorageClass", "string", "StorageClass of the pv"),
                Column::new("VolumeAttributesClass", "string", "VolumeAttributesClass of the pv"),
                Column::new(
                    "Reason",
                    "string",
                    "reason is a brief CamelCase string that describes any failure and is meant for machine parsing and tidy display in the CLI.",
                ),
                Column::AGE,
                Column::wide(
                    "VolumeMode",
                    "string",
                    "volumeMode defines if a volume is intended to be used with a formatted filesystem or to remain in raw block state. Value of Filesystem is implied when not included in spec.",
                ),
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let deleting = !object["metadata"]["deletionTimestamp"].is_null();
        let claim = &spec["claimRef"];
        let claim = match claim.is_null() {
            true => String::new(),
            false => format!("{}/{}", claim["namespace"].str(), claim["name"].str()),
        };
        vec![
            name(object),
            quantity_text(&spec["capacity"]["storage"]).into(),
            access_modes_cell(&spec["accessModes"]).into(),
            spec["persistentVolumeReclaimPolicy"].str().into(),
            if deleting { "Terminating" } else { status["phase"].str() }.into(),
            claim.into(),
            class(object).into(),
            spec["volumeAttributesClassName"].as_str().unwrap_or("<unset>").into(),
            status["reason"].str().into(),
            age(object, now),
            spec["volumeMode"].as_str().unwrap_or("<unset>").into(),
        ]
    }
}

/// The class of a volume or claim: the annotation of old counts first.
pub fn class(object: &Value) -> &str {
    let beta = object["metadata"]["annotations"][BETA_CLASS].as_str();
    beta.unwrap_or(object["spec"]["storageClassName"].str())
}

/// `RWO,ROX,RWX,RWOP`: those there are, in this order.
pub fn access_modes_cell(modes: &Value) -> String {
    const SHORT: &[(&str, &str)] =
        &[("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let there = SHORT.iter().filter(|(mode, _)| modes.items().iter().any(|m| m.str() == *mode));
    there.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// What a claim can ask of the volume.
fn claim(spec: &Field, errors: &mut Errors) {
    let (modes, capacity) = (spec.at("accessModes"), spec.at("capacity"));
    required(&modes, errors);
    claim_template::access_modes(&modes, errors);
    required(&capacity, errors);
    if capacity.value.get("storage").is_none() || capacity.value.entries().count() > 1 {
        errors.not_supported(&capacity, &["storage"]);
    }
    for (_, amount) in capacity.entries() {
        basic(&amount, errors);
        let quantity = Quantity::from_value(amount.value).unwrap_or_default();
        if quantity.is_negative() || quantity.is_zero() {
            errors.invalid(&amount.with(&quantity.into()), "must be greater than zero");
        }
    }
    let policy = spec.at("persistentVolumeReclaimPolicy");
    if !policy.str().is_empty() {
        checks::one_of(&policy, &["Delete", "Recycle", "Retain"], errors);
    }
}

/// The spec of a volume that is no object of its own, within a VolumeAttachment.
pub fn inline_spec(spec: &Field, errors: &mut Errors) {
    const INLINE: &str = "may not be specified in the context of inline volumes";
    for field in ["claimRef", "capacity"] {
        if !spec.value[field].is_empty() {
            errors.forbidden(&spec.at(field), INLINE);
        }
    }
    if spec.at("csi").is_unset() {
        errors.required(&spec.at("csi"), "has to be specified in the context of inline volumes");
    }
    let (modes, policy) = (spec.at("accessModes"), spec.at("persistentVolumeReclaimPolicy"));
    required(&modes, errors);
    claim_template::access_modes(&modes, errors);
    if !matches!(policy.str(), "" | "Retain") {
        errors.forbidden(&policy, "may only be Retain in the context of inline volumes");
    }
    for field in ["nodeAffinity", "storageClassName"] {
        if !spec.value[field].is_empty() {
            errors.forbidden(&spec.at(field), INLINE);
        }
    }
    volume(spec, "", errors);
}

fn volume(spec: &Field, name: &str, errors: &mut Errors) {
    let mut found = false;
    for source in SOURCES.iter().filter(|s| !spec.value[s.name].is_null()) {
        if found && source.name != "flexVolume" {
            errors.forbidden(&spec.at(source.extra), "may not specify more than 1 volume type");
        } else {
            (source.validate)(&spec.at(source.inside).with(&spec.value[source.name]), name, errors);
            if source.name == "local" && spec.value["nodeAffinity"].is_null() {
                errors.required(&spec.at("nodeAffinity"), "Local volume requires node affinity");
            }
        }
        found = true;
    }
    if !found {
        errors.required(spec, "must specify a volume type");
    }
    let policy = spec.at("persistentVolumeReclaimPolicy");
    let path = spec.value["hostPath"]["path"].str();
    let is_root = path.starts_with('/') && path.split('/').all(|part| matches!(part, "" | "."));
    if is_root && policy.str() == "Recycle" {
        errors.forbidden(&policy, "may not be 'recycle' for a hostPath mount of '/'");
    }
}

fn classes(spec: &Field, errors: &mut Errors) {
    let (class, attributes) = (spec.at("storageClassName"), spec.at("volumeAttributesClassName"));
    if !class.str().is_empty() {
        checks::check(&class, names::dns1123_subdomain, errors);
    }
    checks::optional_one_of(&spec.at("volumeMode"), &["Block", "Filesystem"], errors);
    if attributes.is_set() {
        if attributes.str().is_empty() {
            errors.required(&attributes, "an empty string is disallowed");
        } else {
            checks::check(&attributes, names::dns1123_subdomain, errors);
        }
        if spec.at("csi").is_unset() {
            errors.required(&spec.at("csi"), "has to be specified when using volumeAttributesClassName");
        }
    }
}

fn immutability(new: &Field, old: &Value, errors: &mut Errors) {
    let (spec, before) = (new.at("spec"), &old["spec"]);
    let source = |spec: &Value| -> Value {
        let mut all = Value::object();
        for source in SOURCES {
            if let Some(value) = spec.get(source.name).filter(|v| !v.is_null()) {
                all.set(source.name, value);
            }
        }
        all
    };
    let (mut after, was) = (source(spec.value), source(before));
    if !was["csi"].is_null() && was["csi"]["controllerExpandSecretRef"].is_null() {
        after.remove_path(&["csi", "controllerExpandSecretRef"]);
    }
    if !semantic::equal(&after, &was) {
        let why = "spec.persistentvolumesource is immutable after creation";
        errors.forbidden(&spec.at("persistentvolumesource"), format!("{why}\n{}", differences(&was, &after)));
    }
    checks::immutable(&new.at("volumeMode").with(&spec.value["volumeMode"]), &before["volumeMode"], errors);
    // MutablePVNodeAffinity is off. Beta labels may still become those that replaced them.
    let affinity = &spec.value["nodeAffinity"];
    if !before["nodeAffinity"].is_null()
        && !semantic::equal(&current_labels(affinity), &current_labels(&before["nodeAffinity"]))
    {
        let why = format!("{IMMUTABLE}, except for updating from beta label to GA");
        errors.invalid(&new.at("nodeAffinity").with(affinity), why);
    }
    let attributes = spec.at("volumeAttributesClassName");
    if attributes.is_unset() && !before["volumeAttributesClassName"].is_null() {
        errors.forbidden(&attributes, "update from non-nil value to nil is forbidden");
    }
}

/// The affinity with its beta labels replaced.
fn current_labels(affinity: &Value) -> Value {
    const NEW: &[(&str, &str)] = &[
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ];
    let mut affinity = affinity.clone();
    let terms = affinity.get_mut("required").and_then(|r| r.get_mut("nodeSelectorTerms")).and_then(Value::as_array_mut);
    for term in terms.into_iter().flatten() {
        for expression in term.get_mut("matchExpressions").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some((_, new)) = NEW.iter().find(|(old, _)| expression["key"].str() == *old) {
                expression.set("key", *new);
            }
        }
    }
    affinity
}

fn needs(source: &Field, field: &str, errors: &mut Errors) {
    required(&source.at(field), errors);
}

fn glusterfs(source: &Field, _: &str, errors: &mut Errors) {
    legacy::glusterfs(source, &NOWHERE, errors);
    let namespace = source.at("endpointsNamespace");
    if namespace.is_set() && namespace.str().is_empty() {
        errors.invalid(&namespace, "if the endpointnamespace is set, it must be a valid namespace name");
    } else if namespace.is_set() {
        checks::check(&namespace, names::dns1123_label, errors);
    }
}

fn iscsi(source: &Field, name: &str, errors: &mut Errors) {
    let (portal, iqn, lun) = (source.at("targetPortal"), source.at("iqn"), source.at("lun"));
    required(&portal, errors);
    let client = source.at("initiatorName");
    if client.is_set() && name.len() + 1 + portal.str().len() > 64 {
        let why = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        errors.invalid(&source.at("targetportal").with(&portal.str().into()), why);
    }
    if required(&iqn, errors) {
        initiator(&iqn, errors);
    }
    in_range(&lun.with(&lun.int().into()), 0, 255, errors);
    let (chap, secret) = (["chapAuthDiscovery", "chapAuthSession"], source.at("secretRef"));
    if secret.is_unset() && chap.iter().any(|f| source.value[*f].bool()) {
        errors.required(&secret, "");
    }
    if secret.is_set() {
        required(&secret.at("name"), errors);
    }
    if client.is_set() {
        initiator(&source.at("initiatorname").with(client.value), errors);
    }
}

/// A secret's name and namespace, both needed.
fn secret_of(source: &Field, errors: &mut Errors) {
    let secret = source.at("secretRef");
    if secret.is_set() {
        required(&secret.at("name"), errors);
        required(&secret.at("namespace"), errors);
    }
}

fn cinder(source: &Field, _: &str, errors: &mut Errors) {
    required(&source.at("volumeID"), errors);
    secret_of(source, errors);
}

fn azure_file(source: &Field, _: &str, errors: &mut Errors) {
    legacy::azure_file(source, &NOWHERE, errors);
    let namespace = source.at("secretNamespace");
    if namespace.is_set() {
        required(&namespace, errors);
    }
}

fn local(source: &Field, _: &str, errors: &mut Errors) {
    let path = source.at("path");
    if required(&path, errors) {
        paths::no_backsteps(&path, errors);
    }
}

fn storage_os(source: &Field, _: &str, errors: &mut Errors) {
    checks::required_check(&source.at("volumeName"), names::dns1123_label, errors);
    let namespace = source.at("volumeNamespace");
    if !namespace.str().is_empty() {
        checks::check(&namespace, names::dns1123_label, errors);
    }
    secret_of(source, errors);
}

fn csi(source: &Field, _: &str, errors: &mut Errors) {
    volumes::csi_driver(&source.at("driver"), errors);
    required(&source.at("volumeHandle"), errors);
    for secret in
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
    {
        let secret = source.at(secret);
        if secret.is_set() {
            checks::required_check(&secret.at("name"), names::dns1123_subdomain, errors);
            checks::required_check(&secret.at("namespace"), names::dns1123_label, errors);
        }
    }
}

fn warnings_of(object: &Value) -> Vec<String> {
    const ANNOTATIONS: &[(&str, &str)] = &[
        (BETA_CLASS, "deprecated since v1.8; use \"storageClassName\" attribute instead"),
        (MOUNT_OPTIONS, "deprecated since v1.31; use \"mountOptions\" attribute instead"),
    ];
    const GONE: &[(&str, &str, &str)] = &[
        ("cephfs", "cephfs", "v1.28, non-functional in v1.31+"),
        ("photonPersistentDisk", "photonPersistentDisk", "v1.11, non-functional in v1.16+"),
        ("scaleIO", "scaleIO", "v1.16, non-functional in v1.22+"),
        ("storageos", "storageOS", "v1.22, non-functional in v1.25+"),
        ("glusterfs", "glusterfs", "v1.25, non-functional in v1.26+"),
        ("rbd", "rbd", "v1.28, non-functional in v1.31+"),
    ];
    let (mut out, spec) = (Vec::new(), &object["spec"]);
    for (key, why) in ANNOTATIONS {
        if !object["metadata"]["annotations"][*key].is_null() {
            out.push(format!("metadata.annotations[{key}]: {why}"));
        }
    }
    if spec["persistentVolumeReclaimPolicy"].str() == "Recycle" {
        out.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".into());
    }
    let root = Field::root(object);
    let spec_field = root.at("spec");
    let affinity = spec_field.at("nodeAffinity");
    let needed = affinity.at("required");
    needed.at("nodeSelectorTerms").items().for_each(|term| warnings::node_selector_term(&term, false, &mut out));
    for (field, shown, since) in GONE {
        if !spec[*field].is_null() {
            out.push(format!("spec.{shown}: deprecated in {since}"));
        }
    }
    out
}

#[cfg(test)]
#[path = "persistentvolume_tests.rs"]
mod tests;
