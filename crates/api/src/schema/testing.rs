//! Tables for tests: a small Deployment, built as those of custom resources are.

use canopus_schema::{Empty, Field, FieldType, ListKind, PatchStrategy, Shape, Type, TypeId};
use std::sync::LazyLock;

pub(crate) fn deployment() -> &'static Type {
    static TYPE: LazyLock<&'static Type> = LazyLock::new(build);
    *TYPE
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn ty(name: &'static str, shape: Shape, atomic: bool, mut fields: Vec<Field>) -> FieldType {
    fields.sort_by_key(|f| f.name);
    FieldType::Ref(TypeId(leak(Type {
        index: 0,
        name,
        shape,
        fields: Vec::leak(fields),
        atomic,
        kind: None,
        wire: &[],
    })))
}

fn field(name: &'static str, ty: FieldType) -> Field {
    let patch = PatchStrategy { merge_key: None, merge: false, replace: false, retain_keys: false };
    Field {
        name,
        ty,
        required: false,
        empty: Empty::Omitted,
        list: ListKind::Atomic,
        listed: true,
        map_atomic: None,
        patch,
        default: None,
    }
}

fn array(of: FieldType) -> FieldType {
    FieldType::Array(leak(of))
}

fn map(of: FieldType) -> FieldType {
    FieldType::Map(leak(of))
}

/// A list of objects by key, merged by the first of the keys.
fn by_key(name: &'static str, of: FieldType, keys: &'static [&'static str]) -> Field {
    let patch = PatchStrategy { merge_key: Some(keys[0]), merge: true, replace: false, retain_keys: false };
    Field { list: ListKind::Map(keys), patch, ..field(name, array(of)) }
}

fn set(name: &'static str) -> Field {
    let patch = PatchStrategy { merge_key: None, merge: true, replace: false, retain_keys: false };
    Field { list: ListKind::Set, patch, ..field(name, array(FieldType::String)) }
}

fn required(field: Field) -> Field {
    Field { required: true, empty: Empty::Written, ..field }
}

fn embedded(name: &'static str, ty: FieldType) -> Field {
    Field { default: Some("{}"), ..field(name, ty) }
}

fn build() -> &'static Type {
    use FieldType::{Bool, Int32, Int64, String};
    let obj = |name, fields| ty(name, Shape::Object, false, fields);
    let leaf = |name, shape| ty(name, shape, false, Vec::new());
    let time = leaf("io.k8s.apimachinery.pkg.apis.meta.v1.Time", Shape::Time);
    let quantity = leaf("io.k8s.apimachinery.pkg.api.resource.Quantity", Shape::Quantity);
    let int_or_string = leaf("io.k8s.apimachinery.pkg.util.intstr.IntOrString", Shape::IntOrString);
    let owner = obj(
        "io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference",
        vec![required(field("uid", String)), required(field("name", String)), field("controller", Bool)],
    );
    let meta = obj(
        "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
        vec![
            field("name", String),
            field("namespace", String),
            field("uid", String),
            field("resourceVersion", String),
            field("generation", Int64),
            field("creationTimestamp", time),
            field("labels", map(String)),
            field("annotations", map(String)),
            set("finalizers"),
            by_key("ownerReferences", owner, &["uid"]),
            field("managedFields", array(FieldType::Any)),
        ],
    );
    let port = obj(
        "io.k8s.api.core.v1.ContainerPort",
        vec![
            required(field("containerPort", Int32)),
            Field { default: Some("\"TCP\""), ..field("protocol", String) },
            field("name", String),
        ],
    );
    let env = obj("io.k8s.api.core.v1.EnvVar", vec![required(field("name", String)), field("value", String)]);
    let resources = obj(
        "io.k8s.api.core.v1.ResourceRequirements",
        vec![field("limits", map(quantity)), field("requests", map(quantity))],
    );
    let container = obj(
        "io.k8s.api.core.v1.Container",
        vec![
            required(field("name", String)),
            field("image", String),
            field("args", array(String)),
            by_key("env", env, &["name"]),
            by_key("ports", port, &["containerPort", "protocol"]),
            embedded("resources", resources),
        ],
    );
    let volume = obj(
        "io.k8s.api.core.v1.Volume",
        vec![
            required(field("name", String)),
            field("emptyDir", obj("io.k8s.api.core.v1.EmptyDirVolumeSource", vec![field("medium", String)])),
            field("hostPath", obj("io.k8s.api.core.v1.HostPathVolumeSource", vec![field("path", String)])),
        ],
    );
    let mut volumes = by_key("volumes", volume, &["name"]);
    volumes.patch.retain_keys = true;
    let pod = obj(
        "io.k8s.api.core.v1.PodSpec",
        vec![
            required(by_key("containers", container, &["name"])),
            volumes,
            Field { map_atomic: Some(true), ..field("nodeSelector", map(String)) },
            field("hostNetwork", Bool),
        ],
    );
    let template = obj("io.k8s.api.core.v1.PodTemplateSpec", vec![embedded("metadata", meta), embedded("spec", pod)]);
    let rolling = obj(
        "io.k8s.api.apps.v1.RollingUpdateDeployment",
        vec![field("maxSurge", int_or_string), field("maxUnavailable", int_or_string)],
    );
    let mut strategy = embedded(
        "strategy",
        obj("io.k8s.api.apps.v1.DeploymentStrategy", vec![field("type", String), field("rollingUpdate", rolling)]),
    );
    strategy.patch.retain_keys = true;
    let selector = ty(
        "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector",
        Shape::Object,
        true,
        vec![field("matchLabels", map(String))],
    );
    let spec = obj(
        "io.k8s.api.apps.v1.DeploymentSpec",
        vec![
            field("replicas", Int32),
            field("paused", Bool),
            required(field("selector", selector)),
            strategy,
            Field { required: true, ..embedded("template", template) },
        ],
    );
    let condition = obj(
        "io.k8s.api.apps.v1.DeploymentCondition",
        vec![required(field("type", String)), required(field("status", String)), field("lastUpdateTime", time)],
    );
    let status = obj(
        "io.k8s.api.apps.v1.DeploymentStatus",
        vec![field("replicas", Int32), by_key("conditions", condition, &["type"])],
    );
    let FieldType::Ref(root) = obj(
        "io.k8s.api.apps.v1.Deployment",
        vec![
            field("apiVersion", String),
            field("kind", String),
            embedded("metadata", meta),
            embedded("spec", spec),
            embedded("status", status),
        ],
    ) else {
        unreachable!("an object is a reference")
    };
    root.get()
}

/// The type that upstream's tests of strategic merge patch use.
pub(crate) fn merge_item() -> &'static Type {
    static TYPE: LazyLock<&'static Type> = LazyLock::new(|| merge_item_within(3));
    *TYPE
}

/// The type nests in itself; the tables of custom types are trees, so down to some depth.
fn merge_item_within(depth: usize) -> &'static Type {
    use FieldType::{Int32, String};
    let merged = |field: Field, key, retain_keys| {
        let patch = PatchStrategy { merge_key: key, merge: true, replace: false, retain_keys };
        Field { patch, ..field }
    };
    let own = || vec![field("name", String), field("value", String), field("other", String)];
    let shared = |fields: &mut Vec<Field>| {
        fields.push(field("simpleMap", map(String)));
        fields.push(merged(field("mergingIntList", array(Int32)), None, false));
        if depth > 0 {
            let item = FieldType::Ref(TypeId(merge_item_within(depth - 1)));
            fields.push(merged(field("mergingList", array(item)), Some("name"), false));
            fields.push(field("nonMergingList", array(item)));
        }
    };
    let mut retained = own();
    shared(&mut retained);
    let mut fields = own();
    shared(&mut fields);
    fields.push(field("nonMergingIntList", array(Int32)));
    let mut map = field("retainKeysMap", ty("RetainKeysMergeItem", Shape::Object, false, retained));
    map.patch.retain_keys = true;
    fields.push(map);
    let mut raw = field("replacingItem", ty("RawExtension", Shape::RawExtension, false, Vec::new()));
    raw.patch.replace = true;
    fields.push(raw);
    if depth > 0 {
        let item = FieldType::Ref(TypeId(merge_item_within(depth - 1)));
        fields.push(merged(field("mergeItemPtr", array(item)), Some("name"), false));
        fields.push(merged(field("retainKeysMergingList", array(item)), Some("name"), true));
    }
    match ty("MergeItem", Shape::Object, false, fields) {
        FieldType::Ref(id) => id.get(),
        _ => unreachable!("an object is a reference"),
    }
}
